//! What a leader does for the other members. Nothing is passed on from here: a member that does not lead says so, or two
//! that take each other for the leader would send a request back and forth.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use parking_lot::Mutex;
use tenure_grpc::internal::forwarding_server::{Forwarding, ForwardingServer};
use tenure_proto::internal::refused_proposal::Reason;
use tenure_proto::internal::*;
use tenure_state::LeaseId;
use tokio::sync::mpsc;
use tonic::{Request, Response, Status, Streaming};

use super::REFUSALS_MAX;
use crate::node::{Error, Leases, ReadIndex, Writer};
use crate::peers::Peers;
use crate::raft::{Consensus, Mandate, Proposal, Ticket};

/// Cloning shares it.
#[derive(Clone)]
pub struct Service {
    parts: Arc<Parts>,
    turns: Arc<Mutex<BTreeMap<u64, Arc<Turn>>>>,
}

/// How many streams of proposals a member has begun. Whoever holds it has the turn: a new stream says where the log ends only
/// when no earlier one is at work, and after that no earlier one proposes anything. Held for a batch or less.
type Turn = tokio::sync::Mutex<u64>;

pub struct Parts {
    pub peers: Peers,
    pub consensus: Consensus,
    pub writer: Writer,
    pub read_index: ReadIndex,
    pub leases: Leases,
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Service {
    pub fn new(parts: Parts) -> Service {
        Service { parts: Arc::new(parts), turns: Arc::default() }
    }

    /// As it is served on the peer port. `message_bytes_max`: the largest batch, which is one proposal if that is large.
    pub fn server(self, message_bytes_max: usize) -> ForwardingServer<Service> {
        ForwardingServer::new(self).max_decoding_message_size(message_bytes_max)
    }

    fn caller<T>(&self, request: &Request<T>) -> Result<u64, Status> {
        Ok(self.parts.peers.caller(request.metadata())?.0)
    }
}

fn unanswered(error: impl Into<Error>) -> Status {
    Status::unavailable(format!("tenure: not answered as leader: {:?}", error.into()))
}

#[tonic::async_trait]
impl Forwarding for Service {
    type ProposeStream = Answers<RefusedProposals>;

    /// Has no task of its own: it is polled by its connection.
    async fn propose(
        &self,
        request: Request<Streaming<ForwardedProposals>>,
    ) -> Result<Response<Self::ProposeStream>, Status> {
        let from = self.caller(&request)?;
        let turn = self.turns.lock().entry(from).or_default().clone();
        let (number, (term, end)) = {
            let mut last = turn.lock().await;
            *last += 1;
            (*last, self.parts.consensus.led_until().await.map_err(unanswered)?)
        };
        let (refuse, refused) = mpsc::channel(REFUSALS_MAX);
        let (parts, batches) = (self.parts.clone(), request.into_inner());
        let proposing = Proposing { parts, from, turn, number, batches, refuse, refused };
        let first = RefusedProposals { earlier_end: Some(end), term, ..RefusedProposals::default() };
        let refusals = stream::unfold(Some(proposing), |proposing| async move {
            let mut proposing = proposing?;
            match proposing.next().await {
                Ok(Some(refused)) => {
                    let refused = RefusedProposals { refused, ..RefusedProposals::default() };
                    Some((Ok(refused), Some(proposing)))
                }
                Ok(None) => None,
                Err(status) => Some((Err(status), None)),
            }
        });
        Ok(Response::new(Box::pin(stream::iter([Ok(first)]).chain(refusals))))
    }

    type ReadIndexStream = Answers<ReadIndexResponse>;

    async fn read_index(
        &self,
        request: Request<Streaming<ReadIndexRequest>>,
    ) -> Result<Response<Self::ReadIndexStream>, Status> {
        self.caller(&request)?;
        let parts = self.parts.clone();
        let answers = request.into_inner().then(move |asked| {
            let parts = parts.clone();
            async move {
                asked?;
                let index = parts.read_index.index_here().await.map_err(unanswered)?;
                Ok(ReadIndexResponse { index })
            }
        });
        Ok(Response::new(Box::pin(answers)))
    }

    type RenewStream = Answers<RenewResponse>;

