//! What a candidate is told from when it stands until its candidacy or its term is over. The fold over changes is pure; around it is a
//! watch, begun where the candidate stood, so that nothing can happen unseen.

use std::collections::VecDeque;

use tenure_proto::etcdserverpb::RangeRequest;
use tenure_proto::mvccpb::event::EventType;
use tenure_proto::tenure::v1::campaign_event::ended::Reason;
use tenure_proto::tenure::v1::campaign_event::{Elected, Ended, Event, HandoverEnded, Waiting};
use tenure_proto::tenure::v1::election_term::End;
use tenure_proto::tenure::v1::{CampaignRequest, Candidate, ElectionTerm, Handover};

use super::keys::{Keys, Place};
use super::state::{self, State};
use super::{Elections, asked};
use crate::guard;
use crate::primitives::{Change, Changes, Failure, Primitives};
use crate::refusal::Error;

/// Terms looked through for one's own, when what happened was compacted away.
const TERMS_SEARCHED: i64 = 64;

/// A candidacy that is being followed. Dropping it ends nothing.
#[derive(Debug)]
pub struct Campaign<P: Primitives> {
    elections: Elections<P>,
    keys: Keys,
    fold: Fold,
    changes: P::Changes,
    /// Not told yet, each with its revision.
    ready: VecDeque<(i64, Event)>,
    /// Up to here nothing was missed.
    revision: i64,
    helps: bool,
    help_due: bool,
    /// The watch has ended because what came next was compacted away.
    stale: bool,
}

/// The candidate as its changes make it.
#[derive(Debug)]
struct Fold {
    id: String,
    session: i64,
    /// When it stood: tells this candidacy from others of the same identity.
    since: i64,
    phase: Phase,
    /// The switchover that it was told of.
    handover: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Waiting,
    Leading(i64),
    /// Its key went otherwise than by an election; why is still to be found out.
    Gone,
    Over,
}

impl<P: Primitives> Elections<P> {
    /// Stands unless the candidate does already, and follows it.
    pub async fn campaign(&self, request: &CampaignRequest) -> Result<Campaign<P>, Error> {
        let keys = self.keys(&request.name);
        let state = self.enqueue(&keys, request).await?;
        let (from, to) = keys.all();
        let changes = self.primitives.watch(from, to, state.revision + 1).await?;
        let mut fold = Fold::of(&request.candidate_id, request.session_id);
        let ready = fold.begin(&keys, &state).into_iter().map(|event| (state.revision, event)).collect();
        Ok(Campaign {
            elections: self.clone(),
            keys,
            fold,
            changes,
            ready,
            revision: state.revision,
            helps: false,
            help_due: false,
            stale: false,
        })
    }
}

impl<P: Primitives> Campaign<P> {
    /// Where no steward looks after elections, those who wait do.
    pub fn helping(mut self) -> Campaign<P> {
        self.helps = true;
        self
    }

    /// Up to here nothing was missed.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// What happened next, and its revision; None behind [`Event::Ended`]. May be dropped and called again.
    pub async fn next(&mut self) -> Result<Option<(i64, Event)>, Failure> {
        loop {
            if let Some(told) = self.ready.pop_front() {
                return Ok(Some(told));
            }
            match self.fold.phase {
                Phase::Over => return Ok(None),
                Phase::Gone => self.find_out().await?,
                Phase::Waiting | Phase::Leading(_) if self.stale => self.read_anew().await?,
                Phase::Waiting | Phase::Leading(_) if self.help_due => {
                    self.elections.help(&self.keys).await?;
                    self.help_due = false;
                }
                Phase::Waiting | Phase::Leading(_) => match self.changes.next().await {
                    Ok(change) => self.take(&change),
                    Err(Failure::Compacted { .. }) => self.stale = true,
                    Err(failure) => return Err(failure),
                },
            }
        }
    }

    fn take(&mut self, change: &Change) {
        self.revision = change.revision;
        self.help_due |= self.helps && change.events.iter().any(|event| event.r#type() == EventType::Delete);
        let told = self.fold.change(&self.keys, change);
        self.ready.extend(told.map(|event| (change.revision, event)));
    }

    /// Why a candidacy is over that was not followed by a term.
    async fn find_out(&mut self) -> Result<(), Failure> {
        let ended = match self.elections.own_term(&self.keys, &self.fold).await? {
            Some(term) => term_ended(&term),
            None if self.elections.primitives.time_to_live(self.fold.session).await?.is_none() => {
                Ended { reason: Reason::SessionLost.into(), ..Ended::default() }
            }
            None => Ended { reason: Reason::Withdrawn.into(), ..Ended::default() },
        };
        self.fold.phase = Phase::Over;
        self.ready.push_back((self.revision, Event::Ended(ended)));
        Ok(())
    }

    /// Goes on behind what was compacted away: from how things are now.
    async fn read_anew(&mut self) -> Result<(), Failure> {
        let state = self.elections.read(&self.keys).await?;
        let (from, to) = self.keys.all();
        self.changes = self.elections.primitives.watch(from, to, state.revision + 1).await?;
        self.stale = false;
        self.revision = state.revision;
        let before = self.fold.phase;
        let mut told = self.fold.begin(&self.keys, &state);
        if before == self.fold.phase {
            // How it stands was told; a switchover may be news.
            told.retain(|event| matches!(event, Event::HandoverRequested(_)));
        }
        self.ready.extend(told.into_iter().map(|event| (state.revision, event)));
        Ok(())
    }
}

impl<P: Primitives> Elections<P> {
    /// The term that this candidacy led to, if it is over and on record.
    async fn own_term(&self, keys: &Keys, fold: &Fold) -> Result<Option<ElectionTerm>, Failure> {
        let (from, to) = keys.pasts();
        let range =
            RangeRequest { min_mod_revision: fold.since, limit: TERMS_SEARCHED, ..asked::range((from, to)) };
        for kv in &self.primitives.range(range).await?.kvs {
            let term = state::past(kv)?;
            if term
                .leader
                .as_ref()
                .is_some_and(|leader| fold.is(leader) && leader.since_revision == fold.since)
            {
                return Ok(Some(term));
            }
        }
        Ok(None)
    }
}

impl Fold {
    fn of(id: &str, session: i64) -> Fold {
        Fold { id: id.to_owned(), session, since: 0, phase: Phase::Gone, handover: None }
    }

