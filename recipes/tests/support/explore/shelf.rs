//! A store that is cheap to copy: keys, leases and what has changed, as much of etcd's as recipes ask for. An exploration takes hundreds
//! of thousands of copies. That it answers as the whole server in memory does is not taken on trust: `replay.rs` asks both the same.
//!
//! Its revisions begin so high that no other number of a test comes near, so that they are known by sight (`print.rs`).

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use prost::Message;
use tenure_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use tenure_proto::etcdserverpb::request_op::Request;
use tenure_proto::etcdserverpb::response_op::Response;
use tenure_proto::etcdserverpb::{
    Compare, DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse, RangeRequest, RangeResponse,
    RequestOp, ResponseHeader, ResponseOp, TxnRequest, TxnResponse,
};
use tenure_proto::mvccpb::event::EventType;
use tenure_proto::mvccpb::{Event, KeyValue};
use tenure_recipes::{Change, Failure, TimeLeft};

use super::client::{Answer, Ask, Gated, play};
use super::print::{FIRST_REVISION, Print};

/// What every lease has, seconds; it ends when somebody says so.
pub const TTL_S: i64 = 10;

#[derive(Clone)]
pub struct Shelf {
    revision: i64,
    keys: BTreeMap<Vec<u8>, Kept>,
    leases: BTreeSet<i64>,
    changes: Vec<Rc<Change>>,
}

#[derive(Clone)]
struct Kept {
    kv: KeyValue,
    print: Rc<Print>,
}

impl Default for Shelf {
    fn default() -> Shelf {
        Shelf {
            revision: FIRST_REVISION,
            keys: BTreeMap::new(),
            leases: BTreeSet::new(),
            changes: Vec::new(),
        }
    }
}

impl Shelf {
    /// None: there is nothing to say yet.
    pub fn answer(&mut self, ask: &Ask) -> Option<Answer> {
        Some(match ask {
            Ask::Range(range) => Answer::Range(Ok(self.range(range))),
            Ask::Txn(txn) => Answer::Txn(self.txn(txn)),
            Ask::Grant(lease) => Answer::Granted(if self.leases.insert(*lease) {
                Ok(TTL_S)
            } else {
                Err(Failure::LeaseExists)
            }),
            Ask::KeepAlive(lease) => Answer::KeptAlive(self.leases.contains(lease).then_some(TTL_S)),
            Ask::Revoke(lease) => Answer::Revoked(self.expire(*lease)),
            Ask::TimeToLive(lease) => {
                let left = TimeLeft { remaining_s: TTL_S, granted_s: TTL_S };
                Answer::Left(self.leases.contains(lease).then_some(left))
            }
            Ask::Next { key, range_end, from } => Answer::Change(self.next_change(key, range_end, *from)?),
            Ask::Bell => return None,
        })
    }

    /// What a client would be told that were alone with it. Nothing of what it does stays.
    pub fn told<T: 'static, F: Future<Output = T> + 'static>(&self, act: impl Fn(Gated) -> F) -> T {
        let mut copy = self.clone();
        play(&act, |ask| copy.answer(ask).expect("nobody else will change anything"))
    }

    /// The end of a lease with all its keys. Whether there was one.
    pub fn expire(&mut self, lease: i64) -> bool {
        let gone = self.keys.values().filter(|kept| kept.kv.lease == lease).map(|kept| kept.kv.key.to_vec());
        let gone = gone.collect::<Vec<_>>();
        let mut events = Vec::new();
        gone.iter().for_each(|key| self.delete(key, &mut events));
        self.commit(events);
        self.leases.remove(&lease)
    }

    pub fn revision(&self) -> i64 {
        self.revision
    }

    pub fn keys(&self) -> Vec<KeyValue> {
        self.keys.values().map(|kept| kept.kv.clone()).collect()
    }

    /// All keys as prints, with their values.
    pub fn prints(&self) -> impl Iterator<Item = (&KeyValue, &Print)> {
        self.keys.values().map(|kept| (&kept.kv, &*kept.print))
    }

    pub fn leases(&self) -> impl Iterator<Item = i64> {
        self.leases.iter().copied()
    }

    pub fn has_key_of(&self, lease: i64) -> bool {
        self.keys.values().any(|kept| kept.kv.lease == lease)
    }

    pub fn get(&self, key: &[u8]) -> Option<&KeyValue> {
        self.keys.get(key).map(|kept| &kept.kv)
    }

    /// The changes behind this revision.
    pub fn changes_since(&self, revision: i64) -> impl Iterator<Item = &Change> {
        self.changes.iter().map(|change| &**change).filter(move |change| change.revision > revision)
    }

    /// Of the changes from this revision on the first that concerns the range, cut down to it.
    fn next_change(&self, key: &[u8], range_end: &[u8], from: i64) -> Option<Change> {
        self.changes_in(key, range_end, from).next()
    }

    pub fn changes_in(&self, key: &[u8], range_end: &[u8], from: i64) -> impl Iterator<Item = Change> {
        self.changes_since(from - 1).filter_map(move |change| {
            let concerns =
                |event: &&Event| event.kv.as_ref().is_some_and(|kv| is_in(&kv.key, key, range_end));
            let events: Vec<Event> = change.events.iter().filter(concerns).cloned().collect();
            (!events.is_empty()).then_some(Change { revision: change.revision, events })
        })
    }

