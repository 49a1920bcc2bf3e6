//! The configuration as an operator meets it: what is read from where, what comes of it, and every refusal's words.

#![allow(clippy::unwrap_used)]

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tenured::config::{self, AutoCompaction, ClusterState, Config, Hosts, Invocation, Origins};
use tenured::logging::{Format, Output};

fn read(line: &str, environment: &[(&str, &str)]) -> Result<Invocation, config::Error> {
    let arguments = line.split_whitespace().map(OsString::from);
    let environment = environment.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
    config::read(arguments, environment)
}

fn run_in(line: &str, environment: &[(&str, &str)]) -> (Config, Vec<String>) {
    match read(line, environment) {
        Ok(Invocation::Run { config, warnings }) => (*config, warnings),
        other => panic!("{line} {environment:?}: {other:?}"),
    }
}

fn run(line: &str) -> Config {
    run_in(line, &[]).0
}

/// The exit code and the line that an operator sees.
fn refusal_in(line: &str, environment: &[(&str, &str)]) -> (u8, String) {
    let error = read(line, environment).err().unwrap_or_else(|| panic!("accepted: {line} {environment:?}"));
    let text = error.to_string();
    assert!(!text.contains('\n'), "{text}");
    let message =
        text.strip_suffix("; see 'tenured --help'").unwrap_or_else(|| panic!("no pointer to help: {text}"));
    (error.exit_code(), message.to_owned())
}

fn refusal(line: &str) -> (u8, String) {
    refusal_in(line, &[])
}

fn printed(line: &str) -> String {
    match read(line, &[]) {
        Ok(Invocation::Print(text)) => text,
        other => panic!("{line}: {other:?}"),
    }
}

fn texts<T: ToString>(urls: &[T]) -> Vec<String> {
    urls.iter().map(ToString::to_string).collect()
}

#[test]
fn without_flags_the_defaults_are_etcds() {
    let (config, warnings) = run_in("", &[]);
    assert_eq!(warnings, Vec::<String>::new());
    assert_eq!((config.name.as_str(), config.data_dir.as_path()), ("default", Path::new("default.etcd")));
    assert_eq!(config.wal_dir, None);
    assert_eq!(texts(&config.listen.client), ["http://localhost:2379"]);
    assert_eq!(config.listen.client[0].address().to_string(), "127.0.0.1:2379");
    assert_eq!(texts(&config.listen.peer), ["http://localhost:2380"]);
    assert!(config.listen.metrics.is_empty());
    assert_eq!(texts(&config.advertise_client_urls), ["http://localhost:2379"]);
    assert_eq!(texts(config.initial_advertise_peer_urls()), ["http://localhost:2380"]);
    assert_eq!(config.raft.heartbeat_interval, Duration::from_millis(100));
    assert_eq!(config.raft.election_timeout, Duration::from_secs(1));
    assert_eq!((config.raft.snapshot_count, config.raft.snapshot_catchup_entries), (100_000, 5_000));
    assert!(config.raft.pre_vote && config.membership.strict_reconfig_check);
    assert_eq!(config.membership.learners_max, 1);
    assert_eq!(config.limits.quota_bytes, Some(2 << 30));
    assert_eq!((config.limits.txn_ops_max, config.limits.request_bytes_max), (128, 1_572_864));
    assert_eq!(config.limits.concurrent_streams_max, u32::MAX);
    assert_eq!(config.keepalive.min_time, Duration::from_secs(5));
    assert_eq!(config.keepalive.interval, Some(Duration::from_secs(7200)));
    assert_eq!(config.keepalive.timeout, Some(Duration::from_secs(20)));
    assert_eq!(config.compaction.auto, AutoCompaction::Off);
    assert_eq!((config.compaction.batch_limit, config.compaction.sleep_interval.as_millis()), (1000, 10));
    assert_eq!((config.auth.bcrypt_cost, config.auth.token_ttl.as_secs()), (10, 300));
    assert_eq!(config.watch_progress_notify_interval, Duration::from_secs(600));
    assert_eq!(config.warning_apply_duration, Duration::from_millis(100));
    assert_eq!(config.warning_unary_request_duration, Duration::from_millis(300));
    assert_eq!((config.value_cache_bytes, config.runtime_threads), (128 << 20, 1));
    assert!(!config.memory_locked && !config.listen.ports_shared && config.http.gateway);
    assert_eq!((config.http.origins, config.http.hosts), (Origins::All, Hosts::Any));
    assert_eq!((config.log.format, &config.log.outputs), (Format::Json, &vec![Output::Stderr]));
}

