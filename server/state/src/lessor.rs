//! How long each lease has left: what only the leader counts. It exists so that a keepalive costs no log entry. It
//! follows the effects of applied commands and says which leases have run out; it knows neither keys nor the log, and
//! reads no clock: every `now` is the caller's, from one monotonic clock of this process.
//!
//! **What a client may rely on.** A client that was told "TTL seconds" counts them from the moment it asked, and the
//! lease is not removed before those have passed, whoever leads meanwhile. Three comparisons make this true:
//!
//! - *asked <= proof <= now.* The caller proves its leadership by a round that starts after the renewal arrived
//!   (`asked_at`) and ends before it calls [`Lessor::renew`] (`now`). Deadlines count from `now`, the client from
//!   before `asked_at`, so the client's end comes first. A newer leader can have been elected only after the proof
//!   began, and starts the lease anew from then.
//! - *Removal excludes renewal.* A lease handed out by [`Lessor::expired`] is never renewed again under this
//!   leadership. Its removal may be in the log already, and what is not known to have failed may happen yet. Only
//!   the lease's end or the leadership's ends this state. Nothing is lost: its time had run out.
//! - *What is remembered never undercuts what was promised.* A checkpoint tells the next leader to count less than
//!   the whole TTL. From the moment one is handed out, a renewal is acknowledged only after the log has forgotten it
//!   ([`Renewal::ForgetCheckpoint`]), or the next leader would cut the renewed lease short.
//!
//!   A checkpoint that still stands proves the reverse: nobody renewed the lease since it was taken.
//!
//! **When a lease left alone ends.** Renewals are not in the log, so a new leader cannot tell a lease renewed a moment ago from
//! one that nobody renews, and gives both the whole TTL, unless a checkpoint says otherwise. One is taken when a lease was not
//! renewed for two fifths of its TTL ([`Countdown::checkpoint_due`]; those who renew each third never cause one). Every member
//! notes by its own clock when it sees it applied ([`Heard`]), and counts from then, not from when it came to lead. So, with
//! *end* for the deadline of the leader that took the lease's first checkpoint, and *election* for one election timeout:
//!
//! - Left to one leader, a lease ends at *end*: its TTL after its last renewal.
//! - Once checkpointed, it ends by *end*, or the last change of leader if that is later, plus one *election* — however often
//!   the leader changes, since gifts are not replicated (`owed`). To this comes what each checkpoint takes to be applied
//!   (milliseconds, and at most a second of rounding if it was taken late).
//! - A change of leader before that costs what had passed since the renewal: at most two fifths of the TTL (of a short one a
//!   third and a second, of a long one 300 s), the time without a leader, and one *election*. It can be repeated only by leaders
//!   none of which lasts that long. Leases of 2 s have no checkpoint: each change costs them at most themselves.
//! - A member that was started, or was sent the whole state, after the checkpoint counts from that moment. Further checkpoints,
//!   each when half of the rest has passed, keep what this costs below a third of the TTL and the time it was away.
//! - To any of these comes what spreading takes when very many leases end together ([`Pace`]).
//!
//! **Cost.** A renewal is one lookup and one store. The queues are lazy: an entry is never later than its lease's deadline or
//! checkpoint, and is put where it belongs when its turn comes.

use std::collections::BTreeMap;

use crate::change::{Effect, LeaseId};
use crate::lease::Lease;

mod countdown;
mod heard;
mod queue;
mod spread;

use countdown::Countdown;
use heard::Heard;
use queue::Queue;

/// Milliseconds of a monotonic clock; where it starts means nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Millis(pub u64);

impl Millis {
    pub fn plus(self, ms: u64) -> Millis {
        Millis(self.0.saturating_add(ms))
    }

    /// Milliseconds from `earlier` to here; 0 when it is not earlier.
    pub fn since(self, earlier: Millis) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// How the lessor paces what it asks of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// After a change of leader all leases of one TTL run out together: no more than this many per second, so that
    /// their removal does not crowd out clients.
    pub expiries_per_second: u32,
    /// No lease is given more time than this for the sake of spreading; when there are too many leases, the rate rises
    /// instead.
    pub spread_ms_max: u64,
    /// Replicate the remaining time of leases that are not renewed, this often or more often (see the head of this file); None:
    /// never.
    pub checkpoint_interval_ms: Option<u64>,
}

