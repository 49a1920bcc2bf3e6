//! The stock of segment files: prepares the next one before it is needed and takes back those that were purged.
//!
//! Why: overwriting zeros that are already on the disk costs an fdatasync 20-40 % less than extending a file, and filling
//! 64 MiB with zeros must not be waited for in the path of a write. So a thread of its own does it, when the segment in use
//! is half full. Purged files are recycled as they are: the next life's mark tells their old sectors from new ones.
//!
//! A file gets its final name only when its contents are durable, and is offered only when its name is.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use super::segment::{self, Segment};
use super::{Observer, WalEvent, WalOptions, Workers, sector};
use crate::background;
use crate::disk::Disk;

/// The writer's side of the stock.
pub(super) struct Stock {
    hands: Hands,
    next_number: u64,
    ready: Option<Prepared>,
    requested: bool,
}

type Prepared = io::Result<Segment>;

enum Hands {
    Caller(Keeper),
    Thread { jobs: Option<Sender<Job>>, prepared: Receiver<Prepared>, thread: Option<JoinHandle<()>> },
}

enum Job {
    Prepare { number: u64, bytes: u64 },
    Retire(Vec<Arc<Segment>>),
}

impl Stock {
    /// `next_number` is one that no segment has had; `ready` a prepared segment that was found.
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: PathBuf,
        options: &WalOptions,
        next_number: u64,
        ready: Option<Segment>,
    ) -> io::Result<Stock> {
        let keeper = Keeper {
            disk,
            dir,
            segment_bytes: options.segment_bytes,
            spares_max: options.spares_max,
            spares: Vec::new(),
            observer: options.observer.clone(),
        };
        let hands = match options.workers {
            Workers::Caller | Workers::Hand => Hands::Caller(keeper),
            Workers::Threads => keeper.spawn()?,
        };
        let requested = ready.is_some();
        Ok(Stock { hands, next_number, ready: ready.map(Ok), requested })
    }

    /// Asks for the next segment, unless that was done.
    pub fn request(&mut self, bytes: u64) {
        if self.requested {
            return;
        }
        self.requested = true;
        let number = self.next_number;
        self.next_number += 1;
        match &mut self.hands {
            Hands::Caller(keeper) => self.ready = Some(keeper.prepare(number, bytes)),
            Hands::Thread { jobs, .. } => {
                if let Some(jobs) = jobs {
                    // A thread that is gone shows when the segment is taken.
                    let _ = jobs.send(Job::Prepare { number, bytes });
                }
            }
        }
    }

    /// The next segment, waiting for it if it must. A failure to prepare it ahead is tried once more, as space may have
    /// been made since.
    pub fn take(&mut self, bytes: u64) -> io::Result<Segment> {
        let ahead = self.requested;
        self.request(bytes);
        match self.receive() {
            Err(_) if ahead => {
                self.request(bytes);
                self.receive()
            }
            prepared => prepared,
        }
    }

    /// Waits until there is a next segment, without taking it.
    pub fn ensure(&mut self, bytes: u64) -> io::Result<()> {
        let segment = self.take(bytes)?;
        self.ready = Some(Ok(segment));
        self.requested = true;
        Ok(())
    }

    /// Takes back segments that hold nothing any more.
    pub fn retire(&mut self, segments: Vec<Arc<Segment>>) {
        if segments.is_empty() {
            return;
        }
        match &mut self.hands {
            Hands::Caller(keeper) => keeper.retire(segments),
            Hands::Thread { jobs, .. } => {
                if let Some(jobs) = jobs {
                    // Unsent, they stay on the disk until the next start finds them.
                    let _ = jobs.send(Job::Retire(segments));
                }
            }
        }
    }

    fn receive(&mut self) -> Prepared {
        self.requested = false;
        if let Some(ready) = self.ready.take() {
            return ready;
        }
        match &self.hands {
            Hands::Caller(_) => Err(io::Error::other("no log segment was prepared")),
            Hands::Thread { prepared, .. } => prepared
                .recv()
                .unwrap_or_else(|_| Err(io::Error::other("the thread preparing log segments died"))),
        }
    }
}

