//! What a simulation must replace and cannot hand in, as libraries and tasks reach for it by themselves: chance, and threads
//! for work that blocks. It goes by the thread, so that many simulations run side by side, and a server never notices.

use std::cell::Cell;

use crate::ids;

thread_local! {
    static SIMULATED: Cell<bool> = const { Cell::new(false) };
}

/// From here on this thread is a simulation's: its dice follow from `seed`, and what would block runs in place.
pub fn begin(seed: u64) {
    ids::seed_thread(seed);
    SIMULATED.set(true);
}

/// Whether this thread is a simulation's.
pub fn here() -> bool {
    SIMULATED.get()
}

/// The work ended without a result: it panicked, or the member is stopping.
#[derive(Debug, thiserror::Error)]
#[error("work that was given to a thread of its own ended early")]
pub struct EndedEarly;

/// Does work that waits for the disk, or takes longer than a moment, off the runtime's thread.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, EndedEarly> {
    if here() {
        return Ok(work());
    }
    tokio::task::spawn_blocking(work).await.map_err(|_| EndedEarly)
}
