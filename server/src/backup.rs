//! What a backup says: its head, as a member writes it, and everything else about one as whoever reads it needs it. Reading is
//! proving: the state is rebuilt as a starting member would rebuild it, so a file that no member could start from is
//! refused here. Knows nothing of files or of the network; the frames are the disk crate's.

use std::io::Read;

use bytes::Bytes;
use prost::Message;
use tenure_disk::backup::{Item, ReadError, Reader, Whole};
use tenure_proto::internal::BackupHead;
use tenure_state::{Fatal, Load, Machine, Revision};

use crate::checksum::{self, Checksum};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("it cannot be understood: {0}; read it with the version that wrote it")]
    Unknown(String),
    #[error("it is not the file that was looked at before; let nobody write to it meanwhile")]
    Changed,
}

impl From<Fatal> for Error {
    fn from(fatal: Fatal) -> Error {
        Error::Unknown(fatal.0)
    }
}

/// A backup that was read to its end and found whole, and what it leads to.
pub struct Survey {
    pub head: BackupHead,
    pub whole: Whole,
    /// Without values.
    pub machine: Machine,
}

impl Survey {
    /// Reads the whole backup. Takes memory for its keys, not for their values.
    pub fn of(input: impl Read) -> Result<Survey, Error> {
        let mut reader = Reader::open(input)?;
        let outcome = rebuild(&mut reader);
        // What could not be understood may have been damaged: that is known only at the end, and says more.
        for item in reader.by_ref() {
            item?;
        }
        let (head, machine) = outcome?;
        let whole = reader.whole().cloned().expect("a reader without error ends whole");
        Ok(Survey { head, whole, machine })
    }

    /// Reads it once more for the number that `etcdctl endpoint hashkv` gives for the same history.
    pub fn hash(&self, input: impl Read) -> Result<u32, Error> {
        let mut sum = Checksum::begin();
        let at = self.machine.revision();
        let mut again = self.again(input)?;
        for item in again.by_ref() {
            if let Item::Record(place, bytes) = item?
                && checksum::counts(&self.machine, at, place, &bytes)?
            {
                sum.add(place, &bytes);
            }
        }
        self.same(&again)?;
        Ok(sum.value())
    }

    /// Begins to read the same file anew; [`Survey::same`] tells in the end whether it was.
    pub fn again<R: Read>(&self, input: R) -> Result<Reader<R>, Error> {
        Ok(Reader::open(input)?)
    }

    pub fn same<R>(&self, reader: &Reader<R>) -> Result<(), Error>
    where
        R: Read,
    {
        if reader.whole() == Some(&self.whole) { Ok(()) } else { Err(Error::Changed) }
    }
}

fn rebuild(reader: &mut Reader<impl Read>) -> Result<(BackupHead, Machine), Error> {
    let head = head(reader.head())?;
    let floor = head.applied.clone().unwrap_or_default();
    let mut load = Load::new(0, Revision(floor.revision), Revision(floor.compacted));
    for item in reader {
        match item? {
            // A copy, or one key in the index would keep its whole frame.
            Item::Record(place, bytes) => load.record(place, Bytes::copy_from_slice(&bytes))?,
            Item::Meta(key, value) => load.meta(&key, &value)?,
        }
    }
    Ok((head, load.finish()))
}

/// What a backup says of itself. An empty head, of a store that nothing was ever written to, says nothing.
pub fn head(bytes: &Bytes) -> Result<BackupHead, Error> {
    BackupHead::decode(bytes.clone())
        .map_err(|error| Error::Unknown(format!("its head does not decode: {error}")))
}
