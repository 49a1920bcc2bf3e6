//! What this member counts and measures, and under which names Prometheus is told: etcd's names, which people's dashboards and
//! alerts already know, and names of our own that begin with `tenure_`. All stand there with 0 from the start, so that a rate over them is a number.
//!
//! The rooms above are handed what they count with, a family each; to count is an addition to one number, and no name is looked up.
//! What can be read off the state when somebody asks is not kept here at all: see `scrape/`. No label ever has a value that a
//! client chooses.
//!
//! | file        | family                                                        |
//! |-------------|---------------------------------------------------------------|
//! | `registry`  | (none: all that there is, by name, and the page of it)        |
//! | `buckets`   | (none: what a histogram counts in)                            |
//! | `grpc`      | every RPC: begun, ended with which code, messages, how long   |
//! | `disk`      | the log's and the store's writes                              |
//! | `consensus` | leaders seen, entries applied, the other members' answers     |
//! | `changes`   | what applied commands did to keys, and what that says of recipes |
//! | `leases`    | grants, renewals, ends, and how late those came               |
//! | `process`   | what the operating system says of this process                |
//! | `slow`      | (none: when a line of log is due for what took too long)      |

mod buckets;
mod changes;
mod consensus;
mod disk;
mod grpc;
mod leases;
mod process;
mod registry;
mod slow;

use std::sync::Arc;
use std::time::{Duration, Instant};

pub use ::metrics::{Counter, Gauge, Histogram};

pub use changes::Changes;
pub use consensus::{Apply, Leaders, Peer, PeerFamily};
pub use disk::Disk;
pub use grpc::{Call, Grpc, Kind, Method};
pub use leases::Leases;
pub use process::Process;
pub use registry::{CONTENT_TYPE, Labels, Named, Registry};
use slow::Slow;

/// What the node counts with.
pub struct Meters {
    pub disk: Disk,
    pub leaders: Leaders,
    pub apply: Apply,
    pub peers: PeerFamily,
    pub changes: Changes,
    pub leases: Leases,
}

impl Meters {
    /// `slow_apply`: what takes longer to apply is worth a warning.
    pub fn new(registry: &Arc<Registry>, slow_apply: Duration) -> Meters {
        Meters {
            disk: Disk::new(registry),
            leaders: Leaders::new(registry),
            apply: Apply::new(registry, slow_apply),
            peers: PeerFamily::new(registry.clone()),
            changes: Changes::new(registry),
            leases: Leases::new(registry),
        }
    }

    /// Which nobody will ever read: for members in tests and simulations.
    pub fn unread() -> Arc<Meters> {
        Arc::new(Meters::new(&Arc::default(), Duration::MAX))
    }
}

/// How long something takes. By the machine's clock even in a simulation, and for nothing but to be shown.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    pub fn start() -> Stopwatch {
        Stopwatch(Instant::now())
    }

    pub fn read(self) -> Duration {
        self.0.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_never_happened_is_there_as_zero() {
        let registry = Arc::new(Registry::default());
        let _meters = Meters::new(&registry, Duration::MAX);
        let page = registry.page();
        for line in [
            "# TYPE etcd_server_leader_changes_seen_total counter",
            "etcd_server_leader_changes_seen_total 0",
            "# TYPE etcd_disk_wal_fsync_duration_seconds histogram",
            "etcd_disk_wal_fsync_duration_seconds_bucket{le=\"0.5\"} 0",
            "etcd_disk_wal_fsync_duration_seconds_bucket{le=\"+Inf\"} 0",
            "etcd_disk_wal_fsync_duration_seconds_count 0",
        ] {
            assert!(page.lines().any(|other| other == line), "{line} is missing in\n{page}");
        }
    }
}
