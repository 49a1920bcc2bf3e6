//! etcd's lines: one at the front, in the order of coming, whoever goes meanwhile; who waits learns at once that he waits no more; and an
//! observer misses no leader.

#![allow(clippy::unwrap_used)]

mod support;

use std::cell::RefCell;
use std::rc::Rc;

use bytes::Bytes;
use proptest::prelude::*;
use support::{Fault, Started, Store, Tasks, run};
use tenure_proto::etcdserverpb::DeleteRangeRequest;
use tenure_recipes::etcd::election::{self, Observer};
use tenure_recipes::etcd::line::{self, Place, Turn};
use tenure_recipes::etcd::lock;
use tenure_recipes::{Failure, Primitives};
use tenure_state::LeaseId;

type Waiting = Started<Result<(Place, Turn), Failure>>;

fn grant(store: &Store, lease: i64) {
    let store = store.clone();
    run(async move { store.grant(lease, 30).await }).unwrap();
}

/// A call that takes a lease's place and waits.
fn wait(store: &Store, tasks: &mut Tasks, lease: i64) -> Waiting {
    let store = store.clone();
    tasks.start(async move {
        let place = line::enter(&store, "l".into(), lease, lease.to_string().into()).await?;
        let turn = line::wait(&store, &place).await?;
        Ok((place, turn))
    })
}

/// Somebody new.
fn come(store: &Store, tasks: &mut Tasks, lease: i64) -> Waiting {
    grant(store, lease);
    wait(store, tasks, lease)
}

fn front(waiting: &Waiting) -> Place {
    match waiting.done() {
        Ok((place, Turn::Front { .. })) => place,
        other => panic!("{other:?}"),
    }
}

fn unlock(store: &Store, key: Bytes) {
    let store = store.clone();
    run(async move { lock::unlock(&store, key).await }).unwrap();
}

#[test]
fn keys_are_named_as_etcds_clients_name_them() {
    assert_eq!(line::key(b"l", 0x3cee_a1fc), Bytes::from("l/3ceea1fc"));
    assert_eq!(line::key(b"", -0x2a), Bytes::from("/-2a"));
    assert_eq!(line::key(b"a", i64::MIN), Bytes::from("a/-8000000000000000"));
    assert_eq!(line::keys(b"a"), (Bytes::from("a/"), Bytes::from("a0")));
}

#[test]
fn each_goes_when_the_one_before_him_has_gone() {
    let (store, mut tasks) = (Store::default(), Tasks::default());
    let line: Vec<Waiting> = (1..=20).map(|lease| come(&store, &mut tasks, lease)).collect();
    tasks.settle();
    let mut last = 0;
    for (number, waiting) in line.iter().enumerate() {
        let place = front(waiting);
        assert!(place.create_revision > last);
        last = place.create_revision;
        let told = store.calls().changes;
        unlock(&store, place.key);
        tasks.settle();
        assert_eq!(store.calls().changes - told, usize::from(number < 19), "one is woken, and no more");
    }
}

/// etcd 3.4 tells such a waiter that he holds the lock, and later ones only when all before him have left.
#[test]
fn who_loses_his_lease_while_waiting_is_told_at_once() {
    let (store, mut tasks) = (Store::default(), Tasks::default());
    let line: Vec<Waiting> = (1..=3).map(|lease| come(&store, &mut tasks, lease)).collect();
    tasks.settle();
    store.expire(2);
    tasks.settle();
    assert_eq!(line[1].done().unwrap().1, Turn::Gone);
    assert!(!line[2].is_done(), "who is behind him is not at the front for that");
    unlock(&store, front(&line[0]).key);
    tasks.settle();
    front(&line[2]);
}

