//! Giving disk space back, on request: all tables of records are merged into one run, without what was dropped.
//!
//! Reads and commits go on beside it, the writing of tables does not: for the seconds that it takes, what is written
//! gathers in memtables and backlog, and a writer that fills those waits. The library's merging in small steps would not
//! have that, but it never picks a table that reaches beyond the level below, which is where drops of old records come
//! to lie together with new records.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::StoreEvent;
use super::database::Database;
use super::engine::Engine;
use super::shared::Shared;
use crate::background;

const POLL: Duration = Duration::from_millis(5);

/// Starts reclaiming unless it is already under way.
pub(super) fn start(shared: &Arc<Shared>) -> io::Result<()> {
    let mut state = shared.state.lock();
    if state.stopping
        || shared.works_in_place()
        || state.reclaimer.as_ref().is_some_and(|reclaimer| !reclaimer.is_finished())
    {
        return Ok(());
    }
    let engine = Arc::clone(&state.engine);
    let sharing = Arc::clone(shared);
    let reclaimer = background::start("store-reclaim", move || {
        let started = Instant::now();
        let before = engine.size_on_disk();
        let outcome = match &*engine {
            Engine::Database(database) => reclaim(&sharing, &engine, database),
            Engine::Memory(_) => Ok(()),
        };
        let event = match outcome {
            Ok(()) => StoreEvent::Reclaimed { took: started.elapsed(), before, after: engine.size_on_disk() },
            Err(error) => StoreEvent::ReclaimFailed(format!(
                "reclaim disk space of the store: {error}; free some space"
            )),
        };
        (sharing.options.observer)(event);
    })?;
    state.reclaimer = Some(reclaimer);
    Ok(())
}

fn reclaim(shared: &Shared, engine: &Arc<Engine>, database: &Database) -> fjall::Result<()> {
    let goes_on = || {
        let state = shared.state.lock();
        !state.stopping && Arc::ptr_eq(engine, &state.engine) && engine.health().is_ok()
    };
    // Drops that are only in memory must first be in tables.
    database.begin_tables()?;
    while goes_on() && database.is_writing_tables() {
        thread::sleep(POLL);
    }
    if goes_on() { database.merge_tables() } else { Ok(()) }
}
