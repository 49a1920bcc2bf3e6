//! A snapshot in pieces, as it travels: cut at the sender, put together at the receiver, where counts and a checksum say
//! whether it is whole. Reading and filling block for the disk, a piece at a time, off the runtime.

use std::io;

use bytes::Bytes;
use prost::Message;
use tenure_disk::store::{MetaScan, Scan, Snapshot as StoreSnapshot};
use tenure_proto::internal;
use tenure_proto::internal::{
    BallotPaper, SnapshotEnd, SnapshotHead, SnapshotPair, SnapshotPairs, SnapshotPiece, SnapshotRecord,
    SnapshotRecords, snapshot_piece::Piece,
};
use tenure_state::Place;

use crate::raft::snapshot::{Filling, Received};

/// Size of a piece, about: large enough that calls cost nothing, small enough that a few of them are no burden.
const PIECE_BYTES: usize = 256 << 10;

/// What went by so far.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Sum {
    records: u64,
    pairs: u64,
    checksum: u32,
}

impl Sum {
    fn record(&mut self, place: &[u8], bytes: &[u8]) {
        self.records += 1;
        self.checksum = crc32c::crc32c_append(crc32c::crc32c_append(self.checksum, place), bytes);
    }

    fn pair(&mut self, key: &[u8], value: &[u8]) {
        self.pairs += 1;
        self.checksum = crc32c::crc32c_append(crc32c::crc32c_append(self.checksum, key), value);
    }
}

/// Cuts a snapshot of this member's store into pieces.
pub struct Cutter {
    records: Scan,
    pairs: MetaScan,
    next: Next,
    sum: Sum,
}

enum Next {
    Head(SnapshotHead),
    Records,
    Pairs,
    Nothing,
}

impl Cutter {
    pub fn new(snapshot: &StoreSnapshot, vote: BallotPaper) -> io::Result<Cutter> {
        let applied = snapshot.applied().cloned().unwrap_or_default();
        let applied = internal::Applied::decode(applied).map_err(io::Error::other)?;
        let head = SnapshotHead { vote: Some(vote), applied: Some(applied) };
        let (records, pairs) = (snapshot.records(), snapshot.meta());
        Ok(Cutter { records, pairs, next: Next::Head(head), sum: Sum::default() })
    }

    /// None behind the end.
    pub fn piece(&mut self) -> io::Result<Option<SnapshotPiece>> {
        let piece = match std::mem::replace(&mut self.next, Next::Records) {
            Next::Head(head) => Piece::Head(head),
            Next::Records => {
                let records = self.some_records()?;
                if records.records.is_empty() {
                    self.next = Next::Pairs;
                    return self.piece();
                }
                Piece::Records(records)
            }
            Next::Pairs => {
                let pairs = self.some_pairs()?;
                if pairs.pairs.is_empty() {
                    self.next = Next::Nothing;
                    let Sum { records, pairs, checksum } = self.sum;
                    return Ok(Some(SnapshotPiece {
                        piece: Some(Piece::End(SnapshotEnd { records, pairs, checksum })),
                    }));
                }
                self.next = Next::Pairs;
                Piece::Pairs(pairs)
            }
            Next::Nothing => {
                self.next = Next::Nothing;
                return Ok(None);
            }
        };
        Ok(Some(SnapshotPiece { piece: Some(piece) }))
    }

    fn some_records(&mut self) -> io::Result<SnapshotRecords> {
        let (mut records, mut bytes) = (Vec::new(), 0);
        while bytes < PIECE_BYTES
            && let Some(record) = self.records.next()
        {
            let (place, record) = record.map_err(io::Error::other)?;
            let place = Bytes::copy_from_slice(&place.encode());
            self.sum.record(&place, &record);
            bytes += place.len() + record.len();
            records.push(SnapshotRecord { place, bytes: record });
        }
        Ok(SnapshotRecords { records })
    }

    fn some_pairs(&mut self) -> io::Result<SnapshotPairs> {
        let (mut pairs, mut bytes) = (Vec::new(), 0);
        while bytes < PIECE_BYTES
            && let Some(pair) = self.pairs.next()
        {
            let (key, value) = pair.map_err(io::Error::other)?;
            self.sum.pair(&key, &value);
            bytes += key.len() + value.len();
            pairs.push(SnapshotPair { key, value });
        }
        Ok(SnapshotPairs { pairs })
    }
}

/// Puts the pieces behind the head together.
pub struct Joiner {
    filling: Filling,
    sum: Sum,
}

/// What a piece led to.
pub enum Joined {
    More(Box<Joiner>),
    Whole(Box<Received>),
}

impl Joiner {
    pub fn new(filling: Filling) -> Box<Joiner> {
        Box::new(Joiner { filling, sum: Sum::default() })
    }

    /// # Errors
    /// The piece makes no sense, or the disk failed. What was put together so far is gone.
    pub fn take(mut self: Box<Self>, piece: SnapshotPiece) -> io::Result<Joined> {
        match piece.piece {
            Some(Piece::Records(records)) => {
                for SnapshotRecord { place, bytes } in records.records {
                    self.sum.record(&place, &bytes);
                    let place = Place::decode(&place).ok_or_else(|| malformed("a record has no place"))?;
                    self.filling.record(place, bytes)?;
                }
                Ok(Joined::More(self))
            }
            Some(Piece::Pairs(pairs)) => {
                for SnapshotPair { key, value } in pairs.pairs {
                    self.sum.pair(&key, &value);
                    self.filling.pair(key, value)?;
                }
                Ok(Joined::More(self))
            }
            Some(Piece::End(SnapshotEnd { records, pairs, checksum })) => {
                if (Sum { records, pairs, checksum }) != self.sum {
                    return Err(malformed("it is not what was sent"));
                }
                Ok(Joined::Whole(Box::new(self.filling.finish()?)))
            }
            Some(Piece::Head(_)) => Err(malformed("it has two heads")),
            None => Err(malformed("it has a piece that this version does not know")),
        }
    }
}

pub fn malformed(why: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("a snapshot cannot be used: {why}; have it sent again"),
    )
}
