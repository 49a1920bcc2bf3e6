//! Every interleaving of three clients who acquire, wait, and release, and of the end of any of their sessions at any moment: nobody
//! ever shares what is exclusive, nobody waits for what is free, nobody is there twice, and whoever lives gets its turn.
//!
//! The short form leaves out what takes minutes: three clients with ends of sessions, and three whose looks are torn. TENURE_LONG=1 has
//! all of it.

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
    let grants = match lock::acquire(&store, &root(), wish, true).await {
        Ok(Acquired::Granted { grants, .. }) => grants,
        Ok(Acquired::Queued(ticket)) => match lock::wait(&store, &root(), &ticket).await.unwrap() {
            Waited::Granted { grants, .. } => grants,
            Waited::Gone { .. } => return,
        },
        Err(Error::Refused(refusal)) if refusal.reason == Reason::SessionGone => return,
        other => panic!("{other:?}"),
    };
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
            scene.mortal.push(session);
            scene.client(true, move |store| take_a_turn(store, session, spec));
        }
        scene
    };
    let explored = explore(
        begin,
        |scene, _| {
            scene.client(true, |store| async move { lock::help(&store, &root(), NAME).await.unwrap() })
        },
        |scene, over, path| {
            let picture = Picture::of(&scene.store, NAME);
            let settled = over || scene.mortal.len() == specs.len();
            let said = std::panic::catch_unwind(|| picture.check(NAME, settled));
            assert!(said.is_ok(), "after {path:?}");
            assert!(!over || picture.record.is_none(), "something is left after {path:?}: {picture:#?}");
        },
    );
    assert!(explored.ends > 0);
    eprintln!("{deaths_max} ends of sessions: {explored:?}");
}

/// Three of them as they are, two of them with an end of a session; and all that again in the long form.
fn every_order_of_three(specs: [LockSpec; 3]) {
    every_order_of(&specs[..2], 0, false);
    every_order_of(&specs, 0, true);
    every_order_of(&specs[..2], 1, true);
    if std::env::var_os("TENURE_LONG").is_some() {
        every_order_of(&specs, 0, false);
        every_order_of(&specs[..2], 2, false);
        every_order_of(&specs, 2, true);
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
