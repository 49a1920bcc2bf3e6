//! The judges against real bugs: servers built with one are put through what brings it to light, and the right judge must say
//! so. If one of these tests fails, the fault tests' silence is worth nothing.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::campaign::{Plan, run};
use crate::check::Law;
use crate::cluster::Design;
use crate::fault::Fault;
use crate::{ONE_AT_A_TIME, harness};

/// A bug does not show at once: the fault may have come at a lucky moment.
const ATTEMPTS: u64 = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_planted_acknowledgement_before_the_disk_is_found() {
    must_be_found("AcknowledgeEarly", 1, &[Fault::KillAll, Fault::KillAll], &[Law::Linearizability]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_planted_loss_of_events_is_found() {
    must_be_found("DropEvents", 1, &[Fault::ClockAhead], &[Law::Watch]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_planted_read_of_what_is_here_is_found() {
    must_be_found("ReadLocally", 3, &[Fault::CutLeader], &[Law::Linearizability]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_planted_renewal_without_proof_is_found() {
    must_be_found("RenewUnproven", 3, &[Fault::CutLeader, Fault::PauseLeader], &[Law::Lease]).await;
}

async fn must_be_found(bug: &str, members: usize, faults: &[Fault], laws: &[Law]) {
    let _alone = ONE_AT_A_TIME.lock().await;
    let design = Design {
        program: tokio::task::block_in_place(build),
        members,
        guests: 0,
        environment: vec![("PLANTED_BUG".to_owned(), bug.to_owned())],
        volumes: false,
    };
    let seed = harness::seed();
    for attempt in 0..ATTEMPTS {
        let seed = seed.wrapping_add(attempt);
        eprintln!("{bug} planted in {members} members, seed {seed}");
        // A lease lives 4 s at the most, and an election and its extension come on top of that.
        let lasting = Duration::from_secs(if bug == "RenewUnproven" { 8 } else { 4 });
        let report = run(&Plan { design: design.clone(), seed, faults: faults.to_vec(), lasting }).await;
        let verdict = report.verdict;
        for finding in verdict.findings.iter().take(3) {
            eprintln!("  found {finding}");
        }
        if laws.iter().any(|law| verdict.breaks(*law)) {
            return;
        }
    }
    panic!("{bug} was planted, and no judge noticed in {ATTEMPTS} attempts");
}

/// The server with bugs, beside the one without, from what is mostly built already.
fn build() -> PathBuf {
    let built = std::path::Path::new(env!("CARGO_BIN_EXE_tenured")).parent().expect("it lies in a directory");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["build", "--locked", "--quiet", "--package", "tenured", "--features", "planted"])
        .args(["--example", "tenured-planted"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env("CARGO_TARGET_DIR", built.parent().expect("profiles lie in the target directory"))
        .status()
        .expect("cargo runs this test");
    assert!(status.success(), "the server with planted bugs cannot be built");
    built.join("examples/tenured-planted")
}
