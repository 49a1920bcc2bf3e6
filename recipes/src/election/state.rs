//! All that an election is at one revision, as read from its keys, and the order among candidates. Pure: the txn that reads it is
//! made here, and asked elsewhere.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use prost::Message;
use tenure_proto::etcdserverpb::{TxnRequest, TxnResponse};
use tenure_proto::mvccpb::KeyValue;
use tenure_proto::tenure::v1::election_policy::Preemption;
use tenure_proto::tenure::v1::election_term::End;
use tenure_proto::tenure::v1::{Candidate, ElectionPolicy, ElectionTerm, EndedTransfer, Handover};

use super::asked;
use super::keys::{Keys, Place, Timer};
use crate::primitives::Failure;

/// Terms on record, unless the policy says otherwise.
pub(super) const HISTORY_TERMS: i64 = 1_000;
/// Seconds that a leader has to hand over, unless somebody says otherwise.
pub(super) const DEADLINE_S: i64 = 30;

/// An election at one revision.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct State {
    pub revision: i64,
    pub policy: Policy,
    /// The term under way, or the one that ended last.
    pub last: Option<Kept<ElectionTerm>>,
    /// The last term's leader has its key, and so its session.
    pub led: bool,
    /// In the order of election, also those who are not eligible.
    pub candidates: Vec<Kept<Candidate>>,
    pub timers: Vec<Timer>,
    pub handover: Option<Kept<Handover>>,
    /// When the time to settle began, and behind which epoch.
    pub settling: Option<Kept<i64>>,
    /// Switchovers that are over and on record, the oldest first.
    pub transfers: Vec<Kept<EndedTransfer>>,
    /// How the session of a leader that is gone ended, as far as that is known. Read apart.
    pub session_end: SessionEnd,
}

/// What a key holds, and the revision that put it there.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Kept<T> {
    pub value: T,
    pub changed: i64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SessionEnd {
    /// By its owner's word: nothing is to be feared of it any more.
    pub closed: bool,
    pub note: String,
}

/// The rules, with what was left open filled in.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Policy {
    /// It has a key.
    pub kept: bool,
    pub settle_s: i64,
    pub lock_delay_s: i64,
    pub min_tenure_s: i64,
    pub preempts: bool,
    pub grace_s: i64,
    pub history_terms: i64,
    pub required_labels: BTreeMap<String, String>,
}

impl State {
    /// What reads it, at one revision.
    pub(super) fn read(keys: &Keys) -> TxnRequest {
        asked::read([
            asked::key(keys.policy()),
            asked::key(keys.now()),
            asked::range(keys.leaders()),
            asked::range(keys.candidates()),
            asked::range(keys.timers()),
            asked::key(keys.handover()),
            asked::key(keys.settling()),
            asked::range(keys.transfers()),
        ])
    }

    /// From what [`State::read`] gave.
    pub(super) fn of(keys: &Keys, response: TxnResponse) -> Result<State, Failure> {
        let mut state = State { revision: asked::revision(&response), ..State::default() };
        let mut policy = None;
        let mut leading = None;
        for kv in asked::ranges(response).flat_map(|range| range.kvs) {
            if kv.key == keys.policy() {
                policy = Some(decode::<ElectionPolicy>(&kv)?);
                continue;
            }
            match keys.place(&kv.key) {
                Some(Place::Leader(epoch)) => leading = Some(epoch),
                Some(place) => state.take(place, &kv)?,
                None => {}
            }
        }
        state.policy = Policy::of(policy);
        state.led = leading.is_some() && leading == state.last.as_ref().map(|last| last.value.epoch);
        state.candidates.sort_by_key(|candidate| order(&candidate.value));
        state.transfers.sort_by_key(|transfer| transfer.changed);
        Ok(state)
    }

    fn take(&mut self, place: Place, kv: &KeyValue) -> Result<(), Failure> {
        match place {
            Place::Now => self.last = Some(term(kv)?),
            Place::Candidate { .. } => {
                let mut candidate = kept::<Candidate>(kv)?;
                candidate.value.since_revision = kv.create_revision;
                self.candidates.push(candidate);
            }
            Place::Timer(timer) => self.timers.push(timer),
            Place::Handover => self.handover = Some(kept(kv)?),
            Place::Settling => {
                let epoch = std::str::from_utf8(&kv.value).ok().and_then(|text| text.parse().ok());
                let value = epoch.ok_or_else(|| not_ours(kv))?;
                self.settling = Some(Kept { value, changed: kv.mod_revision });
            }
            Place::Transfer(_) => self.transfers.push(kept(kv)?),
            Place::Leader(_) | Place::Past(_) => {}
        }
        Ok(())
    }

    /// Of the last term; 0 if there was none.
    pub(super) fn epoch(&self) -> i64 {
        self.last.as_ref().map_or(0, |last| last.value.epoch)
    }

    /// The term under way, whose leader is there.
    pub(super) fn leading(&self) -> Option<&ElectionTerm> {
        self.last.as_ref().filter(|_| self.led).map(|last| &last.value)
    }

    /// The term under way, if it is this token's.
    pub(super) fn current(&self, token: i64) -> Option<&ElectionTerm> {
        self.leading().filter(|term| term.token == token)
    }