#[test]
fn the_default_member_has_etcds_ids() {
    let bootstrap = run("").bootstrap().unwrap();
    assert_eq!(bootstrap.state, ClusterState::New);
    assert_eq!(bootstrap.member_ids()["default"].to_string(), "8e9e05c52164694d");
    assert_eq!(bootstrap.cluster_id().to_string(), "cdf818194e3a8c32");
}

#[test]
fn a_test_harness_starts_a_member_like_this() {
    let config = run("--name default --data-dir D --listen-client-urls http://127.0.0.1:1 \
                      --advertise-client-urls http://127.0.0.1:1 --listen-peer-urls http://127.0.0.1:2 \
                      --initial-advertise-peer-urls http://127.0.0.1:2 --initial-cluster default=http://127.0.0.1:2");
    assert_eq!(config.data_dir, PathBuf::from("D"));
    assert_eq!(texts(&config.listen.client), ["http://127.0.0.1:1"]);
    assert_eq!(texts(&config.bootstrap().unwrap().members["default"]), ["http://127.0.0.1:2"]);
}

#[test]
fn the_command_line_is_gos() {
    for line in ["-name x", "--name x", "-name=x", "--name=x", "--name y --name x"] {
        assert_eq!(run(line).name, "x", "{line}");
    }
    assert_eq!(run("--name x").data_dir, PathBuf::from("x.etcd"));
    assert!(!run("-pre-vote=F --strict-reconfig-check=0").raft.pre_vote);
    assert_eq!(run("--quota-backend-bytes -1").limits.quota_bytes, None);
}

#[test]
fn what_has_nothing_to_act_on_yet_is_said_or_refused() {
    for flag in ["--unsafe-no-fsync", "--bcrypt-cost 12"] {
        let (_, warnings) = run_in(flag, &[]);
        assert!(warnings.iter().any(|warning| warning.contains("has no effect")), "{flag}: {warnings:?}");
    }
    let (code, message) = refusal("--force-new-cluster");
    assert!(code == 1 && message.contains("restore a backup"), "{message}");
}

#[test]
fn quantities_have_units() {
    let config = run("--quota-backend-bytes 8GiB --max-request-bytes 10MB --value-cache-bytes 0 \
                      --log-segment-bytes 128MiB --heartbeat-interval 200 --election-timeout 2s \
                      --grpc-keepalive-interval 0 --grpc-keepalive-timeout 0s --snapshot-count 0");
    assert_eq!(config.limits.quota_bytes, Some(8 << 30));
    assert_eq!((config.limits.request_bytes_max, config.value_cache_bytes), (10_000_000, 0));
    assert_eq!(config.raft.log_segment_bytes, 128 << 20);
    assert_eq!(config.raft.heartbeat_interval, Duration::from_millis(200));
    assert_eq!(config.raft.election_timeout, Duration::from_secs(2));
    assert_eq!((config.keepalive.interval, config.keepalive.timeout), (None, None));
    assert_eq!(config.raft.snapshot_count, 100_000);
}

