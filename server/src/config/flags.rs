//! The flags that mean something here, under etcd's names where etcd has them: their types, defaults and help. What
//! may stand together is decided in `check`; what etcd has and Tenure does not stands in `foreign`.

use std::num::ParseIntError;
use std::time::Duration;

use clap::error::{ContextKind, ContextValue};
use clap::{CommandFactory, Parser};

use super::go_syntax::Kind;
use super::http::{Hosts, Origins, hosts, origins};
use super::units::{boolean, bytes, duration, milliseconds, signed_bytes};
use super::urls::{ListenUrl, Url, UrlList, advertised_list, listen_list, peer_list};
use crate::logging::Format;

const USAGE: &str = "\
tenured [flags]
       tenured --config-file FILE
       tenured config check [FILE] [flags]
       tenured --version
       tenured -h | --help";

const EXAMPLES: &str = "\
Flags are written --name=value, --name value or -name value; booleans --flag or --flag=false.
Durations are 300ms, 5s, 1h30m; sizes 512MB (thousands) or 2GiB (of 1024).
Every flag is also read from the environment: --data-dir from TENURE_DATA_DIR, else from ETCD_DATA_DIR.
In a file (YAML, --config-file) the same names stand before a colon; there, as in etcd, a bare number for a duration is
nanoseconds, and flags and variables beside the file do not count. 'tenured config check' says what would be used.
Flags of etcd that have no meaning here are accepted with a warning.

Examples:
  One member, for trying things out:
    tenured
  One member that others can reach:
    tenured --name a --data-dir /var/lib/tenure \\
      --listen-client-urls http://0.0.0.0:2379 --advertise-client-urls http://10.0.0.1:2379
  The first of three members (the others alike, with their own name and addresses):
    tenured --name a --data-dir /var/lib/tenure \\
      --listen-client-urls http://10.0.0.1:2379 --advertise-client-urls http://10.0.0.1:2379 \\
      --listen-peer-urls http://10.0.0.1:2380 --initial-advertise-peer-urls http://10.0.0.1:2380 \\
      --initial-cluster a=http://10.0.0.1:2380,b=http://10.0.0.2:2380,c=http://10.0.0.3:2380
";

