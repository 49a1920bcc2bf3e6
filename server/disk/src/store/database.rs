//! One open database on disk and the cache of records read from it. With `engine`, `install` and `reclaim`, which read
//! it in order, fill and merge it, the only place that calls the storage library; knows nothing of the backlog or of threads.
//!
//! Any failure of the library is final for the database: it is remembered, told once, and answered from then on.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use fjall::{AbstractTree, Keyspace, KeyspaceCreateOptions, OwnedWriteBatch, PersistMode, Readable};
use tenure_state::{Fatal, Place};

use super::batch::Batch;
use super::directory::{DatabaseDirectory, sync_directory};
use super::engine::APPLIED;
use super::{Observer, StoreEvent, StoreOptions};
use crate::background;

/// The library's least journal size.
const JOURNAL_BYTES_MIN: u64 = 64 << 20;
/// One thread writes tables and merges them: more of them would compete for the cores that serve clients, and the
/// library's second thread spins while the first merges.
const WORKERS: usize = 1;
/// Before a commit, this many full memtables may wait to be written as tables, and this many runs of unmerged tables.
/// Both lie below the bounds at which the library itself would wait (4 and 20): see [`Database::make_room`].
const SEALED_MEMTABLES_MAX: usize = 2;
const UNMERGED_RUNS_MAX: usize = 16;
const MEMTABLE_UNBOUNDED: u64 = 1 << 40;
const TABLES_POLL: Duration = Duration::from_millis(1);
/// Polls between two looks whether the thread that writes tables is still alive.
const POLLS_PER_PROBE: u32 = 50;
/// What the read cache spends on an entry besides the record: key, counters, queue nodes, allocator.
const CACHE_ENTRY_BYTES: usize = 200;

pub(super) struct Database {
    database: fjall::Database,
    records: Keyspace,
    meta: Keyspace,
    /// Filled by reads only: a write would pay for a record that is seldom read again from here.
    cache: moka::sync::Cache<Place, Bytes>,
    /// Counts commits that dropped records, for [`Database::record`].
    drops: AtomicU64,
    memtable_bytes: u64,
    fatal: OnceLock<Fatal>,
    observer: Observer,
    /// Last, so that the database is closed before its directory goes.
    directory: DatabaseDirectory,
}

impl Database {
    /// Opens the database at `path`, creating it if absent.
    pub fn open(path: &Path, options: &StoreOptions) -> fjall::Result<Database> {
        // The library asks for it, whatever the path, and panics if there is none.
        std::env::current_dir().map_err(|error| {
            io::Error::other(format!("the working directory is gone ({error}); start from one that stays"))
        })?;
        let builder = fjall::Database::builder(path)
            .cache_size(options.cache_bytes)
            .max_journaling_size(options.journal_bytes_max.max(JOURNAL_BYTES_MIN))
            .worker_threads(WORKERS);
        let database = open_behind(builder)?;
        // A place that is asked for exists: filters on the last level, where most records lie, would never say no.
        // The library keeps these options from the database's first day on, so the size of a memtable is seen to here.
        let keyspace = || {
            KeyspaceCreateOptions::default()
                .max_memtable_size(MEMTABLE_UNBOUNDED)
                .expect_point_read_hits(true)
        };
        let (records, meta) = (database.keyspace("rev", keyspace)?, database.keyspace("meta", keyspace)?);
        // The library syncs what it puts into these directories, but not that the directories are there.
        for keyspaces in [&records, &meta].into_iter().filter_map(|keyspace| keyspace.path().parent()) {
            sync_directory(keyspaces)?;
        }
        Ok(Database {
            records,
            meta,
            database,
            cache: moka::sync::Cache::builder()
                .max_capacity(options.read_cache_bytes)
                .weigher(|_, record: &Bytes| {
                    u32::try_from(record.len() + CACHE_ENTRY_BYTES).unwrap_or(u32::MAX)
                })
                .build(),
            drops: AtomicU64::new(0),
            memtable_bytes: options.memtable_bytes,
            fatal: OnceLock::new(),
            observer: Arc::clone(&options.observer),
            directory: DatabaseDirectory::new(path.into()),
        })
    }

