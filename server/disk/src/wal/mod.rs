//! The write-ahead log under Raft: entries, votes and truncations, durable in the order in which they were asked for.
//!
//! It must not know what an entry means, nor openraft, nor an async runtime: payloads are bytes, and who waits is called back.
//!
//! ```text
//!  caller ── append, save_vote, truncate_after, purge ──> book (in memory, at once) ──> queue
//!                                                           ^ read: tail or files        │ everything queued
//!                                                           │                            v
//!         done(Ok) in order <── settle: places, released segments <── writer: one batch, one write, one sync
//!                                                                        │ needs a file      ^ prepared, zero-filled
//!                                                                        v                   │
//!                                                                      stock: prepares, takes back, recycles
//! ```
//! | thread | owner | input | output | bound | when full |
//! |---|---|---|---|---|---|
//! | wal-writer | `Writer` | the queue in `Book` | `done` callbacks | what callers have in flight | callers limit it |
//! | wal-segments | `stock::Keeper` | prepare, retire | a prepared segment | one prepared, `spares_max` kept | files are removed |
//!
//! Read on: `recovery` holds the theory (why a torn write and a damaged one can be told apart), `sector` and `record` the
//! format, `writer` the group commit.

mod book;
mod extent;
mod map;
mod record;
mod recovery;
mod sector;
mod segment;
mod stock;
mod tail;
mod writer;

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::disk::Disk;
use book::{Book, Shared};
use recovery::Recovered;
use stock::Stock;
use writer::Writer;

/// The longest payload of an entry, in bytes.
pub const PAYLOAD_BYTES_MAX: usize = 256 << 20;

/// An entry's place in the log. Ids are ordered by term, then node, then index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogId {
    pub term: u64,
    /// The leader of that term that wrote it.
    pub node: u64,
    pub index: u64,
}

/// Whom this member votes for, and whether a quorum did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Vote {
    pub term: u64,
    pub node: u64,
    pub committed: bool,
}

/// What the log holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogState {
    pub last_purged: Option<LogId>,
    /// The last entry; `last_purged` when none is held.
    pub last: Option<LogId>,
}

/// How the log is run. The default suits a server.
#[derive(Clone, Debug)]
pub struct WalOptions {
    /// Full size of a segment file, 4 KiB to 1 GiB.
    pub segment_bytes: u64,
    /// Size of a new log's first segment; each next one is twice as large, up to `segment_bytes`.
    pub first_segment_bytes: u64,
    /// Memory for the newest entries, payloads and 64 bytes each. What is not on disk yet stays in memory anyway.
    pub tail_bytes_max: u64,
    /// A batch is closed when it has grown to this, 1 byte to 64 MiB; it may be longer by one entry.
    pub batch_bytes_max: usize,
    /// Purged segment files kept for reuse.
    pub spares_max: usize,
    pub workers: Workers,
    pub observer: Observer,
}

impl Default for WalOptions {
    fn default() -> WalOptions {
        WalOptions {
            segment_bytes: 64 << 20,
            first_segment_bytes: 1 << 20,
            tail_bytes_max: 64 << 20,
            batch_bytes_max: 4 << 20,
            spares_max: 2,
            workers: Workers::Threads,
            observer: Observer::default(),
        }
    }
}

/// Who does the log's work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workers {
    /// Threads of the log's own; callers never wait for the disk.
    Threads,
    /// Whoever calls, before the call returns: no threads, the same every time. For simulations and tests.
    Caller,
    /// Nobody, until [`Wal::work`] is called: a simulation has the disk take its time.
    Hand,
}

/// Hears what the log does: for metrics and log lines. Called by the log's threads; it must not block.
#[derive(Clone, Default)]
pub struct Observer(Option<Arc<Hear>>);

type Hear = dyn Fn(WalEvent<'_>) + Send + Sync;

impl Observer {
    pub fn new(hear: impl Fn(WalEvent<'_>) + Send + Sync + 'static) -> Observer {
        Observer(Some(Arc::new(hear)))
    }

    fn tell(&self, event: WalEvent<'_>) {
        if let Some(hear) = &self.0 {
            hear(event);
        }
    }
}

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Observer" } else { "Observer(none)" })
    }
}

