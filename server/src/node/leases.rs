//! Leases with their time: grants and revocations through the log, renewals on the leader after a proof of leadership,
//! and the task that has run-out leases removed.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tenure_proto::internal::command::Wish;
use tenure_proto::internal::{
    Command, ExpiredLease, LeaseCheckpoint, LeaseExpire, LeaseGrant, LeaseRemaining, LeaseRevoke,
};
use tenure_state::{Effect, LeaseId, Lessor, Millis, Pace, Refusal, Renewal, Response, Revision, TTL_MAX_S};
use tokio::sync::{Notify, watch};

use super::error::Error;
use super::read_index::ReadIndex;
use super::writer::Writer;
use crate::clock::Clock;
use crate::ids::LeaseIds;
use crate::raft::{Consensus, Leadership, Unavailable, View};

/// Run-out leases removed by one entry: enough to be quick, few enough that other entries pass in between.
const EXPIRIES_AT_ONCE: usize = 500;
/// Checkpoints written by one entry.
const CHECKPOINTS_AT_ONCE: usize = 1_000;
/// How long a lease is left alone after its time ran out, milliseconds: a client that counts from the answer, not from its
/// question as it should, is still right if the answer came that quickly.
const GRACE_MS: u64 = 200;
/// How long to wait after a removal could not be proposed.
const RETRY: Duration = Duration::from_millis(500);

/// What a lease has left.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TimeToLive {
    /// Seconds granted.
    pub granted_s: i64,
    /// Seconds left.
    pub remaining_s: i64,
    /// The keys that go with it, in order; only if asked for.
    pub keys: Vec<Bytes>,
}

#[derive(Clone)]
pub struct Leases {
    view: Arc<View>,
    writer: Writer,
    read_index: ReadIndex,
    counting: Arc<Counting>,
    ids: Arc<LeaseIds>,
    leadership: watch::Receiver<Leadership>,
    /// How long a renewal may wait for what it depends on.
    timeout: Duration,
    /// Seconds; a shorter wish is raised to it.
    ttl_min_s: i64,
}

/// What [`Leases`] is made of.
pub struct Parts {
    pub view: Arc<View>,
    pub writer: Writer,
    pub read_index: ReadIndex,
    pub counting: Arc<Counting>,
    pub ids: Arc<LeaseIds>,
    pub leadership: watch::Receiver<Leadership>,
    pub timeout: Duration,
    pub ttl_min_s: i64,
}

/// The leader's count, and those who wait for it to change. Whoever needs the machine as well locks the lessor first.
pub struct Counting {
    lessor: Mutex<Lessor>,
    clock: Arc<dyn Clock>,
    /// Wakes the task when a deadline may have come nearer.
    nearer: Notify,
    /// Wakes renewals that wait for a removal's outcome.
    settled: Notify,
}

impl Counting {
    pub fn new(clock: Arc<dyn Clock>) -> Counting {
        let lessor = Mutex::new(Lessor::new(Pace::default()));
        Counting { lessor, clock, nearer: Notify::new(), settled: Notify::new() }
    }

    /// Follows applied commands, in their order.
    pub fn follow(&self, effect: &Effect) {
        match effect {
            Effect::LeaseGranted { .. } | Effect::ExpiryDropped { .. } => {
                self.lessor.lock().follow(effect, self.now());
                self.nearer.notify_one();
            }
            Effect::LeaseGone { .. } | Effect::LeaseCheckpointed { .. } => {
                self.lessor.lock().follow(effect, self.now());
                self.settled.notify_waiters();
            }
            Effect::Changed(_)
            | Effect::Compacted { .. }
            | Effect::AlarmRaised(_)
            | Effect::AlarmCleared(_)
            | Effect::MemberPublished { .. } => {}
        }
    }

    fn now(&self) -> Millis {
        Millis(self.clock.now_ms())
    }
}

impl Leases {
    pub fn new(parts: Parts) -> Leases {
        let Parts { view, writer, read_index, counting, ids, leadership, timeout, ttl_min_s } = parts;
        Leases { view, writer, read_index, counting, ids, leadership, timeout, ttl_min_s }
    }

    /// `id` 0 lets this member choose one. Gives the id and the TTL, which may have been raised.
    pub async fn grant(&self, id: i64, ttl_s: i64) -> Result<(LeaseId, i64, Revision), Error> {
        if ttl_s > TTL_MAX_S {
            return Err(Refusal::LeaseTtlTooLarge.into());
        }
        let id = if id == 0 { self.ids.next().0 } else { id };
        let ttl = ttl_s.max(self.ttl_min_s);
        let written = self.writer.write(command(Wish::LeaseGrant(LeaseGrant { id, ttl }))).await?;
        Ok((LeaseId(id), ttl, written.revision))
    }