/// Tenure's server: leases, locks, elections and a registry, for every etcd v3 client.
#[derive(Debug, Parser)]
#[command(name = "tenured", disable_help_flag = true, disable_version_flag = true, no_binary_name = true)]
#[command(after_help = EXAMPLES, next_line_help = true, term_width = 110, override_usage = USAGE)]
pub(super) struct Flags {
    #[command(flatten)]
    pub member: MemberFlags,
    #[command(flatten)]
    pub clustering: ClusteringFlags,
    #[command(flatten)]
    pub limits: LimitFlags,
    #[command(flatten)]
    pub http: HttpFlags,
    #[command(flatten)]
    pub history: HistoryFlags,
    #[command(flatten)]
    pub security: SecurityFlags,
    #[command(flatten)]
    pub observation: ObservationFlags,
    #[command(flatten)]
    pub hazards: HazardFlags,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Member")]
pub(super) struct MemberFlags {
    /// A YAML file to read all settings from. Flags and variables beside it do not count.
    #[arg(long, value_name = "FILE", value_parser = text)]
    pub config_file: Option<String>,
    /// This member's name, unique in the cluster.
    #[arg(long, default_value = "default", value_name = "NAME", value_parser = text)]
    pub name: String,
    /// Where this member keeps its data [default: ${name}.etcd]
    #[arg(long, value_name = "DIRECTORY", value_parser = text)]
    pub data_dir: Option<String>,
    /// Where the Raft log lives, if on a disk of its own [default: within the data directory]
    #[arg(long, value_name = "DIRECTORY", value_parser = text)]
    pub wal_dir: Option<String>,
    /// Where to listen for other members [default: http://localhost:2380]
    #[arg(long, value_name = "URLS", value_parser = listen_list)]
    pub listen_peer_urls: Option<UrlList<ListenUrl>>,
    /// Where to listen for clients [default: http://localhost:2379]
    #[arg(long, value_name = "URLS", value_parser = listen_list)]
    pub listen_client_urls: Option<UrlList<ListenUrl>>,
    /// More addresses to listen on for clients, meant for HTTP only by etcd; here they serve gRPC too.
    #[arg(long, value_name = "URLS", value_parser = listen_list)]
    pub listen_client_http_urls: Option<UrlList<ListenUrl>>,
    /// Let other processes that ask for it listen on the same ports (SO_REUSEPORT).
    #[arg(long, default_value = "false", value_name = "BOOL", value_parser = boolean, action = clap::ArgAction::Set)]
    pub socket_reuse_port: bool,
    /// Time between heartbeats of the leader, in milliseconds.
    #[arg(long, default_value = "100", value_name = "MS", value_parser = milliseconds)]
    pub heartbeat_interval: Duration,
    /// How long a member waits for a leader before it stands for election, in milliseconds. At least five heartbeats.
    #[arg(long, default_value = "1000", value_name = "MS", value_parser = milliseconds)]
    pub election_timeout: Duration,
    /// Log entries applied between two snapshots (0: the default). A snapshot here only makes what is written anyway
    /// durable, and lets the log before it go.
    #[arg(long, default_value = "100000", value_name = "COUNT")]
    pub snapshot_count: u64,
    /// Log entries kept behind a snapshot, so that a slow member need not fetch the snapshot.
    #[arg(long, default_value = "5000", value_name = "COUNT")]
    pub snapshot_catchup_entries: u64,
    /// Size of one file of the Raft log; at least twice --max-request-bytes. Not in etcd.
    #[arg(long, default_value = "64MiB", value_name = "SIZE", value_parser = bytes)]
    pub log_segment_bytes: u64,
    /// Memory for the newest values of keys (0: none, all are read from disk). Not in etcd.
    #[arg(long, default_value = "128MiB", value_name = "SIZE", value_parser = bytes)]
    pub value_cache_bytes: u64,
    /// Keep all memory from being swapped out (mlockall); refuses to start if that is not allowed.
    #[arg(long, default_value = "false", value_name = "BOOL", value_parser = boolean, action = clap::ArgAction::Set)]
    pub memory_mlock: bool,
    /// Threads that serve requests; more than one pays off only on machines with many cores. Not in etcd.
    #[arg(long, default_value = "1", value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub runtime_threads: u16,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Clustering (initial-* count only until the data directory exists)")]
pub(super) struct ClusteringFlags {
    /// This member's peer URLs as the others call them [default: http://localhost:2380]
    #[arg(long, value_name = "URLS", value_parser = peer_list)]
    pub initial_advertise_peer_urls: Option<UrlList<Url>>,
    /// All members to begin with, as name=url pairs [default: ${name}=${initial-advertise-peer-urls}]
    #[arg(long, value_name = "NAME=URL,...", value_parser = text)]
    pub initial_cluster: Option<String>,
    /// `new` to found a cluster, `existing` to join one that already lists this member.
    #[arg(long, default_value = "new", value_name = "STATE")]
    pub initial_cluster_state: super::ClusterState,
    /// Keeps clusters that were founded with the same URLs apart.
    #[arg(long, default_value = "etcd-cluster", value_name = "TOKEN", value_parser = text)]
    pub initial_cluster_token: String,
    /// This member's client URLs as clients call them [default: http://localhost:2379]
    #[arg(long, value_name = "URLS", value_parser = advertised_list)]
    pub advertise_client_urls: Option<UrlList<Url>>,
    /// Refuse membership changes that would cost the quorum.
    #[arg(long, default_value = "true", value_name = "BOOL", value_parser = boolean, action = clap::ArgAction::Set)]
    pub strict_reconfig_check: bool,
    /// Ask whether an election could be won before disturbing a leader.
    #[arg(long, default_value = "true", value_name = "BOOL", value_parser = boolean, action = clap::ArgAction::Set)]
    pub pre_vote: bool,
    /// How many members at once may be learning the data before they vote.
    #[arg(long, default_value = "1", value_name = "COUNT")]
    pub max_learners: u16,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Limits")]
pub(super) struct LimitFlags {
    /// Size of the data at which writes are refused (0: 2 GiB; negative: no limit).
    #[arg(long, default_value = "0", value_name = "SIZE", value_parser = signed_bytes)]
    pub quota_backend_bytes: i64,
    /// Operations in one transaction.
    #[arg(long, default_value = "128", value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_txn_ops: u32,
    /// Size of one request.
    #[arg(long, default_value = "1572864", value_name = "SIZE", value_parser = bytes)]
    pub max_request_bytes: u64,
    /// Streams that one client connection may have open.
    #[arg(long, default_value = "4294967295", value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_concurrent_streams: u32,
    /// How often a client may ping the server.
    #[arg(long, default_value = "5s", value_name = "DURATION", value_parser = duration)]
    pub grpc_keepalive_min_time: Duration,
    /// How often the server pings a silent client (0: never).
    #[arg(long, default_value = "2h", value_name = "DURATION", value_parser = duration)]
    pub grpc_keepalive_interval: Duration,
    /// How long the server waits for the answer before it hangs up (0: for ever).
    #[arg(long, default_value = "20s", value_name = "DURATION", value_parser = duration)]
    pub grpc_keepalive_timeout: Duration,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "HTTP")]
pub(super) struct HttpFlags {
    /// Answer JSON over HTTP below /v3/ and /v1/; the pages /version, /health, /livez and /readyz stay.
    #[arg(long, default_value = "true", value_name = "BOOL", value_parser = boolean, action = clap::ArgAction::Set)]
    pub enable_grpc_gateway: bool,
    /// Web pages of which origins may ask by HTTP: scheme://host:port, with commas between them (`*`: all).
    #[arg(long, default_value = "*", value_name = "ORIGINS", value_parser = origins)]
    pub cors: Origins,
    /// Which host names requests by plain HTTP may be addressed to, with commas between them (`*`: any).
    #[arg(long, default_value = "*", value_name = "HOSTS", value_parser = hosts)]
    pub host_whitelist: Hosts,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "History")]
pub(super) struct HistoryFlags {
    /// What --auto-compaction-retention counts: `periodic` (time) or `revision`.
    #[arg(long, default_value = "periodic", value_name = "MODE", value_parser = text)]
    pub auto_compaction_mode: String,
    /// How much history is kept: 10m or 1h (a bare number is hours), or a number of revisions (0: all).
    #[arg(long, default_value = "0", value_name = "AMOUNT", value_parser = text)]
    pub auto_compaction_retention: String,
    /// Revisions dropped in one step of a compaction.
    #[arg(long, default_value = "1000", value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    pub compaction_batch_limit: u32,
    /// Pause between two such steps.
    #[arg(long, default_value = "10ms", value_name = "DURATION", value_parser = duration)]
    pub compaction_sleep_interval: Duration,
    /// How often an idle watch that asked for it is told the current revision.
    #[arg(long, default_value = "10m", value_name = "DURATION", value_parser = duration)]
    pub watch_progress_notify_interval: Duration,
    /// How often the leader compares what the members hold; a difference raises the CORRUPT alarm (0: never).
    #[arg(long, default_value = "10m", value_name = "DURATION", value_parser = duration)]
    pub corrupt_check_time: Duration,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Authentication")]
pub(super) struct SecurityFlags {
    /// Kind of token that a login gives; only `simple` is available.
    #[arg(long, default_value = "simple", value_name = "KIND", value_parser = text)]
    pub auth_token: String,
    /// Lifetime of such a token since its last use, in seconds.
    #[arg(long, default_value = "300", value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..))]
    pub auth_token_ttl: u32,
    /// Cost of hashing a password.
    #[arg(long, default_value = "10", value_name = "COST", value_parser = clap::value_parser!(u32).range(4..=31))]
    pub bcrypt_cost: u32,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Logging and monitoring")]
pub(super) struct ObservationFlags {
    /// Addresses that serve only metrics and health, without clients' rights.
    #[arg(long, value_name = "URLS", value_parser = listen_list)]
    pub listen_metrics_urls: Option<UrlList<ListenUrl>>,
    /// debug, info, warn, error, panic or fatal (the last two: as error).
    #[arg(long, default_value = "info", value_name = "LEVEL", value_parser = text)]
    pub log_level: String,
    /// `json` with etcd's keys, or `console` for reading with one's own eyes.
    #[arg(long, default_value = "json", value_name = "FORMAT")]
    pub log_format: Format,
    /// Where log lines go: default (stderr), stderr, stdout or paths of files, separated by commas.
    #[arg(long, default_value = "default", value_name = "OUTPUTS", value_parser = text)]
    pub log_outputs: String,
    /// For etcd's sake; only `zap` is known.
    #[arg(long, default_value = "zap", value_name = "LOGGER", value_parser = text)]
    pub logger: String,
    /// Warn when applying the entries at hand takes longer; at most once a second.
    #[arg(long, default_value = "100ms", value_name = "DURATION", value_parser = duration)]
    pub warning_apply_duration: Duration,
    /// Warn when answering a request takes longer; at most once a second, and not of calls that may wait, as for a lock.
    #[arg(long, default_value = "300ms", value_name = "DURATION", value_parser = duration)]
    pub warning_unary_request_duration: Duration,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Unsafe (these give up what consensus guarantees)")]
pub(super) struct HazardFlags {
    /// Make this member the only one of its cluster, with the data it has; not available yet.
    #[arg(long, default_value = "false", value_name = "BOOL", value_parser = boolean, action = clap::ArgAction::Set)]
    pub force_new_cluster: bool,
    /// Do not wait for the disk; has no effect, writes always wait for it.
    #[arg(long, default_value = "false", value_name = "BOOL", value_parser = boolean, action = clap::ArgAction::Set)]
    pub unsafe_no_fsync: bool,
}

/// A text that clap refused, and why.
pub(super) struct Refused {
    /// The flag's name without dashes.
    pub name: String,
    pub why: String,
}

impl Flags {
    /// Reads flags that `split` already took apart.
    pub fn read<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> Result<Flags, Refused> {
        Flags::try_parse_from(pairs.map(|(name, value)| format!("--{name}={value}"))).map_err(|e| explain(&e))
    }

