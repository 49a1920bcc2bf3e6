//! Replacing the store by a snapshot: all of it or nothing, whatever happens in between, with readers undisturbed.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tenure_disk::store::Store;
use tenure_state::{Records, Write};

use crate::fixture::*;

fn databases(dir: &Path) -> Vec<String> {
    let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.filter(|name| name.starts_with("state-")).collect();
    names.sort();
    names
}

/// Waits until only `names` are left: whoever was last to use the old database removes it, and that may be another thread.
fn await_databases(dir: &Path, names: &[&str]) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while databases(dir) != names {
        assert!(Instant::now() < deadline, "{:?}", databases(dir));
        thread::yield_now();
    }
}

/// Fills an installer with the records 101..=`last` and two pieces of small state.
fn install(store: &Store, last: i64) {
    let mut installer = store.begin_install().unwrap();
    installer.meta(Bytes::from_static(b"alarm"), Bytes::from_static(b"1")).unwrap();
    for main in 101..=last {
        installer.record(place(main), record(main)).unwrap();
    }
    installer.meta(Bytes::from_static(b"user"), Bytes::from_static(b"2")).unwrap();
    installer.finish(applied(500)).unwrap();
}

/// Everything of before is gone, everything sent is there, writes go on on top of it, and so it stays after a restart.
#[test]
fn an_install_replaces_everything() {
    let (store, dir) = fresh();
    store.write((1..=50).map(put).chain([set("old", Some("x"))]).collect(), applied(1)).unwrap();
    assert_eq!(store.record(place(1)).unwrap(), Some(record(1)));
    install(&store, 30_000);

    let check = |store: &Store, last: i64, index: u64| {
        assert_eq!(mains(store), (101..=last).collect::<Vec<_>>());
        assert_eq!(store.record(place(1)).unwrap(), None);
        assert_eq!(store.record(place(777)).unwrap(), Some(record(777)));
        assert_eq!(store.meta(b"").unwrap().len(), 2);
        assert_eq!(store.applied(), Some(applied(index)));
    };
    check(&store, 30_000, 500);
    assert_eq!(store.snapshot().unwrap().applied(), Some(&applied(500)));
    assert_eq!(store.sync().unwrap(), Some(applied(500)));
    store.write(vec![put(30_001)], applied(501)).unwrap();
    check(&store, 30_001, 501);
    store.settled().wait().unwrap();
    check(&store, 30_001, 501);
    drop(store);
    assert_eq!(databases(dir.path()), ["state-0001"]);
    check(&open(dir.path()), 30_001, 501);
}

/// An empty snapshot is a snapshot.
#[test]
fn an_empty_install_empties_the_store() {
    let (store, dir) = fresh();
    store.write(vec![put(1)], applied(1)).unwrap();
    store.begin_install().unwrap().finish(applied(9)).unwrap();
    assert!(mains(&store).is_empty());
    drop(store);
    let store = open(dir.path());
    assert!(mains(&store).is_empty());
    assert_eq!(store.applied(), Some(applied(9)));
}

/// What is pending when the install takes over belongs to the store that is gone; nobody waits for it in vain.
#[test]
fn an_install_drops_what_is_pending() {
    let gate = Gate::new();
    let (store, _dir) = fresh_with(gate.observer());
    let held = gate.hold(&store, put(1));
    store.write(vec![put(2)], applied(2)).unwrap();
    let settled = store.settled();
    let mut installer = store.begin_install().unwrap();
    installer.record(place(101), record(101)).unwrap();
    installer.finish(applied(500)).unwrap();
    block_on(settled).unwrap();
    assert_eq!(mains(&store), [101]);
    drop(held);
    store.write(vec![put(102)], applied(501)).unwrap();
    store.settled().wait().unwrap();
    assert_eq!(mains(&store), [101, 102]);
    assert_eq!(store.snapshot().unwrap().applied(), Some(&applied(501)));
}

/// Whoever reads from the old store reads it to the end; its files go with the last reader.
#[test]
fn readers_keep_the_old_store() {
    let (store, dir) = fresh();
    for main in 1..=3000 {
        store
            .write(vec![Write::Record { at: place(main), bytes: vec![b'x'; 1000].into() }], applied(1))
            .unwrap();
    }
    store.settled().wait().unwrap();
    let snapshot = store.snapshot().unwrap();
    let mut scan = store.scanner(FIRST, END).unwrap();
    assert_eq!(scan.next().unwrap().unwrap().0, place(1));
    install(&store, 200);
    assert_eq!(databases(dir.path()), ["state-0000", "state-0001"]);
    assert_eq!(scan.filter(Result::is_ok).count(), 2999);
    assert_eq!(snapshot.records().filter(Result::is_ok).count(), 3000);
    drop(snapshot);
    await_databases(dir.path(), &["state-0001"]);
    store.health().unwrap();
}

/// Given up half-way, or fed nonsense: the store is as it was, and nothing lies about.
#[test]
fn an_abandoned_install_leaves_nothing() {
    let (store, dir) = fresh();
    store.write(vec![put(1)], applied(1)).unwrap();
    let mut installer = store.begin_install().unwrap();
    assert!(store.begin_install().is_err(), "one at a time");
    for main in 101..=20_000 {
        installer.record(place(main), record(main)).unwrap();
    }
    assert!(installer.record(place(20_000), record(1)).is_err());
    assert!(installer.record(place(5), record(5)).is_err());
    installer.meta(Bytes::from_static(b"b"), Bytes::new()).unwrap();
    assert!(installer.meta(Bytes::from_static(b"a"), Bytes::new()).is_err());
    assert!(installer.meta(Bytes::from_static(b"applied"), Bytes::new()).is_err());
    drop(installer);
    assert_eq!(databases(dir.path()), ["state-0000"]);
    assert_eq!(mains(&store), [1]);
    install(&store, 110);
    install(&store, 120);
    await_databases(dir.path(), &["state-0002"]);
}

/// A crash before the switch leaves a half-filled database beside the live one: it is removed, the old store stays.
/// A crash after the switch leaves the old one: likewise.
#[test]
fn a_crash_during_an_install_leaves_one_of_the_two() {
    let (store, dir) = fresh();
    store.write(vec![put(1)], applied(1)).unwrap();
    drop(store);
    fs::create_dir_all(dir.path().join("state-0001/keyspaces")).unwrap();
    fs::write(dir.path().join("state-0001/0.jnl"), b"half").unwrap();
    fs::write(dir.path().join("CURRENT.tmp"), b"state-00").unwrap();
    let store = open(dir.path());
    assert_eq!(mains(&store), [1]);
    assert_eq!(databases(dir.path()), ["state-0000"]);
    assert!(!dir.path().join("CURRENT.tmp").exists());

    install(&store, 110);
    drop(store);
    fs::create_dir_all(dir.path().join("state-0000/keyspaces")).unwrap();
    let store = open(dir.path());
    assert_eq!(mains(&store), (101..=110).collect::<Vec<_>>());
    assert_eq!(databases(dir.path()), ["state-0001"]);
}