/// What happened in the log.
#[derive(Clone, Copy, Debug)]
pub enum WalEvent<'a> {
    /// A batch became durable. `bytes` counts all that was written for it.
    Synced { entries: u64, bytes: u64, write: Duration, sync: Duration },
    /// The log goes on in a new segment.
    SegmentBegun { number: u64 },
    /// A segment was purged and its file given up.
    SegmentRemoved { number: u64 },
    /// Something failed that does not stop the log yet, such as preparing the next segment.
    Trouble(&'a str),
    /// The log is broken: nothing more is written in this process.
    Broken(&'a str),
}

/// Why a log could not be opened. Every text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("could not {attempt} {}: {source}; see to the disk, then start this member again", path.display())]
    Io { attempt: &'static str, path: PathBuf, source: io::Error },
    #[error(
        "the log file {} is damaged at byte {offset}: {what}; acknowledged writes may be lost here, so this member does \
         not start: remove it from the cluster and add it again with an empty data directory, or restore a backup",
        file.display()
    )]
    Damaged { file: PathBuf, offset: u64, what: String },
    #[error(
        "the log file {} has format {found}, this program reads format {known}: start the version that wrote it",
        file.display()
    )]
    Version { file: PathBuf, found: u32, known: u32 },
    #[error("the log's options cannot be used: {0}")]
    Options(&'static str),
}

/// What was found when the log was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    pub segments: usize,
    pub batches: u64,
    /// Entries held.
    pub entries: u64,
    /// A write that the power cut short, and that was dropped.
    pub torn: Option<Torn>,
}

/// The remains of a batch that was never acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Torn {
    pub file: PathBuf,
    /// Where the batch begins.
    pub offset: u64,
    /// How much of it had reached the disk.
    pub bytes: u64,
}

/// The log. A handle: clones share it; the last one dropped closes it.
#[derive(Clone)]
pub struct Wal {
    owner: Arc<Owner>,
}

struct Owner {
    shared: Arc<Shared>,
    worker: Worker,
    recovery: Recovery,
}

enum Worker {
    /// `at_once`: not only when asked to.
    Caller {
        writer: Box<Mutex<Writer>>,
        at_once: bool,
    },
    Thread(Mutex<Option<JoinHandle<()>>>),
}

impl Wal {
    /// Opens the log in `dir`, creating it if need be. The caller holds the lock on the directory.
    ///
    /// # Errors
    /// See [`OpenError`]. A log that may have lost acknowledged writes is never opened.
    pub fn open(disk: Arc<dyn Disk>, dir: &Path, options: WalOptions) -> Result<Wal, OpenError> {
        options.check()?;
        let io = |attempt| move |source| OpenError::Io { attempt, path: dir.to_owned(), source };
        disk.create_dir(dir).map_err(io("create"))?;
        let recovered = recovery::recover(&*disk, dir)?;
        let Recovered { extent, map, start, prepared, empty, next_number, report } = recovered;
        let (vote, committed) = (start.standing.vote, start.standing.committed);

        let stock = Stock::open(disk, dir.to_owned(), &options, next_number, prepared);
        let stock = stock.map_err(io("start the threads for"))?;
        let mut writer = Writer::new(start, stock, &options);
        writer.prepare(empty).map_err(io("prepare a log segment in"))?;
        let shared = Arc::new(Shared::new(Book::new(extent, map, vote, committed, options.tail_bytes_max)));
        let worker = match options.workers {
            Workers::Caller | Workers::Hand => {
                let at_once = options.workers == Workers::Caller;
                Worker::Caller { writer: Box::new(Mutex::new(writer)), at_once }
            }
            Workers::Threads => {
                let queue = shared.clone();
                let thread = std::thread::Builder::new().name("wal-writer".to_owned());
                let thread = thread.spawn(move || writer.run(&queue)).map_err(io("start the threads for"))?;
                Worker::Thread(Mutex::new(Some(thread)))
            }
        };
        Ok(Wal { owner: Arc::new(Owner { shared, worker, recovery: report }) })
    }

    /// Appends entries, which can be read when this returns; `done` is called once they are durable, or why they are not.
    /// After an error it is unknown whether they will be there at the next start.
    ///
    /// `done` gets `InvalidInput`, and nothing is appended, when the entries do not follow on from the last one or a payload
    /// exceeds [`PAYLOAD_BYTES_MAX`]. It may be called before this returns, and must not block.
    pub fn append(&self, entries: Vec<(LogId, Bytes)>, done: impl FnOnce(io::Result<()>) + Send + 'static) {
        if self.append_quietly(entries, done) {
            self.wake();
        }
    }

    /// The same, but lets a writer sleep that does, so that more can gather for one sync. Answers whether the caller has to call
    /// [`Wal::wake`], soon: if not, the writer is at work, or somebody else was told.
    #[must_use = "nobody else wakes the writer"]
    pub fn append_quietly(
        &self,
        entries: Vec<(LogId, Bytes)>,
        done: impl FnOnce(io::Result<()>) + Send + 'static,
    ) -> bool {
        let asleep = self.owner.shared.append(entries, Box::new(done));
        self.owner.work();
        asleep
    }

    /// Has written what was appended quietly.
    pub fn wake(&self) {
        self.owner.shared.wake();
    }

    /// Saves the vote; `done` is called once it is durable, after everything asked for before it.
    pub fn save_vote(&self, vote: Vote, done: impl FnOnce(io::Result<()>) + Send + 'static) {
        self.owner.shared.save_vote(vote, Box::new(done));
        self.owner.work();
    }