    pub fn help() -> String {
        Flags::command().render_help().to_string()
    }
}

/// Every flag's name and default, in the order of the help.
pub(super) fn defaults() -> Vec<(String, String)> {
    let default = |argument: &clap::Arg| {
        let texts = argument.get_default_values().iter();
        texts.map(|text| text.to_string_lossy().into_owned()).collect::<Vec<_>>().join(",")
    };
    let command = Flags::command();
    command.get_arguments().map(|a| (a.get_long().unwrap_or_default().to_owned(), default(a))).collect()
}

/// Words for values that are lists.
const LISTS: &[&str] = &["URLS", "NAME=URL,...", "ORIGINS", "HOSTS", "OUTPUTS"];

/// Every flag's name and kind.
pub(super) fn names() -> Vec<(String, Kind)> {
    let command = Flags::command();
    let kind = |argument: &clap::Arg| match argument.get_value_names() {
        Some([name]) if name == "BOOL" => Kind::Boolean,
        Some([name]) if name == "DURATION" => Kind::Duration,
        Some([name]) if LISTS.contains(&name.as_str()) => Kind::List,
        _ => Kind::Value,
    };
    command.get_arguments().map(|a| (a.get_long().unwrap_or_default().to_owned(), kind(a))).collect()
}

/// The flag that `unknown` was perhaps meant to be.
pub(super) fn similar_to(unknown: &str) -> Option<String> {
    let error = Flags::try_parse_from([format!("--{unknown}")]).err()?;
    match error.get(ContextKind::SuggestedArg)? {
        ContextValue::String(flag) => Some(flag.clone()),
        _ => None,
    }
}

fn text(text: &str) -> Result<String, std::convert::Infallible> {
    Ok(text.to_owned())
}

fn explain(error: &clap::Error) -> Refused {
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => text.as_str(),
        _ => "",
    };
    let flag = context(ContextKind::InvalidArg).split([' ', '=']).next().unwrap_or_default();
    let choices = match error.get(ContextKind::ValidValue) {
        Some(ContextValue::Strings(values)) if !values.is_empty() => {
            Some(format!("it must be {}", values.join(" or ")))
        }
        _ => None,
    };
    let cause = || {
        std::error::Error::source(error).map(|cause| match cause.downcast_ref() {
            Some(ParseIntError { .. }) => "it must be a whole number, and not too large".to_owned(),
            None => cause.to_string(),
        })
    };
    let why = choices.or_else(cause).unwrap_or_else(|| error.kind().to_string());
    Refused { name: flag.trim_start_matches('-').to_owned(), why: why.replace('\n', " ") }
}
