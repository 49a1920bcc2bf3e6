//! What took longer than the operator finds well, `--warning-apply-duration` and its like. A member in trouble is slow in everything it
//! does, so that it may say so once a second, with how often it kept silent.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::Stopwatch;

/// Between two lines.
const PAUSE: Duration = Duration::from_secs(1);

pub struct Slow {
    bound: Duration,
    since: Stopwatch,
    /// Milliseconds after `since` before which nothing is said.
    silent_until_ms: AtomicU64,
    passed_over: AtomicU64,
}

impl Slow {
    pub fn new(bound: Duration) -> Slow {
        let (silent_until_ms, passed_over) = (AtomicU64::new(0), AtomicU64::new(0));
        Slow { bound, since: Stopwatch::start(), silent_until_ms, passed_over }
    }

    pub fn bound(&self) -> Duration {
        self.bound
    }

    pub fn is_slow(&self, took: Duration) -> bool {
        took > self.bound
    }

    /// Whether a line may be written now for something slow, and how often that was not so since the last one.
    pub fn turn(&self) -> Option<u64> {
        self.turn_at(self.since.read())
    }

    fn turn_at(&self, now: Duration) -> Option<u64> {
        let ms = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        let (now, next) = (ms(now), ms(now + PAUSE));
        let due = |until| (now >= until).then_some(next);
        match self.silent_until_ms.fetch_update(Ordering::Relaxed, Ordering::Relaxed, due) {
            Ok(_) => Some(self.passed_over.swap(0, Ordering::Relaxed)),
            Err(_) => {
                self.passed_over.fetch_add(1, Ordering::Relaxed);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_a_second_says_how_many_there_were() {
        let slow = Slow::new(Duration::from_millis(100));
        assert!(!slow.is_slow(Duration::from_millis(100)) && slow.is_slow(Duration::from_millis(101)));
        let turns = [0, 1, 999, 1_000, 2_500].map(|ms| slow.turn_at(Duration::from_millis(ms)));
        assert_eq!(turns, [Some(0), None, None, Some(2), Some(0)]);
    }
}
