//! Bugs planted on purpose, to show that the fault tests would find such bugs: in builds with the feature `planted` only, one at
//! a time, named by the variable `PLANTED_BUG`. In any other build [`is`] is a constant no, and none of this is there. It knows
//! nothing of the rooms that ask.

/// The bugs there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// Writes are acknowledged before they are on disk.
    #[cfg(feature = "planted")]
    AcknowledgeEarly,
    /// Linearizable reads are answered from what is here.
    ReadLocally,
    /// Keepalives are answered by whoever thinks that it leads.
    RenewUnproven,
    /// Now and then watches are not told of a change.
    DropEvents,
}

/// Whether this bug is to be had.
#[cfg(not(feature = "planted"))]
pub const fn is(_bug: Bug) -> bool {
    false
}

#[cfg(feature = "planted")]
pub use put_in::{disk, dither, is};

#[cfg(feature = "planted")]
mod put_in {
    use std::io;
    use std::path::Path;
    use std::sync::{Arc, LazyLock};
    use std::time::Duration;

    use parking_lot::Mutex;
    use tenure_disk::{DirLock, Disk, DiskFile, Files};

    use super::Bug;
    use crate::clock::{Clock, SystemClock};

    /// How long an acknowledged write is kept from the disk, milliseconds.
    const HELD_BACK_MS: u64 = 400;
    /// Longer, so that the store does not know on disk what the log has lost.
    const DITHER: Duration = Duration::from_secs(4);

    pub fn is(bug: Bug) -> bool {
        static CHOSEN: LazyLock<Option<Bug>> = LazyLock::new(|| {
            let name = std::env::var("PLANTED_BUG").ok()?;
            let bugs = [Bug::AcknowledgeEarly, Bug::ReadLocally, Bug::RenewUnproven, Bug::DropEvents];
            let chosen = bugs.into_iter().find(|bug| format!("{bug:?}") == name);
            Some(chosen.unwrap_or_else(|| panic!("PLANTED_BUG={name} is none of {bugs:?}")))
        });
        *CHOSEN == Some(bug)
    }

    /// The disk for the log.
    pub fn disk() -> Arc<dyn Disk> {
        if is(Bug::AcknowledgeEarly) {
            Arc::new(Lying(Arc::new(SystemClock::start())))
        } else {
            Arc::new(Files)
        }
    }

    /// Makes the store's thread late.
    pub fn dither() {
        if is(Bug::AcknowledgeEarly) {
            std::thread::sleep(DITHER);
        }
    }

    /// A disk that says that something is durable when it has not even begun to write it.
    struct Lying(Arc<SystemClock>);

    impl Disk for Lying {
        fn create_dir(&self, dir: &Path) -> io::Result<()> {
            Files.create_dir(dir)
        }

        fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
            Files.list(dir)
        }

        fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
            Ok(Arc::new(LyingFile { file: Files.open(path)?, clock: self.0.clone(), held: Mutex::default() }))
        }

        fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
            Ok(Arc::new(LyingFile {
                file: Files.create(path)?,
                clock: self.0.clone(),
                held: Mutex::default(),
            }))
        }

        fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
            Files.rename(from, to)
        }

        fn remove(&self, path: &Path) -> io::Result<()> {
            Files.remove(path)
        }

        fn sync_dir(&self, dir: &Path) -> io::Result<()> {
            Files.sync_dir(dir)
        }

        fn lock(&self, dir: &Path) -> io::Result<DirLock> {
            Files.lock(dir)
        }
    }

    struct LyingFile {
        file: Arc<dyn DiskFile>,
        clock: Arc<SystemClock>,
        held: Mutex<Held>,
    }

    #[derive(Default)]
    struct Held {
        written_out_ms: u64,
        writes: Vec<(u64, Vec<u8>)>,
    }

    impl LyingFile {
        fn write_out(&self, held: &mut Held) -> io::Result<()> {
            for (offset, bytes) in held.writes.drain(..) {
                self.file.write_all_at(&bytes, offset)?;
            }
            Ok(())
        }
    }

    impl DiskFile for LyingFile {
        fn size(&self) -> io::Result<u64> {
            self.write_out(&mut self.held.lock())?;
            self.file.size()
        }

        fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
            self.write_out(&mut self.held.lock())?;
            self.file.read_at(buffer, offset)
        }

        fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
            let mut held = self.held.lock();
            held.writes.push((offset, bytes.to_vec()));
            let now = self.clock.now_ms();
            if now > held.written_out_ms + HELD_BACK_MS {
                self.write_out(&mut held)?;
                held.written_out_ms = now;
            }
            Ok(bytes.len())
        }

        fn sync_data(&self) -> io::Result<()> {
            Ok(())
        }
    }
}
