//! What can be asked of elections without changing them, and their rules.

use tenure_proto::etcdserverpb::{RangeRequest, TxnRequest};
use tenure_proto::tenure::v1::election_leader_response::Pause;
use tenure_proto::tenure::v1::election_term::End;
use tenure_proto::tenure::v1::list_elections_response::Election;
use tenure_proto::tenure::v1::{
    ElectionHistoryRequest, ElectionHistoryResponse, ElectionLeaderRequest, ElectionLeaderResponse,
    ElectionPolicyRequest, ElectionPolicyResponse, ElectionTerm, ListElectionsRequest, ListElectionsResponse,
};

use super::keys::Timer;
use super::state::{self, State};
use super::wellformed;
use super::{Elections, UNKNOWN_MAX, asked, header};
use crate::guard;
use crate::primitives::{Failure, Primitives};
use crate::refusal::Error;

/// Elections on one page: each is three ranges of one txn.
const ELECTIONS_PAGE_MAX: i64 = 40;
const HISTORY_PAGE: i64 = 100;
const HISTORY_PAGE_MAX: i64 = 1_000;

impl<P: Primitives> Elections<P> {
    pub async fn leader(&self, request: &ElectionLeaderRequest) -> Result<ElectionLeaderResponse, Error> {
        wellformed::name(&request.name)?;
        let keys = self.keys(&request.name);
        let state = self.read(&keys).await?;
        let leading = state.leading();
        let mut response = ElectionLeaderResponse {
            header: header(state.revision),
            vacant: leading.is_none(),
            term: state.last.as_ref().map(|last| last.value.clone()),
            guard: leading.map(|term| guard::of(&keys.leader(term.epoch), term.token)),
            pause: pause(&state).into(),
            ..ElectionLeaderResponse::default()
        };
        if let (Some(term), Some(_)) = (&mut response.term, state.lost()) {
            term.set_end(End::SessionExpired);
        }
        if request.detail {
            response.candidates = state.candidates.into_iter().map(|candidate| candidate.value).collect();
            response.handover = state.handover.map(|handover| handover.value);
            response.policy = Some(state.policy.told());
        }
        Ok(response)
    }

    /// The terms on record, the newest first; the one under way is the first of all.
    pub async fn history(&self, request: &ElectionHistoryRequest) -> Result<ElectionHistoryResponse, Error> {
        wellformed::name(&request.name)?;
        let keys = self.keys(&request.name);
        let state = self.read(&keys).await?;
        let limit = if request.limit <= 0 { HISTORY_PAGE } else { request.limit.min(HISTORY_PAGE_MAX) };
        let before = if request.before_epoch <= 0 { i64::MAX } else { request.before_epoch };
        let before = before.min(state.epoch() + 1);
        // Only what has not ended on record is not among the past ones.
        let running = state.last.filter(|last| last.value.end() == End::Running && last.value.epoch < before);
        let until = running.as_ref().map_or(before, |last| last.value.epoch);
        let mut terms: Vec<ElectionTerm> = running.map(|last| last.value).into_iter().collect();
        let wanted = limit - i64::try_from(terms.len()).unwrap_or(limit);
        // Epochs have no gaps but the one at the beginning.
        let from = (until - wanted).max(0);
        let range = RangeRequest {
            key: keys.past(from).into(),
            range_end: keys.past(until).into(),
            revision: state.revision,
            ..RangeRequest::default()
        };
        let older = RangeRequest {
            key: keys.past(0).into(),
            range_end: keys.past(from).into(),
            revision: state.revision,
            count_only: true,
            ..RangeRequest::default()
        };
        let response = self.primitives.txn(asked::read([range, older])).await?;
        let mut ranges = asked::ranges(response);
        let past = ranges.next().unwrap_or_default().kvs;
        for kv in past.iter().rev() {
            terms.push(state::past(kv)?);
        }
        let more = ranges.next().is_some_and(|older| older.count > 0);
        Ok(ElectionHistoryResponse { header: header(state.revision), terms, more })
    }

