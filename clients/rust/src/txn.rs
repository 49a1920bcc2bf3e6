//! Transactions: what must hold, what to do then, what to do else, in one revision.

use tenure_proto::etcdserverpb::compare::{CompareTarget, TargetUnion};
use tenure_proto::etcdserverpb::{Compare, RequestOp, ResponseOp, TxnRequest};

use crate::error::Error;
use crate::key;
use crate::kv::{Delete, Get, Kv, Put};

/// A transaction that is being put together.
///
/// ```no_run
/// use tenure_client::when;
/// # async fn example(kv: tenure_client::Kv) -> Result<(), tenure_client::Error> {
/// let done = kv.txn()
///     .when(when::absent("leader"))
///     .then(kv.put("leader", "me"))
///     .otherwise(kv.get("leader"))
///     .commit()
///     .await?;
/// println!("{}", if done.succeeded { "it is me" } else { "somebody else was first" });
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use = "nothing is sent before commit"]
pub struct Txn {
    kv: Kv,
    txn: TxnRequest,
}

/// What became of a transaction.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Whether all compares held, so that `then` was done and not `otherwise`.
    pub succeeded: bool,
    pub revision: i64,
    /// One for each operation that was done, in their order.
    pub responses: Vec<ResponseOp>,
}

impl Txn {
    pub(crate) fn new(kv: Kv) -> Txn {
        Txn { kv, txn: TxnRequest::default() }
    }

    pub fn when(mut self, compare: Compare) -> Txn {
        self.txn.compare.push(compare);
        self
    }

    pub fn then(mut self, operation: impl Into<RequestOp>) -> Txn {
        self.txn.success.push(operation.into());
        self
    }

    pub fn otherwise(mut self, operation: impl Into<RequestOp>) -> Txn {
        self.txn.failure.push(operation.into());
        self
    }

    pub async fn commit(self) -> Result<Outcome, Error> {
        let response = self.kv.send_txn(self.txn).await?;
        let revision = response.header.map_or(0, |header| header.revision);
        Ok(Outcome { succeeded: response.succeeded, revision, responses: response.responses })
    }
}

impl From<Get> for RequestOp {
    fn from(get: Get) -> RequestOp {
        get.into_op()
    }
}

impl From<Put> for RequestOp {
    fn from(put: Put) -> RequestOp {
        put.into_op()
    }
}

impl From<Delete> for RequestOp {
    fn from(delete: Delete) -> RequestOp {
        delete.into_op()
    }
}

/// What a transaction may ask of a key before it does anything.
pub mod when {
    use super::{Compare, CompareTarget, TargetUnion, key};

    pub use tenure_proto::etcdserverpb::compare::CompareResult as Is;

    /// There is no such key.
    pub fn absent(key: impl AsRef<[u8]>) -> Compare {
        created(key, Is::Equal, 0)
    }

    /// There is such a key.
    pub fn present(key: impl AsRef<[u8]>) -> Compare {
        created(key, Is::Greater, 0)
    }

    /// The revision that created it; 0 where there is none. Equal to a fencing token: this grant is the current one.
    pub fn created(key: impl AsRef<[u8]>, is: Is, revision: i64) -> Compare {
        compare(key, is, CompareTarget::Create, TargetUnion::CreateRevision(revision))
    }

    /// The revision that wrote it last; 0 where there is none.
    pub fn changed(key: impl AsRef<[u8]>, is: Is, revision: i64) -> Compare {
        compare(key, is, CompareTarget::Mod, TargetUnion::ModRevision(revision))
    }

    /// How often it was written since it was created.
    pub fn version(key: impl AsRef<[u8]>, is: Is, version: i64) -> Compare {
        compare(key, is, CompareTarget::Version, TargetUnion::Version(version))
    }

    pub fn value(key: impl AsRef<[u8]>, is: Is, value: impl AsRef<[u8]>) -> Compare {
        compare(key, is, CompareTarget::Value, TargetUnion::Value(key::bytes(value)))
    }

    /// The lease it is attached to; 0: none.
    pub fn lease(key: impl AsRef<[u8]>, is: Is, lease: i64) -> Compare {
        compare(key, is, CompareTarget::Lease, TargetUnion::Lease(lease))
    }

    fn compare(key: impl AsRef<[u8]>, is: Is, target: CompareTarget, to: TargetUnion) -> Compare {
        Compare {
            result: is.into(),
            target: target.into(),
            key: key::bytes(key),
            target_union: Some(to),
            range_end: bytes::Bytes::new(),
        }
    }
}
