//! No flag of etcd's may stop a server that an operator brings along, unless it asks for something Tenure must not
//! pretend to give. The lists below are etcd's, kept here apart from the tables they check.

#![allow(clippy::unwrap_used)]

use std::ffi::OsString;

use tenured::config::{self, Invocation};

/// Every flag of etcd's main branch with a text that etcd accepts. `=` before the text of a boolean.
const ETCD_FLAGS: &[(&str, &str)] = &[
    ("name", "x"),
    ("data-dir", "x"),
    ("wal-dir", "x"),
    ("snapshot-count", "10000"),
    ("heartbeat-interval", "100"),
    ("election-timeout", "1000"),
    ("initial-election-tick-advance", "=true"),
    ("listen-peer-urls", "http://localhost:2380"),
    ("listen-client-urls", "http://localhost:2379"),
    ("listen-client-http-urls", "http://localhost:2381"),
    ("max-wals", "5"),
    ("memory-mlock", "=true"),
    ("quota-backend-bytes", "8589934592"),
    ("backend-bbolt-freelist-type", "map"),
    ("backend-batch-interval", "10ms"),
    ("backend-batch-limit", "1000"),
    ("max-txn-ops", "128"),
    ("max-request-bytes", "1572864"),
    ("max-concurrent-streams", "4294967295"),
    ("grpc-keepalive-min-time", "5s"),
    ("grpc-keepalive-interval", "2h"),
    ("grpc-keepalive-timeout", "20s"),
    ("socket-reuse-port", "=true"),
    ("socket-reuse-address", "=true"),
    ("enable-grpc-gateway", "=true"),
    ("raft-read-timeout", "5s"),
    ("raft-write-timeout", "5s"),
    ("feature-gates", "InitialCorruptCheck=true"),
    ("initial-advertise-peer-urls", "http://localhost:2380"),
    ("initial-cluster", "default=http://localhost:2380"),
    ("initial-cluster-state", "new"),
    ("initial-cluster-token", "t"),
    ("advertise-client-urls", "http://localhost:2379"),
    ("discovery", ""),
    ("discovery-token", ""),
    ("discovery-endpoints", ""),
    ("discovery-dial-timeout", "2s"),
    ("discovery-request-timeout", "5s"),
    ("discovery-keepalive-time", "2s"),
    ("discovery-keepalive-timeout", "6s"),
    ("discovery-insecure-transport", "=true"),
    ("discovery-insecure-skip-tls-verify", "=true"),
    ("discovery-cert", "x"),
    ("discovery-key", "x"),
    ("discovery-cacert", "x"),
    ("discovery-user", "x"),
    ("discovery-password", "x"),
    ("discovery-fallback", "exit"),
    ("discovery-proxy", "x"),
    ("discovery-srv", ""),
    ("discovery-srv-name", "x"),
    ("strict-reconfig-check", "=true"),
    ("pre-vote", "=true"),
    ("auto-compaction-retention", "1h"),
    ("auto-compaction-mode", "periodic"),
    ("cert-file", ""),
    ("key-file", ""),
    ("client-cert-auth", "=false"),
    ("client-cert-file", ""),
    ("client-key-file", ""),
    ("client-crl-file", ""),
    ("client-cert-allowed-hostname", ""),
    ("trusted-ca-file", ""),
    ("auto-tls", "=false"),
    ("peer-cert-file", ""),
    ("peer-key-file", ""),
    ("peer-client-cert-auth", "=false"),
    ("peer-client-cert-file", ""),
    ("peer-client-key-file", ""),
    ("peer-trusted-ca-file", ""),
    ("peer-cert-allowed-cn", ""),
    ("peer-cert-allowed-hostname", ""),
    ("peer-auto-tls", "=false"),
    ("self-signed-cert-validity", "1"),
    ("peer-crl-file", ""),
    ("cipher-suites", "TLS_AES_128_GCM_SHA256"),
    ("cors", "*"),
    ("host-whitelist", "*"),
    ("tls-min-version", "TLS1.2"),
    ("tls-max-version", "TLS1.3"),
    ("auth-token", "simple"),
    ("bcrypt-cost", "10"),
    ("auth-token-ttl", "300"),
    ("enable-pprof", "=true"),
    ("metrics", "extensive"),
    ("listen-metrics-urls", "http://localhost:2382"),
    ("logger", "zap"),
    ("log-outputs", "stderr"),
    ("log-level", "info"),
    ("log-format", "json"),
    ("enable-log-rotation", "=true"),
    ("log-rotation-config-json", "{}"),
    ("warning-unary-request-duration", "300ms"),
    ("enable-distributed-tracing", "=true"),
    ("distributed-tracing-address", "localhost:4317"),
    ("distributed-tracing-service-name", "etcd"),
    ("distributed-tracing-instance-id", "x"),
    ("distributed-tracing-sampling-rate", "0"),
    ("corrupt-check-time", "1h"),
    ("compact-hash-check-time", "1m"),
    ("compaction-batch-limit", "1000"),
    ("peer-skip-client-san-verification", "=true"),
    ("watch-progress-notify-interval", "10m"),
    ("warning-apply-duration", "100ms"),
    ("bootstrap-defrag-threshold-megabytes", "1"),
    ("max-learners", "1"),
    ("compaction-sleep-interval", "10ms"),
    ("downgrade-check-time", "5s"),
    ("snapshot-catchup-entries", "5000"),
    ("force-new-cluster", "=false"),
    ("unsafe-no-fsync", "=true"),
];

