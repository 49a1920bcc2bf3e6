//! The one place that turns what recipes say into a status: code, one line for people, and a reason for programs
//! (`google.rpc.ErrorInfo` of the domain `tenure`, in the metadata `grpc-status-details-bin`). All trouble of the cluster's own is
//! `Unavailable`, and every call of these services may be repeated as it is.

use std::collections::HashMap;
use std::time::Duration;

use tenure_recipes::{Error, Failure, Reason, Refusal};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::node::Trouble;

const DOMAIN: &str = "tenure";
/// When to ask again if the cluster cannot answer: about how long an election takes.
const RETRY: Duration = Duration::from_millis(250);

pub fn of(error: Error) -> Status {
    match error {
        Error::Failed(failure) => failed(failure),
        Error::Refused(refusal) => refused(refusal),
    }
}

pub fn failed(failure: Failure) -> Status {
    let text = failure.to_string();
    match failure {
        Failure::Unavailable(_) => unavailable(trouble(&text), text),
        // Whoever repeats the call learns what became of it.
        Failure::Unknown(_) => unavailable("OUTCOME_UNKNOWN", text),
        Failure::Compacted { at } => {
            let facts = HashMap::from([("compact_revision".to_owned(), at.to_string())]);
            because(Code::OutOfRange, "COMPACTED", text, facts)
        }
        Failure::LeaseUnknown => {
            let text = "the session is over, and with it all that it held; open a new one";
            because(Code::NotFound, Reason::SessionGone.name(), text, HashMap::new())
        }
        Failure::LeaseExists => because(Code::AlreadyExists, "LEASE_EXISTS", text, HashMap::new()),
        Failure::Exhausted(_) => because(Code::ResourceExhausted, Reason::Quota.name(), text, HashMap::new()),
        Failure::Forbidden(_) => because(Code::PermissionDenied, "FORBIDDEN", text, HashMap::new()),
        Failure::Invalid(_) => because(Code::InvalidArgument, Reason::Invalid.name(), text, HashMap::new()),
    }
}

pub fn refused(refusal: Refusal) -> Status {
    let code = match refusal.reason {
        Reason::SessionGone | Reason::NotFound => Code::NotFound,
        Reason::StaleToken
        | Reason::CapacityMismatch
        | Reason::PolicyConflict
        | Reason::WrongMode
        | Reason::IdentityConflict => Code::FailedPrecondition,
        Reason::AlreadyRegistered => Code::AlreadyExists,
        Reason::NameInvalid
        | Reason::IdInvalid
        | Reason::LabelsInvalid
        | Reason::TtlOutOfRange
        | Reason::Invalid => Code::InvalidArgument,
        Reason::QueueFull | Reason::Quota => Code::ResourceExhausted,
    };
    let facts = refusal.details.into_iter().map(|(name, value)| (name.to_owned(), value));
    because(code, refusal.reason.name(), refusal.text, facts.collect())
}

/// What a stream is told that ends because this member stops.
pub fn stopping() -> Status {
    failed(Failure::Unavailable(Trouble::Stopping.text().into()))
}

/// What came with a write as its guard does not hold.
pub fn stale_guard() -> Status {
    let text =
        "tenure: the guard does not hold: the grant it speaks of has ended; acquire again before writing";
    because(Code::FailedPrecondition, Reason::StaleToken.name(), text, HashMap::new())
}

/// The call can never be right as it is.
pub fn invalid(text: impl Into<String>) -> Status {
    because(Code::InvalidArgument, Reason::Invalid.name(), text, HashMap::new())
}

/// What was to be written belongs to the server's own services.
pub fn reserved(text: impl Into<String>) -> Status {
    because(Code::PermissionDenied, "RESERVED", text, HashMap::new())
}

fn trouble(text: &str) -> &'static str {
    match Trouble::told_by(text) {
        Some(Trouble::LeaderChanged) => "LEADER_CHANGED",
        Some(Trouble::NoQuorum) => "NO_QUORUM",
        Some(Trouble::Overloaded) => "OVERLOADED",
        Some(Trouble::Stopping) => "SHUTTING_DOWN",
        Some(Trouble::NoLeader) | None => "NO_LEADER",
    }
}

fn unavailable(reason: &str, text: String) -> Status {
    let mut details = ErrorDetails::with_error_info(reason, DOMAIN, HashMap::<String, String>::new());
    details.set_retry_info(Some(RETRY));
    Status::with_error_details(Code::Unavailable, text, details)
}

fn because(code: Code, reason: &str, text: impl Into<String>, facts: HashMap<String, String>) -> Status {
    let details = ErrorDetails::with_error_info(reason, DOMAIN, facts);
    Status::with_error_details(code, text, details)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn told(status: &Status) -> (Code, String, bool) {
        let details = status.get_error_details();
        let info = details.error_info().unwrap();
        assert_eq!(info.domain, "tenure");
        (status.code(), info.reason.clone(), details.retry_info().is_some())
    }

    #[test]
    fn trouble_of_the_cluster_is_unavailable_and_says_why() {
        let text = Trouble::Stopping.text().to_owned();
        let stopping = failed(Failure::Unavailable(text.clone()));
        assert_eq!(told(&stopping), (Code::Unavailable, "SHUTTING_DOWN".into(), true));
        assert_eq!(stopping.message(), text);
        let unknown = failed(Failure::Unknown(text));
        assert_eq!(told(&unknown), (Code::Unavailable, "OUTCOME_UNKNOWN".into(), true));
    }

    #[test]
    fn a_refusal_carries_its_reason_and_its_facts() {
        let status = of(Refusal::stale_token("jobs/nightly", 812).into());
        assert_eq!(told(&status), (Code::FailedPrecondition, "STALE_TOKEN".into(), false));
        let details = status.get_error_details();
        assert_eq!(details.error_info().unwrap().metadata["token"], "812");
        assert_eq!(told(&failed(Failure::LeaseUnknown)).1, "SESSION_GONE");
    }
}
