//! What only the leader does for leases: counts their time, and has those that ran out removed.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tenure_proto::internal::command::Wish;
use tenure_proto::internal::{Command, ExpiredLease, LeaseCheckpoint, LeaseExpire, LeaseRemaining};
use tenure_state::{Effect, LeaseId, Lessor, Millis, Pace, Response};
use tokio::sync::Notify;

use super::{Leases, command};
use crate::clock::Clock;
use crate::raft::Consensus;

/// Run-out leases removed by one entry: enough to be quick, few enough that other entries pass in between.
const EXPIRIES_AT_ONCE: usize = 500;
/// Checkpoints written by one entry.
const CHECKPOINTS_AT_ONCE: usize = 1_000;
/// How long a lease is left alone after its time ran out, milliseconds: a client that counts from the answer, not from its
/// question as it should, is still right if the answer came that quickly.
const GRACE_MS: u64 = 200;
/// How long to wait after a removal could not be proposed.
const RETRY: Duration = Duration::from_millis(500);

/// The leader's count, and those who wait for it to change. Whoever needs the machine as well locks the lessor first.
pub struct Counting {
    pub(super) lessor: Mutex<Lessor>,
    clock: Arc<dyn Clock>,
    /// Wakes the task when a deadline may have come nearer.
    nearer: Notify,
    /// Wakes renewals that wait for a removal's outcome.
    pub(super) settled: Notify,
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
            | Effect::MemberPublished { .. }
            | Effect::MembersChanged => {}
        }
    }

    pub(super) fn now(&self) -> Millis {
        Millis(self.clock.now_ms())
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
            biased;
            changed = leadership.changed() => if changed.is_err() { return },
            () = remove_due(&leases) => {}
        }
    }
}

/// Takes up the count once all entries of earlier leaders are applied here.
async fn promote(leases: &Leases, term: u64, extension_ms: u64) -> bool {
    if leases.confirm_here().await.is_err() {
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
            biased;
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
        match leases.writer.write_as_leader(command).await {
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
