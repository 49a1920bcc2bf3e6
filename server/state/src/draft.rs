//! One revision in the making. A command that was checked against the state before it works here: puts and deletions
//! take their order within the revision, and what comes out is the change for watchers and the writes for the store. A
//! draft that changed nothing leaves the revision as it was.

use bytes::Bytes;
use prost::Message;
use tenure_proto::etcdserverpb::{
    DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse, ResponseHeader,
};
use tenure_proto::mvccpb::KeyValue;

use crate::change::{Change, Effect, Event, Key, LeaseId, Previous, Write};
use crate::index::Newest;
use crate::interval::Interval;
use crate::machine::Machine;
use crate::records::{Fatal, Records};
use crate::revision::{Place, Revision};
use crate::scan::{decode, must_have};

/// Borrows the machine for the time of one command.
pub(crate) struct Draft<'a> {
    pub machine: &'a mut Machine,
    past: &'a dyn Records,
    events: Vec<Event>,
    pub effects: Vec<Effect>,
    pub writes: Vec<Write>,
}

impl<'a> Draft<'a> {
    pub fn new(machine: &'a mut Machine, past: &'a dyn Records) -> Draft<'a> {
        Draft { machine, past, events: Vec::new(), effects: Vec::new(), writes: Vec::new() }
    }

    /// The revision that a reader within this command sees: that before it, until it has changed something.
    pub fn revision(&self) -> Revision {
        if self.events.is_empty() { self.machine.revision() } else { self.machine.revision().next() }
    }

    /// What a reader within this command finds: also what it wrote itself, which is in no store yet.
    pub fn records(&self) -> Drafted<'_> {
        Drafted { events: &self.events, past: self.past }
    }

    /// Header of one operation's answer: only the revision.
    pub fn header(&self) -> Option<ResponseHeader> {
        Some(ResponseHeader { revision: self.revision().0, ..Default::default() })
    }

    /// Every refusal was ruled out before: the lease exists, a value to be kept is there.
    pub fn put(&mut self, put: &PutRequest) -> Result<PutResponse, Fatal> {
        let before = self.before(&put.key);
        let live = before.as_ref().filter(|newest| !newest.is_tombstone());
        let kept = match live {
            Some(newest) if put.prev_kv || put.ignore_value => Some(self.key_value(newest)?),
            _ => None,
        };
        let value = match &kept {
            Some(kv) if put.ignore_value => kv.value.clone(),
            _ => put.value.clone(),
        };
        let main = self.machine.revision().next().0;
        let old_lease = live.map_or(0, |newest| newest.lease);
        let lease = if put.ignore_lease { old_lease } else { put.lease };
        let kv = KeyValue {
            key: put.key.clone(),
            create_revision: live.map_or(main, |newest| newest.create),
            mod_revision: main,
            version: live.map_or(0, |newest| newest.version) + 1,
            value,
            lease,
        };
        let key = self.change(kv, false, before.as_ref());
        self.machine.leases.attach(&key, LeaseId(old_lease), LeaseId(lease));
        let prev_kv = kept.filter(|_| put.prev_kv);
        Ok(PutResponse { header: self.header(), prev_kv })
    }

    pub fn delete_range(&mut self, delete: &DeleteRangeRequest) -> Result<DeleteRangeResponse, Fatal> {
        let interval = Interval::new(&delete.key, &delete.range_end);
        let index = self.machine.index();
        let keys: Vec<Key> = match &interval {
            Interval::Key(key) => {
                let live = index.get(key).is_some_and(|history| history.live().is_some());
                live.then(|| index.shared_key(key)).flatten().into_iter().collect()
            }
            _ => index
                .range(&interval)
                .filter(|(_, history)| history.live().is_some())
                .map(|(key, _)| key.clone())
                .collect(),
        };
        let mut prev_kvs = Vec::new();
        for key in &keys {
            let before = self.before(key).expect("a live key has a history");
            if delete.prev_kv {
                prev_kvs.push(self.key_value(&before)?);
            }
            self.delete(key, &before);
        }
        Ok(DeleteRangeResponse { header: self.header(), deleted: keys.len() as i64, prev_kvs })
    }

    /// Removes these keys, as far as they live: the keys of a lease that goes.
    pub fn delete_keys(&mut self, keys: impl IntoIterator<Item = Key>) {
        for key in keys {
            if let Some(before) = self.before(&key).filter(|newest| !newest.is_tombstone()) {
                self.delete(&key, &before);
            }
        }
    }

    fn delete(&mut self, key: &Key, before: &Newest) {
        let kv = KeyValue { key: Bytes::copy_from_slice(key), ..Default::default() };
        let key = self.change(kv, true, Some(before));
        self.machine.leases.attach(&key, LeaseId(before.lease), LeaseId(0));
    }

    fn before(&self, key: &[u8]) -> Option<Newest> {
        self.machine.index().get(key).map(|history| history.newest().clone())
    }

    fn key_value(&self, newest: &Newest) -> Result<KeyValue, Fatal> {
        match &newest.record {
            Some(record) => decode(record.clone()),
            None => decode(must_have(&self.records(), newest.place())?),
        }
    }

    /// Writes one change down: in the index, as an event, as a record.
    fn change(&mut self, kv: KeyValue, tombstone: bool, before: Option<&Newest>) -> Key {
        let main = self.machine.revision().next().0;
        let place = Place { main, sub: self.events.len() as u32, tombstone };
        let record = Bytes::from(kv.encode_to_vec());
        let newest = Newest {
            main,
            create: kv.create_revision,
            version: kv.version,
            lease: kv.lease,
            sub: place.sub,
            size: record.len() as u32,
            record: None,
        };
        let previous = self.previous(&kv, tombstone, before);
        let (key, _) = self.machine.index_mut().push(&kv.key, newest, record.clone());
        self.writes.push(Write::Record { at: place, bytes: record.clone() });
        self.events.push(Event { place, key: key.clone(), record, previous });
        key
    }

    /// What watchers are told that a change replaced.
    fn previous(&self, kv: &KeyValue, tombstone: bool, before: Option<&Newest>) -> Previous {
        let main = self.machine.revision().next().0;
        match before {
            Some(newest) if newest.main == main => {
                self.machine.previous(&kv.key, main, !tombstone && kv.version == 1)
            }
            Some(newest) if !newest.is_tombstone() => {
                newest.record.clone().map_or(Previous::At(newest.place()), Previous::Record)
            }
            _ => Previous::Nothing,
        }
    }

    /// Ends the revision. Without an event there was none.
    pub fn finish(mut self) -> (Vec<Effect>, Vec<Write>) {
        if !self.events.is_empty() {
            let revision = self.machine.revision().next();
            self.machine.advance(revision);
            let change = Change { revision, events: self.events.into_boxed_slice() };
            self.effects.insert(0, Effect::Changed(change.into()));
        }
        (self.effects, self.writes)
    }
}

/// The records of a command under way, before those of the past.
pub(crate) struct Drafted<'a> {
    events: &'a [Event],
    past: &'a dyn Records,
}

impl Records for Drafted<'_> {
    fn record(&self, place: Place) -> Result<Option<Bytes>, Fatal> {
        match self.events.get(place.sub as usize).filter(|event| event.place == place) {
            Some(event) => Ok(Some(event.record.clone())),
            None => self.past.record(place),
        }
    }
}
