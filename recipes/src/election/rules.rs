//! What an election demands in a given state: who leads next, when nobody may, and what resigning, deposing and switching over do. Pure
//! functions from a state to a step or an answer.

use tenure_proto::tenure::v1::election_term::End;
use tenure_proto::tenure::v1::transfer_event::{Phase, Reason};
use tenure_proto::tenure::v1::{
    Candidate, ElectionResignRequest, ElectionTerm, EndedTransfer, Handover, TransferRequest,
};

use super::keys::Timer;
use super::state::{DEADLINE_S, Kept, State};
use super::transition::{Ending, Start, Switch, Transition};

/// What a rule says: an answer, or a step with the answer that it will be when it is done.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Verdict<T> {
    Say(T),
    Do(Box<Transition>, T),
}

/// What became of a wish to resign or to depose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Departure {
    Gone,
    NotCurrent,
    NoSuchSuccessor,
}

/// What became of a wish to switch over.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Switching {
    Under(Handover),
    Over(EndedTransfer),
    /// The target leads already.
    Leads(ElectionTerm),
    No(Reason),
}

/// What is due in this state without anybody's wish; None: nothing.
pub(super) fn due(state: &State) -> Option<Transition> {
    match state.leading() {
        Some(term) => due_under(state, term),
        None => due_in_vacancy(state),
    }
}

/// The holder of the token goes.
pub(super) fn resign(state: &State, request: &ElectionResignRequest) -> Verdict<Departure> {
    if state.current(request.token).is_none() {
        return Verdict::Say(Departure::NotCurrent);
    }
    let switch = state.handover.as_ref().map(|handover| &handover.value);
    let named = !request.successor_id.is_empty();
    let chosen = match switch {
        _ if named => state.named(&request.successor_id, request.successor_session_id),
        Some(_) => state.target(),
        None => state.best(),
    };
    let is_target = chosen.is_some() && same(chosen, state.target());
    // Who closes its session goes, whether or not the successor is there.
    if chosen.is_none() && (named || switch.is_some()) && !request.closing {
        let aimed = switch.is_some() && state.target().is_none();
        let give_up = Transition { handover: Some(given_up(Reason::TargetGone)), ..Transition::default() };
        return if aimed {
            Verdict::Do(Box::new(give_up), Departure::NoSuchSuccessor)
        } else {
            Verdict::Say(Departure::NoSuchSuccessor)
        };
    }
    let by_order = chosen.is_none() || (!named && switch.is_none());
    let chosen = chosen.or_else(|| state.best());
    let end = match (request.closing, chosen.is_some() && !by_order) {
        (true, _) => End::Closed,
        (false, true) => End::Transferred,
        (false, false) => End::Resigned,
    };
    let transfer_id = switch.filter(|_| is_target).map_or("", |switch| &switch.transfer_id);
    let handover = switch.map(|_| match is_target {
        true => Switch::Ends(Phase::Committed, Reason::None),
        false => given_up(if state.target().is_none() { Reason::TargetGone } else { Reason::Superseded }),
    });
    let ending = Ending { end, note: request.note.clone(), transfer_id: transfer_id.to_owned() };
    let mut transition = starting(state, chosen, by_order);
    transition.end = Some(ending);
    transition.handover = handover;
    transition.stand_again = request.stand_again && !request.closing;
    Verdict::Do(Box::new(transition), Departure::Gone)
}

/// An operator ends the token's term.
pub(super) fn depose(state: &State, token: i64, note: &str, skip_delay: bool) -> Verdict<Departure> {
    if state.current(token).is_none() {
        return Verdict::Say(Departure::NotCurrent);
    }
    let ending = Ending { end: End::Deposed, note: note.to_owned(), transfer_id: String::new() };
    Verdict::Do(Box::new(deposing(state, ending, skip_delay)), Departure::Gone)
}

/// An operator wants this candidate to lead.
pub(super) fn switch_over(state: &State, request: &TransferRequest) -> Verdict<Switching> {
    let this = |handover: &Handover| handover.transfer_id == request.transfer_id;
    let ended = |it: &&Kept<EndedTransfer>| it.value.handover.as_ref().is_some_and(this);
    if let Some(ended) = state.transfers.iter().find(ended) {
        return Verdict::Say(Switching::Over(ended.value.clone()));
    }
    match &state.handover {
        Some(handover) if this(&handover.value) => {
            return Verdict::Say(Switching::Under(handover.value.clone()));
        }
        // An operator's wish goes before a policy's.
        Some(handover) if !handover.value.preemption => return Verdict::Say(Switching::No(Reason::Busy)),
        Some(_) | None => {}
    }
    let Some(term) = state.leading() else { return Verdict::Say(Switching::No(Reason::NoLeader)) };
    let (id, session) = (&request.to_candidate_id, request.to_session_id);
    let leads = |leader: &Candidate| leader.id == *id && (session == 0 || leader.session_id == session);
    if term.leader.as_ref().is_some_and(leads) {
        return Verdict::Say(Switching::Leads(term.clone()));
    }
    let Some(target) = state.named(id, session) else {
        return Verdict::Say(Switching::No(Reason::TargetGone));
    };
    let deadline_s = if request.deadline_s == 0 { DEADLINE_S } else { request.deadline_s };
    let handover = Handover {
        transfer_id: request.transfer_id.clone(),
        epoch: term.epoch,
        to_candidate_id: target.value.id.clone(),
        to_session_id: target.value.session_id,
        deadline_s,
        force: request.force,
        requested_by: request.requested_by.clone(),
        preemption: false,
    };
    Verdict::Do(Box::new(asking(handover.clone())), Switching::Under(handover))
}

