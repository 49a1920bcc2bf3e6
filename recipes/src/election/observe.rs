//! What observers are told: each term's start and end once and in order, what is proclaimed, every vacancy, and as a gap what is no
//! longer on record. The fold is pure, and takes records of the past and changes alike; around it is one watch, which no coming and going of
//! candidates wakes.

use std::collections::VecDeque;

use tenure_proto::etcdserverpb::RangeRequest;
use tenure_proto::tenure::v1::election_event::{Event, Gap, Proclaimed, Vacant};
use tenure_proto::tenure::v1::election_term::End;
use tenure_proto::tenure::v1::{ElectionObserveRequest, ElectionTerm};

use super::campaign::places;
use super::keys::{Keys, Place};
use super::state;
use super::wellformed;
use super::{Elections, asked};
use crate::primitives::{Change, Changes, Failure, Primitives};
use crate::refusal::Error;

/// Terms of the past that are read at once.
const PAGE: i64 = 64;

/// An election that is being observed.
#[derive(Debug)]
pub struct Observation<P: Primitives> {
    elections: Elections<P>,
    keys: Keys,
    fold: Fold,
    changes: Option<P::Changes>,
    /// Not told yet, each with its revision.
    ready: VecDeque<(i64, Event)>,
    revision: i64,
}

/// What an observer has been told.
#[derive(Debug, Default)]
pub(super) struct Fold {
    /// The last epoch whose start was told, or would have been if it were of interest.
    epoch: i64,
    /// Of that epoch, until its end is told.
    running: Option<ElectionTerm>,
    /// From wherever the election is.
    from_now: bool,
    told_anything: bool,
}

impl<P: Primitives> Elections<P> {
    /// From an epoch on, or from now.
    pub async fn observe(&self, request: &ElectionObserveRequest) -> Result<Observation<P>, Error> {
        wellformed::name(&request.name)?;
        let mut observation = Observation {
            elections: self.clone(),
            keys: self.keys(&request.name),
            fold: Fold::wanting(request.from_epoch),
            changes: None,
            ready: VecDeque::new(),
            revision: 0,
        };
        observation.catch_up().await?;
        Ok(observation)
    }
}

impl<P: Primitives> Observation<P> {
    /// Up to here nothing was missed.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// What happened next, and its revision. May be dropped and called again.
    pub async fn next(&mut self) -> Result<(i64, Event), Failure> {
        loop {
            if let Some(told) = self.ready.pop_front() {
                return Ok(told);
            }
            let Some(changes) = &mut self.changes else {
                self.catch_up().await?;
                continue;
            };
            match changes.next().await {
                Ok(change) => {
                    self.revision = change.revision;
                    let told = self.fold.change(&self.keys, &change)?;
                    self.ready.extend(told.into_iter().map(|event| (change.revision, event)));
                }
                Err(Failure::Compacted { .. }) => self.changes = None,
                Err(failure) => return Err(failure),
            }
        }
    }

    /// Reads what was not seen from the records, and watches from there.
    async fn catch_up(&mut self) -> Result<(), Failure> {
        let primitives = &self.elections.primitives;
        loop {
            let present = asked::read([asked::key(self.keys.now()), asked::range(self.keys.leaders())]);
            let response = primitives.txn(present).await?;
            let revision = asked::revision(&response);
            let mut ranges = asked::ranges(response);
            let now = ranges.next().unwrap_or_default();
            let now = now.kvs.first().map(state::term).transpose()?.map(|term| term.value);
            let led = ranges.next().is_some_and(|leaders| !leaders.kvs.is_empty());
            let from = self.fold.wants(now.as_ref());
            let past = match self.past(from, revision).await {
                // Compacted while it was read: what is there now is read instead.
                Err(Failure::Compacted { .. }) => continue,
                past => past?,
            };
            let (from, to) = self.keys.terms();
            self.changes = Some(primitives.watch(from, to, revision + 1).await?);
            self.revision = revision;
            let told = self.fold.replay(&past, now.as_ref(), led);
            self.ready.extend(told.into_iter().map(|event| (revision, event)));
            return Ok(());
        }
    }

    /// The terms on record from this epoch on, as of this revision.
    async fn past(&self, from: i64, revision: i64) -> Result<Vec<ElectionTerm>, Failure> {
        let mut terms = Vec::new();
        let (_, to) = self.keys.pasts();
        let mut from = self.keys.past(from.max(0));
        loop {
            let range = RangeRequest { revision, limit: PAGE, ..asked::range((from, to.clone())) };
            let page = self.elections.primitives.range(range).await?;
            for kv in &page.kvs {
                terms.push(state::past(kv)?);
            }
            let Some(last) = page.kvs.last().filter(|_| page.more) else { return Ok(terms) };
            from = last.key.to_vec();
            from.push(0);
        }
    }
}

impl Fold {
    /// `epoch` is the first of interest; 0: the present one.
    pub(super) fn wanting(epoch: i64) -> Fold {
        Fold { epoch: (epoch - 1).max(0), from_now: epoch <= 0, ..Fold::default() }
    }

