//! The writer: the only one that writes to the log. It takes everything queued, writes it as one batch, syncs once, and
//! then tells all who wait, in order.
//!
//! A batch is written only after the sync of the one before returned, so at most one batch can be torn. After any error
//! nothing more is written in this process: what a failed write or sync left on the disk is for recovery to judge.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::book::{Done, Shared, Stopped, Taken, Work};
use super::map::Change;
use super::record::{Batch, Checkpoint, Standing};
use super::sector::{self, SECTOR};
use super::segment::Segment;
use super::stock::Stock;
use super::{LogId, Observer, WalEvent, WalOptions};

pub(super) struct Writer {
    stock: Stock,
    active: Option<Active>,
    /// Number of the next batch, and the crc of the last sector written.
    next_batch: u64,
    chain: u32,
    /// After everything written, and before the batch in the making.
    standing: Standing,
    standing_before: Standing,
    batch: Batch,
    /// What the batch changes, positions counted from its first sector of records.
    changes: Vec<Change>,
    entries: u64,
    finished: Vec<Done>,
    emptied: Vec<Work>,
    failed: Option<Stopped>,
    first_segment_bytes: u64,
    segment_bytes: u64,
    batch_bytes_max: usize,
    observer: Observer,
}

/// The segment being written. One whose end is torn takes no more batches: what is left of the torn one would be mixed up
/// with the new.
pub(super) struct Active {
    pub segment: Arc<Segment>,
    /// The first sector after the log's end.
    pub end: u32,
    pub sectors: u32,
    pub torn: bool,
}

/// Where recovery says the log goes on.
pub(super) struct Start {
    pub active: Option<Active>,
    pub next_batch: u64,
    pub chain: u32,
    pub standing: Standing,
}

struct Written {
    /// The segment that was begun for this batch, if one was.
    begun: Option<Arc<Segment>>,
    position: u32,
    bytes: u64,
    write: Duration,
    sync: Duration,
}

impl Writer {
    pub fn new(start: Start, stock: Stock, options: &WalOptions) -> Writer {
        Writer {
            stock,
            active: start.active,
            next_batch: start.next_batch,
            chain: start.chain,
            standing: start.standing,
            standing_before: start.standing,
            batch: Batch::new(),
            changes: Vec::new(),
            entries: 0,
            finished: Vec::new(),
            emptied: Vec::new(),
            failed: None,
            first_segment_bytes: options.first_segment_bytes,
            segment_bytes: options.segment_bytes,
            batch_bytes_max: options.batch_bytes_max,
            observer: options.observer.clone(),
        }
    }

    /// Writes until the log is closed.
    pub fn run(mut self, shared: &Shared) {
        while let Some(taken) = shared.wait(&mut self.emptied) {
            self.write(taken, shared);
        }
    }

    /// Writes what is queued now.
    pub fn run_once(&mut self, shared: &Shared) {
        while let Some(taken) = shared.take(&mut self.emptied) {
            self.write(taken, shared);
        }
    }

    /// Gives up the segments that recovery found to hold nothing, and makes sure that there is one to write to: better
    /// now than when the first write waits.
    pub fn prepare(&mut self, empty: Vec<Arc<Segment>>) -> io::Result<()> {
        self.stock.retire(empty);
        match &self.active {
            Some(active) if !active.torn => Ok(()),
            _ => self.stock.ensure(self.first_segment_bytes),
        }
    }

    fn write(&mut self, taken: Taken, shared: &Shared) {
        let Taken { mut work, committed } = taken;
        for work in work.drain(..) {
            self.encode(work, shared);
        }
        if let Some(committed) = committed.filter(|_| self.failed.is_none()) {
            self.standing.committed = committed;
            self.batch.committed(committed);
        }
        // A failure was told to all who wait, which is all there is to do about it here.
        let _ = self.commit(shared);
        self.emptied = work;
    }

    fn encode(&mut self, work: Work, shared: &Shared) {
        if let Some(failed) = &self.failed {
            if let Work::Append { done, .. } | Work::Vote { done, .. } = work {
                done(Err(failed.error()));
            }
            return;
        }
        match work {
            Work::Append { entries, done } => match self.encode_entries(&entries, shared) {
                Ok(()) => self.finished.push(done),
                Err(error) => done(Err(error)),
            },
            Work::Vote { vote, done } => {
                self.batch.vote(vote);
                self.standing.vote = Some(vote);
                self.finished.push(done);
            }
            Work::Truncate(last) => {
                self.batch.truncate(last);
                self.standing.last = last;
                self.changes.push(Change::Truncated(last));
            }
            Work::Purge(upto) => {
                self.batch.purge(upto);
                self.standing.purged = Some(upto);
                if self.standing.last.is_none_or(|last| last.index <= upto.index) {
                    self.standing.last = Some(upto);
                }
                self.changes.push(Change::Purged(upto));
            }
        }
    }

