//! The rule that no key is put twice, or put and deleted, in one txn: the quick way decides as the plain one, which is
//! etcd's, each pair compared.

use bytes::Bytes;
use proptest::prelude::*;
use tenure_proto::etcdserverpb::RequestOp;
use tenure_proto::etcdserverpb::request_op::Request;
use tenure_state::{Refusal, check};

use crate::commands;

/// The keys that a branch puts, and the ranges that it deletes.
type Writes = (Vec<Bytes>, Vec<(Bytes, Bytes)>);

fn covered(deletes: &[(Bytes, Bytes)], key: &Bytes) -> bool {
    // Bytes as they are: an end of "\0" is below every key.
    deletes.iter().any(|(start, end)| if end.is_empty() { key == start } else { start <= key && key < end })
}

fn writes(branch: &[RequestOp]) -> Result<Writes, Refusal> {
    let requests = || branch.iter().filter_map(|op| op.request.as_ref());
    let (mut puts, mut deletes): Writes = Default::default();
    for request in requests() {
        if let Request::RequestDeleteRange(delete) = request {
            deletes.push((delete.key.clone(), delete.range_end.clone()));
        }
    }
    for request in requests() {
        let Request::RequestTxn(nested) = request else { continue };
        let (then, otherwise) = (writes(&nested.success)?, writes(&nested.failure)?);
        let alternatives = [&then.0[..], &otherwise.0[..]].concat();
        if alternatives.iter().any(|key| puts.contains(key) || covered(&deletes, key)) {
            return Err(Refusal::DuplicateKey);
        }
        puts.extend(alternatives);
        deletes.extend(then.1);
        deletes.extend(otherwise.1);
    }
    for request in requests() {
        let Request::RequestPut(put) = request else { continue };
        if puts.contains(&put.key) || covered(&deletes, &put.key) {
            return Err(Refusal::DuplicateKey);
        }
        puts.push(put.key.clone());
    }
    Ok((puts, deletes))
}

proptest! {
    #[test]
    fn the_quick_check_for_duplicates_decides_as_the_plain_one(txn in commands::writing_txns()) {
        let plain = writes(&txn.success).and_then(|_| writes(&txn.failure)).map(|_| ());
        prop_assert_eq!(check::txn(&txn, 128), plain);
    }
}
