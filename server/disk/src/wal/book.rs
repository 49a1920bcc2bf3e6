//! What the log holds as its callers see it, the queue to the writer, and the lock around both.
//!
//! Callers see what they queued at once; the disk follows. The book is therefore ahead of the map of places on disk, and
//! the difference is exactly the queue. An entry leaves the tail only when the map has it, and no truncation is on its way
//! that could take it out of the map again.

use std::io;
use std::ops::Range;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};

use super::extent::Extent;
use super::map::{Change, Map, Span};
use super::tail::Tail;
use super::{LogId, LogState, PAYLOAD_BYTES_MAX, Vote};

pub(super) type Done = Box<dyn FnOnce(io::Result<()>) + Send>;

/// One thing to be written, in the order in which it was asked for.
pub(super) enum Work {
    Append {
        entries: Vec<(LogId, Bytes)>,
        done: Done,
    },
    Vote {
        vote: Vote,
        done: Done,
    },
    /// Everything after this entry goes.
    Truncate(Option<LogId>),
    Purge(LogId),
}

pub(super) struct Shared {
    book: Mutex<Book>,
    /// Tells the writer's thread that there is work.
    wake: Condvar,
}

pub(super) struct Book {
    extent: Extent,
    tail: Tail,
    tail_bytes_max: u64,
    pub map: Map,
    pub vote: Option<Vote>,
    pub committed: Option<LogId>,
    committed_unsaved: bool,
    queue: Vec<Work>,
    /// Truncations that the map has not heard of.
    truncations_ahead: usize,
    /// Why nothing more is written: the first failure, or that the log was closed.
    stopped: Option<Stopped>,
    closing: bool,
    writer_waits: bool,
    /// Somebody was told that the writer sleeps and will wake it.
    wake_promised: bool,
}

#[derive(Clone)]
pub(super) struct Stopped {
    pub kind: io::ErrorKind,
    pub text: String,
}

impl Stopped {
    pub fn error(&self) -> io::Error {
        io::Error::new(self.kind, self.text.clone())
    }
}

/// What the writer takes at once.
#[derive(Default)]
pub(super) struct Taken {
    pub work: Vec<Work>,
    pub committed: Option<Option<LogId>>,
}

impl Book {
    pub fn new(
        extent: Extent,
        map: Map,
        vote: Option<Vote>,
        committed: Option<LogId>,
        tail_bytes_max: u64,
    ) -> Book {
        Book {
            extent,
            tail: Tail::default(),
            tail_bytes_max,
            map,
            vote,
            committed,
            committed_unsaved: false,
            queue: Vec::new(),
            truncations_ahead: 0,
            stopped: None,
            closing: false,
            writer_waits: false,
            wake_promised: false,
        }
    }

    pub fn state(&self) -> LogState {
        LogState { last_purged: self.extent.purged(), last: self.extent.last() }
    }

    pub fn id(&self, index: u64) -> Option<LogId> {
        self.extent.id(index)
    }

    pub fn stopped(&self) -> Option<&Stopped> {
        self.stopped.as_ref()
    }

    /// A committed hint alone is no reason to write, unless it is the last chance.
    fn has_work(&self) -> bool {
        !self.queue.is_empty() || self.committed_unsaved && self.closing
    }

    /// Takes entries in, or refuses them all.
    fn append(&mut self, entries: &[(LogId, Bytes)]) -> io::Result<()> {
        let follows = |pair: &[(LogId, Bytes)]| pair[0].0.index.checked_add(1) == Some(pair[1].0.index);
        if let Some((id, _)) = entries.iter().find(|(_, payload)| payload.len() > PAYLOAD_BYTES_MAX) {
            return Err(invalid(format!("entry {} is longer than {PAYLOAD_BYTES_MAX} bytes", id.index)));
        }
        let Some((first, _)) = entries.first() else { return Ok(()) };
        let in_order =
            entries.windows(2).all(follows) && entries.last().is_none_or(|(id, _)| id.index < u64::MAX);
        if !in_order || !self.extent.takes(first.index) {
            let end = self.extent.end();
            return Err(invalid(format!("entries from {} do not follow on: next is {end}", first.index)));
        }
        for (id, payload) in entries {
            self.extent.append(*id);
            self.tail.push(*id, payload.clone());
        }
        Ok(())
    }

    /// Where to read a range: what lies on disk, then what is in memory.
    pub fn find(&self, range: Range<u64>, bytes_max: u64) -> (Vec<Span>, Vec<(LogId, Bytes)>) {
        let range = range.start.max(self.extent.first())..range.end.min(self.extent.end());
        let mut recent = Vec::new();
        if range.start >= range.end {
            return (Vec::new(), recent);
        }
        let tail_first = self.tail.first().unwrap_or(self.extent.end());
        let spans = self.map.spans(range.start..range.end.min(tail_first), bytes_max);
        let reached = spans.last().map_or(range.start, Span::end);
        if reached >= tail_first {
            self.tail.read(reached..range.end, bytes_max, &mut recent);
        }
        (spans, recent)
    }

