//! Whether a call about an election can be right at all: limits, checked before anything is asked of the store.

use tenure_proto::tenure::v1::{
    CampaignRequest, ElectionPolicy, ElectionProclaimRequest, ElectionResignRequest, TransferRequest,
    UpdateCandidateRequest,
};

use crate::check;
use crate::refusal::{Reason, Refusal};

/// Candidates of one election. All of them are read whenever a leader is chosen; more than a few are rare.
pub const CANDIDATES_MAX: usize = 1_000;
/// Bytes of what a candidate or a leader proclaims. History keeps the last of each term.
pub const VALUE_BYTES_MAX: usize = 8 << 10;

const PAUSE_S_MAX: i64 = 3_600;
const TENURE_S_MAX: i64 = 86_400;
const HISTORY_TERMS_MAX: i64 = 10_000;

pub(super) fn name(name: &str) -> Result<(), Refusal> {
    check::name("election", name)
}

pub(super) fn candidate(name: &str, id: &str, session: i64) -> Result<(), Refusal> {
    check::name("election", name)?;
    check::id("candidate", id)?;
    check::session(session)
}

pub(super) fn campaign(request: &CampaignRequest) -> Result<(), Refusal> {
    candidate(&request.name, &request.candidate_id, request.session_id)?;
    check::labels(&request.labels)?;
    value(&request.value)
}

pub(super) fn update(request: &UpdateCandidateRequest) -> Result<(), Refusal> {
    candidate(&request.name, &request.candidate_id, request.session_id)?;
    check::labels(&request.labels)?;
    value(request.value())?;
    seq(request.seq)
}

pub(super) fn proclaim(request: &ElectionProclaimRequest) -> Result<(), Refusal> {
    name(&request.name)?;
    token(request.token)?;
    value(&request.value)?;
    seq(request.seq)
}

pub(super) fn resign(request: &ElectionResignRequest) -> Result<(), Refusal> {
    name(&request.name)?;
    token(request.token)?;
    check::optional_id("successor's", &request.successor_id)?;
    check::note(&request.note)
}

pub(super) fn transfer(request: &TransferRequest) -> Result<(), Refusal> {
    name(&request.name)?;
    check::id("transfer", &request.transfer_id)?;
    check::id("candidate", &request.to_candidate_id)?;
    check::optional_id("requester's", &request.requested_by)?;
    seconds("deadline_s", request.deadline_s, PAUSE_S_MAX)
}

pub(super) fn token(token: i64) -> Result<(), Refusal> {
    if token > 0 {
        return Ok(());
    }
    Err(Refusal::new(Reason::Invalid, "the call has no token; send the one that came with the election"))
}

pub(super) fn policy(policy: &ElectionPolicy) -> Result<(), Refusal> {
    seconds("settle_s", policy.settle_s, PAUSE_S_MAX)?;
    seconds("lock_delay_s", policy.lock_delay_s, PAUSE_S_MAX)?;
    seconds("min_tenure_s", policy.min_tenure_s, TENURE_S_MAX)?;
    seconds("preemption_grace_s", policy.preemption_grace_s, PAUSE_S_MAX)?;
    seconds("history_terms", policy.history_terms, HISTORY_TERMS_MAX)?;
    check::labels(&policy.required_labels)
}

fn seconds(what: &str, given: i64, max: i64) -> Result<(), Refusal> {
    if (0..=max).contains(&given) {
        return Ok(());
    }
    Err(Refusal::new(Reason::Invalid, format!("{what} is 0 to {max}, not {given}")))
}

fn seq(seq: i64) -> Result<(), Refusal> {
    if seq > 0 {
        return Ok(());
    }
    Err(Refusal::new(Reason::Invalid, "the call has no seq; count from 1, so that a repeat changes nothing"))
}

fn value(value: &str) -> Result<(), Refusal> {
    if value.len() <= VALUE_BYTES_MAX {
        return Ok(());
    }
    let text = format!(
        "a value has at most {VALUE_BYTES_MAX} bytes, not {}; proclaim where the rest is",
        value.len()
    );
    Err(Refusal::new(Reason::Invalid, text))
}
