//! Reading in order: a scan over committed records with the backlog laid over it, and a snapshot to read from while
//! writes go on. Both keep their database open for as long as they live.

use std::iter::Peekable;
use std::sync::Arc;
use std::vec;

use bytes::Bytes;
use tenure_state::{Fatal, Place};

use super::ahead::Ahead;
use super::engine::{APPLIED, Engine, Iter, View};

/// Records in order of their places, as they stood when the scan began. Ends after its first error.
pub struct Scan {
    committed: Committed,
    /// Newer than what is committed; `None` hides a committed record.
    pending: Peekable<vec::IntoIter<(Place, Option<Bytes>)>>,
    /// Taken for a chunk that was already full.
    returned: Option<(Place, Bytes)>,
}

/// A bounded part of a scan.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Chunk {
    pub records: Vec<(Place, Bytes)>,
    /// Where the next chunk begins; None when this was the last.
    pub next: Option<Place>,
}

/// A consistent view of both keyspaces. Holds back the reclaiming of disk space: let it go when done.
#[derive(Clone)]
pub struct Snapshot {
    view: View,
    applied: Option<Bytes>,
    engine: Arc<Engine>,
}

/// Small state in order of keys. Ends after its first error.
pub struct MetaScan {
    iter: Option<Iter>,
    engine: Arc<Engine>,
}

impl Scan {
    pub(super) fn new(
        engine: Arc<Engine>,
        view: &View,
        pending: Vec<(Place, Option<Bytes>)>,
        from: Place,
        to: Place,
    ) -> Scan {
        let iter = view.records(from, to);
        let committed = Committed { iter: Some(iter), ahead: None, engine };
        Scan { committed, pending: pending.into_iter().peekable(), returned: None }
    }

    /// Takes up to `items_max` records (at least one), and no more once they are `bytes_max` bytes.
    pub fn chunk(&mut self, items_max: usize, bytes_max: usize) -> Result<Chunk, Fatal> {
        let mut chunk = Chunk::default();
        let mut bytes = 0;
        while let Some(item) = self.next() {
            let (place, record) = item?;
            if !chunk.records.is_empty() && (chunk.records.len() >= items_max || bytes >= bytes_max) {
                chunk.next = Some(place);
                self.returned = Some((place, record));
                break;
            }
            bytes += record.len();
            chunk.records.push((place, record));
        }
        Ok(chunk)
    }

    fn step(&mut self) -> Result<Option<(Place, Bytes)>, Fatal> {
        if let Some(item) = self.returned.take() {
            return Ok(Some(item));
        }
        while let Some((pending, _)) = self.pending.peek() {
            let pending = *pending;
            let committed = self.committed.peek()?;
            if committed.is_some_and(|committed| committed < pending) {
                return self.committed.next();
            }
            if committed == Some(pending) {
                self.committed.next()?;
            }
            if let Some((place, Some(record))) = self.pending.next() {
                return Ok(Some((place, record)));
            }
        }
        self.committed.next()
    }
}

impl Iterator for Scan {
    type Item = Result<(Place, Bytes), Fatal>;

    fn next(&mut self) -> Option<Self::Item> {
        let item = self.step().transpose();
        if let Some(Err(_)) = item {
            self.committed.iter = None;
            self.pending = Vec::new().into_iter().peekable();
        }
        item
    }
}

impl Snapshot {
    pub(super) fn take(engine: Arc<Engine>) -> Result<Snapshot, Fatal> {
        engine.health()?;
        let view = engine.view();
        let applied = engine.applied_in(&view)?;
        Ok(Snapshot { view, applied, engine })
    }

    /// How far the log was applied when this was taken; None when nothing was ever written.
    pub fn applied(&self) -> Option<&Bytes> {
        self.applied.as_ref()
    }

    /// All records, in order of their places.
    pub fn records(&self) -> Scan {
        self.records_between(FIRST, LAST)
    }

    /// The same, read on a thread of its own ahead of the caller: for who has all of them to take in.
    pub fn records_ahead(&self) -> Result<Ahead, Fatal> {
        Ahead::begin(self.records())
    }

    /// The records at `from <= place < to`.
    pub fn records_between(&self, from: Place, to: Place) -> Scan {
        Scan::new(Arc::clone(&self.engine), &self.view, Vec::new(), from, to)
    }

    /// All small state, in order of keys, without `applied`.
    pub fn meta(&self) -> MetaScan {
        MetaScan::new(Arc::clone(&self.engine), &self.view, b"")
    }
}

/// No record lies before the first; the last is none itself.
const FIRST: Place = Place { main: 0, sub: 0, tombstone: false };
const LAST: Place = Place { main: i64::MAX, sub: u32::MAX, tombstone: true };

impl MetaScan {
    pub(super) fn new(engine: Arc<Engine>, view: &View, prefix: &[u8]) -> MetaScan {
        MetaScan { iter: Some(view.meta(prefix)), engine }
    }
}

impl Iterator for MetaScan {
    type Item = Result<(Bytes, Bytes), Fatal>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.iter.as_mut()?.next()? {
                Ok((key, _)) if key.as_ref() == APPLIED => {}
                // Copies, as these are small and kept for long.
                Ok((key, value)) => {
                    return Some(Ok((Bytes::copy_from_slice(&key), Bytes::copy_from_slice(&value))));
                }
                Err(error) => {
                    self.iter = None;
                    return Some(Err(self.engine.failed("read small state", &error)));
                }
            }
        }
    }
}

/// Committed records, with one read ahead when it was peeked at.
struct Committed {
    /// None after an error.
    iter: Option<Iter>,
    ahead: Option<(Place, Bytes)>,
    engine: Arc<Engine>,
}

impl Committed {
    fn next(&mut self) -> Result<Option<(Place, Bytes)>, Fatal> {
        if let Some(item) = self.ahead.take() {
            return Ok(Some(item));
        }
        let Some(pair) = self.iter.as_mut().and_then(Iterator::next) else { return Ok(None) };
        let (key, record) = pair.map_err(|error| self.engine.failed("read records", &error))?;
        match Place::decode(&key) {
            // A copy, or keeping one record would keep the block of 4 KiB and more that it lies in.
            Some(place) => Ok(Some((place, Bytes::copy_from_slice(&record)))),
            None => Err(self.engine.fail(format!("a record lies at {key:?}, which is no place"))),
        }
    }

    fn peek(&mut self) -> Result<Option<Place>, Fatal> {
        if self.ahead.is_none() {
            self.ahead = self.next()?;
        }
        Ok(self.ahead.as_ref().map(|(place, _)| *place))
    }
}
