//! Replacing the whole store by what the leader sent: a new database is filled beside the live one, made durable, and
//! then takes its place in one step, on disk and in every handle. Knows nothing of where the records come from.
//!
//! ```text
//!   record(), meta() ──chunks──> thread `store-install` ──sorted tables──> state-0001/   (durable at the end)
//!   seal():    all of it is durable; takes as long as the disk does
//!   switch():  CURRENT = state-0001   (a crash before this line: the old store; after it: the new one)
//!              handles turn to it, the backlog is dropped, the old database goes when its last reader does
//! ```
//!
//! The filling has a thread of its own because the library writes tables as their records come, tied to the database by
//! borrowing, and because the network then need not wait for the disk.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use bytes::Bytes;
use tenure_state::{Fatal, Place};

use super::Store;
use super::database::Database;
use super::engine::{APPLIED, Engine};
use super::memory::Tables;
use super::shared::{Home, Shared};
use crate::background;

/// Records travel to the thread in portions of this size; so many may wait.
const CHUNK_BYTES: usize = 1 << 20;
const CHUNKS_MAX: usize = 4;

/// Why an install came to nothing; the store is as it was. One line: what was attempted, on what, what to do.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{0}")]
pub struct InstallError(pub String);

/// A store being filled. Records and small state may come mixed, each in ascending order. Dropping it leaves nothing
/// behind. Every method may block for the disk.
pub struct Installer {
    store: Store,
    filling: Filling,
    last_place: Option<Place>,
    last_key: Option<Bytes>,
}

enum Filling {
    Database(Filler),
    Memory(Tables),
}

/// A store that is whole and durable beside the live one. Dropping it leaves nothing behind.
pub struct Sealed {
    /// Closed before the installer removes its files. None: tables in memory, which the installer still has.
    database: Option<Arc<Engine>>,
    installer: Installer,
    applied: Bytes,
}

impl Installer {
    pub(super) fn begin(store: Store) -> Result<Installer, InstallError> {
        let shared = store.shared();
        if std::mem::replace(&mut shared.state.lock().installing, true) {
            return Err(InstallError("begin an install: another one is under way; wait for its end".into()));
        }
        let filling = Filling::Memory(Tables::default());
        let mut installer = Installer { store: store.clone(), filling, last_place: None, last_key: None };
        if let (Home::Directory(directory), Engine::Database(live)) = (&shared.home, &*shared.engine()) {
            installer.filling =
                Filling::Database(Filler::start(directory.next(live.directory().path()), shared)?);
        }
        Ok(installer)
    }

    /// # Errors
    /// `place` is not above the one before, or the disk failed.
    pub fn record(&mut self, place: Place, bytes: Bytes) -> Result<(), InstallError> {
        if self.last_place.is_some_and(|last| place <= last) {
            return Err(out_of_order("record", format!("{place:?}")));
        }
        self.last_place = Some(place);
        match &mut self.filling {
            Filling::Database(filler) => {
                let length = bytes.len();
                filler.push(Item::Record(place, bytes), length)
            }
            Filling::Memory(tables) => {
                tables.put_record(place, bytes);
                Ok(())
            }
        }
    }

    /// # Errors
    /// `key` is not above the one before or is the store's own, or the disk failed.
    pub fn meta(&mut self, key: Bytes, value: Bytes) -> Result<(), InstallError> {
        if key.as_ref() == APPLIED || self.last_key.as_ref().is_some_and(|last| key <= *last) {
            return Err(out_of_order("small state", format!("{key:?}")));
        }
        self.last_key = Some(key.clone());
        match &mut self.filling {
            Filling::Database(filler) => {
                let length = key.len() + value.len();
                filler.push(Item::Meta(key, value), length)
            }
            Filling::Memory(tables) => {
                tables.put_meta(key, value);
                Ok(())
            }
        }
    }

    /// Makes the new store durable; the old one stays in its place.
    ///
    /// # Errors
    /// The disk failed.
    pub fn seal(mut self, applied: Bytes) -> Result<Sealed, InstallError> {
        let database = match &mut self.filling {
            Filling::Database(filler) => Some(Arc::new(Engine::Database(filler.seal(applied.clone())?))),
            Filling::Memory(_) => None,
        };
        Ok(Sealed { database, installer: self, applied })
    }

    /// Makes the new store durable and puts it in place of the old; [`Installer::seal`] and [`Sealed::switch`] in one.
    pub fn finish(self, applied: Bytes) -> Result<(), InstallError> {
        self.seal(applied)?.switch()
    }
}

impl Sealed {
    /// Puts the new store in place of the old. Whoever reads from the old keeps it until done. Blocks for a small file's
    /// sync.
    ///
    /// # Errors
    /// The disk failed, so that it is not known which store the next start finds: the store is broken.
    pub fn switch(mut self) -> Result<(), InstallError> {
        let shared = Arc::clone(self.installer.store.shared());
        let old = shared.engine();
        let engine = match (&mut self.installer.filling, self.database.take(), &*old) {
            (Filling::Database(filler), Some(engine), Engine::Database(_)) => {
                // From here on the next start may find the new database, whatever becomes of this one: it must stay.
                filler.finished = true;
                engine
            }
            (Filling::Memory(tables), None, Engine::Memory(memory)) => {
                tables.put_applied(self.applied.clone());
                let replaced = memory.replace(std::mem::take(tables));
                Arc::new(Engine::Memory(replaced.map_err(|Fatal(text)| InstallError(text))?))
            }
            _ => return Err(InstallError("finish an install: it was begun on another store".into())),
        };
        if let (Home::Directory(directory), Engine::Database(database)) = (&shared.home, &*engine)
            && let Err(error) = directory.switch(database.directory().path())
        {
            return Err(InstallError(old.fail(format!("switch to the installed database: {error}")).0));
        }
        take_over(&shared, engine, self.applied.clone());
        if let Engine::Database(database) = &*old {
            database.directory().doom();
        }
        Ok(())
    }
}