/// Names of etcd 3.4 to 3.6 that unit files still carry.
const FORMER_FLAGS: &[(&str, &str)] = &[
    ("experimental-initial-corrupt-check", "=true"),
    ("experimental-corrupt-check-time", "1h"),
    ("experimental-compact-hash-check-enabled", "=true"),
    ("experimental-compact-hash-check-time", "1m"),
    ("experimental-watch-progress-notify-interval", "5s"),
    ("experimental-compaction-batch-limit", "10"),
    ("experimental-compaction-sleep-interval", "10ms"),
    ("experimental-enable-lease-checkpoint", "=true"),
    ("experimental-enable-lease-checkpoint-persist", "=true"),
    ("experimental-warning-apply-duration", "100ms"),
    ("experimental-peer-skip-client-san-verification", "=true"),
    ("experimental-bootstrap-defrag-threshold-megabytes", "1"),
    ("experimental-max-learners", "2"),
    ("experimental-memory-mlock", "=true"),
    ("experimental-txn-mode-write-with-shared-buffer", "=false"),
    ("experimental-stop-grpc-service-on-defrag", "=true"),
    ("experimental-snapshot-catchup-entries", "5000"),
    ("experimental-enable-distributed-tracing", "=true"),
    ("experimental-distributed-tracing-address", "x"),
    ("experimental-distributed-tracing-service-name", "x"),
    ("experimental-distributed-tracing-instance-id", "x"),
    ("enable-v2", "=true"),
    ("max-snapshots", "5"),
    ("v2-deprecation", "not-yet"),
    ("proxy-failure-wait", "5000"),
    ("proxy-refresh-interval", "30000"),
    ("cluster-active-size", "=9"),
    ("cluster-remove-delay", "=1"),
    ("cluster-sync-interval", "=1"),
    ("config", "=x"),
    ("force", "=true"),
    ("max-result-buffer", "=1"),
    ("max-retry-attempts", "=1"),
    ("peer-heartbeat-interval", "=1"),
    ("peer-election-timeout", "=1"),
    ("retry-interval", "=1"),
    ("snapshot", "=true"),
    ("v", "=true"),
    ("vv", "=true"),
];

fn read(arguments: &[&str], environment: &[(&str, &str)]) -> Result<Vec<String>, String> {
    let environment = environment.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
    match config::read(arguments.iter().map(OsString::from), environment) {
        Ok(Invocation::Run { warnings, .. }) => Ok(warnings),
        other => Err(format!("{other:?}")),
    }
}

fn as_arguments(name: &str, text: &str) -> Vec<String> {
    match text.strip_prefix('=') {
        Some(text) => vec![format!("--{name}={text}")],
        None => vec![format!("--{name}"), text.to_owned()],
    }
}

/// With what etcd itself would ask for beside this flag.
fn accepted(name: &str, text: &str) -> Vec<String> {
    let mut arguments = as_arguments(name, text);
    if name == "listen-client-urls" {
        arguments.extend(as_arguments("advertise-client-urls", text));
    }
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    read(&arguments, &[]).unwrap_or_else(|error| panic!("{arguments:?}: {error}"))
}

