//! `compare`: two servers, A and B, measured in turn under the same load.
//!
//! Machines change under one's hands: other work, a warmer disk cache, a slower clock. So each round visits every workload,
//! and within it measures A and B right after each other, B first in every second round; ratios are taken within a round.
//! Both servers are started fresh for each workload, client count and round, and both stay up, one idle, while the other is
//! measured: memory peaks then belong to that workload, and neither inherits the other's data.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::cluster::{Cluster, Starting};
use crate::command::Template;
use crate::comparison::{Comparison, Format};
use crate::failure::Failure;
use crate::flags::{Data, duration};
use crate::outcome::Outcome;
use crate::progress::Progress;
use crate::report::remark;
use crate::restart::{self, Ending};
use crate::run::Limit;
use crate::session::{Load, Session, connections_for};
use crate::stop::Stop;
use crate::table::number;
use crate::workload::{Workload, expiry, idle, keepalive, lease, load, put, range, txn, watch};

/// Callers of workloads whose size is not counted in clients.
const CLIENTS_OF_ONCE: usize = 64;
/// Callers that put while others watch.
const PUTTERS: usize = 4;
const ONCE_LIMIT: Duration = Duration::from_secs(900);

const EXAMPLES: &str = "\
Placeholders: {dir} data directory, {client} client URL, {peer} peer URL, {name} member name, {i} member number,
{cluster} all members as name=peer,name=peer. Leading NAME=value words are environment variables; there is no shell.

Example:
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

    /// Command line of server B
    #[arg(long)]
    b: Template,

    /// What A is called [default: its program's name]
    #[arg(long)]
    name_a: Option<String>,

    /// What B is called [default: its program's name]
    #[arg(long)]
    name_b: Option<String>,

    /// What is run
    #[arg(long, value_enum, value_delimiter = ',', default_value = "put,range,txn,lease,keepalive,watch")]
    workloads: Vec<Kind>,

    /// Concurrent callers (watch: watchers; keepalive: unanswered renewals)
    #[arg(long, value_delimiter = ',', default_value = "64,256", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    clients: Vec<u32>,

    /// Rounds over everything
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,

    /// Measured time of each run
    #[arg(long, default_value = "5s", value_parser = duration)]
    duration: Duration,

    /// Time before it that is not measured
    #[arg(long, default_value = "1s", value_parser = duration)]
    warmup: Duration,

    /// Members of each side's cluster; CPU time and memory are summed over them
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=9))]
    members: u8,

    /// Where data directories are made [default: the system's temporary directory]
    #[arg(long)]
    dir: Option<PathBuf>,

    /// How long a server may take until it answers
    #[arg(long, default_value = "60s", value_parser = duration)]
    ready_limit: Duration,

    #[command(flatten)]
    data: Data,

    /// Keys filled for `restart`
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    restart_keys: u64,

    /// Keys to one request when filling for `restart`
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=128))]
    restart_batch: u64,

    /// How servers are ended for `restart`
    #[arg(long, value_enum, default_value_t = Ending::Kill)]
    restart_by: Ending,

    /// Leases of `expiry`
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    expiry_leases: u64,

    /// Leases of `idle-leases`, watchers of `idle-watchers`
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    idle_count: u32,

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

    /// No progress on standard error
    #[arg(long)]
    quiet: bool,
}

/// What can be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    Put,
    PutSequential,
    Range,
    RangeSerializable,
    /// 100 keys to a read
    #[value(name = "range-100")]
    Range100,
    Txn,
    /// All clients race for 8 keys
    TxnShared,
    Lease,
    Keepalive,
    Watch,
    Expiry,
    IdleLeases,
    IdleWatchers,
    /// Fill, kill, start again
    Restart,
}

