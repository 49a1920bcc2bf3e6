//! `tenure cluster`: one command starts the members, says what they say under their names, and ends them all.

#![allow(clippy::unwrap_used)]

mod fixture;

use std::net::TcpListener;

use fixture::{Client, Cluster, free_ports};

#[tokio::test]
async fn a_member_serves_until_the_runner_is_told_to_stop_and_keeps_its_data() {
    let home = tempfile::tempdir().unwrap();
    let port = free_ports(1);
    let cluster = Cluster::serving(home.path(), 1, port);
    assert!(cluster.printed.iter().any(|line| line.starts_with("m1 | ")), "{:?}", cluster.printed);
    Client::to(&cluster.endpoint(0)).put("kept", "for the next time", 0).await;
    cluster.stop();
    let again = Cluster::serving(home.path(), 1, port);
    assert_eq!(Client::to(&again.endpoint(0)).everything().await.count, 1);
    again.stop();
}

#[test]
fn a_taken_port_is_said_before_anything_starts() {
    let home = tempfile::tempdir().unwrap();
    let port = free_ports(2);
    let _taken = TcpListener::bind(("127.0.0.1", port + 11)).unwrap();
    let cluster = Cluster::start(&home.path().join("data"), 2, port);
    assert_eq!(cluster.end(), 1);
    assert!(!home.path().join("data").exists());
}
