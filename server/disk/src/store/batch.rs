//! What one call of `write` brought, sorted so that it can be searched and merged. Knows nothing of disk or threads.

use std::sync::Arc;

use bytes::Bytes;
use tenure_state::{Place, Write};

/// What a write weighs in memory beside its key and value, roughly; of a drop it is nearly all.
const WRITE_OVERHEAD: usize = 64;

/// Writes that go in together. Both lists are in strict order; `None` removes.
#[derive(Debug)]
pub(super) struct Batch {
    pub records: Vec<(Place, Option<Bytes>)>,
    pub meta: Vec<(Bytes, Option<Bytes>)>,
    pub applied: Bytes,
    /// Keys and values, as the disk will see them.
    pub bytes: usize,
}

impl Batch {
    pub fn new(writes: Vec<Write>, applied: Bytes) -> Batch {
        let mut records = Vec::with_capacity(writes.len());
        let mut meta = Vec::new();
        for write in writes {
            match write {
                Write::Record { at, bytes } => records.push((at, Some(bytes))),
                Write::DropRecord { at } => records.push((at, None)),
                Write::Meta { key, value } => meta.push((key, value)),
            }
        }
        Batch::sorted(records, meta, applied)
    }

    /// One batch with the effect of all, the oldest first. Needed because the database does not say which of two
    /// writes to one key wins inside one of its batches.
    pub fn merged(batches: &[Arc<Batch>]) -> Batch {
        let mut records = Vec::with_capacity(batches.iter().map(|batch| batch.records.len()).sum());
        let mut meta = Vec::with_capacity(batches.iter().map(|batch| batch.meta.len()).sum());
        for batch in batches {
            records.extend(batch.records.iter().cloned());
            meta.extend(batch.meta.iter().cloned());
        }
        let applied = batches.last().map(|batch| batch.applied.clone()).unwrap_or_default();
        Batch::sorted(records, meta, applied)
    }

    fn sorted(
        records: Vec<(Place, Option<Bytes>)>,
        meta: Vec<(Bytes, Option<Bytes>)>,
        applied: Bytes,
    ) -> Batch {
        let records = last_of_each(records);
        let meta = last_of_each(meta);
        let length = |value: &Option<Bytes>| value.as_ref().map_or(0, Bytes::len);
        let bytes = records.iter().map(|(_, value)| Place::ENCODED_LEN + length(value)).sum::<usize>()
            + meta.iter().map(|(key, value)| key.len() + length(value)).sum::<usize>()
            + applied.len();
        Batch { records, meta, applied, bytes }
    }

    /// Bytes that this batch takes in memory.
    pub fn weight(&self) -> usize {
        self.bytes + (self.records.len() + self.meta.len()) * WRITE_OVERHEAD
    }

    /// What this batch says of `place`: nothing, that it was dropped, or its record.
    pub fn find(&self, place: Place) -> Option<&Option<Bytes>> {
        let at = self.records.binary_search_by_key(&place, |(place, _)| *place).ok()?;
        Some(&self.records[at].1)
    }

    /// The records at `from <= place < to`.
    pub fn between(&self, from: Place, to: Place) -> &[(Place, Option<Bytes>)] {
        let start = self.records.partition_point(|(place, _)| *place < from);
        let end = self.records.partition_point(|(place, _)| *place < to);
        self.records.get(start..end).unwrap_or_default()
    }

    /// The first and last place that this batch touches.
    pub fn span(&self) -> Option<(Place, Place)> {
        Some((self.records.first()?.0, self.records.last()?.0))
    }
}

/// In order of keys, of equal keys only what was said last.
pub(super) fn last_of_each<K: Ord, V>(mut items: Vec<(K, V)>) -> Vec<(K, V)> {
    if !items.is_sorted_by(|left, right| left.0 < right.0) {
        items.sort_by(|left, right| left.0.cmp(&right.0));
        items.dedup_by(|later, kept| {
            let same = later.0 == kept.0;
            if same {
                std::mem::swap(later, kept);
            }
            same
        });
    }
    items
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(main: i64) -> Place {
        Place { main, sub: 0, tombstone: false }
    }

    fn put(main: i64, bytes: &'static str) -> Write {
        Write::Record { at: place(main), bytes: Bytes::from_static(bytes.as_bytes()) }
    }

    /// A record put and dropped in one batch is dropped, in whichever order the places come.
    #[test]
    fn the_last_word_on_a_place_counts() {
        let writes =
            vec![put(7, "seven"), put(3, "three"), Write::DropRecord { at: place(7) }, put(3, "again")];
        let batch = Batch::new(writes, Bytes::from_static(b"1"));
        assert_eq!(batch.find(place(7)), Some(&None));
        assert_eq!(batch.find(place(3)), Some(&Some(Bytes::from_static(b"again"))));
        assert_eq!(batch.find(place(5)), None);
        assert_eq!(batch.span(), Some((place(3), place(7))));
    }

    #[test]
    fn merging_keeps_the_newest_of_each_key_and_the_newest_applied() {
        let key = Bytes::from_static(b"key");
        let meta = |value: Option<&'static [u8]>| Write::Meta {
            key: key.clone(),
            value: value.map(Bytes::from_static),
        };
        let older = Batch::new(vec![put(1, "one"), meta(Some(b"a"))], Bytes::from_static(b"1"));
        let newer = Batch::new(
            vec![put(2, "two"), Write::DropRecord { at: place(1) }, meta(None)],
            Bytes::from_static(b"2"),
        );
        let merged = Batch::merged(&[Arc::new(older), Arc::new(newer)]);
        assert_eq!(merged.records, vec![(place(1), None), (place(2), Some(Bytes::from_static(b"two")))]);
        assert_eq!(merged.meta, vec![(key, None)]);
        assert_eq!(merged.applied, Bytes::from_static(b"2"));
    }

    #[test]
    fn between_is_half_open_and_takes_an_inverted_range_as_empty() {
        let batch = Batch::new((1..=5).map(|main| put(main, "x")).collect(), Bytes::new());
        let mains = |from, to| {
            batch.between(place(from), place(to)).iter().map(|(at, _)| at.main).collect::<Vec<_>>()
        };
        assert_eq!(mains(2, 4), [2, 3]);
        assert_eq!(mains(4, 2), [] as [i64; 0]);
    }
}