impl Pace {
    fn checkpoint_interval_s(&self) -> Option<i64> {
        let interval_ms = self.checkpoint_interval_ms?;
        Some(i64::try_from(interval_ms / 1_000).unwrap_or(i64::MAX).max(1))
    }
}

impl Default for Pace {
    fn default() -> Pace {
        Pace { expiries_per_second: 2_000, spread_ms_max: 10_000, checkpoint_interval_ms: Some(300_000) }
    }
}

/// What became of the wish to renew a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// It counts anew. Tell the client this TTL.
    Renewed { ttl_s: i64 },
    /// There is no such lease (or no longer): the client is told TTL 0.
    Unknown,
    /// Its time had run out: wait until [`Effect::LeaseGone`] says so (TTL 0), or until leadership is lost (retry there).
    Leaving,
    /// Propose a `LeaseCheckpoint` of this epoch whose remaining time is the whole TTL, and ask again once it is
    /// applied, with the same `asked_at`. About once per checkpoint of the lease.
    ForgetCheckpoint { epoch: u64, ttl_s: i64 },
    /// Ask the leader.
    NotLeader,
}

/// What is left of a lease, in whole seconds, rounded down as etcd does. More than was granted just after a change of
/// leader; 0 while its removal is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remaining {
    pub granted_s: i64,
    pub remaining_s: i64,
}

/// A remaining time to replicate, rounded up to seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    pub id: LeaseId,
    pub epoch: u64,
    pub remaining_s: i64,
}

/// The leader's count of lease time. Counts nothing until promoted; only hears of checkpoints.
#[derive(Debug)]
pub struct Lessor {
    pace: Pace,
    heard: Heard,
    count: Option<Count>,
}

#[derive(Debug)]
struct Count {
    term: u64,
    leases: BTreeMap<LeaseId, Countdown>,
    deadlines: Queue,
    checkpoints: Queue,
}

/// Queue entries that one call may look at, so that none takes more than about a millisecond: after a call that found
/// nothing, [`Lessor::next_due`] says "now" if more is waiting.
const LOOKS_MAX: usize = 1_000;

impl Lessor {
    pub fn new(pace: Pace) -> Lessor {
        Lessor { pace, heard: Heard::default(), count: None }
    }

    /// The term of the leadership that is being counted for.
    pub fn term(&self) -> Option<u64> {
        self.count.as_ref().map(|count| count.term)
    }