#[test]
fn who_goes_together_with_the_one_before_him_holds_nothing() {
    let (store, mut tasks) = (Store::default(), Tasks::default());
    let first = come(&store, &mut tasks, 1);
    let second = come(&store, &mut tasks, 2);
    tasks.settle();
    store.with(|solo| {
        let all =
            DeleteRangeRequest { key: "l/".into(), range_end: "l0".into(), ..DeleteRangeRequest::default() };
        solo.delete_range(&all).unwrap();
    });
    tasks.settle();
    front(&first);
    assert_eq!(second.done().unwrap().1, Turn::Gone);
}

#[test]
fn a_second_call_of_a_lease_stands_where_the_first_does() {
    let (store, mut tasks) = (Store::default(), Tasks::default());
    let first = come(&store, &mut tasks, 1);
    let second = come(&store, &mut tasks, 2);
    tasks.settle();
    let repeat = wait(&store, &mut tasks, 2);
    tasks.settle();
    unlock(&store, front(&first).key);
    tasks.settle();
    let (first, repeat) = (front(&second), front(&repeat));
    assert_eq!(first.create_revision, repeat.create_revision);
    assert_eq!((first.fresh, repeat.fresh), (true, false));
    assert_eq!(repeat.value, Bytes::from("2"));
}

#[test]
fn a_lost_answer_takes_no_second_place() {
    for fault in [Fault::ReplyLost, Fault::RequestLost] {
        let (store, mut tasks) = (Store::default(), Tasks::default());
        store.on_txn(0, fault);
        let waiting = come(&store, &mut tasks, 1);
        tasks.settle();
        assert!(front(&waiting).fresh, "{fault:?}");
        assert_eq!(store.keys(b"l/").len(), 1);
    }
}

#[test]
fn a_compaction_under_those_who_wait_changes_nothing() {
    let (store, mut tasks) = (Store::default(), Tasks::default());
    let line: Vec<Waiting> = (1..=3).map(|lease| come(&store, &mut tasks, lease)).collect();
    tasks.settle();
    unlock(&store, front(&line[0]).key);
    unlock(&store, line::key(b"l", 2));
    store.compact(store.revision());
    tasks.settle();
    assert_eq!(line[1].done().unwrap().1, Turn::Gone);
    front(&line[2]);
}

#[test]
fn only_the_own_place_is_given_up() {
    let (store, mut tasks) = (Store::default(), Tasks::default());
    let waiting = come(&store, &mut tasks, 1);
    tasks.settle();
    let old = front(&waiting);
    unlock(&store, old.key.clone());
    let again = wait(&store, &mut tasks, 1);
    tasks.settle();
    let again = front(&again);
    for (place, left) in [(old, 1), (again, 0)] {
        let leaving = store.clone();
        run(async move { line::leave(&leaving, &place.key, place.create_revision).await }).unwrap();
        assert_eq!(store.keys(b"l/").len(), left);
    }
}

#[test]
fn only_who_has_the_key_proclaims_and_it_stays_on_its_lease() {
    let (store, mut tasks) = (Store::default(), Tasks::default());
    let waiting = come(&store, &mut tasks, 1);
    tasks.settle();
    let place = front(&waiting);
    let proclaim = |created| {
        let (store, key) = (store.clone(), place.key.clone());
        run(async move { election::proclaim(&store, &key, created, "new".into()).await }).unwrap()
    };
    assert_eq!(proclaim(place.create_revision + 1), None);
    assert!(proclaim(place.create_revision).is_some());
    let kept = &store.keys(b"l/")[0];
    assert_eq!((&kept.value[..], kept.lease), (&b"new"[..], 1));
    let asking = store.clone();
    let (leader, _) = run(async move { election::leader(&asking, b"l").await }).unwrap();
    assert_eq!(leader.as_ref(), Some(kept));
}

/// The values that an observer is told, for as long as it waits.
fn observe(store: &Store, tasks: &mut Tasks) -> Rc<RefCell<Vec<String>>> {
    let told = Rc::new(RefCell::new(Vec::new()));
    let (store, telling) = (store.clone(), told.clone());
    tasks.start(async move {
        let mut observer = Observer::begin(store, "l".into()).await.unwrap();
        while let Ok((leader, _)) = observer.next().await {
            telling.borrow_mut().push(String::from_utf8(leader.value.to_vec()).unwrap());
        }
    });
    told
}

