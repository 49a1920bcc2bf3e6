//! The consensus library's types, fixed once: what an entry carries, what apply answers, how a member is known. An
//! entry's payload is already in the form in which it goes to disk and to peers, so it is encoded once in its life.

use std::fmt;

use bytes::Bytes;
use openraft::OptionalSend;
use openraft::raft::responder::Responder;
use openraft::vote::RaftLeaderId;
use prost::Message;
use tenure_proto::internal::{Command, LogPayload, log_payload};
use tenure_state::{Refusal, Response, Revision};
use tokio::sync::oneshot;

/// An encoded `LogPayload` that holds a command.
#[derive(Clone, PartialEq, Eq)]
pub struct Proposal(pub Bytes);

impl Proposal {
    pub fn new(command: Command) -> Proposal {
        Proposal(LogPayload { kind: Some(log_payload::Kind::Command(command)) }.encode_to_vec().into())
    }

    /// The command within; None when the bytes are not one, which only a damaged log can bring about.
    pub fn command(&self) -> Option<Command> {
        match LogPayload::decode(self.0.clone()).ok()?.kind? {
            log_payload::Kind::Command(command) => Some(command),
            log_payload::Kind::Blank(_) | log_payload::Kind::Membership(_) => None,
        }
    }
}

impl fmt::Debug for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "command of {} bytes", self.0.len())
    }
}

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What became of a proposal once it was applied.
#[derive(Debug)]
pub struct Reply {
    pub answer: Result<Response, Refusal>,
    /// The store's revision right after.
    pub revision: Revision,
    pub index: u64,
}

/// How a member is reached by the others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    pub peer_urls: Vec<String>,
}

/// The library's type parameters; by hand, since its macro does not take a responder of one's own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct TypeConfig;

impl openraft::RaftTypeConfig for TypeConfig {
    type D = Proposal;
    type R = Reply;
    type NodeId = u64;
    type Node = Peer;
    type Term = u64;
    type LeaderId = openraft::impls::leader_id_adv::LeaderId<u64, u64>;
    type Vote = openraft::impls::Vote<Self::LeaderId>;
    type Payload = openraft::EntryPayload<Proposal, u64, Peer>;
    type Entry = openraft::Entry<<Self::LeaderId as RaftLeaderId>::Committed, Self::Payload>;
    type AsyncRuntime = openraft::impls::TokioRuntime;
    type Responder<T>
        = Waiting<T>
    where
        T: OptionalSend + 'static;
    type Batch<T>
        = openraft::impls::InlineBatch<T>
    where
        T: OptionalSend + 'static;
    type ErrorSource = openraft::impls::BoxedErrorSource;
}

/// What a proposal holds for as long as it is under way, whether or not its proposer still waits: its share of what may
/// be under way at once.
pub type Held = Box<dyn Send>;

/// A proposer that waits, or went away.
pub struct Waiting<T> {
    tell: oneshot::Sender<T>,
    _held: Held,
}

impl<T> Waiting<T> {
    pub fn new(held: Held) -> (Waiting<T>, oneshot::Receiver<T>) {
        let (tell, told) = oneshot::channel();
        (Waiting { tell, _held: held }, told)
    }
}

impl<T: OptionalSend + 'static> Responder<TypeConfig, T> for Waiting<T> {
    fn on_complete(self, outcome: T) {
        // A proposer that went away does not need to know.
        let _ = self.tell.send(outcome);
    }
}

pub type LogId = openraft::type_config::alias::LogIdOf<TypeConfig>;
pub type Vote = openraft::type_config::alias::VoteOf<TypeConfig>;
pub type Entry = openraft::type_config::alias::EntryOf<TypeConfig>;
pub type CommittedLeaderId = openraft::type_config::alias::CommittedLeaderIdOf<TypeConfig>;
pub type Membership = openraft::Membership<u64, Peer>;
pub type StoredMembership = openraft::type_config::alias::StoredMembershipOf<TypeConfig>;
