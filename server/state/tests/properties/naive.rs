//! The store as one would write it who has memory without end and no haste: every revision is a whole map of its own.
//! Nothing is shared with the real one but the messages.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use tenure_proto::etcdserverpb::compare::TargetUnion;
use tenure_proto::etcdserverpb::request_op::Request;
use tenure_proto::etcdserverpb::response_op::Response as OpResponse;
use tenure_proto::etcdserverpb::{
    Compare, DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse, RangeRequest, RangeResponse,
    ResponseHeader, ResponseOp, TxnRequest, TxnResponse,
};
use tenure_proto::mvccpb::KeyValue;
use tenure_state::Refusal;

pub type Keys = BTreeMap<Bytes, KeyValue>;

#[derive(Clone)]
pub struct Naive {
    /// The keys as of revision 1, 2, 3 ...
    history: Vec<Keys>,
    pub compacted: i64,
    pub leases: BTreeSet<i64>,
}

/// A command under way.
struct Work<'a> {
    naive: &'a Naive,
    keys: Keys,
    changed: bool,
}

impl Default for Naive {
    fn default() -> Naive {
        Naive { history: vec![Keys::new()], compacted: 0, leases: BTreeSet::new() }
    }
}

impl Naive {
    pub fn revision(&self) -> i64 {
        self.history.len() as i64
    }

    pub fn keys_at(&self, revision: i64) -> &Keys {
        &self.history[revision as usize - 1]
    }

    pub fn now(&self) -> &Keys {
        self.keys_at(self.revision())
    }

    pub fn range(&self, request: &RangeRequest) -> Result<RangeResponse, Refusal> {
        let at = if request.revision <= 0 { self.revision() } else { request.revision };
        if at > self.revision() {
            return Err(Refusal::FutureRevision);
        }
        if at < self.compacted {
            return Err(Refusal::Compacted);
        }
        Ok(select(request, self.keys_at(at)))
    }

    pub fn put(&mut self, request: &PutRequest) -> Result<PutResponse, Refusal> {
        self.lease_is_there(request)?;
        self.kept_is_there(request)?;
        Ok(self.work(|work| work.put(request)))
    }

    pub fn delete(&mut self, request: &DeleteRangeRequest) -> DeleteRangeResponse {
        self.work(|work| work.delete(request))
    }

    pub fn txn(&mut self, request: &TxnRequest) -> Result<TxnResponse, Refusal> {
        let chosen = self.chosen(request);
        for operation in &chosen {
            if let Request::RequestPut(put) = operation {
                self.kept_is_there(put)?;
                self.lease_is_there(put)?;
            }
        }
        for operation in &chosen {
            if let Request::RequestRange(RangeRequest { revision, .. }) = operation {
                match *revision {
                    0 => {}
                    asked if asked > self.revision() => return Err(Refusal::FutureRevision),
                    asked if asked < self.compacted => return Err(Refusal::Compacted),
                    _ => {}
                }
            }
        }
        Ok(self.work(|work| work.txn(request)))
    }

    pub fn compact(&mut self, revision: i64) -> Result<(), Refusal> {
        if revision <= self.compacted {
            return Err(Refusal::Compacted);
        }
        if revision > self.revision() {
            return Err(Refusal::FutureRevision);
        }
        self.compacted = revision;
        Ok(())
    }

    /// Ends these leases, in this order.
    pub fn end_leases(&mut self, ids: &[i64]) {
        self.leases.retain(|id| !ids.contains(id));
        self.work(|work| {
            for id in ids {
                let before = work.keys.len();
                work.keys.retain(|_, kv| kv.lease != *id);
                work.changed |= before != work.keys.len();
            }
        });
    }

    pub fn holds(&self, compares: &[Compare]) -> bool {
        compares.iter().all(|compare| self.compare_holds(compare))
    }

    fn work<T>(&mut self, work: impl FnOnce(&mut Work<'_>) -> T) -> T {
        let mut under_way = Work { naive: self, keys: self.now().clone(), changed: false };
        let answer = work(&mut under_way);
        let Work { keys, changed, .. } = under_way;
        if changed {
            self.history.push(keys);
        }
        answer
    }

    fn lease_is_there(&self, put: &PutRequest) -> Result<(), Refusal> {
        let missing = put.lease != 0 && !put.ignore_lease && !self.leases.contains(&put.lease);
        if missing { Err(Refusal::LeaseNotFound) } else { Ok(()) }
    }

    fn kept_is_there(&self, put: &PutRequest) -> Result<(), Refusal> {
        let missing = (put.ignore_value || put.ignore_lease) && !self.now().contains_key(&put.key);
        if missing { Err(Refusal::KeyNotFound) } else { Ok(()) }
    }

    /// The operations that will run, of all levels.
    fn chosen<'a>(&self, txn: &'a TxnRequest) -> Vec<&'a Request> {
        let branch = if self.holds(&txn.compare) { &txn.success } else { &txn.failure };
        let mut chosen = Vec::new();
        for op in branch {
            match op.request.as_ref().unwrap() {
                Request::RequestTxn(nested) => chosen.extend(self.chosen(nested)),
                operation => chosen.push(operation),
            }
        }
        chosen
    }

    fn compare_holds(&self, compare: &Compare) -> bool {
        let within = in_range(self.now(), &compare.key, &compare.range_end);
        if within.is_empty() {
            return compare.target != 3 && compare_one(compare, &KeyValue::default());
        }
        within.iter().all(|kv| compare_one(compare, kv))
    }
}

