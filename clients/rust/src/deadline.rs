//! Until when a holder may act: plain arithmetic on moments of one machine's clock. The server cannot let go of a lease before
//! its time has passed since it *received* the last renewal that it confirmed, and it received it after it was *sent*. So
//! whoever counts from the sending, and takes off what clocks may differ, always stops first.
//!
//! ```text
//!   sent ────── ttl/3 ────── ttl/2 ──────────────────── stop ──── end
//!    │          renewal      no answer: Doubtful         │         from here on the server may give it to others
//!    └ the last confirmed renewal                        └ end − 5 % drift − margin for stopping
//! ```

use std::time::Duration;

use crate::clock::Moment;

/// How much faster the server's clock may run than ours, as a part of the time: 1/20. Real clocks differ by less than 1/1000.
const DRIFT: u32 = 20;
/// For stopping what runs.
const MARGIN_MIN: Duration = Duration::from_millis(200);

/// Until when a holder may act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline {
    ttl: Duration,
    /// When the last confirmed renewal was sent.
    sent: Moment,
    /// How long answers take: the longest of late, forgotten slowly.
    round_trip: Duration,
}

/// What a holder may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Go on.
    Held,
    /// Go on, but a renewal that is due has not been confirmed: better begin nothing long.
    Doubtful,
    /// Stop.
    Over,
}

impl Deadline {
    /// `sent` and `received`: when the lease was asked for, and when it was confirmed with this TTL.
    pub fn confirmed(ttl: Duration, sent: Moment, received: Moment) -> Deadline {
        Deadline { ttl, sent, round_trip: received.since(sent) }
    }

    /// A renewal was confirmed. One that was sent earlier than another changes nothing, however late its answer comes.
    pub fn renew(&mut self, ttl: Duration, sent: Moment, received: Moment) {
        if sent < self.sent {
            return;
        }
        let faded = self.round_trip - self.round_trip / 8;
        *self = Deadline { ttl, sent, round_trip: received.since(sent).max(faded) };
    }

    /// When to send the next renewal: at a third of the time, a tenth of that earlier or later by `chance` (0 to 1), so that
    /// the sessions of many do not fall into step.
    pub fn beat_at(&self, chance: f64) -> Moment {
        self.sent.after((self.ttl / 3).mul_f64(0.9 + 0.2 * chance.clamp(0.0, 1.0)))
    }

    /// How long one attempt at a renewal may take before another member is asked.
    pub fn attempt(&self) -> Duration {
        self.ttl / 6
    }

    pub fn doubtful_at(&self) -> Moment {
        self.sent.after(self.ttl / 2)
    }

    /// By then whatever the lease protects must have stopped, or be stopping and done within the margin.
    pub fn stop_at(&self) -> Moment {
        let margin = MARGIN_MIN.max(self.round_trip * 2).min(self.ttl / 4);
        self.sent.after(self.ttl - self.ttl / DRIFT - margin)
    }

    /// From then on, by this machine's clock, the server may have given it to others.
    pub fn end_at(&self) -> Moment {
        self.sent.after(self.ttl)
    }

    pub fn phase(&self, now: Moment) -> Phase {
        match now {
            now if now >= self.stop_at() => Phase::Over,
            now if now >= self.doubtful_at() => Phase::Doubtful,
            _ => Phase::Held,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ORIGIN: Moment = Moment(Duration::from_secs(1_000));

    fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    #[test]
    fn fifteen_seconds_are_stopped_just_after_fourteen() {
        let deadline = Deadline::confirmed(ms(15_000), ORIGIN, ORIGIN.after(ms(3)));
        assert_eq!(deadline.stop_at().since(ORIGIN), ms(14_050));
        assert_eq!(deadline.beat_at(0.5).since(ORIGIN), ms(5_000));
        assert_eq!(deadline.phase(ORIGIN.after(ms(7_499))), Phase::Held);
        assert_eq!(deadline.phase(ORIGIN.after(ms(7_500))), Phase::Doubtful);
        assert_eq!(deadline.phase(ORIGIN.after(ms(14_050))), Phase::Over);
    }

    /// S9: a machine that slept finds the time gone when it looks, before anything else runs.
    #[test]
    fn a_clock_that_jumped_ends_it_at_once() {
        let deadline = Deadline::confirmed(ms(15_000), ORIGIN, ORIGIN.after(ms(3)));
        assert_eq!(deadline.phase(ORIGIN.after(ms(6_000))), Phase::Held);
        assert_eq!(deadline.phase(ORIGIN.after(ms(3_600_000))), Phase::Over);
    }

    #[test]
    fn late_answers_to_early_renewals_change_nothing() {
        let mut deadline = Deadline::confirmed(ms(15_000), ORIGIN, ORIGIN.after(ms(3)));
        deadline.renew(ms(15_000), ORIGIN.after(ms(5_000)), ORIGIN.after(ms(5_004)));
        let stop_at = deadline.stop_at();
        deadline.renew(ms(15_000), ORIGIN.after(ms(100)), ORIGIN.after(ms(5_100)));
        assert_eq!(deadline.stop_at(), stop_at);
    }

    proptest! {
        /// S8: whatever the clocks' rates within the drift, whenever the server got the renewal, the holder stops before the
        /// server can let go. Rates are how many seconds a clock counts in a true second.
        #[test]
        fn the_holder_stops_before_the_server_lets_go(
            ttl_ms in 1_000_u64..3_600_000,
            there_ms in 0_u64..5_000,
            back_ms in 0_u64..5_000,
            ours in 0.8_f64..1.25,
            ratio in 0.8_f64..1.05,
        ) {
            let theirs = ours * ratio;
            let ttl = ms(ttl_ms);
            let received = ORIGIN.after(ms(there_ms + back_ms).mul_f64(ours));
            let deadline = Deadline::confirmed(ttl, ORIGIN, received);
            let true_stop_ms = deadline.stop_at().since(ORIGIN).as_secs_f64() * 1_000.0 / ours;
            let true_end_ms = there_ms as f64 + ttl_ms as f64 / theirs;
            prop_assert!(true_stop_ms < true_end_ms, "stops after {true_stop_ms} ms, server ends after {true_end_ms} ms");
        }

        /// The other way round it bites: beyond the drift nobody could promise that.
        #[test]
        fn beyond_the_drift_there_is_no_promise(ttl_ms in 60_000_u64..3_600_000) {
            let deadline = Deadline::confirmed(ms(ttl_ms), ORIGIN, ORIGIN);
            let true_end_ms = ttl_ms as f64 / 1.25;
            prop_assert!(deadline.stop_at().since(ORIGIN).as_secs_f64() * 1_000.0 > true_end_ms);
        }

        /// However short or slow: first a renewal, then doubt, then the stop, then the end.
        #[test]
        fn everything_comes_in_its_order(ttl_ms in 1_000_u64..100_000, round_ms in 0_u64..100_000, chance in 0.0_f64..1.0) {
            let deadline = Deadline::confirmed(ms(ttl_ms), ORIGIN, ORIGIN.after(ms(round_ms)));
            prop_assert!(deadline.beat_at(chance) < deadline.doubtful_at());
            prop_assert!(deadline.doubtful_at() < deadline.stop_at());
            prop_assert!(deadline.stop_at() < deadline.end_at());
        }
    }
}
