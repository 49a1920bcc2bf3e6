//! Giving disk space back, on request: what was dropped is merged away in steps, each as short as the database's own
//! merging, so that commits and the writing of tables go on beside it.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::StoreEvent;
use super::engine::Engine;
use super::shared::Shared;

/// No store needs as many; a bound in case a step keeps changing something without getting anywhere.
const STEPS_MAX: usize = 10_000;
const POLL: Duration = Duration::from_millis(5);

/// Starts reclaiming unless it is already under way. The thread ends early when the store closes or an install takes
/// its database's place.
pub(super) fn start(shared: &Arc<Shared>) -> io::Result<()> {
    let mut state = shared.state.lock();
    if state.stopping || state.reclaimer.as_ref().is_some_and(|reclaimer| !reclaimer.is_finished()) {
        return Ok(());
    }
    let engine = Arc::clone(&state.engine);
    let sharing = Arc::clone(shared);
    let reclaimer = thread::Builder::new().name("store-reclaim".into()).spawn(move || {
        let started = Instant::now();
        let before = engine.size_on_disk();
        let outcome = reclaim(&sharing, &engine);
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

fn reclaim(shared: &Shared, engine: &Arc<Engine>) -> fjall::Result<()> {
    let goes_on = || {
        let state = shared.state.lock();
        !state.stopping && Arc::ptr_eq(engine, &state.engine) && engine.health().is_ok()
    };
    // Drops that are only in memory must first be in tables.
    engine.begin_table()?;
    while goes_on() && engine.is_writing_tables() {
        thread::sleep(POLL);
    }
    let mut steps = 0;
    while goes_on() && steps < STEPS_MAX && engine.merge_step()? {
        steps += 1;
    }
    Ok(())
}