    /// The first epoch whose record tells something new.
    fn wants(&self, now: Option<&ElectionTerm>) -> i64 {
        match (&self.running, self.from_now, now) {
            (Some(_), ..) => self.epoch,
            (None, true, Some(now)) => now.epoch,
            (None, ..) => self.epoch + 1,
        }
    }

    /// Past terms in order, the last one, and whether its leader leads: what happened up to a revision.
    pub(super) fn replay(
        &mut self,
        past: &[ElectionTerm],
        now: Option<&ElectionTerm>,
        led: bool,
    ) -> Vec<Event> {
        let mut told = Vec::new();
        let first = !self.told_anything;
        let present = now.map_or(0, |now| now.epoch);
        if std::mem::take(&mut self.from_now) {
            // A vacancy is told as such, and not the term before it.
            self.epoch = if led { present - 1 } else { present };
        }
        for (at, term) in past.iter().enumerate() {
            self.start(term, &mut told);
            let next = past.get(at + 1).map(|next| next.token);
            let next = next.or_else(|| now.filter(|now| now.epoch == term.epoch + 1).map(|now| now.token));
            if self.end(term, &mut told)
                && (term.end() == End::SessionExpired || next != Some(term.end_revision))
            {
                told.push(Event::Vacant(Vacant { epoch: term.epoch }));
            }
        }
        if let Some(now) = now.filter(|now| now.end() == End::Running) {
            self.start(now, &mut told);
            self.proclaim(now, &mut told);
            if !led && self.end(&lost(now), &mut told) {
                told.push(Event::Vacant(Vacant { epoch: now.epoch }));
            }
        }
        if first && told.is_empty() && !led && present == self.epoch {
            told.push(Event::Vacant(Vacant { epoch: present }));
        }
        self.told_anything = true;
        told
    }

    pub(super) fn change(&mut self, keys: &Keys, change: &Change) -> Result<Vec<Event>, Failure> {
        let mut record = None;
        let mut now = None;
        let mut gone = None;
        for (place, put) in places(keys, change) {
            match (place, put) {
                (Place::Past(_), Some(kv)) => record = Some(state::past(kv)?),
                (Place::Now, Some(kv)) => now = Some(state::term(kv)?.value),
                (Place::Leader(epoch), None) => gone = Some(epoch),
                _ => {}
            }
        }
        let mut told = Vec::new();
        // Who goes by a txn leaves the reason in it; who goes without one lost the session.
        let mut ended = false;
        if gone.is_some() && gone == self.running.as_ref().map(|term| term.epoch) {
            let record = record.or_else(|| self.running.as_ref().map(lost));
            ended = record.is_some_and(|record| self.end(&record, &mut told));
        }
        let started = now.filter(|now| now.end() == End::Running);
        let begun = started.as_ref().is_some_and(|term| self.start(term, &mut told));
        if let Some(term) = &started {
            self.proclaim(term, &mut told);
        }
        if ended && !begun {
            told.push(Event::Vacant(Vacant { epoch: self.epoch }));
        }
        Ok(told)
    }

    /// Whether it was news.
    fn start(&mut self, term: &ElectionTerm, told: &mut Vec<Event>) -> bool {
        if term.epoch <= self.epoch {
            return false;
        }
        // The end of a term that was seen to start is missing as well.
        let missed = if self.running.is_some() { self.epoch } else { self.epoch + 1 };
        if missed < term.epoch {
            told.push(Event::Gap(Gap { from: missed, to: term.epoch - 1 }));
        }
        self.epoch = term.epoch;
        let started = ElectionTerm { end: End::Running.into(), end_revision: 0, ..term.clone() };
        let started = ElectionTerm { note: String::new(), transfer_id: String::new(), ..started };
        self.running = Some(started.clone());
        told.push(Event::Started(started));
        true
    }

    /// Whether it was news.
    fn end(&mut self, term: &ElectionTerm, told: &mut Vec<Event>) -> bool {
        if self.running.as_ref().is_none_or(|running| running.epoch != term.epoch) {
            return false;
        }
        self.running = None;
        told.push(Event::Ended(term.clone()));
        true
    }

    fn proclaim(&mut self, term: &ElectionTerm, told: &mut Vec<Event>) {
        let Some(running) = self.running.as_mut().filter(|running| running.epoch == term.epoch) else {
            return;
        };
        if term.seq <= running.seq {
            return;
        }
        running.seq = term.seq;
        running.value.clone_from(&term.value);
        told.push(Event::Proclaimed(Proclaimed {
            epoch: term.epoch,
            seq: term.seq,
            value: term.value.clone(),
        }));
    }
}

/// The term whose leader's session ended, before anybody put that on record.
fn lost(term: &ElectionTerm) -> ElectionTerm {
    ElectionTerm { end: End::SessionExpired.into(), ..term.clone() }
}
