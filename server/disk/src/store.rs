//! The store under the state machine: every record of history (`rev`) and the small replicated state (`meta`), in one
//! ordered database on disk. It knows places, bytes and order; not what a record means, nor what the log holds.
//!
//! # Why it may write late
//!
//! The log is what makes a command durable: its entry is fsynced on a majority before any replica applies it. The store
//! only repeats what the log already holds, so nothing here fsyncs on the way of a write, and a write is not even
//! handed to the disk before it counts:
//!
//! ```text
//!   apply ── write() ──> backlog (memory) ── store thread ──> database journal ── sync() ──> survives power loss
//!                          │   readable at once                 survives a killed process
//!                          └── one batch or several go in as ONE atomic batch, with the newest `applied` beside them
//! ```
//!
//! What comes back after a crash is a prefix of what was written, batch by batch, and `applied` says which prefix; the
//! replica applies the log again from there. Three duties follow for the owner:
//!
//! 1. Purge the log only up to the `applied` that [`Store::sync`] returned.
//! 2. At start compare [`Store::applied`] with the first index of the log. A database that lost more than its unsynced
//!    tail (the library opens some damaged journals without a word) shows as a gap there: set the store aside, rebuild.
//! 3. Await [`Store::room`] before applying more. The backlog is bounded by nothing else.
//!
//! # Reading
//!
//! A record is looked for in the backlog, then in the read cache, then in the database. Records are immutable at their
//! place, so the cache can only be wrong about a drop, and drops invalidate it. Order between the layers is what makes
//! reads exact: a batch leaves the backlog only after the database shows it, and a reader looks in the same order.
//!
//! | who | owns | waits for |
//! |---|---|---|
//! | the apply task | `write`, in order | [`Store::room`] |
//! | the store thread (`store`) | all commits and syncs | the disk |
//! | readers, any thread | their [`Scan`] or [`Snapshot`] | the disk, when neither backlog nor cache has it |
//! | a thread that reads ahead (`store-ahead`), at start | a [`Scan`] of a snapshot | the disk, and whoever takes the records in |
//! | an installer's thread (`store-install`) | the new database until it takes over | its sender |
//! | a thread that reclaims space (`store-reclaim`), on request | nothing | the disk |
//!
//! # Directory
//!
//! ```text
//!   LOCK                one process at a time
//!   CURRENT             name of the live database, replaced by rename
//!   state-0000/         the database; an install fills the next number and then switches CURRENT
//! ```

mod ahead;
mod backlog;
mod batch;
mod database;
mod directory;
mod engine;
mod install;
mod memory;
mod open;
mod reclaim;
mod scan;
mod shared;
mod thread;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tenure_state::{Fatal, Place, Records, Write};

pub use self::ahead::Ahead;
pub use self::install::{InstallError, Installer, Sealed};
pub use self::memory::Memory;
pub use self::open::OpenError;
pub use self::scan::{Chunk, MetaScan, Scan, Snapshot};
pub use self::shared::{Room, Settled};

use self::batch::Batch;
use self::shared::Shared;
use self::thread::StoreThread;

const MIB: u64 = 1 << 20;

/// A handle to the store; clones share it. The last one to go commits what is still in memory and closes the database,
/// which blocks for the disk; a [`Scan`], [`Snapshot`], [`Room`] or [`Settled`] that outlives it keeps the database open.
#[derive(Clone)]
pub struct Store {
    thread: Arc<StoreThread>,
}

/// Sizes of memory and files. The defaults keep the whole store near 120 MiB of memory.
#[derive(Clone)]
pub struct StoreOptions {
    /// Bytes of database blocks kept in memory; about 1.3 times as much is used. Default 32 MiB.
    pub cache_bytes: u64,
    /// Bytes of writes that the database gathers in memory before it writes a table; up to three such portions exist,
    /// when tables cannot be written as fast. Default 16 MiB.
    pub memtable_bytes: u64,
    /// Bytes of journal files before the database hurries to empty them; they bound the time to open. Less than 64 MiB
    /// counts as 64 MiB, the default.
    pub journal_bytes_max: u64,
    /// Weight in memory of what is written but not yet committed before [`Store::room`] makes the writer wait. Default 32 MiB.
    pub pending_bytes_max: usize,
    /// Bytes of records that were read from disk one by one. Default 32 MiB.
    pub read_cache_bytes: u64,
    /// Told of commits, syncs, stalls and failure, on the thread where they happen: it must return at once.
    pub observer: Observer,
}

