//! Until when each lease may last as far as this member knows, by its own clock, whoever leads: what leaders-to-be ask a majority
//! for. Knows nothing of deadlines.
//!
//! Of every renewal that was acknowledged a majority was told. So each of these noted a time no earlier than what the client
//! counts on, and keeps it until something later is known: a checkpoint, which no renewal was acknowledged over, or a lesson of
//! the leader, who knows of all renewals. A member alone proves nothing; the leader may have told others.

use std::collections::BTreeMap;

use super::countdown::to_ms;
use super::{Lasting, Millis, Standing};
use crate::change::LeaseId;
use crate::lease::Lease;

#[derive(Debug, Default)]
pub(super) struct Witness {
    leases: BTreeMap<LeaseId, Known>,
    standing: Standing,
}

#[derive(Debug)]
struct Known {
    ttl_s: i64,
    /// Index of the entry that last set its time.
    epoch: u64,
    /// It does not last longer, unless others were told of a later renewal.
    until: Millis,
}

impl Witness {
    pub fn standing(&self) -> Standing {
        self.standing
    }

    /// What this member was told before is lost, or does not count any more: any lease may have been renewed a moment ago.
    pub fn restored<'a>(&mut self, now: Millis, leases: impl IntoIterator<Item = (LeaseId, &'a Lease)>) {
        let known = |(id, lease): (LeaseId, &Lease)| {
            let until = now.plus(to_ms(lease.remembered_s()));
            (id, Known { ttl_s: lease.ttl_s, epoch: lease.epoch, until })
        };
        self.leases = leases.into_iter().map(known).collect();
        self.reset();
    }

    /// Others vote now, and those who were told of renewals before may be too few among them.
    pub fn voters_changed(&mut self, now: Millis) {
        self.leases.values_mut().for_each(|known| known.until = now.plus(to_ms(known.ttl_s)));
        self.reset();
    }

    fn reset(&mut self) {
        self.standing = Standing { resets: self.standing.resets + 1, complete: false };
    }

    pub fn granted(&mut self, id: LeaseId, ttl_s: i64, epoch: u64, now: Millis) {
        self.leases.insert(id, Known { ttl_s, epoch, until: now.plus(to_ms(ttl_s)) });
    }

    pub fn gone(&mut self, id: LeaseId) {
        self.leases.remove(&id);
    }

    /// The whole TTL: the log has forgotten a checkpoint for the sake of a renewal.
    pub fn checkpoint(&mut self, id: LeaseId, remaining_s: i64, epoch: u64, now: Millis) {
        let Some(known) = self.leases.get_mut(&id) else { return };
        known.epoch = epoch;
        let until = now.plus(to_ms(remaining_s));
        known.until = if remaining_s < known.ttl_s { known.until.min(until) } else { known.until.max(until) };
    }

    pub fn told(&mut self, id: LeaseId, now: Millis) {
        if let Some(known) = self.leases.get_mut(&id) {
            known.until = known.until.max(now.plus(to_ms(known.ttl_s)));
        }
    }

    /// What a leader knew after this member's reset of that number, when it had applied up to that index.
    pub fn learn(&mut self, resets: u64, applied: u64, lesson: &[Lasting], last: bool, now: Millis) {
        if resets != self.standing.resets {
            return;
        }
        for Lasting { id, left_ms } in lesson {
            if let Some(known) = self.leases.get_mut(id).filter(|known| known.epoch <= applied) {
                known.until = known.until.min(now.plus(*left_ms));
            }
        }
        self.standing.complete |= last;
    }

    pub fn until(&self, id: LeaseId) -> Option<Millis> {
        self.leases.get(&id).map(|known| known.until)
    }

    /// In the order of ids, those behind `after`.
    pub fn recite(&self, after: Option<LeaseId>, most: usize, now: Millis) -> Vec<Lasting> {
        let lasting = |(id, known): (&LeaseId, &Known)| Lasting { id: *id, left_ms: known.until.since(now) };
        super::behind(&self.leases, after).take(most).map(lasting).collect()
    }
}
