//! Reads a backup back, front to back, and believes nothing that it has not checked: lengths are held against what is
//! there, places and keys against their order, counts and the SHA-256 against all that was read. What it gives out before
//! the end counts only once the end was reached.

use std::fmt;
use std::io::{self, Read};

use bytes::{Buf, Bytes};
use sha2::{Digest, Sha256};
use tenure_state::{Place, stored};

use super::{ALIGNMENT, DIGEST_BYTES, Kind, MAGIC};

/// The longest frame that is read: the longest entry of the log, and what surrounds it.
const FRAME_BYTES_MAX: u64 = (256 << 20) + (1 << 20);

/// A backup being read. An iterator: it ends with None once everything was verified, or after its first error.
pub struct Reader<R> {
    input: R,
    digest: Sha256,
    /// Bytes read so far.
    offset: u64,
    head: Bytes,
    /// What is left of the current frame, and where in the file its body begins.
    body: Bytes,
    body_offset: u64,
    body_length: usize,
    stage: Stage,
    last_place: Option<Place>,
    last_key: Option<Bytes>,
    records: u64,
    pairs: u64,
    whole: Option<Whole>,
}

/// What a backup holds, one by one: all records in the order of their places, then the small state in the order of its keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    Record(Place, Bytes),
    Meta(Bytes, Bytes),
}

/// What is known of a backup that was read to its end and found to be whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Whole {
    pub records: u64,
    pub pairs: u64,
    /// Of the file, bytes.
    pub size: u64,
    pub sha256: [u8; DIGEST_BYTES],
}

/// Why a backup could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error(
        "it does not begin as a backup of Tenure's does; was it written by `tenure snapshot save` or `etcdctl snapshot save`?"
    )]
    Foreign,
    #[error("it is damaged at byte {offset}: {what}; use another copy")]
    Damaged { offset: u64, what: String },
    #[error("it could not be read at byte {offset}: {source}")]
    Io { offset: u64, source: io::Error },
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Records,
    Meta,
    Ended,
}

impl<R: Read> Reader<R> {
    /// Reads the beginning. Give it a buffered input: it reads in small pieces.
    pub fn open(input: R) -> Result<Reader<R>, ReadError> {
        let mut reader = Reader {
            input,
            digest: Sha256::new(),
            offset: 0,
            head: Bytes::new(),
            body: Bytes::new(),
            body_offset: 0,
            body_length: 0,
            stage: Stage::Records,
            last_place: None,
            last_key: None,
            records: 0,
            pairs: 0,
            whole: None,
        };
        let magic = reader.exactly(MAGIC.len() as u64, "the first line").map_err(|error| match error {
            ReadError::Damaged { .. } => ReadError::Foreign,
            other => other,
        })?;
        if magic != MAGIC[..] {
            return Err(ReadError::Foreign);
        }
        let kind = reader.frame()?;
        if kind != Kind::Head as u8 {
            return Err(reader.damaged_frame("there is no head"));
        }
        reader.head = std::mem::take(&mut reader.body);
        Ok(reader)
    }

    /// What the writer said of the whole.
    pub fn head(&self) -> &Bytes {
        &self.head
    }

    /// Bytes read so far.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Some once the end was reached and everything before it has proven true.
    pub fn whole(&self) -> Option<&Whole> {
        self.whole.as_ref()
    }

    fn step(&mut self) -> Result<Option<Item>, ReadError> {
        loop {
            if self.stage == Stage::Ended {
                return Ok(None);
            }
            if self.body.has_remaining() {
                return if self.stage == Stage::Records { self.record() } else { self.pair() }.map(Some);
            }
            let kind = self.frame()?;
            match (Kind::ALL.into_iter().find(|known| *known as u8 == kind), self.stage) {
                (Some(Kind::End), _) => {
                    self.end()?;
                    self.stage = Stage::Ended;
                    return Ok(None);
                }
                (_, _) if self.body.is_empty() => return Err(self.damaged_frame("an empty frame")),
                (Some(Kind::Records), Stage::Records) => {}
                (Some(Kind::Meta), _) => self.stage = Stage::Meta,
                (Some(kind), _) => {
                    return Err(self.damaged_frame(format!("a frame of kind {kind:?} out of turn")));
                }
                (None, _) => return Err(self.damaged_frame(format!("a frame of kind {kind}, which is none"))),
            }
        }
    }

