//! Leases with their time: grants and revocations through the log, renewals by the leader after a proof of leadership,
//! wherever it is, and once a majority was told. A member that does not lead never says of itself how much time a lease has left.

mod count;
pub mod witness;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tenure_grpc::internal::witness_server::WitnessServer;
use tenure_proto::internal::command::Wish;
use tenure_proto::internal::{Command, LeaseCheckpoint, LeaseGrant, LeaseRemaining, LeaseRevoke};
use tenure_state::{LeaseId, Millis, Refusal, Renewal, Revision, Standing, TTL_MAX_S};
use tokio::sync::watch;

pub use count::{Counting, count};

use super::error::Error;
use super::forwarding::Elsewhere;
use super::read_index::ReadIndex;
use super::writer::Writer;
use crate::ids::LeaseIds;
use crate::peers::Peers;
use crate::planted::{self, Bug};
use crate::raft::{Consensus, Leadership, Mandate, Unavailable, View};
use witness::telling::Telling;

/// How long to wait after the leader could not be asked, unless another is known before.
const PAUSE: Duration = Duration::from_millis(50);

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

/// What became of renewals.
#[derive(Debug)]
pub struct Renewed {
    /// What to tell the client: the TTL in seconds, 0 for a lease that is not there (any more).
    pub known: Vec<(LeaseId, i64)>,
    /// Those that have to wait for something; no lease else needs to wait with them.
    pub slow: Vec<LeaseId>,
}

#[derive(Clone)]
pub struct Leases {
    view: Arc<View>,
    writer: Writer,
    read_index: ReadIndex,
    counting: Arc<Counting>,
    telling: Telling,
    elsewhere: Elsewhere,
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
    pub consensus: Consensus,
    pub peers: Peers,
    pub ids: Arc<LeaseIds>,
    pub timeout: Duration,
    pub ttl_min_s: i64,
}

