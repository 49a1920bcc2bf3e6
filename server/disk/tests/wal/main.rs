//! The write-ahead log, tested from outside: what it promises, on a disk that breaks its promises.
#![allow(clippy::unwrap_used)]

mod basics;
mod damage;
mod faults;
mod model;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tenure_disk::FakeDisk;
use tenure_disk::wal::{LogId, OpenError, Vote, Wal, WalOptions, Workers};

const DIR: &str = "/data/log";

/// Small segments and batches, so that little content meets every border; no threads, so that it does so every time.
fn small() -> WalOptions {
    WalOptions {
        segment_bytes: 4 << 10,
        first_segment_bytes: 2 << 10,
        tail_bytes_max: 256,
        batch_bytes_max: 4 << 10,
        spares_max: 1,
        workers: Workers::Caller,
        ..WalOptions::default()
    }
}

fn open(disk: &FakeDisk) -> Wal {
    try_open(disk).unwrap()
}

fn try_open(disk: &FakeDisk) -> Result<Wal, OpenError> {
    Wal::open(Arc::new(disk.clone()), Path::new(DIR), small())
}

fn id(term: u64, index: u64) -> LogId {
    LogId { term, node: 1, index }
}

fn vote(term: u64) -> Vote {
    Vote { term, node: 1, committed: false }
}

/// An entry whose payload tells its id; `size` bytes of it.
fn entry(id: LogId, size: usize) -> (LogId, Bytes) {
    let text = format!("{}-{}.", id.term, id.index);
    (id, text.bytes().cycle().take(size).collect())
}

/// Appends entries `from..to` of a term, each as long as its index wants, and says what became of it.
fn append(wal: &Wal, term: u64, indexes: std::ops::Range<u64>, size: usize) -> io::Result<()> {
    let entries = indexes.map(|index| entry(id(term, index), size)).collect();
    outcome(|done| wal.append(entries, done))
}

fn save_vote(wal: &Wal, term: u64) -> io::Result<()> {
    outcome(|done| wal.save_vote(vote(term), done))
}

/// What a call that calls back said; it must have done so before it returned.
fn outcome(call: impl FnOnce(Box<dyn FnOnce(io::Result<()>) + Send>)) -> io::Result<()> {
    let said = Arc::new(Mutex::new(None));
    let hear = said.clone();
    call(Box::new(move |outcome| *hear.lock() = Some(outcome)));
    let outcome = said.lock().take();
    outcome.expect("the log answers before it returns where the caller is the worker")
}

/// Everything a log holds, to be compared.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Content {
    vote: Option<Vote>,
    purged: Option<LogId>,
    last: Option<LogId>,
    entries: Vec<(LogId, Bytes)>,
}

fn content(wal: &Wal) -> Content {
    let state = wal.state();
    let entries = wal.read(0..u64::MAX, u64::MAX).unwrap();
    Content { vote: wal.vote(), purged: state.last_purged, last: state.last, entries }
}

fn segment_files(disk: &FakeDisk) -> Vec<PathBuf> {
    disk.paths().into_iter().filter(|path| path.extension().is_some_and(|suffix| suffix == "wal")).collect()
}

/// Where the last byte of a file lies that was ever written to, when nothing was recycled.
fn written_bytes(disk: &FakeDisk, path: &Path) -> u64 {
    disk.contents(path).iter().rposition(|byte| *byte != 0).map_or(0, |last| last as u64 + 1)
}
