//! Histories that never were, in a few words, for the judges' own tests.

use prost::bytes::Bytes;
use tenure_proto::mvccpb::{Event, KeyValue, event::EventType};

use crate::chronicle::Chronicle;
use crate::history::{Action, Answer, Header, Moment, Operation, Outcome, Recording};

#[derive(Default)]
pub struct Story {
    pub recording: Recording,
    /// What happened: revision, key, value (None: deleted), lease.
    pub told: Vec<(i64, String, Option<String>, i64)>,
}

pub fn text(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

pub fn pair(key: &str, value: &str, created: i64, changed: i64, version: i64) -> KeyValue {
    KeyValue {
        key: text(key),
        value: text(value),
        create_revision: created,
        mod_revision: changed,
        version,
        lease: 0,
    }
}

impl Story {
    pub fn ask(&mut self, asked: Moment, answered: Moment, action: Action, outcome: Outcome) {
        let operation = Operation { client: 0, member: 0, asked, answered, action, outcome };
        self.recording.operations.push(operation);
    }

    pub fn put(&mut self, asked: Moment, answered: Moment, key: &str, value: &str, told: Option<i64>) {
        let action = Action::Put { key: text(key), value: text(value), lease: 0 };
        self.ask(asked, answered, action, outcome(told, Answer::Put));
    }

    pub fn refused_put(&mut self, asked: Moment, answered: Moment, key: &str, value: &str) {
        let action = Action::Put { key: text(key), value: text(value), lease: 0 };
        self.ask(asked, answered, action, Outcome::Refused("no".into()));
    }

    pub fn swap(
        &mut self,
        asked: Moment,
        answered: Moment,
        key: &str,
        since: i64,
        value: &str,
        told: Option<i64>,
    ) {
        let expected = None;
        let action = Action::Swap { key: text(key), unchanged_since: since, expected, value: text(value) };
        self.ask(asked, answered, action, outcome(told, Answer::Swapped));
    }

    pub fn delete(&mut self, asked: Moment, answered: Moment, key: &str, told: Option<i64>) {
        self.ask(asked, answered, Action::Delete { key: text(key) }, outcome(told, Answer::Deleted(true)));
    }

    pub fn get(
        &mut self,
        asked: Moment,
        answered: Moment,
        key: &str,
        serializable: bool,
        revision: i64,
        got: Option<KeyValue>,
    ) {
        let action = Action::Get { key: text(key), serializable };
        self.ask(asked, answered, action, outcome(Some(revision), Answer::Got(got)));
    }

    pub fn happened(&mut self, revision: i64, key: &str, value: Option<&str>) {
        self.told.push((revision, key.to_owned(), value.map(str::to_owned), 0));
    }

    pub fn happened_with(&mut self, revision: i64, key: &str, value: Option<&str>, lease: i64) {
        self.told.push((revision, key.to_owned(), value.map(str::to_owned), lease));
    }

    /// The events in full.
    pub fn changes(&self) -> Vec<(i64, Vec<Event>)> {
        let mut changes: Vec<(i64, Vec<Event>)> = Vec::new();
        let mut pairs = std::collections::BTreeMap::<&str, KeyValue>::new();
        for (revision, key, value, lease) in &self.told {
            let event = match value {
                Some(value) => {
                    let before = pairs.get(key.as_str());
                    let created = before.map_or(*revision, |before| before.create_revision);
                    let version = before.map_or(0, |before| before.version) + 1;
                    let kv = KeyValue { lease: *lease, ..pair(key, value, created, *revision, version) };
                    pairs.insert(key, kv.clone());
                    Event { r#type: EventType::Put.into(), kv: Some(kv), prev_kv: None }
                }
                None => {
                    pairs.remove(key.as_str());
                    let kv = KeyValue { key: text(key), mod_revision: *revision, ..KeyValue::default() };
                    Event { r#type: EventType::Delete.into(), kv: Some(kv), prev_kv: None }
                }
            };
            match changes.last_mut() {
                Some((last, events)) if last == revision => events.push(event),
                _ => changes.push((*revision, vec![event])),
            }
        }
        changes
    }

    pub fn chronicle(&self) -> Chronicle {
        let (chronicle, findings) = Chronicle::new(self.changes());
        assert!(findings.is_empty(), "a test told an impossible history: {findings:?}");
        chronicle
    }
}

fn outcome(told: Option<i64>, answer: Answer) -> Outcome {
    match told {
        Some(revision) => Outcome::Done(Header { revision, term: 1 }, answer),
        None => Outcome::Unknown("time out".into()),
    }
}
