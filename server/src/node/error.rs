//! Why the node did not do what was asked: refused by the cluster's state, or not reached in time.

use tenure_state::{Fatal, Refusal};

use crate::raft::Unavailable;

#[derive(Clone, Debug, PartialEq)]
pub enum Error {
    /// An answer: every member would say the same.
    Refused(Refusal),
    /// The cluster could not be asked, or did not answer.
    Unavailable(Unavailable),
    /// The request is larger than `--max-request-bytes`; it was not proposed.
    TooLarge,
    /// This member's disk failed; it is stopping.
    Fatal(Fatal),
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Error {
        Error::Refused(refusal)
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
