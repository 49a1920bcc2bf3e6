//! What consensus does: leaders seen, entries applied, the other members' answers to heartbeats.

use std::sync::Arc;
use std::time::Duration;

use super::{Counter, Histogram, Registry, Slow};

pub const BATCH_ENTRIES: &str = "tenure_apply_batch_entries";

/// Who leads, as this member sees it.
#[derive(Clone)]
pub struct Leaders {
    pub changes_seen: Counter,
}

impl Leaders {
    pub fn new(registry: &Registry) -> Leaders {
        let changes_seen = registry
            .counter(("etcd_server_leader_changes_seen_total", "Leaders seen, each in its term."), &[]);
        Leaders { changes_seen }
    }
}

/// Committed entries on their way into the state.
pub struct Apply {
    took: Histogram,
    entries: Histogram,
    slow: Slow,
    slow_count: Counter,
}

impl Apply {
    pub fn new(registry: &Registry, slow: Duration) -> Apply {
        Apply {
            took: registry.histogram(
                (
                    "tenure_apply_duration_seconds",
                    "How long it took to apply the entries at hand, their effects and answers included.",
                ),
                &[],
            ),
            entries: registry.histogram((BATCH_ENTRIES, "Entries that were applied together."), &[]),
            slow: Slow::new(slow),
            slow_count: registry.counter(
                (
                    "etcd_server_slow_apply_total",
                    "Times that applying the entries at hand took longer than --warning-apply-duration.",
                ),
                &[],
            ),
        }
    }

    pub fn applied(&self, entries: usize, took: Duration) {
        self.took.record(took);
        self.entries.record(entries as f64);
        if !self.slow.is_slow(took) {
            return;
        }
        self.slow_count.increment(1);
        if let Some(passed_over) = self.slow.turn() {
            // etcd's words, which people look for.
            tracing::warn!(
                ?took,
                "expected-duration" = ?self.slow.bound(),
                entries,
                passed_over,
                "apply request took too long"
            );
        }
    }
}

/// The other members, of whom one learns by and by.
pub struct PeerFamily {
    registry: Arc<Registry>,
    unsent_heartbeats: Counter,
}

/// One of them.
#[derive(Clone)]
pub struct Peer {
    round_trip: Histogram,
    unanswered: Counter,
    unsent_heartbeats: Counter,
}

impl PeerFamily {
    pub fn new(registry: Arc<Registry>) -> PeerFamily {
        let unsent_heartbeats = registry.counter(
            ("etcd_server_heartbeat_send_failures_total", "Heartbeats to any member that were not answered."),
            &[],
        );
        PeerFamily { registry, unsent_heartbeats }
    }

    pub fn of(&self, member: u64) -> Peer {
        let name = format!("{member:x}");
        let to = [("To", name.as_str())];
        Peer {
            round_trip: self.registry.histogram(
                (
                    "etcd_network_peer_round_trip_time_seconds",
                    "From a heartbeat to its answer; only a leader sends any.",
                ),
                &to,
            ),
            unanswered: self.registry.counter(
                (
                    "etcd_network_peer_sent_failures_total",
                    "Heartbeats to this member that were not answered.",
                ),
                &to,
            ),
            unsent_heartbeats: self.unsent_heartbeats.clone(),
        }
    }
}

impl Peer {
    pub fn answered(&self, took: Duration) {
        self.round_trip.record(took);
    }

    pub fn silent(&self) {
        self.unanswered.increment(1);
        self.unsent_heartbeats.increment(1);
    }
}
