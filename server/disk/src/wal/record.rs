//! The records in a batch, as bytes: entries, votes, truncations, purges, the committed hint, and the checkpoint that opens
//! every segment so that older segments can go.
//!
//! Fixed little-endian fields. A record needs no checksum and no frame: the sectors it lies in have theirs. A zero where a
//! record would begin means that the rest of the sector is empty.

use super::sector::{DATA, HEAD, SECTOR};
use super::{LogId, Vote};

const EMPTY: u8 = 0;
const ENTRY: u8 = 1;
const VOTE: u8 = 2;
const TRUNCATE: u8 = 3;
const PURGE: u8 = 4;
const COMMITTED: u8 = 5;
const CHECKPOINT: u8 = 6;

/// Bytes of an entry before its payload: kind, length, term, node, index.
pub(super) const ENTRY_HEAD: usize = 1 + 4 + 24;

/// What the log says besides its entries, after everything written so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Standing {
    pub vote: Option<Vote>,
    pub last: Option<LogId>,
    pub purged: Option<LogId>,
    pub committed: Option<LogId>,
}

/// The first record of a segment: the standing before it, and where the log went on from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Checkpoint {
    pub standing: Standing,
    /// The segment before this one, and its first sector that is not part of the log.
    pub previous: Option<(u64, u32)>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Record {
    /// `at` is where the entry begins in the stream that was decoded; its payload follows its head.
    Entry {
        id: LogId,
        at: usize,
    },
    Vote(Vote),
    /// Everything after this entry is gone; with none, everything.
    Truncate(Option<LogId>),
    Purge(LogId),
    Committed(Option<LogId>),
    Checkpoint(Checkpoint),
}

/// A batch being written: sectors of which only the data areas are filled in. The first sector is kept free for a
/// checkpoint, which is known to be needed only when the batch is complete.
pub(super) struct Batch {
    bytes: Vec<u8>,
    checkpointed: bool,
}

/// Above this a batch's memory is given back after use.
const KEEP_BYTES_MAX: usize = 8 << 20;

impl Batch {
    pub fn new() -> Batch {
        let mut batch = Batch { bytes: Vec::new(), checkpointed: false };
        batch.clear();
        batch
    }

    pub fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(KEEP_BYTES_MAX);
        self.bytes.resize(SECTOR + HEAD, 0);
        self.checkpointed = false;
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.len() == SECTOR + HEAD
    }

    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Adds an entry; returns where it begins in the stream, counted from the first sector after the checkpoint's.
    pub fn entry(&mut self, id: LogId, payload: &[u8]) -> u32 {
        let at = (self.bytes.len() / SECTOR - 1) * DATA + self.bytes.len() % SECTOR - HEAD;
        let mut head = [0; ENTRY_HEAD];
        head[0] = ENTRY;
        head[1..5].copy_from_slice(&(payload.len() as u32).to_le_bytes());
        head[5..].copy_from_slice(&id_bytes(id));
        self.put(&head);
        self.put(payload);
        at as u32
    }

    pub fn vote(&mut self, vote: Vote) {
        self.put(&[VOTE]);
        self.put(&vote_bytes(vote));
    }

    pub fn truncate(&mut self, last: Option<LogId>) {
        self.put(&[TRUNCATE]);
        self.put(&maybe_id_bytes(last));
    }

    pub fn purge(&mut self, upto: LogId) {
        self.put(&[PURGE]);
        self.put(&id_bytes(upto));
    }

    pub fn committed(&mut self, id: Option<LogId>) {
        self.put(&[COMMITTED]);
        self.put(&maybe_id_bytes(id));
    }

    /// Fills the first sector, which then becomes part of the batch.
    pub fn checkpoint(&mut self, checkpoint: &Checkpoint) {
        let Standing { vote, last, purged, committed } = checkpoint.standing;
        let mut record = vec![CHECKPOINT, u8::from(vote.is_some())];
        record.extend(vote.map_or([0; 17], vote_bytes));
        for id in [last, purged, committed] {
            record.extend(maybe_id_bytes(id));
        }
        let (segment, end) = checkpoint.previous.unwrap_or((0, 0));
        record.push(u8::from(checkpoint.previous.is_some()));
        record.extend(segment.to_le_bytes());
        record.extend(end.to_le_bytes());
        self.bytes[HEAD..HEAD + record.len()].copy_from_slice(&record);
        self.checkpointed = true;
    }

    /// The sectors the records take, without a checkpoint.
    pub fn sectors(&self) -> u32 {
        self.bytes.len().div_ceil(SECTOR) as u32 - 1
    }

    /// The finished sectors, to be sealed.
    pub fn finish(&mut self) -> &mut [u8] {
        self.bytes.resize(self.bytes.len().next_multiple_of(SECTOR), 0);
        &mut self.bytes[if self.checkpointed { 0 } else { SECTOR }..]
    }

    fn put(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = SECTOR - 1 - self.bytes.len() % SECTOR;
            if room == 0 {
                self.bytes.extend_from_slice(&[0; 1 + HEAD]);
                continue;
            }
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.bytes.extend_from_slice(now);
            bytes = later;
        }
    }
}

