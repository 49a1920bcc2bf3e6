//! Very many leases that run out together, as when a site full of holders goes dark, beside puts and gets of others at a steady
//! rate: how much slower those get, how late the last lease goes, and how many log entries the removal takes.
//!
//! Granting takes long, so all leases are renewed in one burst afterwards, from which their time counts; the steady load is
//! measured from there until the first is due (*before*), and from then until the last is gone (*during*). Between the two no
//! request is unanswered: what the log grew by, less the puts, is the cluster's own doing.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use clap::Args;
use rand::rngs::SmallRng;
use tenure_proto::etcdserverpb::{LeaseKeepAliveRequest, LeaseKeepAliveResponse, PutRequest, RangeRequest};
use tokio::task::JoinSet;

use crate::data::{Keys, Values};
use crate::failure::Failure;
use crate::grpc::{Connection, Method, decode};
use crate::outcome::{Metric, Outcome};
use crate::run::{Caller, Limit, Measured, Run, Turn};
use crate::session::Session;
use crate::status;
use crate::workload::expiry::{Granted, Verdict, grant_with_keys, note_deletions};
use crate::workload::watch::Stream;
use crate::workload::{LEASE_KEEP_ALIVE, PUT, RANGE};

/// Requests of others per second unless `--rate` says otherwise.
const RATE_DEFAULT: f64 = 2000.0;
/// Unanswered renewals of one stream in the burst.
const WINDOW: usize = 256;
/// The steady load must have been measured for so long before the first lease is due.
const BEFORE_MIN: Duration = Duration::from_secs(2);
/// How long before the first lease is due the log is looked at.
const AHEAD: Duration = Duration::from_millis(200);
/// Keys of the others: apart from those that go with the leases.
const OTHERS_PREFIX: &str = "~others/";

#[derive(Args, Clone, Debug)]
pub(crate) struct MassExpiry {
    /// Leases, each with a key
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub(crate) leases: u64,

    /// Time to live of the leases in seconds; granting them all must take less
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(i64).range(5..=3600))]
    pub(crate) ttl: i64,

    /// Seconds after the last lease was due until the missing ones count as never expired
    #[arg(long, default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) patience: u64,
}

impl Default for MassExpiry {
    fn default() -> Self {
        Self { leases: 100_000, ttl: 60, patience: 120 }
    }
}

impl MassExpiry {
    pub(crate) async fn run(&self, session: &Session) -> Result<Outcome, Failure> {
        let connections = session.connect().await?;
        let keys = session.keys.resized(self.leases).map_err(Failure::setup)?;
        let size = session.keys.key(0).len();
        let others = Keys::new(OTHERS_PREFIX, size, session.keys.count).map_err(Failure::setup)?;
        let stream = Stream::open(&connections[0], std::iter::once(keys.all())).await?;
        let deletions = Arc::new(Mutex::new(vec![None; self.leases as usize]));
        let mut noting = JoinSet::new();
        noting.spawn(note_deletions(stream, keys.clone(), deletions.clone()));
        let granted = grant_with_keys(session, &connections, &keys, self.ttl).await?;
        let renewed = renew_all(&connections, &granted).await?;
        let ends = |granted: &Granted| granted.sent + granted.ttl;
        let first = renewed.iter().map(ends).min().unwrap_or_else(Instant::now) - AHEAD;
        let last = renewed.iter().map(ends).max().unwrap_or_else(Instant::now);

        let start = status::log_end(&session.endpoints).await?.0;
        let before = first.saturating_duration_since(Instant::now());
        if before < BEFORE_MIN {
            return Err(Failure::setup("the leases are due as soon as they are renewed: use a longer --ttl"));
        }
        let load = Load { session, connections: &connections, keys: &others };
        let calm =
            load.drive("before", ["put before", "get before"], before, std::future::pending::<()>()).await?;
        let middle = status::log_end(&session.endpoints).await?.0;
        let patience = last.saturating_duration_since(Instant::now()) + Duration::from_secs(self.patience);
        let all_gone = async { noting.join_next().await };
        let storm = load.drive("during", ["put", "get"], patience, all_gone).await?;
        let end = status::log_end(&session.endpoints).await?.0;
        let deletions = deletions.lock().expect("nothing panics while noting a deletion").clone();
        let verdict = Verdict::of(&renewed, &deletions);

        let entries = |from: u64, to: u64, puts: &str, measured: &Measured| {
            to as f64 - from as f64 - measured.counts.count(puts) as f64
        };
        let counting = entries(start, middle, "put before", &calm);
        let removing = entries(middle, end, "put", &storm);
        let over = deletions.iter().flatten().max().map(|last| last.saturating_duration_since(first + AHEAD));
        let p99 = calm.counts.all().value_at_quantile(0.99) as f64 / 1000.0;
        let mut outcome = Outcome::of_requests(session, "mass-expiry", storm);
        // The load is as heavy as was asked for; only its latency says something.
        outcome.has_throughput = false;
        let during = outcome.latency.value_at_quantile(0.99) as f64 / 1000.0;
        outcome.errors.merge(calm.counts.errors.clone());
        outcome.kinds.extend(calm.counts.kinds);
        outcome.facts = vec![
            Metric::neither("leases", "", self.leases as f64),
            Metric::lower("p99 before", "ms", p99),
            Metric::lower("p99 during", "ms", during),
            Metric::lower("first due to last gone", "ms", over.unwrap_or_default().as_secs_f64() * 1000.0),
            Metric::lower("last late", "ms", verdict.lateness.all().max() as f64 / 1000.0),
            Metric::lower("log entries to remove them", "", removing),
            Metric::lower("log entries to count them", "", counting),
        ];
        verdict.complain(session, self.patience, &mut outcome);
        Ok(outcome)
    }
}

