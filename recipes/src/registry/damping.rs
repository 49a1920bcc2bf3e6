//! Who flaps is not believed at once: a report that differs from what is written counts only when it was made often enough in a row.
//! Remembered where the reports arrive, and not written: whoever reports elsewhere begins anew, so that a change of health may
//! come later than the thresholds say, never earlier.

use std::collections::BTreeMap;

use tenure_proto::tenure::v1::Health;

use super::policy::Policy;

/// Instances whose reports are being counted; of more, some begin anew.
const STREAKS_MAX: usize = 100_000;

#[derive(Debug, Default)]
pub struct Damping {
    streaks: BTreeMap<(String, String), Streak>,
}

#[derive(Debug)]
struct Streak {
    incarnation: i64,
    health: Health,
    reports: u32,
}

impl Damping {
    /// Counts a report that differs from what is written. Whether it is to be written now.
    pub fn differs(
        &mut self,
        (service, id, incarnation): (&str, &str, i64),
        written: Health,
        reported: Health,
        policy: &Policy,
    ) -> bool {
        let wanted = match written {
            // Whatever follows the start is news.
            Health::Starting | Health::Unspecified | Health::Lost => 1,
            _ if rank(reported) > rank(written) => policy.up,
            _ => policy.down,
        };
        if wanted <= 1 {
            self.forget(service, id);
            return true;
        }
        if self.streaks.len() >= STREAKS_MAX {
            self.streaks.pop_first();
        }
        let streak = self.streaks.entry((service.to_owned(), id.to_owned())).or_insert(Streak {
            incarnation,
            health: reported,
            reports: 0,
        });
        if (streak.incarnation, streak.health) != (incarnation, reported) {
            *streak = Streak { incarnation, health: reported, reports: 0 };
        }
        streak.reports += 1;
        if streak.reports < wanted {
            return false;
        }
        self.forget(service, id);
        true
    }

    /// The last report was what is written, or the instance is gone.
    pub fn forget(&mut self, service: &str, id: &str) {
        if !self.streaks.is_empty() {
            self.streaks.remove(&(service.to_owned(), id.to_owned()));
        }
    }
}

fn rank(health: Health) -> u8 {
    match health {
        Health::Unspecified | Health::Lost | Health::Critical => 0,
        Health::Starting => 1,
        Health::Warning => 2,
        Health::Passing => 3,
    }
}

#[cfg(test)]
mod tests {
    use tenure_proto::tenure::v1::ServicePolicy;

    use super::*;

    const WHO: (&str, &str, i64) = ("web", "1", 1);

    fn policy(up: u32, down: u32) -> Policy {
        Policy::of(&ServicePolicy { up, down, ..ServicePolicy::default() })
    }

    #[test]
    fn who_flaps_changes_nothing() {
        let (mut damping, policy) = (Damping::default(), policy(1, 2));
        for _ in 0..100 {
            assert!(!damping.differs(WHO, Health::Passing, Health::Critical, &policy));
            damping.forget("web", "1");
        }
        assert!(damping.streaks.is_empty());
    }

    #[test]
    fn equal_reports_in_a_row_count_and_others_begin_anew() {
        let (mut damping, policy) = (Damping::default(), policy(2, 3));
        let mut report = |written, reported| damping.differs(WHO, written, reported, &policy);
        assert!(!report(Health::Passing, Health::Critical));
        assert!(!report(Health::Passing, Health::Critical));
        assert!(!report(Health::Passing, Health::Warning));
        assert!(!report(Health::Passing, Health::Warning));
        assert!(report(Health::Passing, Health::Warning));
        assert!(!report(Health::Warning, Health::Passing));
        assert!(report(Health::Warning, Health::Passing));
        assert!(!damping.differs(WHO, Health::Passing, Health::Critical, &policy));
        assert!(!damping.differs(("web", "1", 2), Health::Passing, Health::Critical, &policy));
    }

    #[test]
    fn the_first_word_after_the_start_is_believed() {
        let (mut damping, policy) = (Damping::default(), policy(5, 5));
        assert!(damping.differs(WHO, Health::Starting, Health::Critical, &policy));
    }

    #[test]
    fn memory_is_bounded() {
        let (mut damping, policy) = (Damping::default(), policy(1, 2));
        for number in 0..STREAKS_MAX + 10 {
            let id = number.to_string();
            damping.differs(("web", &id, 1), Health::Passing, Health::Critical, &policy);
        }
        assert_eq!(damping.streaks.len(), STREAKS_MAX);
    }
}
