//! The newest entries, in memory: what replication and apply read nearly always. Bounded in bytes; older entries are read
//! from their segments.

use std::collections::VecDeque;
use std::ops::Range;

use bytes::Bytes;

use super::LogId;

/// What an entry costs in memory besides its payload.
const ENTRY_BYTES: u64 = 64;

#[derive(Default)]
pub(super) struct Tail {
    entries: VecDeque<(LogId, Bytes)>,
    bytes: u64,
}

impl Tail {
    pub fn push(&mut self, id: LogId, payload: Bytes) {
        self.bytes += cost(&payload);
        self.entries.push_back((id, payload));
    }

    /// The lowest index held; nothing if none is.
    pub fn first(&self) -> Option<u64> {
        self.entries.front().map(|(id, _)| id.index)
    }

    /// Drops the entries after `last`.
    pub fn truncate(&mut self, last: Option<LogId>) {
        while self.entries.back().is_some_and(|(id, _)| last.is_none_or(|last| id.index > last.index)) {
            self.bytes -= self.entries.pop_back().map_or(0, |(_, payload)| cost(&payload));
        }
    }

    /// Drops the entries up to and with `upto`.
    pub fn purge(&mut self, upto: u64) {
        while self.first().is_some_and(|first| first <= upto) {
            self.pop();
        }
    }

    /// Drops the oldest entries below `durable_end` while more than `bytes_max` is held: others exist nowhere else yet.
    pub fn evict(&mut self, bytes_max: u64, durable_end: u64) {
        while self.bytes > bytes_max && self.first().is_some_and(|first| first < durable_end) {
            self.pop();
        }
    }

    /// Copies entries of a range that begins in the tail, at least one, until `bytes_max` of payload would be passed.
    pub fn read(&self, range: Range<u64>, bytes_max: u64, into: &mut Vec<(LogId, Bytes)>) {
        let Some(first) = self.first() else { return };
        let mut bytes = 0;
        let skip = range.start.saturating_sub(first) as usize;
        let count = range.end.saturating_sub(range.start.max(first)) as usize;
        for (id, payload) in self.entries.iter().skip(skip).take(count) {
            bytes += payload.len() as u64;
            if bytes > bytes_max && !into.is_empty() {
                return;
            }
            into.push((*id, payload.clone()));
        }
    }

    fn pop(&mut self) {
        self.bytes -= self.entries.pop_front().map_or(0, |(_, payload)| cost(&payload));
    }
}

fn cost(payload: &Bytes) -> u64 {
    payload.len() as u64 + ENTRY_BYTES
}
