//! The store's tables in memory, for simulations: no thread, no file, and a power cut that leaves what a database would
//! leave, some prefix of what was committed that reaches at least as far as the last sync. Knows nothing of who writes.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tenure_state::{Fatal, Place};

use super::batch::Batch;
use super::engine::APPLIED;

/// What a store in memory is kept in: it outlives the store as a disk outlives a process. Clones share it.
#[derive(Clone, Default)]
pub struct Memory {
    medium: Arc<Mutex<Medium>>,
}

#[derive(Default)]
struct Medium {
    /// All that is committed.
    seen: Arc<Tables>,
    /// What a power cut leaves for certain, and what was committed since, the oldest first.
    synced: Tables,
    unsynced: Vec<Arc<Batch>>,
    /// Counts power cuts: stores opened before one are of no use after it.
    life: u64,
}

impl Memory {
    /// How many batches were committed and not synced.
    pub fn unsynced(&self) -> usize {
        self.medium.lock().unsynced.len()
    }

    /// Cuts the power and turns it on again: of the batches that were not synced the first `kept` remain. Stores that
    /// were open fail from now on.
    pub fn cut_power(&self, kept: usize) {
        let mut medium = self.medium.lock();
        for batch in std::mem::take(&mut medium.unsynced).iter().take(kept) {
            medium.synced.take(batch);
        }
        medium.seen = Arc::new(medium.synced.clone());
        medium.life += 1;
    }
}

/// Both kinds of what a store holds, `applied` among the small state.
#[derive(Clone, Default)]
pub(super) struct Tables {
    records: BTreeMap<Place, Bytes>,
    meta: BTreeMap<Bytes, Bytes>,
}

impl Tables {
    pub fn put_record(&mut self, place: Place, record: Bytes) {
        self.records.insert(place, record);
    }

    pub fn put_meta(&mut self, key: Bytes, value: Bytes) {
        self.meta.insert(key, value);
    }

    pub fn put_applied(&mut self, applied: Bytes) {
        self.meta.insert(Bytes::from_static(APPLIED), applied);
    }

    pub fn applied(&self) -> Option<Bytes> {
        self.meta.get(APPLIED).cloned()
    }

    /// The records at `from <= place < to`, under their encoded places.
    pub fn records(&self, from: Place, to: Place) -> Vec<(Bytes, Bytes)> {
        let between = self.records.range(from..to.max(from));
        between.map(|(place, record)| (Bytes::copy_from_slice(&place.encode()), record.clone())).collect()
    }

    pub fn meta(&self, prefix: &[u8]) -> Vec<(Bytes, Bytes)> {
        let from = self.meta.range(Bytes::copy_from_slice(prefix)..);
        let pairs = from.take_while(|(key, _)| key.starts_with(prefix));
        pairs.map(|(key, value)| (key.clone(), value.clone())).collect()
    }

    fn take(&mut self, batch: &Batch) {
        for (place, record) in &batch.records {
            match record {
                Some(record) => self.records.insert(*place, record.clone()),
                None => self.records.remove(place),
            };
        }
        for (key, value) in &batch.meta {
            match value {
                Some(value) => self.meta.insert(key.clone(), value.clone()),
                None => self.meta.remove(key),
            };
        }
        self.put_applied(batch.applied.clone());
    }
}

/// A store's hold on its memory, until the power is cut.
pub(super) struct InMemory {
    memory: Memory,
    life: u64,
}

impl InMemory {
    pub fn open(memory: &Memory) -> InMemory {
        let life = memory.medium.lock().life;
        InMemory { memory: memory.clone(), life }
    }

    pub fn record(&self, place: Place) -> Result<Option<Bytes>, Fatal> {
        self.with(|medium| medium.seen.records.get(&place).cloned())
    }

    pub fn commit(&self, batches: &[Arc<Batch>]) -> Result<(), Fatal> {
        self.with(|medium| {
            let seen = Arc::make_mut(&mut medium.seen);
            batches.iter().for_each(|batch| seen.take(batch));
            medium.unsynced.extend_from_slice(batches);
        })
    }

    pub fn persist(&self) -> Result<(), Fatal> {
        self.with(|medium| {
            let unsynced = std::mem::take(&mut medium.unsynced);
            unsynced.iter().for_each(|batch| medium.synced.take(batch));
        })
    }

    /// Puts other tables in place of all that is here, durably.
    pub fn replace(&self, tables: Tables) -> Result<InMemory, Fatal> {
        self.with(|medium| {
            medium.unsynced.clear();
            medium.synced = tables.clone();
            medium.seen = Arc::new(tables);
            InMemory { memory: self.memory.clone(), life: self.life }
        })
    }

    pub fn view(&self) -> Arc<Tables> {
        Arc::clone(&self.memory.medium.lock().seen)
    }

    pub fn health(&self) -> Result<(), Fatal> {
        self.with(|_| ())
    }

    fn with<T>(&self, call: impl FnOnce(&mut Medium) -> T) -> Result<T, Fatal> {
        let mut medium = self.memory.medium.lock();
        if medium.life != self.life {
            return Err(Fatal(
                "store in memory: the power was cut since it was opened; open it again".into(),
            ));
        }
        Ok(call(&mut medium))
    }
}
