//! What every implementation of `Primitives` must do, whichever it is: in memory, in a member, or at the other end of a connection.
//! Whoever has one includes this file and runs [`conforms`] on it. It waits for nothing but the store.

use tenure_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use tenure_proto::etcdserverpb::request_op::Request;
use tenure_proto::etcdserverpb::response_op::Response;
use tenure_proto::etcdserverpb::{
    Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest, TxnResponse,
};
use tenure_proto::mvccpb::event::EventType;
use tenure_recipes::{Changes, Failure, Primitives};

/// Where the suite writes, and which leases it makes: nobody else may.
const PREFIX: &str = "conformance/";
const LEASE: i64 = 0x0c0f_0000;

/// `compact` gives up history below a revision.
pub async fn conforms<P: Primitives>(store: P, compact: impl AsyncFn(i64)) {
    a_txn_is_done_as_a_whole_or_not_at_all(&store).await;
    several_ranges_are_read_at_one_revision(&store).await;
    what_is_not_urgent_is_done_though_nothing_else_is(&store).await;
    a_watch_tells_every_revision_whole_and_in_order(&store).await;
    keys_go_with_their_lease_in_one_revision(&store).await;
    what_can_never_be_done_is_refused_and_not_done(&store).await;
    lost_history_is_said_so(&store, compact).await;
}

async fn a_txn_is_done_as_a_whole_or_not_at_all<P: Primitives>(store: &P) {
    let first = done(
        store,
        TxnRequest { success: vec![put("a", "1", 0), put("b", "1", 0)], ..TxnRequest::default() },
    )
    .await;
    let revision = revision(&first);
    let created = compare("a", CompareTarget::Create, TargetUnion::CreateRevision(revision));
    let wrong = compare("b", CompareTarget::Mod, TargetUnion::ModRevision(revision - 1));
    let txn = TxnRequest {
        compare: vec![created.clone(), wrong],
        success: vec![put("a", "2", 0)],
        failure: vec![read("a")],
    };
    let refused = done(store, txn).await;
    assert!(!refused.succeeded);
    assert_eq!(values(&refused), [["1"]], "nothing was written");
    let absent = compare("missing", CompareTarget::Create, TargetUnion::CreateRevision(0));
    let less = Compare {
        result: CompareResult::Less.into(),
        ..compare("a", CompareTarget::Value, TargetUnion::Value("2".into()))
    };
    let empty = Compare {
        range_end: key("m~").into(),
        ..compare("m", CompareTarget::Create, TargetUnion::CreateRevision(0))
    };
    let txn = TxnRequest {
        compare: vec![created, absent, less, empty],
        success: vec![put("a", "2", 0), delete("b"), read("a"), read("b")],
        failure: Vec::new(),
    };
    let answer = done(store, txn).await;
    assert!(answer.succeeded && self::revision(&answer) > revision);
    assert_eq!(values(&answer), [vec!["2"], vec![]], "reads see what was written before them");
}

async fn several_ranges_are_read_at_one_revision<P: Primitives>(store: &P) {
    let wrote = done(
        store,
        TxnRequest { success: vec![put("r1", "x", 0), put("r2", "x", 0)], ..TxnRequest::default() },
    )
    .await;
    let both = TxnRequest { success: vec![read("r1"), read("r2")], ..TxnRequest::default() };
    let answer = done(store, both).await;
    assert_eq!(values(&answer), [["x"], ["x"]]);
    assert!(revision(&answer) >= revision(&wrote), "what was acknowledged is seen");
    for serializable in [true, false] {
        let range = RangeRequest {
            key: key("r").into(),
            range_end: key("s").into(),
            limit: 1,
            serializable,
            ..RangeRequest::default()
        };
        let answer = store.range(range).await.unwrap();
        assert!(answer.more && answer.kvs.len() == 1 && answer.header.is_some());
    }
}

async fn what_is_not_urgent_is_done_though_nothing_else_is<P: Primitives>(store: &P) {
    let txn = |value| TxnRequest { success: vec![put("unhurried", value, 0)], ..TxnRequest::default() };
    let alone = store.txn_unhurried(txn("1")).await.unwrap();
    let again = store.txn_unhurried(txn("2")).await.unwrap();
    assert!(alone.succeeded && revision(&again) > revision(&alone));
    let read = done(store, TxnRequest { success: vec![read("unhurried")], ..TxnRequest::default() }).await;
    assert_eq!(values(&read), [["2"]]);
}

