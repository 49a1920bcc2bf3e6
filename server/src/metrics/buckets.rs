//! What a histogram counts in: one number for each range of values, so that a measurement costs two additions, and takes no memory.

use std::sync::atomic::{AtomicU64, Ordering};

use metrics::HistogramFn;

/// Upper bounds of most, seconds: fine where answers usually are, and with a bound at each limit that etcd's alerts speak of.
const SECONDS: &[f64] =
    &[0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Those of histograms that count other things than seconds, or need other bounds.
const OTHERS: &[(&str, &[f64])] = &[
    (super::consensus::BATCH_ENTRIES, &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0]),
    (super::disk::LOG_BATCH_ENTRIES, &[1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0]),
    (
        super::leases::TTL,
        &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 4096.0, 16384.0],
    ),
    (super::leases::LATENESS, &[0.2, 0.225, 0.25, 0.3, 0.4, 0.5, 0.75, 1.0, 2.0, 5.0, 10.0, 30.0]),
];

pub struct Buckets {
    bounds: &'static [f64],
    /// One for each bound, and one for what is above all of them.
    counts: Box<[AtomicU64]>,
    /// The bits of a floating-point number.
    sum: AtomicU64,
}

/// What stands in them at one moment.
pub struct Reading {
    /// Each bound with how many values were not above it.
    pub up_to: Vec<(f64, u64)>,
    pub count: u64,
    pub sum: f64,
}

impl Buckets {
    /// With the bounds that the histogram of this name has.
    pub fn named(name: &str) -> Buckets {
        let other = OTHERS.iter().find(|(other, _)| *other == name);
        let bounds = other.map_or(SECONDS, |(_, bounds)| bounds);
        Buckets {
            bounds,
            counts: (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect(),
            sum: AtomicU64::new(0),
        }
    }

    pub fn read(&self) -> Reading {
        let mut count = 0;
        let mut counts = self.counts.iter().map(|number| {
            count += number.load(Ordering::Relaxed);
            count
        });
        let up_to = self.bounds.iter().copied().zip(&mut counts).collect();
        let count = counts.next().unwrap_or_default();
        Reading { up_to, count, sum: f64::from_bits(self.sum.load(Ordering::Relaxed)) }
    }
}

impl HistogramFn for Buckets {
    fn record(&self, value: f64) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        let add = |sum| Some((f64::from_bits(sum) + value).to_bits());
        // It adds in any case, so there is no failure to see to.
        let _ = self.sum.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_counts_up_to_its_bound() {
        let buckets = Buckets::named("of_seconds");
        for value in [0.5, 0.500_1, 0.0, 11.0] {
            buckets.record(value);
        }
        let reading = buckets.read();
        let up_to = |bound| reading.up_to.iter().find(|(other, _)| *other == bound).map(|(_, count)| *count);
        assert_eq!((up_to(0.25), up_to(0.5), up_to(1.0), up_to(10.0)), (Some(1), Some(2), Some(3), Some(3)));
        assert_eq!((reading.count, reading.sum), (4, 12.000_1));
    }

    #[test]
    fn bounds_rise() {
        for (name, bounds) in OTHERS.iter().chain([&("seconds", SECONDS)]) {
            assert!(bounds.is_sorted(), "{name}");
        }
    }
}