/// One workload with one number of clients.
#[derive(Clone, Copy)]
struct Cell {
    kind: Kind,
    clients: usize,
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
        let names = [
            self.name_a.clone().unwrap_or_else(|| self.a.program_name()),
            self.name_b.clone().unwrap_or_else(|| self.b.program_name()),
        ];
        let mut comparison = Comparison::new(names, [self.a.to_string(), self.b.to_string()]);
        let mut complaint = None;
        warn_of_memory(&self.dir());
        for round in 0..self.rounds {
            for cell in self.cells() {
                let started = self.start_both(&stop).await;
                let measured = match started {
                    Ok(mut sides) => self.measure_both(cell, round, &mut sides, &stop, &mut comparison).await,
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

    async fn start_both(&self, stop: &Stop) -> Result<[Cluster; 2], Failure> {
        let starting = Starting {
            members: usize::from(self.members),
            dir: self.dir(),
            ready_limit: self.ready_limit,
            stop: stop.clone(),
        };
        Ok([Cluster::start(&self.a, &starting).await?, Cluster::start(&self.b, &starting).await?])
    }

    fn dir(&self) -> PathBuf {
        self.dir.clone().unwrap_or_else(std::env::temp_dir)
    }

    fn cells(&self) -> Vec<Cell> {
        let sizes = |kind: &Kind| match kind {
            Kind::Expiry | Kind::IdleLeases | Kind::IdleWatchers | Kind::Restart => vec![CLIENTS_OF_ONCE],
            _ => self.clients.iter().map(|clients| *clients as usize).collect(),
        };
        let cells = |kind: &Kind| {
            sizes(kind).into_iter().map(|clients| Cell { kind: *kind, clients }).collect::<Vec<_>>()
        };
        self.workloads.iter().flat_map(cells).collect()
    }

    async fn measure_both(
        &self,
        cell: Cell,
        round: u32,
        sides: &mut [Cluster; 2],
        stop: &Stop,
        comparison: &mut Comparison,
    ) -> Result<Option<String>, Failure> {
        let mut outcomes = [None, None];
        let mut complaint = None;
        for side in if round.is_multiple_of(2) { [0, 1] } else { [1, 0] } {
            let outcome = self.measure(cell, &mut sides[side], stop).await?;
            let name = comparison.name(side);
            if !self.quiet {
                remark(&format!(
                    "round {}/{}  {}  {name}: {}",
                    round + 1,
                    self.rounds,
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
            outcomes[side] = Some(outcome);
        }
        if let [Some(a), Some(b)] = &outcomes {
            comparison.add(cell.clients, a, b);
        }
        Ok(complaint)
    }

    async fn measure(&self, cell: Cell, cluster: &mut Cluster, stop: &Stop) -> Result<Outcome, Failure> {
        let session = self.session(cell, cluster, stop).map_err(Failure::setup)?;
        match self.workload(cell) {
            Some(workload) => workload.run(&session).await,
            None => {
                let load = load::Load { batch: self.restart_batch };
                restart::measure(cluster, &session, &load, self.restart_by).await
            }
        }
    }

    fn session(&self, cell: Cell, cluster: &Cluster, stop: &Stop) -> Result<Session, String> {
        let (clients, warmup, duration, keys) = match cell.kind {
            Kind::Watch => (PUTTERS, self.warmup, self.duration, self.data.keys),
            Kind::Restart => (cell.clients, Duration::ZERO, ONCE_LIMIT, self.restart_keys),
            _ => (cell.clients, self.warmup, self.duration, self.data.keys),
        };
        Ok(Session {
            endpoints: cluster.endpoints(),
            load: Load {
                clients,
                connections: connections_for(cell.clients).max(cluster.endpoints().len()),
                limit: Limit { total: None, duration, warmup, rate: None },
                seed: self.data.seed,
            },
            keys: self.data.key_space(keys)?,
            value_size: self.data.value_size as usize,
            server_pids: cluster.process_ids(),
            progress: if self.quiet { Progress::Hidden } else { Progress::Shown },
            stop: stop.clone(),
        })
    }

    /// The workload of a cell; none for a restart, which is more than a workload.
    fn workload(&self, cell: Cell) -> Option<Workload> {
        let range = range::Range::default;
        let idle = |what| idle::Idle { what, count: self.idle_count, streams: None, hold: self.duration };
        // Clients are split into streams and the renewals that each leaves unanswered.
        let window = (cell.clients / connections_for(cell.clients)) as u32;
        Some(match cell.kind {
            Kind::Put => Workload::Put(put::Put { sequential: false }),
            Kind::PutSequential => Workload::Put(put::Put { sequential: true }),
            Kind::Range => Workload::Range(range()),
            Kind::RangeSerializable => Workload::Range(range::Range { serializable: true, ..range() }),
            Kind::Range100 => Workload::Range(range::Range { span: 100, ..range() }),
            Kind::Txn => Workload::Txn(txn::Txn::default()),
            Kind::TxnShared => Workload::Txn(txn::Txn { shared: 8, ..Default::default() }),
            Kind::Lease => Workload::Lease(lease::Lease::default()),
            Kind::Keepalive => Workload::Keepalive(keepalive::Keepalive { window, ..Default::default() }),
            Kind::Watch => {
                Workload::Watch(watch::Watch { watchers: cell.clients as u32, ..Default::default() })
            }
            Kind::Expiry => {
                Workload::Expiry(expiry::Expiry { leases: self.expiry_leases, ..Default::default() })
            }
            Kind::IdleLeases => Workload::Idle(idle(idle::What::Leases)),
            Kind::IdleWatchers => Workload::Idle(idle(idle::What::Watchers)),
            Kind::Restart => return None,
        })
    }
}

impl Cell {
    fn label(self) -> String {
        let name = self.kind.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
        format!("{name} {}", self.clients)
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
            Command::Compare(compare) => Box::new(compare),
            _ => panic!("compare was parsed as something else"),
        }
    }

    #[test]
    fn workloads_multiply_with_client_counts_unless_clients_mean_nothing_to_them() {
        let compare = compare(&["--workloads", "put,range-100,restart", "--clients", "8,16"]);
        let labels: Vec<_> = compare.cells().into_iter().map(Cell::label).collect();
        assert_eq!(labels, ["put 8", "put 16", "range-100 8", "range-100 16", "restart 64"]);
        assert!(compare.workload(compare.cells()[4]).is_none());
    }

    #[test]
    fn the_output_is_a_table_unless_asked_otherwise() {
        assert_eq!(compare(&[]).format(), Format::Text);
        assert_eq!(compare(&["--markdown"]).format(), Format::Markdown);
        assert_eq!(compare(&["--json"]).format(), Format::Json);
    }
}
