//! Keys and values: requests that are built up and sent by awaiting them. Under a guard every write becomes a transaction that
//! compares it, so that it works with any etcd server.

use std::future::IntoFuture;

use bytes::Bytes;
use futures::future::BoxFuture;
use tenure_grpc::etcdserverpb::kv_client::KvClient;
use tenure_proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use tenure_proto::etcdserverpb::request_op::Request as Op;
use tenure_proto::etcdserverpb::response_op::Response as Done;
use tenure_proto::etcdserverpb::{
    CompactionRequest, Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, ResponseOp,
    TxnRequest, TxnResponse,
};
use tenure_proto::mvccpb::KeyValue;
use tenure_proto::tenure::v1::Guard;
use tonic::transport::Channel;

use crate::client::{Client, Repeat};
use crate::error::Error;
use crate::key::{self, end_of_prefix};
use crate::txn::Txn;

/// Keys and values.
///
/// ```no_run
/// # async fn example(client: tenure_client::Client) -> Result<(), tenure_client::Error> {
/// let kv = client.kv();
/// kv.put("jobs/1", "waiting").await?;
/// for pair in kv.get("jobs/").prefix().limit(100).await?.pairs {
///     println!("{:?} = {:?}", pair.key, pair.value);
/// }
/// kv.delete("jobs/1").await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Kv {
    client: Client,
    guards: Vec<Compare>,
}

impl Kv {
    pub(crate) fn new(client: Client) -> Kv {
        Kv { client, guards: Vec::new() }
    }

    /// The same store, in which every write is refused with [`Error::Stale`] as soon as the grant that gave this guard has
    /// ended. Reads are not guarded. Guards add up.
    pub fn with_guard(&self, guard: &Guard) -> Kv {
        let mut guarded = self.clone();
        guarded.guards.extend(guard.compare.clone());
        guarded
    }

    pub fn get(&self, key: impl AsRef<[u8]>) -> Get {
        let range = RangeRequest { key: key::bytes(key), ..RangeRequest::default() };
        Get { client: self.client.clone(), range }
    }

    pub fn put(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Put {
        let put = PutRequest { key: key::bytes(key), value: key::bytes(value), ..PutRequest::default() };
        Put { kv: self.clone(), put }
    }

    pub fn delete(&self, key: impl AsRef<[u8]>) -> Delete {
        let delete = DeleteRangeRequest { key: key::bytes(key), ..DeleteRangeRequest::default() };
        Delete { kv: self.clone(), delete }
    }

    pub fn txn(&self) -> Txn {
        Txn::new(self.clone())
    }

    /// Forgets what keys were before `revision`. Watches and reads from before it are refused from then on.
    pub async fn compact(&self, revision: i64) -> Result<(), Error> {
        let compact = CompactionRequest { revision, physical: false };
        let ask = |channel, request| async move { client(channel).compact(request).await };
        match self.client.call(Repeat::Harmless, compact, ask).await {
            // What a repeat is told.
            Ok(_) | Err(Error::Compacted { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    pub(crate) async fn send_txn(&self, txn: TxnRequest) -> Result<TxnResponse, Error> {
        if self.guards.is_empty() {
            let ask = |channel, request| async move { client(channel).txn(request).await };
            return self.client.call(Repeat::IfNotDone, txn, ask).await;
        }
        // Within another, so that a guard that fails is not taken for a compare that fails: its other branch may write.
        let inner = RequestOp { request: Some(Op::RequestTxn(txn)) };
        let done = self.guarded(inner).await?;
        match done.response {
            Some(Done::ResponseTxn(response)) => Ok(response),
            _ => Err(Error::Unknown("the server answered a transaction with something else".into())),
        }
    }

    async fn guarded(&self, op: RequestOp) -> Result<ResponseOp, Error> {
        let txn = TxnRequest { compare: self.guards.clone(), success: vec![op], failure: Vec::new() };
        let ask = |channel, request| async move { client(channel).txn(request).await };
        let mut response = self.client.call(Repeat::IfNotDone, txn, ask).await?;
        match (response.succeeded, response.responses.pop()) {
            (true, Some(done)) => Ok(done),
            _ => Err(Error::Stale(
                "the guard does not hold: the grant it speaks of has ended; stop, and acquire again before writing".into(),
            )),
        }
    }
}

pub(crate) fn client(channel: Channel) -> KvClient<Channel> {
    KvClient::new(channel).max_decoding_message_size(usize::MAX)
}

/// What a read found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Found {
    pub pairs: Vec<KeyValue>,
    /// How many there are, though fewer may have been asked for.
    pub count: i64,
    /// Whether there are more than were asked for.
    pub more: bool,
    /// The store's revision at the read: a watch from the next one misses nothing.
    pub revision: i64,
}

impl Found {
    /// The one that was asked for, where one was.
    pub fn first(&self) -> Option<&KeyValue> {
        self.pairs.first()
    }
}

/// A read of one key or several; linearizable, unless it says otherwise.
#[derive(Clone)]
#[must_use = "nothing is sent before it is awaited"]
pub struct Get {
    client: Client,
    range: RangeRequest,
}

impl Get {
    /// All keys that begin with the one given; all there are, if it is empty.
    pub fn prefix(mut self) -> Get {
        self.range.range_end = end_of_prefix(&self.range.key);
        if self.range.key.is_empty() {
            self.range.key = Bytes::from_static(&[0]);
        }
        self
    }

    /// All keys from the one given up to this one, which is not among them.
    pub fn to(mut self, end: impl AsRef<[u8]>) -> Get {
        self.range.range_end = key::bytes(end);
        self
    }

    pub fn limit(mut self, limit: i64) -> Get {
        self.range.limit = limit;
        self
    }

    /// As it was at that revision.
    pub fn revision(mut self, revision: i64) -> Get {
        self.range.revision = revision;
        self
    }

    /// From the asked member's own state, which may be behind; works without a quorum.
    pub fn serializable(mut self) -> Get {
        self.range.serializable = true;
        self
    }

    pub fn keys_only(mut self) -> Get {
        self.range.keys_only = true;
        self
    }

    pub fn count_only(mut self) -> Get {
        self.range.count_only = true;
        self
    }

    pub fn sort(mut self, target: SortTarget, order: SortOrder) -> Get {
        self.range.sort_target = target.into();
        self.range.sort_order = order.into();
        self
    }

    pub(crate) fn into_op(self) -> RequestOp {
        RequestOp { request: Some(Op::RequestRange(self.range)) }
    }
}

impl IntoFuture for Get {
    type Output = Result<Found, Error>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let ask = |channel, request| async move { client(channel).range(request).await };
            let response = self.client.call(Repeat::Harmless, self.range, ask).await?;
            let revision = response.header.map_or(0, |header| header.revision);
            Ok(Found { pairs: response.kvs, count: response.count, more: response.more, revision })
        })
    }
}

/// A write of one key; gives its revision.
#[derive(Clone)]
#[must_use = "nothing is sent before it is awaited"]
pub struct Put {
    kv: Kv,
    put: PutRequest,
}

impl Put {
    /// Removed with that lease.
    pub fn lease(mut self, lease: i64) -> Put {
        self.put.lease = lease;
        self
    }

