//! What a recipe may ask of a store: transactions, ranges, watches and leases, in etcd's own messages. Whoever implements it is a
//! store in memory, a member, or a connection to one; a recipe must not be able to tell which.

use std::future::Future;

use tenure_proto::etcdserverpb::{RangeRequest, RangeResponse, TxnRequest, TxnResponse};
use tenure_proto::mvccpb::Event;

/// A revisioned store with leases. Clones speak to the same store. All times are whole seconds.
pub trait Primitives: Clone + Send + Sync + 'static {
    type Changes: Changes;

    /// Decides and writes in one revision. Also right for reading several ranges at one revision.
    fn txn(&self, txn: TxnRequest) -> impl Future<Output = Result<TxnResponse, Failure>> + Send;

    /// The same, for who will most likely have to wait for others behind it: a store may keep it back for a moment, so that it shares
    /// a write to the disk with what comes next.
    fn txn_unhurried(&self, txn: TxnRequest) -> impl Future<Output = Result<TxnResponse, Failure>> + Send {
        self.txn(txn)
    }

    /// Linearizable, unless the request says otherwise.
    fn range(&self, range: RangeRequest) -> impl Future<Output = Result<RangeResponse, Failure>> + Send;

    /// Every change to keys in `[key, range_end)` (empty `range_end`: the one key) from revision `from` on, which must not be 0.
    fn watch(
        &self,
        key: Vec<u8>,
        range_end: Vec<u8>,
        from: i64,
    ) -> impl Future<Output = Result<Self::Changes, Failure>> + Send;

    /// Makes a lease under an id that the caller chose (never 0), and gives the TTL it got, which may be longer than what was
    /// asked for. That it exists already is [`Failure::LeaseExists`].
    fn grant(&self, lease: i64, ttl_s: i64) -> impl Future<Output = Result<i64, Failure>> + Send;

    /// The TTL it has again; None: there is no such lease.
    fn keep_alive(&self, lease: i64) -> impl Future<Output = Result<Option<i64>, Failure>> + Send;

    /// The same for many at once, in their order: whoever has many, as heartbeats do, should not wait for each.
    fn keep_alive_all(
        &self,
        leases: &[i64],
    ) -> impl Future<Output = Result<Vec<Option<i64>>, Failure>> + Send {
        async move {
            let mut ttls = Vec::with_capacity(leases.len());
            for lease in leases {
                ttls.push(self.keep_alive(*lease).await?);
            }
            Ok(ttls)
        }
    }

    /// Removes a lease with all its keys in one revision. Whether there was such a lease.
    fn revoke(&self, lease: i64) -> impl Future<Output = Result<bool, Failure>> + Send;

    /// None: there is no such lease.
    fn time_to_live(&self, lease: i64) -> impl Future<Output = Result<Option<TimeLeft>, Failure>> + Send;
}

/// What a watch tells, in order and without gap.
pub trait Changes: Send + 'static {
    /// The next revision that changed a watched key, whole. [`Failure::Compacted`]: what came next is no longer known, and
    /// whoever asked must read anew and watch from there.
    fn next(&mut self) -> impl Future<Output = Result<Change, Failure>> + Send;

    /// Asks how far this watch is, though nothing may change: while `next` is waited for, [`Changes::reached`] may move on.
    fn ask_reached(&mut self) {}

    /// Every change up to this revision was given by `next`, as far as anything but the changes says so; 0: nothing does.
    fn reached(&self) -> i64 {
        0
    }
}

/// What one revision did to the watched keys.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    pub revision: i64,
    /// Never none. Deletions have the key and the revision only.
    pub events: Vec<Event>,
}

/// What is left of a lease, seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeLeft {
    pub remaining_s: i64,
    pub granted_s: i64,
}

/// Why a store did not do, or may not have done, what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// It was certainly not done: no leader, too much to do, shutting down. To be asked again, here or elsewhere.
    #[error("{0}")]
    Unavailable(String),
    /// It may have been done, or may still be: the answer was lost. Recipes ask again in a way that finds out.
    #[error("{0}")]
    Unknown(String),
    /// The revisions from which a watch or range was wanted are gone; `at` is the first that is still there.
    #[error("what was asked for has been compacted away up to revision {at}")]
    Compacted { at: i64 },
    /// A key was to be attached to a lease, or a lease to be used, that is not there (any more).
    #[error("there is no such lease")]
    LeaseUnknown,
    #[error("there is such a lease already")]
    LeaseExists,
    /// There is no room for this now: quota or a limit. Nothing was done.
    #[error("{0}")]
    Exhausted(String),
    /// The caller may not do this. Nothing was done.
    #[error("{0}")]
    Forbidden(String),
    /// The request can never be done as it is. Nothing was done.
    #[error("{0}")]
    Invalid(String),
}
