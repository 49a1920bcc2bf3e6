//! The failures that other locks have had, by their numbers in recipes/README.md.

use std::collections::BTreeMap;

use tenure_proto::etcdserverpb::request_op::Request;
use tenure_proto::etcdserverpb::{Compare, PutRequest, RequestOp, TxnRequest};
use tenure_recipes::lock::{self, Acquired, Waited};
use tenure_recipes::{Error, Failure, Primitives, Reason};
use tenure_state::solo::{Settings, Solo};

use crate::ground::{Ground, exclusive, owner, permits, root, shared, wish};
use crate::support::Fault;

#[test]
fn l1_l2_a_waiter_whose_session_ends_is_told_at_once_and_never_granted() {
    let mut ground = Ground::with_sessions(&[1, 2]);
    let grant = ground.hold(wish(1, "a", &[exclusive("x")]));
    let waiter = ground.start(wish(2, "b", &[exclusive("x")]));
    ground.tasks.settle();
    ground.store.expire(2);
    ground.tasks.settle();
    assert!(waiter.done().is_empty(), "gone, though nobody before it has left");
    let again = ground.acquire(wish(2, "b", &[exclusive("x")]));
    assert!(matches!(again, Err(Error::Refused(refusal)) if refusal.reason == Reason::SessionGone));
    ground.release("x", grant.token);
    assert!(ground.is_clean());
}

#[test]
fn l3_l6_a_release_that_is_sent_again_frees_nothing_that_came_later() {
    let ground = Ground::with_sessions(&[1]);
    let first = ground.hold(wish(1, "a", &[exclusive("x")]));
    ground.store.on_txn(0, Fault::ReplyLost);
    assert!(ground.release("x", first.token), "what became of it is found out");
    let second = ground.hold(wish(1, "a", &[exclusive("x")]));
    assert!(second.token > first.token);
    assert!(!ground.release("x", first.token));
    assert_eq!(ground.picture("x").holders[0].2, second.token);
}

#[test]
fn l4_two_owners_of_one_session_exclude_each_other() {
    let ground = Ground::with_sessions(&[1]);
    ground.hold(wish(1, "a", &[exclusive("x")]));
    ground.queue(wish(1, "b", &[exclusive("x")]));
    assert_eq!(ground.picture("x").holder_ids(), ["a"]);
}

#[test]
fn l5_whatever_is_lost_at_whichever_step_there_is_one_entry_and_none_after_leaving() {
    for fault in [Fault::ReplyLost, Fault::RequestLost] {
        for held in [false, true] {
            for step in 0..6 {
                let ground = Ground::with_sessions(&[1, 2]);
                if held {
                    ground.hold(wish(1, "a", &[exclusive("x")]));
                }
                ground.store.on_txn(step, fault);
                let first = ground.acquire(wish(2, "b", &[exclusive("x")]));
                ground.store.no_faults();
                let again = ground.acquire(wish(2, "b", &[exclusive("x")])).unwrap();
                match (&again, held) {
                    (Acquired::Granted { .. }, false) | (Acquired::Queued(_), true) => {}
                    other => panic!("{fault:?} at {step}: {other:?}"),
                }
                if let Ok(Acquired::Queued(ticket)) = first {
                    assert!(matches!(again, Acquired::Queued(again) if again.number == ticket.number));
                }
                let picture = ground.picture("x");
                picture.check("x", true);
                assert_eq!(picture.waiters.len(), usize::from(held));
                assert!(ground.leave("x", 2, "b"));
                let picture = ground.picture("x");
                picture.check("x", true);
                assert_eq!((picture.waiters.len(), picture.holders.len()), (0, usize::from(held)));
            }
        }
    }
}

