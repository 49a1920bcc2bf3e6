//! What `compare` runs: which workloads at which sizes, and how one of them is run on the servers of one side.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::catch_up::{Absence, CatchUp};
use crate::cluster::{Cluster, Starting};
use crate::failover::Failover;
use crate::failure::Failure;
use crate::flags::{Data, duration};
use crate::outcome::Outcome;
use crate::progress::Progress;
use crate::restart::{self, Ending};
use crate::run::Limit;
use crate::session::{Load, Session, connections_for};
use crate::stop::Stop;
use crate::workload::{
    Workload, expiry, idle, keepalive, lease, load, lock, mass_expiry, put, range, txn, watch,
};

/// Callers of workloads whose size is not counted in clients.
const CLIENTS_OF_ONCE: usize = 64;
/// Callers that put while others watch.
const PUTTERS: usize = 4;
const ONCE_LIMIT: Duration = Duration::from_secs(900);

/// What is run, how long, on how many members.
#[derive(Args)]
pub(crate) struct Plan {
    /// What is run
    #[arg(long, value_enum, value_delimiter = ',', default_value = "put,range,txn,lease,keepalive,watch")]
    workloads: Vec<Kind>,

    /// Concurrent callers (watch: watchers; keepalive: unanswered renewals)
    #[arg(long, value_delimiter = ',', default_value = "64,256", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    clients: Vec<u32>,

    /// Rounds over everything
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) rounds: u32,

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

    /// Leaders killed for `failover`
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    failover_rounds: u32,

    /// Puts, and as many gets, that `failover` sends to each member per second
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    failover_rate: u32,

    /// Puts that a follower misses for `catch-up`
    #[arg(long, default_value_t = 200_000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    catch_up_writes: u64,

    /// How the follower is taken away for `catch-up`
    #[arg(long, value_enum, default_value_t = Absence::Kill)]
    catch_up_by: Absence,

    /// Leases of `mass-expiry`
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    mass_expiry_leases: u64,

    /// Time to live of those leases in seconds; granting them all must take less
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(i64).range(5..=3600))]
    mass_expiry_ttl: i64,

    /// Puts and gets of others per second beside them
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    mass_expiry_rate: u32,

    /// No progress on standard error
    #[arg(long)]
    pub(crate) quiet: bool,
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
    /// Each client a lock of its own
    Lock,
    /// All clients after one lock
    LockShared,
    Expiry,
    /// Very many leases end together, beside requests of others
    MassExpiry,
    IdleLeases,
    IdleWatchers,
    /// Fill, kill, start again
    Restart,
    /// Kill the leader, several times
    Failover,
    /// A follower misses many writes
    CatchUp,
}

/// One workload with one number of clients.
#[derive(Clone, Copy)]
pub(crate) struct Cell {
    kind: Kind,
    pub(crate) clients: usize,
}

/// What is done for a cell: a workload that only talks to the servers, or something that ends them as well.
enum Deed {
    Workload(Workload),
    Restart,
    Failover,
    CatchUp,
}

impl Plan {
    /// Starts the servers of one side.
    pub(crate) fn starting(&self, stop: &Stop) -> Starting {
        Starting {
            members: usize::from(self.members),
            dir: self.dir(),
            ready_limit: self.ready_limit,
            stop: stop.clone(),
        }
    }

    pub(crate) fn dir(&self) -> PathBuf {
        self.dir.clone().unwrap_or_else(std::env::temp_dir)
    }

    pub(crate) fn cells(&self) -> Vec<Cell> {
        let cells = |kind: &Kind| {
            let sizes = if kind.counts_clients() {
                self.clients.iter().map(|clients| *clients as usize).collect()
            } else {
                vec![CLIENTS_OF_ONCE]
            };
            sizes.into_iter().map(|clients| Cell { kind: *kind, clients }).collect::<Vec<_>>()
        };
        self.workloads.iter().flat_map(cells).collect()
    }