pub type Observer = Arc<dyn Fn(StoreEvent) + Send + Sync>;

/// What the store tells its observer.
#[derive(Clone, Debug, PartialEq)]
pub enum StoreEvent {
    /// `batches` writes went into the database as one; `bytes` are their keys and values.
    Committed { took: Duration, batches: usize, bytes: usize },
    /// Everything committed so far survives power loss.
    Synced { took: Duration },
    /// A commit had to wait because the database was behind with writing tables.
    Stalled { took: Duration },
    /// Dropped records were merged away; sizes as [`Figures::size_on_disk`] has them.
    Reclaimed { took: Duration, before: u64, after: u64 },
    /// They were not; nothing else suffers from it.
    ReclaimFailed(String),
    /// The store is of no use any more; said once.
    Broken(Fatal),
}

/// What the store holds at this moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Batches written but not yet committed.
    pub pending_batches: usize,
    /// What they weigh in memory.
    pub pending_bytes: usize,
    /// Bytes of tables on disk plus bytes that are still only in memory and journal. Journal files, of bounded size
    /// and allocated ahead, are not counted.
    pub size_on_disk: u64,
    /// Bytes of records in the read cache.
    pub read_cache_bytes: u64,
}

impl Store {
    /// Opens the store in `dir`, creating it when the directory is empty or absent, and removes what an interrupted
    /// install left there. Blocking: it replays the database's journal, up to seconds.
    pub fn open(dir: &Path, options: StoreOptions) -> Result<Store, OpenError> {
        let shared = Arc::new(open::open(dir, options)?);
        let thread = StoreThread::start(shared).map_err(|error| OpenError::Io {
            attempt: "start the store's thread for",
            path: dir.into(),
            error,
        })?;
        Ok(Store { thread: Arc::new(thread) })
    }

    /// A store for simulations, in memory and without a thread: what is written is committed when the call returns, and
    /// every call does the same each time. What is in `memory` already is where it goes on.
    pub fn in_memory(memory: &Memory, options: StoreOptions) -> Store {
        Store { thread: Arc::new(StoreThread::in_place(open::in_memory(memory, options))) }
    }

    /// Moves a store that cannot be opened to `<dir>.aside`, in place of what was set aside before, so that
    /// [`Store::open`] makes a new one. Returns where it went. Only for a store whose contents can be had again: from
    /// the whole log, or from the leader.
    pub fn set_aside(dir: &Path) -> Result<PathBuf, OpenError> {
        directory::set_aside(dir)
    }

    /// Writes what one or more commands did, with the `applied` that says how far that is; readable on return,
    /// committed soon. Called by one task only, in the order of the log. Never blocks; see [`Store::room`].
    ///
    /// # Errors
    /// The store is broken; nothing was taken.
    pub fn write(&self, writes: Vec<Write>, applied: Bytes) -> Result<(), Fatal> {
        self.shared().write(Batch::new(writes, applied))?;
        self.thread.work();
        Ok(())
    }

    /// Ready when less than `pending_bytes_max` waits to be committed. Safe to drop.
    pub fn room(&self) -> Room {
        Room::new(Arc::clone(self.shared()))
    }

    /// Ready when everything written before this call is committed: it survives a killed process, not power loss.
    /// Safe to drop. [`Settled::wait`] blocks instead.
    pub fn settled(&self) -> Settled {
        Settled::new(Arc::clone(self.shared()))
    }

    /// Makes everything written before this call survive power loss. Returns the newest `applied` that is covered, None
    /// when nothing was ever written. Blocks for the disk, 2 to 40 ms and more; not for a runtime's thread.
    pub fn sync(&self) -> Result<Option<Bytes>, Fatal> {
        let (sender, receiver) = std::sync::mpsc::sync_channel(1);
        self.sync_then(Box::new(move |outcome| drop(sender.send(outcome))));
        receiver
            .recv()
            .unwrap_or_else(|_| Err(Fatal("sync the store: its thread has ended; restart the server".into())))
    }