/// Renews all leases as fast as the server answers, and notes when each counts from.
async fn renew_all(connections: &[Connection], granted: &[Granted]) -> Result<Vec<Granted>, Failure> {
    let mut streams = JoinSet::new();
    for (n, connection) in connections.iter().enumerate() {
        let mine: Vec<_> = granted.iter().copied().enumerate().skip(n).step_by(connections.len()).collect();
        streams.spawn(renew(connection.method(LEASE_KEEP_ALIVE), mine));
    }
    let mut renewed = granted.to_vec();
    while let Some(stream) = streams.join_next().await {
        let stream = stream.map_err(|e| Failure::setup(e.to_string()))??;
        stream.into_iter().for_each(|(place, lease)| renewed[place] = lease);
    }
    Ok(renewed)
}

async fn renew(mut method: Method, mine: Vec<(usize, Granted)>) -> Result<Vec<(usize, Granted)>, Failure> {
    if mine.is_empty() {
        return Ok(mine);
    }
    let (mut out, mut incoming) = method.open().await?;
    let (mut unanswered, mut renewed) = (HashMap::new(), Vec::with_capacity(mine.len()));
    let mut waiting = mine.iter();
    while renewed.len() < mine.len() {
        while unanswered.len() < WINDOW {
            let Some((place, lease)) = waiting.next() else { break };
            out.send(&LeaseKeepAliveRequest { id: lease.id })?;
            unanswered.insert(lease.id, (*place, Instant::now()));
        }
        let ended = || Failure::disconnected("the server ended the keepalive stream");
        let answer: LeaseKeepAliveResponse = decode(incoming.next().await?.ok_or_else(ended)?)?;
        let Some((place, sent)) = unanswered.remove(&answer.id) else {
            return Err(Failure::wrong(format!("an answer for lease {:x}, which was not asked", answer.id)));
        };
        if answer.ttl <= 0 {
            return Err(Failure::setup("a lease was gone before all were granted: use a longer --ttl"));
        }
        let (answered, ttl) = (Instant::now(), Duration::from_secs(answer.ttl.unsigned_abs()));
        renewed.push((place, Granted { id: answer.id, sent, answered, ttl }));
    }
    Ok(renewed)
}

/// The puts and gets of others.
struct Load<'a> {
    session: &'a Session,
    connections: &'a [Connection],
    keys: &'a Keys,
}

impl Load<'_> {
    /// Keeps the load up for `duration`, or until `done`.
    async fn drive<T>(
        &self,
        label: &'static str,
        kinds: [&'static str; 2],
        duration: Duration,
        done: impl Future<Output = T>,
    ) -> Result<Measured, Failure> {
        let rate = self.session.load.limit.rate.or(Some(RATE_DEFAULT));
        let limit = Limit { total: None, duration, warmup: Duration::ZERO, rate };
        let values = self.session.values();
        let run = Run::begin(self.session, label, limit);
        let tasks = run.spawn(self.session.callers(self.connections, |connection, n| Other {
            put: connection.method(PUT),
            range: connection.method(RANGE),
            keys: self.keys.clone(),
            values: values.clone(),
            random: self.session.random(n),
            kinds,
        }));
        let finishing = run.finish(tasks, async {});
        tokio::pin!(finishing);
        tokio::select! {
            measured = &mut finishing => measured,
            _ = done => {
                run.end();
                finishing.await
            }
        }
    }
}

/// Puts and gets in turn.
struct Other {
    put: Method,
    range: Method,
    keys: Keys,
    values: Values,
    random: SmallRng,
    kinds: [&'static str; 2],
}

impl Caller for Other {
    async fn step(&mut self, turn: Turn) -> Result<&'static str, Failure> {
        let key = self.keys.random(&mut self.random);
        if turn.number.is_multiple_of(2) {
            let value = self.values.random(&mut self.random);
            self.put.call(&PutRequest { key, value, ..Default::default() }).await?;
            Ok(self.kinds[0])
        } else {
            self.range.call(&RangeRequest { key, ..Default::default() }).await?;
            Ok(self.kinds[1])
        }
    }
}
