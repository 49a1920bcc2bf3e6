//! Writing: readable at once, committed soon and in batches, bounded, and durable when asked.

use std::os::unix::fs::PermissionsExt;
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use tempfile::TempDir;
use tenure_disk::store::{Store, StoreEvent, StoreOptions};
use tenure_state::Records;

use crate::fixture::*;

/// The machine reads what it applied a moment ago; it must not matter whether the disk has it yet.
#[test]
fn a_write_is_readable_before_it_is_committed() {
    let gate = Gate::new();
    let (store, _dir) = fresh_with(gate.observer());
    let held = gate.hold(&store, put(1));
    store.write(vec![put(2), set("lease", Some("on"))], applied(2)).unwrap();

    assert_eq!(store.record(place(2)).unwrap(), Some(record(2)));
    assert_eq!(mains(&store), [1, 2]);
    assert_eq!(store.meta(b"lease").unwrap().len(), 1);
    assert_eq!(store.applied(), Some(applied(2)));
    let before = store.snapshot().unwrap();
    assert_eq!(before.records().count(), 1, "a snapshot shows only what is committed");
    assert_eq!(before.applied(), Some(&Bytes::from_static(b"held")));
    assert_eq!(store.figures().pending_batches, 2);

    drop(held);
    block_on(store.settled()).unwrap();
    assert_eq!(store.figures().pending_batches, 0);
    assert_eq!(store.record(place(2)).unwrap(), Some(record(2)));
    assert_eq!(store.snapshot().unwrap().applied(), Some(&applied(2)));
}

/// What waits while the disk is busy goes in as one commit, in the order it was written.
#[test]
fn waiting_batches_are_committed_together() {
    let gate = Gate::new();
    let (store, _dir) = fresh_with(gate.observer());
    let held = gate.hold(&store, put(1));
    for main in 2..=50 {
        store
            .write(vec![put(main), remove(main - 1), set("last", Some("word"))], applied(main as u64))
            .unwrap();
    }
    drop(held);
    store.settled().wait().unwrap();
    assert_eq!(*gate.commits.lock().unwrap(), [1, 49]);
    assert_eq!(mains(&store), [50]);
    assert_eq!(store.snapshot().unwrap().applied(), Some(&applied(50)));
}

/// The writer waits when too much is pending, is woken, and may stop waiting at any time.
#[test]
fn a_full_backlog_makes_the_writer_wait() {
    let gate = Gate::new();
    let dir = TempDir::new().unwrap();
    let small = StoreOptions { pending_bytes_max: 30, observer: gate.observer(), ..options() };
    let store = Store::open(dir.path(), small).unwrap();
    block_on(store.room()).unwrap();
    let held = gate.hold(&store, put(1));
    store.write(vec![put(2)], applied(2)).unwrap();
    store.write(vec![put(3)], applied(3)).unwrap();

    let counter = Counter::new();
    let waker = Waker::from(Arc::clone(&counter));
    {
        let mut abandoned = pin!(store.room());
        assert_eq!(abandoned.as_mut().poll(&mut Context::from_waker(&waker)), Poll::Pending);
    }
    let mut room = pin!(store.room());
    assert_eq!(room.as_mut().poll(&mut Context::from_waker(&waker)), Poll::Pending);
    assert_eq!(counter.woken.load(Ordering::SeqCst), 0);
    drop(held);
    block_on(room).unwrap();
    block_on(store.room()).unwrap();
}

/// A sync covers everything written before it and says how far that is.
#[test]
fn a_sync_says_what_it_covers() {
    let events = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&events);
    let (store, _dir) = fresh_with(Arc::new(move |event| heard.lock().unwrap().push(event)));
    assert_eq!(store.sync().unwrap(), None, "nothing was ever written");
    store.write(vec![put(1)], applied(1)).unwrap();
    store.write(vec![put(2)], applied(2)).unwrap();
    let (sender, receiver) = channel();
    store.sync_then(Box::new(move |outcome| sender.send(outcome).unwrap()));
    assert_eq!(receiver.recv().unwrap().unwrap(), Some(applied(2)));
    assert_eq!(store.sync().unwrap(), Some(applied(2)));
    let events = events.lock().unwrap();
    assert!(events.iter().any(|event| matches!(event, StoreEvent::Synced { .. })));
    assert!(events.iter().any(|event| matches!(event, StoreEvent::Committed { bytes, .. } if *bytes > 0)));
}

/// Small state: the newest word counts, whether pending or committed; the store's own key never shows.
#[test]
fn small_state_is_kept_by_prefix() {
    let (store, _dir) = fresh();
    store
        .write(vec![set("a/1", Some("x")), set("a/2", Some("y")), set("b/1", Some("z"))], applied(1))
        .unwrap();
    store.settled().wait().unwrap();
    store.write(vec![set("a/1", None), set("a/3", Some("w")), set("b/1", Some("zz"))], applied(2)).unwrap();
    let shown = |prefix: &[u8]| {
        let text = |bytes: Bytes| String::from_utf8(bytes.to_vec()).unwrap();
        store
            .meta(prefix)
            .unwrap()
            .into_iter()
            .map(|(key, value)| text(key) + "=" + &text(value))
            .collect::<Vec<_>>()
    };
    for _ in ["pending", "committed"] {
        assert_eq!(shown(b"a/"), ["a/2=y", "a/3=w"]);
        assert_eq!(shown(b""), ["a/2=y", "a/3=w", "b/1=zz"]);
        store.settled().wait().unwrap();
    }
}

/// Closing the store commits what was written, without being asked.
#[test]
fn closing_leaves_nothing_behind() {
    let (store, dir) = fresh();
    for main in 1..=100 {
        store.write(vec![put(main)], applied(main as u64)).unwrap();
    }
    drop(store);
    let store = open(dir.path());
    assert_eq!(store.applied(), Some(applied(100)));
    assert_eq!(mains(&store), (1..=100).collect::<Vec<_>>());
    assert!(store.figures().size_on_disk > 0);
}

/// Records hold what clients store, and small state may hold password hashes: nobody else may look in.
#[test]
fn what_is_stored_is_private() {
    let parent = TempDir::new().unwrap();
    let dir = parent.path().join("made/here");
    let _store = open(&dir);
    assert_eq!(std::fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);
}

/// Dropped records give their space back when asked; what is left stays readable meanwhile and after.
#[test]
fn dropped_records_give_space_back() {
    let (sender, receiver) = channel();
    let (store, _dir) = fresh_with(Arc::new(move |event| drop(sender.send(event))));
    let large = |main: i64| Bytes::from((0..1000).map(|byte| (byte * main % 251) as u8).collect::<Vec<_>>());
    for main in 1..=8000 {
        store
            .write(
                vec![tenure_state::Write::Record { at: place(main), bytes: large(main) }],
                applied(main as u64),
            )
            .unwrap();
    }
    store.write((1..=8000).filter(|main| main % 10 != 0).map(remove).collect(), applied(8001)).unwrap();
    store.settled().wait().unwrap();
    store.compact_disk().unwrap();
    store.compact_disk().unwrap();
    let reclaimed = receiver
        .iter()
        .find(|event| matches!(event, StoreEvent::Reclaimed { .. } | StoreEvent::ReclaimFailed(_)));
    let Some(StoreEvent::Reclaimed { before, after, .. }) = reclaimed else { panic!("{reclaimed:?}") };
    assert!(after < before / 4, "{before} -> {after}");
    assert_eq!(mains(&store), (1..=800).map(|tenth| tenth * 10).collect::<Vec<_>>());
    assert_eq!(store.record(place(8000)).unwrap(), Some(large(8000)));
}
