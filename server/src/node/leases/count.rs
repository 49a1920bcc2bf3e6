//! What only the leader does for leases: counts their time, and has those that ran out removed.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tenure_proto::internal::command::Wish;
use tenure_proto::internal::{ExpiredLease, LeaseCheckpoint, LeaseExpire, LeaseRemaining};
use tenure_state::{Checkpoint, Effect, LeaseId, Lessor, Millis, Pace, Response};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::witness::recalling::recall;
use super::{Leases, command};
use crate::clock::Clock;
use crate::metrics::Meters;
use crate::peers::Peers;
use crate::raft::{Consensus, View};

/// Run-out leases removed by one entry: enough to be quick, few enough that other entries pass in between.
const EXPIRIES_AT_ONCE: usize = 500;
/// Checkpoints written by one entry.
const CHECKPOINTS_AT_ONCE: usize = 1_000;
/// How long a lease is left alone after its time ran out, milliseconds: a client that counts from the answer, not from its
/// question as it should, is still right if the answer came that quickly.
const GRACE_MS: u64 = 200;
/// The longest pause between two turns of many.
const REST_MAX: Duration = Duration::from_millis(200);
/// How long to wait after a removal could not be proposed.
const RETRY: Duration = Duration::from_millis(500);

/// The leader's count, and those who wait for it to change. Whoever needs the machine as well locks the lessor first.
pub struct Counting {
    pub(super) lessor: Mutex<Lessor>,
    view: Arc<View>,
    clock: Arc<dyn Clock>,
    /// Wakes the task when a deadline may have come nearer.
    pub(super) nearer: Notify,
    /// Wakes renewals that wait for a removal's outcome.
    pub(super) settled: Notify,
    pub(in crate::node) meters: Arc<Meters>,
}

impl Counting {
    /// For leases as they are in the view now, before any effect of a later entry is followed.
    pub fn new(view: Arc<View>, clock: Arc<dyn Clock>, meters: Arc<Meters>) -> Counting {
        let lessor = Mutex::new(Lessor::new(Pace::default()));
        let (nearer, settled) = (Notify::new(), Notify::new());
        let counting = Counting { lessor, view, clock, nearer, settled, meters };
        counting.restored();
        counting
    }

    /// The whole state was replaced by a newer one.
    pub fn restored(&self) {
        let mut lessor = self.lessor.lock();
        lessor.restored(self.now(), self.view.machine().leases().iter());
    }

    /// Follows applied commands, in their order.
    pub fn follow(&self, effect: &Effect) {
        match effect {
            Effect::LeaseGranted { .. } | Effect::ExpiryDropped { .. } => {
                self.lessor.lock().follow(effect, self.now());
                self.meters.leases.follow(effect, None);
                self.nearer.notify_one();
            }
            Effect::LeaseGone { id } => {
                let now = self.now();
                let mut lessor = self.lessor.lock();
                let overdue = lessor.overdue_ms(*id, now).map(Duration::from_millis);
                lessor.follow(effect, now);
                drop(lessor);
                self.meters.leases.follow(effect, overdue);
                self.settled.notify_waiters();
            }
            Effect::LeaseCheckpointed { .. } => {
                self.lessor.lock().follow(effect, self.now());
                self.settled.notify_waiters();
            }
            Effect::MembersChanged { .. } => self.lessor.lock().follow(effect, self.now()),
            Effect::Changed(_)
            | Effect::Compacted { .. }
            | Effect::AlarmRaised(_)
            | Effect::AlarmCleared(_)
            | Effect::MemberPublished { .. } => {}
        }
    }

    pub(super) fn now(&self) -> Millis {
        Millis(self.clock.now_ms())
    }
}

/// The task that counts while this member leads: has run-out leases removed, and remaining times remembered.
pub async fn count(leases: Leases, consensus: Consensus, peers: Peers) {
    let mut leadership = consensus.leadership();
    let mut turns = Arc::new(Semaphore::new(1));
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
        if leases.counting.lessor.lock().term() != Some(now.term) {
            if !promote(&leases, &consensus, &peers, now.term).await {
                // The proof failed: either leadership is gone, which the next look will show, or it is worth another try.
                tokio::time::sleep(RETRY).await;
                continue;
            }
            // What an earlier leadership has under way may take its whole timeout; this one does not wait for that.
            turns = Arc::new(Semaphore::new(1));
        }
        tokio::select! {
            biased;
            changed = leadership.changed() => if changed.is_err() { return },
            () = remove_due(&leases, &turns) => {}
        }
    }
}