impl Drop for Installer {
    fn drop(&mut self) {
        // What was filled in vain goes first: the next install begins in the same place.
        self.filling = Filling::Memory(Tables::default());
        self.store.shared().state.lock().installing = false;
    }
}

/// Fills a new database on a thread of its own.
struct Filler {
    path: PathBuf,
    chunk: Vec<Item>,
    chunk_bytes: usize,
    /// Both None once the thread has ended.
    sender: Option<SyncSender<Portion>>,
    thread: Option<JoinHandle<Result<Option<Database>, InstallError>>>,
    finished: bool,
}

enum Item {
    Record(Place, Bytes),
    Meta(Bytes, Bytes),
}

enum Portion {
    Items(Vec<Item>),
    /// Nothing follows.
    End {
        applied: Bytes,
    },
}

impl Filler {
    fn start(path: PathBuf, shared: &Shared) -> Result<Filler, InstallError> {
        let (sender, receiver) = sync_channel(CHUNKS_MAX);
        let (options, database) = (shared.options.clone(), path.clone());
        let thread = background::start("store-install", move || {
            fill(Database::open(&database, &options).map_err(failed("create the database"))?, &receiver)
        })
        .map_err(|error| {
            InstallError(format!("start the thread of an install: {error}; free memory and try again"))
        })?;
        let (sender, thread) = (Some(sender), Some(thread));
        Ok(Filler { path, chunk: Vec::new(), chunk_bytes: 0, sender, thread, finished: false })
    }

    fn push(&mut self, item: Item, bytes: usize) -> Result<(), InstallError> {
        self.chunk.push(item);
        self.chunk_bytes += bytes + size_of::<Item>();
        if self.chunk_bytes >= CHUNK_BYTES { self.flush() } else { Ok(()) }
    }

    /// The new database, durable.
    fn seal(&mut self, applied: Bytes) -> Result<Database, InstallError> {
        self.flush()?;
        self.send(Portion::End { applied })?;
        self.sender = None;
        let Some(database) = self.join()? else {
            return Err(InstallError("finish an install: its thread gave up; begin it again".into()));
        };
        Ok(database)
    }

    fn flush(&mut self) -> Result<(), InstallError> {
        self.chunk_bytes = 0;
        let chunk = std::mem::take(&mut self.chunk);
        self.send(Portion::Items(chunk))
    }

    fn send(&mut self, portion: Portion) -> Result<(), InstallError> {
        if self.sender.as_ref().is_some_and(|sender| sender.send(portion).is_ok()) {
            return Ok(());
        }
        // The thread ended before its time: it knows why.
        self.sender = None;
        self.join()?;
        Err(InstallError("go on with an install: it has failed before; begin it again".into()))
    }

    fn join(&mut self) -> Result<Option<Database>, InstallError> {
        let Some(thread) = self.thread.take() else { return Ok(None) };
        thread
            .join()
            .unwrap_or_else(|_| Err(InstallError("fill a database: the thread panicked; begin again".into())))
    }
}

impl Drop for Filler {
    fn drop(&mut self) {
        self.sender = None;
        drop(self.join());
        if !self.finished {
            // What cannot be removed now is removed as a leftover when the store is next opened.
            drop(std::fs::remove_dir_all(&self.path));
        }
    }
}

/// Everybody reads from `engine` and writes to it from here on. What was written before is dropped, and counts as
/// committed to those who wait for it.
fn take_over(shared: &Shared, engine: Arc<Engine>, applied: Bytes) {
    let mut state = shared.state.lock();
    let old = std::mem::replace(&mut state.engine, engine);
    let dropped = std::mem::take(&mut state.backlog);
    state.committed = state.written;
    state.applied = Some(applied.clone());
    state.applied_committed = Some(applied);
    shared.tell_progress(&mut state);
    shared.hurry(&mut state);
    drop(state);
    drop((old, dropped));
}

/// Writes what comes as sorted tables, past journal and memory. None when the sender gave up.
fn fill(database: Database, portions: &Receiver<Portion>) -> Result<Option<Database>, InstallError> {
    let (records, meta) = database.keyspaces();
    let mut record_tables = records.start_ingestion().map_err(failed("begin the tables of records"))?;
    let mut meta_tables = meta.start_ingestion().map_err(failed("begin the tables of small state"))?;
    loop {
        match portions.recv() {
            Err(_) => return Ok(None),
            Ok(Portion::Items(items)) => {
                for item in items {
                    match item {
                        Item::Record(place, bytes) => record_tables.write(place.encode(), bytes),
                        Item::Meta(key, value) => meta_tables.write(key, value),
                    }
                    .map_err(failed("write a table"))?;
                }
            }
            Ok(Portion::End { applied }) => {
                record_tables.finish().map_err(failed("finish the tables of records"))?;
                meta_tables.finish().map_err(failed("finish the tables of small state"))?;
                database.seal(applied).map_err(|Fatal(text)| InstallError(text))?;
                return Ok(Some(database));
            }
        }
    }
}

fn failed(attempt: &'static str) -> impl Fn(fjall::Error) -> InstallError {
    move |error| {
        InstallError(format!("install a snapshot: {attempt}: {error}; check the disk and its free space"))
    }
}

fn out_of_order(what: &str, which: String) -> InstallError {
    InstallError(format!(
        "install a snapshot: {what} {which} does not follow the one before; fetch the snapshot again"
    ))
}