    /// The term under way, if this candidate leads it.
    pub(super) fn led_by(&self, id: &str, session: i64) -> Option<&ElectionTerm> {
        self.leading().filter(|term| {
            term.leader.as_ref().is_some_and(|leader| leader.id == id && leader.session_id == session)
        })
    }

    /// The last term's leader is gone, and that is not on record yet.
    pub(super) fn lost(&self) -> Option<&ElectionTerm> {
        self.last
            .as_ref()
            .filter(|_| !self.led)
            .map(|last| &last.value)
            .filter(|term| term.end() == End::Running)
    }

    pub(super) fn runs(&self, timer: Timer) -> bool {
        self.timers.contains(&timer)
    }

    /// Where this candidate waits in the order.
    pub(super) fn position(&self, id: &str, session: i64) -> Option<usize> {
        self.candidates.iter().position(|it| it.value.id == id && it.value.session_id == session)
    }

    /// The first who may be elected.
    pub(super) fn best(&self) -> Option<&Kept<Candidate>> {
        self.candidates.iter().find(|candidate| self.policy.admits(&candidate.value))
    }

    /// The first of that id, and of that session unless it is 0, who may be elected.
    pub(super) fn named(&self, id: &str, session: i64) -> Option<&Kept<Candidate>> {
        self.candidates.iter().find(|candidate| {
            let it = &candidate.value;
            it.id == id && (session == 0 || it.session_id == session) && self.policy.admits(it)
        })
    }

    /// To whom the switchover under way leads, if that one may still be elected.
    pub(super) fn target(&self) -> Option<&Kept<Candidate>> {
        let handover = &self.handover.as_ref()?.value;
        self.named(&handover.to_candidate_id, handover.to_session_id)
    }

    /// The time to settle behind the last term began, and somebody who may be elected has been there since.
    pub(super) fn settled(&self) -> bool {
        let Some(settling) = self.settling.as_ref().filter(|it| it.value == self.epoch()) else {
            return false;
        };
        self.candidates.iter().any(|candidate| {
            candidate.value.since_revision <= settling.changed && self.policy.admits(&candidate.value)
        })
    }
}

impl Policy {
    pub(super) fn of(policy: Option<ElectionPolicy>) -> Policy {
        let kept = policy.is_some();
        let policy = policy.unwrap_or_default();
        let or = |given: i64, otherwise: i64| if given == 0 { otherwise } else { given };
        Policy {
            kept,
            settle_s: policy.settle_s,
            lock_delay_s: policy.lock_delay_s,
            min_tenure_s: policy.min_tenure_s,
            preempts: policy.preemption() == Preemption::Graceful,
            grace_s: or(policy.preemption_grace_s, DEADLINE_S),
            history_terms: or(policy.history_terms, HISTORY_TERMS),
            required_labels: policy.required_labels,
        }
    }

    /// As the API tells it.
    pub(super) fn told(&self) -> ElectionPolicy {
        let preemption = if self.preempts { Preemption::Graceful } else { Preemption::Never };
        ElectionPolicy {
            settle_s: self.settle_s,
            lock_delay_s: self.lock_delay_s,
            min_tenure_s: self.min_tenure_s,
            preemption: preemption.into(),
            preemption_grace_s: self.grace_s,
            history_terms: self.history_terms,
            required_labels: self.required_labels.clone(),
        }
    }

    /// Whether this candidate may be elected.
    pub(super) fn admits(&self, candidate: &Candidate) -> bool {
        !candidate.ineligible
            && self.required_labels.iter().all(|(name, value)| candidate.labels.get(name) == Some(value))
    }
}

/// Who comes first is elected first: greater priority, then greater rank, then who stood earlier.
fn order(candidate: &Candidate) -> (Reverse<i32>, Reverse<i64>, i64) {
    (Reverse(candidate.priority), Reverse(candidate.rank), candidate.since_revision)
}

/// A term from its key. The grant does not know its own revision: until the key is put again, the key's is the token.
pub(super) fn term(kv: &KeyValue) -> Result<Kept<ElectionTerm>, Failure> {
    let mut term = kept::<ElectionTerm>(kv)?;
    if term.value.token == 0 {
        term.value.token = kv.mod_revision;
    }
    Ok(term)
}

/// A term on record. Its key is put once, at its end.
pub(super) fn past(kv: &KeyValue) -> Result<ElectionTerm, Failure> {
    let mut term = decode::<ElectionTerm>(kv)?;
    term.end_revision = kv.mod_revision;
    Ok(term)
}

pub(super) fn kept<T: Message + Default>(kv: &KeyValue) -> Result<Kept<T>, Failure> {
    Ok(Kept { value: decode(kv)?, changed: kv.mod_revision })
}

pub(super) fn decode<T: Message + Default>(kv: &KeyValue) -> Result<T, Failure> {
    T::decode(kv.value.clone()).map_err(|_| not_ours(kv))
}

fn not_ours(kv: &KeyValue) -> Failure {
    let key = String::from_utf8_lossy(&kv.key);
    Failure::Invalid(format!("key {key:?} was not written by an election; delete it and elect anew"))
}
