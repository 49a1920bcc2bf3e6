//! The configuration file as an operator of etcd brings it along, and `tenured config check`.

#![allow(clippy::unwrap_used)]

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use tenured::config::{self, AutoCompaction, Config, Invocation, Report};
use tenured::logging::Output;

/// In the form of etcd's sample, with an operator's changes.
const ETCDS: &str = "\
name: 'infra1'
data-dir: /var/lib/etcd
wal-dir:
snapshot-count: 10000
heartbeat-interval: 200
election-timeout: 2000
quota-backend-bytes: 8589934592
listen-peer-urls: http://10.0.1.10:2380
listen-client-urls: http://10.0.1.10:2379,http://127.0.0.1:2379
max-snapshots: 5
max-wals: 5
cors:
initial-advertise-peer-urls: http://10.0.1.10:2380
advertise-client-urls: http://10.0.1.10:2379
discovery:
discovery-fallback: 'proxy'
initial-cluster: infra1=http://10.0.1.10:2380,infra2=http://10.0.1.11:2380
initial-cluster-token: 'etcd-cluster-1'
initial-cluster-state: 'new'
strict-reconfig-check: false
enable-pprof: true
proxy: 'off'
client-transport-security:
  cert-file:
  key-file:
  client-cert-auth: false
  trusted-ca-file:
  auto-tls: false
peer-transport-security:
  cert-file:
  client-cert-auth: false
self-signed-cert-validity: 1
log-level: debug
logger: zap
log-outputs: [stderr, /var/log/etcd.log]
force-new-cluster: false
auto-compaction-mode: periodic
auto-compaction-retention: \"1\"
cipher-suites: [
  TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
  TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384
]
tls-min-version: 'TLS1.2'
watch-progress-notify-interval: 5000000000
corrupt-check-time: 1h30m
max-request-bytes: 2MiB
socket-options:
  reuse-port: true
";

fn read(line: &str, environment: &[(&str, &str)], file: &str) -> Result<Invocation, config::Error> {
    let arguments = line.split_whitespace().map(OsString::from);
    let environment = environment.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
    config::read_with_files(arguments, environment, &|path| {
        assert_eq!(path, Path::new("t.yml"));
        Ok(file.as_bytes().to_vec())
    })
}

fn run_beside(line: &str, environment: &[(&str, &str)], file: &str) -> (Config, Vec<String>) {
    match read(line, environment, file) {
        Ok(Invocation::Run { config, warnings }) => (*config, warnings),
        other => panic!("{line}: {other:?}"),
    }
}

fn run(file: &str) -> (Config, Vec<String>) {
    run_beside("--config-file t.yml", &[], file)
}

fn refusal(file: &str) -> (u8, String) {
    let error = read("--config-file=t.yml", &[], file).err().unwrap_or_else(|| panic!("accepted: {file}"));
    (error.exit_code(), error.to_string().trim_end_matches("; see 'tenured --help'").to_owned())
}

fn check(line: &str, file: &str) -> Report {
    match read(line, &[], file) {
        Ok(Invocation::Check(report)) => report,
        other => panic!("{line}: {other:?}"),
    }
}

#[test]
fn etcds_file_is_read_as_etcd_reads_it() {
    let (config, warnings) = run(ETCDS);
    assert_eq!((config.name.as_str(), config.data_dir.as_path()), ("infra1", Path::new("/var/lib/etcd")));
    assert_eq!(config.wal_dir, None);
    assert_eq!(config.raft.heartbeat_interval, Duration::from_millis(200));
    assert_eq!(config.raft.election_timeout, Duration::from_secs(2));
    assert_eq!(config.raft.snapshot_count, 10_000);
    assert_eq!(config.limits.quota_bytes, Some(8 << 30));
    assert_eq!(config.limits.request_bytes_max, 2 << 20);
    assert_eq!(config.listen.client.len(), 2);
    assert!(config.listen.ports_shared && !config.membership.strict_reconfig_check);
    assert_eq!(config.bootstrap().unwrap().members.len(), 2);
    assert_eq!(config.compaction.auto, AutoCompaction::Periodic(Duration::from_secs(3600)));
    assert_eq!(config.watch_progress_notify_interval, Duration::from_secs(5));
    assert_eq!(config.corrupt_check_time, Duration::from_secs(5400));
    assert_eq!(config.log.outputs, [Output::Stderr, Output::File("/var/log/etcd.log".into())]);
    let unused = ["max-snapshots", "max-wals", "enable-pprof", "cipher-suites", "tls-min-version"];
    for key in unused {
        let warned = warnings.iter().any(|warning| warning.starts_with("t.yml:") && warning.contains(key));
        assert!(warned, "{key}: {warnings:?}");
    }
}