    /// Still removed with the lease that it had.
    pub fn keep_lease(mut self) -> Put {
        self.put.ignore_lease = true;
        self
    }

    pub(crate) fn into_op(self) -> RequestOp {
        RequestOp { request: Some(Op::RequestPut(self.put)) }
    }
}

impl IntoFuture for Put {
    type Output = Result<i64, Error>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let header = if self.kv.guards.is_empty() {
                let ask = |channel, request| async move { client(channel).put(request).await };
                self.kv.client.call(Repeat::IfNotDone, self.put, ask).await?.header
            } else {
                let kv = self.kv.clone();
                match kv.guarded(self.into_op()).await?.response {
                    Some(Done::ResponsePut(put)) => put.header,
                    _ => None,
                }
            };
            Ok(header.map_or(0, |header| header.revision))
        })
    }
}

/// A removal; gives the number of keys that there were.
#[derive(Clone)]
#[must_use = "nothing is sent before it is awaited"]
pub struct Delete {
    kv: Kv,
    delete: DeleteRangeRequest,
}

impl Delete {
    /// All keys that begin with the one given; all there are, if it is empty.
    pub fn prefix(mut self) -> Delete {
        self.delete.range_end = end_of_prefix(&self.delete.key);
        if self.delete.key.is_empty() {
            self.delete.key = Bytes::from_static(&[0]);
        }
        self
    }

    /// All keys from the one given up to this one, which is not among them.
    pub fn to(mut self, end: impl AsRef<[u8]>) -> Delete {
        self.delete.range_end = key::bytes(end);
        self
    }

    pub(crate) fn into_op(self) -> RequestOp {
        RequestOp { request: Some(Op::RequestDeleteRange(self.delete)) }
    }
}

impl IntoFuture for Delete {
    type Output = Result<i64, Error>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            if self.kv.guards.is_empty() {
                let ask = |channel, request| async move { client(channel).delete_range(request).await };
                return Ok(self.kv.client.call(Repeat::IfNotDone, self.delete, ask).await?.deleted);
            }
            let kv = self.kv.clone();
            match kv.guarded(self.into_op()).await?.response {
                Some(Done::ResponseDeleteRange(done)) => Ok(done.deleted),
                _ => Err(Error::Unknown("the server answered a removal with something else".into())),
            }
        })
    }
}
