//! Why a call was not done, or may not have been. The one place that reads a gRPC status: what it says decides whether a call
//! may be sent again.

use std::error::Error as _;

use prost::Message;
use tenure_recipes::Failure;
use tonic::{Code, ConnectError, Status};

/// Why a call was not done, or may not have been.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// It was certainly not done: nobody could be asked, or nobody led. Every member was tried until the time was over.
    #[error("{0}")]
    Unavailable(String),
    /// It may have been done, or may still be: the answer was lost. Find out before repeating it.
    #[error("{0}")]
    Unknown(String),
    /// The revision from which something was wanted is gone; `at` is the first that is still there, 0 where the server does
    /// not say it. Read anew.
    #[error(
        "what was asked for has been compacted away (up to revision {at}); read anew and go on from there"
    )]
    Compacted { at: i64 },
    /// The guard does not hold any more: somebody else may be the holder. Nothing was written. Stop what it protected.
    #[error("{0}")]
    Stale(String),
    /// What was held is held no more, or the session by which it was: the text says why.
    #[error("lost: {0}")]
    Lost(String),
    /// The server understood and refused; `reason` is a word for programs, empty from servers that give none.
    #[error("{text}")]
    Refused { code: Code, reason: String, text: String },
    /// The client was set up wrongly.
    #[error("{0}")]
    Setup(String),
}

impl Error {
    /// The word for programs with which Tenure's own services refuse; empty for all else.
    pub fn reason(&self) -> &str {
        match self {
            Error::Refused { reason, .. } => reason,
            _ => "",
        }
    }

    /// Whether the server knows no such lease, session or thing.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Error::Refused { code: Code::NotFound, .. })
    }

    pub(crate) fn refused(text: impl Into<String>) -> Error {
        Error::Refused { code: Code::FailedPrecondition, reason: String::new(), text: text.into() }
    }
}

/// What a failed attempt means for the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Not done: may be sent again whatever it was.
    NotDone(String),
    /// May have been done.
    Lost(String),
    /// An answer; every member would say the same.
    Answered(Error),
}

/// What etcd's servers, and ours, say of a request that they did not propose.
const NOT_PROPOSED: [&str; 2] = ["etcdserver: no leader", "etcdserver: too many requests"];
/// The reasons with which our services say the same.
const REASONS_NOT_PROPOSED: [&str; 3] = ["NO_LEADER", "OVERLOADED", "NO_QUORUM"];

impl Fault {
    pub(crate) fn of(status: &Status) -> Fault {
        let (text, reason) = (status.message(), reason(status));
        let proposed = !NOT_PROPOSED.contains(&text) && !REASONS_NOT_PROPOSED.contains(&reason.as_str());
        match status.code() {
            _ if never_sent(status) => Fault::NotDone(root_cause(status)),
            Code::Unavailable | Code::Unknown if !proposed => Fault::NotDone(text.to_owned()),
            Code::Unavailable
            | Code::Unknown
            | Code::DeadlineExceeded
            | Code::Cancelled
            | Code::Internal
            | Code::Aborted => Fault::Lost(lost(status)),
            Code::OutOfRange if text.contains("has been compacted") => {
                Fault::Answered(Error::Compacted { at: 0 })
            }
            Code::FailedPrecondition if reason == "STALE_TOKEN" || text.starts_with("tenure: the guard") => {
                Fault::Answered(Error::Stale(text.to_owned()))
            }
            Code::NotFound if reason == "SESSION_GONE" => Fault::Answered(Error::Lost(text.to_owned())),
            code => Fault::Answered(Error::Refused { code, reason, text: text.to_owned() }),
        }
    }
}

/// The connection was never made, so the request never left.
fn never_sent(status: &Status) -> bool {
    let mut cause = status.source();
    while let Some(error) = cause {
        if error.is::<ConnectError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// What the libraries in between say helps nobody; what the system said does.
fn root_cause(status: &Status) -> String {
    let mut cause: &dyn std::error::Error = status;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

fn lost(status: &Status) -> String {
    match status.source() {
        Some(_) => format!("the connection broke ({})", root_cause(status)),
        None => status.message().to_owned(),
    }
}

/// `google.rpc.Status`, as much of it as is read here.
#[derive(Clone, PartialEq, prost::Message)]
struct Details {
    #[prost(message, repeated, tag = "3")]
    details: Vec<Detail>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Detail {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// `google.rpc.ErrorInfo`.
#[derive(Clone, PartialEq, prost::Message)]
struct ErrorInfo {
    #[prost(string, tag = "1")]
    reason: String,
}

/// The reason in the status's details; empty if there is none, or none that can be read.
fn reason(status: &Status) -> String {
    let details = Details::decode(status.details()).unwrap_or_default().details;
    let info = details.iter().find(|detail| detail.type_url.ends_with("/google.rpc.ErrorInfo"));
    let info = info.and_then(|detail| ErrorInfo::decode(&detail.value[..]).ok());
    info.unwrap_or_default().reason
}

/// How a recipe is told.
impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        match error {
            Error::Unavailable(text) => Failure::Unavailable(text),
            Error::Unknown(text) => Failure::Unknown(text),
            Error::Compacted { at } => Failure::Compacted { at },
            Error::Lost(_) => Failure::LeaseUnknown,
            Error::Stale(text) | Error::Setup(text) => Failure::Invalid(text),
            Error::Refused { code, text, .. } => match code {
                Code::NotFound if text.contains("lease not found") => Failure::LeaseUnknown,
                Code::FailedPrecondition if text.contains("lease already exists") => Failure::LeaseExists,
                Code::ResourceExhausted => Failure::Exhausted(text),
                Code::PermissionDenied | Code::Unauthenticated => Failure::Forbidden(text),
                _ => Failure::Invalid(text),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(code: Code, text: &str) -> Fault {
        Fault::of(&Status::new(code, text))
    }

    #[test]
    fn only_what_says_that_it_was_not_proposed_was_not_done() {
        assert!(matches!(fault(Code::Unavailable, "etcdserver: no leader"), Fault::NotDone(_)));
        assert!(matches!(fault(Code::Unknown, "etcdserver: too many requests"), Fault::NotDone(_)));
        for text in
            ["etcdserver: leader changed", "etcdserver: request timed out", "etcdserver: server stopped", ""]
        {
            assert!(matches!(fault(Code::Unavailable, text), Fault::Lost(_)), "{text}");
        }
        for code in [Code::DeadlineExceeded, Code::Cancelled, Code::Unknown, Code::Internal] {
            assert!(matches!(fault(code, "whatever"), Fault::Lost(_)), "{code:?}");
        }
    }

    #[test]
    fn an_answer_is_an_answer() {
        let text = "etcdserver: requested lease not found";
        let Fault::Answered(error) = fault(Code::NotFound, text) else { panic!("not taken as an answer") };
        assert!(error.is_not_found());
        assert_eq!(Failure::from(error), Failure::LeaseUnknown);
    }

    #[test]
    fn reasons_are_read_from_the_details() {
        let info = ErrorInfo { reason: "STALE_TOKEN".into() }.encode_to_vec();
        let detail = Detail { type_url: "type.googleapis.com/google.rpc.ErrorInfo".into(), value: info };
        let details = Details { details: vec![detail] }.encode_to_vec();
        let status = Status::with_details(Code::FailedPrecondition, "not the holder", details.into());
        assert_eq!(Fault::of(&status), Fault::Answered(Error::Stale("not the holder".into())));
        assert_eq!(reason(&Status::with_details(Code::Unavailable, "", vec![0xff, 1].into())), "");
    }
}