/// The record that begins at or after `at` in the stream of a batch and the place behind it; nothing at the end.
///
/// # Errors
/// What is wrong, when the bytes are none that [`Batch`] writes.
pub(super) fn decode(stream: &[u8], at: usize) -> Result<Option<(Record, usize)>, &'static str> {
    let mut bytes = Bytes { stream, at };
    while bytes.at < stream.len() && stream[bytes.at] == EMPTY {
        bytes.at = (bytes.at + 1).next_multiple_of(DATA);
    }
    let begin = bytes.at;
    if begin >= stream.len() {
        return Ok(None);
    }
    let record = bytes.record(begin).ok_or("a record ends outside its batch or is of no known kind")?;
    Ok(Some((record, bytes.at)))
}

/// The id and the length of the payload of an entry's head; nothing if these bytes are not one.
pub(super) fn decode_entry_head(head: &[u8]) -> Option<(LogId, usize)> {
    let mut bytes = Bytes { stream: head, at: 0 };
    if bytes.byte()? != ENTRY {
        return None;
    }
    let length = bytes.u32()? as usize;
    Some((bytes.id()?, length))
}

struct Bytes<'a> {
    stream: &'a [u8],
    at: usize,
}

impl Bytes<'_> {
    fn record(&mut self, begin: usize) -> Option<Record> {
        Some(match self.byte()? {
            ENTRY => {
                let (id, length) = decode_entry_head(self.stream.get(begin..begin + ENTRY_HEAD)?)?;
                self.at = begin + ENTRY_HEAD;
                self.skip(length)?;
                Record::Entry { id, at: begin }
            }
            VOTE => Record::Vote(self.vote()?),
            TRUNCATE => Record::Truncate(self.maybe_id()?),
            PURGE => Record::Purge(self.id()?),
            COMMITTED => Record::Committed(self.maybe_id()?),
            CHECKPOINT => Record::Checkpoint(self.checkpoint()?),
            _ => return None,
        })
    }

    fn checkpoint(&mut self) -> Option<Checkpoint> {
        let voted = self.flag()?;
        let vote = self.vote()?;
        let (last, purged, committed) = (self.maybe_id()?, self.maybe_id()?, self.maybe_id()?);
        let previous = self.flag()?;
        let (segment, end) = (self.u64()?, self.u32()?);
        let standing = Standing { vote: voted.then_some(vote), last, purged, committed };
        Some(Checkpoint { standing, previous: previous.then_some((segment, end)) })
    }

    fn vote(&mut self) -> Option<Vote> {
        Some(Vote { term: self.u64()?, node: self.u64()?, committed: self.flag()? })
    }

    fn maybe_id(&mut self) -> Option<Option<LogId>> {
        let some = self.flag()?;
        let id = self.id()?;
        Some(some.then_some(id))
    }

    fn id(&mut self) -> Option<LogId> {
        Some(LogId { term: self.u64()?, node: self.u64()?, index: self.u64()? })
    }

    fn flag(&mut self) -> Option<bool> {
        match self.byte()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    fn byte(&mut self) -> Option<u8> {
        Some(self.take::<1>()?[0])
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take()?))
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take()?))
    }

    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let from = self.at;
        self.skip(N)?;
        self.stream[from..self.at].try_into().ok()
    }

    fn skip(&mut self, count: usize) -> Option<()> {
        self.at = self.at.checked_add(count).filter(|end| *end <= self.stream.len())?;
        Some(())
    }
}

