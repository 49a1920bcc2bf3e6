//! A long conversation with another member, mostly with whoever leads: one question, one answer, in turn. Cheaper than a call for each, and there is only
//! ever one question under way, since whoever gathers them asks for all.

use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use tenure_grpc::internal::forwarding_client::ForwardingClient;
use tenure_proto::internal::{ReadIndexRequest, ReadIndexResponse};
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use crate::peers::{Lane, Peers};
use crate::raft::{Mandate, Unavailable};

/// Kept between questions, and begun anew with another leader or after a failure.
pub struct Asking<Q, A> {
    with: Option<Conversation<Q, A>>,
}

struct Conversation<Q, A> {
    mandate: Mandate,
    questions: mpsc::Sender<Q>,
    answers: Streaming<A>,
}

impl<Q, A> Default for Asking<Q, A> {
    fn default() -> Self {
        Asking { with: None }
    }
}

impl<Q: Send + 'static, A> Asking<Q, A> {
    /// Whether there is a conversation with this leader, so that none need be begun.
    pub fn is_with(&self, mandate: Mandate) -> bool {
        self.with.as_ref().is_some_and(|with| with.mandate == mandate)
    }

    pub fn begin(&mut self, mandate: Mandate, questions: mpsc::Sender<Q>, answers: Streaming<A>) {
        self.with = Some(Conversation { mandate, questions, answers });
    }

    /// When this is given up half way, the conversation is over: its next answer would be to another question.
    pub async fn ask(&mut self, question: Q) -> Result<A, Status> {
        let mut conversation = self.with.take().ok_or_else(ended)?;
        conversation.questions.try_send(question).map_err(|_| ended())?;
        let answer = conversation.answers.message().await?.ok_or_else(ended)?;
        self.with = Some(conversation);
        Ok(answer)
    }
}

fn ended() -> Status {
    Status::unavailable("the member ended the conversation")
}

/// The two ends of what will be asked: one to begin with, one to send.
pub fn questions<Q: Send + 'static>() -> (mpsc::Sender<Q>, BoxStream<'static, Q>) {
    let (questions, mut asked) = mpsc::channel(1);
    (questions, Box::pin(stream::poll_fn(move |context| asked.poll_recv(context))))
}

/// Asks a leader elsewhere how far a member must have applied to read from its own state.
pub struct ReadIndexes {
    peers: Peers,
    asking: Asking<ReadIndexRequest, ReadIndexResponse>,
}

impl ReadIndexes {
    pub fn new(peers: Peers) -> ReadIndexes {
        ReadIndexes { peers, asking: Asking::default() }
    }

    pub fn own(&self) -> u64 {
        self.peers.own().0
    }

    /// The leader's answer, proven after it was asked. Its failure says nothing but that another attempt is needed.
    pub async fn ask(&mut self, leader: Mandate) -> Result<u64, Unavailable> {
        let unanswered = |status: Status| {
            self.peers.heed(&status);
            tracing::debug!(%status, member = leader.member, "the leader gives no read index");
            Unavailable::LeaderChanged
        };
        if !self.asking.is_with(leader) {
            let channel = self.peers.channel(leader.member, Lane::Forwarding).ok_or(Unavailable::NoLeader)?;
            let (questions, asked) = questions();
            let request = self.peers.address(leader.member, asked);
            let mut client = ForwardingClient::new(channel);
            // Boxed: else the compiler loses itself in the lifetimes when this is spawned.
            let call: BoxFuture<'_, _> = Box::pin(client.read_index(request));
            let answers = call.await.map_err(unanswered)?.into_inner();
            self.asking.begin(leader, questions, answers);
        }
        Ok(self.asking.ask(ReadIndexRequest {}).await.map_err(unanswered)?.index)
    }
}
