//! Where on disk each entry lies: per segment, the position of each of its entries, four bytes an entry.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::LogId;
use super::record::{ENTRY_HEAD, decode_entry_head};
use super::sector::DATA;
use super::segment::Segment;

/// The segments of the log, oldest first, and the entries written to each.
#[derive(Default)]
pub(super) struct Map {
    segments: VecDeque<Placed>,
}

struct Placed {
    segment: Arc<Segment>,
    /// Index of the first position's entry. Entries after a truncation replace those before it.
    first: u64,
    positions: Vec<u32>,
}

/// What one record changed, to be told to the map when the record is durable.
#[derive(Clone, Copy, Debug)]
pub(super) enum Change {
    Placed { index: u64, position: u32 },
    Truncated(Option<LogId>),
    Purged(LogId),
}

impl Placed {
    fn end(&self) -> u64 {
        self.first + self.positions.len() as u64
    }
}

impl Map {
    /// From now on entries are placed in this segment.
    pub fn begin(&mut self, segment: Arc<Segment>) {
        self.segments.push_back(Placed { segment, first: 0, positions: Vec::new() });
    }

    /// Takes in a change; a position is counted from `base`.
    pub fn apply(&mut self, change: Change, base: u32) {
        match change {
            Change::Placed { index, position } => self.place(index, base + position),
            Change::Truncated(last) => self.truncate(last),
            Change::Purged(upto) => self.purge(upto.index),
        }
    }

    fn place(&mut self, index: u64, position: u32) {
        let placed = self.segments.back_mut().expect("a segment is begun before entries are placed in it");
        if placed.positions.is_empty() {
            placed.first = index;
        }
        debug_assert_eq!(placed.end(), index, "entries are placed in order");
        placed.positions.push(position);
    }

    fn truncate(&mut self, last: Option<LogId>) {
        let end = last.map_or(0, |id| id.index + 1);
        for placed in self.segments.iter_mut().rev().filter(|placed| !placed.positions.is_empty()) {
            placed.positions.truncate(end.saturating_sub(placed.first) as usize);
            if !placed.positions.is_empty() {
                break;
            }
        }
    }

    fn purge(&mut self, upto: u64) {
        for placed in &mut self.segments {
            if placed.end() <= upto + 1 {
                placed.positions = Vec::new();
            }
        }
    }

    /// Takes out the oldest segments that hold no entry any more, all but the one being written.
    pub fn release(&mut self) -> Vec<Arc<Segment>> {
        let mut released = Vec::new();
        while self.segments.len() > 1 && self.segments[0].positions.is_empty() {
            released.extend(self.segments.pop_front().map(|placed| placed.segment));
        }
        released
    }

    /// One past the highest index that has a place; 0 if none has.
    pub fn end(&self) -> u64 {
        let last = self.segments.iter().rev().find(|placed| !placed.positions.is_empty());
        last.map_or(0, Placed::end)
    }

    pub fn segments(&self) -> usize {
        self.segments.len()
    }

    /// Where to read a range of entries: at least one if any is placed, stopping where it gets longer than `bytes_max`.
    pub fn spans(&self, range: Range<u64>, bytes_max: u64) -> Vec<Span> {
        let mut spans = Vec::new();
        let mut budget = bytes_max;
        for placed in &self.segments {
            let from = range.start.max(placed.first);
            let end = range.end.min(placed.end());
            if placed.positions.is_empty() || from >= end {
                continue;
            }
            let positions = &placed.positions[(from - placed.first) as usize..(end - placed.first) as usize];
            let begin = positions[0];
            let count = positions.partition_point(|position| u64::from(position - begin) <= budget);
            let positions = positions[..count].to_vec();
            budget = budget.saturating_sub(u64::from(positions[count - 1] - begin));
            spans.push(Span { segment: placed.segment.clone(), first: from, positions });
            if from + (count as u64) < end || budget == 0 {
                break;
            }
        }
        spans
    }
}

/// Entries that lie in one segment. It keeps the file, so they can be read with no lock held, whatever is purged meanwhile.
pub(super) struct Span {
    segment: Arc<Segment>,
    first: u64,
    positions: Vec<u32>,
}

impl Span {
    /// One past the last index.
    pub fn end(&self) -> u64 {
        self.first + self.positions.len() as u64
    }

    /// Reads the entries.
    ///
    /// # Errors
    /// `InvalidData` when what is read is not what was written; otherwise what the disk says.
    pub fn read(&self) -> io::Result<Vec<(LogId, Bytes)>> {
        let (Some(&begin), Some(&last)) = (self.positions.first(), self.positions.last()) else {
            return Ok(Vec::new());
        };
        let last_at = (last - begin) as usize;
        let mut stream = Vec::with_capacity(last_at + 2 * DATA);
        self.segment.read_stream(u64::from(begin), last_at + ENTRY_HEAD, &mut stream)?;
        // Only the last entry's head tells where the last entry ends.
        let (_, length) = self.head(&stream, last_at, last)?;
        self.segment.read_stream(u64::from(last) + ENTRY_HEAD as u64, length, &mut stream)?;

        let stream = Bytes::from(stream);
        let mut entries = Vec::with_capacity(self.positions.len());
        for (index, &position) in (self.first..).zip(&self.positions) {
            let at = (position - begin) as usize;
            let (id, length) = self.head(&stream, at, position)?;
            let payload = at + ENTRY_HEAD;
            if id.index != index || payload + length > stream.len() {
                return Err(self.segment.unreadable(u64::from(position) / DATA as u64));
            }
            entries.push((id, stream.slice(payload..payload + length)));
        }
        Ok(entries)
    }

    fn head(&self, stream: &[u8], at: usize, position: u32) -> io::Result<(LogId, usize)> {
        let head = stream.get(at..at + ENTRY_HEAD).and_then(decode_entry_head);
        head.ok_or_else(|| self.segment.unreadable(u64::from(position) / DATA as u64))
    }
}
