//! Compare-and-swap: a transaction that writes a key if its modification revision (or version) is what the caller last knew,
//! and else reads it. Each caller has a key of its own, where every swap must succeed, or all share a few, where they race.

use bytes::Bytes;
use clap::{Args, ValueEnum};
use rand::RngExt;
use rand::rngs::SmallRng;
use tenure_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use tenure_proto::etcdserverpb::{
    Compare, PutRequest, RangeRequest, RequestOp, TxnRequest, TxnResponse, request_op, response_op,
};

use crate::data::{Keys, Values};
use crate::failure::Failure;
use crate::grpc::{Method, decode};
use crate::outcome::{Metric, Outcome};
use crate::run::{Caller, Turn};
use crate::session::Session;
use crate::workload::TXN;

#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Txn {
    /// Let all clients race for so many shared keys; 0 gives each client its own key
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=1_000_000))]
    pub(crate) shared: u64,

    /// What is compared
    #[arg(long, value_enum, default_value_t = By::Mod)]
    pub(crate) compare: By,
}

/// What a transaction compares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum By {
    /// The modification revision
    #[default]
    Mod,
    /// The version: writes since the key was created
    Version,
}

impl Txn {
    pub(crate) async fn run(&self, session: &Session) -> Result<Outcome, Failure> {
        let (keys_needed, available) = (self.shared.max(1) + session.load.clients as u64, session.keys.count);
        if keys_needed > available.saturating_add(1) {
            return Err(Failure::setup(format!(
                "{available} keys are too few, use --keys {keys_needed} or more"
            )));
        }
        let (connections, values) = (session.connect().await?, session.values());
        let callers = session.callers(&connections, |connection, n| {
            let (first, count) = if self.shared == 0 { (n as u64, 1) } else { (0, self.shared) };
            Swapper {
                method: connection.method(TXN),
                keys: session.keys.clone(),
                values: values.clone(),
                random: session.random(n),
                compare: self.compare,
                first,
                known: vec![0; count as usize],
            }
        });
        let measured = session.drive("txn", callers).await?;
        let name = if self.shared == 0 { "txn".to_owned() } else { format!("txn-shared-{}", self.shared) };
        let (swapped, all) = (measured.counts.count(SWAPPED), measured.counts.all().len());
        let mut outcome = Outcome::of_requests(session, name, measured);
        outcome.facts.push(Metric::neither(
            "swapped",
            "% of txns",
            swapped as f64 * 100.0 / all.max(1) as f64,
        ));
        Ok(outcome)
    }
}

const SWAPPED: &str = "swapped";
const REFUSED: &str = "refused";

struct Swapper {
    method: Method,
    keys: Keys,
    values: Values,
    random: SmallRng,
    compare: By,
    first: u64,
    /// The modification revision or version last seen of each of this caller's keys; 0 is a key that does not exist.
    known: Vec<i64>,
}

impl Caller for Swapper {
    async fn step(&mut self, _: Turn) -> Result<&'static str, Failure> {
        let at = if self.known.len() == 1 { 0 } else { self.random.random_range(0..self.known.len()) };
        let key = self.keys.key(self.first + at as u64);
        let value = self.values.random(&mut self.random);
        let answer = self.method.call(&swap(self.compare, key, self.known[at], value)).await?;
        let answer: TxnResponse = decode(answer)?;
        if answer.succeeded {
            self.known[at] = match self.compare {
                By::Mod => answer.header.map_or(0, |header| header.revision),
                By::Version => self.known[at] + 1,
            };
            return Ok(SWAPPED);
        }
        self.known[at] = current(self.compare, answer)?;
        Ok(REFUSED)
    }
}

fn swap(compare: By, key: Bytes, known: i64, value: Bytes) -> TxnRequest {
    let (target, union) = match compare {
        By::Mod => (CompareTarget::Mod, TargetUnion::ModRevision(known)),
        By::Version => (CompareTarget::Version, TargetUnion::Version(known)),
    };
    let compare = Compare {
        result: CompareResult::Equal.into(),
        target: target.into(),
        key: key.clone(),
        target_union: Some(union),
        ..Default::default()
    };
    let put = PutRequest { key: key.clone(), value, ..Default::default() };
    let read = RangeRequest { key, ..Default::default() };
    TxnRequest {
        compare: vec![compare],
        success: vec![RequestOp { request: Some(request_op::Request::RequestPut(put)) }],
        failure: vec![RequestOp { request: Some(request_op::Request::RequestRange(read)) }],
    }
}

/// What the refused transaction read instead.
fn current(compare: By, answer: TxnResponse) -> Result<i64, Failure> {
    match answer.responses.into_iter().next().and_then(|op| op.response) {
        Some(response_op::Response::ResponseRange(range)) => {
            Ok(range.kvs.first().map_or(0, |kv| match compare {
                By::Mod => kv.mod_revision,
                By::Version => kv.version,
            }))
        }
        _ => Err(Failure::wrong("a refused transaction did not answer its read")),
    }
}
