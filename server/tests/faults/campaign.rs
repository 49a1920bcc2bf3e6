//! One cluster's life under load: faults one after the other, each from a calm beginning to a calm end, and at the end of all
//! the verdict on everything that any client was told.

use std::sync::Arc;
use std::time::Duration;

use prost::bytes::Bytes;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tenure_grpc::etcdserverpb::maintenance_client::MaintenanceClient;
use tenure_proto::etcdserverpb::HashKvRequest;
use tokio::time::{Instant, timeout};

use crate::caller::connect;
use crate::check::{self, Finding, Law, Verdict};
use crate::chronicle::{Change, Chronicle};
use crate::cluster::{Cluster, Design};
use crate::fault::Fault;
use crate::history::Recorder;
use crate::load::{Load, open};
use crate::probe::{all_serve, leader};

/// Between two faults.
const CALM: Duration = Duration::from_millis(700);
/// For reading a member's whole history.
const HISTORY_BOUND: Duration = Duration::from_secs(60);

/// What to do to what.
pub struct Plan {
    pub design: Design,
    pub seed: u64,
    pub faults: Vec<Fault>,
    /// How long each fault lasts: longer than an election, and than the shortest lease.
    pub lasting: Duration,
}

/// What came of it.
pub struct Report {
    pub verdict: Verdict,
    /// The faults that were not done, each with the reason.
    pub left_out: Vec<(Fault, String)>,
    pub done: usize,
}

pub async fn run(plan: &Plan) -> Report {
    let mut chance = StdRng::seed_from_u64(plan.seed);
    let mut cluster = Cluster::start(&plan.design);
    let size = cluster.members.len();
    let recorder = Arc::new(Recorder::start());
    let mut findings = Vec::new();
    let mut report = Report { verdict: Verdict::default(), left_out: Vec::new(), done: 0 };
    if let Err(finding) = all_serve(&mut cluster).await {
        cluster.keep_logs(plan.seed);
        report.verdict.findings.push(finding);
        return report;
    }
    let endpoints = Arc::new(cluster.endpoints());
    let mut load = Load::start(&endpoints, &recorder, plan.seed);
    for fault in &plan.faults {
        if let Some(why) = fault.impossible(&cluster) {
            eprintln!("  NOT RUN: {fault:?} on {size}: {why}");
            report.left_out.push((*fault, why));
            continue;
        }
        tokio::time::sleep(CALM).await;
        let (began, before) = (Instant::now(), recorder.operations());
        let leader = leader(&endpoints).await.unwrap_or(0);
        let what = fault.inflict(&mut cluster, leader, plan.lasting, &mut chance).await;
        let lasted = began.elapsed();
        let fallen = cluster.revive();
        let served = all_serve(&mut cluster).await;
        let recovered = began.elapsed() - lasted;
        report.done += 1;
        let asked = recorder.operations() - before;
        eprintln!(
            "  {fault:?} on {size}: {what}; {:.1} s, everybody served {:.1} s later, {asked} operations{}",
            lasted.as_secs_f32(),
            recovered.as_secs_f32(),
            if fallen > 0 { format!(", {fallen} had to be started again") } else { String::new() }
        );
        if let Err(finding) = served {
            findings.push(Finding { what: format!("after {fault:?}: {}", finding.what), ..finding });
            break;
        }
    }
    load.stop().await;
    report.verdict = judge(&mut cluster, &endpoints, &recorder, load, findings).await;
    if !report.verdict.findings.is_empty() {
        cluster.keep_logs(plan.seed);
    }
    report
}

/// Waits for the end of what the load left behind, then has everything judged.
async fn judge(
    cluster: &mut Cluster,
    endpoints: &[String],
    recorder: &Recorder,
    load: Load,
    mut findings: Vec<Finding>,
) -> Verdict {
    let histories = match all_serve(cluster).await {
        Ok(revision) => {
            load.told_up_to(revision).await;
            all_histories(endpoints, revision, &mut findings).await
        }
        Err(finding) => {
            findings.push(finding);
            Vec::new()
        }
    };
    load.hang_up().await;
    let recording = recorder.take();
    let Some(history) = histories.into_iter().next() else {
        return Verdict { findings, ..Verdict::default() };
    };
    let (chronicle, impossible) = Chronicle::new(history);
    findings.extend(impossible);
    findings.extend(check::left_over(&recording, &chronicle));
    let mut verdict = check::all(&recording, &chronicle);
    findings.append(&mut verdict.findings);
    let unknown = recording.operations.iter().filter(|operation| operation.done().is_none()).count();
    eprintln!(
        "  {} operations, {unknown} of them of unknown outcome or refused ({} of those happened); {} revisions; {}; {} keys too \
         hard for the search; {} findings",
        recording.operations.len(),
        verdict.unknown_happened,
        chronicle.last(),
        verdict.leases,
        verdict.undecided,
        findings.len(),
    );
    Verdict { findings, ..verdict }
}

/// Every member's whole history, which must be the same.
async fn all_histories(endpoints: &[String], revision: i64, findings: &mut Vec<Finding>) -> Vec<Vec<Change>> {
    let mut histories: Vec<Vec<Change>> = Vec::new();
    for (number, endpoint) in endpoints.iter().enumerate() {
        match timeout(HISTORY_BOUND, history(endpoint, revision)).await {
            Ok(Some(history)) => histories.push(history),
            _ => findings.push(Finding {
                law: Law::Recovery,
                what: format!(
                    "member {number} did not tell its history up to {revision} in {HISTORY_BOUND:?}"
                ),
            }),
        }
    }
    for (one, other) in histories.iter().zip(histories.iter().skip(1)) {
        if let Some((left, right)) = one.iter().zip(other).find(|(left, right)| left != right) {
            let what = format!("two members tell different histories: {left:?} and {right:?}");
            findings.push(Finding { law: Law::Agreement, what });
        } else if one.len() != other.len() {
            let what = format!("two members tell {} and {} changes", one.len(), other.len());
            findings.push(Finding { law: Law::Agreement, what });
        }
    }
    let mut hashes = Vec::new();
    for endpoint in endpoints {
        hashes.push(hash(endpoint, revision).await);
    }
    if hashes.iter().any(|hash| hash.is_none() || *hash != hashes[0]) {
        let what = format!("the members' hashes at {revision} are {hashes:?}");
        findings.push(Finding { law: Law::Agreement, what });
    }
    histories
}

async fn hash(endpoint: &str, revision: i64) -> Option<u32> {
    let mut client = MaintenanceClient::new(connect(endpoint).await?);
    let told = timeout(HISTORY_BOUND, client.hash_kv(HashKvRequest { revision })).await;
    Some(told.ok()?.ok()?.into_inner().hash)
}

async fn history(endpoint: &str, revision: i64) -> Option<Vec<Change>> {
    let mut changes: Vec<Change> = Vec::new();
    let everything = Bytes::from_static(b"\0");
    let mut stream = open(endpoint, &everything, &everything, 1).await?;
    while changes.last().map_or(1, |(last, _)| *last) < revision {
        for mut event in stream.message().await.ok()??.events {
            // What it replaced is checked where clients were told it.
            event.prev_kv = None;
            let at = event.kv.as_ref()?.mod_revision;
            match changes.last_mut() {
                Some((last, events)) if *last == at => events.push(event),
                _ => changes.push((at, vec![event])),
            }
        }
    }
    Some(changes)
}