    pub async fn revoke(&self, id: LeaseId) -> Result<Revision, Error> {
        let written = self.writer.write(command(Wish::LeaseRevoke(LeaseRevoke { id: id.0 }))).await?;
        Ok(written.revision)
    }

    /// Renews each; gives what to tell the client: the TTL in seconds, 0 for a lease that is not there (any more).
    pub async fn renew(&self, ids: &[LeaseId]) -> Result<Vec<i64>, Error> {
        let asked_at = self.counting.now();
        self.read_index.confirm().await?;
        let mut ttls = Vec::with_capacity(ids.len());
        {
            let mut lessor = self.counting.lessor.lock();
            let now = self.counting.now();
            ttls.extend(ids.iter().map(|id| lessor.renew(*id, asked_at, now)));
        }
        let mut answers = Vec::with_capacity(ids.len());
        for (id, renewal) in ids.iter().zip(ttls) {
            answers.push(match renewal {
                Renewal::Renewed { ttl_s } => ttl_s,
                Renewal::Unknown => 0,
                Renewal::Leaving | Renewal::ForgetCheckpoint { .. } | Renewal::NotLeader => {
                    self.renew_slowly(*id, renewal, asked_at).await?
                }
            });
        }
        Ok(answers)
    }

    /// A renewal that must wait: for the count to begin, for a removal's outcome, or for the log to forget a checkpoint.
    async fn renew_slowly(&self, id: LeaseId, renewal: Renewal, asked_at: Millis) -> Result<i64, Error> {
        let waited = tokio::time::timeout(self.timeout, self.renew_at_last(id, renewal, asked_at)).await;
        waited.unwrap_or(Err(Unavailable::TimedOut.into()))
    }

    async fn renew_at_last(&self, id: LeaseId, mut renewal: Renewal, asked_at: Millis) -> Result<i64, Error> {
        loop {
            let settled = self.counting.settled.notified();
            match renewal {
                Renewal::Renewed { ttl_s } => return Ok(ttl_s),
                Renewal::Unknown => return Ok(0),
                Renewal::NotLeader => self.counted().await?,
                Renewal::Leaving => {
                    // Asked once more before waiting: the outcome may have come between.
                    if self.ask(id, asked_at) == Renewal::Leaving {
                        settled.await;
                    }
                }
                Renewal::ForgetCheckpoint { epoch, ttl_s } => {
                    let term = self.counting.lessor.lock().term().ok_or(Unavailable::LeaderChanged)?;
                    let leases = vec![LeaseRemaining { id: id.0, epoch, remaining_ttl: ttl_s }];
                    let wish = Wish::LeaseCheckpoint(LeaseCheckpoint { term, leases });
                    self.writer.write_own(command(wish)).await?;
                    self.read_index.confirm().await?;
                }
            }
            renewal = self.ask(id, asked_at);
        }
    }

    /// Returns once this member, which leads, counts. Between an election and that lies one round of proof.
    pub async fn counted(&self) -> Result<(), Error> {
        let begun = async {
            loop {
                let settled = self.counting.settled.notified();
                if self.counting.lessor.lock().term().is_some() {
                    return Ok(());
                }
                if !self.leadership.borrow().here {
                    return Err(Unavailable::LeaderChanged.into());
                }
                settled.await;
            }
        };
        tokio::time::timeout(self.timeout, begun).await.unwrap_or(Err(Unavailable::TimedOut.into()))
    }

    fn ask(&self, id: LeaseId, asked_at: Millis) -> Renewal {
        let now = self.counting.now();
        self.counting.lessor.lock().renew(id, asked_at, now)
    }

    /// None when there is no such lease.
    pub async fn time_to_live(
        &self,
        id: LeaseId,
        with_keys: bool,
    ) -> Result<(Option<TimeToLive>, Revision), Error> {
        self.read_index.confirm().await?;
        self.counted().await?;
        let lessor = self.counting.lessor.lock();
        let machine = self.view.machine();
        let revision = machine.revision();
        let Some(lease) = machine.leases().get(id) else { return Ok((None, revision)) };
        let left = lessor.remaining(id, self.counting.now()).map_or(0, |left| left.remaining_s);
        let keys = if with_keys {
            lease.keys.iter().map(|key| Bytes::copy_from_slice(key)).collect()
        } else {
            Vec::new()
        };
        let left = TimeToLive { granted_s: lease.ttl_s, remaining_s: left.min(lease.ttl_s), keys };
        Ok((Some(left), revision))
    }

