//! What callers count while a run goes on: latencies by kind of answer, failures by code.
//!
//! Callers share a few shards, each behind a lock that is free whenever callers share one thread; a histogram for each of
//! thousands of callers would take more memory than the server under test.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::failure::Failure;

/// Latencies in microseconds: 1 µs to 10 minutes with three digits; longer ones count as 10 minutes.
const LATENCY_US_MAX: u64 = 600_000_000;
const SHARDS_MAX: usize = 8;

/// Shared by all callers of a run.
pub(crate) struct Tally {
    shards: Vec<Mutex<Counts>>,
}

/// Latency histograms by kind of answer (such as `grant` and `revoke`), failures by code.
#[derive(Clone, Default)]
pub(crate) struct Counts {
    pub(crate) kinds: Vec<(&'static str, Histogram<u64>)>,
    pub(crate) errors: Errors,
}

/// Failures by code: how many, and the first one's message.
#[derive(Clone, Debug, Default)]
pub(crate) struct Errors(pub(crate) BTreeMap<&'static str, (u64, String)>);

impl Tally {
    pub(crate) fn new(callers: usize) -> Self {
        Self { shards: (0..callers.clamp(1, SHARDS_MAX)).map(|_| Mutex::default()).collect() }
    }

    /// Counts an answer of `kind` for caller number `lane`.
    pub(crate) fn record(&self, lane: usize, kind: &'static str, latency: Duration) {
        self.with(lane, |counts| counts.record(kind, latency));
    }

    pub(crate) fn fail(&self, lane: usize, failure: &Failure) {
        self.with(lane, |counts| counts.errors.add(failure, 1));
    }

    /// Takes everything counted so far.
    pub(crate) fn take(&self) -> Counts {
        let mut sum = Counts::default();
        for shard in &self.shards {
            sum.merge(std::mem::take(&mut *shard.lock().expect("nothing panics while counting")));
        }
        sum
    }

    fn with(&self, lane: usize, count: impl FnOnce(&mut Counts)) {
        let shard = &self.shards[lane % self.shards.len()];
        count(&mut shard.lock().expect("nothing panics while counting"));
    }
}

impl Counts {
    pub(crate) fn record(&mut self, kind: &'static str, latency: Duration) {
        let latency_us = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.histogram(kind).saturating_record(latency_us.max(1));
    }

    /// All kinds in one histogram.
    pub(crate) fn all(&self) -> Histogram<u64> {
        let mut sum = empty_histogram();
        for (_, histogram) in &self.kinds {
            sum.add(histogram).expect("all histograms have the same bounds");
        }
        sum
    }

    /// How many answers of `kind` were counted.
    pub(crate) fn count(&self, kind: &str) -> u64 {
        self.kinds.iter().find(|(name, _)| *name == kind).map_or(0, |(_, histogram)| histogram.len())
    }

    fn merge(&mut self, other: Self) {
        for (kind, histogram) in other.kinds {
            self.histogram(kind).add(histogram).expect("all histograms have the same bounds");
        }
        self.errors.merge(other.errors);
    }

    fn histogram(&mut self, kind: &'static str) -> &mut Histogram<u64> {
        let at = self.kinds.iter().position(|(name, _)| *name == kind).unwrap_or_else(|| {
            self.kinds.push((kind, empty_histogram()));
            self.kinds.len() - 1
        });
        &mut self.kinds[at].1
    }
}

impl Errors {
    pub(crate) fn add(&mut self, failure: &Failure, count: u64) {
        self.0.entry(failure.code).or_insert_with(|| (0, failure.message.clone())).0 += count;
    }

    pub(crate) fn merge(&mut self, other: Self) {
        for (code, (count, example)) in other.0 {
            self.add(&Failure { code, message: example }, count);
        }
    }

    pub(crate) fn total(&self) -> u64 {
        self.0.values().map(|(count, _)| count).sum()
    }

    /// The first failure of the most frequent code.
    pub(crate) fn main(&self) -> Option<Failure> {
        let (code, (_, message)) = self.0.iter().max_by_key(|(_, (count, _))| *count)?;
        Some(Failure { code, message: message.clone() })
    }
}

pub(crate) fn empty_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_US_MAX, 3).expect("constant bounds are valid")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_add_up() {
        let tally = Tally::new(100);
        for lane in 0..100 {
            tally.record(
                lane,
                if lane % 2 == 0 { "grant" } else { "revoke" },
                Duration::from_micros(lane as u64),
            );
            tally.fail(lane, &Failure::status("14", "gone"));
        }
        let counts = tally.take();
        assert_eq!((counts.count("grant"), counts.count("revoke"), counts.count("put")), (50, 50, 0));
        assert_eq!((counts.all().len(), counts.all().max(), counts.all().min()), (100, 99, 1));
        assert_eq!(counts.errors.total(), 100);
        assert_eq!(counts.errors.main(), Some(Failure::status("14", "gone")));
        assert_eq!(tally.take().all().len(), 0);
    }

    #[test]
    fn absurd_latencies_are_cut_not_lost() {
        let mut counts = Counts::default();
        counts.record("put", Duration::from_secs(86_400));
        assert_eq!(counts.count("put"), 1);
        assert!(counts.all().max() >= LATENCY_US_MAX);
    }
}
