//! From flags to [`Config`]: defaults that depend on other flags, and what may not stand together. The rules and, where
//! it has them, the words are etcd's.

use std::path::PathBuf;
use std::time::Duration;

use tracing::level_filters::LevelFilter;

use super::bootstrap::InitialFlags;
use super::flags::{
    ClusteringFlags, Flags, HazardFlags, HistoryFlags, LimitFlags, MemberFlags, ObservationFlags,
    SecurityFlags,
};
use super::urls::{ListenUrl, Scheme, Url, UrlList};
use super::{
    Auth, AutoCompaction, Compaction, Config, Error, Http, Keepalive, Limits, Listen, Membership, Raft, units,
};
use crate::logging::{self, Output};

const ELECTION_TIMEOUT_MOST: Duration = Duration::from_millis(50_000);
const SNAPSHOT_COUNT_DEFAULT: u64 = 100_000;
const WATCH_PROGRESS_DEFAULT: Duration = Duration::from_secs(600);
const LOG_SEGMENT_BYTES_MOST: u64 = 1 << 30;

/// The configuration these flags mean, or all that is wrong with them. What is allowed but deserves a word is added to `warnings`.
pub(super) fn checked(flags: Flags, warnings: &mut Vec<String>) -> Result<Config, Vec<Error>> {
    let Flags { member, clustering, limits, http, history, security, observation, hazards } = flags;
    let mut wrong = Wrong(Vec::new());
    wrong.unless(!member.name.is_empty(), "--name is empty; give each member a name of its own");
    wrong.unless(
        !hazards.force_new_cluster,
        "--force-new-cluster is not available: a member without its quorum cannot be made a cluster of its own \
         in this version; restore a backup",
    );
    warn_of_what_waits(&limits, &security, &hazards, warnings);
    let listen = wrong.of(listen(&member, &clustering, observation.listen_metrics_urls.as_ref(), warnings));
    let advertise_client_urls = given_or(clustering.advertise_client_urls.clone(), default_url(2379));
    let initial = initial(&clustering);
    warn_of_useless_urls(&advertise_client_urls, &initial.advertise_peer_urls, warnings);
    let request_limits = wrong.of(request_limits(&limits));
    let raft = wrong.of(raft(&member, &clustering, limits.max_request_bytes));
    let compaction = wrong.of(compaction(&history));
    let auth = wrong.of(auth(&security));
    wrong.of(logger(&observation));
    let log = wrong.of(log(&observation));
    let (Some(listen), Some(request_limits), Some(raft), Some(compaction), Some(auth), Some(log), []) =
        (listen, request_limits, raft, compaction, auth, log, wrong.0.as_slice())
    else {
        return Err(wrong.0);
    };
    Ok(Config {
        data_dir: match member.data_dir.as_deref() {
            None | Some("") => PathBuf::from(format!("{}.etcd", member.name)),
            Some(directory) => PathBuf::from(directory),
        },
        wal_dir: member.wal_dir.as_deref().filter(|directory| !directory.is_empty()).map(PathBuf::from),
        raft,
        membership: Membership {
            strict_reconfig_check: clustering.strict_reconfig_check,
            learners_max: usize::from(clustering.max_learners),
        },
        compaction,
        auth,
        watch_progress_notify_interval: match history.watch_progress_notify_interval {
            Duration::ZERO => WATCH_PROGRESS_DEFAULT,
            given => given,
        },
        corrupt_check_time: history.corrupt_check_time,
        warning_apply_duration: observation.warning_apply_duration,
        warning_unary_request_duration: observation.warning_unary_request_duration,
        log,
        value_cache_bytes: member.value_cache_bytes,
        memory_locked: member.memory_mlock,
        runtime_threads: usize::from(member.runtime_threads),
        name: member.name,
        limits: request_limits,
        listen,
        http: Http { gateway: http.enable_grpc_gateway, origins: http.cors, hosts: http.host_whitelist },
        advertise_client_urls,
        keepalive: keepalive(&limits),
        initial,
    })
}

/// What is wrong, gathered so that an operator is told all of it at once.
struct Wrong(Vec<Error>);

impl Wrong {
    fn unless(&mut self, right: bool, message: &str) {
        if !right {
            self.0.push(Error::check(message.to_owned()));
        }
    }

    fn of<T>(&mut self, outcome: Result<T, Error>) -> Option<T> {
        outcome.map_err(|error| self.0.push(error)).ok()
    }
}

/// A flag that is understood but has nothing to act on yet is never passed over in silence.
fn warn_of_what_waits(
    limits: &LimitFlags,
    security: &SecurityFlags,
    hazards: &HazardFlags,
    warnings: &mut Vec<String>,
) {
    const NO_USERS: &str = "this version has no users or roles";
    let waits = [
        (security.auth_token_ttl != 300, "auth-token-ttl", NO_USERS),
        (security.bcrypt_cost != 10, "bcrypt-cost", NO_USERS),
        (
            limits.grpc_keepalive_min_time != Duration::from_secs(5),
            "grpc-keepalive-min-time",
            "no client is hung up on for pinging",
        ),
        (hazards.unsafe_no_fsync, "unsafe-no-fsync", "a write is always on disk before it is acknowledged"),
    ];
    for (given, flag, why) in waits {
        if given {
            warnings.push(format!("--{flag} has no effect: {why}"));
        }
    }
}

