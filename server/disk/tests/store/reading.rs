//! Reading in order: backlog and disk merged, drops respected, chunks without gaps, snapshots that do not move.

use std::ops::ControlFlow;

use tenure_state::{Place, Records, Write};

use crate::fixture::*;

/// Half of it committed, half pending, with drops across: a scan shows what reads one by one would.
#[test]
fn a_scan_merges_pending_and_committed() {
    let gate = Gate::new();
    let (store, _dir) = fresh_with(gate.observer());
    store.write((1..=10).map(put).collect(), applied(1)).unwrap();
    store.settled().wait().unwrap();
    let held = gate.hold(&store, put(11));
    store.write(vec![remove(1), remove(5), put(12)], applied(3)).unwrap();
    store.write(vec![remove(12), remove(10), put(13)], applied(4)).unwrap();

    let expected = [2, 3, 4, 6, 7, 8, 9, 11, 13];
    assert_eq!(mains(&store), expected);
    for main in 1..=14 {
        let record = store.record(place(main)).unwrap();
        assert_eq!(record, expected.contains(&main).then(|| crate::fixture::record(main)), "{main}");
    }
    let mut visited = Vec::new();
    let mut visit = |place: Place, bytes: bytes::Bytes| {
        assert_eq!(bytes, record(place.main));
        visited.push(place.main);
        if place.main == 7 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    store.scan(place(3), place(9), &mut visit).unwrap();
    assert_eq!(visited, [3, 4, 6, 7]);
    assert_eq!(store.scanner(place(9), place(3)).unwrap().count(), 0, "an inverted range is empty");
    drop(held);
    store.settled().wait().unwrap();
    assert_eq!(mains(&store), expected);
}

/// Whatever the bounds of a chunk, one after the other they are the whole scan.
#[test]
fn chunks_follow_each_other_without_gap() {
    let gate = Gate::new();
    let (store, _dir) = fresh_with(gate.observer());
    store.write((1..=20).map(put).collect(), applied(1)).unwrap();
    store.settled().wait().unwrap();
    let held = gate.hold(&store, remove(7));
    store.write((21..=30).map(put).collect(), applied(3)).unwrap();
    for (items_max, bytes_max) in
        [(1, 1), (0, 0), (3, usize::MAX), (usize::MAX, 25), (29, usize::MAX), (500, usize::MAX)]
    {
        let mut seen = Vec::new();
        let mut from = Some(FIRST);
        while let Some(start) = from {
            let chunk = store.scan_chunk(start, END, items_max, bytes_max).unwrap();
            assert!(chunk.records.len() <= items_max.max(1));
            seen.extend(chunk.records.iter().map(|(place, _)| place.main));
            from = chunk.next;
        }
        assert_eq!(seen, mains(&store), "{items_max} {bytes_max}");
    }
    let mut scan = store.scanner(FIRST, END).unwrap();
    assert_eq!(scan.chunk(4, usize::MAX).unwrap().next, Some(place(5)));
    assert_eq!(
        scan.chunk(2, usize::MAX).unwrap().records[0].0,
        place(5),
        "the same scan goes on where it stopped"
    );
    drop(held);
}

/// Sub-order and tombstones are places of their own, next to each other.
#[test]
fn places_of_one_revision_stay_in_order() {
    let (store, _dir) = fresh();
    let places = [(5, 0, false), (5, 1, true), (5, 2, false), (6, 0, true)];
    let places = places.map(|(main, sub, tombstone)| Place { main, sub, tombstone });
    let writes = places.iter().rev().map(|at| Write::Record { at: *at, bytes: record(at.main) }).collect();
    store.write(writes, applied(1)).unwrap();
    for _ in ["pending", "committed"] {
        let seen = store.scanner(FIRST, END).unwrap().map(|item| item.unwrap().0).collect::<Vec<_>>();
        assert_eq!(seen, places);
        assert_eq!(store.record(Place { tombstone: true, ..places[0] }).unwrap(), None);
        store.settled().wait().unwrap();
    }
}

/// A record that was read, and so is in the cache, is gone once dropped.
#[test]
fn the_read_cache_forgets_what_is_dropped() {
    let (store, _dir) = fresh();
    store.write(vec![put(1), put(2)], applied(1)).unwrap();
    store.settled().wait().unwrap();
    assert_eq!(store.record(place(1)).unwrap(), Some(record(1)));
    assert_eq!(store.record(place(1)).unwrap(), Some(record(1)));
    store.write(vec![remove(1)], applied(2)).unwrap();
    assert_eq!(store.record(place(1)).unwrap(), None);
    store.settled().wait().unwrap();
    assert_eq!(store.record(place(1)).unwrap(), None);
    assert_eq!(store.record(place(2)).unwrap(), Some(record(2)));
}

/// A snapshot shows the moment it was taken, from another thread and while writes, drops and tables go on; so does a
/// scan that was begun.
#[test]
fn snapshots_and_scans_do_not_move() {
    let (store, _dir) = fresh();
    store.write((1..=1000).map(put).chain([set("key", Some("old"))]).collect(), applied(1)).unwrap();
    store.settled().wait().unwrap();
    let snapshot = store.snapshot().unwrap();
    let begun = store.scanner(FIRST, END).unwrap();
    let ahead = snapshot.records_ahead().unwrap();
    let left = snapshot.records_ahead().unwrap();

    let reader = std::thread::spawn({
        let snapshot = snapshot.clone();
        move || snapshot.records().map(|item| item.unwrap().0.main).collect::<Vec<_>>()
    });
    for main in 1..=1000 {
        let more = Write::Record { at: place(main + 1000), bytes: vec![b'x'; 2000].into() };
        store.write(vec![remove(main), more, set("key", Some("new"))], applied(main as u64 + 1)).unwrap();
    }
    store.settled().wait().unwrap();
    drop(left);
    let everything = (1..=1000).collect::<Vec<_>>();
    assert_eq!(
        ahead.map(|item| item.unwrap()).collect::<Vec<_>>(),
        everything.iter().map(|main| (place(*main), record(*main))).collect::<Vec<_>>()
    );
    assert_eq!(reader.join().unwrap(), everything);
    assert_eq!(snapshot.records().map(|item| item.unwrap().0.main).collect::<Vec<_>>(), everything);
    assert_eq!(begun.map(|item| item.unwrap().0.main).collect::<Vec<_>>(), everything);
    assert_eq!(snapshot.records_between(place(10), place(12)).count(), 2);
    assert_eq!(snapshot.meta().map(|item| item.unwrap()).collect::<Vec<_>>(), [("key".into(), "old".into())]);
    assert_eq!(snapshot.applied(), Some(&applied(1)));
    assert_eq!(mains(&store), (1001..=2000).collect::<Vec<_>>());
}
