//! What becomes of calls whose answer is lost: reads go on to another member, writes are said to be unknown and sent once.

#![allow(clippy::unwrap_used)]

mod fixture;

use std::time::Duration;

use fixture::proxy::{Mode, Proxy};
use fixture::{BOUND, Cluster, free_port, until};
use tenure_client::{Client, Error, Options, Remote};
use tenure_recipes::{Failure, Primitives};

fn quick() -> Options {
    Options {
        request_timeout: Duration::from_secs(20),
        attempt_timeout: Duration::from_millis(500),
        ping_interval: Duration::from_millis(200),
        ping_timeout: Duration::from_millis(200),
        ..Options::default()
    }
}

#[tokio::test]
async fn a_write_whose_answer_was_lost_is_unknown_and_sent_once() {
    let cluster = Cluster::single().await;
    let proxy = Proxy::before(cluster.endpoint()).await;
    let direct = cluster.client().kv();
    // There is another member to ask: a write of unknown outcome must not go there.
    let both = format!("{},{}", proxy.endpoint, cluster.endpoint());
    for _ in 0..4 {
        let client = Client::with_options(&both, quick()).unwrap();
        let version = |found: tenure_client::Found| found.first().map_or(0, |pair| pair.version);
        let before = version(direct.get("k").await.unwrap());
        proxy.set(Mode::Pass);
        client.status().await;
        proxy.set(Mode::LoseReplies);
        match client.kv().put("k", "v").await {
            Err(Error::Unknown(_)) | Ok(_) => {}
            Err(other) => panic!("it was done, so this is wrong: {other}"),
        }
        // It may have been on its way when the answer was given up.
        until("it is written", || async { version(direct.get("k").await.unwrap()) > before }).await;
        assert_eq!(version(direct.get("k").await.unwrap()), before + 1);
        proxy.set(Mode::Cut);
    }
}

#[tokio::test]
async fn reads_go_on_to_the_next_member() {
    let cluster = Cluster::single().await;
    let proxy = Proxy::before(cluster.endpoint()).await;
    cluster.client().kv().put("k", "v").await.unwrap();
    let nobody = format!("127.0.0.1:{}", free_port());
    let all = format!("{nobody},{},{}", proxy.endpoint, cluster.endpoint());
    for mode in [Mode::LoseReplies, Mode::BlackHole, Mode::Cut] {
        proxy.set(mode);
        // Wherever it begins.
        for _ in 0..5 {
            let client = Client::with_options(&all, quick()).unwrap();
            let found =
                tokio::time::timeout(BOUND, client.kv().get("k").into_future()).await.unwrap().unwrap();
            assert_eq!(found.first().unwrap().value, "v");
        }
    }
}

#[tokio::test]
async fn a_write_that_reached_nobody_is_tried_elsewhere_and_else_certainly_not_done() {
    let cluster = Cluster::single().await;
    let nobody = format!("127.0.0.1:{}", free_port());
    let options = Options { request_timeout: Duration::from_millis(500), ..quick() };
    let error = Client::with_options(&nobody, options).unwrap().kv().put("k", "v").await.unwrap_err();
    assert!(matches!(&error, Error::Unavailable(text) if text.contains(&nobody)), "{error}");
    for _ in 0..5 {
        let both = format!("{nobody},{}", cluster.endpoint());
        Client::with_options(&both, quick()).unwrap().kv().put("k", "v").await.unwrap();
    }
}

/// What recipes rely on: they are told "unknown", and find out.
#[tokio::test]
async fn recipes_are_told_what_is_unknown() {
    let cluster = Cluster::single().await;
    let proxy = Proxy::before(cluster.endpoint()).await;
    let options = Options { request_timeout: Duration::from_secs(1), ..quick() };
    let remote = Remote::new(Client::with_options(&proxy.endpoint, options).unwrap());
    assert!(remote.grant(7, 60).await.unwrap() >= 60);
    assert_eq!(remote.grant(7, 60).await, Err(Failure::LeaseExists));
    proxy.set(Mode::LoseReplies);
    assert!(matches!(remote.revoke(7).await, Err(Failure::Unknown(_))));
    assert!(matches!(remote.time_to_live(7).await, Err(Failure::Unavailable(_))));
    proxy.set(Mode::Cut);
    proxy.set(Mode::Pass);
    until("it can be asked again", || async { remote.time_to_live(7).await == Ok(None) }).await;
    assert_eq!(remote.keep_alive(7).await, Ok(None));
    assert_eq!(remote.revoke(7).await, Ok(false));
}

#[tokio::test]
async fn a_cluster_that_loses_a_member_goes_on_serving() {
    let mut cluster = Cluster::of(3).await;
    let client = Client::with_options(&cluster.endpoints.join(","), quick()).unwrap();
    client.kv().put("k", "before").await.unwrap();
    cluster.kill(0);
    until("a write goes through", || async { client.kv().put("k", "after").await.is_ok() }).await;
    assert_eq!(client.kv().get("k").await.unwrap().first().unwrap().value, "after");
}
