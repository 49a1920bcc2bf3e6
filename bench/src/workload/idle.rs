//! Leases or watchers held open without any traffic: what each costs the server in memory, and what all cost in CPU time.

use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::{Args, ValueEnum};
use tenure_proto::etcdserverpb::{LeaseTimeToLiveRequest, LeaseTimeToLiveResponse};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::failure::Failure;
use crate::flags::duration;
use crate::grpc::{Connection, decode};
use crate::outcome::{MIB, Metric, Outcome};
use crate::process::Sample;
use crate::run::Measured;
use crate::session::Session;
use crate::span::{Meter, Span};
use crate::tally::Counts;
use crate::workload::watch::Stream;
use crate::workload::{LEASE_TIME_TO_LIVE, lease};

/// Longer than any run, so that no lease needs a renewal.
const TTL_S: i64 = 7 * 24 * 3600;

#[derive(Args, Clone, Debug)]
pub(crate) struct Idle {
    /// What is held open
    #[arg(long, value_enum, default_value_t = What::Leases)]
    pub(crate) what: What,

    /// How many
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub(crate) count: u32,

    /// Streams the watchers are spread over [default: one per connection]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) streams: Option<u32>,

    /// How long they are held before memory is read
    #[arg(long, default_value = "5s", value_parser = duration)]
    pub(crate) hold: Duration,
}

/// What an idle client may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum What {
    Leases,
    Watchers,
}

impl Idle {
    pub(crate) async fn run(&self, session: &Session) -> Result<Outcome, Failure> {
        let connections = session.connect().await?;
        let before = Sample::of(&session.server_pids)?;
        let span = match self.what {
            What::Leases => self.hold_leases(session, &connections).await?,
            What::Watchers => self.hold_watchers(session, &connections).await?,
        };
        let name = if self.what == What::Leases { "idle-leases" } else { "idle-watchers" };
        let mut outcome = Outcome::of_requests(session, name, Measured { counts: Counts::default(), span });
        outcome.operations = u64::from(self.count);
        outcome.unit = "held";
        outcome.has_throughput = false;
        if let Some(server) = span.server {
            let grown = server.rss_bytes as f64 - before.rss_bytes as f64;
            let cores = server.cpu.as_secs_f64() / span.elapsed.as_secs_f64();
            outcome.facts = vec![
                Metric::lower("RSS before", "MiB", before.rss_bytes as f64 / MIB),
                Metric::lower("RSS held", "MiB", server.rss_bytes as f64 / MIB),
                Metric::lower("RSS for each", "bytes", grown / f64::from(self.count)),
                Metric::lower("CPU held", "% of a core", cores * 100.0),
            ];
        }
        Ok(outcome)
    }

    async fn hold_leases(&self, session: &Session, connections: &[Connection]) -> Result<Span, Failure> {
        let ids = lease::grant_many(session, connections, self.count as usize, TTL_S).await?;
        let span = self.hold(session, JoinSet::new()).await?;
        let mut time_to_live = connections[0].method(LEASE_TIME_TO_LIVE);
        for id in [ids.first(), ids.last()].into_iter().flatten() {
            let request = LeaseTimeToLiveRequest { id: *id, keys: false };
            let left: LeaseTimeToLiveResponse = decode(time_to_live.call(&request).await?)?;
            if left.ttl <= 0 {
                return Err(Failure::wrong(format!("lease {id:x} is gone before its time")));
            }
        }
        lease::revoke_many(session, connections, ids).await?;
        Ok(span)
    }

    async fn hold_watchers(&self, session: &Session, connections: &[Connection]) -> Result<Span, Failure> {
        let count = self.count as usize;
        let streams = self.streams.map_or(connections.len(), |streams| streams as usize).min(count);
        let mut held = JoinSet::new();
        for n in 0..streams {
            let keys =
                (n..count).step_by(streams).map(|number| (session.keys.key(number as u64), Bytes::new()));
            let mut stream = Stream::open(&connections[n % connections.len()], keys).await?;
            held.spawn(async move {
                loop {
                    if let Err(failure) = stream.next().await {
                        return failure;
                    }
                }
            });
        }
        self.hold(session, held).await
    }

    /// Waits, and measures the waiting. A stream that ends meanwhile is an error.
    async fn hold(&self, session: &Session, mut streams: JoinSet<Failure>) -> Result<Span, Failure> {
        let bar = session.progress.start("holding", None, self.hold);
        let meter = Meter::begin(Instant::now(), &session.server_pids)?;
        tokio::select! {
            () = sleep(self.hold) => {}
            () = session.stop.wait() => {}
            Some(ended) = streams.join_next() => return Err(ended.unwrap_or_else(|e| Failure::setup(e.to_string()))),
        }
        drop(bar);
        meter.end()
    }
}
