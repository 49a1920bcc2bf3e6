//! The page of metrics of a server at work: every name that people's dashboards and alerts read is there with a number from the start,
//! what happens moves the numbers, and every line is what Prometheus expects.
#![allow(clippy::unwrap_used)]

mod harness;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use harness::{Cluster, Launch, Server, eventually, get};
use tenure_grpc::etcdserverpb::kv_client::KvClient;
use tenure_grpc::etcdserverpb::lease_client::LeaseClient;
use tenure_grpc::etcdserverpb::maintenance_client::MaintenanceClient;
use tenure_grpc::tenure_v1::locks_client::LocksClient;
use tenure_grpc::tenure_v1::registry_client::RegistryClient;
use tenure_grpc::tenure_v1::sessions_client::SessionsClient;
use tenure_proto::etcdserverpb::{
    CompactionRequest, LeaseGrantRequest, PutRequest, RangeRequest, StatusRequest,
};
use tenure_proto::tenure::v1::{
    AcquireLockRequest, Health, LockSpec, OpenSessionRequest, RegisterRequest, Registration,
};

/// For anything that is to happen by itself.
const BOUND: Duration = Duration::from_secs(30);

/// What etcd-mixin's alerts and dashboard read, and what test suites and tools do, of those that a member has by itself.
const ALWAYS: &[&str] = &[
    "etcd_cluster_version",
    "etcd_debugging_lease_granted_total",
    "etcd_debugging_lease_renewed_total",
    "etcd_debugging_lease_revoked_total",
    "etcd_debugging_lease_ttl_total",
    "etcd_debugging_mvcc_compact_revision",
    "etcd_debugging_mvcc_current_revision",
    "etcd_debugging_mvcc_events_total",
    "etcd_debugging_mvcc_keys_total",
    "etcd_debugging_mvcc_pending_events_total",
    "etcd_debugging_mvcc_slow_watcher_total",
    "etcd_debugging_mvcc_watch_stream_total",
    "etcd_debugging_mvcc_watcher_total",
    "etcd_debugging_server_lease_expired_total",
    "etcd_disk_backend_commit_duration_seconds",
    "etcd_disk_backend_defrag_duration_seconds",
    "etcd_disk_wal_fsync_duration_seconds",
    "etcd_disk_wal_write_bytes_total",
    "etcd_disk_wal_write_duration_seconds",
    "etcd_mvcc_db_total_size_in_bytes",
    "etcd_mvcc_db_total_size_in_use_in_bytes",
    "etcd_mvcc_delete_total",
    "etcd_mvcc_put_total",
    "etcd_mvcc_range_total",
    "etcd_mvcc_txn_total",
    "etcd_network_client_grpc_received_bytes_total",
    "etcd_network_client_grpc_sent_bytes_total",
    "etcd_server_has_leader",
    "etcd_server_health_failures",
    "etcd_server_health_success",
    "etcd_server_heartbeat_send_failures_total",
    "etcd_server_id",
    "etcd_server_is_leader",
    "etcd_server_is_learner",
    "etcd_server_leader_changes_seen_total",
    "etcd_server_proposals_applied_total",
    "etcd_server_proposals_committed_total",
    "etcd_server_proposals_failed_total",
    "etcd_server_proposals_pending",
    "etcd_server_quota_backend_bytes",
    "etcd_server_slow_apply_total",
    "etcd_server_version",
    "grpc_server_handled_total",
    "grpc_server_handling_seconds",
    "grpc_server_msg_received_total",
    "grpc_server_msg_sent_total",
    "grpc_server_started_total",
    "os_fd_limit",
    "os_fd_used",
    "process_cpu_seconds_total",
    "process_max_fds",
    "process_open_fds",
    "process_resident_memory_bytes",
    "process_start_time_seconds",
    "process_virtual_memory_bytes",
    "promhttp_metric_handler_requests_total",
    "tenure_apply_duration_seconds",
    "tenure_build_info",
    "tenure_election_candidates",
    "tenure_election_terms_total",
    "tenure_elections_led",
    "tenure_lease_expiry_lateness_seconds",
    "tenure_lease_time_known",
    "tenure_leases",
    "tenure_lock_grants_total",
    "tenure_lock_holders",
    "tenure_lock_queue_length_max",
    "tenure_lock_waiters",
    "tenure_registry_instances",
    "tenure_registry_lost_total",
    "tenure_sessions",
    "tenure_watch_lag_revisions",
];

