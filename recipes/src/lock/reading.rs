//! Looking at a lock: what stands in its keys, as values. A look decides nothing; what it saw is compared in the txn that goes by it,
//! so it may be at what this member has. Only what is answered without a txn must be fresh.

use bytes::Bytes;
use prost::Message;
use tenure_proto::etcdserverpb::request_op::Request;
use tenure_proto::etcdserverpb::response_op::Response;
use tenure_proto::etcdserverpb::{RangeRequest, RequestOp, TxnRequest};
use tenure_proto::mvccpb::KeyValue;
use tenure_proto::tenure::v1::{LockPolicy, LockQueued, LockRecord};

use super::keys::{Keys, Owner, Part, hexadecimal, part};
use crate::key::Root;
use crate::primitives::{Failure, Primitives};

/// How new what is read must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fresh {
    /// Whatever is at hand.
    Any,
    /// Not older than this revision.
    Since(i64),
    /// Not older than the call.
    Now,
}

/// Several ranges, read at one revision.
#[derive(Default)]
pub struct Reads(Vec<RangeRequest>);

/// What was read: for each range, in order, its keys.
pub struct Found {
    pub ranges: Vec<Vec<KeyValue>>,
    pub revision: i64,
}

/// The record of a lock, and which write of it that was.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Seen {
    pub record: LockRecord,
    /// 0: there was none.
    pub written: i64,
}

/// Somebody in the queue.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub key: Vec<u8>,
    pub number: String,
    pub owner: Owner,
    pub queued: LockQueued,
    pub created: i64,
}

impl Reads {
    pub fn key(mut self, key: Vec<u8>) -> Reads {
        self.0.push(RangeRequest { key: key.into(), ..RangeRequest::default() });
        self
    }

    /// At most so many of them; 0: all.
    pub fn range(mut self, (from, to): (Vec<u8>, Vec<u8>), limit: i64) -> Reads {
        let (key, range_end) = (from.into(), to.into());
        self.0.push(RangeRequest { key, range_end, limit, ..RangeRequest::default() });
        self
    }

    pub async fn run<P: Primitives>(self, primitives: &P, fresh: Fresh) -> Result<Found, Failure> {
        let at_hand = match fresh {
            Fresh::Now => None,
            Fresh::Any => Some(0),
            Fresh::Since(revision) => Some(revision),
        };
        if let Some(least) = at_hand {
            let found = self.ask(primitives, true).await?;
            if found.revision >= least {
                return Ok(found);
            }
        }
        self.ask(primitives, false).await
    }

    async fn ask<P: Primitives>(&self, primitives: &P, serializable: bool) -> Result<Found, Failure> {
        let range = |range: &RangeRequest| RangeRequest { serializable, ..range.clone() };
        if let [only] = &self.0[..] {
            let answer = primitives.range(range(only)).await?;
            let revision = answer.header.map_or(0, |header| header.revision);
            return Ok(Found { ranges: vec![answer.kvs], revision });
        }
        let operation = |asked| RequestOp { request: Some(Request::RequestRange(range(asked))) };
        let txn = TxnRequest { success: self.0.iter().map(operation).collect(), ..TxnRequest::default() };
        let answer = primitives.txn(txn).await?;
        let ranges = answer.responses.into_iter().map(|response| match response.response {
            Some(Response::ResponseRange(range)) => range.kvs,
            _ => Vec::new(),
        });
        Ok(Found { ranges: ranges.collect(), revision: answer.header.map_or(0, |header| header.revision) })
    }
}

impl Found {
    /// The next range that has not been taken yet, in the order in which they were asked for.
    pub fn take(&mut self) -> Vec<KeyValue> {
        if self.ranges.is_empty() { Vec::new() } else { self.ranges.remove(0) }
    }

    /// The same of a range of one key.
    pub fn take_one(&mut self) -> Option<KeyValue> {
        self.take().into_iter().next()
    }
}

impl Seen {
    pub fn of(state: Option<&KeyValue>) -> Result<Seen, Failure> {
        Ok(match state {
            Some(kv) => Seen { record: decode(kv)?, written: kv.mod_revision },
            None => Seen::default(),
        })
    }

    pub async fn read<P: Primitives>(
        primitives: &P,
        keys: &Keys<'_>,
        fresh: Fresh,
    ) -> Result<(Seen, i64), Failure> {
        let mut found = Reads::default().key(keys.state()).run(primitives, fresh).await?;
        Ok((Seen::of(found.take_one().as_ref())?, found.revision))
    }
}

impl Entry {
    pub fn of(root: &Root, kv: &KeyValue) -> Result<Entry, Failure> {
        let Some((_, Part::Queued { number, owner })) = part(root, &kv.key) else {
            return Err(Failure::Invalid(format!("{:?} is no key of a queue", kv.key)));
        };
        Ok(Entry { key: kv.key.to_vec(), number, owner, queued: decode(kv)?, created: kv.create_revision })
    }
}

/// The queue's first, `limit` at the most, of those at or behind the place `line`. A store counts all keys of a range that it is
/// asked for, so one that is likely enough to hold as many is asked for first: of a long queue whose members came one after the
/// other.
pub async fn first<P: Primitives>(
    primitives: &P,
    root: &Root,
    name: &str,
    line: &str,
    limit: i64,
    fresh: Fresh,
) -> Result<Vec<Entry>, Failure> {
    const NEAR: i64 = 256;
    if line.is_empty() {
        return Ok(Vec::new());
    }
    let keys = Keys::new(root, name);
    let whole = keys.queue_from(line);
    if let Some(far) = i64::from_str_radix(line, 16).ok().and_then(|line| line.checked_add(NEAR)) {
        let near = (whole.0.clone(), keys.queue_from(&hexadecimal(far)).0);
        let mut found = Reads::default().range(near, limit).run(primitives, fresh).await?;
        let kvs = found.take();
        if kvs.len() as i64 >= limit {
            return kvs.iter().map(|kv| Entry::of(root, kv)).collect();
        }
    }
    let mut found = Reads::default().range(whole, limit).run(primitives, fresh).await?;
    found.take().iter().map(|kv| Entry::of(root, kv)).collect()
}

pub fn policy_of(kv: Option<&KeyValue>) -> Result<LockPolicy, Failure> {
    kv.map(decode).transpose().map(Option::unwrap_or_default)
}

/// Only who writes past the rules can have put something else there.
pub fn decode<M: Message + Default>(kv: &KeyValue) -> Result<M, Failure> {
    M::decode(kv.value.clone()).map_err(|error| {
        let key = String::from_utf8_lossy(&kv.key).into_owned();
        Failure::Invalid(format!("what stands in {key:?} is not what belongs there: {error}"))
    })
}

/// What a state with a queue begins with if everybody in front of this place has left it.
pub fn line_before(number: &str) -> Vec<u8> {
    Bytes::from(LockRecord { line: number.to_owned(), ..LockRecord::default() }.encode_to_vec()).to_vec()
}
