//! What a candidate does: it stands, says more of itself, and withdraws.

use tenure_proto::etcdserverpb::TxnRequest;
use tenure_proto::tenure::v1::stand_response::Outcome as Stood;
use tenure_proto::tenure::v1::update_candidate_response::Outcome as Updated;
use tenure_proto::tenure::v1::withdraw_response::Outcome as Withdrew;
use tenure_proto::tenure::v1::{
    CampaignRequest, Candidate, ElectionResignRequest, StandResponse, UpdateCandidateRequest,
    UpdateCandidateResponse, WithdrawRequest, WithdrawResponse,
};

use super::keys::Keys;
use super::state::State;
use super::wellformed::{self, CANDIDATES_MAX};
use super::{Elections, Tries, asked, header};
use crate::guard;
use crate::primitives::{Failure, Primitives};
use crate::refusal::{Error, Reason, Refusal};

impl<P: Primitives> Elections<P> {
    /// Stands unless the candidate does already, and says how it stands.
    pub async fn stand(&self, request: &CampaignRequest) -> Result<StandResponse, Error> {
        let keys = self.keys(&request.name);
        let state = self.enqueue(&keys, request).await?;
        stands(&keys, &state, &request.candidate_id, request.session_id).ok_or_else(|| {
            let session = request.session_id;
            Error::from(Refusal::session_gone(session))
        })
    }

    /// Stands unless the candidate does already. The state behind that, in which nothing is due.
    pub(super) async fn enqueue(&self, keys: &Keys, request: &CampaignRequest) -> Result<State, Error> {
        wellformed::campaign(request)?;
        let (id, session) = (&request.candidate_id, request.session_id);
        let mut tries = Tries::default();
        loop {
            let state = self.read(keys).await?;
            if state.led_by(id, session).is_some() || state.position(id, session).is_some() {
                break;
            }
            if state.candidates.len() >= CANDIDATES_MAX {
                let text =
                    format!("election {:?} has {CANDIDATES_MAX} candidates and takes no more", keys.name());
                return Err(Refusal::new(Reason::QueueFull, text).into());
            }
            let tried = match self.primitives.txn(standing(keys, &state, request)).await {
                Err(Failure::LeaseUnknown) => return Err(Refusal::session_gone(session).into()),
                answer => answer.map(|response| response.succeeded.then(|| asked::revision(&response))),
            };
            if tries.count(keys, tried)?.is_some() {
                break;
            }
        }
        Ok(self.help(keys).await?)
    }

    /// Changes what a waiting candidate said of itself.
    pub async fn update_candidate(
        &self,
        request: &UpdateCandidateRequest,
    ) -> Result<UpdateCandidateResponse, Error> {
        wellformed::update(request)?;
        let keys = self.keys(&request.name);
        let (id, session) = (&request.candidate_id, request.session_id);
        let mut tries = Tries::default();
        loop {
            let state = self.read(&keys).await?;
            let answer = |outcome: Updated, revision| {
                Ok(UpdateCandidateResponse { header: header(revision), outcome: outcome.into() })
            };
            if state.led_by(id, session).is_some() {
                return answer(Updated::Leading, state.revision);
            }
            let Some(at) = state.position(id, session) else {
                return answer(Updated::NotStanding, state.revision);
            };
            let found = &state.candidates[at];
            if found.value.seq >= request.seq {
                // If it was this very update, whose answer was lost, what it led to is still to be done.
                self.help(&keys).await?;
                let outcome = if tries.unknown > 0 { Updated::Updated } else { Updated::Superseded };
                return answer(outcome, state.revision);
            }
            let key = keys.candidate(id, session);
            let candidate = updated(&found.value, request);
            let txn = TxnRequest {
                compare: vec![asked::changed(key.clone(), found.changed)],
                success: vec![asked::put(key, &candidate, session)],
                failure: Vec::new(),
            };
            let tried = self.primitives.txn(txn).await;
            let tried = tried.map(|response| response.succeeded.then(|| asked::revision(&response)));
            if let Some(revision) = tries.count(&keys, tried)? {
                self.help(&keys).await?;
                return answer(Updated::Updated, revision);
            }
        }
    }