/// And of those that it has for each other member.
const OF_PEERS: &[&str] = &[
    "etcd_network_active_peers",
    "etcd_network_known_peers",
    "etcd_network_peer_received_bytes_total",
    "etcd_network_peer_round_trip_time_seconds",
    "etcd_network_peer_sent_bytes_total",
    "etcd_network_peer_sent_failures_total",
];

/// A page that was read: what each series says, and each name's kind.
struct Page {
    series: BTreeMap<String, f64>,
    kinds: BTreeMap<String, String>,
}

impl Page {
    fn of(port: u16) -> Page {
        let (head, body) = get(port, "/metrics");
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        assert!(head.contains("content-type: text/plain; version=0.0.4; charset=utf-8"), "{head}");
        Page::read(&body)
    }

    /// Panics at a line that is none of Prometheus' text format.
    fn read(body: &str) -> Page {
        let (mut series, mut kinds, mut explained) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
        for line in body.lines().filter(|line| !line.is_empty()) {
            if let Some(comment) = line.strip_prefix("# HELP ") {
                let (name, help) = comment.split_once(' ').unwrap();
                assert!(!help.is_empty() && explained.insert(name.to_owned()), "{line}");
            } else if let Some(comment) = line.strip_prefix("# TYPE ") {
                let (name, kind) = comment.split_once(' ').unwrap();
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                assert!(kinds.insert(name.to_owned(), kind.to_owned()).is_none(), "{line}");
            } else {
                let (name, value) = line.rsplit_once(' ').unwrap();
                let family = name.split('{').next().unwrap();
                let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| family.strip_suffix(end));
                let known = kinds.contains_key(family)
                    || base.is_some_and(|base| kinds.get(base).is_some_and(|kind| kind == "histogram"));
                assert!(known, "{line} comes without its TYPE");
                let value: f64 = value.parse().unwrap_or_else(|_| panic!("{line}"));
                assert!(series.insert(name.to_owned(), value).is_none(), "{line} is there twice");
            }
        }
        assert_eq!(explained, kinds.keys().cloned().collect(), "each has HELP and TYPE");
        Page { series, kinds }
    }

    fn value(&self, series: &str) -> f64 {
        *self.series.get(series).unwrap_or_else(|| panic!("{series} is not there"))
    }

    /// The sum of all series whose names begin so and contain all of that.
    fn sum(&self, name: &str, labels: &[&str]) -> f64 {
        let matches = |series: &&String| {
            series.split('{').next() == Some(name) && labels.iter().all(|label| series.contains(label))
        };
        let found: Vec<&String> = self.series.keys().filter(matches).collect();
        assert!(!found.is_empty(), "there is no {name} with {labels:?}");
        found.into_iter().map(|series| self.series[series]).sum()
    }
}