fn due_under(state: &State, term: &ElectionTerm) -> Option<Transition> {
    let Some(Kept { value: handover, .. }) = &state.handover else { return preemption(state, term) };
    if handover.epoch != term.epoch {
        return Some(giving_up(Reason::Superseded));
    }
    if state.target().is_none() {
        return Some(giving_up(Reason::TargetGone));
    }
    if state.runs(Timer::Deadline) {
        return None;
    }
    Some(if handover.force {
        let note =
            format!("did not hand over to {} within {} s", handover.to_candidate_id, handover.deadline_s);
        let ending = Ending { end: End::Deposed, note, transfer_id: handover.transfer_id.clone() };
        deposing(state, ending, false)
    } else {
        giving_up(Reason::Deadline)
    })
}

/// By policy a better candidate is handed over to, once the leader has led for a while.
fn preemption(state: &State, term: &ElectionTerm) -> Option<Transition> {
    let best = state.best().filter(|_| state.policy.preempts && !state.runs(Timer::Tenure))?;
    let leader = term.leader.as_ref()?;
    if best.value.priority <= leader.priority {
        return None;
    }
    Some(asking(Handover {
        // Another one for each candidacy that is preferred.
        transfer_id: format!("preemption-{}-{}", term.epoch, best.value.since_revision),
        epoch: term.epoch,
        to_candidate_id: best.value.id.clone(),
        to_session_id: best.value.session_id,
        deadline_s: state.policy.grace_s,
        force: true,
        requested_by: "policy".to_owned(),
        preemption: true,
    }))
}

fn due_in_vacancy(state: &State) -> Option<Transition> {
    let end = state.lost().map(|_| Ending {
        end: End::SessionExpired,
        note: state.session_end.note.clone(),
        transfer_id: String::new(),
    });
    let delay_s = state.policy.lock_delay_s;
    if end.is_some() && delay_s > 0 && !state.session_end.closed {
        return Some(Transition { end, timers: vec![(Timer::Delay, delay_s)], ..Transition::default() });
    }
    let mut transition = if state.runs(Timer::Delay) { Transition::default() } else { filling(state) };
    transition.end = end;
    (transition != Transition::default()).then_some(transition)
}

/// What fills a vacancy that no delay protects.
fn filling(state: &State) -> Transition {
    let target = state.target();
    let settle_s = state.policy.settle_s;
    if target.is_none() && state.best().is_some() && settle_s > 0 {
        if !state.settled() {
            let timers = vec![(Timer::Settle, settle_s)];
            return Transition { settling: true, timers, ..Transition::default() };
        }
        if state.runs(Timer::Settle) {
            return Transition::default();
        }
    }
    let mut transition = starting(state, target.or_else(|| state.best()), target.is_none());
    transition.handover = state.handover.as_ref().map(|_| match target {
        Some(_) => Switch::Ends(Phase::Forced, Reason::None),
        None => given_up(Reason::TargetGone),
    });
    transition
}

/// The leader goes, and not by its own word.
fn deposing(state: &State, ending: Ending, skip_delay: bool) -> Transition {
    let delay_s = state.policy.lock_delay_s;
    if delay_s > 0 && !skip_delay {
        let timers = vec![(Timer::Delay, delay_s)];
        return Transition { end: Some(ending), timers, ..Transition::default() };
    }
    let target = state.target();
    let chosen = target.or_else(|| state.best());
    let mut transition = starting(state, chosen, target.is_none());
    transition.end = Some(ending);
    transition.handover = state.handover.as_ref().map(|_| match target {
        Some(_) => Switch::Ends(Phase::Forced, Reason::None),
        None => given_up(Reason::TargetGone),
    });
    transition
}

/// The term of whoever was chosen, if anybody was.
fn starting(state: &State, chosen: Option<&Kept<Candidate>>, by_order: bool) -> Transition {
    let Some(candidate) = chosen else { return Transition::default() };
    let tenure_s = state.policy.min_tenure_s;
    let timers =
        if state.policy.preempts && tenure_s > 0 { vec![(Timer::Tenure, tenure_s)] } else { Vec::new() };
    let start = Start { candidate: candidate.clone(), by_order };
    Transition { start: Some(start), timers, ..Transition::default() }
}

fn asking(handover: Handover) -> Transition {
    let timers = vec![(Timer::Deadline, handover.deadline_s)];
    Transition { handover: Some(Switch::Begins(handover)), timers, ..Transition::default() }
}

fn giving_up(reason: Reason) -> Transition {
    Transition { handover: Some(given_up(reason)), ..Transition::default() }
}

fn given_up(reason: Reason) -> Switch {
    Switch::Ends(Phase::Aborted, reason)
}

fn same(one: Option<&Kept<Candidate>>, other: Option<&Kept<Candidate>>) -> bool {
    let who = |it: &Kept<Candidate>| (it.value.id.clone(), it.value.session_id);
    one.map(who) == other.map(who)
}
