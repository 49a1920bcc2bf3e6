//! The honest test of a lock: sets that are read under the lock, thought about, and written back with the guard. The holders are
//! processes; they are stopped for longer than their sessions last, killed, and cut off from the members, while members are killed,
//! stopped, cut off and shown wrong clocks. A lease cannot keep two from believing that they hold a lock; the guard keeps the second
//! belief from doing harm. So no element whose writing was acknowledged is ever missing, and the same without the guard loses
//! elements, or the test would prove nothing.
//!
//! The short form takes half a minute. TENURE_LONG=1 goes on for half an hour, or for TENURE_SECONDS.

mod company;
mod holder;
mod judge;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use tenure_grpc::etcdserverpb::kv_client::KvClient;
use tenure_proto::etcdserverpb::{CompactionRequest, RangeRequest};
use tokio::time::{sleep, timeout};

use crate::caller::connect;
use crate::cluster::{Cluster, Design};
use crate::fault::Fault;
use crate::harness::{self, Launch};
use crate::probe::{all_serve, leader};
use crate::{ONE_AT_A_TIME, fault};
use company::Company;
use judge::{Verdict, judge};

const MEMBERS: usize = 3;
const HOLDERS: usize = 6;
/// So many, each with a lock of its own, that there is work while the holder of one is away.
const SETS: usize = 3;
/// Between two faults.
const CALM: Duration = Duration::from_millis(700);
/// Longer than a session, so that whoever is cut off has lost it.
const LASTING: Duration = Duration::from_millis(3_500);
/// For a single question to a cluster without faults.
const ANSWER_BOUND: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_acknowledged_element_is_lost_with_the_guard() {
    let _alone = ONE_AT_A_TIME.lock().await;
    // However long it takes until the guard had to refuse somebody.
    for _ in 0..3 {
        let verdict = run(true, time()).await;
        assert!(verdict.lost.is_empty(), "acknowledged, and gone: {:?}", verdict.lost);
        assert!(verdict.wrong.is_empty(), "{:#?}", verdict.wrong);
        if verdict.acknowledged > 0 && verdict.refused > 0 {
            return;
        }
    }
    panic!("it was too easy: nobody came too late");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn elements_are_lost_without_the_guard() {
    let _alone = ONE_AT_A_TIME.lock().await;
    // However long it takes until a holder comes back too late.
    for _ in 0..5 {
        if !run(false, Duration::from_secs(15)).await.lost.is_empty() {
            return;
        }
    }
    panic!("nothing was lost: the test does not bite");
}

fn time() -> Duration {
    let seconds = std::env::var("TENURE_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(if harness::long() { 1_800 } else { 25 }))
}

/// Lets holders add elements for some time while they and the members are disturbed, then holds what is there against what they
/// were told.
async fn run(guarded: bool, time: Duration) -> Verdict {
    let seed = harness::seed();
    eprintln!("TENURE_SEED={seed}, {} the guard, for {time:?}", if guarded { "with" } else { "without" });
    let mut chance = StdRng::seed_from_u64(seed);
    let program = Launch::program_under_test();
    let design =
        Design { program, members: MEMBERS, guests: HOLDERS, environment: Vec::new(), volumes: false };
    let mut cluster = Cluster::start(&design);
    all_serve(&mut cluster).await.unwrap_or_else(|finding| panic!("at the beginning {finding}"));
    let company = Company::start(&cluster, guarded, seed);
    let over = Arc::new(AtomicBool::new(false));
    let disturbing = tokio::spawn(company.disturb(over.clone(), StdRng::seed_from_u64(!seed)));
    disturb_members(&mut cluster, &mut chance, seed, Instant::now() + time).await;
    over.store(true, Ordering::Relaxed);
    let (entries, disturbed) = disturbing.await.unwrap().finish().await;
    eprintln!("  {disturbed}");
    let mut sets = Vec::new();
    for set in 0..SETS {
        sets.push(read(&cluster, set).await);
    }
    let verdict = judge(&entries, &sets, guarded);
    eprintln!("  {verdict}");
    if guarded && !(verdict.lost.is_empty() && verdict.wrong.is_empty()) {
        cluster.keep_logs(seed);
    }
    verdict
}

/// One fault after the other, in an order of chance, until time is up; with each, holders may be cut off as well.
async fn disturb_members(cluster: &mut Cluster, chance: &mut StdRng, seed: u64, end: Instant) {
    let endpoints = cluster.endpoints();
    let mut left = Vec::new();
    let mut done = 0;
    let possible: Vec<Fault> = fault::ALL
        .iter()
        .copied()
        .filter(|fault| match fault.impossible(cluster) {
            Some(why) => {
                eprintln!("  NOT RUN: {fault:?}: {why}");
                false
            }
            None => true,
        })
        .collect();
    while Instant::now() < end {
        if left.is_empty() {
            left.clone_from(&possible);
            left.shuffle(chance);
        }
        let fault = left.pop().expect("killing is possible everywhere");
        sleep(CALM).await;
        let leader = leader(&endpoints).await.unwrap_or(0);
        let cut = cut_holders(cluster, leader, chance);
        let what = fault.inflict(cluster, leader, LASTING, chance).await;
        if let Ok(network) = &mut cluster.network {
            network.heal();
        }
        cluster.revive();
        done += 1;
        eprintln!("  {done}: {fault:?}: {what}{cut}");
        if let Err(finding) = all_serve(cluster).await {
            cluster.keep_logs(seed);
            panic!("after {fault:?} {finding}");
        }
        compact(&endpoints[chance.random_range(0..MEMBERS)]).await;
    }
}

/// Mostly one holder hears of nobody and another one not of the leader, until the network is healed.
fn cut_holders(cluster: &mut Cluster, leader: usize, chance: &mut StdRng) -> String {
    let Ok(network) = &mut cluster.network else { return String::new() };
    if chance.random_bool(0.3) {
        return String::new();
    }
    let alone = MEMBERS + chance.random_range(0..HOLDERS);
    (0..MEMBERS).for_each(|member| network.cut(alone, member));
    let other = MEMBERS + chance.random_range(0..HOLDERS);
    network.cut(other, leader);
    format!("; holder {} cut off, holder {} from the leader", alone - MEMBERS, other - MEMBERS)
}

/// Each version of a set is as long as the set; nobody needs old ones.
async fn compact(endpoint: &str) {
    let Some(channel) = connect(endpoint).await else { return };
    let mut kv = KvClient::new(channel);
    let look = RangeRequest { key: holder::key(0).into(), count_only: true, ..RangeRequest::default() };
    let Ok(Ok(told)) = timeout(ANSWER_BOUND, kv.range(look)).await else { return };
    let revision = told.into_inner().header.unwrap_or_default().revision;
    // That somebody was faster, or that it takes long, is no harm.
    let _ = timeout(ANSWER_BOUND, kv.compact(CompactionRequest { revision, physical: false })).await;
}

async fn read(cluster: &Cluster, set: usize) -> BTreeSet<String> {
    let channel = connect(&cluster.members[0].endpoint).await.expect("it has just served");
    let read = RangeRequest { key: holder::key(set).into(), ..RangeRequest::default() };
    let told = timeout(ANSWER_BOUND, KvClient::new(channel).range(read)).await.expect("it has just served");
    let kvs = told.unwrap().into_inner().kvs;
    let text = kvs.first().map(|kv| String::from_utf8(kv.value.to_vec()).unwrap()).unwrap_or_default();
    text.split_whitespace().map(str::to_owned).collect()
}