impl Drop for Stock {
    fn drop(&mut self) {
        if let Hands::Thread { jobs, thread, .. } = &mut self.hands {
            *jobs = None;
            if let Some(thread) = thread.take() {
                // It can only have panicked, and said so.
                let _ = thread.join();
            }
        }
    }
}

/// Does the work on the files.
struct Keeper {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    segment_bytes: u64,
    spares_max: usize,
    /// Purged files and the life each is in.
    spares: Vec<(PathBuf, u8)>,
    observer: Observer,
}

/// Zeros go out in pieces, each synced, so that a sync of the log never waits behind more than one.
const ZEROS: usize = 256 << 10;

impl Keeper {
    fn spawn(mut self) -> io::Result<Hands> {
        let (jobs, todo) = channel();
        let (done, prepared) = channel();
        let work = move || {
            for job in todo {
                match job {
                    Job::Retire(segments) => self.retire(segments),
                    Job::Prepare { number, bytes } => {
                        if done.send(self.prepare(number, bytes)).is_err() {
                            return;
                        }
                    }
                }
            }
        };
        let thread = background::start("wal-segments", work)?;
        Ok(Hands::Thread { jobs: Some(jobs), prepared, thread: Some(thread) })
    }

    fn prepare(&mut self, number: u64, bytes: u64) -> Prepared {
        let spare = if bytes == self.segment_bytes { self.spares.pop() } else { None };
        let (from, life) = match spare {
            Some((path, life)) => (path, life + 1),
            None => (self.dir.join(format!("{number:020}.new")), 0),
        };
        let made = self.make(&from, number, life, bytes);
        made.map_err(|error| {
            let _ = self.disk.remove(&from);
            let text = format!("could not prepare log segment {number} in {}: {error}", self.dir.display());
            self.observer.tell(WalEvent::Trouble(&text));
            io::Error::new(error.kind(), text)
        })
    }

    fn make(&self, from: &Path, number: u64, life: u8, bytes: u64) -> Prepared {
        let file = if life == 0 { self.disk.create(from)? } else { self.disk.open(from)? };
        if life == 0 {
            let zeros = vec![0; ZEROS.min(bytes as usize)];
            let mut filled = 0;
            while filled < bytes {
                let count = (bytes - filled).min(zeros.len() as u64);
                file.write_all_at(&zeros[..count as usize], filled)?;
                file.sync_data()?;
                filled += count;
            }
        }
        file.write_all_at(&Segment::header(number, life), 0)?;
        file.sync_data()?;
        let path = segment::path(&self.dir, number);
        self.disk.rename(from, &path)?;
        self.disk.sync_dir(&self.dir)?;
        Ok(Segment { number, life, path, file })
    }

    /// Oldest first, each durably before the next: what is left of the log after a power cut has no hole.
    fn retire(&mut self, segments: Vec<Arc<Segment>>) {
        for segment in segments {
            let (number, path) = (segment.number, segment.path.clone());
            if let Err(error) = self.retire_one(segment) {
                let text = format!("could not give up the purged log file {}: {error}", path.display());
                self.observer.tell(WalEvent::Trouble(&text));
                return;
            }
            self.observer.tell(WalEvent::SegmentRemoved { number });
        }
    }

    fn retire_one(&mut self, segment: Arc<Segment>) -> io::Result<()> {
        let path = segment.path.clone();
        // A reader may still hold it; then its bytes must stay as they are, and unlinking leaves them so.
        let recycled = match Arc::try_unwrap(segment) {
            Ok(segment) if self.spares.len() < self.spares_max && segment.life + 1 < sector::LIVES => {
                (segment.file.size()? >= self.segment_bytes).then_some(segment)
            }
            _ => None,
        };
        let Some(segment) = recycled else {
            self.disk.remove(&path)?;
            return self.disk.sync_dir(&self.dir);
        };
        let spare = path.with_extension("spare");
        self.disk.rename(&path, &spare)?;
        // The old name must be gone for good before the contents change: it would come back as a damaged segment.
        self.disk.sync_dir(&self.dir)?;
        self.spares.push((spare, segment.life));
        Ok(())
    }
}