    fn is(&self, candidate: &Candidate) -> bool {
        candidate.id == self.id && candidate.session_id == self.session
    }

    /// How it stands in this state, whatever was before.
    fn begin(&mut self, keys: &Keys, state: &State) -> Vec<Event> {
        if let Some(term) = state.led_by(&self.id, self.session) {
            self.phase = Phase::Leading(term.epoch);
            self.since = term.leader.as_ref().map_or(0, |leader| leader.since_revision);
            let mut told = vec![elected(keys, term.epoch, term.token)];
            let handover = state.handover.as_ref().map(|handover| &handover.value);
            told.extend(handover.and_then(|handover| self.asked(handover)));
            return told;
        }
        let Some(at) = state.position(&self.id, self.session) else {
            self.phase = Phase::Gone;
            return Vec::new();
        };
        self.phase = Phase::Waiting;
        self.since = state.candidates[at].value.since_revision;
        let ahead = i64::try_from(at).unwrap_or(i64::MAX);
        vec![Event::Waiting(Waiting { ahead, term: state.leading().cloned() })]
    }

    fn change(&mut self, keys: &Keys, change: &Change) -> Option<Event> {
        match self.phase {
            Phase::Waiting => self.waiting(keys, change),
            Phase::Leading(epoch) => self.leading(keys, epoch, change),
            Phase::Gone | Phase::Over => None,
        }
    }

    fn waiting(&mut self, keys: &Keys, change: &Change) -> Option<Event> {
        let own = Place::Candidate { id: self.id.clone(), session: self.session };
        if !places(keys, change).any(|(place, put)| place == own && put.is_none()) {
            return None;
        }
        for (place, put) in places(keys, change) {
            if let (Place::Leader(epoch), Some(kv)) = (place, put)
                && state::decode::<Candidate>(kv).is_ok_and(|leader| self.is(&leader))
            {
                self.phase = Phase::Leading(epoch);
                return Some(elected(keys, epoch, kv.create_revision));
            }
        }
        self.phase = Phase::Gone;
        None
    }

    fn leading(&mut self, keys: &Keys, epoch: i64, change: &Change) -> Option<Event> {
        let mut handover = None;
        let mut record = None;
        let mut gone = false;
        for (place, put) in places(keys, change) {
            match (place, put) {
                (Place::Leader(of), None) => gone |= of == epoch,
                (Place::Past(of), Some(kv)) if of == epoch => record = state::past(kv).ok(),
                (Place::Handover, put) => {
                    handover = Some(put.and_then(|kv| state::decode::<Handover>(kv).ok()))
                }
                _ => {}
            }
        }
        if gone {
            self.phase = Phase::Over;
            let lost = Ended { reason: Reason::SessionLost.into(), epoch, ..Ended::default() };
            return Some(Event::Ended(record.as_ref().map_or(lost, term_ended)));
        }
        match handover? {
            Some(handover) => self.asked(&handover),
            None => {
                let transfer_id = self.handover.take()?;
                Some(Event::HandoverEnded(HandoverEnded { transfer_id }))
            }
        }
    }

    fn asked(&mut self, handover: &Handover) -> Option<Event> {
        let news = self.handover.as_ref() != Some(&handover.transfer_id);
        self.handover = Some(handover.transfer_id.clone());
        news.then(|| Event::HandoverRequested(handover.clone()))
    }
}

fn elected(keys: &Keys, epoch: i64, token: i64) -> Event {
    Event::Elected(Elected { epoch, token, guard: Some(guard::of(&keys.leader(epoch), token)) })
}

fn term_ended(term: &ElectionTerm) -> Ended {
    if term.end() == End::SessionExpired {
        return Ended {
            reason: Reason::SessionLost.into(),
            epoch: term.epoch,
            note: term.note.clone(),
            ..Ended::default()
        };
    }
    Ended { reason: Reason::TermEnded.into(), epoch: term.epoch, end: term.end, note: term.note.clone() }
}

/// What the change did to which keys of the election: put, or None for deleted.
pub(super) fn places<'a>(
    keys: &'a Keys,
    change: &'a Change,
) -> impl Iterator<Item = (Place, Option<&'a tenure_proto::mvccpb::KeyValue>)> {
    change.events.iter().filter_map(|event| {
        let kv = event.kv.as_ref()?;
        Some((keys.place(&kv.key)?, (event.r#type() == EventType::Put).then_some(kv)))
    })
}
