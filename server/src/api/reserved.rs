//! The keys of the server's own services: clients read and watch them, and write none. A write that names one is refused. A deletion
//! of a wider range passes over them, since it speaks of the client's own keys: whoever empties their key space, as test suites
//! and operators do, is neither refused what etcd grants nor rids others of their locks.

use std::sync::LazyLock;

use tenure_proto::etcdserverpb::request_op::Request;
use tenure_proto::etcdserverpb::response_op::Response;
use tenure_proto::etcdserverpb::{
    DeleteRangeRequest, DeleteRangeResponse, RequestOp, ResponseOp, TxnRequest, TxnResponse,
};
use tenure_recipes::Root;
use tonic::Status;

use super::reason;

/// The first reserved key, and the first one behind them.
static RESERVED: LazyLock<(Vec<u8>, Vec<u8>)> = LazyLock::new(|| Root::server().below(&[]));

/// A key that a client would write.
pub fn check(key: &[u8]) -> Result<(), Status> {
    let (from, to) = &*RESERVED;
    if !(&from[..]..&to[..]).contains(&key) {
        return Ok(());
    }
    let key = String::from_utf8_lossy(key).chars().take(128).collect::<String>();
    Err(reason::reserved(format!(
        "tenure: {key:?} belongs to the server's own services: change it through them, or revoke the lease it is bound to"
    )))
}

/// What remains of a client's deletion. None: all of it does.
pub fn remainder(delete: &DeleteRangeRequest) -> Result<Option<Vec<DeleteRangeRequest>>, Status> {
    let (from, to) = &*RESERVED;
    let to_the_end = *delete.range_end == [0];
    if delete.range_end.is_empty() {
        check(&delete.key)?;
        return Ok(None);
    }
    if delete.key[..] >= to[..] || !to_the_end && delete.range_end[..] <= from[..] {
        return Ok(None);
    }
    let mut parts = Vec::new();
    if delete.key[..] < from[..] {
        parts.push(DeleteRangeRequest { range_end: from.clone().into(), ..delete.clone() });
    }
    if to_the_end || delete.range_end[..] > to[..] {
        parts.push(DeleteRangeRequest { key: to.clone().into(), ..delete.clone() });
    }
    if parts.is_empty() {
        check(&delete.key)?;
    }
    Ok(Some(parts))
}

/// A client's txn without what it would do to reserved keys: each deletion that passes over them has become a txn of its parts.
/// None: it does nothing to them.
pub fn spare(txn: &TxnRequest) -> Result<Option<TxnRequest>, Status> {
    if !meets_reserved(txn)? {
        return Ok(None);
    }
    let mut spared = txn.clone();
    divide(&mut spared)?;
    Ok(Some(spared))
}

fn meets_reserved(txn: &TxnRequest) -> Result<bool, Status> {
    let mut meets = false;
    for op in txn.success.iter().chain(&txn.failure) {
        match &op.request {
            Some(Request::RequestPut(put)) => check(&put.key)?,
            Some(Request::RequestDeleteRange(delete)) => meets |= remainder(delete)?.is_some(),
            Some(Request::RequestTxn(nested)) => meets |= meets_reserved(nested)?,
            Some(Request::RequestRange(_)) | None => {}
        }
    }
    Ok(meets)
}

fn divide(txn: &mut TxnRequest) -> Result<(), Status> {
    for op in txn.success.iter_mut().chain(&mut txn.failure) {
        match &mut op.request {
            Some(Request::RequestDeleteRange(delete)) => {
                if let Some(parts) = remainder(delete)? {
                    op.request = Some(Request::RequestTxn(all(parts)));
                }
            }
            Some(Request::RequestTxn(nested)) => divide(nested)?,
            Some(Request::RequestRange(_) | Request::RequestPut(_)) | None => {}
        }
    }
    Ok(())
}

/// The parts of one deletion, in one revision.
pub fn all(parts: Vec<DeleteRangeRequest>) -> TxnRequest {
    let op = |part| RequestOp { request: Some(Request::RequestDeleteRange(part)) };
    TxnRequest { success: parts.into_iter().map(op).collect(), ..TxnRequest::default() }
}

