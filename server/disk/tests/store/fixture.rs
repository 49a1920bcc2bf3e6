//! Short words for the tests: places, writes, a store in a directory of its own, and a gate that holds the store's
//! thread so that what is written stays uncommitted for as long as a test needs it.

use std::path::Path;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tempfile::TempDir;
use tenure_disk::store::{Observer, Store, StoreEvent, StoreOptions};
use tenure_state::{Place, Write};

pub const FIRST: Place = Place { main: 1, sub: 0, tombstone: false };
pub const END: Place = Place { main: i64::MAX, sub: 0, tombstone: false };

pub fn place(main: i64) -> Place {
    Place { main, sub: 0, tombstone: false }
}

pub fn record(main: i64) -> Bytes {
    Bytes::from(format!("record {main}"))
}

pub fn put(main: i64) -> Write {
    Write::Record { at: place(main), bytes: record(main) }
}

pub fn remove(main: i64) -> Write {
    Write::DropRecord { at: place(main) }
}

pub fn set(key: &'static str, value: Option<&'static str>) -> Write {
    Write::Meta {
        key: Bytes::from_static(key.as_bytes()),
        value: value.map(|value| Bytes::from_static(value.as_bytes())),
    }
}

pub fn applied(index: u64) -> Bytes {
    Bytes::from(index.to_string())
}

/// Small, so that tables are written within a test.
pub fn options() -> StoreOptions {
    StoreOptions {
        cache_bytes: 4 << 20,
        memtable_bytes: 1 << 20,
        read_cache_bytes: 1 << 20,
        ..StoreOptions::default()
    }
}

pub fn open(dir: &Path) -> Store {
    Store::open(dir, options()).unwrap()
}

pub fn fresh() -> (Store, TempDir) {
    let dir = TempDir::new().unwrap();
    (open(dir.path()), dir)
}

pub fn fresh_with(observer: Observer) -> (Store, TempDir) {
    let dir = TempDir::new().unwrap();
    (Store::open(dir.path(), StoreOptions { observer, ..options() }).unwrap(), dir)
}

/// The mains of all records that a scan shows.
pub fn mains(store: &Store) -> Vec<i64> {
    store.scanner(FIRST, END).unwrap().map(|item| item.unwrap().0.main).collect()
}

/// Can hold the store's thread after a commit.
#[derive(Default)]
pub struct Gate {
    closed: Mutex<bool>,
    opened: Condvar,
    pub commits: Mutex<Vec<usize>>,
}

impl Gate {
    pub fn new() -> Arc<Gate> {
        Arc::default()
    }

    pub fn observer(self: &Arc<Gate>) -> Observer {
        let gate = Arc::clone(self);
        Arc::new(move |event| {
            if let StoreEvent::Committed { batches, .. } = event {
                gate.commits.lock().unwrap().push(batches);
                drop(gate.opened.wait_while(gate.closed.lock().unwrap(), |closed| *closed).unwrap());
            }
        })
    }

    /// Writes `write` and waits until its commit holds the store's thread, which is until the answer is dropped. That
    /// must be before the store is, also when the test fails: bind it after the store.
    #[must_use]
    pub fn hold(self: &Arc<Gate>, store: &Store, write: Write) -> Held {
        *self.closed.lock().unwrap() = true;
        let held = Held(Arc::clone(self));
        let before = self.commits.lock().unwrap().len();
        store.write(vec![write], Bytes::from_static(b"held")).unwrap();
        while self.commits.lock().unwrap().len() == before {
            thread::yield_now();
        }
        held
    }
}

pub struct Held(Arc<Gate>);

impl Drop for Held {
    fn drop(&mut self) {
        *self.0.closed.lock().unwrap() = false;
        self.0.opened.notify_all();
    }
}

/// Counts how often it was woken, and wakes a thread.
pub struct Counter {
    pub woken: AtomicUsize,
    thread: Thread,
}

impl Counter {
    pub fn new() -> Arc<Counter> {
        Arc::new(Counter { woken: AtomicUsize::new(0), thread: thread::current() })
    }
}

impl Wake for Counter {
    fn wake(self: Arc<Self>) {
        self.woken.fetch_add(1, Ordering::SeqCst);
        self.thread.unpark();
    }
}

/// Runs a future to its end on this thread. Panics when nobody wakes it for a minute.
pub fn block_on<F: Future>(future: F) -> F::Output {
    let deadline = Instant::now() + Duration::from_secs(60);
    let waker = Waker::from(Counter::new());
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => {
                thread::park_timeout(Duration::from_secs(60));
                assert!(Instant::now() < deadline, "nobody woke the future");
            }
        }
    }
}
