//! An instance as it is stored, with what the store says of it, and as its consumers see it.

use prost::Message;
use tenure_proto::mvccpb::KeyValue;
use tenure_proto::tenure::v1::{Health, Instance, InstanceRecord, Registration};

/// Share of the traffic of those that say nothing.
const WEIGHT: u32 = 100;

/// A stored record and its place in history: its pair without the value.
#[derive(Clone, Debug, PartialEq)]
pub struct Held {
    pub record: InstanceRecord,
    pub kv: KeyValue,
}

impl Held {
    /// None for a value that the registry did not write.
    pub fn decode(mut kv: KeyValue) -> Option<Held> {
        // Whoever follows a large service keeps very many of these: not the bytes as well.
        let record = InstanceRecord::decode(std::mem::take(&mut kv.value)).ok()?;
        record.registration.as_ref()?;
        Some(Held { record, kv })
    }

    pub fn registration(&self) -> &Registration {
        self.record.registration.as_ref().expect("`decode` takes no record without")
    }

    pub fn incarnation(&self) -> i64 {
        self.registration().incarnation
    }

    /// Its lease is its own, not a session's.
    pub fn has_own_lease(&self) -> bool {
        self.registration().session == 0
    }

    /// As consumers see it. `alive`: whether its sign of life is there.
    pub fn instance(&self, alive: bool) -> Instance {
        seen(&self.record, alive, self.kv.create_revision, self.kv.mod_revision)
    }
}

/// A record that was written at `mod_revision`, as consumers see it.
pub fn seen(record: &InstanceRecord, alive: bool, create_revision: i64, mod_revision: i64) -> Instance {
    let health = if record.lost { Health::Lost } else { record.health() };
    Instance {
        registration: record.registration.clone(),
        health: health.into(),
        note: record.note.clone(),
        drain: record.drain.clone(),
        maintenance: record.maintenance,
        stale: !alive && !record.lost,
        weight: weight(record),
        routable: is_routable(record),
        create_revision,
        mod_revision,
        lease: record.lease,
        health_since_unix_ms: record.health_since_unix_ms,
    }
}

/// Whether it is to be sent traffic. That it is not heard of does not matter, until it is taken for lost.
pub fn is_routable(record: &InstanceRecord) -> bool {
    let serves = !record.lost && matches!(record.health(), Health::Passing | Health::Warning);
    serves && record.drain.is_none() && !record.maintenance
}

/// The operator's word if there is one, else the registration's.
pub fn weight(record: &InstanceRecord) -> u32 {
    let registered = record.registration.as_ref().and_then(|registration| registration.weight);
    record.weight.or(registered).unwrap_or(WEIGHT)
}
