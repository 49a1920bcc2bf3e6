//! Keys, transactions, leases, watches and members, from the command line.

#![allow(clippy::unwrap_used)]

mod fixture;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use fixture::{Cluster, free_ports, must, refused, tenure};
use serde_json::{Value, json};

fn json_of(words: &[&str]) -> Value {
    serde_json::from_str(&must(words)).unwrap()
}

#[test]
fn keys_transactions_and_leases() {
    let home = tempfile::tempdir().unwrap();
    let cluster = Cluster::serving(home.path(), 1, free_ports(1));
    let at = cluster.endpoint(0);
    let at = at.as_str();
    must(&["put", "jobs/1", "waiting", "--endpoints", at]);
    let lease = must(&["lease", "grant", "10m", "--endpoints", at]).trim().to_owned();
    must(&["put", "jobs/2", "running", "--lease", &lease, "--endpoints", at]);
    assert_eq!(must(&["get", "jobs/1", "--endpoints", at]), "waiting\n");
    let table = must(&["get", "jobs/", "--prefix", "--endpoints", at]);
    assert!(table.starts_with("KEY     VALUE    REVISION  LEASE\njobs/1  waiting"), "{table}");
    let pairs = json_of(&["get", "jobs/", "--prefix", "-o", "json", "--endpoints", at]);
    assert_eq!((&pairs[1]["key"], &pairs[1]["value"]), (&json!("jobs/2"), &json!("running")));
    let (code, complaint) = refused(&["get", "nothing", "--endpoints", at]);
    assert!(code == 1 && complaint.contains("no key nothing"), "{code}: {complaint}");

    let left = json_of(&["lease", "show", &lease, "-o", "json", "--endpoints", at]);
    assert_eq!((&left["granted"], &left["keys"]), (&json!(600), &json!(["jobs/2"])));
    assert!(must(&["lease", "ls", "--endpoints", at]).contains(&lease));
    must(&["lease", "renew", &lease, "--endpoints", at]);
    must(&["lease", "revoke", &lease, "--endpoints", at]);
    assert_eq!(refused(&["lease", "show", &lease, "--endpoints", at]).0, 1);

    let take = [
        "txn",
        "--when",
        "absent(leader)",
        "--then",
        "put leader me too",
        "--else",
        "get leader",
        "--endpoints",
        at,
    ];
    must(&take);
    let second = tenure(&take);
    assert_eq!((second.status.code(), &second.stdout[..]), (Some(1), &b"leader = me too\n"[..]));
    let (code, complaint) = refused(&["txn", "--when", "nonsense", "--endpoints", at]);
    assert!(code == 1 && complaint.contains("nonsense"), "{code}: {complaint}");
    assert_eq!(must(&["del", "jobs/", "--prefix", "--endpoints", at]), "1 removed\n");
    cluster.stop();
}

#[test]
fn what_was_watched_comes_a_line_each_into_a_pipe() {
    let home = tempfile::tempdir().unwrap();
    let cluster = Cluster::serving(home.path(), 1, free_ports(1));
    let at = cluster.endpoint(0);
    must(&["put", "k/1", "one", "--endpoints", &at]);
    let mut command = Command::new(env!("CARGO_BIN_EXE_tenure"));
    command.args(["watch", "k/", "--prefix", "--from", "1", "--endpoints", &at]);
    let mut watching = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(watching.stdout.take().unwrap()).lines();
    let mut line = || lines.next().unwrap().unwrap();
    assert!(line().ends_with("put  k/1 = one"));
    must(&["del", "k/1", "--endpoints", &at]);
    assert!(line().ends_with("del  k/1"));
    watching.kill().unwrap();
    watching.wait().unwrap();
    cluster.stop();
}

#[test]
fn members_and_how_they_are() {
    let home = tempfile::tempdir().unwrap();
    let cluster = Cluster::serving(home.path(), 1, free_ports(1));
    let at = cluster.endpoint(0);
    let members = json_of(&["member", "ls", "-o", "json", "--endpoints", &at]);
    assert_eq!((&members[0]["name"], &members[0]["learner"]), (&json!("m1"), &json!(false)));
    let nobody = format!("127.0.0.1:{}", free_ports(1));
    let output = tenure(&["endpoint", "status", "--endpoints", &format!("{at},{nobody}")]);
    let table = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert!(table.contains("leader") && table.contains("does not answer"), "{table}");
    cluster.stop();
}

#[test]
fn every_verb_explains_itself() {
    let help = must(&["--help"]);
    assert!(help.contains("Exit codes:") && !help.contains("__leash"));
    for verb in [
        "lock", "sem", "elect", "register", "ls", "show", "why", "queue", "history", "break", "transfer",
        "drain",
    ] {
        assert!(must(&[verb, "--help"]).contains("Examples:"), "{verb} has no examples");
    }
    for verb in ["watch", "get", "put", "del", "txn"] {
        assert!(must(&[verb, "--help"]).contains("Examples:"), "{verb} has no examples");
    }
    for shell in ["bash", "zsh", "fish"] {
        assert!(must(&["completion", shell]).contains("lock"));
    }
}
