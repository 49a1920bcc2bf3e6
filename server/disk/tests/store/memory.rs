//! The store in memory behaves as the one on disk does, at once; and a power cut leaves a prefix that holds what was synced.

use tenure_disk::store::{Memory, Store, StoreOptions};

use crate::fixture::*;

fn in_memory(memory: &Memory) -> Store {
    Store::in_memory(memory, StoreOptions::default())
}

#[test]
fn what_is_written_is_there_and_settled_at_once() {
    let memory = Memory::default();
    let store = in_memory(&memory);
    store.write(vec![put(1), put(2), set("a", Some("x"))], applied(1)).unwrap();
    store.write(vec![put(3), remove(1)], applied(2)).unwrap();
    assert_eq!(store.figures().pending_batches, 0);
    block_on(store.room()).unwrap();
    block_on(store.settled()).unwrap();
    store.settled().wait().unwrap();
    assert_eq!(mains(&store), [2, 3]);
    assert_eq!(store.meta(b"").unwrap().len(), 1);
    let snapshot = store.snapshot().unwrap();
    store.write(vec![put(4)], applied(3)).unwrap();
    assert_eq!((snapshot.records().count(), snapshot.meta().count()), (2, 1));
    assert_eq!(snapshot.applied(), Some(&applied(2)));
    assert_eq!(store.sync().unwrap(), Some(applied(3)));
    store.compact_disk().unwrap();
    drop(store);
    assert_eq!(mains(&in_memory(&memory)), [2, 3, 4]);
}

#[test]
fn a_power_cut_leaves_what_was_synced_and_a_prefix_of_the_rest() {
    for kept in 0..=3 {
        let memory = Memory::default();
        let store = in_memory(&memory);
        store.write(vec![put(1)], applied(1)).unwrap();
        store.sync().unwrap();
        for main in 2..=4 {
            store.write(vec![put(main)], applied(main as u64)).unwrap();
        }
        assert_eq!(memory.unsynced(), 3);
        memory.cut_power(kept);
        assert!(store.write(vec![put(9)], applied(9)).is_err(), "the store was open when the power went");
        assert!(store.sync().is_err() && store.snapshot().is_err());
        drop(store);
        let store = in_memory(&memory);
        assert_eq!(store.applied(), Some(applied(1 + kept as u64)));
        assert_eq!(mains(&store), (1..=1 + kept as i64).collect::<Vec<_>>());
    }
}

#[test]
fn an_install_replaces_everything_durably() {
    let memory = Memory::default();
    let store = in_memory(&memory);
    store.write(vec![put(1), set("old", Some("x"))], applied(1)).unwrap();
    drop(store.begin_install().unwrap());
    let mut installer = store.begin_install().unwrap();
    installer.record(place(5), record(5)).unwrap();
    assert!(installer.record(place(4), record(4)).is_err());
    assert!(store.begin_install().is_err());
    installer.finish(applied(7)).unwrap();
    assert_eq!((mains(&store), store.meta(b"").unwrap().len()), (vec![5], 0));
    memory.cut_power(0);
    let store = in_memory(&memory);
    assert_eq!((mains(&store), store.applied()), (vec![5], Some(applied(7))));
}
