//! Every interleaving of three clients who acquire, wait, and release, and of the end of any of their sessions at any moment: nobody
//! ever shares what is exclusive, nobody waits for what is free, nobody is there twice, and whoever lives gets its turn.
//!
//! The long form (TENURE_LONG=1) tears looks apart as well. README.md says how many states that are.

use std::time::Instant;

use prost::Message;
use tenure_proto::etcdserverpb::request_op::Request;
use tenure_proto::etcdserverpb::response_op::Response;
use tenure_proto::etcdserverpb::{PutRequest, RequestOp, TxnRequest};
use tenure_proto::mvccpb::KeyValue;
use tenure_proto::tenure::v1::{LockMode, LockRecord, LockSpec};
use tenure_recipes::lock::{self, Acquired, Waited, Wish};
use tenure_recipes::{Error, Primitives, Reason};

use crate::ground::{Picture, exclusive, owner, permits, root, shared};
use crate::support::explore::{Answer, Ask, Gated, Planted, Rules, Scene, Shelf, explore, finds};

const NAME: &str = "x";

/// Takes its turn and gives it back.
async fn take_a_turn(store: Gated, session: i64, spec: LockSpec) {
    let wish = Wish { locks: vec![spec], owner: owner(session, "o"), ..Wish::default() };
    store.knows(&"its wish");
    let grants = match lock::acquire(&store, &root(), wish, true).await {
        Ok(Acquired::Granted { grants, .. }) => grants,
        Ok(Acquired::Queued(ticket)) => {
            store.knows(&ticket);
            match lock::wait(&store, &root(), &ticket).await.unwrap() {
                Waited::Granted { grants, .. } => grants,
                Waited::Gone { .. } => return,
            }
        }
        Err(Error::Refused(refusal)) if refusal.reason == Reason::SessionGone => return,
        other => panic!("{other:?}"),
    };
    store.knows(&grants[0].token);
    lock::release(&store, &root(), NAME, grants[0].token, Some(&owner(session, "o")), 0).await.unwrap();
}

/// `whole_looks`: what somebody reads before a txn is read at once.
fn scene_of(specs: &[LockSpec], rules: Rules) -> Scene {
    let mut scene = Scene::new(rules);
    for (session, spec) in (1..).zip(specs.iter().cloned()) {
        scene.client_of(session, move |store| take_a_turn(store, session, spec.clone()));
    }
    scene.steward(|store| async move { lock::help(&store, &root(), NAME, 0).await.unwrap() });
    scene
}

fn check(scene: &Scene, over: bool, clients: usize) {
    let picture = Picture::of(scene.store.keys(), NAME);
    let settled = over || scene.mortal.len() == clients;
    picture.check(NAME, settled);
    assert!(!over || picture.record.is_none(), "something is left: {picture:#?}");
}

fn every_order_of(specs: &[LockSpec], deaths_max: usize, whole_looks: bool) {
    let rules = Rules { deaths_max, whole_looks, ..Rules::default() };
    let begun = Instant::now();
    let explored = explore(scene_of(specs, rules), |_, _| {}, |scene, over| check(scene, over, specs.len()));
    assert!(explored.ends > 0);
    let looks = if whole_looks { "whole" } else { "torn" };
    let seconds = begun.elapsed().as_secs();
    eprintln!(
        "{} clients, {deaths_max} ends of sessions, {looks} looks: {explored:?}, {seconds} s",
        specs.len()
    );
}

/// Three with the end of any of their sessions; and with looks that are torn. The long form has both at once, of two.
fn every_order_of_three(specs: [LockSpec; 3]) {
    every_order_of(&specs, 3, true);
    every_order_of(&specs, 0, false);
    if std::env::var_os("TENURE_LONG").is_some() {
        every_order_of(&specs[..2], 2, false);
        every_order_of(&specs, 1, false);
    }
}

#[test]
fn a_mutex() {
    every_order_of_three([exclusive(NAME), exclusive(NAME), exclusive(NAME)]);
}

#[test]
fn a_read_write_lock() {
    every_order_of_three([shared(NAME), exclusive(NAME), shared(NAME)]);
}

#[test]
fn a_semaphore() {
    every_order_of_three([permits(NAME, 1, 2), permits(NAME, 2, 2), permits(NAME, 1, 2)]);
}

/// Does what was asked whatever has happened since the look.
fn ignores_what_is_compared(store: &mut Shelf, ask: &Ask) -> Option<Answer> {
    match ask {
        Ask::Txn(txn) => store.answer(&Ask::Txn(TxnRequest { compare: Vec::new(), ..txn.clone() })),
        other => store.answer(other),
    }
}

/// The answer to a look, with some keys as they are not.
fn lies(store: &mut Shelf, ask: &Ask, lie: impl Fn(&mut Vec<KeyValue>)) -> Option<Answer> {
    let mut answer = store.answer(ask)?;
    match &mut answer {
        Answer::Range(Ok(range)) => lie(&mut range.kvs),
        Answer::Txn(Ok(txn)) => txn.responses.iter_mut().for_each(|response| {
            if let Some(Response::ResponseRange(range)) = &mut response.response {
                lie(&mut range.kvs);
            }
        }),
        _ => {}
    }
    Some(answer)
}

/// To who looks whether the lock is free: who leaves reads the state alone.
fn lies_about_the_state(store: &mut Shelf, ask: &Ask, lie: impl Fn(&mut LockRecord)) -> Option<Answer> {
    if matches!(ask, Ask::Range(_)) {
        return store.answer(ask);
    }
    lies(store, ask, |kvs| {
        for kv in kvs.iter_mut().filter(|kv| kv.key.ends_with(b"/state")) {
            let mut record = LockRecord::decode(kv.value.clone()).unwrap();
            lie(&mut record);
            kv.value = record.encode_to_vec().into();
        }
    })
}

