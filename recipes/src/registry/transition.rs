//! One txn being put together: what must still be so, and what is to become of it. And reading several keys at one revision.

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message;
use tenure_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use tenure_proto::etcdserverpb::request_op::Request;
use tenure_proto::etcdserverpb::response_op::Response;
use tenure_proto::etcdserverpb::{
    Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest, TxnResponse,
};
use tenure_proto::mvccpb::KeyValue;

use super::keys::Range;
use crate::primitives::{Failure, Primitives};

#[derive(Default)]
pub struct Transition {
    txn: TxnRequest,
    /// Keys outside the registry, with what becomes of them; None: they go. Apart, since no key may be written twice, and those of two
    /// instances may be the same.
    shown: BTreeMap<Vec<u8>, Option<String>>,
}

impl Transition {
    /// The key is as it was read, or was not there.
    pub fn unchanged(self, key: &[u8], read: Option<&KeyValue>) -> Transition {
        let revision = read.map_or(0, |kv| kv.mod_revision);
        let target = (CompareTarget::Mod, TargetUnion::ModRevision(revision));
        self.compare(CompareResult::Equal, target, key, &[])
    }

    pub fn absent(self, key: &[u8]) -> Transition {
        let target = (CompareTarget::Create, TargetUnion::CreateRevision(0));
        self.compare(CompareResult::Equal, target, key, &[])
    }

    pub fn present(self, key: &[u8]) -> Transition {
        let target = (CompareTarget::Create, TargetUnion::CreateRevision(0));
        self.compare(CompareResult::Greater, target, key, &[])
    }

    /// There is no key at all in the range.
    pub fn none_in(self, range: &Range) -> Transition {
        let target = (CompareTarget::Create, TargetUnion::CreateRevision(0));
        self.compare(CompareResult::Equal, target, &range.0, &range.1)
    }

    /// No key in the range was written after that revision.
    pub fn none_newer_in(self, range: &Range, revision: i64) -> Transition {
        let target = (CompareTarget::Mod, TargetUnion::ModRevision(revision + 1));
        self.compare(CompareResult::Less, target, &range.0, &range.1)
    }

    /// Of what is said of one key, what comes later holds.
    pub fn show(mut self, keys: impl IntoIterator<Item = (Vec<u8>, Option<String>)>) -> Transition {
        self.shown.extend(keys);
        self
    }

    /// A lease of 0: none.
    pub fn put(self, key: &[u8], value: &impl Message, lease: i64) -> Transition {
        self.put_bytes(key, value.encode_to_vec().into(), lease)
    }

    fn put_bytes(mut self, key: &[u8], value: Bytes, lease: i64) -> Transition {
        let put = PutRequest { key: Bytes::copy_from_slice(key), value, lease, ..PutRequest::default() };
        self.txn.success.push(RequestOp { request: Some(Request::RequestPut(put)) });
        self
    }

    pub fn put_empty(self, key: &[u8], lease: i64) -> Transition {
        self.put(key, &(), lease)
    }

    pub fn delete(mut self, key: &[u8]) -> Transition {
        let delete = DeleteRangeRequest { key: Bytes::copy_from_slice(key), ..DeleteRangeRequest::default() };
        self.txn.success.push(RequestOp { request: Some(Request::RequestDeleteRange(delete)) });
        self
    }

    /// The revision that it made; None: something was not as it was read.
    pub async fn attempt(mut self, primitives: &impl Primitives) -> Result<Option<i64>, Failure> {
        for (key, value) in std::mem::take(&mut self.shown) {
            self = match value {
                Some(value) => self.put_bytes(&key, value.into(), 0),
                None => self.delete(&key),
            };
        }
        let response = primitives.txn(self.txn).await?;
        Ok(response.succeeded.then(|| revision(&response)))
    }

    fn compare(
        mut self,
        result: CompareResult,
        (target, union): (CompareTarget, TargetUnion),
        key: &[u8],
        range_end: &[u8],
    ) -> Transition {
        self.txn.compare.push(Compare {
            result: result.into(),
            target: target.into(),
            key: Bytes::copy_from_slice(key),
            range_end: Bytes::copy_from_slice(range_end),
            target_union: Some(union),
        });
        self
    }
}

/// What several keys held at one revision.
pub struct Read {
    pub revision: i64,
    /// One for each key that was asked for.
    pub kvs: Vec<Option<KeyValue>>,
}

/// Whether what is read must be the newest there is, or what a member has at hand is enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    Newest,
    AtHand,
}

/// At most 128 keys.
pub async fn read(
    primitives: &impl Primitives,
    keys: &[Vec<u8>],
    freshness: Freshness,
) -> Result<Read, Failure> {
    let ranges = keys.iter().map(|key| RequestOp {
        request: Some(Request::RequestRange(RangeRequest {
            key: Bytes::copy_from_slice(key),
            serializable: freshness == Freshness::AtHand,
            ..RangeRequest::default()
        })),
    });
    let txn = TxnRequest { success: ranges.collect(), ..TxnRequest::default() };
    let response = primitives.txn(txn).await?;
    let revision = revision(&response);
    let kvs = response.responses.into_iter().map(|op| match op.response {
        Some(Response::ResponseRange(range)) => range.kvs.into_iter().next(),
        _ => None,
    });
    Ok(Read { revision, kvs: kvs.collect() })
}

/// The same for a handful of keys that are taken apart by name.
pub async fn read_these<const N: usize>(
    primitives: &impl Primitives,
    keys: [&[u8]; N],
) -> Result<(i64, [Option<KeyValue>; N]), Failure> {
    let keys: Vec<Vec<u8>> = keys.iter().map(|key| key.to_vec()).collect();
    let Read { revision, kvs } = read(primitives, &keys, Freshness::Newest).await?;
    let kvs = <[Option<KeyValue>; N]>::try_from(kvs);
    let kvs = kvs.map_err(|_| Failure::Invalid("a txn answered fewer reads than it was asked".to_owned()))?;
    Ok((revision, kvs))
}

fn revision(response: &TxnResponse) -> i64 {
    response.header.map_or(0, |header| header.revision)
}
