//! The answers of recipes that are no: what a caller must change, or accept, before asking again. What is an expected outcome (busy,
//! queued, not the holder any more) is not here: recipes return it as data. Codes of the wire are the server's business.

use std::collections::BTreeMap;

use crate::primitives::Failure;

/// Why a recipe did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The store did not do it, or may not have done it.
    #[error(transparent)]
    Failed(#[from] Failure),
    #[error(transparent)]
    Refused(#[from] Refusal),
}

/// One line for people, and what programs go by.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Refusal {
    pub reason: Reason,
    /// What was asked, of what, and what to do instead.
    pub text: String,
    /// Facts that belong to the reason, by name.
    pub details: BTreeMap<&'static str, String>,
}

/// What programs go by. The names are part of the API: see [`Reason::name`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The session is over, and with it all that it held: open a new one and start over.
    SessionGone,
    /// The grant that the token stands for has ended: stop.
    StaleToken,
    /// The number of permits that the caller expects is not the one that is set.
    CapacityMismatch,
    PolicyConflict,
    /// The lock or grant is of another mode than what was asked needs.
    WrongMode,
    /// The same identity asked for something else before.
    IdentityConflict,
    /// Another living process has the id.
    AlreadyRegistered,
    /// There is nothing of that name or id.
    NotFound,
    NameInvalid,
    IdInvalid,
    LabelsInvalid,
    TtlOutOfRange,
    /// Something else in the call can never be right.
    Invalid,
    QueueFull,
    /// A limit that is not a queue's.
    Quota,
}

impl Reason {
    /// As in `google.rpc.ErrorInfo`.
    pub fn name(self) -> &'static str {
        match self {
            Reason::SessionGone => "SESSION_GONE",
            Reason::StaleToken => "STALE_TOKEN",
            Reason::CapacityMismatch => "CAPACITY_MISMATCH",
            Reason::PolicyConflict => "POLICY_CONFLICT",
            Reason::WrongMode => "WRONG_MODE",
            Reason::IdentityConflict => "IDENTITY_CONFLICT",
            Reason::AlreadyRegistered => "ALREADY_REGISTERED",
            Reason::NotFound => "NOT_FOUND",
            Reason::NameInvalid => "NAME_INVALID",
            Reason::IdInvalid => "ID_INVALID",
            Reason::LabelsInvalid => "LABELS_INVALID",
            Reason::TtlOutOfRange => "TTL_OUT_OF_RANGE",
            Reason::Invalid => "INVALID",
            Reason::QueueFull => "QUEUE_FULL",
            Reason::Quota => "QUOTA",
        }
    }
}

impl Refusal {
    pub fn new(reason: Reason, text: impl Into<String>) -> Refusal {
        Refusal { reason, text: text.into(), details: BTreeMap::new() }
    }

    /// With one more fact for programs.
    pub fn with(mut self, name: &'static str, value: impl ToString) -> Refusal {
        self.details.insert(name, value.to_string());
        self
    }

    pub fn session_gone(session: i64) -> Refusal {
        let text = format!("session {session:x} is over, and with it all that it held; open a new one");
        Refusal::new(Reason::SessionGone, text).with("session", format!("{session:x}"))
    }

    pub fn stale_token(name: &str, token: i64) -> Refusal {
        let text = format!("token {token} of {name:?} is not valid any more: stop what it was granted for");
        Refusal::new(Reason::StaleToken, text).with("token", token)
    }
}
