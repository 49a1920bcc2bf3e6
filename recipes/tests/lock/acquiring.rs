//! What each call does when nothing goes wrong.

use tenure_proto::etcdserverpb::TxnRequest;
use tenure_proto::tenure::v1::{LockMode, LockPolicy};
use tenure_recipes::lock::{self, Acquired, Broke, Converted, Waited};
use tenure_recipes::{Error, Primitives, Reason};

use crate::ground::{Ground, exclusive, owner, permits, root, shared, wish};

#[test]
fn an_uncontended_lock_costs_one_txn_to_take_and_one_to_give_back() {
    let ground = Ground::with_sessions(&[1]);
    let before = ground.store.calls();
    let grant = ground.hold(wish(1, "a", &[exclusive("x")]));
    let taken = ground.store.calls();
    assert_eq!(
        (taken.txns - before.txns - 1, taken.ranges - before.ranges),
        (1, 0),
        "one look at two keys, one txn"
    );
    assert_eq!(grant.token, ground.store.revision());
    assert!(ground.release("x", grant.token));
    let given = ground.store.calls();
    assert_eq!((given.txns - taken.txns, given.ranges - taken.ranges), (1, 1));
    assert!(ground.is_clean());
}

#[test]
fn a_release_hands_over_in_its_own_revision_to_the_first_who_asked() {
    let mut ground = Ground::with_sessions(&[1, 2, 3]);
    let first = ground.hold(wish(1, "a", &[exclusive("x")]));
    let tickets: Vec<_> = [2, 3].map(|session| ground.queue(wish(session, "w", &[exclusive("x")]))).into();
    let waiting: Vec<_> = tickets.iter().map(|ticket| ground.wait(ticket)).collect();
    ground.tasks.settle();
    ground.picture("x").check("x", true);
    assert!(ground.release("x", first.token));
    let revision = ground.store.revision();
    ground.tasks.settle();
    match waiting[0].done().unwrap() {
        Waited::Granted { grants, .. } => {
            assert_eq!(grants[0].token, revision, "A out and B in are one revision")
        }
        other => panic!("{other:?}"),
    }
    assert!(!waiting[1].is_done());
    let picture = ground.picture("x");
    picture.check("x", true);
    assert_eq!((picture.holders[0].0.session, picture.waiters.len()), (2, 1));
    assert!(!ground.release("x", first.token), "that grant has ended");
}

/// Nobody else may be there to do it: who comes next to what was handed over sees to its holder's end.
#[test]
fn who_comes_to_a_lock_that_was_handed_over_frees_it_of_a_holder_that_is_gone() {
    let ground = Ground::with_sessions(&[1, 2, 3]);
    let first = ground.hold(wish(1, "a", &[exclusive("x")]));
    ground.queue(wish(2, "b", &[exclusive("x")]));
    assert!(ground.release("x", first.token));
    assert_eq!(ground.picture("x").holders.len(), 1, "it is the second one's");
    ground.store.expire(2);
    assert!(matches!(ground.try_acquire(wish(3, "c", &[exclusive("x")])).unwrap(), Acquired::Granted { .. }));
}

#[test]
fn a_step_of_a_long_queue_tells_one_and_reads_a_few() {
    let mut ground = Ground::with_sessions(&[1]);
    let mut token = ground.hold(wish(1, "holder", &[exclusive("x")])).token;
    let waiting: Vec<_> = (0..500)
        .map(|number| {
            let ticket = ground.queue(wish(1, &format!("w{number:03}"), &[exclusive("x")]));
            ground.wait(&ticket)
        })
        .collect();
    ground.tasks.settle();
    for started in waiting {
        let before = ground.store.calls();
        assert!(ground.release("x", token));
        ground.tasks.settle();
        let after = ground.store.calls();
        assert_eq!(after.changes - before.changes, 1, "one notification a step");
        assert!(after.keys - before.keys <= 4, "{} keys read", after.keys - before.keys);
        match started.done().unwrap() {
            Waited::Granted { grants, .. } => token = grants[0].token,
            other => panic!("{other:?}"),
        }
    }
    assert!(ground.release("x", token));
    assert!(ground.is_clean());
}

