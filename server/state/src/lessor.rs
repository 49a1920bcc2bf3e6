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
//! **When a lease left alone ends.** Renewals are not in the log, but none is acknowledged before a majority was told of it
//! ([`Lessor::told`]), and each member notes by its own clock until when a lease may last ([`Witness`]). A new leader first gives
//! every lease its whole TTL; then it asks the members, and of what a majority knows takes the latest time ([`Lessor::recall`]):
//! any majority has a member in common with the one that was told of the last renewal. So, with *election* for one election timeout:
//!
//! - Left to one leader, a lease ends its TTL after its last renewal.
//! - It ends by then, or by the last change of leader if that is later, plus one *election* - however often the leader changes,
//!   since gifts are not told to anyone (`owed`). To this come the milliseconds that telling takes.
//! - Who was started, or was sent the whole state, or sees others vote, knows nothing any more and counts from that moment, until
//!   the leader has taught it what it knows itself ([`Lessor::lesson`]). Only if a majority has not been taught when a leader is
//!   elected does this cost time: what had passed, but no more than since the last checkpoint. For what is left of a lease is
//!   also written to the log when it was not renewed for two fifths of its TTL ([`Countdown::checkpoint_due`]; those who renew
//!   each third never cause one), and again each time that half of the rest has passed.
//! - To any of these comes what spreading takes when very many leases end together ([`Pace`]).
//!
//! That nothing ends early rests on two rules of the caller. A member is told, taught and asked only by the leader that its
//! vote is with, on disk; so what an earlier leader tells after the question is refused. And it is asked once it has applied all
//! that the leader found in the log.
//!
//! **Cost.** A renewal is one lookup and one store. The queues are lazy: an entry is never later than its lease's deadline or
//! checkpoint, and is put where it belongs when its turn comes.

use std::collections::BTreeMap;
use std::ops::Bound;

use crate::change::{Effect, LeaseId};
use crate::lease::Lease;

mod count;
mod countdown;
mod queue;
mod recollection;
mod spread;
mod witness;

pub use recollection::Recollection;

use count::{Count, LOOKS_MAX, queue_checkpoint};
use countdown::Countdown;
use queue::Queue;
use witness::Witness;

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

/// How long a lease lasts at the most, milliseconds from when this was said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lasting {
    pub id: LeaseId,
    pub left_ms: u64,
}

/// What a member's knowledge of renewals is worth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// How often it had to begin anew. A lesson counts for one beginning only: what a leader knew before it is out of date.
    pub resets: u64,
    /// It was taught all that a leader knew since then.
    pub complete: bool,
}

/// What this member knows of leases' time: as the leader it counts, and always it is a witness of what leaders say.
#[derive(Debug)]
pub struct Lessor {
    pace: Pace,
    witness: Witness,
    count: Option<Count>,
}