    pub(crate) async fn measure(
        &self,
        cell: Cell,
        cluster: &mut Cluster,
        stop: &Stop,
    ) -> Result<Outcome, Failure> {
        let session = self.session(cell, cluster, stop).map_err(Failure::setup)?;
        match self.deed(cell, session.endpoints.len()) {
            Deed::Workload(workload) => workload.run(&session).await,
            Deed::Restart => {
                let load = load::Load { batch: self.restart_batch };
                restart::measure(cluster, &session, &load, self.restart_by).await
            }
            Deed::Failover => {
                let (rounds, rate) = (self.failover_rounds, self.failover_rate);
                Failover { rounds, rate, limit: self.ready_limit }.measure(cluster, &session).await
            }
            Deed::CatchUp => {
                let (writes, by) = (self.catch_up_writes, self.catch_up_by);
                CatchUp { writes, by, limit: self.ready_limit }.measure(cluster, &session).await
            }
        }
    }

    fn session(&self, cell: Cell, cluster: &Cluster, stop: &Stop) -> Result<Session, String> {
        let (clients, warmup, duration, keys) = match cell.kind {
            Kind::Watch => (PUTTERS, self.warmup, self.duration, self.data.keys),
            Kind::Restart => (cell.clients, Duration::ZERO, ONCE_LIMIT, self.restart_keys),
            _ => (cell.clients, self.warmup, self.duration, self.data.keys),
        };
        let rate = (cell.kind == Kind::MassExpiry).then_some(f64::from(self.mass_expiry_rate));
        let endpoints = cluster.endpoints();
        Ok(Session {
            load: Load {
                clients,
                connections: connections_for(cell.clients, endpoints.len()),
                limit: Limit { total: None, duration, warmup, rate },
                seed: self.data.seed,
            },
            endpoints,
            keys: self.data.key_space(keys)?,
            value_size: self.data.value_size as usize,
            server_pids: cluster.process_ids(),
            progress: if self.quiet { Progress::Hidden } else { Progress::Shown },
            stop: stop.clone(),
        })
    }

    fn deed(&self, cell: Cell, endpoints: usize) -> Deed {
        let range = range::Range::default;
        let idle = |what| idle::Idle { what, count: self.idle_count, streams: None, hold: self.duration };
        // Clients are split into streams and the renewals that each leaves unanswered.
        let window = cell.clients.div_ceil(connections_for(cell.clients, endpoints)) as u32;
        Deed::Workload(match cell.kind {
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
            Kind::Lock => Workload::Lock(lock::Lock::default()),
            Kind::LockShared => Workload::Lock(lock::Lock { names: 1, ..Default::default() }),
            Kind::Expiry => {
                Workload::Expiry(expiry::Expiry { leases: self.expiry_leases, ..Default::default() })
            }
            Kind::MassExpiry => Workload::MassExpiry(mass_expiry::MassExpiry {
                leases: self.mass_expiry_leases,
                ttl: self.mass_expiry_ttl,
                ..Default::default()
            }),
            Kind::IdleLeases => Workload::Idle(idle(idle::What::Leases)),
            Kind::IdleWatchers => Workload::Idle(idle(idle::What::Watchers)),
            Kind::Restart => return Deed::Restart,
            Kind::Failover => return Deed::Failover,
            Kind::CatchUp => return Deed::CatchUp,
        })
    }
}

impl Kind {
    /// Whether its size is a number of clients; else it is run once.
    fn counts_clients(self) -> bool {
        match self {
            Self::Expiry
            | Self::MassExpiry
            | Self::IdleLeases
            | Self::IdleWatchers
            | Self::Restart
            | Self::Failover => false,
            Self::Put
            | Self::PutSequential
            | Self::Range
            | Self::RangeSerializable
            | Self::Range100
            | Self::Txn
            | Self::TxnShared
            | Self::Lease
            | Self::Keepalive
            | Self::Watch
            | Self::Lock
            | Self::LockShared
            | Self::CatchUp => true,
        }
    }
}

impl Cell {
    pub(crate) fn label(self) -> String {
        let name = self.kind.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
        format!("{name} {}", self.clients)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        plan: Plan,
    }

    #[test]
    fn workloads_multiply_with_client_counts_unless_clients_mean_nothing_to_them() {
        let flags = ["plan", "--workloads", "put,range-100,restart,failover", "--clients", "8,16"];
        let plan = Flags::try_parse_from(flags).unwrap().plan;
        let labels: Vec<_> = plan.cells().into_iter().map(Cell::label).collect();
        assert_eq!(labels, ["put 8", "put 16", "range-100 8", "range-100 16", "restart 64", "failover 64"]);
        assert!(matches!(plan.deed(plan.cells()[4], 1), Deed::Restart));
    }
}
