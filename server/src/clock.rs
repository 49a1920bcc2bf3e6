//! What time it is. The only file that asks; whoever needs the time is handed a [`Clock`], so that a simulation can
//! hand it another. Knows nothing of what the time is used for.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Two kinds of time that must not be mixed: one that only grows, for deadlines, and the calendar's, which may jump
/// and so is only for show and for ids.
pub trait Clock: Send + Sync + 'static {
    /// Milliseconds since this clock was made. Never goes back.
    fn now_ms(&self) -> u64;

    /// Milliseconds since 1970 by the calendar.
    fn unix_ms(&self) -> u64;

    /// Seconds since 1970 by the calendar.
    fn unix_seconds(&self) -> i64 {
        i64::try_from(self.unix_ms() / 1000).unwrap_or(i64::MAX)
    }
}

/// The machine's clock. On Linux it also counts the time that the machine was suspended: a lease must not outlive its
/// time to live because its leader slept.
#[derive(Debug)]
pub struct SystemClock {
    origin_ms: u64,
}

impl SystemClock {
    /// Its milliseconds count from here.
    pub fn start() -> SystemClock {
        SystemClock { origin_ms: monotonic_ms() }
    }
}

impl Clock for SystemClock {
    fn now_ms(&self) -> u64 {
        monotonic_ms().saturating_sub(self.origin_ms)
    }

    fn unix_ms(&self) -> u64 {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX)
    }
}

/// A clock turned by hand, for tests and simulations. Its calendar starts at `unix_ms` and moves with it.
#[derive(Debug)]
pub struct ManualClock {
    now_ms: AtomicU64,
    started_unix_ms: u64,
}

impl ManualClock {
    pub fn starting_at(unix_ms: u64) -> ManualClock {
        ManualClock { now_ms: AtomicU64::new(0), started_unix_ms: unix_ms }
    }

    pub fn advance(&self, ms: u64) {
        self.now_ms.fetch_add(ms, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now_ms(&self) -> u64 {
        self.now_ms.load(Ordering::SeqCst)
    }

    fn unix_ms(&self) -> u64 {
        self.started_unix_ms + self.now_ms()
    }
}

fn monotonic_ms() -> u64 {
    #[cfg(target_os = "linux")]
    const COUNTING: rustix::time::ClockId = rustix::time::ClockId::Boottime;
    #[cfg(not(target_os = "linux"))]
    const COUNTING: rustix::time::ClockId = rustix::time::ClockId::Monotonic;

    let reading = rustix::time::clock_gettime(COUNTING);
    // Both parts are at least zero: these clocks start when the machine does.
    reading.tv_sec.unsigned_abs() * 1000 + u64::from(reading.tv_nsec.unsigned_abs() as u32) / 1_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machines_clock_starts_at_zero_and_moves_on() {
        let clock = SystemClock::start();
        let first = clock.now_ms();
        assert!(first < 60_000, "started at {first} ms");
        while clock.now_ms() == first {
            std::thread::yield_now();
        }
        assert!(clock.now_ms() > first);
    }

    #[test]
    fn the_calendar_is_past_2020() {
        let clock = SystemClock::start();
        assert!(clock.unix_seconds() > 1_577_836_800);
        assert!(clock.unix_ms() / 1000 >= 1_577_836_800);
    }

    #[test]
    fn a_clock_turned_by_hand_moves_only_then() {
        let clock = ManualClock::starting_at(1_000_500);
        assert_eq!((clock.now_ms(), clock.unix_ms(), clock.unix_seconds()), (0, 1_000_500, 1000));
        clock.advance(700);
        assert_eq!((clock.now_ms(), clock.unix_ms(), clock.unix_seconds()), (700, 1_001_200, 1001));
    }
}
