//! What the voters told a new leader of leases' time, and what follows from it. Knows nothing of who they are.

use super::Millis;
use crate::change::LeaseId;

/// Answers of other voters, each by [`super::Lessor::recite`], as times of the leader's clock.
#[derive(Clone, Debug, Default)]
pub struct Recollection {
    /// Leases in the order of their ids.
    pub others: Vec<Vec<(LeaseId, Millis)>>,
    /// So many voters are a majority, the leader included.
    pub majority: usize,
}

impl Recollection {
    /// The latest that a majority knows of a lease, by the majority that knows best; None if too few know of it. Any majority
    /// has a member that was told of the last renewal, so each is right, and none of them too early.
    pub(super) fn until(&self, id: LeaseId, own: Option<Millis>) -> Option<Millis> {
        let by_other = |known: &Vec<(LeaseId, Millis)>| {
            let place = known.binary_search_by_key(&id, |(id, _)| *id).ok()?;
            Some(known[place].1)
        };
        let mut known: Vec<Millis> = self.others.iter().filter_map(by_other).chain(own).collect();
        known.sort_unstable();
        known.get(self.majority.checked_sub(1)?).copied()
    }
}
