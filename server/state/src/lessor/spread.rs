//! Keeps leases that start together from ending together. Gives time, never takes any.

use super::countdown::Countdown;
use super::{Millis, Pace};
use crate::change::LeaseId;

/// Puts off deadlines so that no second holds more than the pace allows: each lease ends at least a second after the
/// one that is `rate` places before it. By induction the i-th is put off by at most i / rate seconds, so a rate of at
/// least n / spread_max keeps every lease within the bound.
pub(super) fn spread(leases: &mut [(LeaseId, Countdown)], pace: &Pace) {
    let spread_s_max = (pace.spread_ms_max / 1_000).max(1) as usize;
    let rate = (pace.expiries_per_second as usize).max(leases.len().div_ceil(spread_s_max)).max(1);
    if leases.len() <= rate {
        return;
    }
    leases.sort_unstable_by_key(|(id, lease)| (lease.deadline, *id));
    for late in rate..leases.len() {
        let earliest: Millis = leases[late - rate].1.deadline.plus(1_000);
        let lease = &mut leases[late].1;
        lease.deadline = lease.deadline.max(earliest);
    }
}
