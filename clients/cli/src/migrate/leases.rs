//! Leases on the other side: the same ids where nobody else has them there, with the time that is left, kept alive for as long as
//! the source's are.
//!
//! A lease of which more than half is left is one that somebody renews, most likely: it gets its full TTL, so that its holder finds
//! what it is used to. Any other gets what is left. So no lease ends earlier than it would have at the source.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tenure_client::{Client, Error, LeaseLeft};
use tokio::task::{JoinHandle, JoinSet};

use super::source::{Source, patiently};
use crate::failure::Failure;
use crate::running::warn;

/// Asked about at once.
const AT_ONCE: usize = 32;
/// How often the keeper looks whether one is due.
const LOOK: Duration = Duration::from_millis(500);
const LONGEST_LOOK: Duration = Duration::from_secs(600);
/// For as long as no clock counts.
const FOR_EVER: Duration = Duration::from_secs(u32::MAX as u64);

/// What became of a lease of the source.
#[derive(Clone, Copy, Debug)]
enum Known {
    Copied(Copied),
    /// The source has it no more; its id at the target, if it ever got there.
    Ended(Option<i64>),
}

#[derive(Clone, Copy, Debug)]
struct Copied {
    id: i64,
    ttl: Duration,
    /// When it last had all of its time, at the latest.
    renewed: Instant,
    /// When to look whether the source's was renewed.
    due: Instant,
}

impl Copied {
    /// The next look comes while there is time to renew it.
    fn new(id: i64, ttl: Duration, renewed: Instant) -> Copied {
        let left = ttl.saturating_sub(renewed.elapsed());
        let due = Instant::now() + (ttl / 4).min(left / 2).clamp(LOOK, LONGEST_LOOK);
        Copied { id, ttl, renewed, due }
    }
}

#[derive(Clone)]
struct Shared {
    source: Source,
    target: Client,
    known: Arc<Mutex<BTreeMap<i64, Known>>>,
}

/// All that are known, and a task that keeps them until this is dropped.
pub struct Leases {
    shared: Shared,
    keeper: JoinHandle<()>,
}

impl Drop for Leases {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

impl Leases {
    pub fn new(source: Source, target: Client) -> Leases {
        let shared = Shared { source, target, known: Arc::default() };
        let keeper = tokio::spawn(shared.clone().keep());
        Leases { shared, keeper }
    }

    /// Makes those that are not known yet. 0 is no lease.
    pub async fn learn(&self, ids: impl IntoIterator<Item = i64>) -> Result<(), Failure> {
        let mut new: Vec<i64> = {
            let known = self.shared.lock();
            ids.into_iter().filter(|id| *id != 0 && !known.contains_key(id)).collect()
        };
        new.sort_unstable();
        new.dedup();
        for some in new.chunks(AT_ONCE) {
            let mut under_way: JoinSet<Result<(), Error>> = JoinSet::new();
            for id in some {
                let (shared, id) = (self.shared.clone(), *id);
                under_way.spawn(async move {
                    let known = shared.copy(id).await?;
                    shared.lock().insert(id, known);
                    Ok(())
                });
            }
            while let Some(done) = under_way.join_next().await {
                done.map_err(|error| Failure::failed(format!("a task ended: {error}")))??;
            }
        }
        Ok(())
    }

    /// Those without keys too.
    pub async fn learn_all(&self) -> Result<(), Failure> {
        let ids = match &self.shared.source {
            Source::Live(client) => patiently(|| async { client.leases().list().await }).await?,
            Source::File(file) => file.leases(),
        };
        self.learn(ids).await
    }

    /// The target's id for one that was learnt; 0 for none; None: it has ended, and its keys with it.
    pub fn at_target(&self, id: i64) -> Option<i64> {
        if id == 0 {
            return Some(0);
        }
        match self.shared.lock().get(&id) {
            Some(Known::Copied(copied)) => Some(copied.id),
            Some(Known::Ended(_)) | None => None,
        }
    }

    /// How many live.
    pub fn count(&self) -> usize {
        self.shared.lock().values().filter(|known| matches!(known, Known::Copied(_))).count()
    }

