//! The consensus library's types, fixed once: what an entry carries, what apply answers, how a member is known. An
//! entry's payload is already in the form in which it goes to disk and to peers, so it is encoded once in its life.

use std::fmt;

use bytes::{BufMut, Bytes};
use openraft::OptionalSend;
use openraft::raft::responder::Responder;
use openraft::vote::RaftLeaderId;
use prost::Message;
use tenure_proto::internal::{Command, LogPayload, log_payload};
use tenure_state::{Refusal, Response, Revision};
use tokio::sync::{mpsc, oneshot};

use super::codec;

/// One member's leadership in one term. Entries of an earlier one never stand behind those of a later one, in no log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mandate {
    pub term: u64,
    pub member: u64,
}

/// By which a proposal that another member was asked to make is known again by the one that asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// Whose it is; never 0.
    pub member: u64,
    pub number: u64,
}

/// Both fields of a ticket in an encoded `LogPayload`, each with its tag: field 4 and field 5, eight bytes.
const TICKET_TAGS: [u8; 2] = [0x21, 0x29];

impl Ticket {
    /// Bytes that it adds to a proposal.
    pub const BYTES: usize = 18;

    /// Puts it behind an encoded proposal that has none.
    pub fn put(self, proposal: &mut Vec<u8>) {
        proposal.put_u8(TICKET_TAGS[0]);
        proposal.put_u64_le(self.member);
        proposal.put_u8(TICKET_TAGS[1]);
        proposal.put_u64_le(self.number);
    }

    /// The ticket at the end of an encoded proposal, without decoding what is before it.
    pub fn of(proposal: &[u8]) -> Option<Ticket> {
        let fields: &[u8; Ticket::BYTES] = proposal.last_chunk()?;
        let number = |at: usize| fields[at..at + 8].try_into().map(u64::from_le_bytes).ok();
        let tagged = [fields[0], fields[9]] == TICKET_TAGS;
        tagged.then_some(Ticket { member: number(1)?, number: number(10)? })
    }
}

/// An encoded `LogPayload` that holds a command.
#[derive(Clone, PartialEq, Eq)]
pub struct Proposal(pub Bytes);

impl Proposal {
    pub fn new(command: Command) -> Proposal {
        Proposal(Proposal::encode(command, 0).into())
    }

    /// The bytes of a proposal without a ticket, with room for so many more.
    pub fn encode(command: Command, room: usize) -> Vec<u8> {
        let payload = LogPayload { kind: Some(log_payload::Kind::Command(command)), ..LogPayload::default() };
        let mut bytes = Vec::with_capacity(payload.encoded_len() + room);
        payload.encode(&mut bytes).expect("a vector has room for any message");
        bytes
    }

    /// Whether these bytes are taken for a command when they are read back.
    pub fn is_command(bytes: &[u8]) -> bool {
        bytes.first() == Some(&codec::COMMAND_TAG)
    }

    /// The command within, and whose it is if another member proposed it; None when the bytes are not one, which only a
    /// damaged log can bring about.
    pub fn command(&self) -> Option<(Command, Option<Ticket>)> {
        let payload = LogPayload::decode(self.0.clone()).ok()?;
        let ticket = Ticket { member: payload.ticket_member, number: payload.ticket_number };
        match payload.kind? {
            log_payload::Kind::Command(command) => Some((command, (ticket.member != 0).then_some(ticket))),
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

/// How a member is reached by the others, and what it is to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    pub peer_urls: Vec<String>,
    /// It was added as a voter. Until it has caught up it only learns, so that a quorum never waits for a process that was
    /// not even started; then the leader lets it vote.
    pub voter_wanted: bool,
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
    type AsyncRuntime = super::runtime::Runtime;
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

/// Who waits for a proposal's outcome.
pub enum Waiting<T> {
    /// A proposer here, or one that went away.
    Here { tell: oneshot::Sender<T>, held: Held },
    /// Another member, which is told if its proposal was refused and sees for itself if it was applied.
    Elsewhere { number: u64, is_refusal: fn(&T) -> bool, refused: mpsc::Sender<u64>, held: Held },
}

impl<T> Waiting<T> {
    pub fn new(held: Held) -> (Waiting<T>, oneshot::Receiver<T>) {
        let (tell, told) = oneshot::channel();
        (Waiting::Here { tell, held }, told)
    }
}

impl<T: OptionalSend + 'static> Responder<TypeConfig, T> for Waiting<T> {
    fn on_complete(self, outcome: T) {
        match self {
            Waiting::Here { tell, held } => {
                drop(held);
                // A proposer that went away does not need to know.
                let _ = tell.send(outcome);
            }
            Waiting::Elsewhere { number, is_refusal, refused, held } => {
                drop(held);
                if is_refusal(&outcome) {
                    // Nor does a member whose call ended.
                    let _ = refused.try_send(number);
                }
            }
        }
    }
}

pub type LogId = openraft::type_config::alias::LogIdOf<TypeConfig>;
pub type Vote = openraft::type_config::alias::VoteOf<TypeConfig>;
pub type Entry = openraft::type_config::alias::EntryOf<TypeConfig>;
pub type CommittedLeaderId = openraft::type_config::alias::CommittedLeaderIdOf<TypeConfig>;
pub type Membership = openraft::Membership<u64, Peer>;
pub type StoredMembership = openraft::type_config::alias::StoredMembershipOf<TypeConfig>;

#[cfg(test)]
mod tests {
    use tenure_proto::etcdserverpb::PutRequest;
    use tenure_proto::internal::command::Wish;

    use super::*;

    fn encoded(room: usize) -> Vec<u8> {
        let put = PutRequest { key: "key".into(), value: "value".into(), ..PutRequest::default() };
        Proposal::encode(Command { wish: Some(Wish::Put(put)), ..Command::default() }, room)
    }

    #[test]
    fn a_ticket_behind_a_command_is_read_with_it_and_without_it() {
        let ticket = Ticket { member: 0x0102_0304_0506_0708, number: u64::MAX - 1 };
        let mut bytes = encoded(Ticket::BYTES);
        let capacity = bytes.capacity();
        ticket.put(&mut bytes);
        assert_eq!((bytes.len(), bytes.capacity()), (capacity, capacity), "there was room for it");
        assert_eq!(Ticket::of(&bytes), Some(ticket));
        assert!(Proposal::is_command(&bytes));
        let (command, by) = Proposal(bytes.into()).command().expect("it is a command");
        assert!(matches!(command.wish, Some(Wish::Put(put)) if put.value == "value"));
        assert_eq!(by, Some(ticket));
    }

    #[test]
    fn a_command_without_a_ticket_has_none() {
        let bytes = encoded(0);
        assert_eq!(Ticket::of(&bytes), None);
        assert_eq!(Proposal(bytes.into()).command().expect("it is a command").1, None);
        assert_eq!(Ticket::of(&[]), None);
    }
}
