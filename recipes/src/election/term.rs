//! What is done with a term by its token: its leader proclaims and resigns, an operator deposes. A token whose term is over changes
//! nothing, and is told so.

use tenure_proto::etcdserverpb::{RangeRequest, TxnRequest};
use tenure_proto::tenure::v1::depose_response::Outcome as Deposed;
use tenure_proto::tenure::v1::election_proclaim_response::Outcome as Proclaimed;
use tenure_proto::tenure::v1::election_resign_response::Outcome as Resigned;
use tenure_proto::tenure::v1::election_term::End;
use tenure_proto::tenure::v1::{
    DeposeRequest, DeposeResponse, ElectionProclaimRequest, ElectionProclaimResponse, ElectionResignRequest,
    ElectionResignResponse, ElectionTerm,
};

use super::keys::Keys;
use super::rules::{self, Departure};
use super::wellformed;
use super::{Decided, Elections, Tries, asked, header, state};
use crate::check;
use crate::primitives::{Failure, Primitives};
use crate::refusal::Error;

impl<P: Primitives> Elections<P> {
    /// Changes the leader's value.
    pub async fn proclaim(
        &self,
        request: &ElectionProclaimRequest,
    ) -> Result<ElectionProclaimResponse, Error> {
        wellformed::proclaim(request)?;
        let keys = self.keys(&request.name);
        let mut tries = Tries::default();
        loop {
            let state = self.read(&keys).await?;
            let answer = |outcome: Proclaimed, revision| {
                Ok(ElectionProclaimResponse { header: header(revision), outcome: outcome.into() })
            };
            let (Some(term), Some(last)) = (state.current(request.token), &state.last) else {
                return answer(Proclaimed::NotCurrent, state.revision);
            };
            if term.seq >= request.seq {
                let outcome = if tries.unknown > 0 { Proclaimed::Proclaimed } else { Proclaimed::Superseded };
                return answer(outcome, state.revision);
            }
            let said = ElectionTerm { value: request.value.clone(), seq: request.seq, ..term.clone() };
            let txn = TxnRequest {
                compare: vec![
                    asked::changed(keys.now(), last.changed),
                    asked::created(keys.leader(term.epoch), term.token),
                ],
                success: vec![asked::put(keys.now(), &said, 0)],
                failure: Vec::new(),
            };
            let tried = self.primitives.txn(txn).await;
            let tried = tried.map(|response| response.succeeded.then(|| asked::revision(&response)));
            if let Some(revision) = tries.count(&keys, tried)? {
                return answer(Proclaimed::Proclaimed, revision);
            }
        }
    }

    /// Ends the token's term for its leader. If anybody may lead, that one's term begins in the same revision.
    pub async fn resign(&self, request: &ElectionResignRequest) -> Result<ElectionResignResponse, Error> {
        wellformed::resign(request)?;
        let keys = self.keys(&request.name);
        let rule = |state: &state::State| rules::resign(state, request);
        let Decided { answer, revision, done, next } = self.decide(&keys, rule).await?;
        let (outcome, revision) = match answer {
            Departure::NoSuchSuccessor => (Resigned::NoSuchSuccessor, revision),
            Departure::Gone if done => (Resigned::Resigned, revision),
            Departure::Gone | Departure::NotCurrent => {
                let (ended, revision) = self.ended(&keys, request.token).await?;
                let own_word = [End::Resigned, End::Transferred, End::Closed];
                match ended.filter(|term| own_word.contains(&term.end())) {
                    Some(_) => (Resigned::Resigned, revision),
                    None => (Resigned::NotCurrent, revision),
                }
            }
        };
        Ok(ElectionResignResponse { header: header(revision), outcome: outcome.into(), next })
    }

    /// Ends the token's term for an operator.
    pub async fn depose(&self, request: &DeposeRequest) -> Result<DeposeResponse, Error> {
        wellformed::name(&request.name)?;
        wellformed::token(request.token)?;
        check::note(&request.note)?;
        let keys = self.keys(&request.name);
        let rule =
            |state: &state::State| rules::depose(state, request.token, &request.note, request.skip_delay);
        let Decided { revision, done, next, .. } = self.decide(&keys, rule).await?;
        if done {
            let outcome = Deposed::Deposed.into();
            return Ok(DeposeResponse { header: header(revision), outcome, next });
        }
        let (ended, revision) = self.ended(&keys, request.token).await?;
        let outcome = match ended.filter(|term| term.end() == End::Deposed) {
            Some(_) => Deposed::Deposed,
            None => Deposed::NotCurrent,
        };
        Ok(DeposeResponse { header: header(revision), outcome: outcome.into(), next })
    }

    /// The term of this token, if it is over and on record.
    async fn ended(&self, keys: &Keys, token: i64) -> Result<(Option<ElectionTerm>, i64), Failure> {
        // The terms before it had ended when it began, so of those on record it is the first that ended later.
        let (from, to) = keys.pasts();
        let range = RangeRequest {
            key: from.into(),
            range_end: to.into(),
            min_mod_revision: token + 1,
            limit: 1,
            ..RangeRequest::default()
        };
        let response = self.primitives.range(range).await?;
        let revision = response.header.map_or(0, |header| header.revision);
        let found = response.kvs.first().map(state::past).transpose()?;
        Ok((found.filter(|term| term.token == token), revision))
    }
}