fn id_bytes(id: LogId) -> [u8; 24] {
    let mut bytes = [0; 24];
    bytes[..8].copy_from_slice(&id.term.to_le_bytes());
    bytes[8..16].copy_from_slice(&id.node.to_le_bytes());
    bytes[16..].copy_from_slice(&id.index.to_le_bytes());
    bytes
}

fn maybe_id_bytes(id: Option<LogId>) -> [u8; 25] {
    let mut bytes = [0; 25];
    bytes[0] = u8::from(id.is_some());
    bytes[1..].copy_from_slice(&id.map_or([0; 24], id_bytes));
    bytes
}

fn vote_bytes(vote: Vote) -> [u8; 17] {
    let mut bytes = [0; 17];
    bytes[..8].copy_from_slice(&vote.term.to_le_bytes());
    bytes[8..16].copy_from_slice(&vote.node.to_le_bytes());
    bytes[16] = u8::from(vote.committed);
    bytes
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::wal::sector;

    fn id(index: u64) -> LogId {
        LogId { term: 4, node: 9, index }
    }

    /// Everything put into a batch comes out of its stream, across sector borders, with or without a checkpoint.
    #[test]
    fn a_batch_decodes_to_the_records_put_into_it() {
        for size in [0, 1, 461, 462, 463, 490, 491, 492, 2000] {
            let mut batch = Batch::new();
            batch.vote(Vote { term: 4, node: 9, committed: true });
            let places = [batch.entry(id(1), &vec![1; size]), batch.entry(id(2), &[2; 3])];
            batch.truncate(None);
            batch.purge(id(1));
            batch.committed(Some(id(2)));
            let checkpoint = Checkpoint {
                standing: Standing { last: Some(id(7)), ..Standing::default() },
                previous: Some((3, 17)),
            };
            batch.checkpoint(&checkpoint);
            let stream: Vec<u8> =
                batch.finish().chunks_exact(SECTOR).flat_map(sector::data).copied().collect();

            let mut found = Vec::new();
            let mut at = 0;
            while let Some((record, end)) = decode(&stream, at).unwrap() {
                found.push(record);
                at = end;
            }
            let entry = |n: usize| Record::Entry { id: id(n as u64 + 1), at: DATA + places[n] as usize };
            let expected = [
                Record::Checkpoint(checkpoint),
                Record::Vote(Vote { term: 4, node: 9, committed: true }),
                entry(0),
                entry(1),
                Record::Truncate(None),
                Record::Purge(id(1)),
                Record::Committed(Some(id(2))),
            ];
            assert_eq!(found, expected, "payload of {size}");
        }
    }

    /// Bytes that are no record are an error, never a panic and never an end.
    #[test]
    fn nonsense_is_an_error() {
        assert!(decode(&[200; DATA], 0).is_err());
        assert!(decode(&[ENTRY, 255, 255, 255, 255], 0).is_err());
        assert!(decode(&[VOTE, 1], 0).is_err());
        assert_eq!(decode(&[0; DATA], 0), Ok(None));
    }
}
