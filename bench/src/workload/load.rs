//! Fills the key space, many keys to a request: to measure loading, restart time and memory, or before reads.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clap::Args;
use rand::rngs::SmallRng;
use tenure_proto::etcdserverpb::{PutRequest, RequestOp, TxnRequest, request_op};

use crate::data::{Keys, Values};
use crate::failure::Failure;
use crate::grpc::{Connection, Method};
use crate::outcome::Outcome;
use crate::run::{Caller, Run, Turn};
use crate::session::Session;
use crate::workload::{PUT, TXN};

/// Puts in one transaction that etcd accepts as it is installed.
const BATCH_MAX: u64 = 128;
/// Bytes of keys and values in one request: below the 1.5 MiB that etcd accepts as it is installed.
const BATCH_BYTES_MAX: u64 = 1 << 20;

#[derive(Args, Clone, Debug)]
pub(crate) struct Load {
    /// Keys written by one request; above 1 it is a transaction of puts
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=BATCH_MAX))]
    pub(crate) batch: u64,
}

impl Default for Load {
    fn default() -> Self {
        Self { batch: 100 }
    }
}

impl Load {
    /// Writes each key once. `--total` and `--duration` may cut it short.
    pub(crate) async fn run(&self, session: &Session) -> Result<Outcome, Failure> {
        let connections = session.connect().await?;
        let batch = bounded(self.batch, session);
        let requests = session.keys.count.div_ceil(batch);
        let mut limit = session.load.limit.clone();
        limit.total = Some(limit.total.unwrap_or(u64::MAX).min(requests));
        limit.warmup = Duration::ZERO;

        let (values, written) = (session.values(), Arc::new(AtomicU64::new(0)));
        let callers = session.callers(&connections, |connection, n| {
            Filler::new(session, connection, n, batch, values.clone(), written.clone())
        });
        let run = Run::begin(session, "load", limit);
        let tasks = run.spawn(callers);
        let mut outcome = Outcome::of_requests(session, "load", run.finish(tasks, async {}).await?);
        outcome.operations = written.load(Ordering::Relaxed);
        outcome.unit = "keys";
        Ok(outcome)
    }
}

/// Writes each key of the session once.
pub(crate) async fn fill(session: &Session, connections: &[Connection]) -> Result<(), Failure> {
    let batch = bounded(Load::default().batch, session);
    let (values, written) = (session.values(), Arc::new(AtomicU64::new(0)));
    let make = |connection: &Connection, n| {
        Filler::new(session, connection, n, batch, values.clone(), written.clone())
    };
    session.prepare("filling", session.keys.count.div_ceil(batch), connections, make).await.map(drop)
}

fn bounded(batch: u64, session: &Session) -> u64 {
    let pair_bytes = (session.keys.key(0).len() + session.value_size) as u64;
    batch.min(BATCH_BYTES_MAX / pair_bytes).max(1)
}

struct Filler {
    put: Method,
    txn: Method,
    keys: Keys,
    values: Values,
    random: SmallRng,
    batch: u64,
    written: Arc<AtomicU64>,
}

impl Filler {
    fn new(
        session: &Session,
        connection: &Connection,
        n: usize,
        batch: u64,
        values: Values,
        written: Arc<AtomicU64>,
    ) -> Self {
        Self {
            put: connection.method(PUT),
            txn: connection.method(TXN),
            keys: session.keys.clone(),
            values,
            random: session.random(n),
            batch,
            written,
        }
    }

    fn pair(&mut self, number: u64) -> PutRequest {
        PutRequest {
            key: self.keys.key(number),
            value: self.values.random(&mut self.random),
            ..Default::default()
        }
    }
}

impl Caller for Filler {
    async fn step(&mut self, turn: Turn) -> Result<&'static str, Failure> {
        let first = turn.number * self.batch;
        let end = (first + self.batch).min(self.keys.count);
        let kind = if self.batch == 1 {
            let put = self.pair(first);
            self.put.call(&put).await?;
            "put"
        } else {
            let op = |put| RequestOp { request: Some(request_op::Request::RequestPut(put)) };
            let success = (first..end).map(|number| op(self.pair(number))).collect();
            self.txn.call(&TxnRequest { success, ..Default::default() }).await?;
            "txn"
        };
        self.written.fetch_add(end - first, Ordering::Relaxed);
        Ok(kind)
    }
}
