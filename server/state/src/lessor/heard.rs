//! When this member saw each checkpoint applied, by its own clock: what a leader-to-be needs so as not to count again the time
//! that passed since. Kept whoever leads. Knows nothing of deadlines.

use std::collections::BTreeMap;

use super::Millis;
use crate::change::LeaseId;

#[derive(Debug, Default)]
pub(super) struct Heard {
    /// The epoch that the last checkpoint gave each lease, and when that was applied here.
    checkpoints: BTreeMap<LeaseId, (u64, Millis)>,
    /// Leases as of this index came at this time from the store or from another member, and not by effects.
    restored: Option<(u64, Millis)>,
}

impl Heard {
    pub fn checkpoint(&mut self, id: LeaseId, epoch: u64, now: Millis) {
        self.checkpoints.insert(id, (epoch, now));
    }

    pub fn forget(&mut self, id: LeaseId) {
        self.checkpoints.remove(&id);
    }

    pub fn restored(&mut self, applied: u64, now: Millis) {
        self.checkpoints.clear();
        self.restored = Some((applied, now));
    }

    /// A time by which the checkpoint that gave the lease this epoch had been taken: as early as is known here, else `now`.
    pub fn taken_by(&self, id: LeaseId, epoch: u64, now: Millis) -> Millis {
        let restored = self.restored.filter(|(applied, _)| epoch <= *applied).map(|(_, at)| at);
        let heard = self.checkpoints.get(&id).filter(|(of, _)| *of == epoch).map(|(_, at)| *at);
        heard.or(restored).map_or(now, |at| at.min(now))
    }
}
