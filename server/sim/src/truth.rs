//! What really happened: every revision as the first member that applied it has it. The other members, and each member's
//! later lives, are held against it, and so is what clients were told. Read from the members' stores, never from what they
//! answer.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use bytes::Bytes;
use prost::Message;
use tenure_proto::mvccpb::KeyValue;
use tenure_state::{Place, Revision};

use crate::journal::{Held, Moment};
use crate::member::Desk;

#[derive(Default)]
pub struct Truth {
    revisions: BTreeMap<i64, Happened>,
    /// How far each member's present life was looked at.
    looked: BTreeMap<(usize, u64), i64>,
}

/// One revision.
#[derive(Clone, Debug)]
pub struct Happened {
    /// When the first member applied it.
    pub seen: Moment,
    pub events: Vec<Event>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    pub place: Place,
    pub record: Bytes,
    pub kv: KeyValue,
}

/// All keys as they stand at some revision.
pub type State = BTreeMap<Bytes, Held>;

impl Truth {
    /// Takes in what a member applied since it was last looked at; an error if it differs from what others applied.
    pub fn look(&mut self, member: usize, life: u64, desk: &Desk, now: Moment) -> Result<(), String> {
        let (current, compacted) = {
            let machine = desk.view.machine();
            (machine.revision().0, machine.compacted().0)
        };
        let looked = self.looked.entry((member, life)).or_insert(1);
        if current <= *looked {
            return Ok(());
        }
        let from = std::mem::replace(looked, current) + 1;
        let found = read(desk, from, current)?;
        for revision in from..=current {
            let events = found.get(&revision).map_or(&[][..], Vec::as_slice);
            if revision > compacted {
                self.compare_whole(member, revision, events, now)?;
            } else {
                self.compare_rest(member, revision, events)?;
            }
        }
        Ok(())
    }

    fn compare_whole(&mut self, member: usize, at: i64, events: &[Event], now: Moment) -> Result<(), String> {
        if events.is_empty() {
            return Err(format!("member {} has no record of revision {at}", member + 1));
        }
        let known =
            self.revisions.entry(at).or_insert_with(|| Happened { seen: now, events: events.to_vec() });
        if known.events == events {
            return Ok(());
        }
        Err(format!(
            "revision {at} is {:?} on member {} and {:?} on another",
            brief(events),
            member + 1,
            brief(&known.events)
        ))
    }

    /// What compaction has left of a revision must have been in it.
    fn compare_rest(&self, member: usize, at: i64, events: &[Event]) -> Result<(), String> {
        let known = self.revisions.get(&at).map_or(&[][..], |known| &known.events);
        match events.iter().find(|event| !known.contains(event)) {
            None => Ok(()),
            Some(event) => Err(format!(
                "member {} has {:?} at the compacted revision {at}, where {:?} happened",
                member + 1,
                event.kv,
                brief(known)
            )),
        }
    }

    pub fn at(&self, revision: i64) -> Option<&Happened> {
        self.revisions.get(&revision)
    }

    pub fn revisions(&self) -> impl Iterator<Item = (i64, &Happened)> {
        self.revisions.iter().map(|(at, happened)| (*at, happened))
    }

    /// The newest revision; a store to which nothing happened stands at 1.
    pub fn last(&self) -> i64 {
        self.revisions.last_key_value().map_or(1, |(at, _)| *at)
    }
}

impl Happened {
    pub fn apply(&self, state: &mut State) {
        for Event { place, kv, .. } in &self.events {
            if place.tombstone {
                state.remove(&kv.key);
            } else {
                let held = Held { at: place.main, value: kv.value.clone(), lease: kv.lease };
                state.insert(kv.key.clone(), held);
            }
        }
    }
}

fn read(desk: &Desk, from: i64, upto: i64) -> Result<BTreeMap<i64, Vec<Event>>, String> {
    let mut found: BTreeMap<i64, Vec<Event>> = BTreeMap::new();
    let mut damaged = None;
    let (from, end) = (Place::first_of(Revision(from)), Place::first_of(Revision(upto + 1)));
    let scanned = desk.view.store().scan(from, end, &mut |place, record| {
        match KeyValue::decode(record.clone()) {
            Ok(kv) => found.entry(place.main).or_default().push(Event { place, record, kv }),
            Err(error) => damaged = Some(format!("the record at {place:?} does not decode: {error}")),
        }
        ControlFlow::Continue(())
    });
    scanned.map_err(|fatal| fatal.0)?;
    damaged.map_or(Ok(found), Err)
}

fn brief(events: &[Event]) -> Vec<String> {
    let one = |event: &Event| {
        let verb = if event.place.tombstone { "delete" } else { "put" };
        format!("{verb} {:?} {:?}", event.kv.key, event.kv.value)
    };
    events.iter().map(one).collect()
}
