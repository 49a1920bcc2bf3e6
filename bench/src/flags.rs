//! The command line: what can be run, and the flags that all workloads share.

use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::compare::Compare;
use crate::data::Keys;
use crate::grpc::Endpoint;
use crate::progress::Progress;
use crate::run::Limit;
use crate::session::{Load, Session, connections_for};
use crate::stop::Stop;
use crate::workload::Workload;
use crate::workload::{
    expiry, idle, keepalive, lease, load, lock, mass_expiry, put, range, registry, txn, watch,
};

/// Measured time when neither a duration nor a total is given, and the bound on time when only a total is given.
const DURATION_DEFAULT: Duration = Duration::from_secs(10);
const DURATION_WITH_TOTAL: Duration = Duration::from_secs(600);
const DURATION_MAX: Duration = Duration::from_secs(24 * 3600);

const EXAMPLES: &str = "\
Examples:
  tenure-bench put --endpoints 127.0.0.1:2379 --clients 256 --duration 10s
  tenure-bench put --clients 64 --rate 5000 --server-pid $(pidof etcd)
  tenure-bench range --keys 10000 --span 100 --serializable --json
  tenure-bench txn --shared 8 --total 100000
  tenure-bench watch --watchers 1000 --streams 10 --clients 4 --rate 500
  tenure-bench expiry --leases 10000 --ttl 10
  tenure-bench mass-expiry --leases 100000 --ttl 60 --rate 2000 --clients 64
  tenure-bench registry --instances 100000 --ttl 15 --server-pid $(pidof tenured)
  tenure-bench lock --names 1 --clients 16
  tenure-bench idle --what watchers --count 100000 --server-pid $(pidof etcd)
  tenure-bench compare --help";

/// Drives an etcd v3 endpoint and reports throughput, latency, and what both cost the server.
#[derive(Parser)]
#[command(name = "tenure-bench", version, after_help = EXAMPLES)]
pub(crate) struct Flags {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Put random keys, or keys in order
    Put(Single<put::Put>),
    /// Read one or several keys
    Range(Single<range::Range>),
    /// Compare-and-swap keys, each client its own or all the same
    Txn(Single<txn::Txn>),
    /// Grant leases and revoke them
    Lease(Single<lease::Lease>),
    /// Renew many leases over few streams
    Keepalive(Single<keepalive::Keepalive>),
    /// Deliver each put to many watchers, and see that none is lost
    Watch(Single<watch::Watch>),
    /// Let leases expire, and see that none goes early and how late the last goes
    Expiry(Single<expiry::Expiry>),
    /// Let very many leases expire together, and see what others feel of it
    MassExpiry(Single<mass_expiry::MassExpiry>),
    /// Register instances, and send their heartbeats
    Registry(Single<registry::Registry>),
    /// Take locks and give them back, each client its own, or all the same few
    Lock(Single<lock::Lock>),
    /// Hold idle leases or watchers, and see what each costs in memory
    Idle(Single<idle::Idle>),
    /// Write each key of the key space once
    Load(Single<load::Load>),
    /// Start two servers and run workloads on both in turn
    Compare(Box<Compare>),
}

/// One workload on a server that already runs.
#[derive(Args)]
pub(crate) struct Single<W: Args> {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(flatten)]
    pub(crate) workload: W,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct Common {
    /// Where the server listens; connections are spread over several
    #[arg(long, value_delimiter = ',', default_value = "127.0.0.1:2379")]
    endpoints: Vec<Endpoint>,

    /// Concurrent callers
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    clients: u32,

    /// HTTP/2 connections the callers share [default: one for 16 clients, as many to each endpoint]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    connections: Option<u32>,

    /// Requests after which the run ends
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    total: Option<u64>,

    /// Time after which the run ends [default: 10s; 10m with --total]
    #[arg(long, value_parser = duration)]
    duration: Option<Duration>,

    /// Send for so long before measuring
    #[arg(long, default_value = "0s", value_parser = duration)]
    warmup: Duration,

    /// Requests per second over all clients; latency then counts from when a request was due
    #[arg(long, value_parser = rate)]
    rate: Option<f64>,

    #[command(flatten)]
    pub(crate) data: Data,

    /// Process of the server, to measure its CPU time and memory; may be repeated, numbers are summed
    #[arg(long, value_delimiter = ',')]
    server_pid: Vec<u32>,

    /// Share of failed requests above which the exit code is 1
    #[arg(long, default_value_t = 0.001)]
    pub(crate) max_error_share: f64,

    /// Threads of the load generator
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub(crate) threads: u32,

    /// Print one JSON object instead of a table
    #[arg(long)]
    pub(crate) json: bool,

    /// No progress bar
    #[arg(long)]
    quiet: bool,
}

