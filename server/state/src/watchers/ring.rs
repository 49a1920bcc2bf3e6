//! The last changes, for watchers that are a little behind. Knows nothing of watchers.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::change::{Change, Event, Previous};
use crate::revision::Revision;

/// Changes of consecutive revisions. Bounded by number and bytes, but the newest always stays.
#[derive(Debug)]
pub(super) struct Ring {
    changes: VecDeque<Arc<Change>>,
    /// The oldest revision held, or the next to come when there is none.
    first: Revision,
    bytes: usize,
    changes_max: usize,
    bytes_max: usize,
}

impl Ring {
    pub fn new(first: Revision, changes_max: usize, bytes_max: usize) -> Ring {
        Ring { changes: VecDeque::new(), first, bytes: 0, changes_max, bytes_max }
    }

    pub fn first(&self) -> Revision {
        self.first
    }

    pub fn get(&self, revision: Revision) -> Option<&Arc<Change>> {
        self.changes.get(usize::try_from(revision.0 - self.first.0).ok()?)
    }

    pub fn push(&mut self, change: Arc<Change>) {
        self.bytes += size(&change);
        self.changes.push_back(change);
        while self.changes.len() > 1 && (self.changes.len() > self.changes_max || self.bytes > self.bytes_max)
        {
            let oldest = self.changes.pop_front().expect("there are at least two");
            self.bytes -= size(&oldest);
            self.first = self.first.next();
        }
    }

    /// Forgets everything; the next change will be that of `first`.
    pub fn restart(&mut self, first: Revision) {
        self.changes.clear();
        self.bytes = 0;
        self.first = first;
    }
}

/// What a change costs in memory, roughly. Records may be shared with the index, but count here all the same: the ring
/// can be the last to hold them.
fn size(change: &Change) -> usize {
    let event = |event: &Event| {
        let previous = match &event.previous {
            Previous::Record(record) => record.len(),
            Previous::Nothing | Previous::At(_) => 0,
        };
        size_of::<Event>() + event.key.len() + event.record.len() + previous
    };
    size_of::<Change>() + change.events.iter().map(event).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn change(revision: i64, bytes: usize) -> Arc<Change> {
        let place = crate::Place::first_of(Revision(revision));
        let record = Bytes::from(vec![0; bytes]);
        let event = Event { place, key: Arc::from(&b"k"[..]), record, previous: Previous::Nothing };
        Arc::new(Change { revision: Revision(revision), events: Box::new([event]) })
    }

    #[test]
    fn the_oldest_go_when_there_are_too_many() {
        let mut ring = Ring::new(Revision(5), 3, usize::MAX);
        assert_eq!((ring.first(), ring.get(Revision(5))), (Revision(5), None));
        (5..10).for_each(|revision| ring.push(change(revision, 1)));
        assert_eq!(ring.first(), Revision(7));
        let held = |revision| ring.get(Revision(revision)).map(|change| change.revision.0);
        assert_eq!([6, 7, 8, 9, 10].map(held), [None, Some(7), Some(8), Some(9), None]);
    }

    #[test]
    fn the_oldest_go_when_they_weigh_too_much_but_the_newest_stays() {
        let mut ring = Ring::new(Revision(5), 100, 1_000);
        (5..8).for_each(|revision| ring.push(change(revision, 100)));
        assert_eq!(ring.first(), Revision(5));
        ring.push(change(8, 5_000));
        assert_eq!(ring.first(), Revision(8));
        ring.push(change(9, 10));
        assert_eq!(ring.first(), Revision(9));
        ring.push(change(10, 10));
        assert_eq!(ring.first(), Revision(9), "the bytes of what went are free again");
    }
}