#[test]
fn who_may_ask_by_http_is_listed() {
    let config = run("--cors https://a.example.com,http://b:3000 --host-whitelist Db.example.com,127.0.0.1 \
                      --enable-grpc-gateway=false --socket-reuse-port --experimental-memory-mlock");
    let origins = ["https://a.example.com", "http://b:3000"].map(str::to_owned).to_vec();
    assert_eq!(config.http.origins, Origins::These(origins));
    assert!(config.http.hosts.allow("db.example.com:2379") && !config.http.hosts.allow("localhost"));
    assert!(!config.http.gateway && config.listen.ports_shared && config.memory_locked);
    let expected = "invalid value \"example.com\" for --cors: URL scheme must be http or https: example.com; \
                    write for example http://example.com";
    assert_eq!(refusal("--cors example.com"), (2, expected.to_owned()));
    let expected = "invalid value \"http://a\" for --host-whitelist: \"http://a\" is no host name; \
                    write names or addresses, such as db.example.com";
    assert_eq!(refusal("--host-whitelist http://a"), (2, expected.to_owned()));
}

#[test]
fn retention_is_read_by_its_mode() {
    let hours = |hours: u64| AutoCompaction::Periodic(Duration::from_secs(hours * 3600));
    let cases = [
        ("--auto-compaction-retention 5", hours(5)),
        ("--auto-compaction-retention 24h", hours(24)),
        ("--auto-compaction-retention 30m", AutoCompaction::Periodic(Duration::from_secs(1800))),
        ("--auto-compaction-retention 0s", AutoCompaction::Off),
        ("--auto-compaction-mode revision --auto-compaction-retention 1000", AutoCompaction::Revision(1000)),
        ("--auto-compaction-mode revision", AutoCompaction::Off),
    ];
    for (line, expected) in cases {
        assert_eq!(run(line).compaction.auto, expected, "{line}");
    }
}

#[test]
fn log_flags_are_those_of_etcd() {
    let log =
        run("--log-level debug --log-format console --log-outputs stdout,/var/log/t.log,stdout --logger zap")
            .log;
    assert_eq!(log.level.to_string(), "debug");
    assert_eq!(log.format, Format::Console);
    assert_eq!(log.outputs, [Output::Stdout, Output::File(PathBuf::from("/var/log/t.log"))]);
    for (name, level) in [("warn", "warn"), ("error", "error"), ("panic", "error"), ("fatal", "error")] {
        assert_eq!(run(&format!("--log-level={name}")).log.level.to_string(), level);
    }
}

#[test]
fn the_environment_is_read_ours_first() {
    let (config, warnings) = run_in("", &[("ETCD_NAME", "e"), ("ETCD_PRE_VOTE", "false"), ("PATH", "/bin")]);
    assert_eq!((config.name.as_str(), config.raft.pre_vote), ("e", false));
    assert!(warnings.is_empty(), "{warnings:?}");

    let (config, warnings) = run_in("", &[("ETCD_NAME", "e"), ("TENURE_NAME", "t")]);
    assert_eq!(config.name, "t");
    assert_eq!(warnings, ["ETCD_NAME is not used: TENURE_NAME is given too and counts"]);

    let (config, warnings) = run_in("--name f", &[("TENURE_NAME", "t"), ("ETCD_NAME", "")]);
    assert_eq!(config.name, "f");
    assert_eq!(warnings, ["TENURE_NAME is not used: --name is given too and counts"]);
}

#[test]
fn a_flag_and_etcds_variable_conflict_as_in_etcd() {
    let (code, text) = refusal_in("--name f", &[("ETCD_NAME", "f")]);
    assert_eq!(code, 1);
    let expected =
        "conflicting environment variable ETCD_NAME is shadowed by the flag --name; remove one of the two";
    assert_eq!(text, expected);
}