    /// Leases being counted; 0 unless leading.
    pub fn len(&self) -> usize {
        self.count.as_ref().map_or(0, |count| count.leases.len())
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The leases as of this log index came here by other ways than effects: from this member's store as it starts, or from
    /// another member. Call it with a time after they came, and before any later effect.
    pub fn restored(&mut self, applied: u64, now: Millis) {
        self.heard.restored(applied, now);
    }

    /// Starts to count: each lease gets what is remembered of its time, and `extension_ms` (one election timeout) for
    /// the time in which nobody could renew it. Call it once an entry of this `term` is applied, with the leases as of
    /// then; every effect after that goes to [`Lessor::follow`].
    pub fn promote<'a>(
        &mut self,
        term: u64,
        now: Millis,
        leases: impl IntoIterator<Item = (LeaseId, &'a Lease)>,
        extension_ms: u64,
    ) {
        let mut leases: Vec<(LeaseId, Countdown)> = leases
            .into_iter()
            .map(|(id, lease)| {
                let taken_by = self.heard.taken_by(id, lease.epoch, now);
                (id, Countdown::remembered(lease, taken_by, now, extension_ms, &self.pace))
            })
            .collect();
        spread::spread(&mut leases, &self.pace);

        let mut count = Count {
            term,
            leases: BTreeMap::new(),
            deadlines: Queue::default(),
            checkpoints: Queue::default(),
        };
        for (id, lease) in leases {
            count.insert(id, lease);
        }
        self.count = Some(count);
    }

    /// Forgets everything: what follows is another leader's to count. Renewals that wait must be told to go there.
    pub fn demote(&mut self) {
        self.count = None;
    }

    /// Follows what applied commands did to leases, in the order they were applied; also while another leads.
    pub fn follow(&mut self, effect: &Effect, now: Millis) {
        let (heard, count) = (&mut self.heard, self.count.as_mut());
        match *effect {
            Effect::LeaseGranted { id, ttl_s, epoch } => {
                heard.forget(id);
                if let Some(count) = count {
                    count.remove(id);
                    count.insert(id, Countdown::granted(ttl_s, epoch, now, &self.pace));
                }
            }
            Effect::LeaseCheckpointed { id, remaining_s, epoch } => {
                heard.checkpoint(id, epoch, now);
                if let Some(lease) = count.and_then(|count| count.leases.get_mut(&id)) {
                    lease.epoch = epoch;
                    lease.undercut = remaining_s < lease.ttl_s;
                }
            }
            Effect::LeaseGone { id } => {
                heard.forget(id);
                if let Some(count) = count {
                    count.remove(id);
                }
            }
            Effect::ExpiryDropped { id } => {
                if let Some(count) = count {
                    count.propose_again(id, now);
                }
            }
            Effect::Changed(_)
            | Effect::Compacted { .. }
            | Effect::AlarmRaised(_)
            | Effect::AlarmCleared(_)
            | Effect::MemberPublished { .. }
            | Effect::MembersChanged => {}
        }
    }

    /// Renews a lease. `asked_at`: when the wish arrived here, before the proof of leadership began. `now`: after the
    /// proof ended. A lease that ran out before `asked_at` is on its way out, whether or not anyone has noticed yet;
    /// one that ran out during the proof is renewed if it has not been handed out.
    pub fn renew(&mut self, id: LeaseId, asked_at: Millis, now: Millis) -> Renewal {
        let Some(count) = &mut self.count else { return Renewal::NotLeader };
        let Some(lease) = count.leases.get_mut(&id) else { return Renewal::Unknown };
        // Whoever is told "leaving" waits for the end, so from this answer on there must be one.
        lease.leaving |= lease.deadline <= asked_at;
        if lease.leaving {
            return Renewal::Leaving;
        }
        if lease.undercut {
            return Renewal::ForgetCheckpoint { epoch: lease.epoch, ttl_s: lease.ttl_s };
        }
        lease.restart(now, &self.pace);
        queue_checkpoint(&mut count.checkpoints, id, lease);
        Renewal::Renewed { ttl_s: lease.ttl_s }
    }

    /// Up to `most` leases that have run out, each with its epoch, to be proposed for removal under [`Lessor::term`].
    /// From here on they are not renewed. Each is handed out once, until [`Lessor::expiry_failed`] or
    /// [`Effect::ExpiryDropped`] asks for another try.
    pub fn expired(&mut self, now: Millis, most: usize) -> Vec<(LeaseId, u64)> {
        let mut handed_out = Vec::new();
        let Some(count) = &mut self.count else { return handed_out };
        for _ in 0..LOOKS_MAX.max(most) {
            if handed_out.len() == most {
                break;
            }
            let Some(id) = count.deadlines.pop_due(now) else { break };
            let lease = count.leases.get_mut(&id).expect("a queued lease is counted");
            if lease.deadline > now {
                count.deadlines.push(lease.deadline, id);
                lease.queued = Some(lease.deadline);
                continue;
            }
            lease.queued = None;
            lease.leaving = true;
            handed_out.push((id, lease.epoch));
        }
        handed_out
    }

    /// How long a lease's time has been over, milliseconds; None unless it was handed out, or refused a renewal, for that.
    pub fn overdue_ms(&self, id: LeaseId, now: Millis) -> Option<u64> {
        let lease = self.count.as_ref()?.leases.get(&id)?;
        lease.leaving.then(|| now.since(lease.deadline))
    }

    /// The proposal to remove these was refused, or its outcome is unknown: they are due again at once. Proposing
    /// twice is harmless, since a removal is applied only at the epoch it names. They stay unrenewable.
    pub fn expiry_failed(&mut self, ids: impl IntoIterator<Item = LeaseId>, now: Millis) {
        let Some(count) = &mut self.count else { return };
        for id in ids {
            count.propose_again(id, now);
        }
    }

    /// Up to `most` remaining times to replicate. Whether that succeeds need not be reported: a lost checkpoint is made
    /// up for by the next, and the lease is treated as if it had been written.
    pub fn checkpoints_due(&mut self, now: Millis, most: usize) -> Vec<Checkpoint> {
        let mut due = Vec::new();
        let Some(count) = &mut self.count else { return due };
        for _ in 0..LOOKS_MAX.max(most) {
            if due.len() == most {
                break;
            }
            let Some(id) = count.checkpoints.pop_due(now) else { break };
            let lease = count.leases.get_mut(&id).expect("a queued lease is counted");
            lease.checkpoint_queued = None;
            if lease.checkpoint_due().is_some_and(|due| due <= now) {
                let remaining_s = lease.checkpoint(now, &self.pace);
                due.extend(remaining_s.map(|remaining_s| Checkpoint { id, epoch: lease.epoch, remaining_s }));
            }
            queue_checkpoint(&mut count.checkpoints, id, lease);
        }
        due
    }

    /// Until when the caller may sleep: before then neither [`Lessor::expired`] nor [`Lessor::checkpoints_due`] has
    /// anything. Now and then it is too early, never too late. A grant can bring it nearer: ask again after each effect.
    pub fn next_due(&mut self) -> Option<Millis> {
        let count = self.count.as_mut()?;
        count.settle_deadlines();
        count.settle_checkpoints();
        [count.deadlines.first_due(), count.checkpoints.first_due()].into_iter().flatten().min()
    }

    /// What is left of a lease; None when it is unknown, or when this is not the leader ([`Lessor::term`] tells).
    pub fn remaining(&self, id: LeaseId, now: Millis) -> Option<Remaining> {
        let lease = self.count.as_ref()?.leases.get(&id)?;
        let remaining_s = (lease.deadline.since(now) / 1_000) as i64;
        Some(Remaining { granted_s: lease.ttl_s, remaining_s })
    }

    /// All leases, the one that ends first at the front; None when this is not the leader.
    pub fn ids_by_deadline(&self) -> Option<Vec<LeaseId>> {
        let count = self.count.as_ref()?;
        let mut ends: Vec<_> = count.leases.iter().map(|(id, lease)| (lease.deadline, *id)).collect();
        ends.sort_unstable();
        Some(ends.into_iter().map(|(_, id)| id).collect())
    }
}

impl Count {
    fn insert(&mut self, id: LeaseId, mut lease: Countdown) {
        self.deadlines.push(lease.deadline, id);
        lease.queued = Some(lease.deadline);
        queue_checkpoint(&mut self.checkpoints, id, &mut lease);
        self.leases.insert(id, lease);
    }

    fn remove(&mut self, id: LeaseId) {
        let Some(lease) = self.leases.remove(&id) else { return };
        if let Some(due) = lease.queued {
            self.deadlines.remove(due, id);
        }
        if let Some(due) = lease.checkpoint_queued {
            self.checkpoints.remove(due, id);
        }
    }

    /// Only for a lease that was handed out: a failure may speak of an earlier lease of the same id.
    fn propose_again(&mut self, id: LeaseId, now: Millis) {
        let Some(lease) = self.leases.get_mut(&id) else { return };
        if lease.leaving && lease.queued.is_none() {
            lease.queued = Some(now);
            self.deadlines.push(now, id);
        }
    }

    /// Moves entries of renewed leases from the front of the queue to where they belong, so that its front is a true
    /// deadline (or a nearer one, when there were too many to move at once).
    fn settle_deadlines(&mut self) {
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
    fn settle_checkpoints(&mut self) {
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
fn queue_checkpoint(queue: &mut Queue, id: LeaseId, lease: &mut Countdown) {
    if lease.checkpoint_queued.is_some() {
        return;
    }
    if let Some(due) = lease.checkpoint_due() {
        lease.checkpoint_queued = Some(due);
        queue.push(due, id);
    }
}
