//! Real processes, real faults: a cluster is killed, stopped, cut in pieces, slowed, starved of disk and shown wrong clocks while
//! clients put, swap, read, watch and hold leases. Everything they were told is then held against what happened in the end:
//! nothing acknowledged is lost, nothing happens twice, no read is stale, no watch misses anything, no lease ends early, no
//! header goes back, all members agree. README.md has the commands and what was found.

#![allow(clippy::unwrap_used)]

mod caller;
mod campaign;
mod check;
mod chronicle;
mod cluster;
mod fault;
#[path = "../harness/mod.rs"]
mod harness;
mod history;
mod honest;
mod load;
mod network;
mod planted;
mod probe;
mod volume;

use std::time::Duration;

use campaign::{Plan, Report};
use cluster::Design;
use fault::Fault;
use harness::Launch;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

/// Two clusters at once would only measure each other.
static ONE_AT_A_TIME: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_keeps_its_promises_through_faults() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let seed = harness::seed();
    let sizes = sizes();
    eprintln!("TENURE_SEED={seed} TENURE_MEMBERS={sizes:?}");
    let mut broken = 0;
    let mut done = 0;
    for (number, members) in sizes.into_iter().enumerate() {
        let seed = seed.wrapping_add(number as u64);
        let plan = plan(members, seed);
        eprintln!("campaign {number}: {members} members, seed {seed}");
        let report = campaign::run(&plan).await;
        done += report.done;
        broken += tell(&report);
    }
    eprintln!("{done} episodes, {broken} findings");
    assert_eq!(broken, 0, "the cluster broke its promises; see above. TENURE_SEED={seed}");
}

/// The sizes of the clusters, one campaign for each.
fn sizes() -> Vec<usize> {
    match std::env::var("TENURE_MEMBERS") {
        Ok(text) => text.split(',').map(|size| size.parse().expect("TENURE_MEMBERS is like 3,5")).collect(),
        Err(_) if harness::long() => vec![3, 5, 3, 5],
        Err(_) => vec![3],
    }
}

/// All faults, in an order of chance; in the short form a choice of them.
fn plan(members: usize, seed: u64) -> Plan {
    let mut faults = match std::env::var("TENURE_FAULTS") {
        Ok(names) => names.split(',').map(named).collect(),
        Err(_) if harness::long() => fault::ALL.to_vec(),
        Err(_) => SHORT.to_vec(),
    };
    if std::env::var_os("TENURE_FAULTS").is_none() {
        faults.shuffle(&mut StdRng::seed_from_u64(seed));
    }
    let design = Design {
        program: Launch::program_under_test(),
        members,
        guests: 0,
        environment: Vec::new(),
        volumes: true,
    };
    let lasting = Duration::from_millis(if harness::long() { 6_000 } else { 3_000 });
    Plan { design, seed, faults, lasting }
}

/// One of each family, for every day.
const SHORT: &[Fault] = &[
    Fault::KillLeader,
    Fault::KillAll,
    Fault::PauseLeader,
    Fault::CutLeader,
    Fault::DeafLeader,
    Fault::Loss,
    Fault::StallDisk,
    Fault::FullDisk,
    Fault::ClockAhead,
];

fn named(name: &str) -> Fault {
    let known = fault::ALL.iter().find(|fault| format!("{fault:?}") == name);
    *known.unwrap_or_else(|| panic!("TENURE_FAULTS names {name}; there are {:?}", fault::ALL))
}

/// Prints what was found, and what was not looked for.
fn tell(report: &Report) -> usize {
    for finding in report.verdict.findings.iter().take(20) {
        eprintln!("  FOUND {finding}");
    }
    let left_out: Vec<String> = report.left_out.iter().map(|(fault, _)| format!("{fault:?}")).collect();
    if !left_out.is_empty() {
        eprintln!("  NOT RUN here: {}", left_out.join(", "));
    }
    report.verdict.findings.len()
}
