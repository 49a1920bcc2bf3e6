//! Sessions: etcd leases with a record of who opened them, and a word left behind when they end otherwise than by running out. It
//! does not count time, and knows nothing of what is bound to a session.

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message;
use tenure_proto::etcdserverpb::request_op::Request;
use tenure_proto::etcdserverpb::response_op::Response;
use tenure_proto::etcdserverpb::{Compare, PutRequest, RangeRequest, RequestOp, ResponseOp, TxnRequest};
use tenure_proto::mvccpb::KeyValue;
use tenure_proto::tenure::v1::{Belonging, Ended, Session, ended};

use crate::check;
use crate::guard;
use crate::key::Root;
use crate::primitives::{Failure, Primitives};
use crate::refusal::{Error, Reason, Refusal};

/// How long it is remembered that a session was closed or killed, seconds: longer than whoever reports a loss may be away.
pub const ENDED_TTL_S: i64 = 600;
/// Sessions on one page.
pub const PAGE_MAX: i64 = 1_000;
/// First segments of the keys that are about sessions themselves.
const OWN_KINDS: [&str; 3] = ["session", "opened", "ended"];
/// How often a call begins again because others were in its way. Each time somebody else's came through.
const TRIES_MAX: usize = 16;

/// What a caller wants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    pub ttl_s: i64,
    pub labels: BTreeMap<String, String>,
    /// Empty: no repeat will be recognised.
    pub client_key: String,
    /// For people to read.
    pub unix_ms: i64,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Opened {
    pub session: Session,
    /// By an earlier call with the same client key.
    pub existed: bool,
    pub revision: i64,
}

/// Opens a session under the lease id `unused`, which no lease may have, unless the client key has opened one that lives.
pub async fn open<P: Primitives>(
    primitives: &P,
    root: &Root,
    unused: i64,
    wish: &Wish,
) -> Result<Opened, Error> {
    check::ttl_s(wish.ttl_s)?;
    check::labels(&wish.labels)?;
    check::optional_id("client key", &wish.client_key)?;
    let ttl = grant(primitives, unused, wish.ttl_s).await?;
    let session = Session {
        id: unused,
        ttl,
        labels: wish.labels.clone(),
        client_key: wish.client_key.clone(),
        opened_unix_ms: wish.unix_ms,
    };
    for _ in 0..TRIES_MAX {
        let (other, revision) = match record(primitives, root, &session).await {
            Ok(recorded) => recorded,
            // It could have been a very short one.
            Err(Failure::LeaseUnknown) => return Err(Refusal::session_gone(unused).into()),
            Err(failure) => return Err(failure.into()),
        };
        let Some(other) = other else { return Ok(Opened { session, existed: false, revision }) };
        if other.id == unused {
            return Ok(Opened { session: other, existed: false, revision });
        }
        if primitives.keep_alive(other.id).await?.is_some() {
            // Ours is of no use; if it stays, it runs out.
            let _ = primitives.revoke(unused).await;
            return Ok(Opened { session: other, existed: true, revision });
        }
    }
    Err(Failure::Unavailable("sessions of this client key end as fast as they are found; ask again".into())
        .into())
}

/// A lease under an id that only this call uses, so that one which is there already is its own.
async fn grant<P: Primitives>(primitives: &P, lease: i64, ttl_s: i64) -> Result<i64, Failure> {
    match primitives.grant(lease, ttl_s).await {
        Ok(ttl_s) => Ok(ttl_s),
        Err(Failure::Unknown(lost)) => match primitives.grant(lease, ttl_s).await {
            Err(Failure::LeaseExists) => match primitives.time_to_live(lease).await? {
                Some(left) => Ok(left.granted_s),
                None => Err(Failure::Unavailable(lost)),
            },
            again => again,
        },
        Err(failure) => Err(failure),
    }
}

/// Writes the session down; gives another one if the client key had opened that.
async fn record<P: Primitives>(
    primitives: &P,
    root: &Root,
    session: &Session,
) -> Result<(Option<Session>, i64), Failure> {
    let own = put(session_key(root, session.id), session, session.id);
    let mut txn = TxnRequest { success: vec![own], ..TxnRequest::default() };
    if !session.client_key.is_empty() {
        let key = opened_key(root, &session.client_key);
        txn.compare.push(absent(&key));
        txn.failure.push(read(&key));
        txn.success.push(put(key, session, session.id));
    }
    let answer = match primitives.txn(txn.clone()).await {
        // If it was done, the repeat finds this very session.
        Err(Failure::Unknown(_)) => primitives.txn(txn).await?,
        answer => answer?,
    };
    let revision = answer.header.map_or(0, |header| header.revision);
    if answer.succeeded {
        return Ok((None, revision));
    }
    let found = answer.responses.first().and_then(first_kv);
    Ok((found.map(decode::<Session>).transpose()?, revision))
}

/// Ends a session for its owner. Whether there was one.
pub async fn close<P: Primitives>(
    primitives: &P,
    root: &Root,
    unused: i64,
    session: i64,
    unix_ms: i64,
) -> Result<bool, Error> {
    check::session(session)?;
    let word = Ended { session, how: ended::How::Closed.into(), unix_ms, ..Ended::default() };
    end(primitives, root, unused, &word).await
}

/// Ends somebody else's session and leaves the reason behind. Whether there was one.
pub async fn kill<P: Primitives>(
    primitives: &P,
    root: &Root,
    unused: i64,
    word: &Ended,
) -> Result<bool, Error> {
    check::session(word.session)?;
    check::note(&word.reason)?;
    check::optional_id("killer's", &word.by)?;
    end(primitives, root, unused, &Ended { how: ended::How::Killed.into(), ..word.clone() }).await
}

