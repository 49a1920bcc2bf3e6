//! How an outcome is shown: as a short table for people, or as one JSON object for programs.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::outcome::{MIB, Outcome};
use crate::table::{Table, number};
use crate::tally::Errors;

/// Writes to standard output; a reader that went away is not an error.
pub(crate) fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).ok();
}

/// Remarks for people go to standard error, so that standard output holds results only.
pub(crate) fn remark(text: &str) {
    writeln!(std::io::stderr().lock(), "{text}").ok();
}

/// The table of one outcome.
pub(crate) fn text(outcome: &Outcome) -> String {
    let mut lines = Table::new(2, &[]);
    lines.row(vec![
        outcome.workload.clone(),
        format!("{} clients, {} connections", outcome.clients, outcome.connections),
    ]);
    let (done, seconds) = (number(outcome.operations as f64), outcome.span.elapsed.as_secs_f64());
    let rate =
        if outcome.has_throughput { format!(": {}/s", number(outcome.per_second())) } else { String::new() };
    lines.row(vec![outcome.unit.to_owned(), format!("{done} in {seconds:.2} s{rate}")]);
    lines.row(vec!["errors".to_owned(), errors_text(&outcome.errors)]);
    if let Some(server) = outcome.span.server {
        let cpu = cpu_text(
            outcome.server_cpu_us().filter(|_| outcome.has_throughput),
            server.cpu.as_secs_f64() / seconds,
        );
        let (peak, rss) = (number(server.peak_rss_bytes as f64 / MIB), number(server.rss_bytes as f64 / MIB));
        lines.row(vec!["server".to_owned(), format!("{cpu}; peak RSS {peak} MiB, RSS {rss} MiB")]);
    }
    let client_cores = outcome.span.client_cpu.as_secs_f64() / seconds;
    lines.row(vec![
        "client".to_owned(),
        cpu_text(outcome.has_throughput.then(|| outcome.client_cpu_us()), client_cores),
    ]);
    for fact in &outcome.facts {
        lines.row(vec![fact.name.to_owned(), format!("{} {}", number(fact.value), fact.unit)]);
    }
    for violation in &outcome.violations {
        lines.row(vec!["BROKEN".to_owned(), violation.clone()]);
    }
    let mut text = lines.text().trim_start().to_owned();
    if !outcome.kinds.is_empty() {
        text.push_str(&latencies(outcome).text());
    }
    text
}

/// One line: a JSON object.
pub(crate) fn json(outcome: &Outcome) -> String {
    let mut text = serde_json::to_string(&Object::of(outcome)).expect("plain numbers and strings are JSON");
    text.push('\n');
    text
}

fn cpu_text(per_operation_us: Option<f64>, cores: f64) -> String {
    match per_operation_us {
        Some(us) => format!("CPU {} µs/op ({cores:.2} cores)", number(us)),
        None => format!("CPU {cores:.2} cores"),
    }
}

fn errors_text(errors: &Errors) -> String {
    let mut text = number(errors.total() as f64);
    for (code, (count, example)) in &errors.0 {
        write!(text, "; {code} {count} (first: {example})").expect("writing to a string succeeds");
    }
    text
}

fn latencies(outcome: &Outcome) -> Table {
    let mut table = Table::new(1, &["latency µs", "count", "mean", "p50", "p90", "p99", "p99.9", "max"]);
    for (kind, histogram) in &outcome.kinds {
        let latency = Latency::of(histogram);
        let values = [latency.mean, latency.p50, latency.p90, latency.p99, latency.p999, latency.max];
        let mut row = vec![(*kind).to_owned(), number(histogram.len() as f64)];
        row.extend(values.map(number));
        table.row(row);
    }
    table
}

#[derive(Serialize)]
struct Object<'a> {
    workload: &'a str,
    clients: usize,
    connections: usize,
    elapsed_s: f64,
    unit: &'a str,
    operations: u64,
    throughput_per_s: f64,
    errors: BTreeMap<&'a str, u64>,
    first_errors: BTreeMap<&'a str, &'a str>,
    latency_us: Latency,
    kinds: BTreeMap<&'a str, Latency>,
    facts: BTreeMap<&'a str, f64>,
    violations: &'a [String],
    server_cpu_us_per_op: Option<f64>,
    server_rss_bytes: Option<u64>,
    server_peak_rss_bytes: Option<u64>,
    client_cpu_us_per_op: f64,
}

impl<'a> Object<'a> {
    fn of(outcome: &'a Outcome) -> Self {
        let errors = || outcome.errors.0.iter();
        Self {
            workload: &outcome.workload,
            clients: outcome.clients,
            connections: outcome.connections,
            elapsed_s: outcome.span.elapsed.as_secs_f64(),
            unit: outcome.unit,
            operations: outcome.operations,
            throughput_per_s: outcome.per_second(),
            errors: errors().map(|(code, (count, _))| (*code, *count)).collect(),
            first_errors: errors().map(|(code, (_, example))| (*code, example.as_str())).collect(),
            latency_us: Latency::of(&outcome.latency),
            kinds: outcome.kinds.iter().map(|(kind, histogram)| (*kind, Latency::of(histogram))).collect(),
            facts: outcome.facts.iter().map(|fact| (fact.name, fact.value)).collect(),
            violations: &outcome.violations,
            server_cpu_us_per_op: outcome.server_cpu_us(),
            server_rss_bytes: outcome.span.server.map(|sample| sample.rss_bytes),
            server_peak_rss_bytes: outcome.span.server.map(|sample| sample.peak_rss_bytes),
            client_cpu_us_per_op: outcome.client_cpu_us(),
        }
    }
}

/// A histogram's usual points, in microseconds.
#[derive(Serialize)]
struct Latency {
    count: u64,
    mean: f64,
    p50: f64,
    p90: f64,
    p99: f64,
    p999: f64,
    max: f64,
}

impl Latency {
    fn of(histogram: &Histogram<u64>) -> Self {
        let at = |quantile| histogram.value_at_quantile(quantile) as f64;
        Self {
            count: histogram.len(),
            mean: histogram.mean(),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: histogram.max() as f64,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::failure::Failure;
    use crate::outcome::tests::outcome;

    #[test]
    fn the_table_names_rate_latency_cpu_memory_and_errors() {
        let mut outcome = outcome(1000);
        outcome.errors.add(&Failure::status("14", "no leader"), 2);
        let text = text(&outcome);
        for part in
            ["1,000 in 2.00 s: 500/s", "CPU 40 µs/op", "peak RSS 3 MiB", "Unavailable 2 (first: no leader)"]
        {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
        assert!(text.lines().last().unwrap().starts_with("put "));
    }

    #[test]
    fn json_is_one_line_with_the_same_numbers() {
        let text = json(&outcome(1000));
        assert_eq!(text.lines().count(), 1);
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["operations"], 1000);
        assert_eq!(value["latency_us"]["count"], 1000);
        assert_eq!(value["server_cpu_us_per_op"], 40.0);
        assert_eq!(value["facts"]["swapped"], 100.0);
    }
}
