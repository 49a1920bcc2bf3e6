//! Leases: what became of them, and how late the end of those came whose time had run out.

use std::time::Duration;

use tenure_state::Effect;

use super::{Counter, Histogram, Registry};

pub const TTL: &str = "etcd_debugging_lease_ttl_total";
pub const LATENESS: &str = "tenure_lease_expiry_lateness_seconds";

pub struct Leases {
    granted: Counter,
    ttl: Histogram,
    gone: Counter,
    renewed: Counter,
    renewals: Counter,
    expired: Counter,
    lateness: Histogram,
}

impl Leases {
    pub fn new(registry: &Registry) -> Leases {
        let counter = |name, help| registry.counter((name, help), &[]);
        Leases {
            granted: counter("etcd_debugging_lease_granted_total", "Leases granted."),
            ttl: registry.histogram((TTL, "Times to live of granted leases, seconds."), &[]),
            gone: counter("etcd_debugging_lease_revoked_total", "Leases that ended, revoked or run out."),
            renewed: counter("etcd_debugging_lease_renewed_total", "Leases renewed by this member as the leader."),
            renewals: counter(
                "tenure_lease_renewal_rounds_total",
                "Times that this member as the leader renewed leases, many at once.",
            ),
            expired: counter(
                "etcd_debugging_server_lease_expired_total",
                "Leases that ran out while this member led and were removed.",
            ),
            lateness: registry.histogram(
                (
                    LATENESS,
                    "From the end of a lease's time to its removal, as the leader saw it. 0.2 s of it are granted on purpose.",
                ),
                &[],
            ),
        }
    }

    /// Follows applied commands. `overdue`: of a lease that is gone, how long its time had been over, if this member leads and that
    /// is why it went.
    pub fn follow(&self, effect: &Effect, overdue: Option<Duration>) {
        match effect {
            Effect::LeaseGranted { ttl_s, .. } => {
                self.granted.increment(1);
                self.ttl.record(*ttl_s as f64);
            }
            Effect::LeaseGone { .. } => {
                self.gone.increment(1);
                if let Some(late) = overdue {
                    self.expired.increment(1);
                    self.lateness.record(late);
                }
            }
            Effect::LeaseCheckpointed { .. }
            | Effect::ExpiryDropped { .. }
            | Effect::Changed(_)
            | Effect::Compacted { .. }
            | Effect::AlarmRaised(_)
            | Effect::AlarmCleared(_)
            | Effect::MemberPublished { .. }
            | Effect::MembersChanged { .. } => {}
        }
    }

    /// So many were renewed at once.
    pub fn renewed(&self, leases: usize) {
        self.renewals.increment(1);
        self.renewed.increment(leases as u64);
    }
}