    /// The vote last saved.
    pub fn vote(&self) -> Option<Vote> {
        self.owner.shared.book().vote
    }

    /// Drops the entries after `index`, all of them if there is none. What was purged stays purged. Durable before
    /// anything asked for later is.
    pub fn truncate_after(&self, index: Option<u64>) {
        self.owner.shared.truncate_after(index);
        self.owner.work();
    }

    /// Forgets the entries up to and with `upto`, which may lie beyond the last one. Files go when nothing in them is
    /// needed and the purge is durable. The caller has made durable what the entries led to.
    pub fn purge(&self, upto: LogId) {
        self.owner.shared.purge(upto);
        self.owner.work();
    }

    /// Notes how far the log is known to be committed: a hint, written along with whatever is written next.
    pub fn save_committed(&self, committed: Option<LogId>) {
        self.owner.shared.save_committed(committed);
    }

    /// The hint last saved. After a restart it may be older than what was saved.
    pub fn committed(&self) -> Option<LogId> {
        self.owner.shared.book().committed
    }

    pub fn state(&self) -> LogState {
        self.owner.shared.book().state()
    }

    /// The id of an entry held, or of the last one purged; from memory.
    pub fn id(&self, index: u64) -> Option<LogId> {
        self.owner.shared.book().id(index)
    }

    /// Reads the entries of a range that are held, in order: at least one, if there is one, and not so many more that their
    /// payloads pass `bytes_max`; fewer where much room lies between them on disk. Entries not in memory are read from
    /// files, by the caller.
    ///
    /// # Errors
    /// `InvalidData` if a file does not hold what was written to it; otherwise what the disk says.
    pub fn read(&self, range: Range<u64>, bytes_max: u64) -> io::Result<Vec<(LogId, Bytes)>> {
        let (spans, recent) = self.owner.shared.book().find(range, bytes_max);
        if spans.is_empty() {
            return Ok(recent);
        }
        let mut entries = Vec::new();
        for span in spans {
            entries.extend(span.read()?);
        }
        entries.extend(recent);
        let mut bytes = 0;
        let fits = |(_, payload): &(LogId, Bytes)| {
            bytes += payload.len() as u64;
            bytes <= bytes_max
        };
        let count = entries.iter().map(fits).take_while(|fits| *fits).count();
        entries.truncate(count.max(1));
        Ok(entries)
    }

    /// What was found when the log was opened.
    pub fn recovery(&self) -> &Recovery {
        &self.owner.recovery
    }

    /// Why nothing more can be written, if so: the log broke or was closed.
    pub fn stopped(&self) -> Option<String> {
        self.owner.shared.book().stopped().map(|stopped| stopped.text.clone())
    }

    /// Writes what is queued if nobody else does: see [`Workers::Hand`].
    pub fn work(&self) {
        self.owner.work_through();
    }

    /// Writes what is queued, then ends the log's threads. Clones can still read; their writes are refused.
    pub fn close(self) {
        self.owner.close();
    }
}

impl WalOptions {
    fn check(&self) -> Result<(), OpenError> {
        if !(4 << 10..=1 << 30).contains(&self.segment_bytes) {
            return Err(OpenError::Options("segment_bytes must be between 4 KiB and 1 GiB"));
        }
        if !(1 << 10..=self.segment_bytes).contains(&self.first_segment_bytes) {
            return Err(OpenError::Options("first_segment_bytes must be between 1 KiB and segment_bytes"));
        }
        if !(1..=64 << 20).contains(&self.batch_bytes_max) {
            return Err(OpenError::Options("batch_bytes_max must be between 1 byte and 64 MiB"));
        }
        Ok(())
    }
}

impl Owner {
    /// Does queued work where the caller is the worker. A `done` that asks for more only queues it: whoever is writing
    /// already takes it up before it lets go.
    fn work(&self) {
        if let Worker::Caller { at_once: true, .. } = &self.worker {
            self.work_through();
        }
    }

    fn work_through(&self) {
        let Worker::Caller { writer, .. } = &self.worker else { return };
        while self.shared.has_work() {
            let Some(mut writer) = writer.try_lock() else { return };
            writer.run_once(&self.shared);
        }
    }

    fn close(&self) {
        self.shared.close();
        match &self.worker {
            Worker::Caller { .. } => self.work_through(),
            Worker::Thread(thread) => {
                let thread = thread.lock().take();
                // The last handle may be dropped by a callback, on the very thread that is to end.
                if let Some(thread) =
                    thread.filter(|thread| thread.thread().id() != std::thread::current().id())
                {
                    // It can only have panicked, and said so.
                    let _ = thread.join();
                }
            }
        }
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.close();
    }
}