/// Takes up the count once all entries of earlier leaders are applied here, and has the other voters asked what they know.
async fn promote(leases: &Leases, consensus: &Consensus, peers: &Peers, term: u64) -> bool {
    if leases.confirm_here().await.is_err() {
        return false;
    }
    let followed = *consensus.applied().borrow();
    let extension_ms = peers.patience().as_millis() as u64;
    {
        // With the lessor held: an effect that is followed later than the state it came from is followed twice, never missed.
        let mut lessor = leases.counting.lessor.lock();
        let machine = leases.view.machine();
        lessor.promote(term, followed, leases.counting.now(), machine.leases().iter(), extension_ms);
    }
    leases.counting.settled.notify_waiters();
    let (counting, consensus, peers) = (leases.counting.clone(), consensus.clone(), peers.clone());
    tokio::spawn(async move { recall(&counting, &consensus, &peers, term, followed).await });
    true
}

/// Waits for the next lease to run out, and has what is due removed or remembered: one turn.
async fn remove_due(leases: &Leases, turns: &Arc<Semaphore>) {
    let counting = &leases.counting;
    let nearer = counting.nearer.notified();
    let next = counting.lessor.lock().next_due();
    match next {
        Some(due) => {
            let wait = Duration::from_millis(due.plus(GRACE_MS).since(counting.now()));
            tokio::select! {
                biased;
                () = tokio::time::sleep(wait) => {}
                () = nearer => {}
            }
        }
        None => nearer.await,
    }
    let Ok(turn) = turns.clone().acquire_owned().await else { return };
    let now = counting.now();
    // From here on nothing may be waited for: what is handed out must be proposed.
    let (term, expired, checkpoints) = {
        let mut lessor = counting.lessor.lock();
        let Some(term) = lessor.term() else { return };
        let ended = Millis(now.0.saturating_sub(GRACE_MS));
        (term, lessor.expired(ended, EXPIRIES_AT_ONCE), lessor.checkpoints_due(now, CHECKPOINTS_AT_ONCE))
    };
    if !expired.is_empty() || !checkpoints.is_empty() {
        tokio::spawn(take_turn(leases.clone(), term, expired, checkpoints, turn));
    }
}

/// Proposes without holding up the count, and then, when more may be waiting, leaves the log to others for as long as that took.
/// So that even the end of very many leases takes no more than half of the time of the apply task, in pieces of one entry.
async fn take_turn(
    leases: Leases,
    term: u64,
    expired: Vec<(LeaseId, u64)>,
    checkpoints: Vec<Checkpoint>,
    turn: OwnedSemaphorePermit,
) {
    let began = leases.counting.now();
    let more = expired.len() == EXPIRIES_AT_ONCE || checkpoints.len() == CHECKPOINTS_AT_ONCE;
    tokio::join!(remember(&leases, term, checkpoints), remove(&leases, term, expired));
    if more {
        let took = Duration::from_millis(leases.counting.now().since(began));
        tokio::time::sleep(took.min(REST_MAX)).await;
    }
    drop(turn);
}

/// A checkpoint that is lost is made up for by the next.
async fn remember(leases: &Leases, term: u64, checkpoints: Vec<Checkpoint>) {
    if checkpoints.is_empty() {
        return;
    }
    let remaining = checkpoints.iter().map(|checkpoint| LeaseRemaining {
        id: checkpoint.id.0,
        epoch: checkpoint.epoch,
        remaining_ttl: checkpoint.remaining_s,
    });
    let wish = Wish::LeaseCheckpoint(LeaseCheckpoint { term, leases: remaining.collect() });
    if let Err(error) = leases.writer.write_as_leader(command(wish)).await {
        tracing::debug!(?error, leases = checkpoints.len(), "could not have remaining times remembered");
    }
}

/// An expiry that was not carried out is due again.
async fn remove(leases: &Leases, term: u64, expired: Vec<(LeaseId, u64)>) {
    if expired.is_empty() {
        return;
    }
    let named = expired.iter().map(|(id, epoch)| ExpiredLease { id: id.0, epoch: *epoch }).collect();
    let wish = Wish::LeaseExpire(LeaseExpire { term, leases: named });
    match leases.writer.write_as_leader(command(wish)).await {
        Ok(written) => {
            if let Response::LeasesExpired { removed } = written.response {
                tracing::debug!(removed, "leases ran out");
            }
        }
        Err(error) => {
            tracing::warn!(
                ?error,
                leases = expired.len(),
                "could not have run-out leases removed; trying again"
            );
            tokio::time::sleep(RETRY).await;
            let ids = expired.into_iter().map(|(id, _)| id);
            leases.counting.lessor.lock().expiry_failed(ids, leases.counting.now());
            leases.counting.nearer.notify_one();
        }
    }
}
