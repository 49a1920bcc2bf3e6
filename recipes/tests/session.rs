//! Sessions: whatever is lost on the way, a client key opens one session, a renewal depends on nothing but the lease, and who ended a
//! session is known to whoever sees its keys go.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;

use support::{Fault, Store, Tasks, run};
use tenure_proto::etcdserverpb::request_op::Request;
use tenure_proto::etcdserverpb::{PutRequest, RequestOp, TxnRequest};
use tenure_proto::tenure::v1::{Ended, ended::How};
use tenure_recipes::session::{self, Opened, Wish};
use tenure_recipes::{Changes, Error, Primitives, Reason, Root};

fn wish(client_key: &str) -> Wish {
    let labels = BTreeMap::from([("host".to_owned(), "batch-3".to_owned())]);
    Wish { ttl_s: 10, labels, client_key: client_key.to_owned(), unix_ms: 5 }
}

fn open(store: &Store, unused: i64, client_key: &str) -> Result<Opened, Error> {
    let (store, wish) = (store.clone(), wish(client_key));
    run(async move { session::open(&store, &Root::server(), unused, &wish).await })
}

/// Binds a key to a session, as a lock would.
fn hold(store: &Store, key: &'static str, lease: i64) {
    let put = PutRequest { key: key.into(), lease, ..PutRequest::default() };
    let success = vec![RequestOp { request: Some(Request::RequestPut(put)) }];
    let store = store.clone();
    run(async move { store.txn(TxnRequest { success, ..TxnRequest::default() }).await }).unwrap();
}

fn leases(store: &Store) -> usize {
    store.with(|solo| solo.machine().leases().len())
}

fn refused(error: Error) -> Reason {
    match error {
        Error::Refused(refusal) => refusal.reason,
        Error::Failed(failure) => panic!("{failure}"),
    }
}

#[test]
fn a_repeated_open_finds_the_first_ones_session() {
    let store = Store::default();
    let first = open(&store, 11, "key").unwrap();
    assert_eq!((first.session.id, first.existed), (11, false));
    let second = open(&store, 12, "key").unwrap();
    assert_eq!((second.session, second.existed), (first.session, true));
    assert_eq!(leases(&store), 1, "the repeat leaves no lease behind");
    // Without a key, or with another, it is another session.
    assert_eq!(open(&store, 13, "").unwrap().session.id, 13);
    assert_eq!(open(&store, 14, "").unwrap().session.id, 14);
    assert_eq!(open(&store, 15, "other").unwrap().session.id, 15);
}

#[test]
fn a_lost_answer_opens_no_second_session() {
    for fault in [Fault::ReplyLost, Fault::RequestLost] {
        for key in ["key", ""] {
            let store = Store::default();
            store.on_txn(0, fault);
            assert_eq!(open(&store, 11, key).unwrap().session.id, 11, "{fault:?}");
            assert_eq!(leases(&store), 1);
        }
    }
}

/// The first one's end may fall between the repeat's finding it and renewing it.
#[test]
fn a_key_whose_session_has_ended_opens_another() {
    let store = Store::default();
    open(&store, 11, "key").unwrap();
    store.on_txn(0, Fault::ExpiresAfter(11));
    let second = open(&store, 12, "key").unwrap();
    assert_eq!((second.session.id, second.existed), (12, false));
    store.expire(12);
    assert_eq!(open(&store, 13, "key").unwrap().session.id, 13);
}

#[test]
fn what_cannot_be_opened_is_refused() {
    let store = Store::default();
    let ask = |wish: Wish| {
        let store = store.clone();
        refused(run(async move { session::open(&store, &Root::server(), 7, &wish).await }).unwrap_err())
    };
    assert_eq!(ask(Wish { ttl_s: 0, ..wish("") }), Reason::TtlOutOfRange);
    assert_eq!(ask(Wish { ttl_s: 86_401, ..wish("") }), Reason::TtlOutOfRange);
    assert_eq!(ask(wish(&"k".repeat(129))), Reason::IdInvalid);
    let labels = (0..33).map(|label| (label.to_string(), String::new())).collect();
    assert_eq!(ask(Wish { labels, ..wish("") }), Reason::LabelsInvalid);
    assert_eq!(leases(&store), 0);
}

