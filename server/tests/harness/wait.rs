//! Waiting for a condition instead of for a length of time. A bound is there only to end a test that will never pass; it is
//! generous, because a slow machine is not a defect.

use std::time::{Duration, Instant};

const PAUSE: Duration = Duration::from_millis(10);

/// The point in time at which waiting turns into failing.
#[derive(Clone, Copy)]
pub struct Deadline(Instant);

impl Deadline {
    pub fn after(time: Duration) -> Deadline {
        Deadline(Instant::now() + time)
    }

    /// Sleeps a moment between two looks at a condition; false once time is up.
    pub fn pause(self) -> bool {
        std::thread::sleep(PAUSE);
        Instant::now() < self.0
    }
}

/// Asks again and again until there is an answer. Panics with `what` if there is none within `bound`.
pub fn eventually<T>(what: &str, bound: Duration, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Deadline::after(bound);
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(deadline.pause(), "waited {bound:?} in vain for: {what}");
    }
}
