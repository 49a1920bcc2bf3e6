//! What this member holds: keys and their history, leases, watches, and the bytes of it.

use std::sync::Arc;

use crate::metrics::{Gauge, Registry};
use crate::node::{DatabaseSize, Node, View, Watches};

pub struct Holdings {
    view: Arc<View>,
    watches: Watches,
    keys: Gauge,
    revision: Gauge,
    compacted: Gauge,
    bytes: Gauge,
    live_bytes: Gauge,
    disk_bytes: Gauge,
    unstored_bytes: Gauge,
    leases: Gauge,
    streams: Gauge,
    watchers: Gauge,
    slow: Gauge,
    pending: Gauge,
    lag: Gauge,
}

impl Holdings {
    pub fn new(node: &Node, registry: &Registry) -> Holdings {
        let gauge = |name, help| registry.gauge((name, help), &[]);
        gauge(
            "etcd_server_quota_backend_bytes",
            "Size of the data at which writes are refused; 0: no bound.",
        )
        .set(node.quota.bytes_max().unwrap_or(0) as f64);
        Holdings {
            view: node.view.clone(),
            watches: node.watches.clone(),
            keys: gauge("etcd_debugging_mvcc_keys_total", "Keys that exist."),
            revision: gauge("etcd_debugging_mvcc_current_revision", "The revision of the newest change."),
            compacted: gauge(
                "etcd_debugging_mvcc_compact_revision",
                "The revision up to which history was compacted.",
            ),
            bytes: gauge(
                "etcd_mvcc_db_total_size_in_bytes",
                "Size of all records that history still has: what the quota bounds.",
            ),
            live_bytes: gauge(
                "etcd_mvcc_db_total_size_in_use_in_bytes",
                "Size of the records that are some key's value now.",
            ),
            disk_bytes: gauge(
                "tenure_store_disk_bytes",
                "Size of the store's tables on disk, and of what is to become tables.",
            ),
            unstored_bytes: gauge(
                "tenure_store_pending_bytes",
                "Size of what the log has and the store was not given yet.",
            ),
            leases: gauge("tenure_leases", "Leases that exist."),
            streams: gauge("etcd_debugging_mvcc_watch_stream_total", "Streams of watchers at this member."),
            watchers: gauge("etcd_debugging_mvcc_watcher_total", "Watchers at this member."),
            slow: gauge(
                "etcd_debugging_mvcc_slow_watcher_total",
                "Watchers that are read history for, since they fell behind or began in the past.",
            ),
            pending: gauge(
                "etcd_debugging_mvcc_pending_events_total",
                "Revisions that wait to be sent to watchers.",
            ),
            lag: gauge(
                "tenure_watch_lag_revisions",
                "How many revisions the watcher that is furthest behind has not been sent yet.",
            ),
        }
    }

    pub fn read(&self) {
        let figures = self.view.store().figures();
        self.disk_bytes.set(figures.size_on_disk as f64);
        self.unstored_bytes.set(figures.pending_bytes as f64);
        {
            let machine = self.view.machine();
            let size = DatabaseSize::of(&machine);
            self.bytes.set(size.total as f64);
            self.live_bytes.set(size.in_use as f64);
            self.keys.set(machine.index().live_keys() as f64);
            self.revision.set(machine.revision().0 as f64);
            self.compacted.set(machine.compacted().0 as f64);
            self.leases.set(machine.leases().len() as f64);
        }
        let watches = self.watches.stats();
        self.streams.set(watches.streams as f64);
        self.watchers.set(watches.watchers as f64);
        self.slow.set(watches.slow as f64);
        self.pending.set(watches.pending as f64);
        self.lag.set(watches.lag as f64);
    }
}