    async fn renew(
        &self,
        request: Request<Streaming<RenewRequest>>,
    ) -> Result<Response<Self::RenewStream>, Status> {
        self.caller(&request)?;
        let parts = self.parts.clone();
        let answers = request.into_inner().then(move |asked| {
            let parts = parts.clone();
            async move {
                let ids: Vec<LeaseId> = asked?.ids.into_iter().map(LeaseId).collect();
                let ttls = parts.leases.renew_here(&ids).await.map_err(unanswered)?;
                Ok(RenewResponse { ttls: ttls.into_iter().map(|ttl| ttl.unwrap_or(-1)).collect() })
            }
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn renew_patiently(
        &self,
        request: Request<RenewRequest>,
    ) -> Result<Response<RenewResponse>, Status> {
        self.caller(&request)?;
        let ids: Vec<LeaseId> = request.into_inner().ids.into_iter().map(LeaseId).collect();
        let ttls = self.parts.leases.renew_patiently_here(&ids).await.map_err(unanswered)?;
        Ok(Response::new(RenewResponse { ttls }))
    }

    async fn lease_time(
        &self,
        request: Request<LeaseTimeRequest>,
    ) -> Result<Response<LeaseTimeResponse>, Status> {
        self.caller(&request)?;
        let id = LeaseId(request.into_inner().id);
        let remaining = self.parts.leases.remaining_here(id).await.map_err(unanswered)?;
        let remaining_s = remaining.unwrap_or_default();
        Ok(Response::new(LeaseTimeResponse { known: remaining.is_some(), remaining_s }))
    }

    async fn lease_order(
        &self,
        request: Request<LeaseOrderRequest>,
    ) -> Result<Response<LeaseOrderResponse>, Status> {
        self.caller(&request)?;
        let ids = self.parts.leases.order_here().await.map_err(unanswered)?;
        Ok(Response::new(LeaseOrderResponse { ids: ids.into_iter().map(|id| id.0).collect() }))
    }
}

/// One member's proposals, for as long as it sends them here.
struct Proposing {
    parts: Arc<Parts>,
    from: u64,
    turn: Arc<Turn>,
    /// Which of the member's streams this is.
    number: u64,
    batches: Streaming<ForwardedProposals>,
    /// Numbers of proposals that the consensus did not take.
    refuse: mpsc::Sender<u64>,
    refused: mpsc::Receiver<u64>,
}

impl Proposing {
    /// Proposes until something is refused; None when the other member sends no more.
    async fn next(&mut self) -> Result<Option<Vec<RefusedProposal>>, Status> {
        let refusal = |ticket, reason: Reason| RefusedProposal { ticket, reason: reason as i32 };
        loop {
            tokio::select! {
                biased;
                Some(number) = self.refused.recv() => {
                    let mut refused = vec![refusal(number, Reason::NotLeader)];
                    while let Ok(number) = self.refused.try_recv() {
                        refused.push(refusal(number, Reason::NotLeader));
                    }
                    return Ok(Some(refused));
                }
                batch = self.batches.message() => {
                    let Some(batch) = batch? else { return Ok(None) };
                    let busy = self.propose(batch).await?;
                    if !busy.is_empty() {
                        let busy = busy.into_iter().map(|number| refusal(number, Reason::Busy));
                        return Ok(Some(busy.collect()));
                    }
                }
            }
        }
    }

    /// Gives the numbers of those for which there is no room.
    async fn propose(&self, batch: ForwardedProposals) -> Result<Vec<u64>, Status> {
        let last = self.turn.lock().await;
        if *last != self.number {
            return Err(Status::aborted("tenure: a later stream of proposals took over"));
        }
        let mandate = Mandate { term: batch.term, member: self.parts.peers.own().0 };
        let mut busy = Vec::new();
        for payload in batch.payloads {
            let number = self.ticket(&payload)?;
            let Ok(held) = self.parts.writer.hold(payload.len()) else {
                busy.push(number);
                continue;
            };
            let proposed =
                self.parts.consensus.propose_for(mandate, Proposal(payload), number, &self.refuse, held);
            proposed.await.map_err(unanswered)?;
        }
        Ok(busy)
    }

    /// What is not a command with a ticket would stop every member that applies it.
    fn ticket(&self, payload: &Bytes) -> Result<u64, Status> {
        let ticket = Ticket::of(payload).filter(|ticket| ticket.member == self.from);
        let ticket = ticket.filter(|_| Proposal::is_command(payload)).ok_or_else(|| {
            Status::invalid_argument("tenure: a forwarded proposal is not a command with its sender's ticket")
        })?;
        Ok(ticket.number)
    }
}
