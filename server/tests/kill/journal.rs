//! What the clients know of one round: which writes were acknowledged and at which revision, which had no answer, what was
//! read, and what became of leases.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use prost::bytes::Bytes;
use tenure_proto::mvccpb::KeyValue;

use crate::model::Write;

#[derive(Default)]
pub struct Journal(Mutex<Entries>);

#[derive(Default)]
pub struct Entries {
    pub acknowledged: BTreeMap<i64, Write>,
    /// May have happened. Revokes are told of below.
    pub unanswered: Vec<Write>,
    pub reads: Vec<Read>,
    /// Leases with their TTL in seconds.
    pub granted: BTreeMap<i64, i64>,
    pub granted_perhaps: BTreeMap<i64, i64>,
    /// Grants without an answer whose id the server was to choose.
    pub granted_perhaps_somehow: usize,
    pub revoked: Vec<i64>,
    pub revoked_perhaps: Vec<i64>,
}

/// What a linearizable read of one key answered, and the revision it said that for.
pub struct Read {
    pub revision: i64,
    pub key: Bytes,
    pub pair: Option<KeyValue>,
}

impl Journal {
    pub fn entries(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn acknowledge(&self, revision: i64, write: Write) {
        let before = self.entries().acknowledged.insert(revision, write.clone());
        assert!(before.is_none(), "revision {revision} was given to two writes: {before:?} and {write:?}");
    }

    pub fn leave_unanswered(&self, write: Write) {
        self.entries().unanswered.push(write);
    }
}
