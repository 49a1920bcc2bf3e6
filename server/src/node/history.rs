//! History from the store, for watchers whose past is no longer in memory: changes as they were when they happened.

use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use tenure_proto::mvccpb::KeyValue;
use tenure_state::{Change, Event, Fatal, Interval, Place, Revision};

use crate::raft::View;

/// Records read in one go, and their bytes: about a millisecond of reading.
const RECORDS_AT_ONCE: usize = 512;
const BYTES_AT_ONCE: usize = 512 << 10;

/// The changes of keys in `interval` from `from` on, up to and with the revision that is given with them: `upto`, or one
/// before it when that is enough for now. Whole revisions only.
pub fn read(
    view: &View,
    interval: &Interval,
    from: Revision,
    upto: Revision,
) -> Result<(Vec<Arc<Change>>, Revision), Fatal> {
    let mut scan = view.store().scanner(Place::first_of(from), Place::first_of(upto.next()))?;
    let mut records = Vec::new();
    let reached = loop {
        let chunk = scan.chunk(RECORDS_AT_ONCE, BYTES_AT_ONCE)?;
        records.extend(chunk.records);
        let Some(next) = chunk.next else { break upto };
        let first = records.first().map_or(next.main, |(place, _): &(Place, Bytes)| place.main);
        if first < next.main {
            // The revision that goes on in the next chunk waits for it.
            records.retain(|(place, _)| place.main < next.main);
            break Revision(next.main - 1);
        }
    };
    let mut changes = Vec::new();
    for revision in records.chunk_by(|(a, _), (b, _)| a.main == b.main) {
        let mut events = Vec::new();
        for (place, record) in revision {
            events.extend(event(view, interval, *place, record)?);
        }
        if !events.is_empty() {
            let revision = Revision(revision[0].0.main);
            changes.push(Arc::new(Change { revision, events: events.into_boxed_slice() }));
        }
    }
    Ok((changes, reached))
}

fn event(view: &View, interval: &Interval, place: Place, record: &Bytes) -> Result<Option<Event>, Fatal> {
    let kv = KeyValue::decode(record.clone())
        .map_err(|error| Fatal(format!("the record of revision {} does not decode: {error}", place.main)))?;
    if !interval.contains(&kv.key) {
        return Ok(None);
    }
    let begins = !place.tombstone && kv.version == 1;
    let previous = view.machine().previous(&kv.key, place.main, begins);
    // A copy: the bytes are part of a whole block, which must not stay in memory for them.
    let record = Bytes::copy_from_slice(record);
    Ok(Some(Event { place, key: (&kv.key[..]).into(), record, previous }))
}
