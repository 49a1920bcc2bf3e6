//! How threads whose work nobody waits for get out of the way of those that serve.
//!
//! Why: writing tables and filling log segments take tens of milliseconds of a core at a time. At equal rank a small machine
//! takes that time from the threads that answer clients, which shows as the longest waits of all.

use std::io;
use std::thread::{self, JoinHandle};

/// Below the rank of a thread that serves, far enough to be put off by it at once, and still given a tenth of a busy core.
const NICENESS: i32 = 10;

/// Starts a thread that has stepped back.
///
/// # Errors
/// The system has no thread left.
pub fn start<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    thread::Builder::new().name(name.to_owned()).spawn(move || {
        step_back();
        work()
    })
}

/// Lowers the rank of the calling thread, and of the threads it will start. Where the system does not allow it, nothing is
/// lost but smoothness, so this cannot fail.
fn step_back() {
    let _ = rustix::process::setpriority_process(None, NICENESS);
}
