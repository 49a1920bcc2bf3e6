//! The tests' own ground: the server in memory answers as `Primitives` says, and goes wrong where it is told to.

#![allow(clippy::unwrap_used)]

mod support;

use support::{Fault, Store, Tasks, run};
use tenure_proto::etcdserverpb::request_op::Request;
use tenure_proto::etcdserverpb::{PutRequest, RequestOp, TxnRequest};
use tenure_recipes::{Changes, Failure, Primitives};

fn put(key: &str, lease: i64) -> TxnRequest {
    let put = PutRequest { key: key.as_bytes().to_vec().into(), lease, ..Default::default() };
    let operation = RequestOp { request: Some(Request::RequestPut(put)) };
    TxnRequest { success: vec![operation], ..Default::default() }
}

#[test]
fn a_waiter_is_woken_by_what_happens_and_by_nothing_else() {
    let store = Store::default();
    let mut tasks = Tasks::default();
    let waiting = store.clone();
    let waiter = tasks.start(async move {
        let mut changes = waiting.watch(b"a".to_vec(), Vec::new(), 1).await.unwrap();
        changes.next().await.unwrap().revision
    });
    assert!(tasks.settle());
    run({
        let store = store.clone();
        async move { store.txn(put("b", 0)).await.unwrap() }
    });
    tasks.settle();
    assert!(!waiter.is_done());
    run({
        let store = store.clone();
        async move { store.txn(put("a", 0)).await.unwrap() }
    });
    tasks.settle();
    assert_eq!(waiter.done(), 3);
}

#[test]
fn a_lost_reply_was_done_and_a_lost_request_was_not() {
    for (fault, keys) in [(Fault::ReplyLost, 1), (Fault::RequestLost, 0), (Fault::Refused, 0)] {
        let store = Store::default();
        store.on_txn(0, fault);
        let asked = store.clone();
        let failure = run(async move { asked.txn(put("a", 0)).await.unwrap_err() });
        assert_eq!(matches!(failure, Failure::Unavailable(_)), fault == Fault::Refused);
        assert_eq!(store.keys(b"").len(), keys, "{fault:?}");
    }
}

#[test]
fn a_lease_ends_with_its_keys_when_its_time_is_over() {
    let store = Store::default();
    let granted = store.clone();
    run(async move {
        assert_eq!(granted.grant(7, 5).await, Ok(5));
        assert_eq!(granted.grant(7, 5).await, Err(Failure::LeaseExists));
        granted.txn(put("a", 7)).await.unwrap();
        assert_eq!(granted.txn(put("b", 8)).await, Err(Failure::LeaseUnknown));
    });
    store.advance(4_000);
    let renewed = store.clone();
    assert_eq!(run(async move { renewed.keep_alive(7).await.unwrap() }), Some(5));
    store.advance(4_900);
    assert_eq!(store.keys(b"").len(), 1);
    store.advance(1_000);
    assert_eq!(store.keys(b"").len(), 0);
    let gone = store.clone();
    assert_eq!(run(async move { gone.keep_alive(7).await.unwrap() }), None);
}

#[test]
fn a_lease_may_end_right_before_or_behind_a_txn() {
    for (fault, keys) in [(Fault::Expires(7), 0), (Fault::ExpiresAfter(7), 0)] {
        let store = Store::default();
        let asked = store.clone();
        store.on_txn(0, fault);
        let answer = run(async move {
            asked.grant(7, 5).await.unwrap();
            asked.txn(put("a", 7)).await
        });
        assert_eq!(answer.is_ok(), matches!(fault, Fault::ExpiresAfter(_)));
        assert_eq!(store.keys(b"").len(), keys);
    }
}

#[test]
fn whoever_watches_from_before_a_compaction_is_told_where_history_begins() {
    let store = Store::default();
    let asked = store.clone();
    let failure = run(async move {
        for key in ["a", "a", "a", "a"] {
            asked.txn(put(key, 0)).await.unwrap();
        }
        asked.with(|solo| {
            solo.compact(&tenure_proto::etcdserverpb::CompactionRequest { revision: 4, physical: false })
                .unwrap()
        });
        asked.watch(b"a".to_vec(), Vec::new(), 2).await.unwrap().next().await.unwrap_err()
    });
    assert_eq!(failure, Failure::Compacted { at: 4 });
}

#[test]
fn the_server_in_memory_is_a_store_as_recipes_want_it() {
    let store = Store::default();
    run(async move {
        let compacted = store.clone();
        support::conformance::conforms(store, async |revision| compacted.compact(revision)).await;
    });
}
