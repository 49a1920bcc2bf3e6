//! The program itself against a small server in this process: what it reports must be what the server saw, and what the server
//! does wrong must be reported and end in the right exit code.
#![allow(clippy::unwrap_used)]

mod server;

use std::process::{Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use server::{Faults, Server};
use tokio::net::TcpListener;
use tokio::process::Command;

const SERVE_AT: &str = "TENURE_BENCH_TEST_SERVE_AT";
const SERVE_AS: &str = "TENURE_BENCH_TEST_SERVE_AS";

fn bench(arguments: &str, address: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tenure-bench"));
    command.args(arguments.split_whitespace());
    if !address.is_empty() {
        command.args(["--json", "--quiet", "--endpoints", address]);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

/// Exit code, the JSON object printed, and what was said on standard error.
fn read(output: Output) -> (i32, Value, String) {
    let said = String::from_utf8(output.stderr).unwrap();
    (output.status.code().unwrap(), serde_json::from_slice(&output.stdout).unwrap_or_default(), said)
}

async fn run(arguments: &str, faults: Faults) -> (Server, i32, Value, String) {
    let (server, address) = Server::start(faults).await;
    let (code, report, said) = read(bench(arguments, &address).output().await.unwrap());
    (server, code, report, said)
}

#[tokio::test]
async fn puts_are_counted_and_timed() {
    let (server, code, report, said) =
        run("put --total 500 --clients 20 --connections 3", Faults::default()).await;
    assert_eq!((code, server.state().puts), (0, 500), "{said}");
    assert_eq!(report["operations"], 500);
    assert_eq!(report["latency_us"]["count"], 500);
    assert_eq!(report["kinds"]["put"]["count"], 500);
    let (p50, max) = (&report["latency_us"]["p50"], &report["latency_us"]["max"]);
    assert!(p50.as_f64() > Some(0.0) && max.as_f64() >= p50.as_f64());
    assert!(report["throughput_per_s"].as_f64() > Some(0.0));
    assert_eq!(report["errors"], serde_json::json!({}));
}

#[tokio::test]
async fn refused_requests_are_counted_by_code_and_fail_the_run() {
    let faults = Faults { refuse_put_every: Some(10), ..Default::default() };
    let (server, code, report, said) = run("put --total 500 --clients 20", faults).await;
    assert_eq!((code, server.state().puts), (1, 500));
    assert_eq!((&report["operations"], &report["errors"]["Unavailable"]), (&450.into(), &50.into()));
    assert_eq!(report["first_errors"]["Unavailable"], "refused as told");
    assert!(said.contains("50 errors (10.000 % of requests), mostly Unavailable: refused as told"), "{said}");

    let tolerant = "put --total 100 --clients 20 --max-error-share 0.2";
    assert_eq!(run(tolerant, faults).await.1, 0);
}

#[tokio::test]
async fn reads_must_find_what_was_written() {
    let (_, code, report, said) = run("range --total 100 --keys 300 --span 10", Faults::default()).await;
    assert_eq!((code, &report["operations"]), (0, &100.into()), "{said}");
    assert_eq!(report["workload"], "range-10");

    let (_, code, report, _) = run("range --total 100 --keys 300 --no-fill", Faults::default()).await;
    assert_eq!((code, &report["errors"]["WrongAnswer"]), (1, &100.into()));
}

#[tokio::test]
async fn swaps_succeed_on_own_keys_and_race_on_shared_ones() {
    let (_, code, report, said) = run("txn --total 400 --clients 8", Faults::default()).await;
    assert_eq!((code, &report["kinds"]["swapped"]["count"]), (0, &400.into()), "{said}");

    for compare in ["mod", "version"] {
        let shared = format!("txn --total 400 --clients 8 --shared 1 --compare {compare}");
        let (server, code, report, said) = run(&shared, Faults::default()).await;
        let swapped = report["kinds"]["swapped"]["count"].as_i64().unwrap();
        let refused = report["kinds"]["refused"]["count"].as_i64().unwrap();
        assert_eq!((code, swapped + refused), (0, 400), "{said}");
        // The server counted the swaps as it applied them: in the version of the only key.
        assert_eq!(server.state().version_of_only_key(), swapped);
    }
}

#[tokio::test]
async fn each_grant_has_its_revoke() {
    let (server, code, report, said) = run("lease --total 100 --clients 5", Faults::default()).await;
    assert_eq!(code, 0, "{said}");
    let counts = ["grant", "revoke"].map(|kind| report["kinds"][kind]["count"].as_i64().unwrap());
    assert_eq!(counts, server.state().leases());
    assert_eq!(report["operations"], 100);
}

#[tokio::test]
async fn renewals_are_counted_and_a_lease_that_is_gone_is_an_error() {
    let renew = "keepalive --total 1000 --leases 50 --streams 3 --window 8";
    let (server, code, report, said) = run(renew, Faults::default()).await;
    assert_eq!((code, &report["operations"], server.state().renewals), (0, &1000.into(), 1000), "{said}");
    assert_eq!(server.state().leases(), [50, 50]);

    let (_, code, report, _) = run(renew, Faults { forget_leases: true, ..Default::default() }).await;
    assert_eq!((code, &report["errors"]["WrongAnswer"]), (1, &1000.into()));
}

#[tokio::test]
async fn every_event_reaches_every_watcher_or_the_run_fails() {
    for keys in ["", "--whole"] {
        let watch = format!("watch --total 50 --clients 2 --watchers 12 --streams 5 {keys}");
        let (server, code, report, said) = run(&watch, Faults::default()).await;
        assert_eq!((code, &report["operations"], server.state().events), (0, &600.into(), 600), "{said}");
        assert_eq!(report["latency_us"]["count"], 600);
        assert_eq!(report["kinds"]["put"]["count"], 50);
    }
    let lossy = Faults { lose_event_every: Some(100), ..Default::default() };
    let (_, code, report, said) =
        run("watch --total 50 --clients 2 --watchers 12 --silence 200ms", lossy).await;
    assert_eq!((code, &report["violations"][0]), (1, &"6 events of 50 puts were lost".into()), "{said}");
}

#[tokio::test]
async fn loading_writes_each_key_once() {
    for batch in [1, 7, 100] {
        let (server, code, report, said) =
            run(&format!("load --keys 250 --batch {batch}"), Faults::default()).await;
        assert_eq!(
            (code, &report["operations"], server.state().key_count()),
            (0, &250.into(), 250),
            "{said}"
        );
        assert_eq!(report["latency_us"]["count"], 250_u64.div_ceil(batch));
    }
}

#[tokio::test]
async fn an_interrupt_prints_what_was_measured() {
    let (server, address) = Server::start(Faults::default()).await;
    let child = bench("put --duration 1h --clients 4", &address).spawn().unwrap();
    while server.state().puts < 100 {
        tokio::task::yield_now().await;
    }
    let pid = i32::try_from(child.id().unwrap()).unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), Signal::INT).unwrap();
    let (code, report, said) = read(child.wait_with_output().await.unwrap());
    assert_eq!((code, report["operations"].as_u64()), (0, Some(server.state().puts)), "{said}");
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named() {
    let held = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = held.local_addr().unwrap().to_string();
    drop(held);
    let (code, report, said) = read(bench("put", &address).output().await.unwrap());
    assert_eq!((code, report), (2, Value::Null));
    assert!(said.contains(&format!("connect to {address}")), "{said}");
}

/// Not a test: this test program, started again by `compare` as the server of one side.
#[tokio::test]
#[ignore = "serves until killed, when told where"]
async fn serve() {
    let Ok(url) = std::env::var(SERVE_AT) else { return };
    let listener = TcpListener::bind(url.strip_prefix("http://").unwrap()).await.unwrap();
    let server = Server::default();
    server.state().member = std::env::var(SERVE_AS).unwrap().parse().unwrap();
    server.serve(listener).await;
}

fn server_command() -> String {
    let program = std::env::current_exe().unwrap();
    format!("{SERVE_AT}={{client}} {SERVE_AS}={{i}} '{}' --ignored --exact serve", program.display())
}

#[tokio::test]
async fn compare_measures_both_sides_in_every_round() {
    let mut compare =
        bench("compare --workloads put,watch --clients 4 --rounds 2 --duration 2s --warmup 10ms", "");
    let command = server_command();
    compare
        .args(["--a", &command, "--b", &command, "--name-a", "one", "--name-b", "two", "--json", "--quiet"]);
    let (code, report, said) = read(compare.output().await.unwrap());
    assert_eq!(code, 0, "{said}");
    assert_eq!(report["names"], serde_json::json!(["one", "two"]));
    for workload in ["put", "watch"] {
        for metric in ["throughput", "p50", "p99", "server CPU", "peak RSS"] {
            let rows = report["rows"].as_array().unwrap();
            let row = rows.iter().find(|row| row["workload"] == workload && row["metric"] == metric).unwrap();
            let rounds = (row["a"].as_array().map(Vec::len), row["b"].as_array().map(Vec::len));
            assert_eq!(rounds, (Some(2), Some(2)), "{workload} {metric}");
        }
    }
}

#[tokio::test]
async fn keys_lost_in_a_restart_are_noticed() {
    let mut compare = bench("compare --workloads restart --restart-keys 500 --rounds 1 --quiet", "");
    let command = server_command();
    compare.args(["--a", &command, "--b", &command]);
    let (code, _, said) = read(compare.output().await.unwrap());
    assert_eq!(code, 1);
    assert!(said.contains("500 of 500 keys were lost in the restart"), "{said}");
}

/// The table row of one metric, for side A.
fn values(report: &Value, metric: &str) -> Vec<f64> {
    let rows = report["rows"].as_array().unwrap();
    let row = rows.iter().find(|row| row["metric"] == metric).unwrap();
    row["a"].as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect()
}

/// Three servers that know nothing of each other are hardly away when the first of them is killed, and none lags behind.
async fn among_three(arguments: &str) -> (i32, Value, String) {
    // Members are killed and started again at their ports, which another cluster that starts meanwhile may have taken.
    static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    let _turn = TURN.lock().await;
    let mut compare = bench(arguments, "");
    compare.args(["--a", &server_command(), "--rounds", "1", "--members", "3", "--json", "--quiet"]);
    read(compare.output().await.unwrap())
}

#[tokio::test]
async fn leaders_are_killed_one_after_the_other_and_started_again() {
    let (code, report, said) = among_three("compare --workloads failover --failover-rounds 2").await;
    assert_eq!(code, 0, "{said}");
    assert_eq!(values(&report, "leaders killed"), [2.0]);
    for metric in ["put away, median", "get away, worst", "back and caught up, median"] {
        assert!(values(&report, metric)[0] > 0.0, "{metric}");
    }
    assert!(values(&report, "failed calls")[0] > 0.0, "the killed member's clients were cut off");
}

#[tokio::test]
async fn a_follower_misses_writes_and_is_seen_to_be_back() {
    for by in ["kill", "pause"] {
        let catch_up = format!(
            "compare --workloads catch-up --catch-up-by {by} --catch-up-writes 500 --clients 4 --duration 1s --warmup 10ms"
        );
        let (code, report, said) = among_three(&catch_up).await;
        assert_eq!(code, 0, "{said}");
        assert_eq!(values(&report, "missed writes"), [500.0]);
        assert!(values(&report, "rate kept")[0] > 0.0);
    }
}

#[tokio::test]
async fn a_cluster_of_two_cannot_spare_a_member() {
    let mut compare = bench("compare --workloads failover --rounds 1 --members 2 --quiet", "");
    compare.args(["--a", &server_command()]);
    let (_, _, said) = read(compare.output().await.unwrap());
    assert!(said.contains("use --members 3"), "{said}");
}

#[tokio::test]
async fn leases_that_end_together_are_counted_in_log_entries_beside_the_load_of_others() {
    let mass = "mass-expiry --leases 50 --ttl 5 --rate 200 --clients 4";
    let (_, code, report, said) = run(mass, Faults::default()).await;
    assert_eq!((code, &report["facts"]["leases"]), (0, &50.0.into()), "{said}");
    assert_eq!(report["facts"]["log entries to remove them"], 50.0);
    assert_eq!(report["facts"]["log entries to count them"], 0.0);
    for kind in ["put before", "get before", "put", "get"] {
        assert!(report["kinds"][kind]["count"].as_u64() > Some(0), "{kind}");
    }

    let (_, code, _, said) = run(mass, Faults { hasty: true, ..Default::default() }).await;
    assert_eq!(code, 1);
    assert!(said.contains("50 leases expired before their time"), "{said}");
}

#[tokio::test]
async fn a_side_that_does_not_start_is_shown_with_its_log() {
    let mut compare = bench("compare --workloads put --clients 1 --rounds 1", "");
    compare.args(["--a", "ls /no/such/directory", "--b", "true"]);
    let (code, _, said) = read(compare.output().await.unwrap());
    assert_eq!(code, 1);
    assert!(said.contains("ls ended") && said.contains("its log ends with"), "{said}");
}