#[test]
fn every_name_is_there_from_the_start() {
    let server = Server::start();
    let page = Page::of(server.launch.client_port);
    let missing: Vec<_> = ALWAYS.iter().filter(|name| !page.kinds.contains_key(**name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
    let put = "grpc_type=\"unary\",grpc_service=\"etcdserverpb.KV\",grpc_method=\"Put\"";
    assert_eq!(page.value(&format!("grpc_server_started_total{{{put}}}")), 0.0);
    assert_eq!(page.value(&format!("grpc_server_handled_total{{{put},grpc_code=\"Unavailable\"}}")), 0.0);
    assert_eq!(page.value(&format!("grpc_server_handling_seconds_count{{{put}}}")), 0.0);
    assert_eq!(page.value("tenure_registry_instances{state=\"passing\"}"), 0.0);
    assert_eq!(page.value("tenure_lock_grants_total"), 0.0);
    assert_eq!((page.value("etcd_server_has_leader"), page.value("etcd_server_is_leader")), (1.0, 1.0));
    assert!(page.value("process_resident_memory_bytes") > 1e6);
    assert!(page.value("process_open_fds") > 3.0);
    // 2015, to exclude a wrong unit.
    assert!(page.value("process_start_time_seconds") > 1_420_000_000.0);
}

#[tokio::test]
async fn what_is_asked_of_the_store_is_counted() {
    let server = Server::start();
    let (port, endpoint) = (server.launch.client_port, server.endpoint());
    let before = Page::of(port);
    let mut kv = KvClient::connect(endpoint.clone()).await.unwrap();
    for number in 0..10 {
        let put = PutRequest { key: "a".into(), value: vec![number; 100].into(), ..Default::default() };
        kv.put(put).await.unwrap();
    }
    kv.range(RangeRequest { key: "a".into(), ..Default::default() }).await.unwrap();
    kv.compact(CompactionRequest { revision: 1_000, physical: false }).await.unwrap_err();
    let (status, _) = http_put(port);
    assert!(status.starts_with("HTTP/1.1 200"), "{status}");
    let page = Page::of(port);
    let put = ["grpc_method=\"Put\"", "etcdserverpb.KV"];
    assert_eq!(page.sum("grpc_server_started_total", &put), 11.0);
    assert_eq!(page.sum("grpc_server_handled_total", &[&put[..], &["grpc_code=\"OK\""]].concat()), 11.0);
    assert_eq!(page.sum("grpc_server_msg_received_total", &put), 11.0);
    assert_eq!(page.sum("grpc_server_msg_sent_total", &put), 11.0);
    assert_eq!(page.sum("grpc_server_handling_seconds_count", &put), 11.0);
    let refused = ["grpc_method=\"Compact\"", "grpc_code=\"OutOfRange\""];
    assert_eq!(page.sum("grpc_server_handled_total", &refused), 1.0);
    assert_eq!((page.value("etcd_mvcc_put_total"), page.value("etcd_mvcc_range_total")), (11.0, 1.0));
    assert_eq!(page.value("etcd_debugging_mvcc_keys_total"), 2.0);
    assert_eq!(page.value("etcd_debugging_mvcc_current_revision"), 12.0);
    let in_use = page.value("etcd_mvcc_db_total_size_in_use_in_bytes");
    assert!(in_use > 100.0 && page.value("etcd_mvcc_db_total_size_in_bytes") > 1_000.0 + in_use / 2.0);
    let status = MaintenanceClient::connect(endpoint).await.unwrap().status(StatusRequest {}).await;
    let status = status.unwrap().into_inner();
    assert_eq!(page.value("etcd_mvcc_db_total_size_in_bytes"), status.db_size as f64);
    assert_eq!(in_use, status.db_size_in_use as f64);
    for (name, least) in [
        ("etcd_disk_wal_fsync_duration_seconds_count", 10.0),
        ("etcd_disk_wal_write_bytes_total", 1_000.0),
        ("etcd_network_client_grpc_received_bytes_total", 1_000.0),
        ("etcd_network_client_grpc_sent_bytes_total", 500.0),
        ("etcd_server_proposals_applied_total", 10.0),
        ("tenure_apply_duration_seconds_count", 10.0),
    ] {
        let moved = page.value(name) - before.value(name);
        assert!(moved >= least, "{name} moved by {moved} and not by {least}");
    }
}

/// A put as JSON counts as the put that it is.
fn http_put(port: u16) -> (String, String) {
    let mut connection = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let body = r#"{"key":"Yg==","value":"Yg=="}"#;
    write!(
        connection,
        "POST /v3/kv/put HTTP/1.1\r\nHost: here\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

#[tokio::test]
async fn what_takes_too_long_is_logged() {
    let home = tempfile::tempdir().unwrap();
    let mut launch = Launch::alone(Launch::program_under_test(), home.path());
    let bounds = ["--warning-apply-duration", "0s", "--warning-unary-request-duration", "0s"];
    launch.extra.extend(bounds.map(str::to_owned));
    let server = Server::start_as(launch, home);
    let mut kv = KvClient::connect(server.endpoint()).await.unwrap();
    kv.put(PutRequest { key: "a".into(), ..Default::default() }).await.unwrap();
    for words in
        ["\"msg\":\"apply request took too long\"", "\"method\":\"/etcdserverpb.KV/Put\",\"code\":\"OK\""]
    {
        eventually(words, BOUND, || server.log().contains(words).then_some(()));
    }
    assert!(Page::of(server.launch.client_port).value("etcd_server_slow_apply_total") >= 1.0);
}

#[tokio::test]
async fn what_recipes_do_is_counted() {
    let server = Server::start();
    let (port, endpoint) = (server.launch.client_port, server.endpoint());
    let mut sessions = SessionsClient::connect(endpoint.clone()).await.unwrap();
    let mut open = async || {
        let request = OpenSessionRequest { ttl: 60, ..Default::default() };
        sessions.open(request).await.unwrap().into_inner().session.unwrap().id
    };
    let (holder, waiter) = (open().await, open().await);
    let mut locks = LocksClient::connect(endpoint.clone()).await.unwrap();
    let mut acquire = async |session_id, keep_place| {
        let locks_wanted = vec![LockSpec { name: "jobs/nightly".into(), ..Default::default() }];
        let request = AcquireLockRequest {
            locks: locks_wanted,
            session_id,
            owner_id: "x".into(),
            keep_place,
            wait_ms: Some(50),
            ..Default::default()
        };
        locks.acquire(request).await.unwrap();
    };
    acquire(holder, false).await;
    acquire(waiter, true).await;
    let mut registry = RegistryClient::connect(endpoint.clone()).await.unwrap();
    let registration = Registration {
        service: "web".into(),
        id: "1".into(),
        incarnation: 1,
        sequence: 1,
        ttl_s: 60,
        ..Default::default()
    };
    let health = Health::Passing as i32;
    let request = RegisterRequest { registration: Some(registration), health, ..Default::default() };
    registry.register(request).await.unwrap();
    let mut leases = LeaseClient::connect(endpoint).await.unwrap();
    leases.lease_grant(LeaseGrantRequest { ttl: 1, id: 77 }).await.unwrap();

    let page = Page::of(port);
    for (name, expected) in [
        ("tenure_sessions", 2.0),
        ("tenure_sessions_opened_total", 2.0),
        ("tenure_locks", 1.0),
        ("tenure_lock_holders", 1.0),
        ("tenure_lock_grants_total", 1.0),
        ("tenure_lock_waiters", 1.0),
        ("tenure_locks_contended", 1.0),
        ("tenure_lock_queue_length_max", 1.0),
        ("tenure_lock_queued_total", 1.0),
        ("tenure_registry_services", 1.0),
        ("tenure_registry_registered_total", 1.0),
        ("tenure_registry_instances{state=\"passing\"}", 1.0),
        ("tenure_registry_instances{state=\"lost\"}", 0.0),
    ] {
        assert_eq!(page.value(name), expected, "{name}");
    }
    assert!(!page.series.keys().any(|series| series.contains("nightly")), "no name is a label");
    let expired = || {
        let page = Page::of(port);
        (page.value("etcd_debugging_server_lease_expired_total") == 1.0).then_some(page)
    };
    let page = eventually("a lease that ran out is counted", BOUND, expired);
    assert_eq!(page.value("tenure_lease_expiry_lateness_seconds_count"), 1.0);
    assert!(page.value("tenure_lease_expiry_lateness_seconds_sum") >= 0.2);
}

#[tokio::test]
async fn members_tell_of_each_other() {
    let cluster = Cluster::start(3);
    let leader = cluster.leader().await;
    for (number, member) in cluster.members.iter().enumerate() {
        let there = || {
            let page = Page::of(member.launch.client_port);
            let both = |name| page.sum(name, &["{"]) > 0.0;
            let told =
                both("etcd_network_peer_sent_bytes_total") && both("etcd_network_peer_received_bytes_total");
            told.then_some(page)
        };
        let page = eventually("a member has spoken to others", BOUND, there);
        let missing: Vec<_> = OF_PEERS.iter().filter(|name| !page.kinds.contains_key(**name)).collect();
        assert!(missing.is_empty(), "{missing:?}");
        let leads = if number == leader { 1.0 } else { 0.0 };
        assert_eq!(page.value("etcd_server_is_leader"), leads);
        assert_eq!(page.sum("etcd_network_known_peers", &["Remote"]), 2.0);
        assert!(page.value("etcd_server_leader_changes_seen_total") >= 1.0);
        let round_trips = page.sum("etcd_network_peer_round_trip_time_seconds_count", &["To"]);
        assert!(round_trips > 0.0 || number != leader);
    }
}

#[test]
fn metrics_have_an_address_of_their_own() {
    let home = tempfile::tempdir().unwrap();
    let mut launch = Launch::alone(Launch::program_under_test(), home.path());
    let port = Launch::alone(Launch::program_under_test(), home.path()).client_port;
    launch.extra = vec![format!("--listen-metrics-urls=http://127.0.0.1:{port}")];
    let server = Server::start_as(launch, home);
    assert!(!server.log().contains("listen-metrics-urls"), "it is honoured");
    assert_eq!(Page::of(port).value("etcd_server_has_leader"), 1.0);
    for path in ["/health", "/livez", "/readyz"] {
        assert!(get(port, path).0.starts_with("HTTP/1.1 200"), "{path}");
    }
    assert!(get(port, "/v3/kv/range").0.starts_with("HTTP/1.1 404"));
    assert_eq!(Page::of(port).value("etcd_server_health_success"), 1.0);
}
