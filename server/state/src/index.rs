//! Which keys there are and when each changed: the ordered map from a key to its history. Values are not here, but for
//! the newest record of a key as long as a byte budget allows: most reads are of those.
//!
//! ```text
//!   key ──► older: [3.0 put][5.1 put]            places only, 16 bytes each
//!           newest: 9.0 put, created 3, version 3, lease 7, record ▓▓▓
//! ```
//!
//! What stands here follows from the records alone, so it is rebuilt from them at start and is never written.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;

use crate::change::Key;
use crate::interval::Interval;
use crate::revision::{Place, Revision};

/// A superseded change of a key. Packed: a history can be long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Past {
    main: i64,
    /// The lowest bit says tombstone.
    sub_and_tombstone: u32,
    size: u32,
}

impl Past {
    fn place(self) -> Place {
        Place {
            main: self.main,
            sub: self.sub_and_tombstone >> 1,
            tombstone: self.sub_and_tombstone & 1 == 1,
        }
    }
}

/// The newest change of a key. A tombstone has version 0.
#[derive(Clone, Debug, PartialEq)]
pub struct Newest {
    pub main: i64,
    pub create: i64,
    pub version: i64,
    pub lease: i64,
    pub sub: u32,
    /// Bytes of the record.
    pub size: u32,
    /// The record itself while the budget allows.
    pub record: Option<Bytes>,
}

impl Newest {
    pub fn place(&self) -> Place {
        Place { main: self.main, sub: self.sub, tombstone: self.is_tombstone() }
    }

    pub fn is_tombstone(&self) -> bool {
        self.version == 0
    }
}

/// All that is known of one key, oldest first.
#[derive(Clone, Debug, PartialEq)]
pub struct History {
    older: Vec<Past>,
    newest: Newest,
}

impl History {
    pub fn newest(&self) -> &Newest {
        &self.newest
    }

    /// The key's newest change, unless that removed it.
    pub fn live(&self) -> Option<&Newest> {
        (!self.newest.is_tombstone()).then_some(&self.newest)
    }

    /// Where the record lies that was the key's value at `revision`; None if the key did not exist then.
    pub fn at(&self, revision: Revision) -> Option<Place> {
        let place = if self.newest.main <= revision.0 {
            self.newest.place()
        } else {
            let after = self.older.partition_point(|past| past.main <= revision.0);
            self.older[..after].last()?.place()
        };
        (!place.tombstone).then_some(place)
    }

    /// Whether a read at `compacted` or later can still need the record at `place`.
    fn keeps(&self, place: Place, compacted: Revision) -> bool {
        if place.main >= compacted.0 {
            return true;
        }
        !place.tombstone && self.at(compacted) == Some(place)
    }
}

/// The budget for newest records in memory.
#[derive(Clone, Debug, Default, PartialEq)]
struct Budget {
    used: usize,
    max: usize,
}

/// What a record costs beside its bytes: the allocation and the shared counter.
const RECORD_OVERHEAD: usize = 64;

impl Budget {
    fn admit(&mut self, record: Bytes) -> Option<Bytes> {
        let cost = record.len() + RECORD_OVERHEAD;
        (self.used + cost <= self.max).then(|| {
            self.used += cost;
            record
        })
    }

    fn release(&mut self, record: &Option<Bytes>) {
        self.used -= record.as_ref().map_or(0, |record| record.len() + RECORD_OVERHEAD);
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Index {
    /// Boxed, since keys that come in order leave the map's nodes half empty: only a pointer's place is empty then.
    keys: BTreeMap<Key, Box<History>>,
    budget: Budget,
    live_keys: usize,
    /// Bytes of all records that are not dropped, and of those that are some key's value now.
    record_bytes: u64,
    live_bytes: u64,
}

/// What a record occupies in the store beside its bytes.
const PLACE_BYTES: u64 = Place::ENCODED_LEN as u64;

impl Index {
    /// `record_bytes_max` bounds the newest records kept in memory; 0 keeps none.
    pub fn new(record_bytes_max: usize) -> Index {
        Index { budget: Budget { used: 0, max: record_bytes_max }, ..Index::default() }
    }

    /// Changes the bound for records that come from now on; those that are kept stay.
    pub fn bound_records(&mut self, record_bytes_max: usize) {
        self.budget.max = record_bytes_max;
    }

    pub fn get(&self, key: &[u8]) -> Option<&History> {
        self.keys.get(key).map(|history| &**history)
    }

    pub fn shared_key(&self, key: &[u8]) -> Option<Key> {
        self.keys.get_key_value(key).map(|(key, _)| key.clone())
    }

    /// All keys in the interval that have any history, in order.
    pub fn range<'a>(&'a self, interval: &'a Interval) -> impl Iterator<Item = (&'a Key, &'a History)> {
        self.keys.range::<[u8], _>(interval.bounds()).map(|(key, history)| (key, &**history))
    }

    /// The same, from behind `after` on: for a walk in several steps.
    pub fn range_after<'a>(
        &'a self,
        interval: &'a Interval,
        after: Option<&'a Key>,
    ) -> impl Iterator<Item = (&'a Key, &'a History)> {
        let (start, end) = interval.bounds();
        let start = after.map_or(start, |key| Bound::Excluded(&**key));
        self.keys.range::<[u8], _>((start, end)).map(|(key, history)| (key, &**history))
    }

