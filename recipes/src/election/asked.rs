//! The few forms of etcd's messages that elections are made of, by short names.

use bytes::Bytes;
use prost::Message;
use tenure_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use tenure_proto::etcdserverpb::request_op::Request;
use tenure_proto::etcdserverpb::response_op::Response;
use tenure_proto::etcdserverpb::{
    Compare, DeleteRangeRequest, PutRequest, RangeRequest, RangeResponse, RequestOp, TxnRequest, TxnResponse,
};

/// Holds if the key was created at that revision; 0: if there is no such key.
pub(super) fn created(key: Vec<u8>, revision: i64) -> Compare {
    Compare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Create.into(),
        key: key.into(),
        target_union: Some(TargetUnion::CreateRevision(revision)),
        ..Compare::default()
    }
}

/// Holds if the key was last changed at that revision; 0: if there is no such key.
pub(super) fn changed(key: Vec<u8>, revision: i64) -> Compare {
    Compare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Mod.into(),
        key: key.into(),
        target_union: Some(TargetUnion::ModRevision(revision)),
        ..Compare::default()
    }
}

/// Holds if no key of the range was put behind that revision. It does not see deletions.
pub(super) fn unchanged_since((from, to): (Vec<u8>, Vec<u8>), revision: i64) -> Compare {
    Compare {
        result: CompareResult::Less.into(),
        target: CompareTarget::Mod.into(),
        key: from.into(),
        range_end: to.into(),
        target_union: Some(TargetUnion::ModRevision(revision + 1)),
    }
}

pub(super) fn put(key: Vec<u8>, value: &impl Message, lease: i64) -> RequestOp {
    let put =
        PutRequest { key: key.into(), value: value.encode_to_vec().into(), lease, ..PutRequest::default() };
    RequestOp { request: Some(Request::RequestPut(put)) }
}

pub(super) fn put_text(key: Vec<u8>, text: &str, lease: i64) -> RequestOp {
    let value = Bytes::copy_from_slice(text.as_bytes());
    let put = PutRequest { key: key.into(), value, lease, ..PutRequest::default() };
    RequestOp { request: Some(Request::RequestPut(put)) }
}

pub(super) fn delete(key: Vec<u8>) -> RequestOp {
    delete_below((key, Vec::new()))
}

pub(super) fn delete_below((from, to): (Vec<u8>, Vec<u8>)) -> RequestOp {
    let delete =
        DeleteRangeRequest { key: from.into(), range_end: to.into(), ..DeleteRangeRequest::default() };
    RequestOp { request: Some(Request::RequestDeleteRange(delete)) }
}

pub(super) fn key(key: Vec<u8>) -> RangeRequest {
    RangeRequest { key: key.into(), ..RangeRequest::default() }
}

pub(super) fn range((from, to): (Vec<u8>, Vec<u8>)) -> RangeRequest {
    RangeRequest { key: from.into(), range_end: to.into(), ..RangeRequest::default() }
}

/// Several ranges at one revision.
pub(super) fn read(ranges: impl IntoIterator<Item = RangeRequest>) -> TxnRequest {
    let operation = |range| RequestOp { request: Some(Request::RequestRange(range)) };
    TxnRequest { success: ranges.into_iter().map(operation).collect(), ..TxnRequest::default() }
}

/// What each range of a [`read`] gave, in their order.
pub(super) fn ranges(response: TxnResponse) -> impl Iterator<Item = RangeResponse> {
    response.responses.into_iter().filter_map(|operation| match operation.response {
        Some(Response::ResponseRange(range)) => Some(range),
        _ => None,
    })
}

/// 0 if a store sent no header, which none does.
pub(super) fn revision(response: &TxnResponse) -> i64 {
    response.header.as_ref().map_or(0, |header| header.revision)
}
