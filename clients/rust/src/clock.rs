//! The only file that asks the time, and the only sleep. The clock runs while the machine sleeps: a lease at the server does not
//! wait for a laptop that was closed, so neither may a deadline here.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

/// Longest sleep without another look at the clock: the runtime's timers stand still in suspend, this clock does not.
const LOOK: Duration = Duration::from_millis(500);

/// Linux's CLOCK_MONOTONIC stands still in suspend; that of the others does not.
#[cfg(target_os = "linux")]
const CLOCK: ClockId = ClockId::Boottime;
#[cfg(not(target_os = "linux"))]
const CLOCK: ClockId = ClockId::Monotonic;

/// A point in time on this machine since it started. Of no meaning elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub Duration);

impl Moment {
    pub fn now() -> Moment {
        let now = clock_gettime(CLOCK);
        // Never negative: it counts from the machine's start.
        let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
        let nanoseconds = u32::try_from(now.tv_nsec).unwrap_or_default();
        Moment(Duration::new(seconds, nanoseconds))
    }

    pub fn after(self, span: Duration) -> Moment {
        Moment(self.0.saturating_add(span))
    }

    /// What is left until then; nothing, once it is over.
    pub fn since(self, earlier: Moment) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

/// Milliseconds since 1970 by this machine's calendar, which may be wrong: for what people read, and for telling a process
/// from the one that was there before.
pub fn unix_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Returns at that moment or up to half a second later if the machine slept meanwhile.
pub async fn sleep_until(moment: Moment) {
    loop {
        let left = moment.since(Moment::now());
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left.min(LOOK)).await;
    }
}
