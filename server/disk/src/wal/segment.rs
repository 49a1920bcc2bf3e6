//! A segment: one file of the log. Its first sector says which segment it is and which life of the file this is; the
//! sectors after it hold batches, and the rest is zeros or what an earlier life left.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::OpenError;
use super::sector::{self, DATA, SECTOR};
use crate::disk::{Disk, DiskFile};

const MAGIC: &[u8; 8] = b"TENURLOG";
const VERSION: u32 = 1;

/// One file of the log, open.
pub(super) struct Segment {
    pub number: u64,
    pub life: u8,
    pub path: PathBuf,
    pub file: Arc<dyn DiskFile>,
}

impl Segment {
    /// Opens the file of that number and checks that it is what its name says.
    pub fn open(disk: &dyn Disk, dir: &Path, number: u64) -> Result<Segment, OpenError> {
        let path = path(dir, number);
        let attempt = |source| OpenError::Io { attempt: "read", path: path.clone(), source };
        let damaged =
            |what: &str| OpenError::Damaged { file: path.clone(), offset: 0, what: what.to_owned() };
        let file = disk.open(&path).map_err(attempt)?;
        let mut header = [0; SECTOR];
        let read = file.read_full_at(&mut header, 0).map_err(attempt)?;
        if sector::verify(&header[..read], 0, 0).is_none() {
            return Err(damaged("the segment's header does not verify"));
        }
        let data = sector::data(&header);
        if data[..8] != *MAGIC {
            return Err(damaged("the header is not that of a log segment"));
        }
        let version = u32::from_le_bytes([data[8], data[9], data[10], data[11]]);
        if version != VERSION {
            return Err(OpenError::Version { file: path, found: version, known: VERSION });
        }
        let life = data[20];
        if data[12..20] != number.to_le_bytes() || life >= sector::LIVES {
            return Err(damaged("the header is that of another segment"));
        }
        Ok(Segment { number, life, path, file })
    }

    /// The first sector of a segment.
    pub fn header(number: u64, life: u8) -> [u8; SECTOR] {
        let mut header = [0; SECTOR];
        let data = &mut header[sector::HEAD..];
        data[..8].copy_from_slice(MAGIC);
        data[8..12].copy_from_slice(&VERSION.to_le_bytes());
        data[12..20].copy_from_slice(&number.to_le_bytes());
        data[20] = life;
        sector::seal(&mut header, 0, 0, 0, 0, 0);
        header
    }

    /// The file's length in whole sectors.
    pub fn sectors(&self) -> io::Result<u32> {
        Ok((self.file.size()? / SECTOR as u64) as u32)
    }

    /// Appends `length` bytes of the segment's stream from `position` on to `into`.
    ///
    /// # Errors
    /// `InvalidData` naming file and byte when a sector does not verify.
    pub fn read_stream(&self, position: u64, length: usize, into: &mut Vec<u8>) -> io::Result<()> {
        if length == 0 {
            return Ok(());
        }
        let first = position / DATA as u64;
        let end = (position + length as u64).div_ceil(DATA as u64);
        let mut bytes = vec![0; (end - first) as usize * SECTOR];
        let read = self.file.read_full_at(&mut bytes, first * SECTOR as u64)?;
        bytes.truncate(read);
        let mut skip = (position % DATA as u64) as usize;
        let mut left = length;
        for place in first..end {
            let at = (place - first) as usize * SECTOR;
            let sector = bytes.get(at..at + SECTOR).unwrap_or_default();
            if sector::verify(sector, self.number, place as u32).is_none() {
                return Err(self.unreadable(place));
            }
            let data = &sector::data(sector)[skip..];
            let data = &data[..left.min(data.len())];
            into.extend_from_slice(data);
            left -= data.len();
            skip = 0;
        }
        Ok(())
    }

    /// What a reader says of a sector that was good when it was written.
    pub fn unreadable(&self, place: u64) -> io::Error {
        let text = format!(
            "the log file {} does not verify at byte {}: replace this member, its disk can no longer be trusted",
            self.path.display(),
            place * SECTOR as u64
        );
        io::Error::new(io::ErrorKind::InvalidData, text)
    }
}

/// A segment's sectors in order, read in large pieces.
pub(super) struct Sectors<'a> {
    segment: &'a Segment,
    size: u64,
    piece: Vec<u8>,
    begin: u64,
}

const PIECE_BYTES: u64 = 256 << 10;

impl Sectors<'_> {
    pub fn of(segment: &Segment) -> Result<Sectors<'_>, OpenError> {
        let size = segment.file.size().map_err(|source| unread(segment, source))?;
        Ok(Sectors { segment, size, piece: Vec::new(), begin: 0 })
    }

    /// One past the last place there are bytes for, if only a part of a sector.
    pub fn end(&self) -> u32 {
        self.size.div_ceil(SECTOR as u64) as u32
    }

    /// The sector at `place`; shorter, down to nothing, where the file ends.
    pub fn at(&mut self, place: u32) -> Result<&[u8], OpenError> {
        let from = u64::from(place) * SECTOR as u64;
        if from >= self.size {
            return Ok(&[]);
        }
        let held = self.begin..self.begin + self.piece.len() as u64;
        if !held.contains(&from) {
            self.piece.resize(PIECE_BYTES.min(self.size - from) as usize, 0);
            self.begin = from;
            let read = self.segment.file.read_full_at(&mut self.piece, from);
            let read = read.map_err(|source| unread(self.segment, source))?;
            self.piece.truncate(read);
        }
        let from = (from - self.begin) as usize;
        Ok(&self.piece[from..self.piece.len().min(from + SECTOR)])
    }
}

fn unread(segment: &Segment, source: io::Error) -> OpenError {
    OpenError::Io { attempt: "read", path: segment.path.clone(), source }
}

/// Where the segment of that number lies.
pub(super) fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:020}.wal"))
}

/// The number in a segment's file name; nothing for other files.
pub(super) fn number_in(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".wal")?;
    (digits.len() == 20).then(|| digits.parse().ok())?
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::fake::FakeDisk;

    /// A file of a later format, or under another segment's name, is refused with words that say so.
    #[test]
    fn a_foreign_header_is_refused() {
        let disk = FakeDisk::default();
        let file = disk.create(&path(Path::new("/d"), 7)).unwrap();
        file.write_all_at(&Segment::header(7, 3), 0).unwrap();
        let segment = Segment::open(&disk, Path::new("/d"), 7).unwrap();
        assert_eq!((segment.number, segment.life), (7, 3));

        let mut header = Segment::header(7, 3);
        header[sector::HEAD + 8] = 2;
        sector::seal(&mut header, 0, 0, 0, 0, 0);
        file.write_all_at(&header, 0).unwrap();
        let error = Segment::open(&disk, Path::new("/d"), 7).err().unwrap().to_string();
        assert!(error.contains("has format 2, this program reads format 1"), "{error}");

        file.write_all_at(&Segment::header(8, 3), 0).unwrap();
        let error = Segment::open(&disk, Path::new("/d"), 7).err().unwrap().to_string();
        assert!(error.contains("that of another segment"), "{error}");
    }
}
