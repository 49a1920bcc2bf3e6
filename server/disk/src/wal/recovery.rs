//! Recovery: from the files of a log, exactly what was acknowledged, or a refusal to start. Never silently less.
//!
//! **The question.** A batch is acknowledged when its sync has returned. The next batch is written only then, so a batch
//! with a later one behind it was acknowledged. The last one may have been or not. If it does not read well, either the
//! power went while it was on its way (drop it: nobody was told) or it was acknowledged and has been damaged since (refuse:
//! somebody was). With nothing but checksums the two look the same.
//!
//! **The answer** is to make "never written" visible, sector by sector. Before a segment is used every byte of it is known:
//! zeros, or what the file's earlier lives left. Each sector (512 bytes, the unit disks write) ends in a mark that differs
//! from all those in at least four bits. So, of a sector in place of which something else is expected:
//!
//! ```text
//!   mark of this life (one flipped bit forgiven)    written          must verify, or it was damaged
//!   any other last byte, or the file ends           never written    the batch around it was never acknowledged
//!
//!              acknowledged                    torn                    not used yet
//!  | header | batch 7 | batch 8 ........ | batch 9 ................. |                    |
//!  |  M     |   M     |   M  |  M  |  M  |   M  |  -  |  M  |  -  |  |  -  |  -  |  -  |  |
//!                                        ^ the log ends here
//! ```
//!
//! - *Cut at any byte, any pages lost*: some sector of the batch keeps its old last byte, so the batch is dropped whole.
//! - *Any single bit flipped*: a mark stays a mark of this life, a missing mark stays missing; anything else in a written
//!   sector breaks its checksum. So a flip never makes a batch look torn: everything is recovered, or nothing starts.
//! - *More damage* (a page zeroed later): past the end every sector must be unwritten or belong to the torn batch. One of a
//!   later batch proves that the torn one was acknowledged. Only an acknowledged *last* batch that lost whole sectors can
//!   not be told from a torn one; nor can a last segment file that somebody deleted.
//! - *A torn batch is never written over*: the log goes on in a new segment, whose checkpoint says where the old one ends. So
//!   its remains cannot mix with new sectors.
//!
//! **Across segments.** The first batch of a segment opens with a checkpoint: the standing of the log, the segment before and
//! where that ended. All segments but the newest must read well up to that end. The oldest may miss its predecessor only if
//! everything that was there has been purged.
//!
//! **What the page cache says is not what the disk has.** A batch that reads well may be one whose sync failed in an earlier
//! process: the kernel then calls its pages clean. So recovery writes the last batch once more, and syncs, before it counts.
//!
//! This assumes that writing a sector leaves its neighbours alone, also when the power goes.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::extent::Extent;
use super::map::{Change, Map};
use super::record::{Checkpoint, Record, Standing, decode};
use super::sector::{self, SECTOR};
use super::segment::{self, Sectors, Segment};
use super::writer::{Active, Start};
use super::{LogId, OpenError, Recovery, Torn};
use crate::disk::Disk;

/// What the files of a log amount to.
pub(super) struct Recovered {
    pub extent: Extent,
    pub map: Map,
    pub start: Start,
    /// A segment that was prepared and not used.
    pub prepared: Option<Segment>,
    /// Segments that hold nothing any more.
    pub empty: Vec<Arc<Segment>>,
    /// A number no segment has.
    pub next_number: u64,
    pub report: Recovery,
}