/// Which keys and values.
#[derive(Args, Clone, Debug)]
pub(crate) struct Data {
    /// Number of different keys
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    pub(crate) keys: u64,

    /// Bytes of a key
    #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(crate) key_size: u32,

    /// What all keys start with
    #[arg(long, default_value = "bench/")]
    pub(crate) key_prefix: String,

    /// Bytes of a value
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(0..=100_000_000))]
    pub(crate) value_size: u32,

    /// Chooses the random keys and values
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
}

impl Data {
    pub(crate) fn key_space(&self, count: u64) -> Result<Keys, String> {
        Keys::new(&self.key_prefix, self.key_size as usize, count)
    }
}

impl Common {
    pub(crate) fn session(&self, stop: Stop) -> Result<Session, String> {
        let clients = self.clients as usize;
        let default = if self.total.is_some() { DURATION_WITH_TOTAL } else { DURATION_DEFAULT };
        Ok(Session {
            endpoints: self.endpoints.clone(),
            load: Load {
                clients,
                connections: self
                    .connections
                    .map_or_else(|| connections_for(clients, self.endpoints.len()), |n| n as usize),
                limit: Limit {
                    total: self.total,
                    duration: self.duration.unwrap_or(default),
                    warmup: self.warmup,
                    rate: self.rate,
                },
                seed: self.data.seed,
            },
            keys: self.data.key_space(self.data.keys)?,
            value_size: self.data.value_size as usize,
            server_pids: self.server_pid.clone(),
            progress: if self.quiet { Progress::Hidden } else { Progress::Shown },
            stop,
        })
    }
}

impl Command {
    /// Splits a single workload into what is common and what is its own; `compare` is neither.
    pub(crate) fn into_single(self) -> Result<(Common, Workload), Box<Compare>> {
        Ok(match self {
            Self::Put(single) => (single.common, Workload::Put(single.workload)),
            Self::Range(single) => (single.common, Workload::Range(single.workload)),
            Self::Txn(single) => (single.common, Workload::Txn(single.workload)),
            Self::Lease(single) => (single.common, Workload::Lease(single.workload)),
            Self::Keepalive(single) => (single.common, Workload::Keepalive(single.workload)),
            Self::Watch(single) => (single.common, Workload::Watch(single.workload)),
            Self::Expiry(single) => (single.common, Workload::Expiry(single.workload)),
            Self::MassExpiry(single) => (single.common, Workload::MassExpiry(single.workload)),
            Self::Registry(single) => (single.common, Workload::Registry(single.workload)),
            Self::Lock(single) => (single.common, Workload::Lock(single.workload)),
            Self::Idle(single) => (single.common, Workload::Idle(single.workload)),
            Self::Load(single) => (single.common, Workload::Load(single.workload)),
            Self::Compare(compare) => return Err(compare),
        })
    }
}

/// `500ms`, `5s`, `2m` or `1h`, at most a day.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (amount, unit) = text.split_at(digits);
    let seconds = match unit {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err("write a number and a unit: 500ms, 5s, 2m or 1h".to_owned()),
    };
    let amount = amount.parse::<f64>().map_err(|e| e.to_string())?;
    let duration = Duration::try_from_secs_f64(amount * seconds).map_err(|e| e.to_string())?;
    if duration > DURATION_MAX { Err("at most 24h".to_owned()) } else { Ok(duration) }
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate > 0.0 && rate <= 1e9 => Ok(rate),
        _ => Err("a number above 0".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_flags_are_consistent() {
        Flags::command().debug_assert();
    }

    #[test]
    fn durations_need_a_unit_and_have_a_bound() {
        for (text, ms) in
            [("500ms", 500), ("5s", 5000), ("1.5s", 1500), ("2m", 120_000), ("24h", 86_400_000), ("0s", 0)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "5", "s", "5 s", "25h", "-1s", "1.2.3s", "NaNs", "5d"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn rates_are_above_zero() {
        assert_eq!(rate("0.5"), Ok(0.5));
        for text in ["0", "-1", "NaN", "inf", "x"] {
            assert!(rate(text).is_err(), "{text}");
        }
    }

    #[test]
    fn every_workload_parses_with_its_defaults() {
        for name in [
            "put",
            "range",
            "txn",
            "lease",
            "keepalive",
            "watch",
            "expiry",
            "mass-expiry",
            "registry",
            "lock",
            "idle",
            "load",
        ] {
            let flags = Flags::try_parse_from(["tenure-bench", name]).unwrap();
            let (common, _) = flags.command.into_single().ok().unwrap();
            assert_eq!((common.clients, common.data.value_size), (64, 256));
        }
        assert!(Flags::try_parse_from(["tenure-bench", "put", "--clients", "0"]).is_err());
        assert!(Flags::try_parse_from(["tenure-bench", "put", "--endpoints", "https://x:1"]).is_err());
    }
}
