//! Keys, transactions, guards and watches against a live member: what is asked for is what happens.

#![allow(clippy::unwrap_used)]

mod fixture;

use std::time::Duration;

use fixture::Cluster;
use fixture::proxy::{Mode, Proxy};
use tenure_client::proto::mvccpb::event::EventType;
use tenure_client::proto::tenure::v1::Guard;
use tenure_client::{Client, Error, Options, when};

#[tokio::test]
async fn keys_are_written_read_and_removed() {
    let cluster = Cluster::single().await;
    let kv = cluster.client().kv();
    let first = kv.put("jobs/1", "waiting").await.unwrap();
    assert_eq!(kv.put("jobs/2", "running").await.unwrap(), first + 1);
    kv.put("other", [0xff, 0]).await.unwrap();

    let found = kv.get("jobs/").prefix().await.unwrap();
    assert_eq!(
        found.pairs.iter().map(|pair| &pair.value[..]).collect::<Vec<_>>(),
        [&b"waiting"[..], b"running"]
    );
    assert_eq!((found.count, found.more, found.revision), (2, false, first + 2));
    let found = kv.get("").prefix().limit(1).keys_only().await.unwrap();
    assert_eq!((found.pairs.len(), found.count, found.more), (1, 3, true));
    assert_eq!(kv.get("jobs/1").revision(first).await.unwrap().first().unwrap().value, "waiting");
    assert!(kv.get("nothing").await.unwrap().first().is_none());

    assert_eq!(kv.delete("jobs/").prefix().await.unwrap(), 2);
    assert_eq!(kv.delete("jobs/1").await.unwrap(), 0);
    let compacted = found.revision;
    kv.compact(compacted).await.unwrap();
    kv.compact(compacted).await.unwrap();
    let error = kv.get("jobs/1").revision(first).await.unwrap_err();
    assert!(matches!(error, Error::Compacted { .. }), "{error}");
}

#[tokio::test]
async fn of_two_that_want_the_same_one_gets_it() {
    let cluster = Cluster::single().await;
    let kv = cluster.client().kv();
    let take = |who: &'static str| {
        let kv = kv.clone();
        async move {
            let txn =
                kv.txn().when(when::absent("leader")).then(kv.put("leader", who)).otherwise(kv.get("leader"));
            txn.commit().await.unwrap().succeeded
        }
    };
    let (one, other) = tokio::join!(take("one"), take("other"));
    assert!(one != other);
}

#[tokio::test]
async fn under_a_guard_nothing_is_written_once_the_grant_has_ended() {
    let cluster = Cluster::single().await;
    let kv = cluster.client().kv();
    let token = kv.put("holder", "me").await.unwrap();
    let compare = Some(when::created("holder", when::Is::Equal, token));
    let guarded = kv.with_guard(&Guard { token, compare, text: String::new() });

    guarded.put("account", "1").await.unwrap();
    let read =
        guarded.txn().when(when::absent("account")).then(kv.put("account", "2")).commit().await.unwrap();
    assert!(!read.succeeded, "a compare of one's own that fails is no failed guard");

    // The same holder again is another grant.
    kv.delete("holder").await.unwrap();
    kv.put("holder", "me").await.unwrap();
    for error in [
        guarded.put("account", "3").await.unwrap_err(),
        guarded.delete("account").await.unwrap_err(),
        guarded.txn().otherwise(kv.put("account", "4")).commit().await.unwrap_err(),
    ] {
        assert!(matches!(error, Error::Stale(_)), "{error}");
    }
    assert_eq!(kv.get("account").await.unwrap().first().unwrap().value, "1");
}

#[tokio::test]
async fn a_watch_goes_on_behind_the_last_revision_through_cuts_and_black_holes() {
    let cluster = Cluster::single().await;
    let proxy = Proxy::before(cluster.endpoint()).await;
    let options = Options {
        ping_interval: Duration::from_millis(200),
        ping_timeout: Duration::from_millis(200),
        ..Options::default()
    };
    let client = Client::with_options(&proxy.endpoint, options).unwrap();
    let kv = cluster.client().kv();
    let mut watch = client.watch("n/").prefix().await.unwrap();
    let mut first = None;
    for (round, mode) in
        [Mode::Pass, Mode::Cut, Mode::BlackHole, Mode::Cut, Mode::LoseReplies].into_iter().enumerate()
    {
        proxy.set(mode);
        for number in 0..10 {
            kv.put(format!("n/{round}"), number.to_string()).await.unwrap();
            kv.put("unrelated", "").await.unwrap();
        }
        if mode != Mode::Pass {
            proxy.set(Mode::Pass);
        }
        for number in 0..10 {
            let change = tokio::time::timeout(fixture::BOUND, watch.next()).await.unwrap().unwrap();
            let [event] = &change.events[..] else { panic!("one key a revision: {change:?}") };
            assert_eq!(event.kv.as_ref().unwrap().value, number.to_string());
            let expected = *first.get_or_insert(change.revision) + 20 * round as i64 + 2 * number;
            assert_eq!(change.revision, expected);
        }
    }
}

#[tokio::test]
async fn a_watch_tells_whole_revisions_and_from_the_past() {
    let cluster = Cluster::single().await;
    let client = cluster.client();
    let kv = client.kv();
    let large = "x".repeat(400_000);
    let start = kv.put("a/1", "1").await.unwrap();
    let txn = kv.txn().then(kv.put("a/1", &large)).then(kv.put("a/2", &large)).then(kv.put("a/3", &large));
    txn.commit().await.unwrap();
    kv.delete("a/1").await.unwrap();

    let mut watch = client.watch("a/").prefix().from(start).with_previous().await.unwrap();
    let shapes = [(start, 1), (start + 1, 3), (start + 2, 1)];
    for (revision, events) in shapes {
        let change = watch.next().await.unwrap();
        assert_eq!((change.revision, change.events.len()), (revision, events));
        if revision == start + 2 {
            assert_eq!(change.events[0].r#type(), EventType::Delete);
            assert_eq!(change.events[0].prev_kv.as_ref().unwrap().value, large);
        }
    }
}

#[tokio::test]
async fn a_watch_says_that_what_it_needs_was_compacted_and_goes_on_saying_so() {
    let cluster = Cluster::single().await;
    let client = cluster.client();
    let mut last = 0;
    for number in 0..5 {
        last = client.kv().put("k", number.to_string()).await.unwrap();
    }
    client.kv().compact(last).await.unwrap();
    let mut watch = client.watch("k").from(2).await.unwrap();
    for _ in 0..2 {
        assert_eq!(watch.next().await.unwrap_err(), Error::Compacted { at: last });
    }
}