/// Reads the log in `dir`, and removes files that are no part of it.
pub(super) fn recover(disk: &dyn Disk, dir: &Path) -> Result<Recovered, OpenError> {
    let (segments, mut strays) = survey(disk, dir)?;
    let next_number = segments.last().map_or(1, |found| found.segment.number + 1);
    let (log, rest) = link(segments)?;

    let mut replay = Replay::default();
    for (n, found) in log.iter().enumerate() {
        let limit = log.get(n + 1).and_then(|next| next.checkpoint.previous).map(|(_, end)| end);
        replay.segment(found, limit)?;
    }
    replay.check_missing(&log)?;
    let mut active = replay.active.take();
    let mut torn = None;
    if let Some(active) = &mut active {
        torn = replay.remains(&active.segment, active.end)?;
        active.torn = torn.is_some();
    }

    let mut prepared = None;
    for segment in rest {
        let after = active.as_ref().is_none_or(|active| segment.number > active.segment.number);
        let remains = if after { replay.remains(&segment, 1)? } else { None };
        if after && remains.is_none() && prepared.is_none() {
            prepared = Some(segment);
            continue;
        }
        torn = torn.or(remains);
        strays.push(segment.path);
    }
    for path in strays {
        disk.remove(&path).map_err(|source| OpenError::Io { attempt: "remove", path, source })?;
    }
    // Also for a segment that was prepared: its name may not have been made durable.
    disk.sync_dir(dir).map_err(|source| OpenError::Io { attempt: "sync", path: dir.to_owned(), source })?;
    replay.rewrite_last_batch()?;

    let mut map = replay.map;
    let empty = map.release();
    let report = Recovery {
        segments: map.segments(),
        batches: replay.batches,
        entries: replay.extent.end() - replay.extent.first(),
        torn,
    };
    let Replay { extent, next_batch, chain, standing, .. } = replay;
    let start = Start { active, next_batch, chain, standing };
    Ok(Recovered { extent, map, start, prepared, empty, next_number, report })
}

/// A segment whose first batch is whole, and so was begun.
struct Begun {
    segment: Arc<Segment>,
    checkpoint: Checkpoint,
}

struct Found {
    segment: Segment,
    checkpoint: Option<Checkpoint>,
}

/// The segments in order of number, and the paths of files that were being prepared or recycled.
fn survey(disk: &dyn Disk, dir: &Path) -> Result<(Vec<Found>, Vec<PathBuf>), OpenError> {
    let names =
        disk.list(dir).map_err(|source| OpenError::Io { attempt: "list", path: dir.to_owned(), source })?;
    let unfinished = names.iter().filter(|name| name.ends_with(".new") || name.ends_with(".spare"));
    let strays = unfinished.map(|name| dir.join(name)).collect();
    let mut numbers: Vec<u64> = names.iter().filter_map(|name| segment::number_in(name)).collect();
    numbers.sort_unstable();

    let mut found = Vec::with_capacity(numbers.len());
    let mut stream = Vec::new();
    for number in numbers {
        let segment = Segment::open(disk, dir, number)?;
        let mut sectors = Sectors::of(&segment)?;
        let checkpoint = match read_batch(&segment, &mut sectors, 1, &mut stream)? {
            Read::Unfinished => None,
            Read::Whole { .. } => match decode(&stream, 0) {
                Ok(Some((Record::Checkpoint(checkpoint), _))) => Some(checkpoint),
                _ => return Err(damaged(&segment, 1, "the segment does not begin with a checkpoint")),
            },
        };
        found.push(Found { segment, checkpoint });
    }
    Ok((found, strays))
}

/// Follows the checkpoints from the newest segment back. Returns the log, oldest first, and what is no part of it.
fn link(found: Vec<Found>) -> Result<(Vec<Begun>, Vec<Segment>), OpenError> {
    let mut log = Vec::new();
    let mut rest = Vec::new();
    let mut wanted = None;
    for Found { segment, checkpoint } in found.into_iter().rev() {
        let Some(checkpoint) = checkpoint else {
            rest.push(segment);
            continue;
        };
        match wanted {
            // The newest, or the one its successor names.
            None => {}
            Some(Some((number, _))) if number == segment.number => {}
            // Older than the oldest that is needed: its removal did not reach the disk.
            Some(Some((number, _))) if number > segment.number => {
                rest.push(segment);
                continue;
            }
            Some(_) => return Err(damaged(&segment, 1, "no later segment goes on from this one")),
        }
        wanted = Some(checkpoint.previous);
        log.push(Begun { segment: Arc::new(segment), checkpoint });
    }
    log.reverse();
    rest.reverse();
    Ok((log, rest))
}

