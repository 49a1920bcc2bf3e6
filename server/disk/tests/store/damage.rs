//! Damaged stores: refused with a cause and a remedy, or broken for good once the damage is met; never a panic.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tempfile::TempDir;
use tenure_disk::store::{OpenError, Store, StoreEvent, StoreOptions};
use tenure_state::{Records, Write};

use crate::fixture::*;

fn files_below(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}

/// A closed store whose records 1..=`last` lie in tables.
fn written_as_tables(last: i64) -> TempDir {
    let (sender, receiver) = channel();
    let (store, dir) = fresh_with(Arc::new(move |event| drop(sender.send(event))));
    let long = |main| Write::Record { at: place(main), bytes: vec![main as u8; 1000].into() };
    store.write((1..=last).map(long).collect(), applied(1)).unwrap();
    store.settled().wait().unwrap();
    store.compact_disk().unwrap();
    assert!(receiver.iter().any(|event| matches!(event, StoreEvent::Reclaimed { .. })));
    dir
}

fn refusal(dir: &Path) -> OpenError {
    let error = Store::open(dir, options()).unwrap_err();
    let text = error.to_string();
    assert!(text.contains(dir.to_str().unwrap()) && text.lines().count() == 1, "{text}");
    error
}

/// A page of the journal that reached the disk as zeroes, with a later page there: what power loss may leave. The store
/// says that it can be rebuilt, and once set aside a new one opens.
#[test]
fn a_torn_journal_is_rebuildable() {
    let parent = TempDir::new().unwrap();
    let dir = parent.path().join("store");
    let store = open(&dir);
    store.write((1..=100).map(put).collect(), applied(1)).unwrap();
    drop(store);
    let journal =
        files_below(&dir).into_iter().find(|path| path.extension().is_some_and(|end| end == "jnl")).unwrap();
    let mut bytes = fs::read(&journal).unwrap();
    let at = bytes.windows(9).position(|window| window == b"record 50").unwrap();
    bytes[at..at + 9].fill(0);
    fs::write(&journal, bytes).unwrap();

    assert!(matches!(refusal(&dir), OpenError::Rebuildable { .. }));
    assert!(matches!(refusal(&dir), OpenError::Rebuildable { .. }), "asking again changes nothing");
    let aside = Store::set_aside(&dir).unwrap();
    assert_eq!(aside, parent.path().join("store.aside"));
    let store = open(&dir);
    assert_eq!(store.applied(), None);
    assert!(matches!(Store::set_aside(&dir).unwrap_err(), OpenError::Locked { .. }), "not while it is open");
    drop(store);
    Store::set_aside(&dir).unwrap();
    assert!(
        matches!(Store::open(&aside, options()).map(|store| store.applied()), Ok(None)),
        "only the newest is kept"
    );
}

/// The end of the journal missing: the store opens with a prefix and says which.
#[test]
fn a_cut_journal_is_a_prefix() {
    let (store, dir) = fresh();
    for main in 1..=100 {
        store.write(vec![put(main)], applied(main as u64)).unwrap();
        store.settled().wait().unwrap();
    }
    drop(store);
    let journal = files_below(dir.path())
        .into_iter()
        .find(|path| path.extension().is_some_and(|end| end == "jnl"))
        .unwrap();
    let bytes = fs::read(&journal).unwrap();
    let at = bytes.windows(9).position(|window| window == b"record 70").unwrap();
    fs::write(&journal, &bytes[..at + 4]).unwrap();
    let store = open(dir.path());
    assert_eq!(store.applied(), Some(applied(69)));
    assert_eq!(mains(&store), (1..=69).collect::<Vec<_>>());
}

#[test]
fn one_process_at_a_time() {
    let (_store, dir) = fresh();
    assert!(matches!(refusal(dir.path()), OpenError::Locked { .. }));
}

/// Without CURRENT, or with nonsense in it, nothing is guessed and nothing removed.
#[test]
fn a_lost_current_is_not_guessed() {
    let (store, dir) = fresh();
    store.write(vec![put(1)], applied(1)).unwrap();
    drop(store);
    let current = dir.path().join("CURRENT");
    for nonsense in
        [&b""[..], b"state-0000", b"state-7\n", b"../state-0000\n", b"\xff\xfe\n", b"state-0007\n"]
    {
        fs::write(&current, nonsense).unwrap();
        assert!(matches!(refusal(dir.path()), OpenError::Rebuildable { .. }), "{nonsense:?}");
    }
    fs::remove_file(&current).unwrap();
    assert!(matches!(refusal(dir.path()), OpenError::Rebuildable { .. }));
    fs::write(&current, b"state-0000\n").unwrap();
    assert_eq!(mains(&open(dir.path())), [1]);
}

