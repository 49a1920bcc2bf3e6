//! How long to wait before the next attempt: a random part of a bound that doubles, so that a thousand clients that lost the
//! same member do not come back together.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(50);
const MOST: Duration = Duration::from_secs(2);

#[derive(Clone, Debug)]
pub struct Backoff {
    bound: Duration,
}

impl Default for Backoff {
    fn default() -> Backoff {
        Backoff { bound: FIRST }
    }
}

impl Backoff {
    /// Anything from nothing up to 50 ms, then 100 ms, ... at most 2 s.
    pub fn pause(&mut self) -> Duration {
        let pause = self.bound.mul_f64(rand::random_range(0.0..1.0));
        self.bound = (self.bound * 2).min(MOST);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_their_bound_and_no_further() {
        let mut backoff = Backoff::default();
        for exponent in 0..12 {
            let bound = (FIRST * (1 << exponent)).min(MOST);
            assert!(backoff.pause() <= bound);
        }
    }
}
