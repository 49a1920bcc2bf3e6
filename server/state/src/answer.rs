//! The answers that are no: what a well-run replica says to a request that cannot be granted. Every replica computes
//! the same one. Codes and texts of the wire are the api's business.

use crate::revision::Revision;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    KeyNotProvided,
    /// `ignore_value` or `ignore_lease` on a key that does not exist; also an operation of a txn that says nothing.
    KeyNotFound,
    ValueProvided,
    LeaseProvided,
    TooManyOperations,
    DuplicateKey,
    InvalidSortOption,
    Compacted,
    FutureRevision,
    LeaseNotFound,
    LeaseExists,
    LeaseTtlTooLarge,
    NoSpace,
    Corrupt,
    MemberNotFound,
    /// A guard that came with the request does not hold: the caller's grant has ended.
    GuardFailed,
    /// The log holds a command that this version does not know.
    UnknownCommand,
}

/// What the machine says to a command that it grants.
#[derive(Clone, Debug, PartialEq)]
pub enum Response {
    Put(tenure_proto::etcdserverpb::PutResponse),
    DeleteRange(tenure_proto::etcdserverpb::DeleteRangeResponse),
    Txn(tenure_proto::etcdserverpb::TxnResponse),
    Compacted {
        physical: bool,
    },
    LeaseGranted {
        id: i64,
        ttl_s: i64,
    },
    LeaseRevoked,
    /// How many of the proposed leases were really removed.
    LeasesExpired {
        removed: usize,
    },
    LeasesCheckpointed,
    Alarm(Vec<tenure_proto::etcdserverpb::AlarmMember>),
    MemberPublished,
}

/// What became of one command: what to tell the caller, the revision the store stands at after it, what follows.
#[derive(Clone, Debug, PartialEq)]
pub struct Applied {
    pub answer: Result<Response, Refusal>,
    pub revision: Revision,
    pub effects: Vec<crate::change::Effect>,
    /// Go into the store together with the applied index, or not at all.
    pub writes: Vec<crate::change::Write>,
}
