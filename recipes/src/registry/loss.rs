//! When so many are lost at once that rather the view of them is to be doubted. Pure: counts in, a decision out.
//!
//! Each loss leaves a mark for one window. As long as marked and newly unheard instances together are no more than the
//! policy's share, each is taken for lost at once; the loss that would be too many begins protection instead. Then those that were lost
//! within the window are taken back, and all that are not heard of stay as they are, stale, until they are heard of, an
//! operator says that they are lost, or `max_protect` is over.

use super::policy::Policy;

/// How a service stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// All that have a record.
    pub instances: usize,
    /// Taken for lost longer ago than a window.
    pub lost_before: usize,
    /// Taken for lost within the window.
    pub lost_lately: usize,
    /// Not heard of and not taken for lost.
    pub unheard: usize,
}

/// Whether to take nobody for lost now.
pub fn is_mass(standing: &Standing, policy: &Policy) -> bool {
    let lost = (standing.lost_lately + standing.unheard) as u64;
    let of = standing.instances.saturating_sub(standing.lost_before) as u64;
    standing.unheard > 0
        && lost >= u64::from(policy.protect_min)
        && lost * 100 > of * u64::from(policy.max_loss_percent)
}

#[cfg(test)]
mod tests {
    use tenure_proto::tenure::v1::ServicePolicy;

    use super::*;

    fn mass(instances: usize, lost_before: usize, lost_lately: usize, unheard: usize) -> bool {
        let standing = Standing { instances, lost_before, lost_lately, unheard };
        is_mass(&standing, &Policy::of(&ServicePolicy::default()))
    }

    #[test]
    fn more_than_the_share_and_three_at_least() {
        assert!(!mass(10, 0, 0, 4));
        assert!(mass(10, 0, 0, 5));
        assert!(mass(10, 0, 4, 1));
        assert!(!mass(2, 0, 1, 1));
        assert!(mass(3, 0, 2, 1));
        assert!(!mass(3, 0, 3, 0));
    }

    #[test]
    fn who_was_lost_long_ago_does_not_count() {
        assert!(!mass(20, 10, 0, 4));
        assert!(mass(20, 10, 0, 5));
    }

    #[test]
    fn protection_can_be_off() {
        let standing = Standing { instances: 10, unheard: 10, ..Standing::default() };
        let off = ServicePolicy { max_loss_percent: 101, ..ServicePolicy::default() };
        assert!(!is_mass(&standing, &Policy::of(&off)));
    }
}
