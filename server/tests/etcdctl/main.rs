//! The real etcdctl, run against real etcd and against Tenure: what it prints, and with what code it ends, must be the same.
//! `session.txt` is what it is told to do; etcd is asked live, so nothing here is a memory of what etcd once said. Where Tenure
//! differs on purpose, `differences.txt` says so and why, and a difference that is no longer one fails too.

#![allow(clippy::unwrap_used)]

mod differences;
#[path = "../harness/mod.rs"]
mod harness;
mod normal;
mod player;
mod script;

use std::path::Path;
use std::time::Duration;

use differences::Differences;
use harness::{Etcd, NEW, OLD, Program, Server};
use normal::MISSING;
use player::{Heard, play};
use script::Script;

#[test]
fn etcdctl_3_5_is_told_the_same_by_tenure_as_by_etcd() {
    compare(NEW, "session", include_str!("session.txt"));
}

#[test]
fn etcdctl_3_4_is_told_the_same_by_tenure_as_by_etcd() {
    compare(OLD, "session", include_str!("session.txt"));
}

/// One minute at 150 puts a second, with etcdctl's own verdict on rate, slowest and spread.
#[test]
#[ignore = "takes a minute; .ci/run asks for it"]
fn etcdctl_check_perf_passes() {
    let server = Server::start();
    let endpoints = format!("--endpoints={}", server.endpoint());
    let check = Program::start(&NEW.etcdctl(), &[&endpoints, "check", "perf", "--load=s"]);
    let finished = check.finish(Duration::from_secs(300));
    // Behind the last sign of the progress bar.
    eprintln!("{}", finished.stdout.rsplit('%').next().unwrap_or_default());
    assert_eq!(finished.code(), 0, "{}{}", finished.stdout, finished.stderr);
}

/// Plays the script with this release's client to etcd 3.5 and to the server under test, and compares step by step.
/// Both transcripts stay in cargo's directory for temporary files, to be read or compared whole.
fn compare(client: Etcd, name: &str, text: &str) {
    let script = Script::parse(text);
    let differences = Differences::of(client);
    let oracle = Server::start_program(NEW.server());
    let expected = play(&script, &client.etcdctl(), &oracle);
    drop(oracle);
    let server = Server::start();
    let heard = play(&script, &client.etcdctl(), &server);
    keep(&expected, &format!("{name}-{}-etcd.txt", client.version));
    keep(&heard, &format!("{name}-{}-tenure.txt", client.version));

    for step in &expected {
        assert!(
            !step.said.contains(MISSING),
            "line {} expects too much of etcd: {}\n{}",
            step.line,
            step.command,
            step.said
        );
    }
    let complaints: Vec<String> = expected
        .iter()
        .zip(&heard)
        .filter_map(|(etcd, tenure)| complain(&differences, etcd, tenure))
        .collect();
    eprintln!("{} steps compared with etcdctl {}", expected.len(), client.version);
    assert!(
        complaints.is_empty(),
        "etcdctl {}: {} of {} steps are wrong\n\n{}",
        client.version,
        complaints.len(),
        expected.len(),
        complaints.join("\n")
    );
}

fn keep(heard: &[Heard], name: &str) {
    let steps = heard.iter().map(|step| format!("> {}\n{}\n", step.command, step.said));
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(path, steps.collect::<String>()).expect("cargo made this directory");
}

fn complain(differences: &Differences, etcd: &Heard, tenure: &Heard) -> Option<String> {
    let same = etcd.said == tenure.said;
    match (same, differences.reason(&etcd.command)) {
        (true, None) => None,
        (false, Some(difference)) if tenure.said.contains(&difference.says) => None,
        (true, Some(_)) => Some(format!(
            "line {}: {}\n  no longer differs: strike it from differences.txt\n",
            etcd.line, etcd.command
        )),
        (false, _) => Some(format!(
            "line {}: {}\n{}{}",
            etcd.line,
            etcd.command,
            indented("etcd:   ", &etcd.said),
            indented("tenure: ", &tenure.said)
        )),
    }
}

fn indented(label: &str, text: &str) -> String {
    text.lines().map(|line| format!("  {label}{line}\n")).collect()
}
