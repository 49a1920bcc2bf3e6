//! Leases ordered by when to look at them again. Knows nothing of what is found then.

use std::collections::BTreeSet;

use super::Millis;
use crate::change::LeaseId;

/// An ordered set and not a heap, so that a lease that goes leaves nothing behind: leases of a long TTL that come and go
/// quickly would otherwise pile up until their deadlines.
#[derive(Debug, Default)]
pub(super) struct Queue {
    order: BTreeSet<(Millis, LeaseId)>,
}

impl Queue {
    pub fn push(&mut self, due: Millis, id: LeaseId) {
        self.order.insert((due, id));
    }

    pub fn remove(&mut self, due: Millis, id: LeaseId) {
        self.order.remove(&(due, id));
    }

    pub fn first(&self) -> Option<(Millis, LeaseId)> {
        self.order.first().copied()
    }

    pub fn first_due(&self) -> Option<Millis> {
        self.first().map(|(due, _)| due)
    }

    pub fn pop_due(&mut self, now: Millis) -> Option<LeaseId> {
        let (due, _) = self.first()?;
        if due > now {
            return None;
        }
        self.order.pop_first().map(|(_, id)| id)
    }
}
