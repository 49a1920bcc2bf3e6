//! The machine's clocks, which stand where the world's does on a thread that simulates: some libraries ask the system for the
//! time, not the runtime. HTTP/2's forgets a stream that it reset after a second, and HTTP's writes the date into answers. By
//! the machine's time a busy machine would send other bytes than an idle one, and a seed would not repeat.
//!
//! A `clock_gettime` of the program's own comes before the C library's wherever a library is linked into it. Waiting is not
//! replaced: nobody may wait for a time on a thread where it stands still. Knows nothing of who lives in that time.

use std::cell::Cell;
use std::time::Duration;

/// The calendar's time at the beginning of the world.
pub const UNIX_EPOCH_OF_WORLD: Duration = Duration::from_secs(1_800_000_000);
/// How long the machine has run by then: libraries reckon back from now.
const UPTIME: Duration = Duration::from_secs(1_000_000);

thread_local! {
    /// The world's time, on a thread that simulates one.
    static WORLD: Cell<Option<Duration>> = const { Cell::new(None) };
}

/// From here on this thread has the world's time.
pub fn stand_at(world_ms: u64) {
    WORLD.set(Some(Duration::from_millis(world_ms)));
}

/// What the C library's function gives, but on a thread that simulates.
///
/// # Safety
/// As that one's: `time` may be written to.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "takes a C function's place, and calls the kernel as that one does")]
#[unsafe(no_mangle)]
unsafe extern "C" fn clock_gettime(clock: libc::clockid_t, time: *mut libc::timespec) -> libc::c_int {
    let shown = WORLD.get().and_then(|world| match clock {
        libc::CLOCK_REALTIME | libc::CLOCK_REALTIME_COARSE => Some(UNIX_EPOCH_OF_WORLD + world),
        libc::CLOCK_MONOTONIC
        | libc::CLOCK_MONOTONIC_COARSE
        | libc::CLOCK_MONOTONIC_RAW
        | libc::CLOCK_BOOTTIME => Some(UPTIME + world),
        _ => None,
    });
    match shown {
        Some(shown) => {
            let shown = libc::timespec {
                tv_sec: shown.as_secs() as libc::time_t,
                tv_nsec: shown.subsec_nanos() as libc::c_long,
            };
            // SAFETY: the caller says so.
            unsafe { time.write(shown) };
            0
        }
        // SAFETY: the caller says so.
        None => unsafe { libc::syscall(libc::SYS_clock_gettime, clock, time) as libc::c_int },
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::thread;
    use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

    use super::{UNIX_EPOCH_OF_WORLD, stand_at};

    #[test]
    fn time_stands_still_on_a_simulations_thread_alone() {
        let before = Instant::now();
        thread::spawn(|| {
            stand_at(7);
            let began = Instant::now();
            assert!((0..10_000).all(|_| Instant::now() == began));
            assert_eq!(
                SystemTime::now().duration_since(UNIX_EPOCH).unwrap(),
                UNIX_EPOCH_OF_WORLD + Duration::from_millis(7)
            );
            stand_at(1_007);
            assert_eq!(began.elapsed(), Duration::from_secs(1));
        })
        .join()
        .unwrap();
        while before.elapsed().is_zero() {
            thread::yield_now();
        }
    }
}