fn help() -> String {
    match config::read([OsString::from("--help")], []) {
        Ok(Invocation::Print(text)) => text,
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_flag_of_etcd_is_implemented_or_warned_about() {
    let help = help();
    for (name, text) in ETCD_FLAGS {
        let warnings = accepted(name, text);
        let implemented = help.contains(&format!("--{name} <"));
        let asks_for_nothing = ["", "*", "=true", "=false", "basic"].contains(text);
        assert!(
            implemented || asks_for_nothing || warnings.iter().any(|warning| !warning.is_empty()),
            "--{name} {text} is neither implemented nor warned about: {warnings:?}"
        );
    }
}

#[test]
fn former_flags_are_accepted_with_a_warning() {
    for (name, text) in FORMER_FLAGS {
        let warnings = accepted(name, text);
        assert!(warnings[0].contains(&format!("--{name}")), "{name}: {warnings:?}");
    }
}

#[test]
fn every_flag_is_read_from_etcds_environment_too() {
    for (name, text) in ETCD_FLAGS.iter().chain(FORMER_FLAGS) {
        let variable = format!("ETCD_{}", name.to_uppercase().replace('-', "_"));
        let value = text.trim_start_matches('=');
        let mut environment = vec![(variable.as_str(), value)];
        if *name == "listen-client-urls" {
            environment.push(("ETCD_ADVERTISE_CLIENT_URLS", value));
        }
        let warnings = read(&[], &environment).unwrap_or_else(|error| panic!("{variable}: {error}"));
        assert!(!warnings.iter().any(|warning| warning.contains("no setting is called so")), "{warnings:?}");
    }
}

#[test]
fn old_names_set_the_new_ones() {
    let read = |arguments: &[&str]| match config::read(arguments.iter().map(OsString::from), []) {
        Ok(Invocation::Run { config, warnings }) => (config.compaction.batch_limit, warnings),
        other => panic!("{other:?}"),
    };
    let old = "--experimental-compaction-batch-limit=7";
    assert_eq!(
        read(&[old]),
        (
            7,
            vec![
                "--experimental-compaction-batch-limit is the old name of --compaction-batch-limit"
                    .to_owned()
            ]
        )
    );
    let (limit, warnings) = read(&[old, "--compaction-batch-limit=8"]);
    assert_eq!(limit, 8);
    assert!(warnings[0].contains("is not used"), "{warnings:?}");
}

/// To start without these would be to start without what the operator relies on.
#[test]
fn promises_that_cannot_be_kept_are_refused() {
    let cases = [
        ("cert-file", "x", "TLS is not available"),
        ("key-file", "x", "TLS is not available"),
        ("trusted-ca-file", "x", "TLS is not available"),
        ("client-cert-auth", "=true", "TLS is not available"),
        ("auto-tls", "=true", "TLS is not available"),
        ("peer-cert-file", "x", "TLS is not available"),
        ("peer-client-cert-auth", "=true", "TLS is not available"),
        ("peer-cert-allowed-cn", "x", "TLS is not available"),
        ("peer-auto-tls", "=true", "TLS is not available"),
        ("discovery", "https://x", "--initial-cluster"),
        ("discovery-srv", "example.com", "--initial-cluster"),
        ("proxy", "on", "no v2 proxy"),
    ];
    for (name, text, expected) in cases {
        let arguments = as_arguments(name, text);
        let error = config::read(arguments.iter().map(OsString::from), []).unwrap_err();
        assert_eq!(error.exit_code(), 1);
        assert!(error.to_string().starts_with(&format!("cannot honour --{name}=")), "{error}");
        assert!(error.to_string().contains(expected), "{error}");

        let variable = format!("TENURE_{}", name.to_uppercase().replace('-', "_"));
        let error = read(&[], &[(&variable, text.trim_start_matches('='))]).unwrap_err();
        assert!(error.contains(&variable), "{error}");
    }
}

#[test]
fn a_feature_gate_is_known_or_refused() {
    let warnings = read(&["--feature-gates=CompactHashCheck=true, LeaseCheckpoint=false"], &[]).unwrap();
    assert_eq!(warnings.len(), 2);
    for wrong in ["CompactHashCheck", "CompactHashCheck=maybe", "Unheard=true"] {
        assert!(read(&["--feature-gates", wrong], &[]).is_err(), "{wrong}");
    }
}
