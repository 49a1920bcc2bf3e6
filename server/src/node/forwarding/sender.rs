//! The task that hands this member's proposals to whoever leads, itself included. It decides to whom and when; what becomes
//! of a proposal is kept by the tickets.

use std::convert::Infallible;
use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use futures::stream;
use tenure_grpc::internal::forwarding_client::ForwardingClient;
use tenure_proto::internal::refused_proposal::Reason;
use tenure_proto::internal::{ForwardedProposals, RefusedProposal, RefusedProposals};
use tokio::sync::{mpsc, watch};
use tonic::Status;

use super::REFUSALS_MAX;
use super::tickets::{Refusal, Tickets};
use crate::clock::Clock;
use crate::peers::{Lane, Peers};
use crate::raft::{Consensus, Leadership, Mandate, Proposal, Ticket, Unavailable};

/// How long to wait after a leader could not be reached or did not take what it was sent.
const PAUSE: Duration = Duration::from_millis(50);
/// Between two looks for proposals whose time is over.
const EXPIRY_LOOK: Duration = Duration::from_millis(250);

pub struct Sender {
    pub tickets: Arc<Tickets>,
    pub consensus: Consensus,
    pub peers: Peers,
    pub clock: Arc<dyn Clock>,
}

impl Sender {
    /// Until the consensus ends.
    pub async fn run(self) {
        let mut leadership = self.consensus.leadership();
        tokio::select! {
            biased;
            () = self.expire() => {}
            () = self.send(&mut leadership) => {}
        }
    }

    async fn expire(&self) {
        loop {
            self.tickets.expire(self.clock.now_ms());
            tokio::time::sleep(EXPIRY_LOOK).await;
        }
    }

    async fn send(&self, leadership: &mut watch::Receiver<Leadership>) {
        loop {
            let now = *leadership.borrow_and_update();
            let sending = async {
                match now.mandate() {
                    Some(mandate) if now.here => self.propose(mandate).await,
                    Some(mandate) if mandate.member != self.peers.own().0 => {
                        let Err(status) = self.forward(mandate).await;
                        self.peers.heed(&status);
                        tracing::debug!(%status, member = mandate.member, "the leader takes no proposals");
                    }
                    _ => std::future::pending().await,
                }
                tokio::time::sleep(PAUSE).await;
            };
            let another = |other: &Leadership| (other.mandate(), other.here) != (now.mandate(), now.here);
            tokio::select! {
                biased;
                changed = leadership.wait_for(another) => if changed.is_err() { return },
                () = sending => {}
            }
        }
    }

    /// Sends to a leader elsewhere, until that fails.
    async fn forward(&self, mandate: Mandate) -> Result<Infallible, Status> {
        let unknown = || Status::unavailable("nobody said where the leader is");
        let channel = self.peers.channel(mandate.member, Lane::Forwarding).ok_or_else(unknown)?;
        let doubtful = self.tickets.sent_for(mandate);
        let tickets = self.tickets.clone();
        let batches = stream::poll_fn(move |context| {
            let batch = tickets.poll_batch(mandate, context);
            batch.map(|payloads| Some(ForwardedProposals { term: mandate.term, payloads }))
        });
        let request = self.peers.address(mandate.member, batches);
        let mut refusals = ForwardingClient::new(channel).propose(request).await?.into_inner();
        let begun = refusals.message().await?.filter(|first| first.term == mandate.term);
        let end = begun.and_then(|first| first.earlier_end);
        let end = end.ok_or_else(|| Status::unavailable("it leads in another term"))?;
        let refused = async {
            while let Some(RefusedProposals { refused, .. }) = refusals.message().await? {
                if !self.refuse(refused, mandate) {
                    break;
                }
            }
            Err(Status::unavailable("it does not lead any more"))
        };
        tokio::select! {
            biased;
            failure = refused => failure,
            never = self.give_up(doubtful, mandate, end) => match never {},
        }
    }

    /// False when the member does not lead.
    fn refuse(&self, refused: Vec<RefusedProposal>, by: Mandate) -> bool {
        let mut leads = true;
        for proposal in refused {
            let refusal = match proposal.reason() {
                Reason::Busy => Refusal::Busy,
                Reason::Unknown | Reason::NotLeader => {
                    leads = false;
                    Refusal::NotLeader
                }
            };
            self.tickets.refuse(proposal.ticket, by, refusal);
        }
        leads
    }

    /// Has sent again what an earlier stream brought the leader, once all that it wrote of that is applied here. Does not
    /// return, for there is nothing to do after that.
    async fn give_up(&self, doubtful: Vec<u64>, mandate: Mandate, end: u64) -> Infallible {
        if !doubtful.is_empty() && self.consensus.applied().wait_for(|at| *at >= end).await.is_ok() {
            self.tickets.lost(&doubtful, mandate);
        }
        std::future::pending().await
    }

    /// Proposes what gathered while nobody, or another member, led; until a proposal is refused.
    async fn propose(&self, mandate: Mandate) {
        let doubtful = self.tickets.sent_for(mandate);
        let end = match self.consensus.led_until().await {
            Ok((term, end)) if term == mandate.term => end,
            Ok(_) | Err(_) => return,
        };
        let (refuse, mut refused) = mpsc::channel(REFUSALS_MAX);
        let proposing = async {
            loop {
                for proposal in poll_fn(|context| self.tickets.poll_batch(mandate, context)).await {
                    let Some(ticket) = Ticket::of(&proposal) else { continue };
                    // The tickets hold its share of what may be under way.
                    let held = Box::new(());
                    let number = ticket.number;
                    let proposed =
                        self.consensus.propose_for(mandate, Proposal(proposal), number, &refuse, held);
                    if proposed.await == Err(Unavailable::Stopped) {
                        return;
                    }
                }
            }
        };
        tokio::select! {
            biased;
            Some(number) = refused.recv() => {
                self.tickets.refuse(number, mandate, Refusal::NotLeader);
                while let Ok(number) = refused.try_recv() {
                    self.tickets.refuse(number, mandate, Refusal::NotLeader);
                }
            }
            never = self.give_up(doubtful, mandate, end) => match never {},
            () = proposing => {}
        }
    }
}
