//! Hashes of history, by which members, and etcd's own tools, compare what they hold.

use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use tenure_proto::mvccpb::KeyValue;
use tenure_state::{Fatal, Place, Refusal, Revision};

use super::error::Error;
use crate::raft::View;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryHash {
    pub hash: u32,
    pub at: Revision,
    pub compacted: Revision,
    /// The store's revision when the hash was asked for.
    pub current: Revision,
}

/// CRC-32C over all records up to `revision` (0 = the latest) that a read can still need, in etcd's layout, so that
/// the number is the one etcd gives for the same history. Reads the whole store; runs beside everything else.
pub async fn history(view: Arc<View>, revision: Revision) -> Result<HistoryHash, Error> {
    let (current, compacted) = {
        let machine = view.machine();
        (machine.revision(), machine.compacted())
    };
    let at = if revision.0 == 0 { current } else { revision };
    if at > current {
        return Err(Refusal::FutureRevision.into());
    }
    if at < compacted {
        return Err(Refusal::Compacted.into());
    }
    let hash = tokio::task::spawn_blocking(move || hash_records(&view, at)).await;
    let hash = hash.map_err(|_| Fatal("the task that hashed the history ended early".into()))??;
    Ok(HistoryHash { hash, at, compacted, current })
}

fn hash_records(view: &View, at: Revision) -> Result<u32, Fatal> {
    let mut hash = crc32c::crc32c(b"key");
    let mut failure = None;
    let end = Place::first_of(at.next());
    view.store().scan(Place::first_of(Revision(0)), end, &mut |place, record| match kept(
        view, at, place, &record,
    ) {
        Ok(false) => ControlFlow::Continue(()),
        Ok(true) => {
            hash = crc32c::crc32c_append(hash, &etcd_key(place));
            hash = crc32c::crc32c_append(hash, &record);
            ControlFlow::Continue(())
        }
        Err(fatal) => {
            failure = Some(fatal);
            ControlFlow::Break(())
        }
    })?;
    failure.map_or(Ok(hash), Err)
}

/// etcd's rule: of what lies at or below the compaction floor only that counts which is its key's value at the revision
/// that is hashed.
fn kept(view: &View, at: Revision, place: Place, record: &Bytes) -> Result<bool, Fatal> {
    let machine = view.machine();
    if place.revision() > machine.compacted() {
        return Ok(true);
    }
    let kv = KeyValue::decode(record.clone())
        .map_err(|error| Fatal(format!("a record does not decode: {error}")))?;
    let value = machine.index().get(&kv.key).and_then(|history| history.at(at));
    Ok(value == Some(place))
}

/// A record's place as etcd writes it: revision, underscore, sub-revision, and `t` for a tombstone.
fn etcd_key(place: Place) -> Vec<u8> {
    let mut key = Vec::with_capacity(18);
    key.extend_from_slice(&place.main.to_be_bytes());
    key.push(b'_');
    key.extend_from_slice(&u64::from(place.sub).to_be_bytes());
    if place.tombstone {
        key.push(b't');
    }
    key
}
