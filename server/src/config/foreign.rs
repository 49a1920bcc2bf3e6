//! Flags that etcd has, or had, and Tenure has no use for. People's unit files and manifests are full of them, so they
//! are accepted; but never silently, and never where ignoring one would take away something its author relies on (TLS,
//! who may connect, which cluster to join): those are refused while they ask for it.

use super::go_syntax::Kind;
use super::units;

/// What becomes of a foreign flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Treatment {
    /// A warning that ends with these words.
    Ignored(&'static str),
    /// The server does not start, for this reason.
    Refused(&'static str),
    /// Read as this flag.
    Renamed(&'static str),
    /// A list of etcd's feature gates.
    FeatureGates,
}

use Kind::{Boolean, Duration, List, Value};
use Treatment::{FeatureGates, Ignored, Refused, Renamed};

const NO_TLS: Treatment = Refused(
    "TLS is not available in this version yet; remove it and use http:// URLs, or put a TLS proxy in front",
);
const ONLY_WITH_TLS: Treatment =
    Ignored("it only has a meaning with TLS, which this version does not have yet");
const NO_DISCOVERY: Treatment = Refused("discovery is not available; list the members in --initial-cluster");
const ONLY_WITH_DISCOVERY: Treatment = Ignored("there is no discovery service here");
const NO_BBOLT: Treatment = Ignored("the storage engine is not bbolt and has no such setting");
const NO_V2: Treatment = Ignored("there is no v2 API here");
const NO_PROXY: Treatment = Refused("there is no v2 proxy here; clients connect to members themselves");
const ONLY_WITH_PROXY: Treatment = Ignored("there is no v2 proxy here");
const NO_TRACING: Treatment = Ignored("spans are not exported");
const NO_CORRUPTION_CHECK: Treatment =
    Ignored("members compare their history every --corrupt-check-time, not at other moments");
const CHECKPOINTS: Treatment = Ignored("remaining times of leases are always replicated here");
const LONG_GONE: Treatment = Ignored("etcd itself ignores it");
const OLD_FILES: Treatment = Ignored("old files are removed as soon as nobody needs them");

/// Name, kind, treatment.
const FOREIGN: &[(&str, Kind, Treatment)] = &[
    // Of etcd today: member.
    ("max-wals", Value, OLD_FILES),
    ("backend-bbolt-freelist-type", Value, NO_BBOLT),
    ("backend-batch-interval", Value, NO_BBOLT),
    ("backend-batch-limit", Value, NO_BBOLT),
    ("bootstrap-defrag-threshold-megabytes", Value, NO_BBOLT),
    (
        "initial-election-tick-advance",
        Boolean,
        Ignored("a first election is never waited for longer than needed"),
    ),
    ("socket-reuse-address", Boolean, Ignored("listeners always reuse addresses in TIME_WAIT")),
    ("raft-read-timeout", Value, Ignored("calls between members end with the election timeout")),
    ("raft-write-timeout", Value, Ignored("calls between members end with the election timeout")),
    ("feature-gates", Value, FeatureGates),
    ("downgrade-check-time", Value, Ignored("there is no older version to go back to")),
    // Clustering.
    ("discovery", Value, NO_DISCOVERY),
    ("discovery-token", Value, NO_DISCOVERY),
    ("discovery-endpoints", List, NO_DISCOVERY),
    ("discovery-srv", Value, NO_DISCOVERY),
    ("discovery-srv-name", Value, ONLY_WITH_DISCOVERY),
    ("discovery-dial-timeout", Value, ONLY_WITH_DISCOVERY),
    ("discovery-request-timeout", Value, ONLY_WITH_DISCOVERY),
    ("discovery-keepalive-time", Value, ONLY_WITH_DISCOVERY),
    ("discovery-keepalive-timeout", Value, ONLY_WITH_DISCOVERY),
    ("discovery-insecure-transport", Boolean, ONLY_WITH_DISCOVERY),
    ("discovery-insecure-skip-tls-verify", Boolean, ONLY_WITH_DISCOVERY),
    ("discovery-cert", Value, ONLY_WITH_DISCOVERY),
    ("discovery-key", Value, ONLY_WITH_DISCOVERY),
    ("discovery-cacert", Value, ONLY_WITH_DISCOVERY),
    ("discovery-user", Value, ONLY_WITH_DISCOVERY),
    ("discovery-password", Value, ONLY_WITH_DISCOVERY),
    ("discovery-fallback", Value, ONLY_WITH_DISCOVERY),
    ("discovery-proxy", Value, ONLY_WITH_DISCOVERY),
    // Security.
    ("cert-file", Value, NO_TLS),
    ("key-file", Value, NO_TLS),
    ("ca-file", Value, NO_TLS),
    ("trusted-ca-file", Value, NO_TLS),
    ("client-cert-auth", Boolean, NO_TLS),
    ("client-cert-file", Value, NO_TLS),
    ("client-key-file", Value, NO_TLS),
    ("client-crl-file", Value, NO_TLS),
    ("client-cert-allowed-hostname", List, NO_TLS),
    ("auto-tls", Boolean, NO_TLS),
    ("peer-cert-file", Value, NO_TLS),
    ("peer-key-file", Value, NO_TLS),
    ("peer-ca-file", Value, NO_TLS),
    ("peer-trusted-ca-file", Value, NO_TLS),
    ("peer-client-cert-auth", Boolean, NO_TLS),
    ("peer-client-cert-file", Value, NO_TLS),
    ("peer-client-key-file", Value, NO_TLS),
    ("peer-crl-file", Value, NO_TLS),
    ("peer-cert-allowed-cn", List, NO_TLS),
    ("peer-cert-allowed-hostname", List, NO_TLS),
    ("peer-auto-tls", Boolean, NO_TLS),
    ("peer-skip-client-san-verification", Boolean, ONLY_WITH_TLS),
    ("self-signed-cert-validity", Value, ONLY_WITH_TLS),
    ("cipher-suites", List, ONLY_WITH_TLS),
    ("tls-min-version", Value, ONLY_WITH_TLS),
    ("tls-max-version", Value, ONLY_WITH_TLS),
    // Monitoring, logging, tracing.
    ("enable-pprof", Boolean, Ignored("there is no pprof endpoint")),
    ("metrics", Value, Ignored("all metrics are always served, histograms too")),
    ("enable-log-rotation", Boolean, Ignored("log files are not rotated here; use logrotate or the journal")),
    (
        "log-rotation-config-json",
        Value,
        Ignored("log files are not rotated here; use logrotate or the journal"),
    ),
    ("disable-log-sampling", Boolean, Ignored("log lines are never sampled here")),
    ("enable-distributed-tracing", Boolean, NO_TRACING),
    ("distributed-tracing-address", Value, NO_TRACING),
    ("distributed-tracing-service-name", Value, NO_TRACING),
    ("distributed-tracing-instance-id", Value, NO_TRACING),
    ("distributed-tracing-sampling-rate", Value, NO_TRACING),
    ("compact-hash-check-time", Value, NO_CORRUPTION_CHECK),
    // Names that etcd 3.5 and 3.6 had.
    ("experimental-watch-progress-notify-interval", Duration, Renamed("watch-progress-notify-interval")),
    ("experimental-compaction-batch-limit", Value, Renamed("compaction-batch-limit")),
    ("experimental-compaction-sleep-interval", Duration, Renamed("compaction-sleep-interval")),
    ("experimental-warning-apply-duration", Duration, Renamed("warning-apply-duration")),
    ("experimental-warning-unary-request-duration", Duration, Renamed("warning-unary-request-duration")),
    ("experimental-max-learners", Value, Renamed("max-learners")),
    ("experimental-snapshot-catchup-entries", Value, Renamed("snapshot-catchup-entries")),
    ("experimental-initial-corrupt-check", Boolean, NO_CORRUPTION_CHECK),
    ("experimental-corrupt-check-time", Duration, Renamed("corrupt-check-time")),
    ("experimental-compact-hash-check-enabled", Boolean, NO_CORRUPTION_CHECK),
    ("experimental-compact-hash-check-time", Value, NO_CORRUPTION_CHECK),
    ("experimental-enable-lease-checkpoint", Boolean, CHECKPOINTS),
    ("experimental-enable-lease-checkpoint-persist", Boolean, CHECKPOINTS),
    ("experimental-enable-v2v3", Value, NO_V2),
    ("experimental-peer-skip-client-san-verification", Boolean, ONLY_WITH_TLS),
    ("experimental-bootstrap-defrag-threshold-megabytes", Value, NO_BBOLT),
    ("experimental-backend-bbolt-freelist-type", Value, NO_BBOLT),
    ("experimental-txn-mode-write-with-shared-buffer", Boolean, NO_BBOLT),
    ("experimental-stop-grpc-service-on-defrag", Boolean, NO_BBOLT),
    ("experimental-memory-mlock", Boolean, Renamed("memory-mlock")),
    ("experimental-downgrade-check-time", Value, Ignored("there is no older version to go back to")),
    (
        "experimental-wait-cluster-ready-timeout",
        Value,
        Ignored("clients are served at once and wait for a leader"),
    ),
    (
        "experimental-set-member-localaddr",
        Boolean,
        Ignored("the system chooses the address that calls leave from"),
    ),
    ("experimental-enable-distributed-tracing", Boolean, NO_TRACING),
    ("experimental-distributed-tracing-address", Value, NO_TRACING),
    ("experimental-distributed-tracing-service-name", Value, NO_TRACING),
    ("experimental-distributed-tracing-instance-id", Value, NO_TRACING),
    ("experimental-distributed-tracing-sampling-rate", Value, NO_TRACING),
    ("enable-v2", Boolean, NO_V2),
    ("v2-deprecation", Value, NO_V2),
    ("max-snapshots", Value, OLD_FILES),
    ("debug", Boolean, Ignored("write --log-level=debug")),
    ("log-package-levels", Value, Ignored("write --log-level")),
    ("proxy", Value, NO_PROXY),
    ("proxy-failure-wait", Value, ONLY_WITH_PROXY),
    ("proxy-refresh-interval", Value, ONLY_WITH_PROXY),
    ("proxy-dial-timeout", Value, ONLY_WITH_PROXY),
    ("proxy-write-timeout", Value, ONLY_WITH_PROXY),
    ("proxy-read-timeout", Value, ONLY_WITH_PROXY),
    // Names from before etcd 3; etcd reads all of them as booleans.
    ("cluster-active-size", Boolean, LONG_GONE),
    ("cluster-remove-delay", Boolean, LONG_GONE),
    ("cluster-sync-interval", Boolean, LONG_GONE),
    ("config", Boolean, LONG_GONE),
    ("force", Boolean, LONG_GONE),
    ("max-result-buffer", Boolean, LONG_GONE),
    ("max-retry-attempts", Boolean, LONG_GONE),
    ("peer-heartbeat-interval", Boolean, LONG_GONE),
    ("peer-election-timeout", Boolean, LONG_GONE),
    ("retry-interval", Boolean, LONG_GONE),
    ("snapshot", Boolean, LONG_GONE),
    ("v", Boolean, LONG_GONE),
    ("vv", Boolean, LONG_GONE),
];

/// Switches that etcd has on unless told otherwise: with these, `false` asks for something.
const ON_BY_DEFAULT: &[&str] = &[
    "discovery-insecure-transport",
    "experimental-txn-mode-write-with-shared-buffer",
    "initial-election-tick-advance",
];

/// Texts by which a flag asks for nothing: no warning is due, and no refusal.
const NEUTRAL: &[(&str, &str)] = &[("metrics", "basic"), ("proxy", "off")];

/// etcd's feature gates, and what asking for one comes to.
const FEATURE_GATES: &[(&str, &str)] = &[
    ("StopGRPCServiceOnDefrag", "defragmentation does not stop the service here"),
    ("TxnModeWriteWithSharedBuffer", "the storage engine is not bbolt"),
    ("InitialCorruptCheck", "members compare their history every --corrupt-check-time"),
    ("CompactHashCheck", "members compare their history every --corrupt-check-time"),
    ("LeaseCheckpoint", "remaining times of leases are always replicated here"),
    ("LeaseCheckpointPersist", "remaining times of leases are always replicated here"),
    ("SetMemberLocalAddr", "the system chooses the address that calls leave from"),
    ("FastLeaseKeepAlive", "keepalives are proven by one round of heartbeats here"),
    ("PriorityRequest", "keepalives never wait behind other requests here"),
];

pub(super) fn names() -> impl Iterator<Item = (&'static str, Kind)> {
    FOREIGN.iter().map(|(name, kind, _)| (*name, *kind))
}

/// None when `name` is not foreign, or asks for nothing with this `value`.
pub(super) fn treatment(name: &str, value: &str) -> Option<Treatment> {
    let (_, kind, treatment) = FOREIGN.iter().find(|(foreign, ..)| *foreign == name)?;
    let asks = match kind {
        Boolean => units::boolean(value) != Ok(ON_BY_DEFAULT.contains(&name)),
        Duration | List | Value => !value.is_empty() && !NEUTRAL.contains(&(name, value)),
    };
    asks.then_some(*treatment)
}

/// The warnings for a list such as `A=true,B=false`, or what is wrong with it.
pub(super) fn feature_gates(list: &str) -> Result<Vec<String>, String> {
    list.split(',').filter(|gate| !gate.trim().is_empty()).map(feature_gate).collect()
}

fn feature_gate(gate: &str) -> Result<String, String> {
    let (name, value) =
        gate.split_once('=').ok_or(format!("missing bool value for feature gate {:?}", gate.trim()))?;
    let name = name.trim();
    units::boolean(value.trim())
        .map_err(|why| format!("invalid value {value:?} of feature gate {name:?}: {why}"))?;
    match FEATURE_GATES.iter().find(|(known, _)| *known == name) {
        Some((_, note)) => Ok(format!("feature gate {name} is accepted but not used: {note}")),
        None => Err(format!("unrecognized feature gate: {name:?}")),
    }
}