impl Leases {
    pub fn new(parts: Parts) -> Leases {
        let Parts { view, writer, read_index, counting, consensus, peers, ids, timeout, ttl_min_s } = parts;
        let leadership = consensus.leadership();
        let elsewhere = Elsewhere::new(peers.clone(), leadership.clone(), peers.patience(), timeout);
        let telling = Telling::new(counting.clone(), consensus, peers);
        Leases { view, writer, read_index, counting, telling, elsewhere, ids, leadership, timeout, ttl_min_s }
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

    /// What this member answers the others with as one of the voters.
    pub fn witness(&self) -> WitnessServer<witness::Service> {
        self.telling.service()
    }

    /// The task by which the leader tells the voters of renewals.
    pub async fn tell_voters(self) {
        self.telling.run().await
    }

    /// What this member's knowledge of others' renewals is worth.
    pub fn standing(&self) -> Standing {
        self.counting.lessor.lock().standing()
    }

    /// An id that no lease has, nor ever had.
    pub fn unused(&self) -> LeaseId {
        self.ids.next()
    }

    pub async fn revoke(&self, id: LeaseId) -> Result<Revision, Error> {
        let written = self.writer.write(command(Wish::LeaseRevoke(LeaseRevoke { id: id.0 }))).await?;
        Ok(written.revision)
    }

    /// Renews each, as far as that is possible at once. Waits for a leader while there is none.
    pub async fn renew(&self, ids: &[LeaseId]) -> Result<Renewed, Error> {
        let mut attempts = self.attempts();
        let ttls = loop {
            let answer = match attempts.leader() {
                Leader::Here => self.renew_here(ids).await,
                Leader::There(_) => self.elsewhere.renew(ids).await.map_err(Error::from),
                Leader::Nobody => Err(Unavailable::NoLeader.into()),
            };
            if let Some(ttls) = attempts.settle(answer).await? {
                break ttls;
            }
        };
        let mut renewed = Renewed { known: Vec::with_capacity(ids.len()), slow: Vec::new() };
        for (id, ttl) in ids.iter().zip(ttls) {
            match ttl {
                Some(ttl_s) => renewed.known.push((*id, ttl_s)),
                None => renewed.slow.push(*id),
            }
        }
        Ok(renewed)
    }

    /// Renews those that have to wait for something; gives what to tell the client of each.
    pub async fn renew_patiently(&self, ids: &[LeaseId]) -> Result<Vec<i64>, Error> {
        let mut attempts = self.attempts();
        loop {
            let answer = match attempts.leader() {
                Leader::Here => self.renew_patiently_here(ids).await,
                Leader::There(leader) => {
                    self.elsewhere.renew_patiently(leader, ids).await.map_err(Error::from)
                }
                Leader::Nobody => Err(Unavailable::NoLeader.into()),
            };
            if let Some(ttls) = attempts.settle(answer).await? {
                return Ok(ttls);
            }
        }
    }

    fn attempts(&self) -> Attempts {
        let until = self.counting.now().plus(self.timeout.as_millis() as u64);
        Attempts { leadership: self.leadership.clone(), counting: self.counting.clone(), until }
    }

    /// As the leader. None for each lease that has to wait for something.
    pub(super) async fn renew_here(&self, ids: &[LeaseId]) -> Result<Vec<Option<i64>>, Error> {
        let asked_at = self.counting.now();
        self.counted().await?;
        if !planted::is(Bug::RenewUnproven) {
            self.prove(ids).await?;
        }
        let mut lessor = self.counting.lessor.lock();
        let now = self.counting.now();
        let renewals = ids.iter().map(|id| match lessor.renew(*id, asked_at, now) {
            Renewal::Renewed { ttl_s } => Some(ttl_s),
            Renewal::Unknown => Some(0),
            Renewal::Leaving | Renewal::ForgetCheckpoint { .. } | Renewal::NotLeader => None,
        });
        let renewals: Vec<Option<i64>> = renewals.collect();
        drop(lessor);
        self.count_renewed(&renewals);
        Ok(renewals)
    }

    /// As the leader: waits for removals' outcomes, or for the log to forget checkpoints.
    pub(super) async fn renew_patiently_here(&self, ids: &[LeaseId]) -> Result<Vec<i64>, Error> {
        let asked_at = self.counting.now();
        let patient = async {
            self.counted().await?;
            self.prove(ids).await?;
            let mut ttls = vec![None; ids.len()];
            loop {
                let settled = self.counting.settled.notified();
                match self.renew_what_can_be(ids, &mut ttls, asked_at) {
                    Wait::Nothing => {
                        self.count_renewed(&ttls);
                        return Ok(ttls.into_iter().flatten().collect());
                    }
                    // What was proven was so of another leadership.
                    Wait::Count => return Err(Unavailable::LeaderChanged.into()),
                    Wait::Checkpoints(leases) => self.forget_checkpoints(leases).await?,
                    Wait::Removals => settled.await,
                }
            }
        };
        tokio::time::timeout(self.timeout, patient).await.unwrap_or(Err(Unavailable::TimedOut.into()))
    }

    /// Returns once it is proven that this member leads, and a majority was told that these may be renewed, both begun after this
    /// call: what must be before a renewal counts.
    async fn prove(&self, ids: &[LeaseId]) -> Result<(), Error> {
        let told = async { Ok(self.telling.tell(ids).await?) };
        tokio::try_join!(self.confirm_here(), told)?;
        Ok(())
    }

    fn count_renewed(&self, ttls: &[Option<i64>]) {
        let renewed = ttls.iter().filter(|ttl| ttl.is_some_and(|ttl_s| ttl_s > 0)).count();
        self.counting.meters.leases.renewed(renewed);
    }

    /// Renews those that have no TTL yet, and says what the others wait for.
    fn renew_what_can_be(&self, ids: &[LeaseId], ttls: &mut [Option<i64>], asked_at: Millis) -> Wait {
        let (mut remembered, mut leaving) = (Vec::new(), false);
        let mut lessor = self.counting.lessor.lock();
        let now = self.counting.now();
        for (id, ttl) in ids.iter().zip(ttls).filter(|(_, ttl)| ttl.is_none()) {
            match lessor.renew(*id, asked_at, now) {
                Renewal::Renewed { ttl_s } => *ttl = Some(ttl_s),
                Renewal::Unknown => *ttl = Some(0),
                Renewal::Leaving => leaving = true,
                Renewal::ForgetCheckpoint { epoch, ttl_s } => {
                    remembered.push(LeaseRemaining { id: id.0, epoch, remaining_ttl: ttl_s });
                }
                Renewal::NotLeader => return Wait::Count,
            }
        }
        match (remembered.is_empty(), leaving) {
            (false, _) => Wait::Checkpoints(remembered),
            (true, true) => Wait::Removals,
            (true, false) => Wait::Nothing,
        }
    }

    /// Has the log forget what is left of these leases, in one entry for all: after a change of leader or a long silence many are
    /// renewed at once.
    async fn forget_checkpoints(&self, leases: Vec<LeaseRemaining>) -> Result<(), Error> {
        let term = self.counting.lessor.lock().term().ok_or(Unavailable::LeaderChanged)?;
        let wish = Wish::LeaseCheckpoint(LeaseCheckpoint { term, leases });
        self.writer.write_as_leader(command(wish)).await?;
        self.confirm_here().await
    }

    /// Returns once it is proven that this member leads, by a proof that began after this call, and all that was committed
    /// by then is applied.
    async fn confirm_here(&self) -> Result<(), Error> {
        Ok(self.read_index.confirm_here().await?)
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

    /// None when there is no such lease.
    pub async fn time_to_live(
        &self,
        id: LeaseId,
        with_keys: bool,
    ) -> Result<(Option<TimeToLive>, Revision), Error> {
        let mut attempts = self.attempts();
        self.read_index.confirm().await?;
        let remaining = loop {
            let answer = match attempts.leader() {
                Leader::Here => self.remaining_here(id).await,
                Leader::There(leader) => self.elsewhere.remaining(leader, id).await.map_err(Error::from),
                Leader::Nobody => Err(Unavailable::NoLeader.into()),
            };
            if let Some(remaining) = attempts.settle(answer).await? {
                break remaining;
            }
        };
        let machine = self.view.machine();
        let revision = machine.revision();
        let (Some(lease), Some(remaining_s)) = (machine.leases().get(id), remaining) else {
            return Ok((None, revision));
        };
        let keys = if with_keys {
            lease.keys.iter().map(|key| Bytes::copy_from_slice(key)).collect()
        } else {
            Vec::new()
        };
        let left = TimeToLive { granted_s: lease.ttl_s, remaining_s: remaining_s.min(lease.ttl_s), keys };
        Ok((Some(left), revision))
    }

    /// As the leader: the seconds a lease has left; None when there is no such lease.
    pub(super) async fn remaining_here(&self, id: LeaseId) -> Result<Option<i64>, Error> {
        self.confirm_here().await?;
        self.counted().await?;
        let lessor = self.counting.lessor.lock();
        let remaining = lessor.remaining(id, self.counting.now());
        if lessor.term().is_none() {
            return Err(Unavailable::LeaderChanged.into());
        }
        Ok(remaining.map(|left| left.remaining_s))
    }

    /// All leases, the one that ends first at the front.
    pub async fn list(&self) -> Result<(Vec<LeaseId>, Revision), Error> {
        let mut attempts = self.attempts();
        self.read_index.confirm().await?;
        loop {
            let answer = match attempts.leader() {
                Leader::Here => self.order_here().await,
                Leader::There(leader) => self.elsewhere.order(leader).await.map_err(Error::from),
                Leader::Nobody => Err(Unavailable::NoLeader.into()),
            };
            if let Some(ids) = attempts.settle(answer).await? {
                return Ok((ids, self.view.machine().revision()));
            }
        }
    }

    /// As the leader: all leases, the one that ends first at the front.
    pub(super) async fn order_here(&self) -> Result<Vec<LeaseId>, Error> {
        self.confirm_here().await?;
        self.counted().await?;
        let ids = self.counting.lessor.lock().ids_by_deadline();
        Ok(ids.ok_or(Unavailable::LeaderChanged)?)
    }
}

/// What renewals have to wait for before it is worth asking again.
enum Wait {
    Nothing,
    /// For the count to begin.
    Count,
    Checkpoints(Vec<LeaseRemaining>),
    Removals,
}

/// Whom to ask.
enum Leader {
    Here,
    There(Mandate),
    Nobody,
}

/// Asking until a leader answers or the time is over.
struct Attempts {
    leadership: watch::Receiver<Leadership>,
    counting: Arc<Counting>,
    until: Millis,
}

impl Attempts {
    fn leader(&mut self) -> Leader {
        let now = *self.leadership.borrow_and_update();
        match now.mandate() {
            Some(_) if now.here => Leader::Here,
            Some(mandate) => Leader::There(mandate),
            None => Leader::Nobody,
        }
    }

    /// None after a pause, when it is worth another attempt.
    async fn settle<T>(&mut self, answer: Result<T, Error>) -> Result<Option<T>, Error> {
        match answer {
            Err(Error::Unavailable(unavailable)) if unavailable != Unavailable::Stopped => {
                if self.counting.now() >= self.until {
                    tracing::debug!(?unavailable, "no leader answered about leases");
                    return Err(Unavailable::TimedOut.into());
                }
                match tokio::time::timeout(PAUSE, self.leadership.changed()).await {
                    // Nobody would ever tell of another leader: this member is stopping.
                    Ok(Err(_)) => Err(Unavailable::Stopped.into()),
                    // Without news there is the next attempt.
                    Ok(Ok(())) | Err(_) => Ok(None),
                }
            }
            answer => answer.map(Some),
        }
    }
}

/// A wish of the cluster itself or of a caller while there are no users.
pub(super) fn command(wish: Wish) -> Command {
    Command { wish: Some(wish), ..Command::default() }
}