    /// Ends those at the target that have ended at the source and have no keys: what is left of their time is nobody's.
    pub async fn end_the_ended(&self) -> Result<(), Failure> {
        let ended: Vec<i64> = {
            let known = self.shared.lock();
            let ended = known.values().filter_map(|known| match known {
                Known::Ended(at_target) => *at_target,
                Known::Copied(_) => None,
            });
            ended.collect()
        };
        let leases = self.shared.target.leases();
        for id in ended {
            let left = patiently(|| async { leases.time_to_live(id).await }).await?;
            if left.is_some_and(|left| left.keys.is_empty()) {
                patiently(|| async { leases.revoke(id).await }).await?;
            }
        }
        Ok(())
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<i64, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn at_source(&self, id: i64) -> Result<Option<LeaseLeft>, Error> {
        match &self.source {
            Source::Live(client) => patiently(|| async { client.leases().time_to_live(id).await }).await,
            Source::File(file) => Ok(file.lease(id).cloned()),
        }
    }

    async fn copy(&self, id: i64) -> Result<Known, Error> {
        let Some(left) = self.at_source(id).await? else {
            return Ok(match &self.source {
                Source::Live(_) => Known::Ended(None),
                // The key outlived its lease's record: so it would in an etcd that started from this file.
                Source::File(_) => Known::Copied(Copied::new(0, FOR_EVER, Instant::now())),
            });
        };
        let renews = left.remaining_s.saturating_mul(2) > left.granted_s;
        let ttl_s = if renews { left.granted_s } else { left.remaining_s }.max(1);
        let renewed = Instant::now();
        let leases = self.target.leases();
        let grant = || async { leases.grant_as(id, ttl_s).await };
        let (at_target, ttl_s) = match patiently(grant).await? {
            Some(ttl_s) => (id, ttl_s),
            None => self.among_others(id, ttl_s, &left).await?,
        };
        Ok(Known::Copied(Copied::new(at_target, seconds(ttl_s), renewed)))
    }

    /// The target has a lease of that id. It is an earlier run's if it has no keys but this one's; else another id is taken.
    async fn among_others(&self, id: i64, ttl_s: i64, left: &LeaseLeft) -> Result<(i64, i64), Error> {
        let leases = self.target.leases();
        if let Some(there) = patiently(|| async { leases.time_to_live(id).await }).await?
            && there.keys.iter().all(|key| left.keys.contains(key))
            && let Some(ttl_s) = patiently(|| async { leases.keep_alive(id).await }).await?
        {
            return Ok((id, ttl_s));
        }
        let (other, ttl_s) = patiently(|| async { leases.grant(ttl_s).await }).await?;
        warn(&format!("the target has a lease {id:x} of its own: the source's is {other:x} there"));
        Ok((other, ttl_s))
    }

    /// Renews those at the target that have less time than at the source.
    async fn keep(self) {
        loop {
            tokio::time::sleep(LOOK).await;
            let due: Vec<(i64, Copied)> = {
                let known = self.lock();
                let copied = known.iter().filter_map(|(id, known)| match known {
                    Known::Copied(copied) => Some((*id, *copied)),
                    Known::Ended(_) => None,
                });
                copied.filter(|(_, copied)| copied.id != 0 && copied.due <= Instant::now()).collect()
            };
            for some in due.chunks(AT_ONCE) {
                let mut under_way = JoinSet::new();
                for (id, copied) in some {
                    let (shared, id, copied) = (self.clone(), *id, *copied);
                    under_way.spawn(async move { shared.renew(id, copied).await });
                }
                // Whoever could not be asked is due again.
                while under_way.join_next().await.is_some() {}
            }
        }
    }

    fn note(&self, id: i64, copied: Copied) {
        self.lock().insert(id, Known::Copied(copied));
    }

    async fn renew(&self, id: i64, copied: Copied) {
        let left = match &self.source {
            Source::Live(client) => match client.leases().time_to_live(id).await {
                Ok(Some(left)) => seconds(left.remaining_s),
                Ok(None) => {
                    // Its keys go with what the source's watch tells.
                    self.lock().insert(id, Known::Ended(Some(copied.id)));
                    return;
                }
                Err(_) => return,
            },
            // Time stands still in a file until all of it is copied.
            Source::File(_) => FOR_EVER,
        };
        if copied.ttl.saturating_sub(copied.renewed.elapsed()) >= left {
            self.note(id, Copied::new(copied.id, copied.ttl, copied.renewed));
            return;
        }
        let renewed = Instant::now();
        match self.target.leases().keep_alive(copied.id).await {
            Ok(Some(ttl_s)) => {
                self.note(id, Copied::new(copied.id, seconds(ttl_s), renewed));
            }
            // It ran out there: to be learnt anew, and its keys with it by the comparison.
            Ok(None) => drop(self.lock().remove(&id)),
            Err(_) => {}
        }
    }
}

/// Of a wire that may say anything.
fn seconds(count: i64) -> Duration {
    Duration::from_secs(u64::try_from(count).unwrap_or_default()).min(FOR_EVER)
}
