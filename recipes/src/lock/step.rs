//! One transition as it is being put together: what must still hold, and what changes if it does. It knows of txns what the other
//! files need not: how a condition is said.

use bytes::Bytes;
use prost::Message;
use tenure_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use tenure_proto::etcdserverpb::request_op::Request;
use tenure_proto::etcdserverpb::{
    Compare, DeleteRangeRequest, PutRequest, RequestOp, TxnRequest, TxnResponse,
};

use crate::primitives::{Failure, Primitives};

#[derive(Clone, Default)]
pub struct Step {
    compare: Vec<Compare>,
    success: Vec<RequestOp>,
}

/// How a transition went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ran {
    /// Done, in this revision.
    Done(i64),
    /// Something was not as it had been; nothing has changed.
    Overtaken,
    /// The answer was lost: it may have been done.
    Unknown,
}

impl Step {
    pub fn absent(&mut self, key: Vec<u8>) {
        self.created(key, 0);
    }

    /// The key is the one that was created by this revision.
    pub fn created(&mut self, key: Vec<u8>, revision: i64) {
        self.compare(key, CompareTarget::Create, TargetUnion::CreateRevision(revision));
    }

    /// The key was not written since; 0: it is not there.
    pub fn unchanged(&mut self, key: Vec<u8>, revision: i64) {
        self.compare(key, CompareTarget::Mod, TargetUnion::ModRevision(revision));
    }

    /// The key is there, and its value comes before this one.
    pub fn value_before(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.compare(key, CompareTarget::Value, TargetUnion::Value(value.into()));
        if let Some(compare) = self.compare.last_mut() {
            compare.result = CompareResult::Less.into();
        }
    }

    /// There is no key from `from` up to `to`.
    pub fn empty(&mut self, from: Vec<u8>, to: Vec<u8>) {
        self.created(from, 0);
        if let Some(compare) = self.compare.last_mut() {
            compare.range_end = to.into();
        }
    }

    pub fn put(&mut self, key: Vec<u8>, value: &impl Message, lease: i64) {
        let value = Bytes::from(value.encode_to_vec());
        let put = PutRequest { key: key.into(), value, lease, ..PutRequest::default() };
        self.success.push(RequestOp { request: Some(Request::RequestPut(put)) });
    }

    /// Writes a key that is there without taking it off its lease.
    pub fn rewrite(&mut self, key: Vec<u8>, value: &impl Message) {
        let value = Bytes::from(value.encode_to_vec());
        let put = PutRequest { key: key.into(), value, ignore_lease: true, ..PutRequest::default() };
        self.success.push(RequestOp { request: Some(Request::RequestPut(put)) });
    }

    pub fn delete(&mut self, key: Vec<u8>) {
        let delete = DeleteRangeRequest { key: key.into(), ..DeleteRangeRequest::default() };
        self.success.push(RequestOp { request: Some(Request::RequestDeleteRange(delete)) });
    }

    /// Conditions and changes so far, whichever are more: what the limit of a txn counts.
    pub fn size(&self) -> usize {
        self.compare.len().max(self.success.len())
    }

    pub fn changes_nothing(&self) -> bool {
        self.success.is_empty()
    }

    pub async fn run<P: Primitives>(self, primitives: &P) -> Result<Ran, Failure> {
        ran(primitives.txn(self.txn()).await)
    }

    /// The same, when its outcome does not let the caller go on.
    pub async fn run_unhurried<P: Primitives>(self, primitives: &P) -> Result<Ran, Failure> {
        ran(primitives.txn_unhurried(self.txn()).await)
    }

    fn txn(self) -> TxnRequest {
        TxnRequest { compare: self.compare, success: self.success, failure: Vec::new() }
    }

    fn compare(&mut self, key: Vec<u8>, target: CompareTarget, operand: TargetUnion) {
        self.compare.push(Compare {
            result: CompareResult::Equal.into(),
            target: target.into(),
            key: key.into(),
            target_union: Some(operand),
            ..Compare::default()
        });
    }
}

fn ran(answer: Result<TxnResponse, Failure>) -> Result<Ran, Failure> {
    match answer {
        Ok(answer) if answer.succeeded => Ok(Ran::Done(answer.header.map_or(0, |header| header.revision))),
        Ok(_) => Ok(Ran::Overtaken),
        Err(Failure::Unknown(_)) => Ok(Ran::Unknown),
        Err(failure) => Err(failure),
    }
}
