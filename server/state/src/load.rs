//! From the store back into memory, at start and after a snapshot came from another member: records in the order in which
//! they happened, then the rest. What compaction had made unreadable, but not yet removed, is found and given up.

use bytes::Bytes;
use prost::Message;
use tenure_proto::etcdserverpb::AlarmMember;
use tenure_proto::internal::{StoredLease, StoredMember};
use tenure_proto::mvccpb::KeyValue;

use crate::change::{Key, LeaseId};
use crate::index::{History, Newest};
use crate::machine::Machine;
use crate::records::Fatal;
use crate::revision::{Place, Revision};
use crate::stored;

/// Of the memory for newest records, the part that a load fills: enough for a small store to answer from memory at once,
/// little enough that a large one does not keep its clients waiting for memory that they may never ask for.
const RECORDS_SHARE: usize = 8;

/// A machine in the making.
pub struct Load {
    machine: Machine,
    record_bytes_max: usize,
    /// Every change that put a key on a lease, superseded ones too: leases come after the records.
    leased: Vec<(Key, LeaseId)>,
}

impl Load {
    /// `revision` and `compacted` are those that were stored with the applied index.
    pub fn new(record_bytes_max: usize, revision: Revision, compacted: Revision) -> Load {
        let mut machine = Machine::new(record_bytes_max / RECORDS_SHARE);
        machine.restore_floor(revision, compacted);
        Load { machine, record_bytes_max, leased: Vec::new() }
    }

    /// The next record, in ascending order of places.
    pub fn record(&mut self, place: Place, record: Bytes) -> Result<(), Fatal> {
        let kv = KeyValue::decode(record.clone()).map_err(|error| {
            Fatal(format!("the record of revision {}.{} does not decode: {error}", place.main, place.sub))
        })?;
        let newest = Newest {
            main: place.main,
            create: kv.create_revision,
            version: if place.tombstone { 0 } else { kv.version },
            lease: kv.lease,
            sub: place.sub,
            size: record.len() as u32,
            record: None,
        };
        let (key, _) = self.machine.index_mut().push(&kv.key, newest, record);
        if kv.lease != 0 {
            self.leased.push((key, LeaseId(kv.lease)));
        }
        self.machine.restore_floor(place.revision(), Revision(0));
        Ok(())
    }

    /// One piece of state that is not a key.
    pub fn meta(&mut self, key: &[u8], value: &[u8]) -> Result<(), Fatal> {
        let damaged =
            |error: prost::DecodeError| Fatal(format!("stored state {key:?} does not decode: {error}"));
        let (_, leases, alarms, members) = self.machine.restore_parts();
        match key {
            [stored::LEASE, ..] => leases.restore(StoredLease::decode(value).map_err(damaged)?),
            [stored::MEMBER, ..] => members.restore(StoredMember::decode(value).map_err(damaged)?),
            [stored::REMOVED, id @ ..] => {
                let id = id.try_into().map_err(|_| Fatal(format!("stored state {key:?} names no member")))?;
                members.restore_removed(u64::from_be_bytes(id));
            }
            stored::APPLIED => {}
            [stored::ALARM, ..] => alarms.restore(AlarmMember::decode(value).map_err(damaged)?),
            _ => return Err(Fatal(format!("the store holds {key:?}, which this version does not know"))),
        }
        Ok(())
    }

    /// Ties keys to their leases. The caller sweeps the machine afterwards, as after any compaction.
    pub fn finish(mut self) -> Machine {
        self.machine.index_mut().bound_records(self.record_bytes_max);
        for (key, lease) in self.leased {
            let newest = self.machine.index().get(&key).and_then(History::live);
            if newest.is_some_and(|newest| newest.lease == lease.0) {
                self.machine.leases.attach(&key, LeaseId(0), lease);
            }
        }
        self.machine
    }
}
