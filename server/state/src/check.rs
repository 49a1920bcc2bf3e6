//! Whether a request is well-formed: what can be said without looking at any state. Done before a command is proposed;
//! apply relies on none of it for its safety.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use tenure_proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use tenure_proto::etcdserverpb::request_op::Request;
use tenure_proto::etcdserverpb::{DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest};

use crate::answer::Refusal;

type Checked = Result<(), Refusal>;

pub fn range(request: &RangeRequest) -> Checked {
    if request.key.is_empty() {
        return Err(Refusal::KeyNotProvided);
    }
    if SortOrder::try_from(request.sort_order).is_err() || SortTarget::try_from(request.sort_target).is_err()
    {
        return Err(Refusal::InvalidSortOption);
    }
    Ok(())
}

pub fn put(request: &PutRequest) -> Checked {
    if request.key.is_empty() {
        return Err(Refusal::KeyNotProvided);
    }
    if request.ignore_value && !request.value.is_empty() {
        return Err(Refusal::ValueProvided);
    }
    if request.ignore_lease && request.lease != 0 {
        return Err(Refusal::LeaseProvided);
    }
    Ok(())
}

pub fn delete_range(request: &DeleteRangeRequest) -> Checked {
    if request.key.is_empty() { Err(Refusal::KeyNotProvided) } else { Ok(()) }
}

/// How many txns may lie within one another. Messages are decoded to a depth of 100, and a txn that could just be read
/// from a client could not be read any more as part of a log entry; etcd's clients nest two or three.
pub const TXN_DEPTH_MAX: usize = 32;

/// `operations_max` bounds compares and each branch; a nested txn has what the levels above left over.
pub fn txn(request: &TxnRequest, operations_max: usize) -> Checked {
    operations(request, operations_max, TXN_DEPTH_MAX)?;
    Touched::by(&request.success)?;
    Touched::by(&request.failure)?;
    Ok(())
}

fn operations(request: &TxnRequest, operations_max: usize, depth_max: usize) -> Checked {
    let most = request.compare.len().max(request.success.len()).max(request.failure.len());
    if most > operations_max || depth_max == 0 {
        return Err(Refusal::TooManyOperations);
    }
    if request.compare.iter().any(|compare| compare.key.is_empty()) {
        return Err(Refusal::KeyNotProvided);
    }
    for op in request.success.iter().chain(&request.failure) {
        match &op.request {
            Some(Request::RequestRange(request)) => range(request)?,
            Some(Request::RequestPut(request)) => put(request)?,
            Some(Request::RequestDeleteRange(request)) => delete_range(request)?,
            Some(Request::RequestTxn(request)) => operations(request, operations_max - most, depth_max - 1)?,
            None => return Err(Refusal::KeyNotFound),
        }
    }
    Ok(())
}

/// What one branch may write: for the rule that no key is put twice, or put and deleted, in one txn.
#[derive(Default)]
struct Touched<'a> {
    puts: BTreeSet<&'a [u8]>,
    deletes: Deletes<'a>,
}

impl<'a> Touched<'a> {
    /// As etcd decides it: this level's deletions are known first, then the nested txns one by one, then this level's
    /// puts. The two branches of a nested txn never both run, so they may put the same key.
    fn by(branch: &'a [RequestOp]) -> Result<Touched<'a>, Refusal> {
        let mut touched = Touched::default();
        for op in branch {
            if let Some(Request::RequestDeleteRange(delete)) = &op.request {
                touched.deletes.add(&delete.key, &delete.range_end);
            }
        }
        for op in branch {
            if let Some(Request::RequestTxn(nested)) = &op.request {
                let (then, otherwise) = (Touched::by(&nested.success)?, Touched::by(&nested.failure)?);
                let either: BTreeSet<&[u8]> = then.puts.union(&otherwise.puts).copied().collect();
                for key in either {
                    touched.put(key)?;
                }
                touched.deletes.add_all(then.deletes);
                touched.deletes.add_all(otherwise.deletes);
            }
        }
        for op in branch {
            if let Some(Request::RequestPut(put)) = &op.request {
                touched.put(&put.key)?;
            }
        }
        Ok(touched)
    }

    fn put(&mut self, key: &'a [u8]) -> Checked {
        if self.deletes.cover(key) || !self.puts.insert(key) {
            return Err(Refusal::DuplicateKey);
        }
        Ok(())
    }
}

/// The keys that deletions cover, for this rule: etcd takes a `range_end` by its bytes alone here, so that a deletion to
/// the end of the key space covers nothing.
#[derive(Default)]
struct Deletes<'a> {
    keys: BTreeSet<&'a [u8]>,
    /// From start to end. Those that meet are one, so that a nested txn of a hundred thousand deletions is as quick to
    /// ask as any.
    ranges: BTreeMap<&'a [u8], &'a [u8]>,
}

impl<'a> Deletes<'a> {
    fn add(&mut self, start: &'a [u8], end: &'a [u8]) {
        if end.is_empty() {
            self.keys.insert(start);
        } else if start < end {
            self.add_range(start, end);
        }
    }

    fn add_all(&mut self, others: Deletes<'a>) {
        self.keys.extend(others.keys);
        for (start, end) in others.ranges {
            self.add_range(start, end);
        }
    }

    fn add_range(&mut self, mut start: &'a [u8], mut end: &'a [u8]) {
        while let Some((&near, &until)) = self.ranges.range(..=end).next_back() {
            if until < start {
                break;
            }
            self.ranges.remove(near);
            (start, end) = (start.min(near), end.max(until));
        }
        self.ranges.insert(start, end);
    }

    fn cover(&self, key: &[u8]) -> bool {
        let before = || self.ranges.range::<[u8], _>((Bound::Unbounded, Bound::Included(key))).next_back();
        self.keys.contains(key) || before().is_some_and(|(_, end)| key < *end)
    }
}