    fn record(&mut self) -> Result<Item, ReadError> {
        let at = self.here();
        let place = self.cut(Place::ENCODED_LEN)?;
        let place =
            Place::decode(&place).ok_or_else(|| damaged(at, format!("{place:?} is no place of a record")))?;
        let bytes = self.part()?;
        if self.last_place.is_some_and(|last| place <= last) {
            return Err(damaged(at, format!("the record of {place:?} does not follow the one before")));
        }
        self.last_place = Some(place);
        self.records += 1;
        Ok(Item::Record(place, bytes))
    }

    fn pair(&mut self) -> Result<Item, ReadError> {
        let at = self.here();
        let (key, value) = (self.part()?, self.part()?);
        if key == stored::APPLIED || self.last_key.as_ref().is_some_and(|last| key <= *last) {
            return Err(damaged(at, format!("the state at {key:?} does not follow the one before")));
        }
        self.last_key = Some(key.clone());
        self.pairs += 1;
        Ok(Item::Meta(key, value))
    }

    /// The last frame's counts, the zeros, the sum, and nothing after it.
    fn end(&mut self) -> Result<(), ReadError> {
        let expected = [self.records.to_be_bytes(), self.pairs.to_be_bytes()].concat();
        if self.body != expected {
            let what = format!(
                "{} records and {} pairs were read, its end speaks of others",
                self.records, self.pairs
            );
            return Err(self.damaged_frame(what));
        }
        let at = self.offset;
        let padding = self.exactly((ALIGNMENT - at % ALIGNMENT) % ALIGNMENT, "the zeros at the end")?;
        if let Some(stray) = padding.iter().position(|byte| *byte != 0) {
            return Err(damaged(at + stray as u64, "there is something among the zeros at the end"));
        }
        let at = self.offset;
        let computed: [u8; DIGEST_BYTES] = self.digest.clone().finalize().into();
        let found = self.exactly(DIGEST_BYTES as u64, "the SHA-256")?;
        if found != computed[..] {
            return Err(damaged(at, "the SHA-256 there is not that of what was read before it"));
        }
        if !self.read(1)?.is_empty() {
            return Err(damaged(self.offset - 1, "there is more after its end"));
        }
        self.whole =
            Some(Whole { records: self.records, pairs: self.pairs, size: self.offset, sha256: computed });
        Ok(())
    }

    /// Makes the next frame the current one and gives its kind.
    fn frame(&mut self) -> Result<u8, ReadError> {
        let at = self.offset;
        let mut start = self.exactly(5, "the beginning of a frame")?;
        let (length, kind) = (u64::from(start.get_u32()), start.get_u8());
        if length > FRAME_BYTES_MAX {
            return Err(damaged(at, format!("a frame of {length} bytes, more than there can be")));
        }
        (self.body_offset, self.body_length) = (self.offset, length as usize);
        self.body = self.exactly(length, "a frame")?;
        Ok(kind)
    }

    /// Exactly so many bytes of the input.
    fn exactly(&mut self, length: u64, what: &str) -> Result<Bytes, ReadError> {
        let bytes = self.read(length)?;
        if (bytes.len() as u64) < length {
            return Err(damaged(self.offset, format!("it ends within {what}")));
        }
        self.digest.update(&bytes);
        Ok(bytes)
    }

    /// So many bytes of the input, fewer at its end. Memory is taken as they come, not as they were promised.
    fn read(&mut self, length: u64) -> Result<Bytes, ReadError> {
        let mut bytes = Vec::new();
        let offset = self.offset;
        self.input
            .by_ref()
            .take(length)
            .read_to_end(&mut bytes)
            .map_err(|source| ReadError::Io { offset, source })?;
        self.offset += bytes.len() as u64;
        Ok(bytes.into())
    }

    /// A part of the frame that says its own length.
    fn part(&mut self) -> Result<Bytes, ReadError> {
        let length = self.cut(4)?.get_u32();
        self.cut(length as usize)
    }

    fn cut(&mut self, length: usize) -> Result<Bytes, ReadError> {
        if self.body.len() < length {
            let what =
                format!("{length} bytes are said to be left in a frame that has {} more", self.body.len());
            return Err(damaged(self.here(), what));
        }
        Ok(self.body.split_to(length))
    }

    /// Where in the file the rest of the frame begins.
    fn here(&self) -> u64 {
        self.body_offset + (self.body_length - self.body.len()) as u64
    }

    fn damaged_frame(&self, what: impl fmt::Display) -> ReadError {
        damaged(self.body_offset, what)
    }
}

impl<R: Read> Iterator for Reader<R> {
    type Item = Result<Item, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        let item = self.step().transpose();
        if let Some(Err(_)) = item {
            self.stage = Stage::Ended;
        }
        item
    }
}

fn damaged(offset: u64, what: impl fmt::Display) -> ReadError {
    ReadError::Damaged { offset, what: what.to_string() }
}