#[test]
fn beside_a_file_nothing_counts_and_that_is_said() {
    let environment = [("ETCD_DATA_DIR", "d"), ("TENURE_NAME", ""), ("ETCD_VERSION", "v3")];
    let (config, warnings) =
        run_beside("--name f --config-file t.yml --pre-vote=false", &environment, "log-level: warn");
    assert_eq!((config.name.as_str(), config.raft.pre_vote), ("default", true));
    assert_eq!(config.data_dir, Path::new("default.etcd"));
    let expected = "settings are read from t.yml alone, as etcd does with a configuration file; not used: \
                    --name, --pre-vote, ETCD_DATA_DIR";
    assert_eq!(warnings, [expected]);
}

#[test]
fn the_environment_names_a_file_too() {
    for variable in ["ETCD_CONFIG_FILE", "TENURE_CONFIG_FILE"] {
        let (config, warnings) = run_beside("", &[(variable, "t.yml")], "name: y");
        assert_eq!(config.name, "y");
        assert!(warnings.is_empty(), "{warnings:?}");
    }
    let both = [("ETCD_CONFIG_FILE", "other.yml")];
    assert_eq!(run_beside("--config-file t.yml", &both, "name: y").0.name, "y");
}

#[test]
fn a_silent_address_is_told_as_etcd_tells_it() {
    let (config, warnings) = run("listen-client-urls: http://10.0.0.1:2379");
    assert_eq!(config.advertise_client_urls[0].as_str(), "http://localhost:2379");
    assert!(warnings[0].contains("clients are told http://localhost:2379"), "{warnings:?}");
}

#[test]
fn refusals_name_file_line_and_key() {
    let cases = [
        (
            "name: a\nhartbeat-interval: 1\n",
            2,
            "t.yml:2: unknown key hartbeat-interval; did you mean heartbeat-interval?",
        ),
        (
            "name: a\n\nheartbeat-interval: fast\n",
            2,
            "t.yml:3: invalid value \"fast\" for heartbeat-interval: write a number of milliseconds, for example 100",
        ),
        (
            "peer-transport-security:\n  auto-tls: true\n",
            1,
            "t.yml:2: cannot honour peer-transport-security.auto-tls=\"true\": TLS is not available in this version yet; remove \
             it and use http:// URLs, or put a TLS proxy in front",
        ),
        (
            "grpc-keepalive-timeout: -5\n",
            2,
            "t.yml:1: invalid value \"-5\" for grpc-keepalive-timeout: a duration here cannot be negative",
        ),
        ("config-file: other.yml\n", 2, "t.yml:1: unknown key config-file; keys are the names of flags"),
        ("version: true\n", 2, "t.yml:1: unknown key version; keys are the names of flags"),
        (
            "election-timeout: 60000\n",
            1,
            "--election-timeout[60000ms] is too long, and should be set less than 50000ms",
        ),
        (
            "nam: a\nname: [b]\n",
            2,
            "t.yml:1: unknown key nam; did you mean name?; 1 more: 'tenured config check' with the same flags says all",
        ),
    ];
    for (file, code, expected) in cases {
        assert_eq!(refusal(file), (code, expected.to_owned()), "{file}");
    }
}

#[test]
fn what_is_no_configuration_is_refused_by_name() {
    let refused = |bytes: Vec<u8>| {
        let arguments = ["--config-file", "t.yml"].map(OsString::from);
        config::read_with_files(arguments, [], &|_| Ok(bytes.clone())).unwrap_err().to_string()
    };
    assert!(refused(vec![0xff, 0xfe]).contains("t.yml: it is not UTF-8"));
    assert!(refused(vec![b'#'; (1 << 20) + 1]).contains("1048577 bytes, 1048576 at the most"));
}

