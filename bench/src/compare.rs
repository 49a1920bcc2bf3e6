//! `compare`: two servers, A and B, measured in turn under the same load.
//!
//! Machines change under one's hands: other work, a warmer disk cache, a slower clock. So each round visits every workload,
//! and within it measures A and B right after each other, B first in every second round; ratios are taken within a round.
//! Both servers are started fresh for each workload, client count and round, and both stay up, one idle, while the other is
//! measured: memory peaks then belong to that workload, and neither inherits the other's data.

use std::path::Path;

use clap::Args;

use crate::cluster::Cluster;
use crate::command::Template;
use crate::comparison::{Comparison, Format};
use crate::failure::Failure;
use crate::outcome::Outcome;
use crate::plan::{Cell, Plan};
use crate::report::remark;
use crate::stop::Stop;
use crate::table::number;

const EXAMPLES: &str = "\
Placeholders: {dir} data directory, {client} client URL, {peer} peer URL, {name} member name, {i} member number,
{cluster} all members as name=peer,name=peer. Leading NAME=value words are environment variables; there is no shell.

Example:
  tenure-bench compare --workloads failover,catch-up --members 3 --rounds 3 --a '...' --b '...'
  tenure-bench compare --workloads put,range,txn --clients 64,256 --rounds 4 --duration 5s --markdown \\
    --a 'etcd --data-dir {dir} --listen-client-urls {client} --advertise-client-urls {client} --listen-peer-urls {peer}
         --initial-advertise-peer-urls {peer} --name {name} --initial-cluster {cluster}' \\
    --b 'tenured --data-dir {dir} --listen-client-urls {client} --advertise-client-urls {client} --listen-peer-urls {peer}
         --initial-advertise-peer-urls {peer} --name {name} --initial-cluster {cluster}'";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Compare {
    /// Command line of server A, the one compared with
    #[arg(long)]
    a: Template,

    /// Command line of server B; without it A is measured alone
    #[arg(long)]
    b: Option<Template>,

    /// What A is called [default: its program's name]
    #[arg(long)]
    name_a: Option<String>,

    /// What B is called [default: its program's name]
    #[arg(long)]
    name_b: Option<String>,

    #[command(flatten)]
    plan: Plan,

    /// Share of failed requests above which the exit code is 1
    #[arg(long, default_value_t = 0.001)]
    max_error_share: f64,

    /// Threads of the load generator
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub(crate) threads: u32,

    /// Print a Markdown table
    #[arg(long, conflicts_with = "json")]
    markdown: bool,

    /// Print one JSON object with the numbers of every round
    #[arg(long)]
    json: bool,
}

impl Compare {
    pub(crate) fn format(&self) -> Format {
        match (self.json, self.markdown) {
            (true, _) => Format::Json,
            (_, true) => Format::Markdown,
            _ => Format::Text,
        }
    }

    /// Measures everything, or until stopped; also says what must make the exit code non-zero.
    pub(crate) async fn run(&self, stop: Stop) -> Result<(Comparison, Option<String>), Failure> {
        let names = self.sides().map(|(template, name)| name.unwrap_or_else(|| template.program_name()));
        let commands = self.sides().map(|(template, _)| template.to_string());
        let mut comparison = Comparison::new(names.collect(), commands.collect());
        let mut complaint = None;
        warn_of_memory(&self.plan.dir());
        for round in 0..self.plan.rounds {
            for cell in self.plan.cells() {
                let started = self.start(&stop).await;
                let measured = match started {
                    Ok(mut sides) => self.measure(cell, round, &mut sides, &stop, &mut comparison).await,
                    Err(_) if stop.is_set() => Ok(None),
                    // What does not start now will not start later: show what there is.
                    Err(failure) => return Ok((comparison, Some(failure.to_string()))),
                };
                if stop.is_set() {
                    return Ok((comparison, Some("stopped early".to_owned())));
                }
                let failed = |failure: Failure| Some(format!("{}: {failure}", cell.label()));
                if let Some(text) = measured.unwrap_or_else(failed) {
                    remark(&format!("tenure-bench: {text}"));
                    complaint = Some(text);
                }
            }
        }
        Ok((comparison, complaint))
    }

    fn sides(&self) -> impl Iterator<Item = (&Template, Option<String>)> {
        let b = self.b.as_ref().map(|b| (b, self.name_b.clone()));
        std::iter::once((&self.a, self.name_a.clone())).chain(b)
    }

    async fn start(&self, stop: &Stop) -> Result<Vec<Cluster>, Failure> {
        let starting = self.plan.starting(stop);
        let mut clusters = Vec::new();
        for (template, _) in self.sides() {
            clusters.push(Cluster::start(template, &starting).await?);
        }
        Ok(clusters)
    }

    async fn measure(
        &self,
        cell: Cell,
        round: u32,
        sides: &mut [Cluster],
        stop: &Stop,
        comparison: &mut Comparison,
    ) -> Result<Option<String>, Failure> {
        let mut outcomes = Vec::new();
        let mut complaint = None;
        let mut order: Vec<_> = (0..sides.len()).collect();
        if !round.is_multiple_of(2) {
            order.reverse();
        }
        for side in order {
            let outcome = self.plan.measure(cell, &mut sides[side], stop).await?;
            let name = comparison.name(side);
            if !self.plan.quiet {
                remark(&format!(
                    "round {}/{}  {}  {name}: {}",
                    round + 1,
                    self.plan.rounds,
                    cell.label(),
                    summary(&outcome)
                ));
            }
            if stop.is_set() {
                return Ok(None);
            }
            if let Some(text) = outcome.complaint(self.max_error_share) {
                complaint = Some(format!("{} on {name}: {text}", cell.label()));
            }
            outcomes.push((side, outcome));
        }
        outcomes.sort_by_key(|(side, _)| *side);
        comparison.add(cell.clients, &outcomes.into_iter().map(|(_, outcome)| outcome).collect::<Vec<_>>());
        Ok(complaint)
    }
}

/// On a file system in memory a sync costs nothing, and what is compared is not what a server does.
fn warn_of_memory(dir: &Path) {
    const TMPFS: rustix::fs::FsWord = 0x0102_1994;
    if rustix::fs::statfs(dir).is_ok_and(|found| found.f_type == TMPFS) {
        remark(&format!(
            "tenure-bench: {} is in memory, where syncing is free; use --dir on a disk",
            dir.display()
        ));
    }
}

fn summary(outcome: &Outcome) -> String {
    let metrics = outcome.metrics();
    let parts =
        metrics.iter().map(|metric| format!("{} {} {}", metric.name, number(metric.value), metric.unit));
    parts.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::flags::{Command, Flags};
    use clap::Parser;

    fn compare(more: &[&str]) -> Box<Compare> {
        let base = ["tenure-bench", "compare", "--a", "etcd --data-dir {dir}", "--b", "/x/tenured {client}"];
        match Flags::try_parse_from(base.iter().chain(more)).unwrap().command {
            Command::Compare(compare) => compare,
            _ => panic!("compare was parsed as something else"),
        }
    }

    #[test]
    fn the_output_is_a_table_unless_asked_otherwise() {
        assert_eq!(compare(&[]).format(), Format::Text);
        assert_eq!(compare(&["--markdown"]).format(), Format::Markdown);
        assert_eq!(compare(&["--json"]).format(), Format::Json);
    }
}
