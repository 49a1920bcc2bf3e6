//! The examples as their reader would run them, against a live server: started, killed, handed over, drained.

#![allow(clippy::unwrap_used)]

mod stage;

use std::process::Command;

use stage::{Example, Server};
use tenure_client::ElectionNews;
use tenure_client::proto::tenure::v1::transfer_event::Phase;
use tenure_client::proto::tenure::v1::{Drain, TransferRequest};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_primary_is_followed_when_it_dies_and_when_it_hands_over() {
    let server = Server::start().await;
    let client = server.client();
    let mut observer = client.election("db/main").observe();
    let mut nodes: Vec<Example> = ["n1", "n2", "n3"]
        .map(|node| Example::start(env!("CARGO_BIN_EXE_primary_election"), &[node], &server))
        .into();
    let first = next_leader(&mut observer).await;
    let dead = nodes.iter().position(|node| node.words[0] == first).unwrap();
    nodes[dead].wait_for("primary, epoch 1");
    nodes.remove(dead).kill();

    let second = next_leader(&mut observer).await;
    let third = ["n1", "n2", "n3"].into_iter().find(|node| *node != first && *node != second).unwrap();
    let request = TransferRequest {
        name: "db/main".into(),
        transfer_id: "test".into(),
        to_candidate_id: third.into(),
        ..TransferRequest::default()
    };
    let mut transfer = client.operate().transfer(request);
    loop {
        match transfer.next().await.unwrap().phase() {
            Phase::Committed => break,
            Phase::Requested | Phase::Progress => {}
            other => panic!("{other:?}"),
        }
    }
    // One ended and the other began, and nobody saw a vacancy.
    let ElectionNews::Ended(ended) = observer.next().await.unwrap() else {
        panic!("the old term did not end first")
    };
    let ElectionNews::Started(started) = observer.next().await.unwrap() else {
        panic!("there was a vacancy")
    };
    assert_eq!((ended.epoch, started.epoch), (2, 3));
    assert_eq!(started.leader.unwrap().id, third);
    let node = nodes.iter_mut().find(|node| node.words[0] == second).unwrap();
    node.wait_for(&format!("handing over to {third}"));
    node.wait_for("standing by");
}

async fn next_leader(observer: &mut tenure_client::Observer) -> String {
    loop {
        if let ElectionNews::Started(term) = observer.next().await.unwrap() {
            return term.leader.unwrap().id;
        }
    }
}

/// Needs PostgreSQL; `.ci/run` runs it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs pg_virtualenv of Debian's postgresql-common"]
async fn a_stale_holder_is_refused_by_postgresql_and_by_tenure() {
    let server = Server::start().await;
    let output = Command::new("pg_virtualenv")
        .arg(env!("CARGO_BIN_EXE_fenced_lock"))
        .env("TENURE_ENDPOINTS", &server.endpoint)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    for line in [
        "PostgreSQL refused the first worker",
        "Tenure refused the first worker",
        "balance in PostgreSQL: 10, in Tenure: 10",
    ] {
        assert!(said.contains(line), "{line} is not in:\n{said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_consumer_finds_those_that_serve_and_leaves_those_that_do_not() {
    let server = Server::start().await;
    let program = env!("CARGO_BIN_EXE_service_registry");
    let mut greeters: Vec<Example> =
        ["a", "b", "c"].map(|id| Example::start(program, &["serve", id], &server)).into();
    greeters.iter_mut().for_each(|greeter| greeter.wait_for("serving"));
    let mut consumer = Example::start(program, &["consume"], &server);
    for id in ["a", "b", "c"] {
        consumer.wait_for(&format!("hello from {id}"));
    }

    server
        .client()
        .registry()
        .drain("greeter", "a", Drain { deadline_s: 60, ..Drain::default() })
        .await
        .unwrap();
    consumer.wait_for_silence_of("hello from a");
    assert!(!consumer.said.iter().any(|line| line.contains("failed")), "a drain is no error for anybody");

    greeters.remove(1).kill();
    consumer.wait_for_silence_of("b");
    consumer.wait_for("hello from c");
}
