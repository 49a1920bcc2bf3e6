//! All metrics of one member by their names, and the page that Prometheus reads. It knows what kind each is, and no meaning.
//!
//! The handles are those of the crate `metrics`, behind which stand plain numbers here: its exporter's own keep every measurement until
//! somebody sorts them, and draw lots for the order of the page.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use metrics::{Counter, Gauge, Histogram, Key, Label};
use metrics_exporter_prometheus::LabelSet;
use metrics_exporter_prometheus::formatting::{write_help_line, write_metric_line, write_type_line};
use parking_lot::Mutex;

use super::buckets::Buckets;

/// The format of the page.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A name, and what it means.
pub type Named = (&'static str, &'static str);
/// In the order in which they are written.
pub type Labels<'a> = &'a [(&'static str, &'a str)];

#[derive(Default)]
pub struct Registry {
    families: Mutex<BTreeMap<&'static str, Family>>,
}

struct Family {
    help: &'static str,
    series: BTreeMap<Vec<(&'static str, String)>, Series>,
}

struct Series {
    labels: LabelSet,
    number: Number,
}

#[derive(Clone)]
enum Number {
    Counter(Arc<AtomicU64>),
    /// The bits of a floating-point number.
    Gauge(Arc<AtomicU64>),
    Histogram(Arc<Buckets>),
}

impl Number {
    fn kind(&self) -> &'static str {
        match self {
            Number::Counter(_) => "counter",
            Number::Gauge(_) => "gauge",
            Number::Histogram(_) => "histogram",
        }
    }
}

impl Registry {
    /// It is there from now on; asked for again, it is the same one. So with the other two.
    pub fn counter(&self, named: Named, labels: Labels<'_>) -> Counter {
        match self.number(named, labels, || Number::Counter(Arc::default())) {
            Number::Counter(number) => Counter::from_arc(number),
            other => panic!("{} is a {}, not a counter", named.0, other.kind()),
        }
    }

    pub fn gauge(&self, named: Named, labels: Labels<'_>) -> Gauge {
        match self.number(named, labels, || Number::Gauge(Arc::default())) {
            Number::Gauge(number) => Gauge::from_arc(number),
            other => panic!("{} is a {}, not a gauge", named.0, other.kind()),
        }
    }

    pub fn histogram(&self, named: Named, labels: Labels<'_>) -> Histogram {
        match self.number(named, labels, || Number::Histogram(Arc::new(Buckets::named(named.0)))) {
            Number::Histogram(buckets) => Histogram::from_arc(buckets),
            other => panic!("{} is a {}, not a histogram", named.0, other.kind()),
        }
    }

    fn number(&self, (name, help): Named, labels: Labels<'_>, new: impl FnOnce() -> Number) -> Number {
        let by = labels.iter().map(|(label, value)| (*label, (*value).to_owned())).collect();
        let mut families = self.families.lock();
        let family = families.entry(name).or_insert_with(|| Family { help, series: BTreeMap::new() });
        let series = family.series.entry(by).or_insert_with(|| {
            let labels = labels.iter().map(|(label, value)| Label::new(*label, (*value).to_owned()));
            let key = Key::from_parts(name, labels.collect::<Vec<_>>());
            Series { labels: LabelSet::from_key_and_global(&key, &Default::default()), number: new() }
        });
        series.number.clone()
    }

    /// All of them, names in their order. Takes milliseconds: not for a runtime's thread.
    pub fn page(&self) -> String {
        let mut page = String::new();
        for (name, family) in self.families.lock().iter() {
            write_help_line(&mut page, name, None, None, family.help);
            let kind = family.series.values().next().map_or("untyped", |series| series.number.kind());
            write_type_line(&mut page, name, None, None, kind);
            for Series { labels, number } in family.series.values() {
                write_series(&mut page, name, labels, number);
            }
        }
        page
    }
}

fn write_series(page: &mut String, name: &str, labels: &LabelSet, number: &Number) {
    const NO_MORE: Option<(&str, &str)> = None;
    match number {
        Number::Counter(number) => {
            write_metric_line(page, name, None, labels, NO_MORE, number.load(Ordering::Relaxed), None);
        }
        Number::Gauge(bits) => {
            let value = f64::from_bits(bits.load(Ordering::Relaxed));
            write_metric_line(page, name, None, labels, NO_MORE, value, None);
        }
        Number::Histogram(buckets) => {
            let reading = buckets.read();
            for (bound, count) in reading.up_to {
                write_metric_line(page, name, Some("bucket"), labels, Some(("le", bound)), count, None);
            }
            let all = Some(("le", "+Inf"));
            write_metric_line(page, name, Some("bucket"), labels, all, reading.count, None);
            write_metric_line(page, name, Some("sum"), labels, NO_MORE, reading.sum, None);
            write_metric_line(page, name, Some("count"), labels, NO_MORE, reading.count, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_every_series_with_its_labels() {
        let registry = Registry::default();
        let named = ("tenure_test_total", "What was\ntested.");
        registry.counter(named, &[("to", "b")]).increment(2);
        registry.counter(named, &[("to", "a \"quoted\"")]).increment(1);
        registry.counter(named, &[("to", "b")]).increment(3);
        registry.gauge(("tenure_test_bytes", "How much."), &[]).set(1.5);
        let took = registry.histogram(("tenure_test_seconds", "How long."), &[("to", "b")]);
        took.record(0.2);
        let page = registry.page();
        let expected = "\
            # HELP tenure_test_bytes How much.\n\
            # TYPE tenure_test_bytes gauge\n\
            tenure_test_bytes 1.5\n\
            # HELP tenure_test_seconds How long.\n\
            # TYPE tenure_test_seconds histogram\n\
            tenure_test_seconds_bucket{to=\"b\",le=\"0.00025\"} 0\n";
        assert!(page.starts_with(expected), "{page}");
        let end = "\
            tenure_test_seconds_bucket{to=\"b\",le=\"+Inf\"} 1\n\
            tenure_test_seconds_sum{to=\"b\"} 0.2\n\
            tenure_test_seconds_count{to=\"b\"} 1\n\
            # HELP tenure_test_total What was\\ntested.\n\
            # TYPE tenure_test_total counter\n\
            tenure_test_total{to=\"a \\\"quoted\\\"\"} 1\n\
            tenure_test_total{to=\"b\"} 5\n";
        assert!(page.ends_with(end), "{page}");
    }
}
