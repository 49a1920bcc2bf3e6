//! A line below a name: each lease has one key, `<name>/<lease in hexadecimal>`, and the key that was created first is at the front.
//! Each waits for the one before it, so that a step wakes one and no more.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

use bytes::Bytes;
use tenure_proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use tenure_proto::etcdserverpb::request_op::Request;
use tenure_proto::etcdserverpb::response_op::Response;
use tenure_proto::etcdserverpb::{
    DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest, TxnResponse,
};
use tenure_proto::mvccpb::KeyValue;
use tenure_proto::mvccpb::event::EventType;

use crate::guard;
use crate::primitives::{Change, Changes, Failure, Primitives};

/// Where somebody stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub name: Bytes,
    pub key: Bytes,
    /// The revision that created the key: who has the least of them is at the front.
    pub create_revision: i64,
    pub value: Bytes,
    /// Made by this call. Otherwise an earlier one of the same lease made it, and may be waiting too.
    pub fresh: bool,
    /// The store's revision then.
    pub revision: i64,
    /// Whoever stands directly before it, as of then; None: nobody does.
    before: Option<Bytes>,
}

/// How waiting ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// At this revision the key was there and at the front.
    Front { revision: i64 },
    /// The key is gone: its lease ended, or somebody removed it.
    Gone,
}

/// The key of a lease in the line of a name.
pub fn key(name: &[u8], lease: i64) -> Bytes {
    // A negative id with its sign, as Go prints it.
    let sign = if lease < 0 { "-" } else { "" };
    [name, format!("/{sign}{:x}", lease.unsigned_abs()).as_bytes()].concat().into()
}

/// All keys of the line of a name, and where they end.
pub fn keys(name: &[u8]) -> (Bytes, Bytes) {
    ([name, b"/"].concat().into(), [name, b"0"].concat().into())
}

/// Takes a place at the end, unless the lease has one.
pub async fn enter<P: Primitives>(
    primitives: &P,
    name: Bytes,
    lease: i64,
    value: Bytes,
) -> Result<Place, Failure> {
    let key = key(&name, lease);
    let (from, to) = keys(&name);
    let put = PutRequest { key: key.clone(), value: value.clone(), lease, ..PutRequest::default() };
    // The newest key is the own one, the next the one before it.
    let last_two = RangeRequest { limit: 2, ..newest_first(from.clone(), to.clone()) };
    let own = RangeRequest { key: key.clone(), ..RangeRequest::default() };
    let txn = TxnRequest {
        compare: vec![guard::compare(&key, 0)],
        success: vec![op(Request::RequestPut(put)), op(Request::RequestRange(last_two))],
        failure: vec![op(Request::RequestRange(own))],
    };
    let (answer, fresh) = match primitives.txn(txn.clone()).await {
        // If it was done, the repeat finds the key; nobody but this call can say that it is his.
        Err(Failure::Unknown(_)) => (primitives.txn(txn).await?, true),
        answer => {
            let answer = answer?;
            let fresh = answer.succeeded;
            (answer, fresh)
        }
    };
    let revision = answer.header.map_or(0, |header| header.revision);
    let mut found = answer.responses.into_iter().rev().find_map(kvs).unwrap_or_default().into_iter();
    let own = found.next().ok_or_else(lost)?;
    let before = if answer.succeeded {
        found.next().map(|kv| kv.key)
    } else {
        let (there, before, _) = look(primitives, &name, &key, own.create_revision).await?;
        if !there {
            return Err(lost());
        }
        before
    };
    Ok(Place { name, key, create_revision: own.create_revision, value: own.value, fresh, revision, before })
}

fn lost() -> Failure {
    Failure::Unavailable("the place in the line was lost as soon as it was taken; ask again".into())
}