/// The word is there before the session's keys go, so that whoever sees them go finds it. Of two that end one session, the first word
/// stays.
async fn end<P: Primitives>(primitives: &P, root: &Root, unused: i64, word: &Ended) -> Result<bool, Error> {
    if primitives.time_to_live(word.session).await?.is_none() {
        return Ok(false);
    }
    grant(primitives, unused, ENDED_TTL_S).await?;
    let key = ended_key(root, word.session);
    let txn = TxnRequest {
        compare: vec![absent(&key)],
        success: vec![put(key, word, unused)],
        failure: Vec::new(),
    };
    match primitives.txn(txn.clone()).await {
        Err(Failure::Unknown(_)) => primitives.txn(txn).await?,
        answer => answer?,
    };
    match primitives.revoke(word.session).await {
        // Whether by this or by its end: it is over.
        Err(Failure::Unknown(_)) => Ok(primitives.revoke(word.session).await.map(|_| true)?),
        gone => Ok(gone?),
    }
}

/// What was left behind about a session that ended. None: it ran out, its lease was revoked, it lives, or it is long ago.
pub async fn ended<P: Primitives>(
    primitives: &P,
    root: &Root,
    session: i64,
) -> Result<Option<Ended>, Failure> {
    find(primitives, ended_key(root, session)).await
}

/// What was written down when it was opened; None for a lease that was not opened as a session.
pub async fn get<P: Primitives>(
    primitives: &P,
    root: &Root,
    session: i64,
) -> Result<Option<Session>, Failure> {
    find(primitives, session_key(root, session)).await
}

/// What a key that goes with a session's lease is to it; None for the session's own records.
pub fn belonging(root: &Root, key: Bytes) -> Option<Belonging> {
    let Some(mut segments) = root.segments(&key) else {
        return Some(Belonging { key, ..Belonging::default() });
    };
    let role = segments.split_off(segments.len().min(2));
    let mut segments = segments.into_iter();
    let (kind, name) = (segments.next().unwrap_or_default(), segments.next().unwrap_or_default());
    let own = OWN_KINDS.contains(&&*kind);
    (!own).then_some(Belonging { key, kind, name, role })
}

/// Sessions behind `after`, and where the next page goes on; 0 at both ends.
pub async fn list<P: Primitives>(
    primitives: &P,
    root: &Root,
    after: i64,
    limit: i64,
) -> Result<(Vec<Session>, i64, i64), Error> {
    if !(1..=PAGE_MAX).contains(&limit) {
        let text = format!("a page has 1 to {PAGE_MAX} sessions, not {limit}");
        return Err(Refusal::new(Reason::Invalid, text).into());
    }
    let (mut from, end) = root.below(&["session"]);
    if after != 0 {
        from = session_key(root, after);
        from.push(0);
    }
    let range = RangeRequest { key: from.into(), range_end: end.into(), limit, ..RangeRequest::default() };
    let answer = primitives.range(range).await?;
    let sessions = answer.kvs.iter().map(decode::<Session>).collect::<Result<Vec<_>, _>>()?;
    let next = if answer.more { sessions.last().map_or(0, |session| session.id) } else { 0 };
    Ok((sessions, next, answer.header.map_or(0, |header| header.revision)))
}

/// How sessions are written in keys: in their order, negative ones last.
pub fn hex(session: i64) -> String {
    format!("{session:016x}")
}

/// The session that a segment of a key names.
pub fn from_hex(segment: &str) -> Option<i64> {
    (segment.len() == 16).then(|| u64::from_str_radix(segment, 16).ok())?.map(u64::cast_signed)
}

fn session_key(root: &Root, session: i64) -> Vec<u8> {
    root.key(&["session", &hex(session)])
}

fn opened_key(root: &Root, client_key: &str) -> Vec<u8> {
    root.key(&["opened", client_key])
}

fn ended_key(root: &Root, session: i64) -> Vec<u8> {
    root.key(&["ended", &hex(session)])
}

async fn find<P: Primitives, M: Message + Default>(
    primitives: &P,
    key: Vec<u8>,
) -> Result<Option<M>, Failure> {
    let range = RangeRequest { key: key.into(), ..RangeRequest::default() };
    let answer = primitives.range(range).await?;
    answer.kvs.first().map(decode).transpose()
}

/// A key that does not exist has the create revision 0.
fn absent(key: &[u8]) -> Compare {
    guard::compare(key, 0)
}

fn put(key: Vec<u8>, value: &impl Message, lease: i64) -> RequestOp {
    let value = Bytes::from(value.encode_to_vec());
    let put = PutRequest { key: key.into(), value, lease, ..PutRequest::default() };
    RequestOp { request: Some(Request::RequestPut(put)) }
}

fn read(key: &[u8]) -> RequestOp {
    let range = RangeRequest { key: Bytes::copy_from_slice(key), ..RangeRequest::default() };
    RequestOp { request: Some(Request::RequestRange(range)) }
}

fn first_kv(response: &ResponseOp) -> Option<&KeyValue> {
    match &response.response {
        Some(Response::ResponseRange(range)) => range.kvs.first(),
        _ => None,
    }
}

fn decode<M: Message + Default>(kv: &KeyValue) -> Result<M, Failure> {
    M::decode(kv.value.clone()).map_err(|error| {
        let key = String::from_utf8_lossy(&kv.key);
        Failure::Invalid(format!("the record at {key} cannot be read: {error}; upgrade what reads it"))
    })
}
