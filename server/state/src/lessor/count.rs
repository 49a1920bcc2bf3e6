//! All leases as the leader counts them, each with its places in the two queues. Knows nothing of what others know.

use std::collections::BTreeMap;

use super::Millis;
use super::countdown::Countdown;
use super::queue::Queue;
use crate::change::LeaseId;

/// Queue entries that one call may look at, so that none takes more than about a millisecond: after a call that found
/// nothing, [`super::Lessor::next_due`] says "now" if more is waiting.
pub(super) const LOOKS_MAX: usize = 1_000;

#[derive(Debug)]
pub(super) struct Count {
    pub term: u64,
    pub since: Millis,
    pub extension_ms: u64,
    /// A majority was asked what it knows.
    pub recalled: bool,
    pub leases: BTreeMap<LeaseId, Countdown>,
    pub deadlines: Queue,
    pub checkpoints: Queue,
}

impl Count {
    pub fn insert(&mut self, id: LeaseId, mut lease: Countdown) {
        self.deadlines.push(lease.deadline, id);
        lease.queued = Some(lease.deadline);
        queue_checkpoint(&mut self.checkpoints, id, &mut lease);
        self.leases.insert(id, lease);
    }

    pub fn remove(&mut self, id: LeaseId) -> Option<Countdown> {
        let mut lease = self.leases.remove(&id)?;
        if let Some(due) = lease.queued.take() {
            self.deadlines.remove(due, id);
        }
        if let Some(due) = lease.checkpoint_queued.take() {
            self.checkpoints.remove(due, id);
        }
        Some(lease)
    }

    /// A majority knows that this lease is owed no more than until then. Deadlines may come nearer only here.
    pub fn recall(&mut self, id: LeaseId, owed: Millis, now: Millis) {
        let guessed = self.leases.get(&id).is_some_and(|lease| lease.guessed && !lease.leaving);
        if guessed && let Some(mut lease) = self.remove(id) {
            lease.recalled(owed, self.since, self.extension_ms, now);
            self.insert(id, lease);
        }
    }

    /// Only for a lease that was handed out: a failure may speak of an earlier lease of the same id.
    pub fn propose_again(&mut self, id: LeaseId, now: Millis) {
        let Some(lease) = self.leases.get_mut(&id) else { return };
        if lease.leaving && lease.queued.is_none() {
            lease.queued = Some(now);
            self.deadlines.push(now, id);
        }
    }

    /// Moves entries of renewed leases from the front of the queue to where they belong, so that its front is a true
    /// deadline (or a nearer one, when there were too many to move at once).
    pub fn settle_deadlines(&mut self) {
        for _ in 0..LOOKS_MAX {
            let Some((due, id)) = self.deadlines.first() else { return };
            let lease = self.leases.get_mut(&id).expect("a queued lease is counted");
            // A lease proposed again is queued later than its deadline: the time of the new try.
            if lease.deadline <= due {
                return;
            }
            self.deadlines.remove(due, id);
            self.deadlines.push(lease.deadline, id);
            lease.queued = Some(lease.deadline);
        }
    }

    /// The same for the queue of checkpoints, where a lease on its way out has no place.
    pub fn settle_checkpoints(&mut self) {
        for _ in 0..LOOKS_MAX {
            let Some((due, id)) = self.checkpoints.first() else { return };
            let lease = self.leases.get_mut(&id).expect("a queued lease is counted");
            if lease.checkpoint_due().is_some_and(|at| at <= due) {
                return;
            }
            self.checkpoints.remove(due, id);
            lease.checkpoint_queued = None;
            queue_checkpoint(&mut self.checkpoints, id, lease);
        }
    }
}

/// Queues the lease's next checkpoint if none is queued: an earlier place in the queue is looked at in time, and left then.
pub(super) fn queue_checkpoint(queue: &mut Queue, id: LeaseId, lease: &mut Countdown) {
    if lease.checkpoint_queued.is_some() {
        return;
    }
    if let Some(due) = lease.checkpoint_due() {
        lease.checkpoint_queued = Some(due);
        queue.push(due, id);
    }
}
