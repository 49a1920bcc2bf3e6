//! The store against a map: any sequence of batches, reads, drops, reopenings, installs and commits shows the same.
//! As in life, a place gets at most one record ever.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use proptest::prelude::*;
use tempfile::TempDir;
use tenure_disk::store::{Memory, Store};
use tenure_state::{Place, Records, Write};

use crate::fixture::*;

#[derive(Clone, Debug)]
enum Step {
    Batch(Vec<Change>),
    Settle,
    Sync,
    Reopen,
    Install(Vec<(Place, Bytes)>),
    AbandonInstall,
}

#[derive(Clone, Debug)]
enum Change {
    Put(Place, Bytes),
    Drop(Place),
    Set(Bytes, Bytes),
    Unset(Bytes),
}

#[derive(Default)]
struct Model {
    records: BTreeMap<Place, Bytes>,
    /// Every place that ever had a record.
    used: BTreeSet<Place>,
    meta: BTreeMap<Bytes, Bytes>,
    applied: Option<Bytes>,
}

fn places() -> impl Strategy<Value = Place> {
    (1..12i64, 0..3u32, any::<bool>()).prop_map(|(main, sub, tombstone)| Place { main, sub, tombstone })
}

fn values() -> impl Strategy<Value = Bytes> {
    // Some long enough to be compressed in the journal.
    prop_oneof![9 => 0..40usize, 1 => 4000..9000usize]
        .prop_map(|length| Bytes::from(vec![length as u8; length]))
}

fn keys() -> impl Strategy<Value = Bytes> {
    prop::sample::select(vec!["a", "ab", "applied2", "b"]).prop_map(Bytes::from)
}

fn changes() -> impl Strategy<Value = Change> {
    prop_oneof![
        5 => (places(), values()).prop_map(|(place, value)| Change::Put(place, value)),
        3 => places().prop_map(Change::Drop),
        1 => (keys(), values()).prop_map(|(key, value)| Change::Set(key, value)),
        1 => keys().prop_map(Change::Unset),
    ]
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => prop::collection::vec(changes(), 0..8).prop_map(Step::Batch),
        3 => Just(Step::Settle),
        1 => Just(Step::Sync),
        2 => Just(Step::Reopen),
        1 => prop::collection::btree_map(places(), values(), 0..9).prop_map(|map| Step::Install(map.into_iter().collect())),
        1 => Just(Step::AbandonInstall),
    ]
}

impl Model {
    fn change(&mut self, change: &Change) -> Write {
        match change.clone() {
            Change::Put(at, _) if !self.used.insert(at) => self.change(&Change::Drop(at)),
            Change::Put(at, bytes) => {
                self.records.insert(at, bytes.clone());
                Write::Record { at, bytes }
            }
            Change::Drop(at) => {
                self.records.remove(&at);
                Write::DropRecord { at }
            }
            Change::Set(key, value) => {
                self.meta.insert(key.clone(), value.clone());
                Write::Meta { key, value: Some(value) }
            }
            Change::Unset(key) => {
                self.meta.remove(&key);
                Write::Meta { key, value: None }
            }
        }
    }

    fn check(&self, store: &Store, from: Place, to: Place) -> Result<(), TestCaseError> {
        prop_assert_eq!(store.applied(), self.applied.clone());
        let scanned = store.scanner(FIRST, END).unwrap().map(|item| item.unwrap()).collect::<Vec<_>>();
        let expected = self.records.clone().into_iter().collect::<Vec<_>>();
        prop_assert_eq!(scanned, expected);
        let part = store.scan_chunk(from, to, usize::MAX, usize::MAX).unwrap().records;
        let expected = self.records.iter().filter(|(place, _)| from <= **place && **place < to);
        prop_assert_eq!(part, expected.map(|(place, bytes)| (*place, bytes.clone())).collect::<Vec<_>>());
        for place in [from, to] {
            prop_assert_eq!(store.record(place).unwrap(), self.records.get(&place).cloned());
        }
        let meta = self.meta.iter().filter(|(key, _)| key.starts_with(b"a"));
        let meta = meta.map(|(key, value)| (key.clone(), value.clone())).collect::<Vec<_>>();
        prop_assert_eq!(store.meta(b"a").unwrap(), meta);
        Ok(())
    }
}

fn install(store: &Store, records: &[(Place, Bytes)], applied: Bytes) -> Model {
    let mut installer = store.begin_install().unwrap();
    for (place, bytes) in records {
        installer.record(*place, bytes.clone()).unwrap();
    }
    installer.meta(Bytes::from("ab"), applied.clone()).unwrap();
    installer.finish(applied.clone()).unwrap();
    let meta = BTreeMap::from([(Bytes::from("ab"), applied.clone())]);
    let used = records.iter().map(|(place, _)| *place).collect();
    Model { records: records.iter().cloned().collect(), used, meta, applied: Some(applied) }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, max_shrink_iters: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_store_is_a_map(
        steps in prop::collection::vec((steps(), places(), places()), 1..40),
        in_memory in any::<bool>(),
    ) {
        let (dir, memory) = (TempDir::new().unwrap(), Memory::default());
        let open = || if in_memory { Store::in_memory(&memory, options()) } else { open(dir.path()) };
        let mut store = open();
        let mut model = Model::default();
        for (index, (step, from, to)) in steps.into_iter().enumerate() {
            let index = applied(index as u64);
            match step {
                Step::Batch(changes) => {
                    let writes = changes.iter().map(|change| model.change(change)).collect();
                    store.write(writes, index.clone()).unwrap();
                    model.applied = Some(index);
                }
                Step::Settle => store.settled().wait().unwrap(),
                Step::Sync => prop_assert_eq!(store.sync().unwrap(), model.applied.clone()),
                Step::Reopen => {
                    drop(store);
                    store = open();
                }
                Step::Install(records) => model = install(&store, &records, index),
                Step::AbandonInstall => {
                    let mut installer = store.begin_install().unwrap();
                    installer.record(from, Bytes::new()).unwrap();
                }
            }
            model.check(&store, from, to)?;
        }
    }
}
