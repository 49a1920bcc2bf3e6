//! The way in for changes: bounds what is under way, then has it committed and applied. A write that fails here after it
//! was proposed is unknown, never "did not happen".

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tenure_proto::internal::Command;
use tenure_state::{Response, Revision};

use super::error::Error;
use crate::raft::{Consensus, Proposal, Unavailable};

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
    pub fn new(consensus: Consensus, limits: Limits) -> Writer {
        Writer { consensus, limits, under_way: Arc::default() }
    }

    pub async fn write(&self, command: Command) -> Result<Written, Error> {
        let proposal = Proposal::new(command);
        if proposal.0.len() > self.limits.request_bytes_max {
            return Err(Error::TooLarge);
        }
        let admitted = self.admit(proposal.0.len())?;
        self.propose(proposal, admitted).await
    }

    /// A command of the cluster itself: few, bounded by whoever makes them, and needed most when clients ask too much.
    pub async fn write_own(&self, command: Command) -> Result<Written, Error> {
        let proposal = Proposal::new(command);
        let counted = Admitted::count(&self.under_way, proposal.0.len());
        self.propose(proposal, counted).await
    }

    async fn propose(&self, proposal: Proposal, admitted: Admitted) -> Result<Written, Error> {
        let proposed = self.consensus.propose(proposal, Box::new(admitted));
        let reply = match tokio::time::timeout(self.limits.timeout, proposed).await {
            Ok(Ok(reply)) => reply,
            Ok(Err(unavailable)) => return Err(self.failed(unavailable)),
            Err(_) => return Err(self.failed(Unavailable::TimedOut)),
        };
        Ok(Written { response: reply.answer?, revision: reply.revision })
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
        unavailable.into()
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