    fn encode_entries(&mut self, entries: &[(LogId, Bytes)], shared: &Shared) -> io::Result<()> {
        for (id, payload) in entries {
            if self.batch.len() >= self.batch_bytes_max {
                self.commit(shared)?;
            }
            let position = self.batch.entry(*id, payload);
            self.changes.push(Change::Placed { index: id.index, position });
            self.standing.last = Some(*id);
            self.entries += 1;
        }
        Ok(())
    }

    /// Makes the batch durable and tells those who wait for it; or fails for good and tells them that.
    fn commit(&mut self, shared: &Shared) -> io::Result<()> {
        if let Some(failed) = &self.failed {
            return Err(failed.error());
        }
        if !self.batch.is_empty() {
            match self.put() {
                Ok(written) => self.settle(written, shared),
                Err(error) => return Err(self.fail(error, shared)),
            }
        }
        for done in self.finished.drain(..) {
            done(Ok(()));
        }
        if let Some(active) = self.active.as_ref().filter(|active| active.end >= active.sectors / 2) {
            let bytes = self.bytes_after(active);
            self.stock.request(bytes);
        }
        Ok(())
    }

    fn put(&mut self) -> io::Result<Written> {
        let began = Instant::now();
        let room = self.active.as_ref().is_some_and(|active| active.takes(self.batch.sectors()));
        let begun = if room { None } else { Some(self.begin_segment()?) };
        let active = self.active.as_mut().expect("a segment was begun if there was none");
        let Segment { number, life, file, .. } = &*active.segment;
        let bytes = self.batch.finish();
        let chain = sector::seal(bytes, *number, *life, active.end, self.next_batch, self.chain);
        file.write_all_at(bytes, u64::from(active.end) * SECTOR as u64)?;
        let wrote = Instant::now();
        file.sync_data()?;

        let checkpoint = u32::from(begun.is_some());
        let position = sector::position_of(active.end + checkpoint) as u32;
        active.end += (bytes.len() / SECTOR) as u32;
        self.chain = chain;
        self.next_batch += 1;
        self.standing_before = self.standing;
        let (bytes, write, sync) = (bytes.len() as u64, wrote - began, wrote.elapsed());
        Ok(Written { begun, position, bytes, write, sync })
    }

    /// Goes on in the next segment: the batch in the making opens it.
    fn begin_segment(&mut self) -> io::Result<Arc<Segment>> {
        let bytes = self.active.as_ref().map_or(self.first_segment_bytes, |active| self.bytes_after(active));
        let segment = Arc::new(self.stock.take(bytes)?);
        let sectors = segment.sectors()?;
        let previous = self.active.as_ref().map(|active| (active.segment.number, active.end));
        self.batch.checkpoint(&Checkpoint { standing: self.standing_before, previous });
        self.active = Some(Active { segment: segment.clone(), end: 1, sectors, torn: false });
        Ok(segment)
    }

    /// Segments grow to their full size, so that a new member starts at once and the stock keeps up.
    fn bytes_after(&self, active: &Active) -> u64 {
        let double = u64::from(active.sectors) * SECTOR as u64 * 2;
        double.clamp(self.first_segment_bytes, self.segment_bytes)
    }

    fn settle(&mut self, written: Written, shared: &Shared) {
        let Written { begun, position: base, bytes, write, sync } = written;
        let entries = std::mem::take(&mut self.entries);
        if let Some(segment) = &begun {
            self.observer.tell(WalEvent::SegmentBegun { number: segment.number });
        }
        let released = {
            let mut book = shared.book();
            if let Some(segment) = begun {
                book.map.begin(segment);
            }
            book.settle(self.changes.drain(..), base);
            book.map.release()
        };
        self.batch.clear();
        self.stock.retire(released);
        self.observer.tell(WalEvent::Synced { entries, bytes, write, sync });
    }

    fn fail(&mut self, error: io::Error, shared: &Shared) -> io::Error {
        let text = format!("the log is broken, restart this member to recover what is on its disk: {error}");
        self.observer.tell(WalEvent::Broken(&text));
        let stopped = Stopped { kind: error.kind(), text };
        shared.stop(stopped.clone());
        for done in self.finished.drain(..) {
            done(Err(stopped.error()));
        }
        let error = stopped.error();
        self.failed = Some(stopped);
        error
    }
}

impl Active {
    fn takes(&self, sectors: u32) -> bool {
        !self.torn && self.end.saturating_add(sectors) <= self.sectors
    }
}
