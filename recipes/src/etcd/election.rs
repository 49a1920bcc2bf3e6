//! etcd's Election service: who is at the front of the line leads, and the value of his key is what he proclaims.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use tenure_proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use tenure_proto::etcdserverpb::request_op::Request;
use tenure_proto::etcdserverpb::{PutRequest, RangeRequest, TxnRequest};
use tenure_proto::mvccpb::event::EventType;
use tenure_proto::mvccpb::{Event, KeyValue};

use super::line::{self, keys, op, revision};
use crate::guard;
use crate::primitives::{Change, Changes, Failure, Primitives};

/// Changes the value of a key that was created then, whether it leads or waits. The revision of the change; None: there is no such key.
pub async fn proclaim<P: Primitives>(
    primitives: &P,
    key: &Bytes,
    create_revision: i64,
    value: Bytes,
) -> Result<Option<i64>, Failure> {
    // The key stays on its lease, whatever lease the caller takes it to be on: a leader without one would never end.
    let put = PutRequest { key: key.clone(), value, ignore_lease: true, ..PutRequest::default() };
    let txn = TxnRequest {
        compare: vec![guard::compare(key, create_revision)],
        success: vec![op(Request::RequestPut(put))],
        failure: Vec::new(),
    };
    let answer = match primitives.txn(txn.clone()).await {
        // Proclaiming the same twice is one more event and nothing else.
        Err(Failure::Unknown(_)) => primitives.txn(txn).await?,
        answer => answer?,
    };
    Ok(answer.succeeded.then(|| revision(&answer)))
}

/// Who leads, and at which revision; None: nobody.
pub async fn leader<P: Primitives>(primitives: &P, name: &[u8]) -> Result<(Option<KeyValue>, i64), Failure> {
    let (key, range_end) = keys(name);
    let range = RangeRequest {
        key,
        range_end,
        limit: 1,
        sort_order: SortOrder::Ascend.into(),
        sort_target: SortTarget::Create.into(),
        ..RangeRequest::default()
    };
    let answer = primitives.range(range).await?;
    Ok((answer.kvs.into_iter().next(), answer.header.map_or(0, |header| header.revision)))
}

/// Gives the leadership, or the place in line, up. At which revision the store was then.
pub async fn resign<P: Primitives>(
    primitives: &P,
    key: &Bytes,
    create_revision: i64,
) -> Result<i64, Failure> {
    line::leave(primitives, key, create_revision).await
}

/// Follows who leads and what they proclaim: everything that was so at the end of some revision, in order. What a compaction took away
/// before it was read is passed over, as etcd has no word for that; what is told next is true.
pub struct Observer<P: Primitives> {
    primitives: P,
    name: Bytes,
    line: Line,
    /// Leaders that were not told yet, with the revision at which each was so.
    due: VecDeque<(KeyValue, i64)>,
    changes: Option<P::Changes>,
}

impl<P: Primitives> Observer<P> {
    /// From here on it misses nothing.
    pub async fn begin(primitives: P, name: Bytes) -> Result<Observer<P>, Failure> {
        let mut observer =
            Observer { primitives, name, line: Line::default(), due: VecDeque::new(), changes: None };
        observer.read().await?;
        Ok(observer)
    }

    /// The leader now, and then each change of leader or value; waits while there is none. Safe to drop and to call again.
    pub async fn next(&mut self) -> Result<(KeyValue, i64), Failure> {
        loop {
            if let Some(leader) = self.due.pop_front() {
                return Ok(leader);
            }
            let Some(changes) = &mut self.changes else {
                self.read().await?;
                continue;
            };
            match changes.next().await {
                Ok(change) => self.due.extend(self.line.fold(change)),
                Err(Failure::Compacted { .. }) => self.changes = None,
                Err(failure) => return Err(failure),
            }
        }
    }

    async fn read(&mut self) -> Result<(), Failure> {
        let (key, range_end) = keys(&self.name);
        let range =
            RangeRequest { key: key.clone(), range_end: range_end.clone(), ..RangeRequest::default() };
        let answer = self.primitives.range(range).await?;
        let revision = answer.header.map_or(0, |header| header.revision);
        let changes = self.primitives.watch(key.to_vec(), range_end.to_vec(), revision + 1).await?;
        self.due.extend(self.line.replace(answer.kvs, revision));
        self.changes = Some(changes);
        Ok(())
    }
}

/// Everybody in line, by the revision that created their keys, and what was last told of the front.
#[derive(Debug, Default)]
struct Line {
    places: BTreeMap<(i64, Bytes), KeyValue>,
    by_key: BTreeMap<Bytes, i64>,
    /// Revisions of creation and of the last change.
    told: Option<(i64, i64)>,
}

impl Line {
    fn replace(&mut self, kvs: Vec<KeyValue>, revision: i64) -> Option<(KeyValue, i64)> {
        self.places.clear();
        self.by_key.clear();
        kvs.into_iter().for_each(|kv| self.put(kv));
        self.front(revision)
    }

    /// What there is to tell after a revision; nothing if the front stayed as it was.
    fn fold(&mut self, change: Change) -> Option<(KeyValue, i64)> {
        for event in change.events {
            let delete = event.r#type() == EventType::Delete;
            let Event { kv: Some(kv), .. } = event else { continue };
            self.remove(&kv.key);
            if !delete {
                self.put(kv);
            }
        }
        self.front(change.revision)
    }

    fn front(&mut self, revision: i64) -> Option<(KeyValue, i64)> {
        let (_, front) = self.places.first_key_value()?;
        let now = Some((front.create_revision, front.mod_revision));
        (std::mem::replace(&mut self.told, now) != now).then(|| (front.clone(), revision))
    }

    fn put(&mut self, kv: KeyValue) {
        self.by_key.insert(kv.key.clone(), kv.create_revision);
        self.places.insert((kv.create_revision, kv.key.clone()), kv);
    }

    fn remove(&mut self, key: &Bytes) {
        if let Some(created) = self.by_key.remove(key) {
            self.places.remove(&(created, key.clone()));
        }
    }
}