/// Returns when the place is at the front, or is no more: within one change of the store, whichever happens.
pub async fn wait<P: Primitives>(primitives: &P, place: &Place) -> Result<Turn, Failure> {
    let Some(mut before) = place.before.clone() else {
        return Ok(Turn::Front { revision: place.revision });
    };
    let mut at = place.revision;
    let mut own = primitives.watch(place.key.to_vec(), Vec::new(), at + 1).await?;
    loop {
        let mut ahead = primitives.watch(before.to_vec(), Vec::new(), at + 1).await?;
        let moved = loop {
            match first(own.next(), ahead.next()).await {
                First::Own(Ok(change)) if deletes(&change) => return Ok(Turn::Gone),
                First::Ahead(Ok(change)) if deletes(&change) => break Ok(()),
                // Another value, which changes nobody's place.
                First::Own(Ok(_)) | First::Ahead(Ok(_)) => {}
                First::Own(Err(failure)) | First::Ahead(Err(failure)) => break Err(failure),
            }
        };
        let compacted = match moved {
            Ok(()) => false,
            Err(Failure::Compacted { .. }) => true,
            Err(failure) => return Err(failure),
        };
        let (there, next, revision) =
            look(primitives, &place.name, &place.key, place.create_revision).await?;
        if !there {
            return Ok(Turn::Gone);
        }
        match next {
            None => return Ok(Turn::Front { revision }),
            Some(next) => before = next,
        }
        if compacted {
            own = primitives.watch(place.key.to_vec(), Vec::new(), revision + 1).await?;
        }
        at = revision;
    }
}

/// Gives the place up, if it is still that place. At which revision.
pub async fn leave<P: Primitives>(primitives: &P, key: &Bytes, create_revision: i64) -> Result<i64, Failure> {
    let delete = DeleteRangeRequest { key: key.clone(), ..DeleteRangeRequest::default() };
    let txn = TxnRequest {
        compare: vec![guard::compare(key, create_revision)],
        success: vec![op(Request::RequestDeleteRange(delete))],
        failure: Vec::new(),
    };
    let answer = match primitives.txn(txn.clone()).await {
        Err(Failure::Unknown(_)) => primitives.txn(txn).await?,
        answer => answer?,
    };
    Ok(revision(&answer))
}

/// Whether the key is there as it was created then, who stands directly before it, and at which revision.
async fn look<P: Primitives>(
    primitives: &P,
    name: &[u8],
    key: &Bytes,
    create_revision: i64,
) -> Result<(bool, Option<Bytes>, i64), Failure> {
    let (from, to) = keys(name);
    let before = RangeRequest {
        limit: 1,
        max_create_revision: create_revision - 1,
        keys_only: true,
        ..newest_first(from, to)
    };
    let own = RangeRequest { key: key.clone(), count_only: true, ..RangeRequest::default() };
    let txn = TxnRequest {
        compare: vec![guard::compare(key, create_revision)],
        success: vec![op(Request::RequestRange(before))],
        failure: vec![op(Request::RequestRange(own))],
    };
    let answer = primitives.txn(txn).await?;
    let (there, revision) = (answer.succeeded, revision(&answer));
    let before = answer.responses.into_iter().find_map(kvs).and_then(|kvs| kvs.into_iter().next());
    Ok((there, before.map(|kv| kv.key).filter(|_| there), revision))
}

fn newest_first(key: Bytes, range_end: Bytes) -> RangeRequest {
    RangeRequest {
        key,
        range_end,
        sort_order: SortOrder::Descend.into(),
        sort_target: SortTarget::Create.into(),
        ..RangeRequest::default()
    }
}

fn deletes(change: &Change) -> bool {
    change.events.iter().any(|event| event.r#type() == EventType::Delete)
}

pub(super) fn op(request: Request) -> RequestOp {
    RequestOp { request: Some(request) }
}

pub(super) fn revision(answer: &TxnResponse) -> i64 {
    answer.header.as_ref().map_or(0, |header| header.revision)
}

fn kvs(response: tenure_proto::etcdserverpb::ResponseOp) -> Option<Vec<KeyValue>> {
    match response.response {
        Some(Response::ResponseRange(range)) => Some(range.kvs),
        _ => None,
    }
}

enum First<A, B> {
    Own(A),
    Ahead(B),
}

/// Whichever is ready first; the own loss before the others'.
async fn first<A, B>(own: impl Future<Output = A>, ahead: impl Future<Output = B>) -> First<A, B> {
    let (mut own, mut ahead) = (pin!(own), pin!(ahead));
    poll_fn(|context| {
        if let Poll::Ready(told) = own.as_mut().poll(context) {
            return Poll::Ready(First::Own(told));
        }
        ahead.as_mut().poll(context).map(First::Ahead)
    })
    .await
}
