//! One step of an election, as data, and the one txn that takes it. Every change of terms goes through here, so that each revision has
//! at most one leader, and every end is on record in the revision that it is decided in. It knows nothing of why.

use tenure_proto::etcdserverpb::{Compare, RequestOp, TxnRequest};
use tenure_proto::tenure::v1::election_term::End;
use tenure_proto::tenure::v1::transfer_event::{Phase, Reason};
use tenure_proto::tenure::v1::{Candidate, ElectionTerm, EndedTransfer, Handover};

use super::asked;
use super::keys::{Keys, Timer};
use super::state::{Kept, State};

/// Switchovers whose outcome is remembered, so that whoever lost the answer can ask again.
const TRANSFERS_KEPT: usize = 16;

/// What shall happen in one revision. Nothing does by default.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Transition {
    /// The last term ends, or its end is put on record.
    pub end: Option<Ending>,
    /// A candidate's term begins.
    pub start: Option<Start>,
    /// The leader that goes stands again, behind all.
    pub stand_again: bool,
    /// The time to settle begins.
    pub settling: bool,
    pub handover: Option<Switch>,
    /// What is put on leases, and for how many seconds.
    pub timers: Vec<(Timer, i64)>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Ending {
    pub end: End,
    pub note: String,
    /// Of the switchover that ended it, if one did.
    pub transfer_id: String,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Start {
    pub candidate: Kept<Candidate>,
    /// Chosen by the order among candidates, and not by name: then nobody may have come or changed since.
    pub by_order: bool,
}

/// What becomes of the switchover.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Switch {
    Begins(Handover),
    Ends(Phase, Reason),
}

impl Transition {
    /// The term that it begins, without its token, which is the revision that it will get.
    pub(super) fn next_term(&self, state: &State) -> Option<ElectionTerm> {
        let leader = self.start.as_ref()?.candidate.value.clone();
        let value = leader.value.clone();
        Some(ElectionTerm {
            epoch: state.epoch() + 1,
            value,
            leader: Some(leader),
            ..ElectionTerm::default()
        })
    }

    /// What tells this use of a timer from others: the switchover, or the term.
    pub(super) fn about(&self, state: &State) -> String {
        let switch = match &self.handover {
            Some(Switch::Begins(handover)) => &handover.transfer_id,
            Some(Switch::Ends(..)) | None => "",
        };
        format!("{}/{switch}", state.epoch() + i64::from(self.start.is_some()))
    }

    /// `leases` are those of the timers, in their order. Without `in_order` a candidate may be elected though a better one came
    /// since the state was read.
    pub(super) fn txn(&self, keys: &Keys, state: &State, leases: &[i64], in_order: bool) -> TxnRequest {
        let mut success = Vec::new();
        self.end_term(keys, state, &mut success);
        self.start_term(keys, state, &mut success);
        self.switch_over(keys, state, &mut success);
        for ((timer, _), lease) in self.timers.iter().zip(leases) {
            success.push(asked::put_text(keys.timer(*timer), &state.epoch().to_string(), *lease));
        }
        if self.settling {
            success.push(asked::put_text(keys.settling(), &state.epoch().to_string(), 0));
        }
        TxnRequest { compare: self.compares(keys, state, in_order), success, failure: Vec::new() }
    }

    /// That all is as it was read, as far as this step depends on it. Timers need none: what was over when it was read only begins anew with
    /// another term or switchover.
    fn compares(&self, keys: &Keys, state: &State, in_order: bool) -> Vec<Compare> {
        let changed = |kept: Option<i64>| kept.unwrap_or(0);
        let mut compares = vec![
            asked::changed(keys.now(), changed(state.last.as_ref().map(|last| last.changed))),
            asked::changed(
                keys.handover(),
                changed(state.handover.as_ref().map(|handover| handover.changed)),
            ),
        ];
        // A leader that was gone cannot be there again without a new last term.
        if let Some(term) = state.leading() {
            compares.push(asked::created(keys.leader(term.epoch), term.token));
        }
        if let Some(Start { candidate, by_order }) = &self.start {
            let Candidate { id, session_id, .. } = &candidate.value;
            compares.push(asked::changed(keys.candidate(id, *session_id), candidate.changed));
            if *by_order && in_order {
                compares.push(asked::unchanged_since(keys.candidates(), state.revision));
            }
        }
        if self.settling {
            compares
                .push(asked::changed(keys.settling(), changed(state.settling.as_ref().map(|it| it.changed))));
        }
        compares
    }

    fn end_term(&self, keys: &Keys, state: &State, success: &mut Vec<RequestOp>) {
        let (Some(Ending { end, note, transfer_id }), Some(last)) = (&self.end, &state.last) else { return };
        let mut record = last.value.clone();
        record.set_end(*end);
        record.note.clone_from(note);
        record.transfer_id.clone_from(transfer_id);
        success.push(asked::put(keys.past(record.epoch), &record, 0));
        let oldest = record.epoch + 1 - state.policy.history_terms;
        if oldest > 1 {
            success.push(asked::delete_below((keys.past(0), keys.past(oldest))));
        }
        if self.start.is_none() {
            success.push(asked::put(keys.now(), &record, 0));
        }
        if state.led {
            success.push(asked::delete(keys.leader(record.epoch)));
        }
        if let (true, Some(leader)) = (self.stand_again, record.leader) {
            let again = Candidate { seq: 0, since_revision: 0, ..leader };
            success.push(asked::put(keys.candidate(&again.id, again.session_id), &again, again.session_id));
        }
    }

    fn start_term(&self, keys: &Keys, state: &State, success: &mut Vec<RequestOp>) {
        let Some(term) = self.next_term(state) else { return };
        let Some(leader) = &term.leader else { return };
        success.push(asked::delete(keys.candidate(&leader.id, leader.session_id)));
        success.push(asked::put(keys.leader(term.epoch), leader, leader.session_id));
        success.push(asked::put(keys.now(), &term, 0));
    }

    fn switch_over(&self, keys: &Keys, state: &State, success: &mut Vec<RequestOp>) {
        match (&self.handover, &state.handover) {
            (Some(Switch::Begins(handover)), _) => success.push(asked::put(keys.handover(), handover, 0)),
            (Some(Switch::Ends(phase, reason)), Some(handover)) => {
                success.push(asked::delete(keys.handover()));
                success.push(asked::delete(keys.timer(Timer::Deadline)));
                let record = EndedTransfer {
                    phase: (*phase).into(),
                    reason: (*reason).into(),
                    epoch: state.epoch() + i64::from(self.start.is_some()),
                    handover: Some(handover.value.clone()),
                };
                success.push(asked::put(keys.transfer(&handover.value.transfer_id), &record, 0));
                let surplus = (state.transfers.len() + 1).saturating_sub(TRANSFERS_KEPT);
                for old in state.transfers.iter().take(surplus) {
                    let id = old.value.handover.as_ref().map_or("", |it| &it.transfer_id);
                    if id != handover.value.transfer_id {
                        success.push(asked::delete(keys.transfer(id)));
                    }
                }
            }
            (Some(Switch::Ends(..)) | None, _) => {}
        }
    }
}