    /// Ends a candidacy, in whichever state it is.
    pub async fn withdraw(&self, request: &WithdrawRequest) -> Result<WithdrawResponse, Error> {
        wellformed::candidate(&request.name, &request.candidate_id, request.session_id)?;
        let keys = self.keys(&request.name);
        let (id, session) = (&request.candidate_id, request.session_id);
        let mut tries = Tries::default();
        loop {
            let state = self.read(&keys).await?;
            let answer = |outcome: Withdrew, revision| {
                Ok(WithdrawResponse { header: header(revision), outcome: outcome.into() })
            };
            if let Some(term) = state.led_by(id, session) {
                let (name, token) = (request.name.clone(), term.token);
                // A switchover that waits for a candidate who is gone does not hold back who wants to leave.
                self.resign(&ElectionResignRequest { name: name.clone(), token, ..Default::default() })
                    .await?;
                let resigned = self.read(&keys).await?;
                if resigned.current(token).is_none() {
                    return answer(Withdrew::Resigned, resigned.revision);
                }
                tries.count(&keys, Ok(None))?;
                continue;
            }
            let Some(at) = state.position(id, session) else {
                let outcome = if tries.unknown > 0 { Withdrew::Withdrawn } else { Withdrew::NotStanding };
                return answer(outcome, state.revision);
            };
            let key = keys.candidate(id, session);
            let txn = TxnRequest {
                compare: vec![asked::created(key.clone(), state.candidates[at].value.since_revision)],
                success: vec![asked::delete(key)],
                failure: Vec::new(),
            };
            let tried = self.primitives.txn(txn).await;
            let tried = tried.map(|response| response.succeeded.then(|| asked::revision(&response)));
            if let Some(revision) = tries.count(&keys, tried)? {
                self.help(&keys).await?;
                return answer(Withdrew::Withdrawn, revision);
            }
        }
    }
}

/// How a candidate stands; None: it does not.
pub(super) fn stands(keys: &Keys, state: &State, id: &str, session: i64) -> Option<StandResponse> {
    let response = StandResponse { header: header(state.revision), ..StandResponse::default() };
    if let Some(term) = state.led_by(id, session) {
        return Some(StandResponse {
            outcome: Stood::Leading.into(),
            guard: Some(guard::of(&keys.leader(term.epoch), term.token)),
            term: Some(term.clone()),
            handover: state.handover.as_ref().map(|handover| handover.value.clone()),
            ..response
        });
    }
    let ahead = state.position(id, session)?.try_into().ok()?;
    Some(StandResponse { outcome: Stood::Queued.into(), ahead, term: state.leading().cloned(), ..response })
}

/// The candidate's key, if it neither waits nor leads. An election's first candidate puts the rules down, so that the election is found
/// by its name.
fn standing(keys: &Keys, state: &State, request: &CampaignRequest) -> TxnRequest {
    let candidate = Candidate {
        id: request.candidate_id.clone(),
        session_id: request.session_id,
        priority: request.priority,
        rank: request.rank,
        ineligible: request.ineligible,
        labels: request.labels.clone(),
        value: request.value.clone(),
        ..Candidate::default()
    };
    let key = keys.candidate(&candidate.id, candidate.session_id);
    let last = state.last.as_ref().map_or(0, |last| last.changed);
    let mut txn = TxnRequest {
        compare: vec![asked::created(key.clone(), 0), asked::changed(keys.now(), last)],
        success: vec![asked::put(key, &candidate, candidate.session_id)],
        failure: Vec::new(),
    };
    if !state.policy.kept {
        txn.compare.push(asked::created(keys.policy(), 0));
        txn.success.push(asked::put(keys.policy(), &state.policy.told(), 0));
    }
    txn
}

fn updated(candidate: &Candidate, request: &UpdateCandidateRequest) -> Candidate {
    let labels = if request.replace_labels { &request.labels } else { &candidate.labels };
    Candidate {
        id: candidate.id.clone(),
        session_id: candidate.session_id,
        priority: request.priority.unwrap_or(candidate.priority),
        rank: request.rank.unwrap_or(candidate.rank),
        ineligible: request.ineligible.unwrap_or(candidate.ineligible),
        labels: labels.clone(),
        value: request.value.clone().unwrap_or_else(|| candidate.value.clone()),
        seq: request.seq,
        since_revision: 0,
    }
}
