//! A recipe that a client runs for itself, under a root of its own: what it asks of a store, a connection to a cluster gives.

#![allow(clippy::unwrap_used)]

#[path = "../../../recipes/tests/support/conformance.rs"]
mod conformance;
mod fixture;

use fixture::{BOUND, Cluster};
use tenure_client::Remote;
use tenure_client::proto::tenure::v1::LockSpec;
use tenure_recipes::lock::{self, Acquired, Owner, Waited, wish::Wish};
use tenure_recipes::{Primitives, Root};

fn root() -> Root {
    Root::at("/mine/")
}

fn wish(session: i64, id: &str) -> Wish {
    let owner = Owner { session, id: id.into() };
    Wish { locks: vec![LockSpec { name: "x".into(), ..LockSpec::default() }], owner, ..Wish::default() }
}

#[tokio::test]
async fn a_connection_is_a_store_as_recipes_want_it() {
    let cluster = Cluster::of(3).await;
    let client = cluster.client();
    let compact = async |revision| client.kv().compact(revision).await.unwrap();
    conformance::conforms(Remote::new(client.clone()), compact).await;
}

#[tokio::test]
async fn a_lock_is_handed_over_in_the_revision_of_its_release() {
    let cluster = Cluster::single().await;
    let (one, other) = (Remote::new(cluster.client()), Remote::new(cluster.client()));
    one.grant(1, 600).await.unwrap();
    other.grant(2, 600).await.unwrap();
    let Acquired::Granted { grants, .. } = lock::acquire(&one, &root(), wish(1, "a"), true).await.unwrap()
    else {
        panic!("nobody else wants it")
    };
    let Acquired::Queued(ticket) = lock::acquire(&other, &root(), wish(2, "b"), true).await.unwrap() else {
        panic!("it is held")
    };
    let root = root();
    let waiting = tokio::time::timeout(BOUND, lock::wait(&other, &root, &ticket));
    let releasing = lock::release(&one, &root, "x", grants[0].token, None, 0);
    let (waited, released) = tokio::join!(waiting, releasing);
    let Waited::Granted { grants: next, .. } = waited.unwrap().unwrap() else { panic!("it was released") };
    assert_eq!(released.unwrap(), Some(next[0].token), "A out and B in are one revision");
    let again = lock::release(&one, &root, "x", grants[0].token, None, 0).await.unwrap();
    assert_eq!(again, None, "that grant has ended");
}

#[tokio::test]
async fn a_session_that_ends_makes_way() {
    let cluster = Cluster::single().await;
    let remote = Remote::new(cluster.client());
    for session in [1, 2] {
        remote.grant(session, 600).await.unwrap();
    }
    lock::acquire(&remote, &root(), wish(1, "a"), true).await.unwrap();
    let Acquired::Queued(ticket) = lock::acquire(&remote, &root(), wish(2, "b"), true).await.unwrap() else {
        panic!("it is held")
    };
    assert!(remote.revoke(1).await.unwrap());
    // Whoever sees it first helps: here nobody else is there to.
    lock::help(&remote, &root(), "x", 0).await.unwrap();
    let root = root();
    let waited = tokio::time::timeout(BOUND, lock::wait(&remote, &root, &ticket)).await.unwrap().unwrap();
    assert!(matches!(waited, Waited::Granted { .. }), "{waited:?}");
}