#[test]
fn unknown_variables_are_only_mentioned() {
    let environment =
        [("ETCD_VERSION", "v3"), ("ETCD_PORT", "tcp://x"), ("TENURE_NAEM", "x"), ("TENURE_HELP", "true")];
    let (config, warnings) = run_in("", &environment);
    assert_eq!(config.name, "default");
    assert_eq!(warnings, ["no setting is called so, ignored: TENURE_HELP, TENURE_NAEM, ETCD_PORT"]);
}

#[test]
fn what_cannot_be_read_ends_with_2() {
    let cases = [
        ("--nonsense", "flag provided but not defined: --nonsense"),
        ("--data-dri x", "flag provided but not defined: --data-dri; did you mean --data-dir?"),
        ("--max-txn-ops", "flag needs an argument: --max-txn-ops"),
        ("---name x", "bad flag syntax: \"---name\""),
        ("gateway start", "\"gateway\" is not a valid flag; the only subcommand is 'tenured config check'"),
        ("--pre-vote yes", "\"yes\" is not a valid flag; the value of --pre-vote is written --pre-vote=yes"),
        ("--pre-vote=yes", "invalid value \"yes\" for --pre-vote: it must be true or false"),
        ("--max-txn-ops 0", "invalid value \"0\" for --max-txn-ops: 0 is not in 1..=4294967295"),
        (
            "--max-txn-ops x",
            "invalid value \"x\" for --max-txn-ops: it must be a whole number, and not too large",
        ),
        ("--bcrypt-cost 3", "invalid value \"3\" for --bcrypt-cost: 3 is not in 4..=31"),
        ("--runtime-threads 0", "invalid value \"0\" for --runtime-threads: 0 is not in 1..=256"),
        (
            "--initial-cluster-state foo",
            "invalid value \"foo\" for --initial-cluster-state: it must be new or existing",
        ),
        ("--log-format xml", "invalid value \"xml\" for --log-format: it must be json or console"),
        (
            "--heartbeat-interval 1x",
            "invalid value \"1x\" for --heartbeat-interval: write a number of milliseconds, for example 100",
        ),
        (
            "--grpc-keepalive-timeout 5",
            "invalid value \"5\" for --grpc-keepalive-timeout: it has no unit; write for example 5s or 5ms",
        ),
        (
            "--max-request-bytes 1.5XB",
            "invalid value \"1.5XB\" for --max-request-bytes: it is not a size; write bytes or for example 512MB or 2GiB",
        ),
        (
            "--listen-peer-urls localhost:2380",
            "invalid value \"localhost:2380\" for --listen-peer-urls: URL scheme must be http or https: localhost:2380; \
             write for example http://10.0.0.1:2379",
        ),
        (
            "--advertise-client-urls http://a:1,http://b",
            "invalid value \"http://a:1,http://b\" for --advertise-client-urls: URL address does not have the form \
             \"host:port\": http://b; write for example http://10.0.0.1:2379",
        ),
        (
            "--listen-client-urls http://example.com:2379",
            "invalid value \"http://example.com:2379\" for --listen-client-urls: expected IP in URL for binding \
             (http://example.com:2379); write for example http://10.0.0.1:2379",
        ),
        (
            "--listen-client-urls https://0.0.0.0:2379",
            "invalid value \"https://0.0.0.0:2379\" for --listen-client-urls: TLS is not available in this version yet, \
             use http://: https://0.0.0.0:2379; write for example http://10.0.0.1:2379",
        ),
        (
            "--listen-metrics-urls=",
            "invalid value \"\" for --listen-metrics-urls: it names no URL; write for example http://10.0.0.1:2379",
        ),
        (
            "--feature-gates X=true",
            "invalid value \"X=true\" for --feature-gates: unrecognized feature gate: \"X\"",
        ),
    ];
    for (line, expected) in cases {
        assert_eq!(refusal(line), (2, expected.to_owned()), "{line}");
    }
    let (code, text) = refusal_in("", &[("ETCD_HEARTBEAT_INTERVAL", "y")]);
    assert_eq!(code, 2);
    assert!(text.starts_with("invalid value \"y\" for ETCD_HEARTBEAT_INTERVAL: "), "{text}");
}