/// The answer to a client's txn from that to the spared one.
pub fn mend(asked: &TxnRequest, answer: &mut TxnResponse) {
    let branch = if answer.succeeded { &asked.success } else { &asked.failure };
    for (asked, answer) in branch.iter().zip(&mut answer.responses) {
        let Some(Response::ResponseTxn(nested)) = &mut answer.response else { continue };
        match &asked.request {
            Some(Request::RequestTxn(asked)) => mend(asked, nested),
            Some(Request::RequestDeleteRange(_)) => {
                let parts = std::mem::take(&mut nested.responses);
                answer.response = Some(Response::ResponseDeleteRange(sum(parts)));
            }
            Some(Request::RequestRange(_) | Request::RequestPut(_)) | None => {}
        }
    }
}

/// What the parts of one deletion did together.
pub fn sum(parts: Vec<ResponseOp>) -> DeleteRangeResponse {
    let mut sum = DeleteRangeResponse::default();
    for part in parts {
        if let Some(Response::ResponseDeleteRange(part)) = part.response {
            sum.header = part.header;
            sum.deleted += part.deleted;
            sum.prev_kvs.extend(part.prev_kvs);
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn delete(key: &'static str, range_end: &'static str) -> DeleteRangeRequest {
        DeleteRangeRequest { key: key.into(), range_end: range_end.into(), prev_kv: false }
    }

    fn remains(key: &'static str, range_end: &'static str) -> Option<Vec<(String, String)>> {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let parts = remainder(&delete(key, range_end)).unwrap()?;
        Some(parts.iter().map(|part| (text(&part.key), text(&part.range_end))).collect())
    }

    fn part(from: &str, to: &str) -> (String, String) {
        (from.into(), to.into())
    }

    #[test]
    fn deletions_elsewhere_are_left_alone() {
        for (key, range_end) in
            [("a", ""), ("a", "b"), ("/", "/_tenure/"), ("/_tenure0", "\0"), ("/_tenure", ""), ("b", "a")]
        {
            assert_eq!(remains(key, range_end), None, "{key} {range_end}");
        }
    }

    #[test]
    fn wider_deletions_pass_over_reserved_keys() {
        assert_eq!(remains("\0", "\0").unwrap(), [part("\0", "/_tenure/"), part("/_tenure0", "\0")]);
        assert_eq!(remains("/", "0").unwrap(), [part("/", "/_tenure/"), part("/_tenure0", "0")]);
        assert_eq!(remains("/", "/_tenure/lock").unwrap(), [part("/", "/_tenure/")]);
        assert_eq!(remains("/_tenure/lock", "0").unwrap(), [part("/_tenure0", "0")]);
    }

    #[test]
    fn what_names_reserved_keys_is_refused() {
        for (key, range_end) in
            [("/_tenure/", ""), ("/_tenure/a", ""), ("/_tenure/", "/_tenure0"), ("/_tenure/a", "/_tenure/b")]
        {
            let status = remainder(&delete(key, range_end)).unwrap_err();
            assert_eq!(status.code(), tonic::Code::PermissionDenied);
        }
        assert!(check(b"/_tenure/x").is_err() && check(b"/_tenure").is_ok() && check(b"/_tenure0").is_ok());
    }

    #[test]
    fn a_spared_txn_is_answered_as_it_was_asked() {
        let op = |delete| RequestOp { request: Some(Request::RequestDeleteRange(delete)) };
        let nested = TxnRequest { success: vec![op(delete("/", "0"))], ..TxnRequest::default() };
        let asked = TxnRequest {
            success: vec![op(delete("a", "")), RequestOp { request: Some(Request::RequestTxn(nested)) }],
            ..TxnRequest::default()
        };
        let spared = spare(&asked).unwrap().unwrap();
        assert_eq!(spared.success[0], asked.success[0]);
        assert_ne!(spared.success[1], asked.success[1]);
        assert_eq!(
            spare(&TxnRequest { success: vec![asked.success[0].clone()], ..Default::default() }).unwrap(),
            None
        );

        let deleted = |deleted| {
            let response = DeleteRangeResponse { deleted, ..DeleteRangeResponse::default() };
            ResponseOp { response: Some(Response::ResponseDeleteRange(response)) }
        };
        let txn = |responses| {
            let response = TxnResponse { succeeded: true, responses, ..TxnResponse::default() };
            ResponseOp { response: Some(Response::ResponseTxn(response)) }
        };
        let parts = txn(vec![deleted(2), deleted(3)]);
        let mut answer = TxnResponse {
            succeeded: true,
            responses: vec![deleted(1), txn(vec![parts])],
            ..TxnResponse::default()
        };
        mend(&asked, &mut answer);
        assert_eq!(answer.responses, [deleted(1), txn(vec![deleted(5)])]);
    }
}