#[test]
fn readers_share_and_do_not_overtake_a_writer_who_waits() {
    let mut ground = Ground::with_sessions(&[1]);
    let one = ground.hold(wish(1, "r1", &[shared("x")]));
    let two = ground.hold(wish(1, "r2", &[shared("x")]));
    let writer = ground.start(wish(1, "w", &[exclusive("x")]));
    ground.tasks.settle();
    let late = [3, 4].map(|number| ground.start(wish(1, &format!("r{number}"), &[shared("x")])));
    ground.tasks.settle();
    assert!(!late[0].is_done() && !writer.is_done());
    ground.release("x", two.token);
    ground.tasks.settle();
    assert!(!writer.is_done());
    ground.release("x", one.token);
    ground.tasks.settle();
    let written = writer.done().remove(0);
    assert_eq!(ground.picture("x").holder_ids(), ["w"]);
    ground.release("x", written.token);
    ground.tasks.settle();
    let tokens = late.map(|started| started.done()[0].token);
    assert_eq!(tokens[0], tokens[1], "readers who stand together come in together");
    assert!(tokens[0] > written.token && written.token > two.token, "tokens rise in the order of grants");
    ground.picture("x").check("x", true);
}

#[test]
fn a_hundred_readers_behind_a_writer_come_in_though_one_txn_holds_only_some() {
    let mut ground = Ground::with_sessions(&[1]);
    let writer = ground.hold(wish(1, "w", &[exclusive("x")]));
    let readers: Vec<_> =
        (0..100).map(|number| ground.start(wish(1, &format!("r{number}"), &[shared("x")]))).collect();
    ground.tasks.settle();
    ground.release("x", writer.token);
    ground.tasks.settle();
    assert!(readers.iter().all(|reader| reader.done().len() == 1));
    let picture = ground.picture("x");
    picture.check("x", true);
    assert_eq!((picture.holders.len(), picture.waiters.len()), (100, 0));
}

#[test]
fn a_great_number_of_permits_at_the_head_is_not_starved_by_small_ones() {
    let mut ground = Ground::with_sessions(&[1]);
    let small: Vec<_> =
        (0..3).map(|n| ground.hold(wish(1, &format!("s{n}"), &[permits("x", 1, 4)]))).collect();
    let great = ground.start(wish(1, "great", &[permits("x", 4, 0)]));
    ground.tasks.settle();
    let late = ground.start(wish(1, "late", &[permits("x", 1, 4)]));
    ground.tasks.settle();
    assert!(!late.is_done(), "there is a permit, but somebody waits before");
    for grant in &small {
        ground.release("x", grant.token);
    }
    ground.tasks.settle();
    let great = great.done().remove(0);
    assert!(!late.is_done());
    ground.picture("x").check("x", true);
    ground.release("x", great.token);
    ground.tasks.settle();
    assert_eq!(late.done()[0].permits, 1);
}

#[test]
fn how_many_permits_there_are_is_set_once_and_not_negotiated() {
    let ground = Ground::with_sessions(&[1]);
    let refused = |wish| match ground.acquire(wish) {
        Err(Error::Refused(refusal)) => refusal,
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(wish(1, "a", &[permits("x", 1, 0)])).reason, Reason::CapacityMismatch);
    ground.hold(wish(1, "a", &[permits("x", 1, 4)]));
    let other = refused(wish(1, "b", &[permits("x", 1, 5)]));
    assert_eq!((other.reason, &*other.details["capacity"]), (Reason::CapacityMismatch, "4"));
    let policy = LockPolicy { capacity: 6, ..LockPolicy::default() };
    ground.run(|store| async move { lock::set_policy(&store, &root(), "x", &policy).await.unwrap() });
    ground.hold(wish(1, "b", &[permits("x", 5, 6)]));
    assert_eq!(refused(wish(1, "c", &[permits("x", 7, 0)])).reason, Reason::CapacityMismatch);
}