    /// All leases, the one that ends first at the front.
    pub async fn list(&self) -> Result<(Vec<LeaseId>, Revision), Error> {
        self.read_index.confirm().await?;
        self.counted().await?;
        let revision = self.view.machine().revision();
        let ids = self.counting.lessor.lock().ids_by_deadline();
        Ok((ids.ok_or(Unavailable::LeaderChanged)?, revision))
    }
}

/// The task that counts while this member leads: has run-out leases removed, and remaining times remembered.
pub async fn count(leases: Leases, consensus: Consensus, extension_ms: u64) {
    let mut leadership = consensus.leadership();
    loop {
        let now = *leadership.borrow_and_update();
        if !now.here {
            leases.counting.lessor.lock().demote();
            leases.counting.settled.notify_waiters();
            if leadership.changed().await.is_err() {
                return;
            }
            continue;
        }
        if leases.counting.lessor.lock().term() != Some(now.term)
            && !promote(&leases, now.term, extension_ms).await
        {
            // The proof failed: either leadership is gone, which the next look will show, or it is worth another try.
            tokio::time::sleep(RETRY).await;
            continue;
        }
        tokio::select! {
            changed = leadership.changed() => if changed.is_err() { return },
            () = remove_due(&leases) => {}
        }
    }
}

/// Takes up the count once all entries of earlier leaders are applied here.
async fn promote(leases: &Leases, term: u64, extension_ms: u64) -> bool {
    if leases.read_index.confirm().await.is_err() {
        return false;
    }
    // With the lessor held: an effect that is followed later than the state it came from is followed twice, never missed.
    let mut lessor = leases.counting.lessor.lock();
    let machine = leases.view.machine();
    lessor.promote(term, leases.counting.now(), machine.leases().iter(), extension_ms);
    drop(lessor);
    leases.counting.settled.notify_waiters();
    true
}

/// Waits for the next lease to run out, and has what is due removed or remembered.
async fn remove_due(leases: &Leases) {
    let counting = &leases.counting;
    let nearer = counting.nearer.notified();
    let next = counting.lessor.lock().next_due();
    match next {
        Some(due) => {
            let wait = Duration::from_millis(due.plus(GRACE_MS).since(counting.now()));
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = nearer => {}
            }
        }
        None => nearer.await,
    }
    let now = counting.now();
    let (term, expired, checkpoints) = {
        let mut lessor = counting.lessor.lock();
        let Some(term) = lessor.term() else { return };
        let ended = Millis(now.0.saturating_sub(GRACE_MS));
        (term, lessor.expired(ended, EXPIRIES_AT_ONCE), lessor.checkpoints_due(now, CHECKPOINTS_AT_ONCE))
    };
    if !checkpoints.is_empty() {
        let remaining = checkpoints.iter().map(|checkpoint| LeaseRemaining {
            id: checkpoint.id.0,
            epoch: checkpoint.epoch,
            remaining_ttl: checkpoint.remaining_s,
        });
        let wish = Wish::LeaseCheckpoint(LeaseCheckpoint { term, leases: remaining.collect() });
        propose_aside(leases.clone(), command(wish), Vec::new());
    }
    if !expired.is_empty() {
        let ids = expired.iter().map(|(id, _)| *id).collect();
        let expired = expired.into_iter().map(|(id, epoch)| ExpiredLease { id: id.0, epoch }).collect();
        propose_aside(leases.clone(), command(Wish::LeaseExpire(LeaseExpire { term, leases: expired })), ids);
    }
}

/// Proposes without holding up the count: what is due next goes into the next entry meanwhile. An expiry that was not
/// carried out is due again.
fn propose_aside(leases: Leases, command: Command, expiring: Vec<LeaseId>) {
    tokio::spawn(async move {
        match leases.writer.write_own(command).await {
            Ok(written) => {
                if let Response::LeasesExpired { removed } = written.response {
                    tracing::debug!(removed, "leases ran out");
                }
            }
            Err(error) => {
                tracing::warn!(
                    ?error,
                    leases = expiring.len(),
                    "could not have run-out leases removed; trying again"
                );
                tokio::time::sleep(RETRY).await;
                leases.counting.lessor.lock().expiry_failed(expiring, leases.counting.now());
                leases.counting.nearer.notify_one();
            }
        }
    });
}

/// A wish of the cluster itself or of a caller while there are no users.
pub(super) fn command(wish: Wish) -> Command {
    Command { wish: Some(wish), ..Command::default() }
}