impl Lessor {
    pub fn new(pace: Pace) -> Lessor {
        Lessor { pace, witness: Witness::default(), count: None }
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

    /// These leases came here by other ways than effects: from this member's store as it starts, or from another member. Call it
    /// after they came, and before any later effect.
    pub fn restored<'a>(&mut self, now: Millis, leases: impl IntoIterator<Item = (LeaseId, &'a Lease)>) {
        self.witness.restored(now, leases);
    }

    /// Starts to count: each lease gets what the log remembers of its time, and `extension_ms` (one election timeout) for
    /// the time in which nobody could renew it. Call it once an entry of this `term` is applied, with the leases as of
    /// then; every effect after that goes to [`Lessor::follow`], and all of those up to the index `followed` went there before.
    pub fn promote<'a>(
        &mut self,
        term: u64,
        followed: u64,
        now: Millis,
        leases: impl IntoIterator<Item = (LeaseId, &'a Lease)>,
        extension_ms: u64,
    ) {
        let mut leases: Vec<(LeaseId, Countdown)> = leases
            .into_iter()
            .map(|(id, lease)| {
                let mut countdown = Countdown::remembered(lease, now, extension_ms, &self.pace);
                // Of a younger one members may still know an older lease of the same id.
                countdown.guessed = lease.epoch <= followed;
                (id, countdown)
            })
            .collect();
        spread::spread(&mut leases, &self.pace);

        let mut count = Count {
            term,
            since: now,
            extension_ms,
            recalled: false,
            leases: BTreeMap::new(),
            deadlines: Queue::default(),
            checkpoints: Queue::default(),
        };
        for (id, lease) in leases {
            count.insert(id, lease);
        }
        self.count = Some(count);
    }

    /// Takes back what [`Lessor::promote`] gave for want of knowing better, of up to `most` leases behind `after`; gives behind
    /// which to go on, None at the end. Only for this `term`, and once.
    pub fn recall(
        &mut self,
        term: u64,
        said: &Recollection,
        after: Option<LeaseId>,
        most: usize,
        now: Millis,
    ) -> Option<LeaseId> {
        let count = self.count.as_mut().filter(|count| count.term == term && !count.recalled)?;
        let part: Vec<LeaseId> = behind(&count.leases, after).take(most).map(|(id, _)| *id).collect();
        for id in &part {
            if let Some(owed) = said.until(*id, self.witness.until(*id)) {
                count.recall(*id, owed, now);
            }
        }
        let next = part.last().filter(|_| part.len() == most).copied();
        count.recalled = next.is_none();
        next
    }

    /// Whether a majority was asked, so that this member may teach others.
    pub fn has_recalled(&self) -> bool {
        self.count.as_ref().is_some_and(|count| count.recalled)
    }

    /// The leader, perhaps this member, is about to renew these: whatever comes of it, they may last their TTL from now.
    pub fn told(&mut self, ids: impl IntoIterator<Item = LeaseId>, now: Millis) {
        for id in ids {
            self.witness.told(id, now);
            if let Some(lease) = self.count.as_mut().and_then(|count| count.leases.get_mut(&id)) {
                lease.told(now);
            }
        }
    }

    pub fn standing(&self) -> Standing {
        self.witness.standing()
    }

    /// What this member knows as one of a majority: up to `most` leases behind `after`, in the order of their ids.
    pub fn recite(&self, after: Option<LeaseId>, most: usize, now: Millis) -> Vec<Lasting> {
        self.witness.recite(after, most, now)
    }

    /// The same of what a leader knows for certain; None before it has asked a majority.
    pub fn lesson(&self, after: Option<LeaseId>, most: usize, now: Millis) -> Option<Vec<Lasting>> {
        let count = self.count.as_ref().filter(|count| count.recalled)?;
        let lasting = |(id, lease): (&LeaseId, &Countdown)| Lasting {
            id: *id,
            left_ms: lease.owed.max(lease.told).since(now),
        };
        Some(behind(&count.leases, after).take(most).map(lasting).collect())
    }

    /// Takes a part of the leader's lesson, which it began when this member's [`Standing`] had so many `resets`, and said when it
    /// had followed the log up to the index `applied`; after the `last` part this member's knowledge is complete. In the order in
    /// which the leader says it, and tells of renewals. A member that has yet to apply what it missed must not be taught: it would
    /// take old grants for new ones after it.
    pub fn learn(&mut self, resets: u64, applied: u64, lesson: &[Lasting], last: bool, now: Millis) {
        self.witness.learn(resets, applied, lesson, last, now);
    }

    /// Counts no more: what follows is another leader's to count. Renewals that wait must be told to go there.
    pub fn demote(&mut self) {
        self.count = None;
    }

    /// Follows what applied commands did to leases, in the order they were applied; also while another leads.
    pub fn follow(&mut self, effect: &Effect, now: Millis) {
        let (witness, count) = (&mut self.witness, self.count.as_mut());
        match *effect {
            Effect::LeaseGranted { id, ttl_s, epoch } => {
                witness.granted(id, ttl_s, epoch, now);
                if let Some(count) = count {
                    count.remove(id);
                    count.insert(id, Countdown::granted(ttl_s, epoch, now, &self.pace));
                }
            }
            Effect::LeaseCheckpointed { id, remaining_s, epoch } => {
                witness.checkpoint(id, remaining_s, epoch, now);
                if let Some(lease) = count.and_then(|count| count.leases.get_mut(&id)) {
                    lease.epoch = epoch;
                    lease.undercut = remaining_s < lease.ttl_s;
                }
            }
            Effect::LeaseGone { id } => {
                witness.gone(id);
                if let Some(count) = count {
                    count.remove(id);
                }
            }
            Effect::ExpiryDropped { id } => {
                if let Some(count) = count {
                    count.propose_again(id, now);
                }
            }
            Effect::MembersChanged { voters: true } => witness.voters_changed(now),
            Effect::MembersChanged { voters: false }
            | Effect::Changed(_)
            | Effect::Compacted { .. }
            | Effect::AlarmRaised(_)
            | Effect::AlarmCleared(_)
            | Effect::MemberPublished { .. } => {}
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

fn behind<V>(leases: &BTreeMap<LeaseId, V>, after: Option<LeaseId>) -> impl Iterator<Item = (&LeaseId, &V)> {
    let from = after.map_or(Bound::Unbounded, Bound::Excluded);
    leases.range((from, Bound::Unbounded))
}