    /// Puts a change behind the key's history. Gives the key as it is shared, and what stood there before.
    pub fn push(&mut self, key: &[u8], mut newest: Newest, record: Bytes) -> (Key, Option<Newest>) {
        let tombstone = newest.is_tombstone();
        let size = u64::from(newest.size) + PLACE_BYTES;
        self.record_bytes += size;
        if !tombstone {
            self.live_bytes += size;
            self.live_keys += 1;
        }
        // One look-up that gives the shared key and its history at once. No upper bound: the map would look for that too.
        let from = (Bound::Included(key), Bound::Unbounded);
        let found = self.keys.range_mut::<[u8], _>(from).next().filter(|(found, _)| ***found == *key);
        let Some((shared, history)) = found else {
            newest.record = if tombstone { None } else { self.budget.admit(record) };
            let shared: Key = key.into();
            self.keys.insert(shared.clone(), Box::new(History { older: Vec::new(), newest }));
            return (shared, None);
        };
        self.budget.release(&history.newest.record);
        newest.record = if tombstone { None } else { self.budget.admit(record) };
        let before = std::mem::replace(&mut history.newest, newest);
        if !before.is_tombstone() {
            self.live_keys -= 1;
            self.live_bytes -= u64::from(before.size) + PLACE_BYTES;
        }
        let sub_and_tombstone = before.sub << 1 | u32::from(before.is_tombstone());
        history.older.push(Past { main: before.main, sub_and_tombstone, size: before.size });
        (shared.clone(), Some(before))
    }

    /// Forgets what no read at `compacted` or later needs, of at most `keys_max` keys behind `after`. Gives the places
    /// forgotten, and the key to go on from when there may be more.
    pub fn sweep(
        &mut self,
        compacted: Revision,
        after: Option<&Key>,
        keys_max: usize,
    ) -> (Vec<Place>, Option<Key>) {
        let start = after.map_or(Bound::Unbounded, |key| Bound::Excluded(&**key));
        let mut dropped = Vec::new();
        let mut gone = Vec::new();
        let mut last = None;
        let mut walked = 0;
        for (key, history) in self.keys.range_mut::<[u8], _>((start, Bound::Unbounded)).take(keys_max) {
            walked += 1;
            last = Some(key);
            sweep_key(history, compacted, &mut dropped);
            let newest = &history.newest;
            if newest.is_tombstone() && newest.main < compacted.0 {
                dropped.push((newest.place(), newest.size));
                gone.push(key.clone());
            }
        }
        let last = (walked == keys_max).then(|| last.cloned()).flatten();
        for key in &gone {
            self.keys.remove(key);
        }
        self.record_bytes -= dropped.iter().map(|(_, size)| u64::from(*size) + PLACE_BYTES).sum::<u64>();
        (dropped.into_iter().map(|(place, _)| place).collect(), last)
    }

    /// Whether history from `compacted` on still speaks of the record at `place`.
    pub fn keeps(&self, key: &[u8], place: Place, compacted: Revision) -> bool {
        self.keys.get(key).is_some_and(|history| history.keeps(place, compacted))
    }

    pub fn live_keys(&self) -> usize {
        self.live_keys
    }

    /// Bytes of all records that history still has.
    pub fn record_bytes(&self) -> u64 {
        self.record_bytes
    }

    /// Bytes of the records that are some key's value now.
    pub fn live_bytes(&self) -> u64 {
        self.live_bytes
    }
}

/// Drops the superseded changes of one key that lie before `compacted`, but for the one that was its value then.
fn sweep_key(history: &mut History, compacted: Revision, dropped: &mut Vec<(Place, u32)>) {
    if history.older.first().is_none_or(|past| past.main >= compacted.0) {
        return;
    }
    let value_then = history.at(compacted);
    history.older.retain(|past| {
        let place = past.place();
        let keep = place.main >= compacted.0 || value_then == Some(place);
        if !keep {
            dropped.push((place, past.size));
        }
        keep
    });
    if history.older.is_empty() {
        history.older = Vec::new();
    }
}
