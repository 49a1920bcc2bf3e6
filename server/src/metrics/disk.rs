//! The log's writes, which every acknowledged change waits for, and the store's, which none does. Hears what the disk's
//! threads tell; knows nothing of files.

use std::time::Duration;

use super::{Counter, Histogram, Registry};

pub const LOG_BATCH_ENTRIES: &str = "tenure_log_batch_entries";

pub struct Disk {
    log_sync: Histogram,
    log_write: Histogram,
    log_bytes: Counter,
    log_batch: Histogram,
    commit: Histogram,
    store_sync: Histogram,
    stalled: Counter,
    reclaim: Histogram,
}

impl Disk {
    pub fn new(registry: &Registry) -> Disk {
        Disk {
            log_sync: registry
                .histogram(("etcd_disk_wal_fsync_duration_seconds", "How long the log's fsyncs took."), &[]),
            log_write: registry.histogram(
                ("etcd_disk_wal_write_duration_seconds", "How long writes to the log took, without fsync."),
                &[],
            ),
            log_bytes: registry
                .counter(("etcd_disk_wal_write_bytes_total", "Bytes written to the log."), &[]),
            log_batch: registry
                .histogram((LOG_BATCH_ENTRIES, "Entries that one fsync of the log made durable."), &[]),
            commit: registry.histogram(
                (
                    "etcd_disk_backend_commit_duration_seconds",
                    "How long commits to the store took. No request waits for them.",
                ),
                &[],
            ),
            store_sync: registry.histogram(
                ("tenure_store_sync_duration_seconds", "How long the store's fsyncs before snapshots took."),
                &[],
            ),
            stalled: registry.counter(
                (
                    "tenure_store_stalls_total",
                    "Commits to the store that had to wait, since the disk was behind.",
                ),
                &[],
            ),
            reclaim: registry.histogram(
                (
                    "etcd_disk_backend_defrag_duration_seconds",
                    "How long it took to give back the disk space of dropped records.",
                ),
                &[],
            ),
        }
    }

    /// The log has made a batch durable.
    pub fn log_synced(&self, entries: u64, bytes: u64, write: Duration, sync: Duration) {
        self.log_sync.record(sync);
        self.log_write.record(write);
        self.log_bytes.increment(bytes);
        self.log_batch.record(entries as f64);
    }

    pub fn store_committed(&self, took: Duration) {
        self.commit.record(took);
    }

    pub fn store_synced(&self, took: Duration) {
        self.store_sync.record(took);
    }

    pub fn store_stalled(&self) {
        self.stalled.increment(1);
    }

    pub fn space_reclaimed(&self, took: Duration) {
        self.reclaim.record(took);
    }
}