/// A crash while the very first database was being made: there is no CURRENT, and what lies there is known to be empty.
#[test]
fn an_unfinished_first_database_is_made_anew() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("state-0000.unfinished"), b"").unwrap();
    fs::create_dir_all(dir.path().join("state-0000")).unwrap();
    fs::write(dir.path().join("state-0000/0.jnl"), b"half").unwrap();
    let store = open(dir.path());
    store.write(vec![put(1)], applied(1)).unwrap();
    drop(store);
    assert!(!dir.path().join("state-0000.unfinished").exists());
    assert_eq!(mains(&open(dir.path())), [1]);
}

/// A file missing from the database is damage, whichever it is.
#[test]
fn a_missing_file_is_rebuildable() {
    for file in ["version", "keyspaces/0/current", "keyspaces/1/tables"] {
        let dir = written_as_tables(1);
        let path = dir.path().join("state-0000").join(file);
        if path.is_dir() {
            fs::remove_dir_all(path).unwrap()
        } else {
            fs::remove_file(path).unwrap()
        }
        assert!(matches!(refusal(dir.path()), OpenError::Rebuildable { .. }), "{file}");
    }
}

/// A bad block in a table: the read that meets it fails, and from then on everything does, with the same words.
#[test]
fn a_bad_block_breaks_the_store() {
    let last = 4000;
    let dir = written_as_tables(last);
    let records = dir.path().join("state-0000/keyspaces/1/tables");
    for table in files_below(&records) {
        let mut bytes = fs::read(&table).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle..middle + 5000].fill(b'!');
        fs::write(&table, bytes).unwrap();
    }

    let events = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&events);
    let observer = Arc::new(move |event| heard.lock().unwrap().push(event));
    let store = Store::open(dir.path(), StoreOptions { observer, ..options() }).unwrap();
    let mut ahead = store.snapshot().unwrap().records_ahead().unwrap();
    let mut scan = store.scanner(FIRST, END).unwrap();
    let fatal = ahead.find_map(Result::err).unwrap();
    assert!(ahead.next().is_none(), "nor is what was read ahead taken for all there is");
    assert_eq!(scan.find_map(Result::err).as_ref(), Some(&fatal));
    assert!(fatal.0.contains("state-0000") && fatal.0.lines().count() == 1, "{fatal}");
    assert!(scan.next().is_none(), "a scan ends after its error");

    assert_eq!(store.health(), Err(fatal.clone()));
    assert_eq!(store.write(vec![put(last + 1)], applied(9999)), Err(fatal.clone()));
    assert_eq!(store.record(place(1)), Err(fatal.clone()));
    assert_eq!(store.meta(b"").unwrap_err(), fatal);
    assert_eq!(block_on(store.room()), Err(fatal.clone()));
    assert_eq!(block_on(store.settled()), Err(fatal.clone()));
    assert_eq!(store.settled().wait(), Err(fatal.clone()));
    assert_eq!(store.sync(), Err(fatal.clone()));
    assert_eq!(store.snapshot().map(drop), Err(fatal.clone()));
    let broken = events.lock().unwrap().iter().filter(|event| matches!(event, StoreEvent::Broken(_))).count();
    assert_eq!(broken, 1);
}

/// Tables can no longer be written, as on a full disk: whoever writes on hears of it and does not wait for good.
#[test]
fn a_disk_that_takes_no_tables_breaks_the_store() {
    let (store, dir) = fresh();
    fs::remove_dir_all(dir.path().join("state-0000/keyspaces/1/tables")).unwrap();
    let fatal = (1..=10_000).find_map(|main| {
        let write = Write::Record { at: place(main), bytes: vec![b'x'; 10_000].into() };
        block_on(store.room()).and_then(|()| store.write(vec![write], applied(main as u64))).err()
    });
    let fatal = fatal.unwrap();
    assert_eq!(store.health(), Err(fatal.clone()));
    assert_eq!(store.settled().wait(), Err(fatal));
}

/// Small state under the key that the store keeps for itself would be lost at the next commit: a bug, so the store stops.
#[test]
fn the_stores_own_key_is_refused() {
    let (store, _dir) = fresh();
    store
        .write(
            vec![Write::Meta { key: Bytes::from_static(b"applied"), value: Some(Bytes::new()) }],
            applied(1),
        )
        .unwrap();
    assert!(store.settled().wait().is_err());
    assert!(store.health().is_err());
}