/// The log as far as it was read.
struct Replay {
    extent: Extent,
    map: Map,
    standing: Standing,
    next_batch: u64,
    chain: u32,
    batches: u64,
    /// Entries up to this index lay in segments that are gone.
    missing: Option<u64>,
    active: Option<Active>,
    last_batch: Option<(Arc<Segment>, u32, u32)>,
    stream: Vec<u8>,
}

impl Default for Replay {
    fn default() -> Replay {
        Replay {
            extent: Extent::default(),
            map: Map::default(),
            standing: Standing::default(),
            next_batch: 1,
            chain: 0,
            batches: 0,
            missing: None,
            active: None,
            last_batch: None,
            stream: Vec::new(),
        }
    }
}

impl Replay {
    /// Replays a segment up to `limit`, or, the newest, up to the first batch that was not finished.
    fn segment(&mut self, found: &Begun, limit: Option<u32>) -> Result<(), OpenError> {
        let segment = &found.segment;
        let mut sectors = Sectors::of(segment)?;
        let mut place = 1;
        self.map.begin(segment.clone());
        while limit.is_none_or(|limit| place < limit) {
            let mut stream = std::mem::take(&mut self.stream);
            let Read::Whole { batch, prev, crc, count } =
                read_batch(segment, &mut sectors, place, &mut stream)?
            else {
                break;
            };
            if self.batches == 0 && found.checkpoint.previous.is_some() {
                (self.next_batch, self.chain) = (batch, prev);
                self.standing = found.checkpoint.standing;
                self.extent = Extent::resume(self.standing.last, self.standing.purged);
                self.missing = self.standing.last.map(|id| id.index);
            }
            if (batch, prev) != (self.next_batch, self.chain) {
                return Err(damaged(segment, place, "the batch does not follow the one before it"));
            }
            if let Err(what) = self.records(&stream, place) {
                return Err(damaged(segment, place, what));
            }
            (self.next_batch, self.chain) = (batch + 1, crc);
            self.batches += 1;
            self.last_batch = Some((segment.clone(), place, count));
            self.stream = stream;
            place += count;
        }
        if limit.is_some_and(|limit| place != limit) {
            return Err(damaged(segment, place, "a batch that was acknowledged is not there in full"));
        }
        self.active =
            Some(Active { segment: segment.clone(), end: place, sectors: sectors.end(), torn: false });
        Ok(())
    }