fn listen(
    member: &MemberFlags,
    clustering: &ClusteringFlags,
    metrics: Option<&UrlList<ListenUrl>>,
    warnings: &mut Vec<String>,
) -> Result<Listen, Error> {
    if member.listen_client_urls.is_some() && clustering.advertise_client_urls.is_none() {
        let text = "--advertise-client-urls is required when --listen-client-urls is set explicitly";
        return Err(Error::check(text.to_owned()));
    }
    let mut client = given_or(member.listen_client_urls.clone(), default_listener(2379));
    if let Some(UrlList(more)) = &member.listen_client_http_urls {
        warnings.push(
            "--listen-client-http-urls: these addresses serve gRPC too, and the others HTTP".to_owned(),
        );
        client.extend(more.iter().cloned());
        client.sort();
        client.dedup();
    }
    Ok(Listen {
        client,
        peer: given_or(member.listen_peer_urls.clone(), default_listener(2380)),
        metrics: metrics.map(|list| list.0.clone()).unwrap_or_default(),
        ports_shared: member.socket_reuse_port,
    })
}

fn initial(clustering: &ClusteringFlags) -> InitialFlags {
    InitialFlags {
        advertise_peer_urls: given_or(clustering.initial_advertise_peer_urls.clone(), default_url(2380)),
        cluster: clustering.initial_cluster.clone(),
        state: clustering.initial_cluster_state,
        token: clustering.initial_cluster_token.clone(),
    }
}

fn warn_of_useless_urls(client: &[Url], peer: &[Url], warnings: &mut Vec<String>) {
    for (flag, urls) in [("--advertise-client-urls", client), ("--initial-advertise-peer-urls", peer)] {
        if let Some(url) = urls.iter().find(|url| url.is_unspecified()) {
            warnings
                .push(format!("{flag} has {url}, which nobody can call; give an address of this machine"));
        }
    }
    if let Some(url) = client.iter().find(|url| url.scheme() == Scheme::Https) {
        warnings.push(format!(
            "--advertise-client-urls has {url}, but TLS is not spoken here; a proxy has to do it"
        ));
    }
}

fn raft(member: &MemberFlags, clustering: &ClusteringFlags, request: u64) -> Result<Raft, Error> {
    let (heartbeat, election) = (member.heartbeat_interval, member.election_timeout);
    let (heartbeat_ms, election_ms) = (heartbeat.as_millis(), election.as_millis());
    let wrong = match () {
        () if heartbeat_ms == 0 => Some(format!("--heartbeat-interval must be >0 (set to {heartbeat_ms}ms)")),
        () if election_ms == 0 => Some(format!("--election-timeout must be >0 (set to {election_ms}ms)")),
        () if heartbeat.saturating_mul(5) > election => Some(format!(
            "--election-timeout[{election_ms}ms] should be at least as 5 times as --heartbeat-interval[{heartbeat_ms}ms]"
        )),
        () if election > ELECTION_TIMEOUT_MOST => Some(format!(
            "--election-timeout[{election_ms}ms] is too long, and should be set less than {}ms",
            ELECTION_TIMEOUT_MOST.as_millis()
        )),
        // A request that is too large itself is complained of elsewhere.
        () if !(2 * request.min(Limits::REQUEST_BYTES_MOST / 2)..=LOG_SEGMENT_BYTES_MOST)
            .contains(&member.log_segment_bytes) =>
        {
            Some(format!(
                "--log-segment-bytes[{}] must be from {} (twice --max-request-bytes) to {LOG_SEGMENT_BYTES_MOST}",
                member.log_segment_bytes,
                2 * request.min(Limits::REQUEST_BYTES_MOST / 2)
            ))
        }
        () => None,
    };
    match wrong {
        Some(message) => Err(Error::check(message)),
        None => Ok(Raft {
            heartbeat_interval: heartbeat,
            election_timeout: election,
            pre_vote: clustering.pre_vote,
            snapshot_count: if member.snapshot_count == 0 {
                SNAPSHOT_COUNT_DEFAULT
            } else {
                member.snapshot_count
            },
            snapshot_catchup_entries: member.snapshot_catchup_entries,
            log_segment_bytes: member.log_segment_bytes,
        }),
    }
}