#[test]
fn what_cannot_be_honoured_ends_with_1() {
    let cases = [
        (
            "--listen-client-urls http://127.0.0.1:2379",
            "--advertise-client-urls is required when --listen-client-urls is set explicitly",
        ),
        (
            "--heartbeat-interval 300",
            "--election-timeout[1000ms] should be at least as 5 times as --heartbeat-interval[300ms]",
        ),
        (
            "--election-timeout 60000",
            "--election-timeout[60000ms] is too long, and should be set less than 50000ms",
        ),
        ("--heartbeat-interval 0", "--heartbeat-interval must be >0 (set to 0ms)"),
        ("--election-timeout 0", "--election-timeout must be >0 (set to 0ms)"),
        ("--auto-compaction-mode foo", "unknown auto-compaction-mode \"foo\"; it is periodic or revision"),
        ("--auto-compaction-mode=", "undefined auto-compaction-mode; it is periodic or revision"),
        (
            "--auto-compaction-retention foo",
            "error parsing --auto-compaction-retention \"foo\": it is not a duration; write for example 300ms, 5s or 1h30m",
        ),
        (
            "--auto-compaction-mode revision --auto-compaction-retention 5h",
            "error parsing --auto-compaction-retention \"5h\": in mode revision it is a number of revisions, for example 1000",
        ),
        ("--name=", "--name is empty; give each member a name of its own"),
        (
            "--max-request-bytes 64MiB",
            "--log-segment-bytes[67108864] must be from 134217728 (twice --max-request-bytes) to 1073741824",
        ),
        ("--max-request-bytes 0", "--max-request-bytes[0] must be from 1 to 1073741824"),
        ("--logger capnslog", "--logger=capnslog is removed in v3.5; leave --logger out"),
        ("--logger foo", "unknown logger option \"foo\"; leave --logger out"),
        (
            "--log-level trace",
            "unrecognized level: \"trace\"; --log-level is debug, info, warn, error, panic or fatal",
        ),
        (
            "--name= --heartbeat-interval 300 --logger foo",
            "--name is empty; give each member a name of its own; 2 more: 'tenured config check' with the same flags says all",
        ),
        (
            "--config-file /none.yml",
            "cannot read the configuration file /none.yml: unsupported; check --config-file",
        ),
        ("--auth-token jwt", "--auth-token \"jwt\" is not available: the one kind of token is simple"),
    ];
    for (line, expected) in cases {
        assert_eq!(refusal(line), (1, expected.to_owned()), "{line}");
    }
}

#[test]
fn a_cluster_is_described_by_names_and_urls() {
    let config = run("--name b --initial-advertise-peer-urls http://h2:1 --initial-cluster-token t \
                      --initial-cluster a=http://h1:1,b=http://h2:1,c=http://h3:2,c=http://h3:1 \
                      --initial-cluster-state existing");
    let bootstrap = config.bootstrap().unwrap();
    assert_eq!((bootstrap.state, bootstrap.token.as_str()), (ClusterState::Existing, "t"));
    assert_eq!(bootstrap.members.keys().collect::<Vec<_>>(), ["a", "b", "c"]);
    assert_eq!(texts(&bootstrap.members["c"]), ["http://h3:1", "http://h3:2"]);
    assert_eq!(bootstrap.member_ids().len(), 3);

    let alone = run("--name x --initial-advertise-peer-urls http://h1:1").bootstrap().unwrap();
    assert_eq!(texts(&alone.members["x"]), ["http://h1:1"]);

    let spelled_otherwise = run("--initial-cluster default=http://127.0.0.1:2380");
    assert!(spelled_otherwise.bootstrap().is_ok());
}

