//! Batches that are written but not yet committed, the oldest first, and how to read through them. Knows nothing of
//! threads: its owner holds the lock.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use tenure_state::Place;

use super::batch::{Batch, last_of_each};

/// More batches than this count as full whatever their size, so that looking through all of them stays in microseconds.
const BATCHES_MAX: usize = 4096;

#[derive(Debug, Default)]
pub(super) struct Backlog {
    batches: VecDeque<Pending>,
    bytes: usize,
}

/// The span stands beside the pointer so that a search passes by a batch without touching its memory.
#[derive(Debug)]
struct Pending {
    span: Option<(Place, Place)>,
    batch: Arc<Batch>,
}

impl Backlog {
    pub fn push(&mut self, batch: Batch) {
        self.bytes += batch.weight();
        self.batches.push_back(Pending { span: batch.span(), batch: Arc::new(batch) });
    }

    /// The oldest batches, at least one if there is any, until they are `bytes_max` bytes.
    pub fn oldest(&self, bytes_max: usize) -> Vec<Arc<Batch>> {
        let (mut taken, mut bytes) = (0, 0);
        let fits = |pending: &&Pending| {
            let fits = taken == 0 || bytes + pending.batch.weight() <= bytes_max;
            taken += 1;
            bytes += pending.batch.weight();
            fits
        };
        self.batches.iter().take_while(fits).map(|pending| Arc::clone(&pending.batch)).collect()
    }

    /// Forgets the oldest batches once the database shows them.
    pub fn committed(&mut self, count: usize) {
        for pending in self.batches.drain(..count) {
            self.bytes -= pending.batch.weight();
        }
    }

    /// The newest word on `place`: none, dropped, or its record.
    pub fn find(&self, place: Place) -> Option<Option<Bytes>> {
        self.batches
            .iter()
            .rev()
            .filter(|pending| pending.span.is_some_and(|(first, last)| first <= place && place <= last))
            .find_map(|pending| pending.batch.find(place).cloned())
    }

    /// The newest word on every place touched in `from <= place < to`, in order.
    pub fn records(&self, from: Place, to: Place) -> Vec<(Place, Option<Bytes>)> {
        let mut records = Vec::new();
        for pending in &self.batches {
            if pending.span.is_some_and(|(first, last)| first < to && from <= last) {
                records.extend_from_slice(pending.batch.between(from, to));
            }
        }
        last_of_each(records)
    }

    /// The newest word on every small state touched whose key starts with `prefix`, in order.
    pub fn meta(&self, prefix: &[u8]) -> Vec<(Bytes, Option<Bytes>)> {
        let said = self.batches.iter().flat_map(|pending| &pending.batch.meta);
        last_of_each(said.filter(|(key, _)| key.starts_with(prefix)).cloned().collect())
    }

    pub fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    pub fn is_full(&self, bytes_max: usize) -> bool {
        self.bytes >= bytes_max || self.batches.len() >= BATCHES_MAX
    }

    pub fn len(&self) -> usize {
        self.batches.len()
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use tenure_state::Write;

    use super::*;

    fn place(main: i64) -> Place {
        Place { main, sub: 0, tombstone: false }
    }

    fn batch(main: i64, length: usize) -> Batch {
        Batch::new(
            vec![Write::Record { at: place(main), bytes: Bytes::from(vec![b'x'; length]) }],
            Bytes::new(),
        )
    }

    /// Of a batch of one record of 40 bytes: a place, the record, and what any write weighs.
    const WEIGHT: usize = 13 + 40 + 64;

    #[test]
    fn a_portion_is_bounded_but_never_empty() {
        let mut backlog = Backlog::default();
        assert!(backlog.oldest(100).is_empty());
        for main in 1..=4 {
            backlog.push(batch(main, 40));
        }
        assert_eq!(backlog.oldest(1).len(), 1);
        assert_eq!(backlog.oldest(WEIGHT * 3).len(), 3);
        backlog.committed(3);
        assert_eq!((backlog.len(), backlog.bytes()), (1, WEIGHT));
        assert_eq!(backlog.find(place(3)), None);
        assert!(backlog.find(place(4)).is_some());
    }

    #[test]
    fn many_tiny_batches_are_full_too() {
        let mut backlog = Backlog::default();
        while !backlog.is_full(usize::MAX) {
            backlog.push(batch(1, 0));
        }
        assert_eq!(backlog.len(), BATCHES_MAX);
    }
}