/// etcd's observer follows one key at a time and looks anew in between: it misses those who lead meanwhile, and takes whoever puts a
/// key first for the leader.
#[test]
fn an_observer_misses_no_leader_and_takes_no_candidate_for_one() {
    let (store, mut tasks) = (Store::default(), Tasks::default());
    let told = observe(&store, &mut tasks);
    tasks.settle();
    assert!(told.borrow().is_empty());
    let enter = |lease: i64| {
        grant(&store, lease);
        let store = store.clone();
        run(async move { line::enter(&store, "l".into(), lease, lease.to_string().into()).await }).unwrap()
    };
    // All of it happens before the observer looks again.
    let first = enter(1);
    for lease in 2..=4 {
        enter(lease);
    }
    let proclaiming = store.clone();
    run(async move {
        election::proclaim(&proclaiming, &first.key, first.create_revision, "1 again".into()).await
    })
    .unwrap();
    for lease in [3, 1, 2, 4] {
        store.expire(lease);
    }
    enter(5);
    tasks.settle();
    assert_eq!(*told.borrow(), ["1", "1 again", "2", "4", "5"]);
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Come(i64),
    Expire(i64),
    Unlock(usize),
    Compact,
    Settle,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1..30i64).prop_map(Step::Come),
        2 => (1..30i64).prop_map(Step::Expire),
        3 => (0..4usize).prop_map(Step::Unlock),
        1 => Just(Step::Compact),
        4 => Just(Step::Settle),
    ]
}

/// Whoever is told that it is his turn was at the front at that revision, and when all is quiet the one at the front was told so.
fn the_line_is_what_the_keys_say(steps: Vec<Step>) {
    let (store, mut tasks) = (Store::default(), Tasks::default());
    let (mut waiting, mut told): (Vec<Waiting>, Vec<i64>) = (Vec::new(), Vec::new());
    for step in steps.into_iter().chain([Step::Settle]) {
        match step {
            Step::Come(lease) => {
                if store.with(|solo| solo.machine().leases().get(LeaseId(lease)).is_none()) {
                    waiting.push(come(&store, &mut tasks, lease));
                }
            }
            Step::Expire(lease) => store.expire(lease),
            Step::Unlock(number) => {
                if let Some(kv) = store.keys(b"l/").get(number) {
                    unlock(&store, kv.key.clone());
                }
            }
            Step::Compact => {
                if store.with(|solo| solo.machine().compacted() < solo.machine().revision()) {
                    store.compact(store.revision());
                }
            }
            Step::Settle => {
                tasks.settle();
                waiting.retain(|waiting| match waiting.result() {
                    None => true,
                    Some(Ok((place, Turn::Front { revision }))) => {
                        assert!(revision >= place.create_revision);
                        if place.fresh {
                            told.push(place.create_revision);
                        } else {
                            // A lease that ended and was granted again before its first call ran: both calls stand in one place.
                            assert!(
                                told.contains(&place.create_revision),
                                "a repeat is told what the first call was"
                            );
                        }
                        false
                    }
                    Some(Ok((_, Turn::Gone)) | Err(Failure::LeaseUnknown)) => false,
                    Some(Err(failure)) => panic!("{failure}"),
                });
                if let Some(front) = store.keys(b"l/").iter().map(|kv| kv.create_revision).min() {
                    assert!(told.contains(&front), "{front} is at the front and waits in vain");
                }
                assert!(told.is_sorted_by(|a, b| a < b), "tokens rise in the order of grants: {told:?}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_one_is_at_the_front_and_knows_it(steps in prop::collection::vec(step(), 1..60)) {
        the_line_is_what_the_keys_say(steps);
    }
}