    /// Hears what has become durable; the positions of entries are counted from `base`.
    pub fn settle(&mut self, changes: impl Iterator<Item = Change>, base: u32) {
        for change in changes {
            if matches!(change, Change::Truncated(_)) {
                self.truncations_ahead -= 1;
            }
            self.map.apply(change, base);
        }
        if self.truncations_ahead == 0 {
            self.tail.evict(self.tail_bytes_max, self.map.end());
        }
    }
}

impl Shared {
    pub fn new(book: Book) -> Shared {
        Shared { book: Mutex::new(book), wake: Condvar::new() }
    }

    pub fn book(&self) -> parking_lot::MutexGuard<'_, Book> {
        self.book.lock()
    }

    /// Leaves a writer asleep that is; whether it is, and nobody was told so before.
    pub fn append(&self, entries: Vec<(LogId, Bytes)>, done: Done) -> bool {
        let mut book = self.book.lock();
        let refused = match &book.stopped {
            Some(stopped) => Err(stopped.error()),
            None => book.append(&entries),
        };
        if let Err(error) = refused {
            drop(book);
            done(Err(error));
            return false;
        }
        book.queue.push(Work::Append { entries, done });
        book.writer_waits && !std::mem::replace(&mut book.wake_promised, true)
    }

    /// Wakes the writer for what was appended.
    pub fn wake(&self) {
        self.wake_writer(&mut self.book.lock());
    }

    pub fn save_vote(&self, vote: Vote, done: Done) {
        let mut book = self.book.lock();
        if let Some(stopped) = &book.stopped {
            let error = stopped.error();
            drop(book);
            return done(Err(error));
        }
        book.vote = Some(vote);
        self.queue(&mut book, Work::Vote { vote, done });
    }

    pub fn truncate_after(&self, index: Option<u64>) {
        let mut book = self.book.lock();
        if let Some(last) = book.extent.last_after_truncation(index) {
            book.extent.truncate(last);
            book.tail.truncate(last);
            book.truncations_ahead += 1;
            self.queue(&mut book, Work::Truncate(last));
        }
    }

    pub fn purge(&self, upto: LogId) {
        let mut book = self.book.lock();
        if book.extent.purge(upto) {
            book.tail.purge(upto.index);
            self.queue(&mut book, Work::Purge(upto));
        }
    }

    pub fn save_committed(&self, committed: Option<LogId>) {
        let mut book = self.book.lock();
        if book.committed != committed {
            book.committed = committed;
            book.committed_unsaved = true;
        }
    }

    /// Refuses everything from now on.
    pub fn stop(&self, stopped: Stopped) {
        let mut book = self.book.lock();
        book.stopped = Some(stopped);
        book.committed_unsaved = false;
    }

    /// Lets the writer finish what is queued and then end; later writes are refused.
    pub fn close(&self) {
        let mut book = self.book.lock();
        let text = "the log is closed".to_owned();
        book.stopped.get_or_insert(Stopped { kind: io::ErrorKind::BrokenPipe, text });
        book.closing = true;
        self.wake.notify_one();
    }

    pub fn has_work(&self) -> bool {
        self.book.lock().has_work()
    }

    /// Everything queued, without waiting; nothing if there is nothing. Gives back `emptied`'s memory to the queue.
    pub fn take(&self, emptied: &mut Vec<Work>) -> Option<Taken> {
        take(&mut self.book.lock(), emptied)
    }

    /// The same, waiting for work; nothing when the log is closed and all is taken.
    pub fn wait(&self, emptied: &mut Vec<Work>) -> Option<Taken> {
        let mut book = self.book.lock();
        loop {
            if let Some(taken) = take(&mut book, emptied) {
                return Some(taken);
            }
            if book.closing {
                return None;
            }
            book.writer_waits = true;
            self.wake.wait(&mut book);
            book.writer_waits = false;
        }
    }

    fn queue(&self, book: &mut Book, work: Work) {
        // Appends and votes were refused before they came here; the others have nobody to tell.
        if book.stopped.is_some() {
            return;
        }
        book.queue.push(work);
        self.wake_writer(book);
    }

    fn wake_writer(&self, book: &mut Book) {
        book.wake_promised = false;
        if book.writer_waits {
            book.writer_waits = false;
            self.wake.notify_one();
        }
    }
}

fn take(book: &mut Book, emptied: &mut Vec<Work>) -> Option<Taken> {
    if !book.has_work() {
        return None;
    }
    let committed = book.committed_unsaved;
    let work = std::mem::replace(&mut book.queue, std::mem::take(emptied));
    if committed {
        book.committed_unsaved = false;
    }
    Some(Taken { work, committed: committed.then_some(book.committed) })
}

fn invalid(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("could not append to the log: {text}"))
}