impl Work<'_> {
    fn revision(&self) -> i64 {
        self.naive.revision() + i64::from(self.changed)
    }

    fn header(&self) -> Option<ResponseHeader> {
        Some(ResponseHeader { revision: self.revision(), ..Default::default() })
    }

    fn put(&mut self, put: &PutRequest) -> PutResponse {
        let before = self.keys.get(&put.key).cloned();
        let mut kv = before.clone().unwrap_or_else(|| KeyValue {
            key: put.key.clone(),
            create_revision: self.naive.revision() + 1,
            ..Default::default()
        });
        if !(put.ignore_value && before.is_some()) {
            kv.value = put.value.clone();
        }
        if !put.ignore_lease {
            kv.lease = put.lease;
        }
        kv.version += 1;
        kv.mod_revision = self.naive.revision() + 1;
        self.keys.insert(put.key.clone(), kv);
        self.changed = true;
        PutResponse { header: self.header(), prev_kv: before.filter(|_| put.prev_kv) }
    }

    fn delete(&mut self, delete: &DeleteRangeRequest) -> DeleteRangeResponse {
        let gone = in_range(&self.keys, &delete.key, &delete.range_end);
        for kv in &gone {
            self.keys.remove(&kv.key);
            self.changed = true;
        }
        let deleted = gone.len() as i64;
        let prev_kvs = if delete.prev_kv { gone } else { Vec::new() };
        DeleteRangeResponse { header: self.header(), deleted, prev_kvs }
    }

    fn txn(&mut self, txn: &TxnRequest) -> TxnResponse {
        let succeeded = self.naive.holds(&txn.compare);
        let branch = if succeeded { &txn.success } else { &txn.failure };
        let mut responses = Vec::new();
        for op in branch {
            let response = match op.request.as_ref().unwrap() {
                Request::RequestPut(put) => OpResponse::ResponsePut(self.put(put)),
                Request::RequestDeleteRange(delete) => OpResponse::ResponseDeleteRange(self.delete(delete)),
                Request::RequestRange(range) => {
                    let past = range.revision > 0;
                    let keys = if past { self.naive.keys_at(range.revision) } else { &self.keys };
                    let response = RangeResponse { header: self.header(), ..select(range, keys) };
                    OpResponse::ResponseRange(response)
                }
                Request::RequestTxn(nested) => {
                    let header = Some(ResponseHeader::default());
                    OpResponse::ResponseTxn(TxnResponse { header, ..self.txn(nested) })
                }
            };
            responses.push(ResponseOp { response: Some(response) });
        }
        TxnResponse { header: None, succeeded, responses }
    }
}

fn in_range(keys: &Keys, key: &Bytes, end: &Bytes) -> Vec<KeyValue> {
    let inside = |it: &Bytes| match &end[..] {
        [] => it == key,
        [0] => it >= key,
        _ => it >= key && it < end,
    };
    keys.values().filter(|kv| inside(&kv.key)).cloned().collect()
}

fn compare_one(compare: &Compare, kv: &KeyValue) -> bool {
    use std::cmp::Ordering::{Equal, Greater, Less};
    let number = |wanted: Option<i64>, is: i64| is.cmp(&wanted.unwrap_or(0));
    let ordering = match (compare.target, &compare.target_union) {
        (0, union) => {
            number(if let Some(TargetUnion::Version(it)) = union { Some(*it) } else { None }, kv.version)
        }
        (1, union) => number(
            if let Some(TargetUnion::CreateRevision(it)) = union { Some(*it) } else { None },
            kv.create_revision,
        ),
        (2, union) => number(
            if let Some(TargetUnion::ModRevision(it)) = union { Some(*it) } else { None },
            kv.mod_revision,
        ),
        (3, Some(TargetUnion::Value(it))) => kv.value.cmp(it),
        (3, _) => kv.value.cmp(&Bytes::new()),
        (4, union) => {
            number(if let Some(TargetUnion::Lease(it)) = union { Some(*it) } else { None }, kv.lease)
        }
        _ => Equal,
    };
    match compare.result {
        0 => ordering == Equal,
        1 => ordering == Greater,
        2 => ordering == Less,
        3 => ordering != Equal,
        _ => true,
    }
}

fn select(request: &RangeRequest, keys: &Keys) -> RangeResponse {
    let mut found = in_range(keys, &request.key, &request.range_end);
    let count = found.len() as i64;
    if request.count_only {
        return RangeResponse { count, ..Default::default() };
    }
    let bounds = [
        (request.min_mod_revision, request.max_mod_revision, (|kv| kv.mod_revision) as fn(&KeyValue) -> i64),
        (request.min_create_revision, request.max_create_revision, |kv| kv.create_revision),
    ];
    let filtered = bounds.iter().any(|(min, max, _)| *min != 0 || *max != 0);
    let ordered = (1..=2).contains(&request.sort_order);
    if !filtered && !ordered && request.limit > 0 {
        found.truncate(request.limit as usize + 1);
    }
    for (min, max, field) in bounds {
        found.retain(|kv| (min == 0 || field(kv) >= min) && (max == 0 || field(kv) <= max));
    }
    let field: fn(&KeyValue) -> (i64, Bytes) = match request.sort_target {
        1 => |kv| (kv.version, Bytes::new()),
        2 => |kv| (kv.create_revision, Bytes::new()),
        3 => |kv| (kv.mod_revision, Bytes::new()),
        4 => |kv| (0, kv.value.clone()),
        _ => |kv| (0, kv.key.clone()),
    };
    if request.sort_order == 2 {
        found.sort_by_key(|kv| std::cmp::Reverse(field(kv)));
    } else {
        found.sort_by_key(field);
    }
    let more = request.limit > 0 && found.len() as i64 > request.limit;
    if more {
        found.truncate(request.limit as usize);
    }
    if request.keys_only {
        found.iter_mut().for_each(|kv| kv.value = Bytes::new());
    }
    RangeResponse { header: None, kvs: found, more, count }
}
