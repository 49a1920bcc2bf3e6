//! The store thread: the only one that commits and syncs. (A store in memory has none; who writes does its work.) It takes the oldest batches of the backlog, several at a time
//! when there are several, and answers syncs once what they cover is committed. Failure ends its work, not its life:
//! it stays to tell those who ask.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use tenure_state::Fatal;

use super::batch::Batch;
use super::engine::Engine;
use super::shared::{Shared, State, SyncDone};

/// One commit takes this much at most: the database holds its journal for so long, and a read after a crash replays it.
const COMMIT_BYTES_MAX: usize = 4 << 20;
/// While nobody waits, so long is gathered for one commit, unless there is already this much: a commit has its price,
/// and so has waking a thread for each small write.
const GATHER: Duration = Duration::from_millis(2);
const GATHERED_BYTES: usize = 256 << 10;

/// Runs until dropped, which commits what is left and waits for the end.
pub(super) struct StoreThread {
    shared: Arc<Shared>,
    handle: Mutex<Option<JoinHandle<()>>>,
    /// Held by whoever works in place.
    turn: Mutex<()>,
}

impl StoreThread {
    pub fn start(shared: Arc<Shared>) -> io::Result<StoreThread> {
        let handle = {
            let shared = Arc::clone(&shared);
            thread::Builder::new().name("store".into()).spawn(move || run(&shared))?
        };
        Ok(StoreThread { shared, handle: Mutex::new(Some(handle)), turn: Mutex::new(()) })
    }

    /// No thread: [`StoreThread::work`] does what there is to do.
    pub fn in_place(shared: Shared) -> StoreThread {
        StoreThread { shared: Arc::new(shared), handle: Mutex::new(None), turn: Mutex::new(()) }
    }

    /// Does what there is to do if there is no thread for it. A sync's callback that asks for more only queues it: whoever
    /// works already takes it up before it lets go.
    pub fn work(&self) {
        while self.shared.works_in_place() && self.shared.has_work() {
            let Some(_turn) = self.turn.try_lock() else { return };
            run(&self.shared);
        }
    }

    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }
}

impl Drop for StoreThread {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock();
        state.stopping = true;
        self.shared.hurry(&mut state);
        drop(state);
        self.work();
        // A sync's callback may hold the last handle; then this is the store thread itself, which cannot wait for itself.
        if let Some(handle) = self.handle.lock().take()
            && handle.thread().id() != thread::current().id()
        {
            drop(handle.join());
        }
        let reclaimer = self.shared.state.lock().reclaimer.take();
        if let Some(reclaimer) = reclaimer {
            drop(reclaimer.join());
        }
    }
}

/// What there is to do, with what it needs, so that it is done without the lock.
enum Work {
    Commit { engine: Arc<Engine>, batches: Vec<Arc<Batch>> },
    Sync { engine: Arc<Engine>, applied: Option<Bytes>, done: Vec<SyncDone> },
    Refuse { fatal: Fatal, done: Vec<SyncDone> },
    Stop,
}

fn run(shared: &Shared) {
    loop {
        match next_work(shared) {
            Work::Commit { engine, batches } => {
                let outcome = engine.commit(&batches);
                let mut state = shared.state.lock();
                // An install in between has dropped this backlog, and its engine with it.
                if outcome.is_ok() && Arc::ptr_eq(&engine, &state.engine) {
                    state.backlog.committed(batches.len());
                    state.committed += batches.len() as u64;
                    state.applied_committed = batches.last().map(|batch| batch.applied.clone());
                }
                shared.tell_progress(&mut state);
            }
            Work::Sync { engine, applied, done } => {
                let outcome = engine.persist().map(|()| applied);
                done.into_iter().for_each(|done| done(outcome.clone()));
            }
            Work::Refuse { fatal, done } => done.into_iter().for_each(|done| done(Err(fatal.clone()))),
            Work::Stop => return,
        }
    }
}

fn next_work(shared: &Shared) -> Work {
    let mut state = shared.state.lock();
    loop {
        if let Err(fatal) = state.engine.health() {
            shared.tell_progress(&mut state);
            if !state.syncs.is_empty() {
                let done = std::mem::take(&mut state.syncs).into_iter().map(|sync| sync.done).collect();
                return Work::Refuse { fatal, done };
            }
        } else {
            let done = due_syncs(&mut state);
            if !done.is_empty() {
                let applied = state.applied_committed.clone();
                return Work::Sync { engine: Arc::clone(&state.engine), applied, done };
            }
            if !state.backlog.is_empty() {
                if !shared.works_in_place() {
                    gather(shared, &mut state);
                }
                let batches = state.backlog.oldest(COMMIT_BYTES_MAX);
                if batches.is_empty() {
                    // An install came meanwhile and emptied the backlog; something else may have come too.
                    continue;
                }
                return Work::Commit { engine: Arc::clone(&state.engine), batches };
            }
        }
        if state.stopping || shared.works_in_place() {
            return Work::Stop;
        }
        state.idle = true;
        shared.work.wait(&mut state);
        state.idle = false;
    }
}

fn due_syncs(state: &mut State) -> Vec<SyncDone> {
    let committed = state.committed;
    state.syncs.extract_if(.., |sync| sync.after <= committed).map(|sync| sync.done).collect()
}

fn gather(shared: &Shared, state: &mut MutexGuard<'_, State>) {
    let until = Instant::now() + GATHER;
    while !state.backlog.is_empty() && !state.is_urgent() && state.backlog.bytes() < GATHERED_BYTES {
        if shared.work.wait_until(state, until).timed_out() {
            return;
        }
    }
}
