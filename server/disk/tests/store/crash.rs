//! What a crash leaves: always a prefix of what was written, whole batches, with the `applied` that says which.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;

use bytes::Bytes;
use tempfile::TempDir;
use tenure_disk::store::{Store, StoreOptions};
use tenure_state::Write;

use crate::fixture::*;

/// Tells the child process of a test where to write.
const DIRECTORY: &str = "STORE_CRASH_DIRECTORY";

/// Batch `index` puts three records, drops some older one, and notes itself in the small state.
fn batch(index: u64) -> Vec<Write> {
    let main = index as i64;
    let put = |sub| Write::Record {
        at: tenure_state::Place { main, sub, tombstone: false },
        bytes: vec![index as u8; 500].into(),
    };
    let note = Write::Meta { key: Bytes::from_static(b"note"), value: Some(applied(index)) };
    let mut writes = vec![put(0), put(1), put(2), note];
    if index.is_multiple_of(3) {
        writes
            .push(Write::DropRecord { at: tenure_state::Place { main: main / 3, sub: 1, tombstone: false } });
    }
    writes
}

/// How many batches the store holds, after checking that it holds exactly the effect of so many.
fn check_prefix(store: &Store) -> u64 {
    let Some(text) = store.applied() else {
        assert!(mains(store).is_empty());
        return 0;
    };
    let index: u64 = std::str::from_utf8(&text).unwrap().parse().unwrap();
    assert_eq!(store.meta(b"note").unwrap(), [(Bytes::from_static(b"note"), text)]);
    let dropped = |main: i64, sub: u32| sub == 1 && main as u64 * 3 <= index;
    let expected = (1..=index as i64).flat_map(|main| [0, 1, 2].map(|sub| (main, sub)));
    let expected = expected.filter(|(main, sub)| !dropped(*main, *sub)).collect::<Vec<_>>();
    let mut seen = Vec::new();
    for item in store.scanner(FIRST, END).unwrap() {
        let (place, record) = item.unwrap();
        assert_eq!(record, vec![place.main as u8; 500]);
        seen.push((place.main, place.sub));
    }
    assert!(seen == expected, "{index} batches, {} records for {}", seen.len(), expected.len());
    index
}

/// Not a test of its own: the process that [`a_killed_process_leaves_a_prefix`] kills. Writes for ever, syncs now and
/// then, and says in a file which batch it has synced.
#[test]
fn child_writes_until_killed() {
    let Some(dir) = std::env::var_os(DIRECTORY) else { return };
    let dir = Path::new(&dir);
    let store = open(&dir.join("store"));
    let mut index = check_prefix(&store);
    loop {
        index += 1;
        block_on(store.room()).unwrap();
        store.write(batch(index), applied(index)).unwrap();
        if index.is_multiple_of(400) {
            let synced = store.sync().unwrap().unwrap();
            fs::write(dir.join("synced.tmp"), synced).unwrap();
            fs::rename(dir.join("synced.tmp"), dir.join("synced")).unwrap();
        }
    }
}

fn spawn_child(dir: &Path) -> Child {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "crash::child_writes_until_killed", "--test-threads=1"]).env(DIRECTORY, dir);
    child.stdout(Stdio::null()).spawn().unwrap()
}

fn synced(dir: &Path) -> u64 {
    fs::read_to_string(dir.join("synced")).map_or(0, |text| text.parse().unwrap())
}

/// Killed without warning, several times over the same directory, with tables being written and merged meanwhile.
#[test]
fn a_killed_process_leaves_a_prefix() {
    let dir = TempDir::new().unwrap();
    for _round in 0..4 {
        let before = synced(dir.path());
        let mut child = spawn_child(dir.path());
        while synced(dir.path()) < before + 1200 {
            assert!(child.try_wait().unwrap().is_none(), "the child ended by itself");
            thread::yield_now();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let store = open(&dir.path().join("store"));
        let index = check_prefix(&store);
        assert!(index >= synced(dir.path()), "{index} is short of what was synced");
    }
}

/// The files of a store that is open, as a crash of this moment would leave them. So much memory for tables that none
/// is written meanwhile: a copy takes time, and files that come and go during it are no moment's.
#[test]
fn a_copy_of_an_open_store_opens() {
    let dir = TempDir::new().unwrap();
    let store = Store::open(dir.path(), StoreOptions::default()).unwrap();
    for index in 1..=2000 {
        store.write(batch(index), applied(index)).unwrap();
    }
    store.settled().wait().unwrap();
    let copy = TempDir::new().unwrap();
    copy_all(dir.path(), copy.path());
    assert_eq!(check_prefix(&open(copy.path())), 2000);
    assert_eq!(check_prefix(&store), 2000);
}

fn copy_all(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_all(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}
