//! Renewals of many leases over few streams. Each stream keeps a window of renewals unanswered, as clients with many leases do.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use clap::Args;
use tenure_proto::etcdserverpb::{LeaseKeepAliveRequest, LeaseKeepAliveResponse};
use tokio::task::JoinSet;

use crate::failure::Failure;
use crate::grpc::{Incoming, Outgoing, decode};
use crate::outcome::Outcome;
use crate::run::{Run, Turn};
use crate::session::Session;
use crate::workload::{LEASE_KEEP_ALIVE, lease};

#[derive(Args, Clone, Debug)]
pub(crate) struct Keepalive {
    /// Leases renewed in turn
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) leases: u32,

    /// Streams the leases are spread over [default: one per connection]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) streams: Option<u32>,

    /// Renewals a stream leaves unanswered at most
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) window: u32,

    /// Time to live of the leases in seconds
    #[arg(long, default_value_t = 600, value_parser = clap::value_parser!(i64).range(1..=1_000_000_000))]
    pub(crate) ttl: i64,
}

impl Default for Keepalive {
    fn default() -> Self {
        Self { leases: 1000, streams: None, window: 16, ttl: 600 }
    }
}

impl Keepalive {
    pub(crate) async fn run(&self, session: &Session) -> Result<Outcome, Failure> {
        let connections = session.connect().await?;
        let leases = lease::grant_many(session, &connections, self.leases as usize, self.ttl).await?;
        let streams =
            self.streams.map_or(session.load.connections, |streams| streams as usize).min(leases.len());

        let mut renewers = Vec::with_capacity(streams);
        for n in 0..streams {
            let mine = leases.iter().skip(n).step_by(streams).copied().collect();
            let (out, incoming) = connections[n % connections.len()].method(LEASE_KEEP_ALIVE).open().await?;
            renewers.push(Renewer::new(out, incoming, mine, self.window as usize));
        }

        let run = Run::begin(session, "keepalive", session.load.limit.clone());
        let mut tasks = JoinSet::new();
        for (lane, renewer) in renewers.into_iter().enumerate() {
            let run = run.clone();
            tasks.spawn(async move {
                if let Err(failure) = renewer.renew(&run, lane).await {
                    run.fail(lane, &failure);
                }
            });
        }
        let measured = run.finish(tasks, async {}).await?;
        lease::revoke_many(session, &connections, leases).await?;
        let mut outcome = Outcome::of_requests(session, "keepalive", measured);
        outcome.unit = "renewals";
        Ok(outcome)
    }
}

/// One stream and its leases.
struct Renewer {
    out: Outgoing,
    incoming: Incoming,
    leases: Vec<i64>,
    places: HashMap<i64, usize>,
    /// When the unanswered renewal of each lease was due.
    due: Vec<Option<Instant>>,
    unanswered: usize,
    window: usize,
    next: usize,
}

impl Renewer {
    fn new(out: Outgoing, incoming: Incoming, leases: Vec<i64>, window: usize) -> Self {
        Self {
            out,
            incoming,
            places: leases.iter().enumerate().map(|(place, id)| (*id, place)).collect(),
            due: vec![None; leases.len()],
            unanswered: 0,
            window: window.min(leases.len()),
            next: 0,
            leases,
        }
    }

    async fn renew(mut self, run: &Arc<Run>, lane: usize) -> Result<(), Failure> {
        let (mut turn, mut over) = (None, false);
        loop {
            if turn.is_none() && !over && self.unanswered < self.window {
                turn = run.turn();
                over = turn.is_none();
            }
            if over && self.unanswered == 0 {
                return Ok(());
            }
            tokio::select! {
                biased;
                answer = self.incoming.next(), if self.unanswered > 0 => {
                    let answer = answer?.ok_or_else(|| Failure::disconnected("the server ended the keepalive stream"))?;
                    self.answered(decode(answer)?, run, lane);
                }
                () = wait(run, turn), if turn.is_some() => {
                    turn.take().map_or(Ok(()), |turn| self.send(turn))?;
                }
            }
        }
    }

    /// Renews the next lease that has no renewal unanswered; the window leaves at least one.
    fn send(&mut self, turn: Turn) -> Result<(), Failure> {
        while self.due[self.next].is_some() {
            self.next = (self.next + 1) % self.leases.len();
        }
        self.due[self.next] = Some(turn.due);
        self.unanswered += 1;
        self.out.send(&LeaseKeepAliveRequest { id: self.leases[self.next] })
    }

    fn answered(&mut self, answer: LeaseKeepAliveResponse, run: &Run, lane: usize) {
        let due = self.places.get(&answer.id).and_then(|place| self.due[*place].take());
        let Some(due) = due else {
            return run.fail(
                lane,
                &Failure::wrong(format!("an answer for lease {:x}, which was not asked", answer.id)),
            );
        };
        self.unanswered -= 1;
        if answer.ttl > 0 {
            run.record(lane, "renewal", due);
        } else {
            run.fail(lane, &Failure::wrong(format!("lease {:x} is gone before its time", answer.id)));
        }
    }
}

async fn wait(run: &Run, turn: Option<Turn>) {
    if let Some(turn) = turn {
        run.wait_until_due(turn).await;
    }
}
