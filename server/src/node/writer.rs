//! The way in for changes: bounds what is under way, then has it committed and applied, here if this member leads, else
//! through the one that does. A write that fails here after it was proposed is unknown, never "did not happen".

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tenure_proto::internal::Command;
use tenure_state::{Response, Revision};

use tokio::sync::watch;

use super::error::Error;
use super::forwarding::Tickets;
use crate::raft::{Consensus, Held, Leadership, Proposal, Reply, Ticket, Unavailable};

/// How long an unhurried command is kept back when no other comes; a timer adds up to a millisecond to it.
const LINGER: Duration = Duration::from_millis(1);

/// What a writer lets through.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Largest command, bytes: `--max-request-bytes`.
    pub request_bytes_max: usize,
    /// Commands proposed and not yet answered; more are refused as too many requests. etcd's bound.
    pub under_way_max: usize,
    /// The bytes of those.
    pub under_way_bytes_max: usize,
    /// How long a proposal may take: etcd's 5 s and two election timeouts.
    pub timeout: Duration,
}

/// A command that was applied and granted.
#[derive(Debug)]
pub struct Written {
    pub response: Response,
    /// The store's revision right after.
    pub revision: Revision,
}

#[derive(Clone)]
pub struct Writer {
    consensus: Consensus,
    leadership: watch::Receiver<Leadership>,
    tickets: Arc<Tickets>,
    limits: Limits,
    under_way: Arc<UnderWay>,
}

#[derive(Default)]
struct UnderWay {
    count: AtomicUsize,
    bytes: AtomicUsize,
    failed: AtomicU64,
}

impl Writer {
    pub fn new(consensus: Consensus, tickets: Arc<Tickets>, limits: Limits) -> Writer {
        let leadership = consensus.leadership();
        Writer { consensus, leadership, tickets, limits, under_way: Arc::default() }
    }

    pub async fn write(&self, command: Command) -> Result<Written, Error> {
        let proposal = Proposal::encode(command, Ticket::BYTES);
        if proposal.len() > self.limits.request_bytes_max {
            return Err(Error::TooLarge);
        }
        let admitted = self.admit(proposal.len())?;
        self.propose(proposal, admitted).await
    }

    /// The same, for a command whose outcome lets its caller not go on yet: where this member leads it is kept back until another
    /// is proposed, or for [`LINGER`]. Where commands come one at a time, each in answer to the one before, that halves the
    /// writes to the disk that stand one behind the other.
    pub async fn write_unhurried(&self, command: Command) -> Result<Written, Error> {
        if self.leadership.borrow().here {
            let _ = tokio::time::timeout(LINGER, self.consensus.company()).await;
        }
        self.write(command).await
    }

    /// A command of the cluster itself: few, bounded by whoever makes them, and needed most when clients ask too much.
    pub async fn write_own(&self, command: Command) -> Result<Written, Error> {
        let proposal = Proposal::encode(command, Ticket::BYTES);
        let counted = Admitted::count(&self.under_way, proposal.len());
        self.propose(proposal, counted).await
    }

    /// A command of this member as the leader, which means nothing in another leadership: never passed on.
    pub async fn write_as_leader(&self, command: Command) -> Result<Written, Error> {
        let proposal = Proposal::encode(command, 0);
        let counted = Admitted::count(&self.under_way, proposal.len());
        self.written(self.propose_here(Proposal(proposal.into()), counted).await)
    }

    async fn propose(&self, proposal: Vec<u8>, admitted: Admitted) -> Result<Written, Error> {
        if !self.leadership.borrow().here {
            return self.written(self.pass_on(proposal, admitted).await);
        }
        let proposal = Proposal(proposal.into());
        let outcome = match self.propose_here(proposal.clone(), admitted).await {
            // Not proposed, so that another may do it.
            Err(Unavailable::NoLeader) => {
                let counted = Admitted::count(&self.under_way, proposal.0.len());
                self.pass_on(proposal.0.to_vec(), counted).await
            }
            outcome => outcome,
        };
        self.written(outcome)
    }

    async fn propose_here(&self, proposal: Proposal, admitted: Admitted) -> Result<Reply, Unavailable> {
        let proposed = self.consensus.propose(proposal, Box::new(admitted));
        tokio::time::timeout(self.limits.timeout, proposed).await.unwrap_or(Err(Unavailable::TimedOut))
    }

    /// Through whoever leads; waits for a leader if there is none. The tickets know when to give up.
    async fn pass_on(&self, proposal: Vec<u8>, admitted: Admitted) -> Result<Reply, Unavailable> {
        let told = self.tickets.add(proposal, Box::new(admitted));
        told.await.unwrap_or(Err(Unavailable::Stopped))
    }

    fn written(&self, outcome: Result<Reply, Unavailable>) -> Result<Written, Error> {
        let reply = outcome.map_err(|unavailable| self.failed(unavailable))?;
        Ok(Written { response: reply.answer?, revision: reply.revision })
    }

    /// A place among those under way for another member's proposal.
    pub(super) fn hold(&self, bytes: usize) -> Result<Held, Unavailable> {
        Ok(Box::new(self.admit(bytes)?))
    }

    pub fn request_bytes_max(&self) -> usize {
        self.limits.request_bytes_max
    }

    /// Proposals that were not answered yet.
    pub fn under_way(&self) -> usize {
        self.under_way.count.load(Ordering::Relaxed)
    }

    /// Proposals that got no answer since this member started.
    pub fn failures(&self) -> u64 {
        self.under_way.failed.load(Ordering::Relaxed)
    }

    fn failed(&self, unavailable: Unavailable) -> Error {
        self.under_way.failed.fetch_add(1, Ordering::Relaxed);
        let now = *self.leadership.borrow();
        match unavailable {
            Unavailable::TimedOut if now.lost && now.leader.is_some() => Unavailable::CutOff.into(),
            unavailable => unavailable.into(),
        }
    }

    fn admit(&self, bytes: usize) -> Result<Admitted, Unavailable> {
        let admitted = Admitted::count(&self.under_way, bytes);
        let full = self.under_way.count.load(Ordering::Relaxed) > self.limits.under_way_max
            || self.under_way.bytes.load(Ordering::Relaxed) > self.limits.under_way_bytes_max;
        if full { Err(Unavailable::Busy) } else { Ok(admitted) }
    }
}

/// A place among those under way, given back when the proposal's outcome is known.
struct Admitted {
    under_way: Arc<UnderWay>,
    bytes: usize,
}

impl Admitted {
    fn count(under_way: &Arc<UnderWay>, bytes: usize) -> Admitted {
        under_way.count.fetch_add(1, Ordering::Relaxed);
        under_way.bytes.fetch_add(bytes, Ordering::Relaxed);
        Admitted { under_way: under_way.clone(), bytes }
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.under_way.count.fetch_sub(1, Ordering::Relaxed);
        self.under_way.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
