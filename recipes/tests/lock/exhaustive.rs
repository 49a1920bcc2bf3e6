//! Every interleaving of three clients who acquire, wait, and release, and of the end of any of their sessions at any moment: nobody
//! ever shares what is exclusive, nobody waits for what is free, nobody is there twice, and whoever lives gets its turn.
//!
//! The short form leaves out what takes minutes; TENURE_LONG=1 has all of it. README.md says how many states that are.

use tenure_proto::etcdserverpb::PutRequest;
use tenure_proto::tenure::v1::LockSpec;
use tenure_recipes::lock::{self, Acquired, Waited, Wish};
use tenure_recipes::{Error, Primitives, Reason};

use crate::ground::{Picture, exclusive, owner, permits, root, shared};
use crate::support::explore::{Gated, Scene, explore};
use crate::support::run;

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
fn every_order_of(specs: &[LockSpec], deaths_max: usize, whole_looks: bool) {
    let begin = || {
        let mut scene = Scene::default();
        (scene.deaths_max, scene.whole_looks) = (deaths_max, whole_looks);
        for (session, spec) in (1..).zip(specs.iter().cloned()) {
            let store = scene.store.clone();
            run(async move { store.grant(session, 10).await.unwrap() });
            scene.client_of(session, move |store| take_a_turn(store, session, spec));
        }
        scene.steward(|store| async move { lock::help(&store, &root(), NAME).await.unwrap() });
        scene
    };
    let explored = explore(
        begin,
        |_, _| {},
        |scene, over, path| {
            let picture = Picture::of(&scene.store, NAME);
            let settled = over || scene.mortal.len() == specs.len();
            let said = std::panic::catch_unwind(|| picture.check(NAME, settled));
            assert!(said.is_ok(), "after {path:?}");
            assert!(!over || picture.record.is_none(), "something is left after {path:?}: {picture:#?}");
        },
    );
    assert!(explored.ends > 0);
    let looks = if whole_looks { "whole" } else { "torn" };
    eprintln!("{} clients, {deaths_max} ends of sessions, {looks} looks: {explored:?}", specs.len());
}

/// Two with the end of any session, and three with the end of none or one; all of three, and looks that are torn, in the long form.
fn every_order_of_three(specs: [LockSpec; 3]) {
    every_order_of(&specs[..2], 2, true);
    every_order_of(&specs, 0, false);
    every_order_of(&specs, 1, true);
    if std::env::var_os("TENURE_LONG").is_some() {
        every_order_of(&specs[..2], 2, false);
        every_order_of(&specs, 2, true);
        every_order_of(&specs, 3, true);
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

/// It takes four: one who holds, one who waits, one who looked early and comes late, and one who looked later and is there before. The late
/// one's place is before the other's, so whoever hands the lock on must see it or be overtaken by it.
#[test]
fn whoever_comes_late_to_an_early_place_is_not_passed_over() {
    for (looked, seen) in (0..5).flat_map(|looked| (0..7).map(move |seen| (looked, seen))) {
        let mut scene = Scene::default();
        for session in 1..=4 {
            let store = scene.store.clone();
            run(async move { store.grant(session, 10).await.unwrap() });
            scene.client(true, move |store| take_a_turn(store, session, exclusive(NAME)));
        }
        let [holder, waiter, late, other] = [0, 1, 2, 3];
        (0..2).for_each(|_| assert!(scene.step(holder), "it looks, and is granted the lock"));
        while scene.step(waiter) {}
        (0..looked).for_each(|_| {
            scene.step(late);
        });
        // Time goes by, so that the other one's place is a later one.
        let store = scene.store.clone();
        run(async move { store.grant(5, 10).await.unwrap() });
        scene.store.with(|solo| {
            let put = PutRequest { key: b"elsewhere"[..].into(), ..PutRequest::default() };
            solo.put(&put).unwrap()
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