/// Whoever comes is granted the lock, whoever holds it.
fn overlooks_holders(store: &mut Shelf, ask: &Ask) -> Option<Answer> {
    lies_about_the_state(store, ask, |record| {
        (record.mode, record.holders, record.exclusive) = (LockMode::Exclusive.into(), 0, None);
    })
}

fn grants_one_permit_too_many(store: &mut Shelf, ask: &Ask) -> Option<Answer> {
    lies_about_the_state(store, ask, |record| record.permits_used = record.permits_used.saturating_sub(1))
}

/// Who leaves does not see who waits, nor that somebody does.
fn skips_who_waits(store: &mut Shelf, ask: &Ask) -> Option<Answer> {
    let Ask::Txn(mut txn) = ask.clone() else {
        return lies(store, ask, |kvs| kvs.retain(|kv| part_of_queue(&kv.key).is_none()));
    };
    txn.compare.retain(|compare| compare.range_end.is_empty());
    lies(store, &Ask::Txn(txn), |kvs| kvs.retain(|kv| part_of_queue(&kv.key).is_none()))
}

fn part_of_queue(key: &[u8]) -> Option<usize> {
    key.windows(7).position(|part| part == b"/queue/")
}

#[test]
fn planted_mistakes_are_found() {
    let with = |planted: Planted, specs: [LockSpec; 2]| {
        let rules = Rules { whole_looks: true, planted: Some(planted), ..Rules::default() };
        explore(scene_of(&specs, rules), |_, _| {}, |scene, over| check(scene, over, 2))
    };
    let mutex = || [exclusive(NAME), exclusive(NAME)];
    finds("holders are miscounted", || with(ignores_what_is_compared, mutex()));
    finds("two exclusive holders", || with(overlooks_holders, mutex()));
    finds("two modes at once", || with(overlooks_holders, [shared(NAME), exclusive(NAME)]));
    finds("more permits than there are", || {
        with(grants_one_permit_too_many, [permits(NAME, 1, 2), permits(NAME, 2, 2)])
    });
    finds("waited for without a state", || with(skips_who_waits, mutex()));
}

/// It takes four: one who holds, one who waits, one who looked early and comes late, and one who looked later and is there before. The late
/// one's place is before the other's, so whoever hands the lock on must see it or be overtaken by it.
#[test]
fn whoever_comes_late_to_an_early_place_is_not_passed_over() {
    for (looked, seen) in (0..5).flat_map(|looked| (0..7).map(move |seen| (looked, seen))) {
        let mut scene = Scene::new(Rules::default());
        for session in 1..=4 {
            scene.open(session);
            scene.client(true, move |store| take_a_turn(store, session, exclusive(NAME)));
        }
        let [holder, waiter, late, other] = [0, 1, 2, 3];
        (0..2).for_each(|_| assert!(scene.step(holder), "it looks, and is granted the lock"));
        while scene.step(waiter) {}
        (0..looked).for_each(|_| {
            scene.step(late);
        });
        // Time goes by, so that the other one's place is a later one.
        scene.prepare(|store| async move {
            let put = PutRequest { key: b"elsewhere"[..].into(), ..PutRequest::default() };
            let success = vec![RequestOp { request: Some(Request::RequestPut(put)) }];
            store.txn(TxnRequest { success, ..TxnRequest::default() }).await.unwrap();
        });
        while scene.step(other) {}
        while scene.step(holder) {}
        (0..seen).for_each(|_| {
            scene.step(waiter);
        });
        while scene.step(late) {}
        while (0..4).any(|client| scene.step(client)) {}
        assert!(scene.unfinished().is_empty(), "{:?} wait for ever ({looked}, {seen})", scene.unfinished());
    }
}

/// The first in a free lock's queue waits for another lock as well, and goes. Who asked while it stood there takes a place, which the
/// lock's own record does not show; who asks after that must not be granted the lock past that place.
#[test]
fn nobody_is_granted_a_free_lock_past_one_who_waits() {
    for (looked, seen) in (0..40).flat_map(|looked| (0..12).map(move |seen| (looked, seen))) {
        let mut scene = Scene::new(Rules::default());
        (1..=4).for_each(|session| scene.open(session));
        scene.prepare(|store| async move {
            let other = LockSpec { name: "y".into(), ..exclusive(NAME) };
            for (session, locks) in [(1, vec![other.clone()]), (2, vec![exclusive(NAME), other.clone()])] {
                let wish = Wish { locks, owner: owner(session, "o"), ..Wish::default() };
                lock::acquire(&store, &root(), wish, true).await.unwrap();
            }
        });
        for session in [3, 4] {
            scene.client(true, move |store| take_a_turn(store, session, exclusive(NAME)));
        }
        let [early, late] = [0, 1];
        (0..looked).for_each(|_| {
            scene.step(early);
        });
        scene.store.expire(2);
        (0..seen).for_each(|_| {
            scene.step(late);
        });
        while scene.step(early) {}
        let has = |scene: &Scene, session| {
            let picture = Picture::of(scene.store.keys(), NAME);
            let waits = picture.waiters.iter().any(|(owner, _)| owner.session == session);
            (waits, picture.holders.iter().any(|(owner, ..)| owner.session == session))
        };
        let before = (has(&scene, 3).0, has(&scene, 4).1);
        while scene.step(late) {
            let passed_over = before == (true, false) && has(&scene, 3).0 && has(&scene, 4).1;
            assert!(!passed_over, "({looked}, {seen})");
        }
        while (0..2).any(|client| scene.step(client)) {}
        assert!(scene.unfinished().is_empty(), "{:?} wait for ever ({looked}, {seen})", scene.unfinished());
    }
}