    /// The committed record at `place`.
    ///
    /// A read that met a record just before it was dropped must not leave it in the cache. Whoever drops first counts
    /// and then invalidates, whoever reads first looks at the count and then fills: one of the two sees the other.
    pub fn record(&self, place: Place) -> Result<Option<Bytes>, Fatal> {
        if let Some(record) = self.cache.get(&place) {
            return Ok(Some(record));
        }
        let drops = self.drops.load(Ordering::SeqCst);
        let found = self.records.get(place.encode()).map_err(|error| self.failed("read a record", &error))?;
        let Some(found) = found else { return Ok(None) };
        // A copy: what the library hands out is a part of a block of 4 KiB, which the cache would keep alive whole.
        let record = Bytes::copy_from_slice(&found);
        self.cache.insert(place, record.clone());
        if self.drops.load(Ordering::SeqCst) != drops {
            self.cache.invalidate(&place);
        }
        Ok(Some(record))
    }

    /// Makes the batches visible as one: after a crash all of them are there or none.
    pub fn commit(&self, batches: &[Arc<Batch>]) -> Result<(), Fatal> {
        self.health()?;
        self.make_room()?;
        let started = Instant::now();
        match batches {
            [] => return Ok(()),
            [batch] => self.commit_one(batch)?,
            _ => self.commit_one(&Batch::merged(batches))?,
        }
        let bytes = batches.iter().map(|batch| batch.bytes).sum();
        (self.observer)(StoreEvent::Committed { took: started.elapsed(), batches: batches.len(), bytes });
        Ok(())
    }

    fn commit_one(&self, batch: &Batch) -> Result<(), Fatal> {
        let items = batch.records.len() + batch.meta.len() + 1;
        let mut writes = OwnedWriteBatch::with_capacity(self.database.clone(), items)
            .durability(Some(PersistMode::Buffer));
        for (place, record) in &batch.records {
            match record {
                Some(record) => writes.insert(&self.records, place.encode(), record.clone()),
                None => writes.remove(&self.records, place.encode()),
            }
        }
        for (key, value) in &batch.meta {
            if key == APPLIED {
                return Err(
                    self.fail("write small state under the key that the store keeps for itself".into())
                );
            }
            match value {
                Some(value) => writes.insert(&self.meta, key.clone(), value.clone()),
                None => writes.remove(&self.meta, key.clone()),
            }
        }
        writes.insert(&self.meta, APPLIED, batch.applied.clone());
        writes.commit().map_err(|error| self.failed("commit a batch", &error))?;
        self.forget_dropped(batch);
        Ok(())
    }

    fn forget_dropped(&self, batch: &Batch) {
        let mut dropped = batch.records.iter().filter(|(_, record)| record.is_none()).peekable();
        if dropped.peek().is_some() {
            self.drops.fetch_add(1, Ordering::SeqCst);
            dropped.for_each(|(place, _)| self.cache.invalidate(place));
        }
    }

    /// Sees to it that the memory of the next commit is bounded: has a full memtable written as a table, and waits while
    /// the database is behind with that. The library does both too, but later, when its own thread comes to it, and it
    /// waits without ever looking whether that thread is still alive: after a full disk it would wait for good.
    fn make_room(&self) -> Result<(), Fatal> {
        let started = Instant::now();
        let mut polls = 0;
        while self.is_behind() {
            polls += 1;
            if polls % POLLS_PER_PROBE == 0 {
                self.database
                    .persist(PersistMode::Buffer)
                    .map_err(|error| self.failed("wait for tables to be written", &error))?;
            }
            thread::sleep(TABLES_POLL);
        }
        if polls > 0 {
            (self.observer)(StoreEvent::Stalled { took: started.elapsed() });
        }
        for keyspace in [&self.records, &self.meta] {
            if keyspace.tree.active_memtable().size() >= self.memtable_bytes {
                keyspace.rotate_memtable().map_err(|error| self.failed("begin a table", &error))?;
            }
        }
        Ok(())
    }

    fn is_behind(&self) -> bool {
        [&self.records, &self.meta].into_iter().any(|keyspace| {
            let full = keyspace.tree.active_memtable().size() >= self.memtable_bytes;
            keyspace.sealed_memtable_count() + usize::from(full) > SEALED_MEMTABLES_MAX
                || keyspace.tree.l0_run_count() > UNMERGED_RUNS_MAX
        })
    }