#[test]
fn a_check_says_what_would_be_used_and_from_where() {
    let report = check("config check t.yml", ETCDS);
    assert_eq!(report.exit_code, 0, "{report:?}");
    assert!(report.remarks.iter().all(|remark| remark.starts_with("warning: ")), "{report:?}");
    let line = |key: &str| {
        let found = report.settings.lines().find(|line| line.starts_with(&format!("{key}: ")));
        found
            .unwrap_or_else(|| panic!("no {key} in\n{}", report.settings))
            .split_whitespace()
            .collect::<Vec<_>>()
    };
    assert_eq!(line("name"), ["name:", "infra1", "#", "t.yml:1"]);
    assert_eq!(line("pre-vote"), ["pre-vote:", "true", "#", "default"]);
    assert_eq!(line("cors"), ["cors:", "\"*\"", "#", "default"]);
    assert_eq!(line("wal-dir"), ["wal-dir:", "#", "default"]);
    assert_eq!(line("socket-reuse-port"), ["socket-reuse-port:", "true", "#", "t.yml:48"]);
}

#[test]
fn what_a_check_prints_is_a_file_that_means_the_same() {
    let first = check("config check t.yml", ETCDS).settings;
    let (config, warnings) = run(&first);
    assert!(warnings.is_empty(), "{warnings:?}");
    assert_eq!(format!("{config:?}"), format!("{:?}", run(ETCDS).0));
    let values = |text: &str| -> Vec<String> {
        text.lines().map(|line| line.split(" # ").next().unwrap().trim_end().to_owned()).collect()
    };
    assert_eq!(values(&check("config check t.yml", &first).settings), values(&first));
}

#[test]
fn a_check_takes_flags_as_well() {
    let report = check("config check --name x --quota-backend-bytes=2GiB -pre-vote=false", "");
    assert_eq!((report.exit_code, report.remarks.as_slice()), (0, &[] as &[String]));
    for (key, value, origin) in [
        ("name", "x", "--name"),
        ("data-dir", "x.etcd", "default"),
        ("quota-backend-bytes", "2147483648", "--quota-backend-bytes"),
        ("initial-cluster", "x=http://localhost:2380", "default"),
    ] {
        let expected = format!("{:<80} # {origin}", format!("{key}: {value}"));
        assert!(report.settings.lines().any(|line| line == expected), "{expected}\n{}", report.settings);
    }
}

#[test]
fn a_check_finds_every_error_at_once() {
    let file = "nme: a\nheartbeat-interval: x\nname: ''\nlogger: capnslog\nclient-transport-security: {cert-file: c}\n\
                auto-compaction-mode: never\nmax-txn-ops: 0\n";
    let report = check("config check t.yml", file);
    assert_eq!((report.exit_code, report.settings.as_str()), (2, ""));
    let expected = [
        "error: t.yml:1: unknown key nme; did you mean name?",
        "error: t.yml:5: cannot honour client-transport-security.cert-file=\"c\": TLS is not available",
        "error: t.yml:2: invalid value \"x\" for heartbeat-interval: ",
        "error: t.yml:7: invalid value \"0\" for max-txn-ops: ",
        "error: unknown auto-compaction-mode \"never\"",
        "error: --logger=capnslog is removed",
    ];
    assert_eq!(report.remarks.len(), expected.len(), "{report:?}");
    for (remark, expected) in report.remarks.iter().zip(expected) {
        assert!(remark.starts_with(expected), "{remark}");
    }
    let together = check("config check --name= --logger foo --auto-compaction-mode never --log-level x", "");
    assert_eq!((together.exit_code, together.remarks.len()), (1, 4), "{together:?}");
    let contradiction = check("config check --initial-cluster b=http://localhost:2380", "");
    assert!(contradiction.remarks[0].starts_with("error: without data yet, this member would not start: "));
    assert_eq!(contradiction.exit_code, 1);
}

#[test]
fn a_check_is_asked_for_in_these_words() {
    for line in ["config", "config chek", "config --name x"] {
        let error = read(line, &[], "").unwrap_err().to_string();
        assert!(error.starts_with("write tenured config check [FILE] [flags]"), "{error}");
    }
    assert!(matches!(read("config check --help", &[], ""), Ok(Invocation::Print(_))));
}
