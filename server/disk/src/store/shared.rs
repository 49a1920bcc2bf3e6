//! What the handles of one store, its thread and its waiting tasks share: the backlog and the engine under one lock,
//! and who waits for either. The lock is held for moments, never across the disk: a read takes from it the backlog's
//! word and the engine to ask next, so that the two belong together even when an install replaces both.

use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::thread::JoinHandle;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use tenure_state::{Fatal, Place};

use super::backlog::Backlog;
use super::batch::Batch;
use super::directory::Directory;
use super::engine::Engine;
use super::scan::{MetaScan, Scan};
use super::{Figures, StoreOptions};

pub(super) type SyncDone = Box<dyn FnOnce(Result<Option<Bytes>, Fatal>) + Send>;

pub(super) struct Shared {
    pub state: Mutex<State>,
    /// Tells the store thread of work.
    pub work: Condvar,
    /// Tells blocked threads of commits and of failure.
    pub progress: Condvar,
    pub home: Home,
    pub options: StoreOptions,
}

/// Where a store is at home, and so who does its work.
pub(super) enum Home {
    /// The store thread works.
    Directory(Directory),
    /// Whoever calls works, before the call returns.
    Memory,
}

pub(super) struct State {
    pub engine: Arc<Engine>,
    pub backlog: Backlog,
    /// Of the newest write, and of the newest commit.
    pub applied: Option<Bytes>,
    pub applied_committed: Option<Bytes>,
    /// Batches written and committed since the store was opened.
    pub written: u64,
    pub committed: u64,
    pub syncs: Vec<Sync>,
    /// Tasks to wake on the next commit or failure, and threads blocked for the same.
    pub waiting: Vec<Waker>,
    pub blocked: usize,
    /// The store thread sleeps until it is told of work.
    pub idle: bool,
    pub stopping: bool,
    /// One install at a time, and one reclaiming of space.
    pub installing: bool,
    pub reclaimer: Option<JoinHandle<()>>,
}

/// A sync that was asked for when `written` stood at `after`.
pub(super) struct Sync {
    pub after: u64,
    pub done: SyncDone,
}

impl Shared {
    pub fn new(home: Home, engine: Arc<Engine>, applied: Option<Bytes>, options: StoreOptions) -> Shared {
        let state = State {
            engine,
            backlog: Backlog::default(),
            applied: applied.clone(),
            applied_committed: applied,
            written: 0,
            committed: 0,
            syncs: Vec::new(),
            waiting: Vec::new(),
            blocked: 0,
            idle: false,
            stopping: false,
            installing: false,
            reclaimer: None,
        };
        Shared { state: Mutex::new(state), work: Condvar::new(), progress: Condvar::new(), home, options }
    }

    pub fn write(&self, batch: Batch) -> Result<(), Fatal> {
        let mut state = self.state.lock();
        state.engine.health()?;
        state.applied = Some(batch.applied.clone());
        state.written += 1;
        state.backlog.push(batch);
        // A thread that is at work finds the batch by itself; waking it costs more than the write.
        if std::mem::take(&mut state.idle) {
            self.work.notify_one();
        }
        Ok(())
    }

    pub fn record(&self, place: Place) -> Result<Option<Bytes>, Fatal> {
        let engine = {
            let state = self.state.lock();
            state.engine.health()?;
            if let Some(word) = state.backlog.find(place) {
                return Ok(word);
            }
            Arc::clone(&state.engine)
        };
        engine.record(place)
    }

    pub fn scan(&self, from: Place, to: Place) -> Result<Scan, Fatal> {
        let state = self.state.lock();
        state.engine.health()?;
        // Under one lock: a view taken later could show a drop that this backlog does not know of.
        let pending = state.backlog.records(from, to);
        let view = state.engine.view();
        let engine = Arc::clone(&state.engine);
        drop(state);
        Ok(Scan::new(engine, &view, pending, from, to))
    }

    pub fn meta(&self, prefix: &[u8]) -> Result<Vec<(Bytes, Bytes)>, Fatal> {
        let state = self.state.lock();
        state.engine.health()?;
        let pending = state.backlog.meta(prefix);
        let view = state.engine.view();
        let engine = Arc::clone(&state.engine);
        drop(state);
        let mut committed = MetaScan::new(engine, &view, prefix).collect::<Result<Vec<_>, Fatal>>()?;
        for (key, value) in pending {
            match (committed.binary_search_by(|(other, _)| other.cmp(&key)), value) {
                (Ok(at), Some(value)) => committed[at].1 = value,
                (Ok(at), None) => drop(committed.remove(at)),
                (Err(at), Some(value)) => committed.insert(at, (key, value)),
                (Err(_), None) => {}
            }
        }
        Ok(committed)
    }