async fn a_watch_tells_every_revision_whole_and_in_order<P: Primitives>(store: &P) {
    let first = revision(
        &done(store, TxnRequest { success: vec![put("w1", "1", 0)], ..TxnRequest::default() }).await,
    );
    // Begun in the past, and later than the next.
    let both = TxnRequest { success: vec![put("w1", "2", 0), put("w2", "2", 0)], ..TxnRequest::default() };
    let second = revision(&done(store, both).await);
    let mut past = store.watch(key("w"), key("x"), first).await.unwrap();
    let mut one = store.watch(key("w1"), Vec::new(), second + 1).await.unwrap();
    let elsewhere = TxnRequest { success: vec![put("elsewhere", "", 0)], ..TxnRequest::default() };
    done(store, elsewhere).await;
    let third =
        revision(&done(store, TxnRequest { success: vec![delete("w1")], ..TxnRequest::default() }).await);
    for (expected, events) in [(first, 1), (second, 2), (third, 1)] {
        let change = past.next().await.unwrap();
        assert_eq!((change.revision, change.events.len()), (expected, events));
    }
    let change = one.next().await.unwrap();
    assert_eq!((change.revision, change.events[0].r#type()), (third, EventType::Delete));
    let kv = change.events[0].kv.as_ref().unwrap();
    assert_eq!((&kv.key[..], kv.mod_revision), (&key("w1")[..], third));
}

async fn keys_go_with_their_lease_in_one_revision<P: Primitives>(store: &P) {
    let ttl_s = store.grant(LEASE, 60).await.unwrap();
    assert!(ttl_s >= 60);
    assert_eq!(store.grant(LEASE, 60).await, Err(Failure::LeaseExists));
    let both =
        TxnRequest { success: vec![put("l1", "", LEASE), put("l2", "", LEASE)], ..TxnRequest::default() };
    let wrote = revision(&done(store, both).await);
    assert_eq!(store.keep_alive(LEASE).await.unwrap(), Some(ttl_s));
    let left = store.time_to_live(LEASE).await.unwrap().unwrap();
    assert!(left.granted_s == ttl_s && left.remaining_s <= ttl_s);
    let mut changes = store.watch(key("l"), key("m"), wrote + 1).await.unwrap();
    assert!(store.revoke(LEASE).await.unwrap());
    assert_eq!(changes.next().await.unwrap().events.len(), 2);
    assert!(!store.revoke(LEASE).await.unwrap());
    assert_eq!(store.keep_alive(LEASE).await.unwrap(), None);
    assert_eq!(store.time_to_live(LEASE).await.unwrap(), None);
}

async fn what_can_never_be_done_is_refused_and_not_done<P: Primitives>(store: &P) {
    let unknown = TxnRequest { success: vec![put("n", "", LEASE + 1)], ..TxnRequest::default() };
    assert_eq!(store.txn(unknown).await, Err(Failure::LeaseUnknown));
    let twice = TxnRequest { success: vec![put("n", "1", 0), put("n", "2", 0)], ..TxnRequest::default() };
    assert!(matches!(store.txn(twice).await, Err(Failure::Invalid(_))));
    let answer = done(store, TxnRequest { success: vec![read("n")], ..TxnRequest::default() }).await;
    assert_eq!(values(&answer), [Vec::<&str>::new()]);
}

async fn lost_history_is_said_so<P: Primitives>(store: &P, compact: impl AsyncFn(i64)) {
    let first =
        revision(&done(store, TxnRequest { success: vec![put("c", "1", 0)], ..TxnRequest::default() }).await);
    let last =
        revision(&done(store, TxnRequest { success: vec![put("c", "2", 0)], ..TxnRequest::default() }).await);
    compact(last).await;
    let mut changes = store.watch(key("c"), Vec::new(), first).await.unwrap();
    assert_eq!(changes.next().await, Err(Failure::Compacted { at: last }));
    let range = RangeRequest { key: key("c").into(), revision: first, ..RangeRequest::default() };
    assert_eq!(store.range(range).await, Err(Failure::Compacted { at: last }));
}

async fn done<P: Primitives>(store: &P, txn: TxnRequest) -> TxnResponse {
    store.txn(txn).await.unwrap()
}

fn key(name: &str) -> Vec<u8> {
    format!("{PREFIX}{name}").into_bytes()
}

fn compare(name: &str, target: CompareTarget, operand: TargetUnion) -> Compare {
    let (result, target) = (CompareResult::Equal.into(), target.into());
    Compare { result, target, key: key(name).into(), target_union: Some(operand), ..Compare::default() }
}

fn put(name: &str, value: &str, lease: i64) -> RequestOp {
    let value = value.as_bytes().to_vec().into();
    let put = PutRequest { key: key(name).into(), value, lease, ..PutRequest::default() };
    RequestOp { request: Some(Request::RequestPut(put)) }
}

fn delete(name: &str) -> RequestOp {
    let delete = DeleteRangeRequest { key: key(name).into(), ..DeleteRangeRequest::default() };
    RequestOp { request: Some(Request::RequestDeleteRange(delete)) }
}

fn read(name: &str) -> RequestOp {
    let range = RangeRequest { key: key(name).into(), ..RangeRequest::default() };
    RequestOp { request: Some(Request::RequestRange(range)) }
}

fn revision(answer: &TxnResponse) -> i64 {
    answer.header.as_ref().map_or(0, |header| header.revision)
}

/// The values that each range of a txn found.
fn values(answer: &TxnResponse) -> Vec<Vec<&str>> {
    let ranges = answer.responses.iter().filter_map(|response| match &response.response {
        Some(Response::ResponseRange(range)) => Some(range),
        _ => None,
    });
    ranges.map(|range| range.kvs.iter().map(|kv| std::str::from_utf8(&kv.value).unwrap()).collect()).collect()
}
