//! etcd's Lock service: who is at the front of the line holds the lock, for as long as his key is there.

use bytes::Bytes;
use tenure_proto::etcdserverpb::request_op::Request;
use tenure_proto::etcdserverpb::{DeleteRangeRequest, TxnRequest};

use super::line::{op, revision};
use crate::primitives::{Failure, Primitives};

/// What a lease made for one call is granted, seconds: etcd's figure.
pub const LEASE_TTL_S: i64 = 60;

/// Removes the key, whoever made it: that is all the service's message says. At which revision.
pub async fn unlock<P: Primitives>(primitives: &P, key: Bytes) -> Result<i64, Failure> {
    let delete = DeleteRangeRequest { key, ..DeleteRangeRequest::default() };
    let txn = TxnRequest { success: vec![op(Request::RequestDeleteRange(delete))], ..TxnRequest::default() };
    Ok(revision(&primitives.txn(txn).await?))
}
