//! Reads: of one key or of several keys that follow each other, linearizable or serializable.

use clap::Args;
use prost::Message;
use rand::rngs::SmallRng;
use tenure_proto::etcdserverpb::RangeRequest;

use crate::data::Keys;
use crate::failure::Failure;
use crate::grpc::{Method, decode};
use crate::outcome::Outcome;
use crate::run::{Caller, Turn};
use crate::session::Session;
use crate::workload::{RANGE, load};

#[derive(Args, Clone, Debug)]
pub(crate) struct Range {
    /// Read what the asked member has, without asking the leader
    #[arg(long)]
    pub(crate) serializable: bool,

    /// Keys per read, as a prefix read would return
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub(crate) span: u64,

    /// Do not write the key space first; reads that find less are errors
    #[arg(long)]
    pub(crate) no_fill: bool,
}

impl Default for Range {
    fn default() -> Self {
        Self { serializable: false, span: 1, no_fill: false }
    }
}

impl Range {
    pub(crate) async fn run(&self, session: &Session) -> Result<Outcome, Failure> {
        let connections = session.connect().await?;
        if !self.no_fill {
            load::fill(session, &connections).await?;
        }
        let callers = session.callers(&connections, |connection, n| Reader {
            method: connection.method(RANGE),
            keys: session.keys.clone(),
            value_size: session.value_size,
            random: session.random(n),
            range: self.clone(),
        });
        let measured = session.drive("range", callers).await?;
        Ok(Outcome::of_requests(session, self.name(), measured))
    }

    fn name(&self) -> String {
        let consistency = if self.serializable { "range-serializable" } else { "range" };
        if self.span == 1 { consistency.to_owned() } else { format!("{consistency}-{}", self.span) }
    }
}

struct Reader {
    method: Method,
    keys: Keys,
    value_size: usize,
    random: SmallRng,
    range: Range,
}

/// What is decoded of an answer: the number of keys found, not the keys.
#[derive(Clone, PartialEq, Message)]
struct Found {
    #[prost(int64, tag = "4")]
    count: i64,
}

impl Caller for Reader {
    async fn step(&mut self, _: Turn) -> Result<&'static str, Failure> {
        let span = self.range.span.min(self.keys.count);
        let mut request = RangeRequest { serializable: self.range.serializable, ..Default::default() };
        if span == 1 {
            request.key = self.keys.random(&mut self.random);
        } else {
            (request.key, request.range_end) = self.keys.random_span(span, &mut self.random);
        }
        let answer = self.method.call(&request).await?;
        let size = answer.len() as u64;
        let found = decode::<Found>(answer)?.count;
        if found != span as i64 || size < span * self.value_size as u64 {
            return Err(Failure::wrong(format!(
                "{found} keys in {size} bytes where {span} keys were written"
            )));
        }
        Ok("range")
    }
}
