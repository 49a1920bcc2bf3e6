//! What a workload found, in numbers; how it is shown is for the reports.

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::failure::{DISCONNECTED, UNANSWERED};
use crate::run::Measured;
use crate::session::Session;
use crate::span::Span;
use crate::tally::Errors;

/// The result of one workload on one server.
pub(crate) struct Outcome {
    pub(crate) workload: String,
    pub(crate) clients: usize,
    pub(crate) connections: usize,
    /// What throughput counts and CPU time is divided by, and its plural name.
    pub(crate) operations: u64,
    pub(crate) unit: &'static str,
    pub(crate) span: Span,
    /// The latency that the workload is about.
    pub(crate) latency: Histogram<u64>,
    /// Latencies by kind of answer.
    pub(crate) kinds: Vec<(&'static str, Histogram<u64>)>,
    pub(crate) errors: Errors,
    pub(crate) facts: Vec<Metric>,
    /// Promises of the server that were seen broken. Any of them fails the run.
    pub(crate) violations: Vec<String>,
    /// Whether operations per second mean something; they do not for things that wait for a clock.
    pub(crate) has_throughput: bool,
}

/// One number of an outcome.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Metric {
    pub(crate) name: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) value: f64,
    #[serde(skip)]
    pub(crate) better: Better,
}

/// Which way a metric should go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Better {
    Higher,
    Lower,
    Neither,
}

pub(crate) const MIB: f64 = 1024.0 * 1024.0;

impl Metric {
    pub(crate) fn higher(name: &'static str, unit: &'static str, value: f64) -> Self {
        Self { name, unit, value, better: Better::Higher }
    }

    pub(crate) fn lower(name: &'static str, unit: &'static str, value: f64) -> Self {
        Self { name, unit, value, better: Better::Lower }
    }

    pub(crate) fn neither(name: &'static str, unit: &'static str, value: f64) -> Self {
        Self { name, unit, value, better: Better::Neither }
    }
}

impl Outcome {
    /// The usual case: each answer is an operation.
    pub(crate) fn of_requests(session: &Session, workload: impl Into<String>, measured: Measured) -> Self {
        let latency = measured.counts.all();
        Self {
            workload: workload.into(),
            clients: session.load.clients,
            connections: session.load.connections,
            operations: latency.len(),
            unit: "requests",
            span: measured.span,
            latency,
            kinds: measured.counts.kinds,
            errors: measured.counts.errors,
            facts: Vec::new(),
            violations: Vec::new(),
            has_throughput: true,
        }
    }

    pub(crate) fn per_second(&self) -> f64 {
        self.operations as f64 / self.span.elapsed.as_secs_f64().max(1e-9)
    }

    /// Server CPU time per operation in microseconds.
    pub(crate) fn server_cpu_us(&self) -> Option<f64> {
        let server = self.span.server?;
        (self.operations > 0).then(|| server.cpu.as_secs_f64() * 1e6 / self.operations as f64)
    }

    pub(crate) fn client_cpu_us(&self) -> f64 {
        self.span.client_cpu.as_secs_f64() * 1e6 / self.operations.max(1) as f64
    }

    /// The numbers by which servers are compared.
    pub(crate) fn metrics(&self) -> Vec<Metric> {
        let mut metrics = Vec::new();
        if self.has_throughput {
            metrics.push(Metric::higher("throughput", "/s", self.per_second()));
        }
        if !self.latency.is_empty() {
            metrics.push(Metric::lower("p50", "µs", self.latency.value_at_quantile(0.5) as f64));
            metrics.push(Metric::lower("p99", "µs", self.latency.value_at_quantile(0.99) as f64));
        }
        if let Some(cpu_us) = self.server_cpu_us().filter(|_| self.has_throughput) {
            metrics.push(Metric::lower("server CPU", "µs/op", cpu_us));
        }
        if let Some(server) = self.span.server {
            metrics.push(Metric::lower("peak RSS", "MiB", server.peak_rss_bytes as f64 / MIB));
        }
        metrics.extend(self.facts.iter().cloned());
        metrics
    }

    /// Why the run must not count as good, if so.
    pub(crate) fn complaint(&self, error_share_max: f64) -> Option<String> {
        if let Some(violation) = self.violations.first() {
            return Some(violation.clone());
        }
        let (errors, example) =
            (self.errors.total(), self.errors.main().map(|f| f.to_string()).unwrap_or_default());
        if self.operations == 0 {
            return Some(format!("nothing was done; {errors} errors {example}"));
        }
        let share = errors as f64 / (errors + self.operations) as f64;
        if share > error_share_max
            || self.errors.0.contains_key(DISCONNECTED)
            || self.errors.0.contains_key(UNANSWERED)
        {
            return Some(format!("{errors} errors ({:.3} % of requests), mostly {example}", share * 100.0));
        }
        None
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::failure::Failure;
    use crate::process::Sample;
    use crate::tally::Counts;
    use std::time::Duration;

    pub(crate) fn outcome(operations: u64) -> Outcome {
        let mut counts = Counts::default();
        (0..operations).for_each(|n| counts.record("put", Duration::from_micros(100 + n)));
        let server = Sample { cpu: Duration::from_millis(40), rss_bytes: 1 << 20, peak_rss_bytes: 3 << 20 };
        let elapsed = Duration::from_secs(2);
        Outcome {
            workload: "put".into(),
            clients: 64,
            connections: 4,
            operations,
            unit: "requests",
            span: Span { elapsed, client_cpu: Duration::from_millis(20), server: Some(server) },
            latency: counts.all(),
            kinds: counts.kinds,
            errors: Errors::default(),
            facts: vec![Metric::neither("swapped", "%", 100.0)],
            violations: Vec::new(),
            has_throughput: true,
        }
    }

    #[test]
    fn metrics_are_per_second_and_per_operation() {
        let metrics = outcome(1000).metrics();
        let value = |name| metrics.iter().find(|m| m.name == name).map(|m| m.value);
        assert_eq!(value("throughput"), Some(500.0));
        assert_eq!(value("server CPU"), Some(40.0));
        assert_eq!(value("peak RSS"), Some(3.0));
        assert_eq!(value("p50"), Some(599.0));
        assert_eq!(value("swapped"), Some(100.0));
    }

    #[test]
    fn doing_nothing_losing_connections_and_broken_promises_are_failures() {
        assert_eq!(outcome(1000).complaint(0.001), None);
        assert!(outcome(0).complaint(1.0).is_some());

        let mut few_errors = outcome(10_000);
        few_errors.errors.add(&Failure::status("14", "busy"), 5);
        assert_eq!(few_errors.complaint(0.001), None);
        few_errors.errors.add(&Failure::status("14", "busy"), 50);
        assert!(few_errors.complaint(0.001).is_some_and(|text| text.contains("Unavailable: busy")));

        let mut cut_off = outcome(1_000_000);
        cut_off.errors.add(&Failure::disconnected("gone"), 1);
        assert!(cut_off.complaint(0.001).is_some());

        let mut lossy = outcome(1000);
        lossy.violations.push("3 events lost".into());
        assert_eq!(lossy.complaint(1.0).as_deref(), Some("3 events lost"));
    }
}
