//! etcd's checksum of history: a CRC-32C over records in the order in which they happened, laid out as etcd lays them out,
//! so that the same history gives the same number there and here. Knows nothing of where the records lie.

use bytes::Bytes;
use prost::Message;
use tenure_proto::mvccpb::KeyValue;
use tenure_state::{Fatal, Machine, Place, Revision};

/// The sum of the records given so far.
#[derive(Clone, Copy, Debug)]
pub struct Checksum(u32);

impl Checksum {
    pub fn begin() -> Checksum {
        Checksum(crc32c::crc32c(b"key"))
    }

    pub fn add(&mut self, place: Place, record: &[u8]) {
        self.0 = crc32c::crc32c_append(self.0, &etcd_key(place));
        self.0 = crc32c::crc32c_append(self.0, record);
    }

    pub fn value(self) -> u32 {
        self.0
    }
}

/// etcd's rule of what counts: of what lies at or below the compaction floor only that which is its key's value at the
/// revision `at`, for the rest may be removed at any time.
pub fn counts(machine: &Machine, at: Revision, place: Place, record: &Bytes) -> Result<bool, Fatal> {
    if place.revision() > machine.compacted() {
        return Ok(true);
    }
    is_value(machine, at, place, record)
}

/// Whether the record is its key's value at the revision `at`, which must not lie below the compaction floor.
pub fn is_value(machine: &Machine, at: Revision, place: Place, record: &Bytes) -> Result<bool, Fatal> {
    let kv = KeyValue::decode(record.clone())
        .map_err(|error| Fatal(format!("the record at {place:?} does not decode: {error}")))?;
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