#[test]
fn a_contradictory_cluster_is_refused_when_asked_for() {
    let cases = [
        (
            "--initial-cluster a=http://localhost:2380",
            "couldn't find local name \"default\" in the initial cluster configuration, which names a; \
             let --name and --initial-cluster agree",
        ),
        (
            "--initial-cluster default=http://localhost:12380",
            "default=http://localhost:12380 is missing from --initial-advertise-peer-urls=http://localhost:2380; \
             let the two agree",
        ),
        (
            "--initial-cluster default=http://h:1 --initial-advertise-peer-urls http://h:1,http://h:2",
            "default=http://h:2 is missing from --initial-cluster=http://h:1; let the two agree",
        ),
        (
            "--initial-cluster default=http://localhost:2380,b=http://localhost:2380",
            "initial cluster has duplicate url http://localhost:2380; each member needs its own",
        ),
        (
            "--initial-cluster foo",
            "error setting up initial cluster from \"foo\": \"foo\" is not name=url; write --initial-cluster \
             a=http://10.0.0.1:2380,b=...",
        ),
        ("--initial-cluster ,", "error setting up initial cluster from \",\": it names no member"),
        (
            "--initial-cluster a=h:1",
            "error setting up initial cluster from \"a=h:1\": URL scheme must be http or https: h:1; \
             write for example http://10.0.0.1:2379",
        ),
    ];
    for (line, expected) in cases {
        let error = run(line).bootstrap().unwrap_err();
        assert_eq!(error.to_string(), format!("{expected}; see 'tenured --help'"), "{line}");
        assert_eq!(error.exit_code(), 1);
    }
}

#[test]
fn urls_nobody_can_call_are_mentioned() {
    let warnings = |line| run_in(line, &[]).1;
    let unspecified = warnings("--advertise-client-urls http://0.0.0.0:2379");
    assert!(unspecified[0].contains("http://0.0.0.0:2379, which nobody can call"), "{unspecified:?}");
    let tls = warnings("--advertise-client-urls https://db.example.com:443");
    assert!(tls[0].contains("TLS is not spoken here"), "{tls:?}");
}

#[test]
fn listeners_for_http_join_the_others() {
    let line = "--listen-client-urls http://127.0.0.1:1 --advertise-client-urls http://127.0.0.1:1 \
                --listen-client-http-urls http://127.0.0.1:3 --listen-metrics-urls http://127.0.0.1:4";
    let (config, warnings) = run_in(line, &[]);
    assert_eq!(texts(&config.listen.client), ["http://127.0.0.1:1", "http://127.0.0.1:3"]);
    assert_eq!(texts(&config.listen.metrics), ["http://127.0.0.1:4"]);
    assert_eq!(warnings.len(), 1, "{warnings:?}");
}

#[test]
fn version_names_the_etcd_it_stands_in_for_first() {
    let text = printed("--version");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], format!("etcd Version: {}", config::ETCD_COMPATIBILITY_VERSION));
    assert!(lines[1].starts_with("Git SHA: ") && lines[2].starts_with("Go Version: "), "{text}");
    assert!(lines[3].starts_with("Go OS/Arch: "), "{text}");
    assert!(lines[4].starts_with("Tenure Version: ") && lines[5].starts_with("License: "), "{text}");
    assert_eq!(printed("-name x --version"), text);
    let parts: Vec<u32> =
        config::ETCD_COMPATIBILITY_VERSION.split('.').map(|part| part.parse().unwrap()).collect();
    assert_eq!(parts.len(), 3);
}

#[test]
fn help_is_grouped_and_shows_examples() {
    let help = printed("--help");
    for heading in ["Member:", "Clustering", "Limits:", "HTTP:", "History:", "Logging", "Unsafe", "Examples:"]
    {
        assert!(help.contains(heading), "{heading} is missing in\n{help}");
    }
    assert!(help.contains("--heartbeat-interval <MS>") && help.contains("[default: 100]"), "{help}");
    assert_eq!(printed("-h"), help);
}
