//! The seam between what we store and the file system: few calls, each with one meaning, so that a simulator or a test can
//! stand in for the real disk (`fake`) and cut the power between any two of them.
//!
//! It must not know what is stored. Nothing here is durable until the matching call says so: contents after
//! [`DiskFile::sync_data`], names (created, renamed, removed) after [`Disk::sync_dir`].

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

/// A file system, as much of it as the log and the store need.
pub trait Disk: Send + Sync {
    /// Creates `dir` and its missing parents, durably, for this user only.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;

    /// The names of the files in `dir`, in no particular order.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;

    /// Opens a file that exists, for reading and writing.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;

    /// Creates an empty file, for reading and writing; one of that name is emptied.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;

    /// Renames within one directory, replacing `to`; atomic also across a power cut.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes the name; open handles go on reading the contents.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes every earlier create, rename and remove in `dir` durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Claims `dir` for this process until the lock is dropped.
    ///
    /// # Errors
    /// `ResourceBusy` when another holder has it; the text names the directory and says what to do.
    fn lock(&self, dir: &Path) -> io::Result<DirLock>;
}

/// An open file, written and read at explicit offsets. Writes past the end extend it; a gap reads as zeros.
pub trait DiskFile: Send + Sync {
    /// The length in bytes.
    fn size(&self) -> io::Result<u64>;

    /// Reads up to `buffer.len()` bytes at `offset`; fewer (down to 0) at the end of the file.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes at `offset`, possibly fewer bytes than given; returns how many.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize>;

    /// Makes every earlier write durable, with the length if it grew. After an error nothing is known about those
    /// writes, and a second call may claim success for pages the kernel has already given up: never retry it.
    fn sync_data(&self) -> io::Result<()>;

    /// Reads until `buffer` is full or the file ends; returns how many bytes were read.
    fn read_full_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.read_at(&mut buffer[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    /// Writes all of `bytes`, however many calls it takes.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut written = 0;
        while written < bytes.len() {
            match self.write_at(&bytes[written..], offset + written as u64) {
                Ok(0) => {
                    return Err(io::Error::new(io::ErrorKind::WriteZero, "the disk takes no more bytes"));
                }
                Ok(n) => written += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// A directory claimed for this process; dropping it gives the directory free.
pub struct DirLock {
    _held: Box<dyn Send + Sync>,
}

impl DirLock {
    pub(crate) fn new(held: impl Send + Sync + 'static) -> DirLock {
        DirLock { _held: Box::new(held) }
    }

    /// The refusal a second holder gets, in one wording for every disk.
    pub(crate) fn busy(dir: &Path) -> io::Error {
        let text = format!(
            "the data directory {} is in use by another process: stop that one, or give this one a directory of its own",
            dir.display()
        );
        io::Error::new(io::ErrorKind::ResourceBusy, text)
    }
}

/// The real file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct Files;

impl Disk for Files {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        let parent = match dir.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        if dir.is_dir() {
            // Who made it may have died before this. Where we may not even look, it was not us who made it.
            return match self.sync_dir(parent) {
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
                outcome => outcome,
            };
        }
        self.create_dir(parent)?;
        match DirBuilder::new().mode(0o700).create(dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        self.sync_dir(parent)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                names.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
        Ok(names)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(OpenOptions::new().read(true).write(true).open(path)?))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(private().truncate(true).open(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn lock(&self, dir: &Path) -> io::Result<DirLock> {
        let path = dir.join("LOCK");
        let file = private().truncate(false).open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(DirLock::new(file)),
            Err(TryLockError::WouldBlock) => Err(DirLock::busy(dir)),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

/// What is stored is for this user only.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).mode(0o600);
    options
}

impl DiskFile for File {
    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(self, buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        FileExt::write_at(self, bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        File::sync_data(self)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// What we store is readable for this user only.
    #[test]
    fn files_and_directories_are_private() {
        use std::os::unix::fs::PermissionsExt;
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("a/b");
        Files.create_dir(&dir).unwrap();
        Files.create_dir(&dir).unwrap();
        Files.create(&dir.join("f")).unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&dir), mode(&dir.join("f"))), (0o700, 0o600));
    }

    /// A second holder is refused with a text that says what to do, and may have the directory afterwards.
    #[test]
    fn a_locked_directory_refuses_the_second_holder() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("a/b");
        Files.create_dir(&dir).unwrap();
        let held = Files.lock(&dir).unwrap();
        let refused = Files.lock(&dir).err().unwrap();
        assert_eq!(refused.kind(), io::ErrorKind::ResourceBusy);
        assert!(refused.to_string().contains("in use by another process"), "{refused}");
        drop(held);
        Files.lock(&dir).unwrap();
    }
}
