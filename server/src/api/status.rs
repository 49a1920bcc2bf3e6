//! The one place that turns an error into a gRPC code and etcd's exact text: clients compare the text, letter by letter.

use tenure_recipes::Failure;
use tenure_state::Refusal;
use tonic::{Code, Status};

use super::reason;
use crate::node::{Error, Refused, Trouble};
use crate::raft::Unavailable;

pub fn of(error: Error) -> Status {
    match error {
        Error::Refused(refusal) => refused(&refusal),
        Error::Unavailable(unavailable) => unreachable_cluster(unavailable),
        Error::TooLarge => Status::new(Code::InvalidArgument, "etcdserver: request is too large"),
        Error::Membership(refused) => membership(refused),
        Error::NotLeader => Status::new(Code::FailedPrecondition, "etcdserver: not leader"),
        Error::BadTransferee => Status::new(Code::FailedPrecondition, "etcdserver: bad leader transferee"),
        Error::TransferFailed => {
            Status::new(Code::Unknown, "etcdserver: request timed out, leader transfer took too long")
        }
        Error::Fatal(fatal) => {
            tracing::error!(%fatal, "a request met a failure of this member");
            stopped()
        }
    }
}

/// What a stream is told that ends because this member stops.
pub fn stopped() -> Status {
    Status::new(Code::Unavailable, "etcdserver: server stopped")
}

/// Of a renewal, whose client takes every code but `Unavailable` for the end of its lease: there is nothing else that it could be told.
pub fn of_renewal(error: Error) -> Status {
    Status::new(Code::Unavailable, of(error).message())
}

/// What etcd's Lock and Election services say: code 2 whatever it is, with the text of the error, except that trouble of the cluster's
/// own is `Unavailable` here, so that clients ask again instead of giving up what they hold.
pub fn of_recipe(failure: Failure) -> Status {
    match failure {
        Failure::Unavailable(text) | Failure::Unknown(text) => {
            let text = match Trouble::told_by(&text) {
                Some(Trouble::NoLeader) => "etcdserver: no leader",
                Some(Trouble::LeaderChanged) => "etcdserver: leader changed",
                Some(Trouble::NoQuorum) => "etcdserver: request timed out",
                Some(Trouble::Overloaded) => "etcdserver: too many requests",
                Some(Trouble::Stopping) => "etcdserver: server stopped",
                None => &text,
            };
            Status::new(Code::Unavailable, text)
        }
        Failure::LeaseUnknown => Status::unknown("etcdserver: requested lease not found"),
        Failure::LeaseExists => Status::unknown("etcdserver: lease already exists"),
        Failure::Exhausted(_) => Status::unknown("etcdserver: mvcc: database space exceeded"),
        Failure::Compacted { .. } => {
            Status::unknown("etcdserver: mvcc: required revision has been compacted")
        }
        Failure::Forbidden(text) | Failure::Invalid(text) => Status::unknown(text),
    }
}

pub fn refused(refusal: &Refusal) -> Status {
    let (code, text) = match refusal {
        Refusal::KeyNotProvided => (Code::InvalidArgument, "etcdserver: key is not provided"),
        Refusal::KeyNotFound => (Code::InvalidArgument, "etcdserver: key not found"),
        Refusal::ValueProvided => (Code::InvalidArgument, "etcdserver: value is provided"),
        Refusal::LeaseProvided => (Code::InvalidArgument, "etcdserver: lease is provided"),
        Refusal::TooManyOperations => {
            (Code::InvalidArgument, "etcdserver: too many operations in txn request")
        }
        Refusal::DuplicateKey => (Code::InvalidArgument, "etcdserver: duplicate key given in txn request"),
        Refusal::InvalidSortOption => (Code::InvalidArgument, "etcdserver: invalid sort option"),
        Refusal::Compacted => (Code::OutOfRange, "etcdserver: mvcc: required revision has been compacted"),
        Refusal::FutureRevision => {
            (Code::OutOfRange, "etcdserver: mvcc: required revision is a future revision")
        }
        Refusal::LeaseNotFound => (Code::NotFound, "etcdserver: requested lease not found"),
        Refusal::LeaseExists => (Code::FailedPrecondition, "etcdserver: lease already exists"),
        Refusal::LeaseTtlTooLarge => (Code::OutOfRange, "etcdserver: too large lease TTL"),
        Refusal::NoSpace => (Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded"),
        Refusal::Corrupt => (Code::DataLoss, "etcdserver: corrupt cluster"),
        Refusal::MemberNotFound => (Code::NotFound, "etcdserver: member not found"),
        Refusal::GuardFailed => return reason::stale_guard(),
        Refusal::UnknownCommand => (
            Code::Unimplemented,
            "tenure: this member does not know the command; upgrade it to the version of the others",
        ),
    };
    Status::new(code, text)
}

fn membership(refused: Refused) -> Status {
    let (code, text) = match refused {
        Refused::IdExists => (Code::FailedPrecondition, "etcdserver: member ID already exist"),
        Refused::PeerUrlsExist => (Code::FailedPrecondition, "etcdserver: Peer URLs already exists"),
        Refused::NotFound => (Code::NotFound, "etcdserver: member not found"),
        // etcd means FailedPrecondition, but this is what reaches its clients.
        Refused::NotEnoughStarted => {
            (Code::Unknown, "etcdserver: re-configuration failed due to not enough started members")
        }
        Refused::Unhealthy => (Code::Unavailable, "etcdserver: unhealthy cluster"),
        Refused::TooManyLearners => {
            (Code::FailedPrecondition, "etcdserver: too many learner members in cluster")
        }
        Refused::NotALearner => (Code::FailedPrecondition, "etcdserver: can only promote a learner member"),
        Refused::LearnerNotReady => (
            Code::FailedPrecondition,
            "etcdserver: can only promote a learner member which is in sync with leader",
        ),
        Refused::BadPeerUrls => (Code::InvalidArgument, "etcdserver: given member URLs are invalid"),
    };
    Status::new(code, text)
}

fn unreachable_cluster(unavailable: Unavailable) -> Status {
    let (code, text) = match unavailable {
        Unavailable::NoLeader => (Code::Unavailable, "etcdserver: no leader"),
        // etcd means ResourceExhausted, but this is what reaches its clients.
        Unavailable::Busy => (Code::Unknown, "etcdserver: too many requests"),
        Unavailable::LeaderChanged => (Code::Unavailable, "etcdserver: leader changed"),
        Unavailable::TimedOut => (Code::Unavailable, "etcdserver: request timed out"),
        Unavailable::CutOff => {
            (Code::Unavailable, "etcdserver: request timed out, possibly due to connection lost")
        }
        Unavailable::Stopped => return stopped(),
    };
    Status::new(code, text)
}