    /// As [`Store::sync`], but returns at once; `done` is called on the store's thread and must not block.
    pub fn sync_then(&self, done: Box<dyn FnOnce(Result<Option<Bytes>, Fatal>) + Send>) {
        self.shared().sync_then(done);
        self.thread.work();
    }

    /// Visits the records from `from` up to but not including `to`, in order, as they stand at this call. Blocks for
    /// the disk.
    pub fn scan(
        &self,
        from: Place,
        to: Place,
        visit: &mut dyn FnMut(Place, Bytes) -> ControlFlow<()>,
    ) -> Result<(), Fatal> {
        for item in self.shared().scan(from, to)? {
            let (place, bytes) = item?;
            if visit(place, bytes).is_break() {
                break;
            }
        }
        Ok(())
    }

    /// The same as an iterator that can be kept and sent to another thread while writes go on.
    pub fn scanner(&self, from: Place, to: Place) -> Result<Scan, Fatal> {
        self.shared().scan(from, to)
    }

    /// A bounded part of a scan, for callers that give way between parts: at most `items_max` records (at least one)
    /// and no more once `bytes_max` is reached. Go on from [`Chunk::next`].
    pub fn scan_chunk(
        &self,
        from: Place,
        to: Place,
        items_max: usize,
        bytes_max: usize,
    ) -> Result<Chunk, Fatal> {
        self.shared().scan(from, to)?.chunk(items_max, bytes_max)
    }

    /// All small state whose key starts with `prefix`, in order of keys.
    pub fn meta(&self, prefix: &[u8]) -> Result<Vec<(Bytes, Bytes)>, Fatal> {
        self.shared().meta(prefix)
    }

    /// The `applied` of the newest write, or after opening that of the newest write that was found.
    pub fn applied(&self) -> Option<Bytes> {
        self.shared().applied()
    }

    /// A consistent view of what is committed, taken in O(1). Await [`Store::settled`] first for all that was written.
    pub fn snapshot(&self) -> Result<Snapshot, Fatal> {
        Snapshot::take(self.shared().engine())
    }

    /// Err once the store has failed; it stays so until it is opened again.
    pub fn health(&self) -> Result<(), Fatal> {
        self.shared().engine().health()
    }

    pub fn figures(&self) -> Figures {
        self.shared().figures()
    }

    /// See [`Figures::size_on_disk`].
    pub fn size_on_disk(&self) -> u64 {
        self.shared().engine().size_on_disk()
    }

    /// Begins to give back the disk space of dropped records, and returns at once; about a second for 300 MB, and for a
    /// while as much disk again as the records take. Does nothing while that is under way. Its end, which closing the
    /// store waits for, is a [`StoreEvent::Reclaimed`]. Reads and writes go on, but writes of more than some 60 MiB
    /// meanwhile wait for it.
    ///
    /// # Errors
    /// No thread could be started.
    pub fn compact_disk(&self) -> std::io::Result<()> {
        reclaim::start(self.shared())
    }

    /// Begins to replace everything by a snapshot from elsewhere. The store works on until
    /// [`Installer::finish`] or [`Sealed::switch`].
    ///
    /// # Errors
    /// Another install is under way, or no thread could be started.
    pub fn begin_install(&self) -> Result<Installer, InstallError> {
        Installer::begin(self.clone())
    }

    fn shared(&self) -> &Arc<Shared> {
        self.thread.shared()
    }
}

impl Records for Store {
    fn record(&self, place: Place) -> Result<Option<Bytes>, Fatal> {
        self.shared().record(place)
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("directory", &self.shared().dir()).finish_non_exhaustive()
    }
}

impl Default for StoreOptions {
    fn default() -> StoreOptions {
        StoreOptions {
            cache_bytes: 32 * MIB,
            memtable_bytes: 16 * MIB,
            journal_bytes_max: 64 * MIB,
            pending_bytes_max: 32 << 20,
            read_cache_bytes: 32 * MIB,
            observer: Arc::new(|_| {}),
        }
    }
}