    fn records(&mut self, stream: &[u8], place: u32) -> Result<(), &'static str> {
        let mut at = 0;
        while let Some((record, end)) = decode(stream, at)? {
            self.record(record, place, at == 0)?;
            at = end;
        }
        Ok(())
    }

    fn record(&mut self, record: Record, place: u32, first: bool) -> Result<(), &'static str> {
        let base = sector::position_of(place) as u32;
        match record {
            Record::Entry { id, at } => {
                if !self.extent.append(id) {
                    return Err("an entry does not follow the one before it");
                }
                self.map.apply(Change::Placed { index: id.index, position: at as u32 }, base);
            }
            Record::Vote(vote) => self.standing.vote = Some(vote),
            Record::Truncate(last) => {
                let known = last.and_then(|last| self.extent.id(last.index));
                let index = |id: Option<LogId>| id.map(|id| id.index);
                if index(last) >= index(self.extent.last()) || known.is_some() && known != last {
                    return Err("a truncation does not fit the entries before it");
                }
                self.extent.truncate(last);
                self.missing = self.missing.min(last.map(|id| id.index));
                self.map.apply(Change::Truncated(last), base);
            }
            Record::Purge(upto) => {
                if !self.extent.purge(upto) {
                    return Err("a purge does not follow the one before it");
                }
                self.map.apply(Change::Purged(upto), base);
            }
            Record::Committed(committed) => self.standing.committed = committed,
            Record::Checkpoint(checkpoint) => {
                if !first || place != 1 || checkpoint.standing != self.standing {
                    return Err("a checkpoint does not agree with the log before it");
                }
            }
        }
        (self.standing.last, self.standing.purged) = (self.extent.last(), self.extent.purged());
        Ok(())
    }

    /// Refuses a log of which a part that was not purged is missing.
    fn check_missing(&self, log: &[Begun]) -> Result<(), OpenError> {
        let (Some(oldest), Some(missing)) = (log.first(), self.missing) else { return Ok(()) };
        if self.extent.purged().is_some_and(|purged| purged.index >= missing) {
            return Ok(());
        }
        let (number, _) = oldest.checkpoint.previous.unwrap_or_default();
        Err(damaged(
            &oldest.segment,
            1,
            &format!("segment {number}, from which this one goes on, is missing"),
        ))
    }

    /// Looks at everything past the end of the log. What lies there may be the rest of one torn batch, and no more.
    fn remains(&self, segment: &Segment, end: u32) -> Result<Option<Torn>, OpenError> {
        let mut sectors = Sectors::of(segment)?;
        let mut count = 0;
        for place in end..sectors.end() {
            let sector = sectors.at(place)?;
            if !sector::is_written(sector, segment.life) {
                continue;
            }
            let Some(head) = sector::verify(sector, segment.number, place) else {
                return Err(damaged(segment, place, "a sector that was written does not verify"));
            };
            if head.batch > self.next_batch {
                let what = format!(
                    "batch {} is here, but batch {} is not there in full",
                    head.batch, self.next_batch
                );
                return Err(damaged(segment, place, &what));
            }
            count += 1;
        }
        let offset = u64::from(end) * SECTOR as u64;
        let torn = Torn { file: segment.path.clone(), offset, bytes: count * SECTOR as u64 };
        Ok((count > 0).then_some(torn))
    }

    fn rewrite_last_batch(&self) -> Result<(), OpenError> {
        let Some((segment, place, count)) = &self.last_batch else { return Ok(()) };
        let offset = u64::from(*place) * SECTOR as u64;
        let mut bytes = vec![0; *count as usize * SECTOR];
        let again = segment.file.read_full_at(&mut bytes, offset).and_then(|read| {
            segment.file.write_all_at(&bytes[..read], offset)?;
            segment.file.sync_data()
        });
        again.map_err(|source| OpenError::Io { attempt: "make durable", path: segment.path.clone(), source })
    }
}

enum Read {
    Whole { batch: u64, prev: u32, crc: u32, count: u32 },
    Unfinished,
}

/// Reads the batch at `place` into `stream`.
fn read_batch(
    segment: &Segment,
    sectors: &mut Sectors<'_>,
    place: u32,
    stream: &mut Vec<u8>,
) -> Result<Read, OpenError> {
    stream.clear();
    let mut first: Option<sector::Head> = None;
    let mut previous: Option<sector::Head> = None;
    for at in place.. {
        let sector = sectors.at(at)?;
        if !sector::is_written(sector, segment.life) {
            return Ok(Read::Unfinished);
        }
        let Some(head) = sector::verify(sector, segment.number, at) else {
            return Err(damaged(segment, at, "a sector that was written does not verify"));
        };
        let fits = previous.is_none_or(|previous| {
            (head.prev, head.batch, head.left + 1) == (previous.crc, previous.batch, previous.left)
        });
        if !fits {
            return Err(damaged(segment, at, "a sector does not follow the one before it"));
        }
        stream.extend_from_slice(sector::data(sector));
        let first = *first.get_or_insert(head);
        if head.left == 0 {
            let count = at - place + 1;
            return Ok(Read::Whole { batch: first.batch, prev: first.prev, crc: head.crc, count });
        }
        previous = Some(head);
    }
    Ok(Read::Unfinished)
}

fn damaged(segment: &Segment, place: u32, what: &str) -> OpenError {
    OpenError::Damaged {
        file: segment.path.clone(),
        offset: u64::from(place) * SECTOR as u64,
        what: what.to_owned(),
    }
}