    pub fn has_work(&self) -> bool {
        let state = self.state.lock();
        !state.syncs.is_empty() || !state.backlog.is_empty() && state.engine.health().is_ok()
    }

    pub fn sync_then(&self, done: SyncDone) {
        let mut state = self.state.lock();
        let after = state.written;
        state.syncs.push(Sync { after, done });
        self.hurry(&mut state);
    }

    pub fn applied(&self) -> Option<Bytes> {
        self.state.lock().applied.clone()
    }

    pub fn engine(&self) -> Arc<Engine> {
        Arc::clone(&self.state.lock().engine)
    }

    /// None for a store in memory.
    pub fn dir(&self) -> Option<&Path> {
        match &self.home {
            Home::Directory(directory) => Some(directory.path()),
            Home::Memory => None,
        }
    }

    /// Whether there is no store thread.
    pub fn works_in_place(&self) -> bool {
        matches!(self.home, Home::Memory)
    }

    pub fn figures(&self) -> Figures {
        let state = self.state.lock();
        let (pending_batches, pending_bytes) = (state.backlog.len(), state.backlog.bytes());
        let engine = Arc::clone(&state.engine);
        drop(state);
        Figures {
            pending_batches,
            pending_bytes,
            size_on_disk: engine.size_on_disk(),
            read_cache_bytes: engine.read_cache_bytes(),
        }
    }

    /// Gets the store thread going at once: someone waits.
    pub fn hurry(&self, state: &mut State) {
        state.idle = false;
        self.work.notify_one();
    }

    /// Wakes all who wait for a commit; each looks for itself whether it was the one.
    pub fn tell_progress(&self, state: &mut State) {
        self.progress.notify_all();
        for waker in state.waiting.drain(..) {
            waker.wake();
        }
    }

    fn poll(&self, context: &Context<'_>, ready: impl Fn(&State) -> bool) -> Poll<Result<(), Fatal>> {
        let mut state = self.state.lock();
        if let Err(fatal) = state.engine.health() {
            return Poll::Ready(Err(fatal));
        }
        if ready(&state) {
            return Poll::Ready(Ok(()));
        }
        if !state.waiting.iter().any(|waker| waker.will_wake(context.waker())) {
            state.waiting.push(context.waker().clone());
        }
        self.hurry(&mut state);
        Poll::Pending
    }
}

impl State {
    /// Whether somebody waits for a commit.
    pub fn is_urgent(&self) -> bool {
        self.stopping || self.blocked > 0 || !self.waiting.is_empty() || !self.syncs.is_empty()
    }
}

/// See [`super::Store::room`].
#[must_use = "waits only when awaited"]
pub struct Room {
    shared: Arc<Shared>,
}

impl Room {
    pub(super) fn new(shared: Arc<Shared>) -> Room {
        Room { shared }
    }
}

impl Future for Room {
    type Output = Result<(), Fatal>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let bytes_max = self.shared.options.pending_bytes_max;
        self.shared.poll(context, |state| !state.backlog.is_full(bytes_max))
    }
}

/// See [`super::Store::settled`].
#[must_use = "waits only when awaited"]
pub struct Settled {
    shared: Arc<Shared>,
    after: u64,
}

impl Settled {
    pub(super) fn new(shared: Arc<Shared>) -> Settled {
        let after = shared.state.lock().written;
        Settled { shared, after }
    }

    /// Blocks until ready; not for a runtime's thread.
    pub fn wait(self) -> Result<(), Fatal> {
        let mut state = self.shared.state.lock();
        state.blocked += 1;
        self.shared.hurry(&mut state);
        let mut outcome = state.engine.health();
        while outcome.is_ok() && state.committed < self.after {
            self.shared.progress.wait(&mut state);
            outcome = state.engine.health();
        }
        state.blocked -= 1;
        outcome
    }
}

impl Future for Settled {
    type Output = Result<(), Fatal>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.shared.poll(context, |state| state.committed >= self.after)
    }
}
