//! What a command did: the events that watchers see, the leases that the lessor follows, the writes that the store
//! makes. Data only; whoever reads them decides what to do.

use std::sync::Arc;

use bytes::Bytes;
use tenure_proto::etcdserverpb::AlarmMember;
use tenure_proto::mvccpb;

use crate::revision::{Place, Revision};

/// Keys are shared between the index, leases and events, never copied.
pub type Key = Arc<[u8]>;

/// An etcd lease id; any value but 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub i64);

/// One key put or deleted, as history keeps it.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    pub place: Place,
    pub key: Key,
    /// The record: an encoded `mvccpb.KeyValue`; of a tombstone it holds only the key.
    pub record: Bytes,
    pub previous: Previous,
}

/// What stood at the key before an event's revision.
#[derive(Clone, Debug, PartialEq)]
pub enum Previous {
    /// The key did not exist.
    Nothing,
    Record(Bytes),
    /// It existed, but its record was not in memory: read it at this place.
    At(Place),
}

impl Event {
    /// The event's `kv` as etcd sends it: a deletion carries the key and the revision that removed it.
    pub fn key_value(&self) -> mvccpb::KeyValue {
        use prost::Message;
        if self.place.tombstone {
            let key = Bytes::copy_from_slice(&self.key);
            return mvccpb::KeyValue { key, mod_revision: self.place.main, ..Default::default() };
        }
        mvccpb::KeyValue::decode(self.record.clone()).expect("the machine encoded this record")
    }
}

/// All events of one revision, in order. Never empty.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    pub revision: Revision,
    pub events: Box<[Event]>,
}

/// What others follow once a command is applied, in the order it happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    Changed(Arc<Change>),
    /// `epoch` is the index of the entry that set the lease's time: a grant, or a checkpoint.
    LeaseGranted {
        id: LeaseId,
        ttl_s: i64,
        epoch: u64,
    },
    LeaseCheckpointed {
        id: LeaseId,
        remaining_s: i64,
        epoch: u64,
    },
    LeaseGone {
        id: LeaseId,
    },
    /// An expiry that was proposed came too late to be true: the lease lives on.
    ExpiryDropped {
        id: LeaseId,
    },
    Compacted {
        revision: Revision,
        physical: bool,
    },
    AlarmRaised(AlarmMember),
    AlarmCleared(AlarmMember),
    MemberPublished {
        id: u64,
    },
    /// Members came, went or moved. `voters`: others vote now than before.
    MembersChanged {
        voters: bool,
    },
}

/// One write to the store. A command's writes go in together or not at all.
#[derive(Clone, Debug, PartialEq)]
pub enum Write {
    Record {
        at: Place,
        bytes: Bytes,
    },
    /// A superseded record, removed by compaction.
    DropRecord {
        at: Place,
    },
    /// State that is not a key of a client; `value` None removes it. See [`crate::stored`] for the key's layout.
    Meta {
        key: Bytes,
        value: Option<Bytes>,
    },
}