fn request_limits(flags: &LimitFlags) -> Result<Limits, Error> {
    if !(1..=Limits::REQUEST_BYTES_MOST).contains(&flags.max_request_bytes) {
        return Err(Error::check(format!(
            "--max-request-bytes[{}] must be from 1 to {}",
            flags.max_request_bytes,
            Limits::REQUEST_BYTES_MOST
        )));
    }
    Ok(Limits {
        quota_bytes: match flags.quota_backend_bytes {
            0 => Some(Limits::QUOTA_BYTES_DEFAULT),
            given => u64::try_from(given).ok(),
        },
        txn_ops_max: flags.max_txn_ops as usize,
        request_bytes_max: flags.max_request_bytes as usize,
        concurrent_streams_max: flags.max_concurrent_streams,
    })
}

fn keepalive(flags: &LimitFlags) -> Keepalive {
    let unless_zero = |duration: Duration| (!duration.is_zero()).then_some(duration);
    Keepalive {
        min_time: flags.grpc_keepalive_min_time,
        interval: unless_zero(flags.grpc_keepalive_interval),
        timeout: unless_zero(flags.grpc_keepalive_timeout),
    }
}

fn compaction(flags: &HistoryFlags) -> Result<Compaction, Error> {
    let retention = &flags.auto_compaction_retention;
    let auto = match flags.auto_compaction_mode.as_str() {
        "periodic" => periodic(retention),
        "revision" => revisions(retention),
        "" => {
            return Err(Error::check(
                "undefined auto-compaction-mode; it is periodic or revision".to_owned(),
            ));
        }
        other => {
            let text = format!("unknown auto-compaction-mode {other:?}; it is periodic or revision");
            return Err(Error::check(text));
        }
    };
    let auto = auto.map_err(|why| {
        Error::check(format!("error parsing --auto-compaction-retention {retention:?}: {why}"))
    })?;
    Ok(Compaction {
        auto,
        batch_limit: flags.compaction_batch_limit,
        sleep_interval: flags.compaction_sleep_interval,
    })
}

/// A bare number is hours.
fn periodic(retention: &str) -> Result<AutoCompaction, String> {
    let kept = match retention.parse::<u32>() {
        Ok(hours) => Duration::from_secs(u64::from(hours) * 3600),
        Err(_) => units::duration(retention)?,
    };
    Ok(if kept.is_zero() { AutoCompaction::Off } else { AutoCompaction::Periodic(kept) })
}

fn revisions(retention: &str) -> Result<AutoCompaction, String> {
    match retention.parse::<i64>() {
        Ok(0) => Ok(AutoCompaction::Off),
        Ok(kept) if kept > 0 => Ok(AutoCompaction::Revision(kept)),
        Ok(_) | Err(_) => Err("in mode revision it is a number of revisions, for example 1000".to_owned()),
    }
}

fn auth(flags: &SecurityFlags) -> Result<Auth, Error> {
    match flags.auth_token.as_str() {
        "" | "simple" => Ok(Auth {
            token_ttl: Duration::from_secs(u64::from(flags.auth_token_ttl)),
            bcrypt_cost: flags.bcrypt_cost,
        }),
        other => Err(Error::check(format!(
            "--auth-token {other:?} is not available: the one kind of token is simple"
        ))),
    }
}

fn logger(flags: &ObservationFlags) -> Result<(), Error> {
    match flags.logger.as_str() {
        "zap" => Ok(()),
        "capnslog" => {
            Err(Error::check("--logger=capnslog is removed in v3.5; leave --logger out".to_owned()))
        }
        other => Err(Error::check(format!("unknown logger option {other:?}; leave --logger out"))),
    }
}

fn log(flags: &ObservationFlags) -> Result<logging::Settings, Error> {
    let level = match flags.log_level.to_ascii_lowercase().as_str() {
        "debug" => LevelFilter::DEBUG,
        "" | "info" => LevelFilter::INFO,
        "warn" => LevelFilter::WARN,
        // Nothing here is worse than an error, and an error is never to be hidden.
        "error" | "dpanic" | "panic" | "fatal" => LevelFilter::ERROR,
        other => {
            let text = format!(
                "unrecognized level: {other:?}; --log-level is debug, info, warn, error, panic or fatal"
            );
            return Err(Error::check(text));
        }
    };
    let mut outputs: Vec<Output> = Vec::new();
    for output in flags.log_outputs.split(',').map(str::trim) {
        let output = match output {
            // The journal collects what a unit writes to standard error.
            "" | "default" | "stderr" | "systemd/journal" => Output::Stderr,
            "stdout" => Output::Stdout,
            path => Output::File(PathBuf::from(path)),
        };
        if !outputs.contains(&output) {
            outputs.push(output);
        }
    }
    Ok(logging::Settings { level, format: flags.log_format, outputs })
}

fn given_or<U>(given: Option<UrlList<U>>, default: U) -> Vec<U> {
    given.map_or_else(|| vec![default], |list| list.0)
}

fn default_url(port: u16) -> Url {
    Url::peer(&format!("http://localhost:{port}")).expect("a constant that the tests parse")
}

fn default_listener(port: u16) -> ListenUrl {
    ListenUrl::parse(&format!("http://localhost:{port}")).expect("a constant that the tests parse")
}
