//! Which entries the log holds, by id only: from where to where, what was purged, and the id of each index in between.
//!
//! Pure. The writer's view in memory and the replay at start use the same rules, so they cannot disagree.

use std::collections::VecDeque;

use super::LogId;

/// The ids of the entries held. Ids are kept as runs of one leader, a few dozen bytes per leader change.
#[derive(Clone, Debug, Default)]
pub(super) struct Extent {
    purged: Option<LogId>,
    last: Option<LogId>,
    first: u64,
    /// The first id of each stretch of entries by one leader, in order.
    runs: VecDeque<LogId>,
}

impl Extent {
    /// A log of which everything up to `last` lies elsewhere.
    pub fn resume(last: Option<LogId>, purged: Option<LogId>) -> Extent {
        Extent { purged, last, first: last.map_or(0, |id| id.index + 1), runs: VecDeque::new() }
    }

    pub fn last(&self) -> Option<LogId> {
        self.last
    }

    pub fn purged(&self) -> Option<LogId> {
        self.purged
    }

    /// The lowest index held, or, when nothing is held, the next one.
    pub fn first(&self) -> u64 {
        self.first
    }

    /// One past the highest index held.
    pub fn end(&self) -> u64 {
        self.last.map_or(self.first, |id| id.index + 1)
    }

    /// The id of a held entry, or of the last purged one.
    pub fn id(&self, index: u64) -> Option<LogId> {
        if let Some(purged) = self.purged.filter(|id| id.index == index) {
            return Some(purged);
        }
        if index < self.first || index >= self.end() {
            return None;
        }
        let run = self.runs.partition_point(|id| id.index <= index).checked_sub(1)?;
        Some(LogId { index, ..self.runs[run] })
    }

    /// Whether an entry of that index would be the next one. An empty log takes any.
    pub fn takes(&self, index: u64) -> bool {
        self.last.is_none_or(|last| last.index + 1 == index) && index < u64::MAX
    }

    /// Adds the next entry; false, and nothing done, if it is not the next one.
    pub fn append(&mut self, id: LogId) -> bool {
        if !self.takes(id.index) {
            return false;
        }
        if self.first >= self.end() {
            self.first = id.index;
        }
        let follows = self.runs.back().is_some_and(|run| (run.term, run.node) == (id.term, id.node));
        if !follows {
            self.runs.push_back(id);
        }
        self.last = Some(id);
        true
    }

    /// What would be last if everything after `index` went: nothing if no entry would go.
    pub fn last_after_truncation(&self, index: Option<u64>) -> Option<Option<LogId>> {
        let floor = self.purged.map(|id| id.index);
        let kept = index.max(floor);
        if kept >= self.last.map(|id| id.index) {
            return None;
        }
        Some(kept.and_then(|index| self.id(index)))
    }

    /// Makes `last` the last entry.
    pub fn truncate(&mut self, last: Option<LogId>) {
        while self.runs.back().is_some_and(|run| last.is_none_or(|last| run.index > last.index)) {
            self.runs.pop_back();
        }
        self.last = last;
        self.first = self.first.min(self.end());
        if last.is_none() {
            self.first = 0;
        }
    }

    /// Forgets everything up to and with `upto`, which may lie beyond the end; false if that was done before.
    pub fn purge(&mut self, upto: LogId) -> bool {
        if self.purged.is_some_and(|purged| purged.index >= upto.index) || upto.index == u64::MAX {
            return false;
        }
        self.purged = Some(upto);
        if self.last.is_none_or(|last| last.index <= upto.index) {
            self.last = Some(upto);
            self.runs.clear();
        }
        self.first = self.first.max(upto.index + 1);
        while self.runs.get(1).is_some_and(|run| run.index <= self.first) {
            self.runs.pop_front();
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(term: u64, index: u64) -> LogId {
        LogId { term, node: 1, index }
    }

    /// Ids survive leader changes, truncation and purging, and nothing outside the extent has one.
    #[test]
    fn every_held_index_has_its_id() {
        let mut extent = Extent::default();
        for n in 1..=10 {
            assert!(extent.append(id(n / 4, n)));
        }
        assert!(!extent.append(id(3, 12)) && !extent.append(id(3, 10)), "only the next index fits");
        assert_eq!(extent.id(7), Some(id(1, 7)));
        assert_eq!(extent.last_after_truncation(Some(10)), None);
        let last = extent.last_after_truncation(Some(8));
        assert_eq!(last, Some(Some(id(2, 8))));
        extent.truncate(Some(id(2, 8)));
        assert!(extent.append(id(9, 9)));
        assert!(extent.purge(id(1, 5)) && !extent.purge(id(1, 5)));
        assert_eq!((extent.first(), extent.end()), (6, 10));
        let ids: Vec<_> = (4..=10).map(|n| extent.id(n)).collect();
        let held = [id(1, 5), id(1, 6), id(1, 7), id(2, 8), id(9, 9)].map(Some);
        assert_eq!(ids, [&[None], &held[..], &[None]].concat());
    }

    /// Truncating never reaches below what was purged; purging beyond the end empties the log, which goes on behind it.
    #[test]
    fn purging_sets_the_floor() {
        let mut extent = Extent::default();
        for n in 0..5 {
            assert!(extent.append(id(1, n)));
        }
        assert!(extent.purge(id(1, 2)));
        assert_eq!(extent.last_after_truncation(None), Some(Some(id(1, 2))));
        extent.truncate(Some(id(1, 2)));
        assert_eq!((extent.first(), extent.end()), (3, 3));
        assert!(extent.purge(id(7, 20)));
        assert_eq!((extent.last(), extent.first(), extent.end()), (Some(id(7, 20)), 21, 21));
        assert!(!extent.append(id(7, 20)) && extent.append(id(7, 21)));
        assert_eq!(extent.id(21), Some(id(7, 21)));
    }
}