    pub async fn policy(&self, request: &ElectionPolicyRequest) -> Result<ElectionPolicyResponse, Error> {
        wellformed::name(&request.name)?;
        let keys = self.keys(&request.name);
        if let Some(policy) = &request.set {
            wellformed::policy(policy)?;
            let txn =
                TxnRequest { success: vec![asked::put(keys.policy(), policy, 0)], ..TxnRequest::default() };
            self.put_again(txn).await?;
            self.help(&keys).await?;
        }
        let state = self.read(&keys).await?;
        Ok(ElectionPolicyResponse { header: header(state.revision), policy: Some(state.policy.told()) })
    }

    /// A page of elections by name, in the order of their keys.
    pub async fn list(&self, request: &ListElectionsRequest) -> Result<ListElectionsResponse, Error> {
        let limit = match request.limit {
            1..ELECTIONS_PAGE_MAX => request.limit,
            _ => ELECTIONS_PAGE_MAX,
        };
        let (first, to) = self.root.below(&["elections"]);
        let mut from = first.max(self.root.key(&["elections", &request.prefix]));
        if !request.after.is_empty() {
            let mut behind = self.root.key(&["elections", &request.after]);
            behind.push(0);
            from = from.max(behind);
        }
        let range = RangeRequest { limit: limit + 1, keys_only: true, ..asked::range((from, to)) };
        let response = self.primitives.range(range).await?;
        let revision = response.header.map_or(0, |header| header.revision);
        let mut names: Vec<String> = response
            .kvs
            .iter()
            .filter_map(|kv| self.root.segments(&kv.key)?.into_iter().nth(1))
            .take_while(|name| name.starts_with(&request.prefix))
            .collect();
        let page = usize::try_from(limit).unwrap_or(names.len());
        let more = names.len() > page;
        names.truncate(page);
        let elections = self.summaries(names, revision).await?;
        Ok(ListElectionsResponse { header: header(revision), elections, more })
    }

    async fn summaries(&self, names: Vec<String>, revision: i64) -> Result<Vec<Election>, Failure> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let ranges = names.iter().flat_map(|name| {
            let keys = self.keys(name);
            let counted = RangeRequest { count_only: true, ..asked::range(keys.candidates()) };
            [asked::key(keys.now()), asked::range(keys.leaders()), counted]
                .map(|range| RangeRequest { revision, ..range })
        });
        let response = self.primitives.txn(asked::read(ranges)).await?;
        let mut ranges = asked::ranges(response);
        let mut elections = Vec::with_capacity(names.len());
        for name in names {
            let now = ranges.next().unwrap_or_default();
            let leaders = ranges.next().unwrap_or_default();
            let candidates = ranges.next().unwrap_or_default().count;
            let term = now.kvs.first().map(state::term).transpose()?.map(|term| term.value);
            elections.push(Election { name, vacant: leaders.kvs.is_empty(), term, candidates });
        }
        Ok(elections)
    }

    /// Twice is the same as once.
    async fn put_again(&self, txn: TxnRequest) -> Result<(), Failure> {
        for _ in 0..UNKNOWN_MAX {
            match self.primitives.txn(txn.clone()).await {
                Err(Failure::Unknown(_)) => {}
                answer => return answer.map(|_| ()),
            }
        }
        self.primitives.txn(txn).await.map(|_| ())
    }
}

/// Why nobody is elected at this moment.
fn pause(state: &State) -> Pause {
    if state.led {
        return Pause::None;
    }
    if state.runs(Timer::Delay)
        || (state.lost().is_some() && state.policy.lock_delay_s > 0 && !state.session_end.closed)
    {
        return Pause::LockDelay;
    }
    match (state.best(), state.runs(Timer::Settle)) {
        (None, _) => Pause::NoCandidate,
        (Some(_), true) => Pause::Settle,
        (Some(_), false) => Pause::None,
    }
}
