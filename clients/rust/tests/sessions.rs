//! Sessions against a live member: they are held while somebody holds on to them and members can be reached, and are taken for
//! lost here before they are let go there.

#![allow(clippy::unwrap_used)]

mod fixture;

use std::time::Duration;

use fixture::proxy::{Mode, Proxy};
use fixture::{BOUND, Cluster, until};
use tenure_client::{Client, Error, Loss, Session, State};

/// Short, and what the server's election timeout allows.
const TTL: Duration = Duration::from_secs(5);

#[tokio::test]
async fn it_is_renewed_while_a_handle_lives_and_not_a_moment_longer() {
    let cluster = Cluster::single().await;
    let client = cluster.client();
    let session = client.session(TTL).await.unwrap();
    client.kv().put("with it", "").lease(session.id()).await.unwrap();
    // Longer than its time without renewals.
    let other_handle = session.clone();
    drop(session);
    for _ in 0..4 {
        renewed(&other_handle, TTL).await;
    }
    assert!(!other_handle.remaining().is_zero());
    assert!(client.kv().get("with it").await.unwrap().first().is_some());

    let id = other_handle.id();
    drop(other_handle);
    until("the lease runs out", || async { client.leases().time_to_live(id).await.unwrap().is_none() }).await;
    assert!(client.kv().get("with it").await.unwrap().first().is_none());
}

#[tokio::test]
async fn it_is_lost_here_before_it_is_let_go_there() {
    let cluster = Cluster::single().await;
    let direct = cluster.client();
    for mode in [Mode::BlackHole, Mode::Cut] {
        let proxy = Proxy::before(cluster.endpoint()).await;
        let session = Client::connect(&proxy.endpoint).unwrap().session(TTL).await.unwrap();
        proxy.set(mode);
        let loss = tokio::time::timeout(BOUND, session.lost()).await.unwrap();
        assert_eq!(loss, Loss::NotRenewed);
        assert!(session.check().is_err() && session.remaining().is_zero());
        // As the server's time for it never runs shorter than was said, it is still there now.
        let left = direct.leases().time_to_live(session.id()).await.unwrap();
        assert!(left.is_some(), "the server let go first ({mode:?})");
        // And it does not come back, whatever the network does.
        proxy.set(Mode::Pass);
        assert_eq!(session.state(), State::Lost(Loss::NotRenewed));
    }
}

#[tokio::test]
async fn doubt_passes_when_members_answer_again() {
    let cluster = Cluster::single().await;
    let proxy = Proxy::before(cluster.endpoint()).await;
    let session = Client::connect(&proxy.endpoint).unwrap().session(TTL * 4).await.unwrap();
    proxy.set(Mode::Cut);
    until("it is in doubt", || async { session.state() == State::Doubtful }).await;
    assert!(session.check().is_ok());
    proxy.set(Mode::Pass);
    until("it is held again", || async { session.state() == State::Held }).await;
}

#[tokio::test]
async fn what_the_server_ended_is_known_at_the_next_renewal() {
    let cluster = Cluster::single().await;
    let client = cluster.client();
    let session = client.session(TTL).await.unwrap();
    client.leases().revoke(session.id()).await.unwrap();
    assert_eq!(tokio::time::timeout(BOUND, session.lost()).await.unwrap(), Loss::Ended);
    assert!(matches!(session.check(), Err(Error::Lost(_))));
}

#[tokio::test]
async fn closed_it_is_gone_at_once_on_both_sides() {
    let cluster = Cluster::single().await;
    let client = cluster.client();
    let session = client.session(Duration::from_secs(600)).await.unwrap();
    let (told, other_handle) = (session.clone(), session.clone());
    session.close().await.unwrap();
    assert_eq!(told.lost().await, Loss::Closed);
    assert_eq!(other_handle.state(), State::Lost(Loss::Closed));
    assert_eq!(client.leases().time_to_live(told.id()).await.unwrap(), None);
}

#[tokio::test]
async fn it_outlives_the_member_it_spoke_to() {
    let mut cluster = Cluster::of(3).await;
    let client = cluster.client();
    let ttl = Duration::from_secs(15);
    let session = client.session(ttl).await.unwrap();
    cluster.kill(1);
    renewed(&session, ttl).await;
    assert!(session.check().is_ok());
}

/// It is renewed after a third of its time, so that it never has much less than two thirds.
async fn renewed(session: &Session, ttl: Duration) {
    until("a renewal is near", || async { session.remaining_at_server() < ttl.mul_f64(0.8) }).await;
    until("it is renewed", || async { session.remaining_at_server() > ttl.mul_f64(0.9) }).await;
}