#[test]
fn who_does_not_want_to_wait_leaves_nothing_behind() {
    let ground = Ground::with_sessions(&[1]);
    ground.hold(wish(1, "a", &[exclusive("x")]));
    let revision = ground.store.revision();
    match ground.try_acquire(wish(1, "b", &[exclusive("x")])).unwrap() {
        Acquired::Busy { obstacle, .. } => assert_eq!(obstacle, "x"),
        other => panic!("{other:?}"),
    }
    assert_eq!(ground.store.revision(), revision);
}

#[test]
fn several_locks_are_granted_in_one_revision_or_not_at_all() {
    let mut ground = Ground::with_sessions(&[1]);
    let on_b = ground.hold(wish(1, "b", &[exclusive("b")]));
    let on_c = ground.hold(wish(1, "c", &[exclusive("c")]));
    let all = ground.start(wish(1, "all", &[exclusive("c"), exclusive("a"), shared("b")]));
    ground.tasks.settle();
    let behind = ground.start(wish(1, "behind", &[exclusive("a")]));
    ground.tasks.settle();
    assert!(!behind.is_done(), "the first in the queue of a free lock keeps its turn");
    ground.release("b", on_b.token);
    ground.tasks.settle();
    assert!(!all.is_done());
    ground.release("c", on_c.token);
    let revision = ground.store.revision();
    ground.tasks.settle();
    let grants = all.done();
    assert!(grants.iter().all(|grant| grant.token == revision));
    assert_eq!(grants.iter().map(|grant| &*grant.name).collect::<Vec<_>>(), ["a", "b", "c"]);
    ground.release("a", revision);
    ground.tasks.settle();
    assert!(behind.is_done());
    for name in ["a", "b", "c"] {
        ground.picture(name).check(name, true);
    }
}

#[test]
fn down_keeps_the_token_and_lets_readers_in_and_up_is_a_new_grant() {
    let mut ground = Ground::with_sessions(&[1]);
    let grant = ground.hold(wish(1, "a", &[exclusive("x")]));
    let reader = ground.start(wish(1, "r", &[shared("x")]));
    ground.tasks.settle();
    let convert = |ground: &Ground, token, mode| {
        ground.run(move |store| async move {
            lock::convert(&store, &root(), "x", token, mode, Some(&owner(1, "a")), 0).await.unwrap()
        })
    };
    match convert(&ground, grant.token, LockMode::Shared) {
        Converted::Granted { grant: down, revision } => {
            assert_eq!(down.token, grant.token);
            ground.tasks.settle();
            assert_eq!(reader.result().unwrap()[0].token, revision, "readers come in with the same revision");
        }
        other => panic!("{other:?}"),
    }
    ground.picture("x").check("x", true);
    assert!(matches!(convert(&ground, grant.token, LockMode::Exclusive), Converted::Busy { .. }));
    let reader = ground.picture("x").holders.iter().find(|(owner, ..)| owner.id == "r").unwrap().2;
    ground.release("x", reader);
    let waits = ground.start(wish(1, "w", &[exclusive("x")]));
    ground.tasks.settle();
    let up = match convert(&ground, grant.token, LockMode::Exclusive) {
        Converted::Granted { grant, .. } => grant,
        other => panic!("{other:?}"),
    };
    assert!(up.token > grant.token && !waits.is_done());
    match convert(&ground, grant.token, LockMode::Exclusive) {
        Converted::Granted { grant: again, .. } => assert_eq!(again.token, up.token, "asked again, the same"),
        other => panic!("{other:?}"),
    }
    ground.picture("x").check("x", true);
    let guard = up.guard.unwrap();
    let txn = TxnRequest { compare: guard.compare.into_iter().collect(), ..TxnRequest::default() };
    assert!(ground.run(|store| async move { store.txn(txn).await.unwrap() }).succeeded);
    assert!(!ground.release("x", grant.token) && ground.release("x", up.token));
    ground.tasks.settle();
    assert!(waits.is_done());
}

