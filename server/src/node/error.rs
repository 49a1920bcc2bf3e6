//! Why the node did not do what was asked: refused by the cluster's state, or not reached in time.

use tenure_state::{Fatal, Refusal};

use super::members::Refused;
use crate::raft::Unavailable;

#[derive(Clone, Debug, PartialEq)]
pub enum Error {
    /// An answer: every member would say the same.
    Refused(Refusal),
    /// The cluster could not be asked, or did not answer.
    Unavailable(Unavailable),
    /// The request is larger than `--max-request-bytes`; it was not proposed.
    TooLarge,
    /// A change of the membership is not allowed as things stand.
    Membership(Refused),
    /// Only the leader can do it, and this member does not lead.
    NotLeader,
    /// The lead cannot be handed to that member: it has no vote, or is none.
    BadTransferee,
    /// The lead was not taken by the member it was offered to, or not in time.
    TransferFailed,
    /// This member's disk failed; it is stopping.
    Fatal(Fatal),
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Error {
        Error::Refused(refusal)
    }
}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Error {
        Error::Membership(refused)
    }
}

impl From<Unavailable> for Error {
    fn from(unavailable: Unavailable) -> Error {
        Error::Unavailable(unavailable)
    }
}

impl From<Fatal> for Error {
    fn from(fatal: Fatal) -> Error {
        Error::Fatal(fatal)
    }
}
