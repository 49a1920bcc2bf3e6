//! What happened in the end: the whole history from revision 1, as a member tells it when everything is over, in a form in
//! which any key's state at any revision is found quickly. Checks of it what needs nobody's word. It knows no client.

use std::collections::BTreeMap;

use prost::bytes::Bytes;
use tenure_proto::mvccpb::{Event, KeyValue, event::EventType};

use crate::check::{Finding, Law};

/// One revision's events, in their order.
pub type Change = (i64, Vec<Event>);

#[derive(Default)]
pub struct Chronicle {
    changes: Vec<Change>,
    /// For each key what it became, by revision; None: it was deleted.
    keys: BTreeMap<Bytes, Vec<(i64, Option<KeyValue>)>>,
}

impl Chronicle {
    /// From changes in the order of their revisions, without those that touch no key of ours.
    pub fn new(changes: Vec<Change>) -> (Chronicle, Vec<Finding>) {
        let mut chronicle = Chronicle::default();
        let mut findings = Vec::new();
        let mut last = 1;
        for (revision, events) in &changes {
            if *revision <= last {
                findings.push(finding(format!("revision {revision} is told after {last}")));
            }
            last = *revision;
            for event in events {
                findings.extend(chronicle.follow(*revision, event));
            }
        }
        chronicle.changes = changes;
        (chronicle, findings)
    }

    fn follow(&mut self, revision: i64, event: &Event) -> Option<Finding> {
        let Some(kv) = &event.kv else { return Some(finding(format!("an event of {revision} has no pair"))) };
        let versions = self.keys.entry(kv.key.clone()).or_default();
        let before = versions.last().and_then(|(_, kv)| kv.as_ref());
        let wrong = |what: &str| Some(finding(format!("{what}: {kv:?} at {revision}, before it {before:?}")));
        let fault = if kv.mod_revision != revision {
            wrong("an event carries another revision")
        } else if event.r#type() == EventType::Delete {
            if before.is_none() { wrong("a key that was not there was deleted") } else { None }
        } else {
            let created = before.map_or(revision, |before| before.create_revision);
            let version = before.map_or(1, |before| before.version + 1);
            if (kv.create_revision, kv.version) == (created, version) {
                None
            } else {
                wrong("a pair counts itself wrongly")
            }
        };
        let now = (event.r#type() == EventType::Put).then(|| kv.clone());
        versions.push((revision, now));
        fault
    }

    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    pub fn last(&self) -> i64 {
        self.changes.last().map_or(1, |(revision, _)| *revision)
    }

    /// The pair as it was once `revision` had happened.
    pub fn at(&self, key: &[u8], revision: i64) -> Option<&KeyValue> {
        let versions = self.keys.get(key)?;
        let after = versions.partition_point(|(changed, _)| *changed <= revision);
        versions[..after].last()?.1.as_ref()
    }

    /// Keys that hold `lease` once `revision` had happened. Looks at all keys.
    pub fn keys_of(&self, lease: i64, revision: i64) -> Vec<Bytes> {
        let holds = |key: &&Bytes| self.at(key, revision).is_some_and(|kv| kv.lease == lease);
        self.keys.keys().filter(holds).cloned().collect()
    }
}

fn finding(what: String) -> Finding {
    Finding { law: Law::Agreement, what }
}