    fn range(&self, range: &RangeRequest) -> RangeResponse {
        assert!([0, self.revision].contains(&range.revision), "recipes read what is there now");
        let all = self.within(&range.key, &range.range_end);
        let mut kvs: Vec<KeyValue> =
            all.filter(|kv| kv.mod_revision >= range.min_mod_revision).cloned().collect();
        let count = kvs.len() as i64;
        let more = range.limit > 0 && count > range.limit;
        if more {
            kvs.truncate(range.limit as usize);
        }
        if range.count_only {
            kvs.clear();
        }
        if range.keys_only {
            kvs.iter_mut().for_each(|kv| kv.value.clear());
        }
        RangeResponse { header: self.header(), kvs, more, count }
    }

    fn txn(&mut self, txn: &TxnRequest) -> Result<TxnResponse, Failure> {
        let succeeded = txn.compare.iter().all(|compare| self.holds(compare));
        let branch = if succeeded { &txn.success } else { &txn.failure };
        let unknown = |operation: &RequestOp| match &operation.request {
            Some(Request::RequestPut(put)) => put.lease != 0 && !self.leases.contains(&put.lease),
            _ => false,
        };
        if branch.iter().any(unknown) {
            return Err(Failure::LeaseUnknown);
        }
        let mut events = Vec::new();
        let responses = branch.iter().map(|operation| self.operate(operation, &mut events)).collect();
        self.commit(events);
        Ok(TxnResponse { header: self.header(), succeeded, responses })
    }

    fn operate(&mut self, operation: &RequestOp, events: &mut Vec<Event>) -> ResponseOp {
        let response = match &operation.request {
            Some(Request::RequestRange(range)) => Response::ResponseRange(self.range(range)),
            Some(Request::RequestPut(put)) => {
                self.put(put, events);
                Response::ResponsePut(PutResponse::default())
            }
            Some(Request::RequestDeleteRange(DeleteRangeRequest { key, range_end, .. })) => {
                let keys: Vec<Vec<u8>> = self.within(key, range_end).map(|kv| kv.key.to_vec()).collect();
                keys.iter().for_each(|key| self.delete(key, events));
                Response::ResponseDeleteRange(DeleteRangeResponse::default())
            }
            other => panic!("no recipe asks for {other:?}"),
        };
        ResponseOp { response: Some(response) }
    }

    /// Versions are not kept: no recipe looks at one.
    fn put(&mut self, put: &PutRequest, events: &mut Vec<Event>) {
        let revision = self.revision + 1;
        let before = self.get(&put.key);
        let kv = KeyValue {
            key: put.key.clone(),
            value: put.value.clone(),
            create_revision: before.map_or(revision, |kv| kv.create_revision),
            mod_revision: revision,
            lease: if put.ignore_lease { before.map_or(0, |kv| kv.lease) } else { put.lease },
            version: 0,
        };
        events.push(Event { r#type: EventType::Put.into(), kv: Some(kv.clone()), prev_kv: None });
        let print = Rc::new(Print::of(&kv.encode_to_vec()));
        self.keys.insert(put.key.to_vec(), Kept { kv, print });
    }

    fn delete(&mut self, key: &[u8], events: &mut Vec<Event>) {
        if let Some(Kept { kv, .. }) = self.keys.remove(key) {
            let kv = KeyValue { key: kv.key, mod_revision: self.revision + 1, ..KeyValue::default() };
            events.push(Event { r#type: EventType::Delete.into(), kv: Some(kv), prev_kv: None });
        }
    }

    fn commit(&mut self, events: Vec<Event>) {
        if !events.is_empty() {
            self.revision += 1;
            self.changes.push(Rc::new(Change { revision: self.revision, events }));
        }
    }

    fn holds(&self, compare: &Compare) -> bool {
        let mut kvs = self.within(&compare.key, &compare.range_end).peekable();
        if kvs.peek().is_none() {
            return compare.target() != CompareTarget::Value && compares(compare, &KeyValue::default());
        }
        kvs.all(|kv| compares(compare, kv))
    }

    fn within(&self, key: &[u8], range_end: &[u8]) -> impl Iterator<Item = &KeyValue> {
        let from = self.keys.range(key.to_vec()..).map(|(_, kept)| &kept.kv);
        let (key, range_end) = (key.to_vec(), range_end.to_vec());
        from.take_while(move |kv| is_in(&kv.key, &key, &range_end))
    }

    fn header(&self) -> Option<ResponseHeader> {
        Some(ResponseHeader { revision: self.revision, ..ResponseHeader::default() })
    }
}

fn is_in(it: &[u8], key: &[u8], range_end: &[u8]) -> bool {
    match range_end {
        [] => it == key,
        [0] => it >= key,
        end => it >= key && it < end,
    }
}

fn compares(compare: &Compare, kv: &KeyValue) -> bool {
    let ordering = match &compare.target_union {
        Some(TargetUnion::CreateRevision(revision)) => kv.create_revision.cmp(revision),
        Some(TargetUnion::ModRevision(revision)) => kv.mod_revision.cmp(revision),
        Some(TargetUnion::Value(value)) => kv.value.cmp(value),
        other => panic!("no recipe compares {other:?}"),
    };
    match compare.result() {
        CompareResult::Equal => ordering.is_eq(),
        CompareResult::NotEqual => ordering.is_ne(),
        CompareResult::Less => ordering.is_lt(),
        CompareResult::Greater => ordering.is_gt(),
    }
}
