//! Puts of random keys of the key space, or of one key after the other.

use clap::Args;
use rand::rngs::SmallRng;
use tenure_proto::etcdserverpb::PutRequest;

use crate::data::{Keys, Values};
use crate::failure::Failure;
use crate::grpc::{Connection, Method};
use crate::outcome::Outcome;
use crate::run::{Caller, Turn};
use crate::session::Session;
use crate::workload::PUT;

#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Put {
    /// Write the keys in order, round the key space, instead of random ones
    #[arg(long)]
    pub(crate) sequential: bool,
}

impl Put {
    pub(crate) async fn run(&self, session: &Session) -> Result<Outcome, Failure> {
        let (connections, values) = (session.connect().await?, session.values());
        let callers = session.callers(&connections, |connection, n| {
            Putter::new(session, connection, n, values.clone(), self.sequential)
        });
        let measured = session.drive("put", callers).await?;
        Ok(Outcome::of_requests(session, if self.sequential { "put-sequential" } else { "put" }, measured))
    }
}

pub(crate) struct Putter {
    method: Method,
    keys: Keys,
    values: Values,
    random: SmallRng,
    sequential: bool,
}

impl Putter {
    /// Caller number `n` of the session.
    pub(crate) fn new(
        session: &Session,
        connection: &Connection,
        n: usize,
        values: Values,
        sequential: bool,
    ) -> Self {
        let (keys, random) = (session.keys.clone(), session.random(n));
        Self { method: connection.method(PUT), keys, values, random, sequential }
    }
}

impl Caller for Putter {
    async fn step(&mut self, turn: Turn) -> Result<&'static str, Failure> {
        let key =
            if self.sequential { self.keys.key(turn.number) } else { self.keys.random(&mut self.random) };
        let value = self.values.random(&mut self.random);
        self.method.call(&PutRequest { key, value, ..Default::default() }).await?;
        Ok("put")
    }
}