#[test]
fn whoever_gives_up_a_place_lets_those_behind_come() {
    let mut ground = Ground::with_sessions(&[1]);
    ground.hold(wish(1, "r1", &[shared("x")]));
    let writer = ground.queue(wish(1, "w", &[exclusive("x")]));
    let reader = ground.start(wish(1, "r2", &[shared("x")]));
    let other = ground.start(wish(1, "w2", &[exclusive("x")]));
    ground.tasks.settle();
    assert!(ground.leave("x", 1, "w"));
    let revision = ground.store.revision();
    ground.tasks.settle();
    assert_eq!(reader.done()[0].token, revision, "in the revision in which the writer left");
    assert!(ground.leave("x", 1, "w2") && !ground.leave("x", 1, "w2"));
    ground.tasks.settle();
    assert!(other.done().is_empty());
    ground.picture("x").check("x", true);
    let gone = ground.wait(&writer);
    ground.tasks.settle();
    assert!(matches!(gone.done().unwrap(), Waited::Gone { .. }));
    assert!(ground.leave("x", 1, "r1") && ground.leave("x", 1, "r2"));
    assert!(ground.is_clean());
}

#[test]
fn a_lock_is_kept_back_behind_a_loss_and_not_behind_a_release() {
    let mut ground = Ground::with_sessions(&[1, 2]);
    ground.steward();
    let mut slow = wish(1, "a", &[exclusive("x")]);
    slow.delay_s = Some(5);
    let grant = ground.hold(slow.clone());
    let waiter = ground.start(wish(2, "b", &[exclusive("x")]));
    ground.tasks.settle();
    ground.release("x", grant.token);
    ground.tasks.settle();
    let token = waiter.done()[0].token;
    ground.release("x", token);

    ground.hold(slow);
    let waiter = ground.start(wish(2, "b", &[exclusive("x")]));
    ground.tasks.settle();
    ground.store.expire(1);
    ground.tasks.settle();
    assert!(!waiter.is_done() && ground.picture("x").delayed);
    ground.picture("x").check("x", true);
    ground.store.advance(4_000);
    ground.tasks.settle();
    assert!(!waiter.is_done());
    ground.store.advance(2_000);
    ground.tasks.settle();
    let token = waiter.done()[0].token;
    ground.picture("x").check("x", true);
    ground.release("x", token);
    ground.tasks.settle();
    assert!(ground.is_clean());
}

#[test]
fn an_operator_breaks_a_grant_by_its_token_with_or_without_the_delay() {
    let mut ground = Ground::with_sessions(&[1, 2]);
    ground.steward();
    for skip_delay in [true, false] {
        let mut slow = wish(1, "a", &[exclusive("x")]);
        slow.delay_s = Some(3);
        let grant = ground.hold(slow);
        let waiter = ground.start(wish(2, "b", &[exclusive("x")]));
        ground.tasks.settle();
        let token = grant.token;
        let broke = Broke { reason: "host dead".into(), skip_delay, ..Broke::default() };
        let broken = ground.run(|store| async move {
            let wrong = lock::break_grant(&store, &root(), "x", token - 1, None, &broke).await.unwrap();
            assert_eq!(wrong, None, "another grant is not broken");
            lock::break_grant(&store, &root(), "x", token, None, &broke).await.unwrap()
        });
        assert!(broken.is_some());
        ground.tasks.settle();
        assert_eq!(waiter.is_done(), skip_delay);
        ground.store.advance(4_000);
        ground.tasks.settle();
        let token = waiter.done()[0].token;
        ground.picture("x").check("x", true);
        ground.release("x", token);
    }
}

#[test]
fn a_queue_has_a_limit() {
    let ground = Ground::with_sessions(&[1]);
    let policy = LockPolicy { queue_max: 2, ..LockPolicy::default() };
    ground.run(|store| async move { lock::set_policy(&store, &root(), "x", &policy).await.unwrap() });
    ground.hold(wish(1, "a", &[exclusive("x")]));
    ground.queue(wish(1, "b", &[exclusive("x")]));
    ground.queue(wish(1, "c", &[exclusive("x")]));
    match ground.acquire(wish(1, "d", &[exclusive("x")])) {
        Err(Error::Refused(refusal)) => assert_eq!(refusal.reason, Reason::QueueFull),
        other => panic!("{other:?}"),
    }
}