#[test]
fn a_session_is_renewed_whatever_became_of_earlier_answers() {
    let store = Store::default();
    let session = open(&store, 11, "").unwrap().session;
    for _ in 0..5 {
        store.advance(9_000);
        let renewing = store.clone();
        // Of each second renewal the answer is lost, and the client says nothing about it.
        let (_lost, told) =
            run(async move { (renewing.keep_alive(11).await, renewing.keep_alive(11).await) });
        assert_eq!(told, Ok(Some(session.ttl)));
    }
    store.advance(12_000);
    let renewing = store.clone();
    assert_eq!(run(async move { renewing.keep_alive(11).await }), Ok(None));
}

#[test]
fn who_ended_a_session_is_known_to_whoever_sees_its_keys_go() {
    for fault in [None, Some(Fault::ReplyLost), Some(Fault::RequestLost)] {
        let (store, root) = (Store::default(), Root::server());
        open(&store, 11, "").unwrap();
        hold(&store, "/_tenure/lock/a/h", 11);
        let mut tasks = Tasks::default();
        let seen = {
            let (store, root, from) = (store.clone(), root.clone(), store.revision() + 1);
            tasks.start(async move {
                let mut changes = store.watch(b"/_tenure/lock/a/h".to_vec(), Vec::new(), from).await.unwrap();
                changes.next().await.unwrap();
                session::ended(&store, &root, 11).await.unwrap().unwrap()
            })
        };
        tasks.settle();
        if let Some(fault) = fault {
            store.on_txn(0, fault);
        }
        let killing = store.clone();
        let word = Ended { session: 11, reason: "host is dead".into(), by: "ops".into(), ..Ended::default() };
        let killed = run(async move { session::kill(&killing, &Root::server(), 99, &word).await });
        assert_eq!(killed, Ok(true));
        tasks.settle();
        let ended = seen.done();
        assert_eq!((ended.how(), &*ended.reason, &*ended.by), (How::Killed, "host is dead", "ops"));
    }
}

#[test]
fn the_first_word_about_an_end_stays_and_is_forgotten_in_time() {
    let (store, root) = (Store::default(), Root::server());
    open(&store, 11, "").unwrap();
    let acting = store.clone();
    let (closed, again) = run(async move {
        let root = Root::server();
        let closed = session::close(&acting, &root, 98, 11, 7).await;
        let word = Ended { session: 11, reason: "too late".into(), ..Ended::default() };
        (closed, session::kill(&acting, &root, 99, &word).await)
    });
    assert_eq!((closed, again), (Ok(true), Ok(false)));
    let how = |store: &Store| {
        let (store, root) = (store.clone(), root.clone());
        run(async move { session::ended(&store, &root, 11).await }).unwrap().map(|ended| ended.how())
    };
    assert_eq!(how(&store), Some(How::Closed));
    store.advance(session::ENDED_TTL_S as u64 * 1_000 + 1_000);
    assert_eq!(how(&store), None);
    assert_eq!((leases(&store), store.keys(b"").len()), (0, 0), "nothing is left behind");
}

#[test]
fn sessions_are_listed_in_pages() {
    let store = Store::default();
    for id in [3, 1, 2, -1, 0x1_0000_0000] {
        open(&store, id, "").unwrap();
    }
    let page = |after, limit| {
        let store = store.clone();
        let (sessions, next, _) =
            run(async move { session::list(&store, &Root::server(), after, limit).await }).unwrap();
        (sessions.iter().map(|session| session.id).collect::<Vec<_>>(), next)
    };
    assert_eq!(page(0, 2), (vec![1, 2], 2));
    assert_eq!(page(2, 2), (vec![3, 0x1_0000_0000], 0x1_0000_0000));
    assert_eq!(page(0x1_0000_0000, 2), (vec![-1], 0));
    assert_eq!(page(0, 1_000).0.len(), 5);
}

#[test]
fn what_a_key_is_to_a_session_is_read_off_it() {
    let root = Root::server();
    let held = session::belonging(&root, root.key(&["lock", "jobs/nightly", "h", "1"]).into()).unwrap();
    assert_eq!((&*held.kind, &*held.name), ("lock", "jobs/nightly"));
    assert_eq!(held.role, ["h", "1"]);
    assert_eq!(session::belonging(&root, root.key(&["session", &session::hex(7)]).into()), None);
    assert_eq!(session::belonging(&root, "elsewhere".into()).unwrap().kind, "");
    assert_eq!(session::from_hex(&session::hex(-7)), Some(-7));
}
