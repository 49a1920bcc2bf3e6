//! What a write means, told independently of the server: which events it makes of the pairs as they are. Ten lines of truth
//! that the histories are measured by. It knows no network and no time.

use std::collections::BTreeMap;

use prost::bytes::Bytes;
use tenure_proto::etcdserverpb::{
    Compare, DeleteRangeRequest, PutRequest, RequestOp, TxnRequest,
    compare::{CompareResult, CompareTarget, TargetUnion},
    request_op::Request,
};
use tenure_proto::mvccpb::{Event, KeyValue, event::EventType};

pub type Pairs = BTreeMap<Bytes, KeyValue>;

/// One request that may change something.
#[derive(Clone, Debug)]
pub enum Write {
    Put {
        key: Bytes,
        value: Bytes,
        lease: i64,
    },
    /// All keys from `from` to before `to`; the key `from` alone if `to` is empty.
    Delete {
        from: Bytes,
        to: Bytes,
    },
    /// Which branch it takes hangs on whether `key` was last changed at `unchanged_since`. The writes touch different keys.
    Txn {
        key: Bytes,
        unchanged_since: i64,
        then: Vec<Write>,
        otherwise: Vec<Write>,
    },
    Revoke {
        lease: i64,
    },
}

impl Write {
    /// The events it makes at `revision`, in their order. Without any it takes no revision.
    pub fn events(&self, pairs: &Pairs, revision: i64) -> Vec<Event> {
        match self {
            Write::Put { key, value, lease } => {
                let before = pairs.get(key);
                let pair = KeyValue {
                    key: key.clone(),
                    create_revision: before.map_or(revision, |before| before.create_revision),
                    mod_revision: revision,
                    version: before.map_or(0, |before| before.version) + 1,
                    value: value.clone(),
                    lease: *lease,
                };
                vec![Event { r#type: EventType::Put.into(), kv: Some(pair), prev_kv: None }]
            }
            Write::Delete { from, to } => {
                pairs.keys().filter(|key| covers(from, to, key)).map(|key| deleted(key, revision)).collect()
            }
            Write::Txn { key, unchanged_since, then, otherwise } => {
                let stands = pairs.get(key).map_or(0, |pair| pair.mod_revision) == *unchanged_since;
                let branch = if stands { then } else { otherwise };
                branch.iter().flat_map(|write| write.events(pairs, revision)).collect()
            }
            Write::Revoke { lease } => pairs
                .values()
                .filter(|pair| pair.lease == *lease)
                .map(|pair| deleted(&pair.key, revision))
                .collect(),
        }
    }

    pub fn operation(&self) -> RequestOp {
        RequestOp {
            request: Some(match self {
                Write::Put { key, value, lease } => Request::RequestPut(put(key, value, *lease)),
                Write::Delete { from, to } => Request::RequestDeleteRange(DeleteRangeRequest {
                    key: from.clone(),
                    range_end: to.clone(),
                    ..Default::default()
                }),
                Write::Txn { key, unchanged_since, then, otherwise } => {
                    Request::RequestTxn(txn(key, *unchanged_since, then, otherwise))
                }
                Write::Revoke { .. } => panic!("a revoke is no part of a transaction"),
            }),
        }
    }
}

pub fn put(key: &Bytes, value: &Bytes, lease: i64) -> PutRequest {
    PutRequest { key: key.clone(), value: value.clone(), lease, ..Default::default() }
}

pub fn txn(key: &Bytes, unchanged_since: i64, then: &[Write], otherwise: &[Write]) -> TxnRequest {
    TxnRequest {
        compare: vec![Compare {
            result: CompareResult::Equal.into(),
            target: CompareTarget::Mod.into(),
            key: key.clone(),
            range_end: Bytes::new(),
            target_union: Some(TargetUnion::ModRevision(unchanged_since)),
        }],
        success: then.iter().map(Write::operation).collect(),
        failure: otherwise.iter().map(Write::operation).collect(),
    }
}

pub fn apply(pairs: &mut Pairs, events: &[Event]) {
    for event in events {
        let pair = event.kv.clone().expect("every event has its pair");
        if event.r#type() == EventType::Put {
            pairs.insert(pair.key.clone(), pair);
        } else {
            pairs.remove(&pair.key);
        }
    }
}

fn deleted(key: &Bytes, revision: i64) -> Event {
    let grave = KeyValue { key: key.clone(), mod_revision: revision, ..Default::default() };
    Event { r#type: EventType::Delete.into(), kv: Some(grave), prev_kv: None }
}

/// Whether an interval as etcd writes it holds the key.
pub fn covers(from: &[u8], to: &[u8], key: &[u8]) -> bool {
    match to {
        [] => key == from,
        [0] => key >= from,
        to => key >= from && key < to,
    }
}