#[test]
fn l5_the_same_identity_with_another_wish_is_an_error() {
    let ground = Ground::with_sessions(&[1]);
    ground.hold(wish(1, "a", &[exclusive("x")]));
    ground.queue(wish(1, "b", &[exclusive("x"), exclusive("y")]));
    for other in [
        wish(1, "a", &[shared("x")]),
        wish(1, "a", &[exclusive("x"), exclusive("z")]),
        wish(1, "b", &[exclusive("x")]),
        wish(1, "b", &[exclusive("x"), shared("y")]),
    ] {
        match ground.acquire(other) {
            Err(Error::Refused(refusal)) => assert_eq!(refusal.reason, Reason::IdentityConflict),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn l7_l10_whoever_ends_in_the_middle_of_the_queue_lets_no_two_in() {
    // Readers hold; a writer, a reader and a writer wait; any of them, or of the holders, ends at any moment.
    for ending in 1..=5 {
        let mut ground = Ground::with_sessions(&[1, 2, 3, 4, 5]);
        ground.steward();
        for session in [1, 2] {
            ground.hold(wish(session, "r", &[shared("x")]));
        }
        let specs = [exclusive("x"), shared("x"), exclusive("x")];
        let waiters: Vec<_> =
            (3..).zip(specs).map(|(session, spec)| ground.start(wish(session, "w", &[spec]))).collect();
        ground.tasks.settle();
        ground.store.expire(ending);
        ground.tasks.settle();
        ground.picture("x").check("x", true);
        for holder in [1, 2] {
            ground.leave("x", holder, "r");
            ground.tasks.settle();
            ground.picture("x").check("x", true);
        }
        let live = waiters.iter().filter(|waiter| waiter.is_done()).count();
        assert_eq!(
            live,
            if ending > 2 { 1 + usize::from(ending == 3) } else { 1 } + usize::from(ending > 3),
            "{ending}"
        );
    }
}

#[test]
fn l8_nobody_waits_for_a_lock_that_became_free_between_look_and_place() {
    // The holder lets go between the waiter's look and its txn, whichever txn of the waiter that is.
    for step in 0..4 {
        let mut ground = Ground::with_sessions(&[1, 2]);
        ground.steward();
        ground.hold(wish(1, "a", &[exclusive("x")]));
        ground.store.on_txn(step, Fault::Expires(1));
        let waiter = ground.start(wish(2, "b", &[exclusive("x")]));
        ground.tasks.settle();
        ground.store.expire(1);
        ground.tasks.settle();
        assert_eq!(waiter.done().len(), 1, "{step}");
        ground.picture("x").check("x", true);
    }
}

#[test]
fn l9_a_wake_without_a_grant_changes_nothing() {
    let mut ground = Ground::with_sessions(&[1]);
    ground.hold(wish(1, "a", &[exclusive("x")]));
    let ticket = ground.queue(wish(1, "b", &[exclusive("x")]));
    let waiter = ground.wait(&ticket);
    ground.tasks.settle();
    // History goes, and with it the watch: the waiter looks again and waits on.
    for _ in 0..3 {
        let revision = ground.store.revision();
        ground.store.compact(revision);
        ground.hold(wish(1, "other", &[exclusive("y")]));
        ground.leave("y", 1, "other");
        ground.help("x");
        ground.tasks.settle();
        assert!(!waiter.is_done());
    }
    ground.leave("x", 1, "a");
    ground.tasks.settle();
    assert!(matches!(waiter.done().unwrap(), Waited::Granted { .. }));
}

#[test]
fn l11_l12_what_a_former_holder_writes_under_its_guard_is_refused() {
    let mut ground = Ground::with_sessions(&[1, 2]);
    ground.steward();
    let write = |ground: &Ground, guard: Compare| {
        let put = PutRequest { key: b"set"[..].into(), ..PutRequest::default() };
        let success = vec![RequestOp { request: Some(Request::RequestPut(put)) }];
        let txn = TxnRequest { compare: vec![guard], success, ..TxnRequest::default() };
        ground.run(|store| async move { store.txn(txn).await.unwrap().succeeded })
    };
    let old = ground.hold(wish(1, "a", &[exclusive("x")]));
    let guard = old.guard.unwrap().compare.unwrap();
    assert!(write(&ground, guard.clone()));
    let waiter = ground.start(wish(2, "b", &[exclusive("x")]));
    ground.tasks.settle();
    ground.store.expire(1);
    ground.tasks.settle();
    let new = waiter.done().remove(0);
    assert!(!write(&ground, guard.clone()));
    assert!(write(&ground, new.guard.clone().unwrap().compare.unwrap()));
    assert!(!ground.release("x", old.token), "a stale holder frees nobody's lock");
    // The same session and owner once more: another grant all the same.
    ground.run(|store| async move { store.grant(1, 10).await.unwrap() });
    ground.release("x", new.token);
    let again = ground.hold(wish(1, "a", &[exclusive("x")]));
    assert!(again.token > new.token && !write(&ground, guard));
}

#[test]
fn l13_tokens_rise_across_a_restart_from_what_was_stored() {
    let ground = Ground::with_sessions(&[1]);
    let before = ground.hold(wish(1, "a", &[exclusive("x")]));
    ground.store.with(|solo| *solo = Solo::restore(Settings::default(), solo.memory().clone(), solo.now()));
    assert!(ground.release("x", before.token));
    assert!(ground.hold(wish(1, "a", &[exclusive("x")])).token > before.token);
}

#[test]
fn l16_a_holder_survives_a_change_of_the_leader() {
    let mut ground = Ground::with_sessions(&[1]);
    ground.steward();
    let grant = ground.hold(wish(1, "a", &[exclusive("x")]));
    for _ in 0..20 {
        ground.store.advance(5_000);
        ground.store.change_leader();
        ground.run(|store| async move { assert!(store.keep_alive(1).await.unwrap().is_some()) });
        ground.tasks.settle();
    }
    assert_eq!(ground.picture("x").holders[0].2, grant.token);
}

#[test]
fn l19_a_call_that_fails_leaves_nothing_open() {
    for fault in [Fault::Refused, Fault::RequestLost, Fault::Expires(2), Fault::ExpiresAfter(2)] {
        for step in 0..5 {
            let mut ground = Ground::with_sessions(&[1, 2]);
            ground.steward();
            ground.hold(wish(1, "a", &[exclusive("x")]));
            ground.store.on_txn(step, fault);
            let acquired = ground.acquire(wish(2, "b", &[exclusive("x")]));
            ground.store.no_faults();
            ground.tasks.settle();
            let refused = matches!(acquired, Err(Error::Failed(Failure::Unavailable(_))));
            assert!(!refused || fault == Fault::Refused);
            let picture = ground.picture("x");
            picture.check("x", true);
            if acquired.is_err() {
                assert!(picture.waiters.is_empty(), "{fault:?} at {step}");
            }
            ground.leave("x", 2, "b");
            assert!(ground.leave("x", 1, "a"));
            ground.tasks.settle();
            assert!(ground.is_clean(), "{fault:?} at {step}");
        }
    }
}

#[test]
fn l21_whoever_wants_several_locks_in_any_order_gets_them_in_the_end() {
    let names = ["a", "b", "c", "d"];
    let sets: Vec<Vec<&str>> = (1..16)
        .map(|set| {
            names.iter().enumerate().filter(|(bit, _)| set >> bit & 1 == 1).map(|(_, name)| *name).collect()
        })
        .collect();
    let mut ground = Ground::with_sessions(&[1]);
    ground.steward();
    let mut waiting = BTreeMap::new();
    for (number, set) in sets.iter().chain(sets.iter().rev()).enumerate() {
        let mut locks: Vec<_> = set.iter().map(|name| exclusive(name)).collect();
        if number % 2 == 0 {
            locks.reverse();
        }
        let id = format!("o{number}");
        waiting.insert(number, ground.start(wish(1, &id, &locks)));
        ground.tasks.settle();
    }
    let mut order = Vec::new();
    while !waiting.is_empty() {
        let held: Vec<usize> =
            waiting.iter().filter(|(_, started)| started.is_done()).map(|(n, _)| *n).collect();
        assert!(!held.is_empty(), "{} wait for each other", waiting.len());
        for number in held {
            order.push(number);
            for grant in waiting.remove(&number).unwrap().done() {
                assert!(ground.release(&grant.name, grant.token));
                ground.tasks.settle();
                for name in names {
                    ground.picture(name).check(name, false);
                }
            }
        }
    }
    assert_eq!(order.len(), 30);
    assert!(ground.is_clean());
}

#[test]
fn l22_each_holder_is_given_the_time_of_its_own_session() {
    let mut ground = Ground::default();
    ground.steward();
    ground.run(|store| async move {
        store.grant(1, 60).await.unwrap();
        store.grant(2, 2).await.unwrap();
    });
    ground.hold(wish(1, "long", &[exclusive("x")]));
    let short = ground.start(wish(2, "short", &[exclusive("x")]));
    ground.tasks.settle();
    ground.store.advance(30_000);
    ground.tasks.settle();
    assert!(short.done().is_empty(), "its own session ended; the holder's did not");
    assert_eq!(ground.picture("x").holder_ids(), ["long"]);
}

#[test]
fn mass_loss_of_sharers_is_looked_after_to_the_end() {
    let mut ground = Ground::with_sessions(&[1, 2]);
    ground.steward();
    for number in 0..80 {
        ground.hold(wish(1, &format!("p{number}"), &[permits("x", 1, 80)]));
    }
    let all = ground.start(wish(2, "all", &[permits("x", 80, 80)]));
    ground.tasks.settle();
    ground.store.expire(1);
    ground.tasks.settle();
    assert_eq!(all.done().len(), 1);
    let picture = ground.picture("x");
    picture.check("x", true);
    assert!(picture.marks.len() == 1 && picture.marks.contains(&owner(2, "all")));
}

#[test]
fn a_place_of_a_caller_who_is_gone_is_given_up_but_no_grant() {
    let ground = Ground::with_sessions(&[1, 2]);
    ground.hold(wish(1, "a", &[exclusive("x")]));
    let ticket = ground.queue(wish(2, "b", &[exclusive("x")]));
    let abandon = |ticket: lock::Ticket| {
        ground.run(|store| async move { lock::abandon(&store, &root(), &ticket, 0).await.unwrap() })
    };
    assert!(matches!(abandon(ticket), Waited::Gone { .. }));
    assert!(ground.picture("x").waiters.is_empty());
    let ticket = ground.queue(wish(2, "b", &[exclusive("x")]));
    ground.leave("x", 1, "a");
    assert!(
        matches!(abandon(ticket), Waited::Granted { .. }),
        "it may have been told already, by another call"
    );
    assert_eq!(ground.picture("x").holder_ids(), ["b"]);
}