    /// Makes what is committed survive power loss.
    pub fn persist(&self) -> Result<(), Fatal> {
        self.health()?;
        let started = Instant::now();
        self.database.persist(PersistMode::SyncAll).map_err(|error| self.failed("sync", &error))?;
        (self.observer)(StoreEvent::Synced { took: started.elapsed() });
        Ok(())
    }

    /// Writes `applied` into a database that was filled past the journal, and makes all of it survive power loss.
    pub fn seal(&self, applied: Bytes) -> Result<(), Fatal> {
        self.commit_one(&Batch::new(Vec::new(), applied))?;
        self.persist()
    }

    /// For filling a new database: records, small state.
    pub fn keyspaces(&self) -> (&Keyspace, &Keyspace) {
        (&self.records, &self.meta)
    }

    /// Has what is only in memory written as tables, soon. Small state too, as this is also when the library finds out
    /// what no snapshot needs any more, and there is always some small state in memory.
    pub fn begin_tables(&self) -> fjall::Result<()> {
        self.records.rotate_memtable()?;
        self.meta.rotate_memtable().map(drop)
    }

    pub fn is_writing_tables(&self) -> bool {
        self.records.sealed_memtable_count() + self.meta.sealed_memtable_count() > 0
    }

    /// Merges all tables of records into the last level, where dropped records vanish. Blocks, about a second for 300 MB,
    /// and keeps the library's thread from writing other tables meanwhile.
    pub fn merge_tables(&self) -> fjall::Result<()> {
        self.records.major_compact()
    }

    /// A view of what is committed now, that later commits do not change.
    pub fn view(&self) -> DatabaseView {
        let (records, meta) = (self.records.clone(), self.meta.clone());
        DatabaseView { snapshot: self.database.snapshot(), records, meta }
    }

    pub fn health(&self) -> Result<(), Fatal> {
        self.fatal.get().map_or(Ok(()), |fatal| Err(fatal.clone()))
    }

    pub fn size_on_disk(&self) -> u64 {
        self.records.disk_space() + self.meta.disk_space() + self.database.write_buffer_size()
    }

    pub fn read_cache_bytes(&self) -> u64 {
        self.cache.weighted_size()
    }

    pub fn directory(&self) -> &DatabaseDirectory {
        &self.directory
    }

    /// Remembers that the library failed, and says so once.
    pub fn failed(&self, attempt: &str, error: &fjall::Error) -> Fatal {
        self.fail(format!("{attempt}: {error}"))
    }

    pub fn fail(&self, what: String) -> Fatal {
        let path = self.directory.path().display();
        let fatal = Fatal(format!(
            "store {path}: {what}; check the disk and its free space, then restart the server"
        ));
        if self.fatal.set(fatal.clone()).is_ok() {
            (self.observer)(StoreEvent::Broken(fatal.clone()));
        }
        self.fatal.get().cloned().unwrap_or(fatal)
    }
}

/// Opens it on a thread that has stepped back, which the library's own threads inherit.
fn open_behind(builder: fjall::DatabaseBuilder<fjall::Database>) -> fjall::Result<fjall::Database> {
    let opening = background::start("store-open", move || builder.open())?;
    opening.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Both keyspaces as they were at one moment.
#[derive(Clone)]
pub(super) struct DatabaseView {
    snapshot: fjall::Snapshot,
    records: Keyspace,
    meta: Keyspace,
}

impl DatabaseView {
    pub fn records(&self, from: Place, to: Place) -> fjall::Iter {
        // An inverted range is empty, and no matter for the library's checks.
        self.snapshot.range(&self.records, from.encode()..to.max(from).encode())
    }

    pub fn meta(&self, prefix: &[u8]) -> fjall::Iter {
        self.snapshot.prefix(&self.meta, prefix)
    }

    pub fn applied(&self) -> fjall::Result<Option<Bytes>> {
        let found = self.snapshot.get(&self.meta, APPLIED)?;
        Ok(found.map(|bytes| Bytes::copy_from_slice(&bytes)))
    }
}
