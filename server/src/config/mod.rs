//! The configuration: what an operator wrote, made into one typed value that was checked before anything starts.
//!
//! ```text
//!  command line ──go_syntax──┐
//!  TENURE_*, ETCD_* ─────────┼─sources──(foreign: warned about, refused, renamed)──flags (types)──check──> Config
//!  YAML ───────────────file──┘                                                                     └─────> Report
//! ```
//!
//! The names, defaults and rules are etcd's, because people bring their unit files along. Texts become typed once
//! (`flags`), and are judged together once (`check`); whoever holds a [`Config`] need not check it again. Every stage goes on
//! after a mistake, so that all of them are known at once.
//!
//! What only counts when a member starts for the first time (`--initial-*`) is checked when asked for
//! ([`Config::bootstrap`]): a member that has data must start whatever those flags say by now.
//!
//! Touches no file (what reads one is handed in) and no network. May import `ids` and `logging`, and nothing above.

mod bootstrap;
mod check;
mod file;
mod flags;
mod foreign;
mod go_syntax;
mod http;
mod report;
mod sources;
mod units;
mod urls;
mod version;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use bootstrap::Bootstrap;
pub use http::{Hosts, Http, Origins};
pub use report::Report;
pub use urls::{ListenUrl, Scheme, Url};
pub use version::ETCD_COMPATIBILITY_VERSION;

use crate::logging;
use bootstrap::InitialFlags;
use flags::Flags;
use sources::{Asked, Given, Sources};

/// What a command line asks of the program.
#[derive(Debug)]
pub enum Invocation {
    /// Serve. The warnings are for the log, once there is one.
    Run { config: Box<Config>, warnings: Vec<String> },
    /// Print this to standard output and end with 0.
    Print(String),
    /// Print this and end as it says.
    Check(Report),
}

/// Reads a whole file.
pub type Files<'a> = &'a dyn Fn(&Path) -> std::io::Result<Vec<u8>>;

/// As [`read_with_files`], for whoever names no configuration file.
pub fn read(
    arguments: impl IntoIterator<Item = OsString>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Invocation, Error> {
    read_with_files(arguments, environment, &|_| Err(std::io::ErrorKind::Unsupported.into()))
}

/// Reads `arguments` (without the program's name), `environment`, and the configuration file if they name one. None of it is asked
/// of the process here, so that tests can bring their own.
pub fn read_with_files(
    arguments: impl IntoIterator<Item = OsString>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
    files: Files<'_>,
) -> Result<Invocation, Error> {
    match sources::gather(arguments, environment, files)? {
        Asked::Help => Ok(Invocation::Print(Flags::help())),
        Asked::Version => Ok(Invocation::Print(version::text())),
        Asked::Run(sources) => match examined(sources) {
            Examined { config: Ok(config), warnings, .. } => Ok(Invocation::Run { config, warnings }),
            Examined { config: Err(errors), .. } => Err(Error::first_of(errors)),
        },
        Asked::Check(sources) => {
            let Examined { config, settings, warnings } = examined(sources);
            let config = config.as_deref().map_err(Vec::as_slice);
            Ok(Invocation::Check(Report::new(&settings, config, &warnings)))
        }
    }
}

struct Examined {
    /// Or all that is wrong; never empty.
    config: Result<Box<Config>, Vec<Error>>,
    settings: BTreeMap<String, Given>,
    warnings: Vec<String>,
}

fn examined(sources: Sources) -> Examined {
    let Sources { settings, mut warnings, mut errors } = sources;
    let mut readable: Vec<(&str, &str)> =
        settings.iter().map(|(name, given)| (name.as_str(), given.value.as_str())).collect();
    let mut unreadable = Vec::new();
    readable.retain(|(name, value)| match Flags::read(std::iter::once((*name, *value))) {
        Ok(_) => true,
        Err(refused) => {
            errors.push(settings[*name].invalid(&refused.why));
            unreadable.push(format!("--{name}"));
            false
        }
    });
    let checked = match Flags::read(readable.into_iter()) {
        Ok(flags) => check::checked(flags, &mut warnings),
        Err(refused) => Err(vec![Error::usage(format!("--{}: {}", refused.name, refused.why))]),
    };
    let config = match checked {
        Ok(config) if errors.is_empty() => Ok(Box::new(config)),
        Ok(_) => Err(errors),
        Err(more) => {
            // What could not be read was judged by its default; no second complaint may come of that.
            let is_of_its_own =
                |error: &Error| !unreadable.iter().any(|flag| error.message.contains(flag.as_str()));
            errors.extend(more.into_iter().filter(is_of_its_own));
            Err(errors)
        }
    };
    Examined { config, settings, warnings }
}

/// How this member runs.
#[derive(Debug, Clone)]
pub struct Config {
    pub name: String,
    pub data_dir: PathBuf,
    /// Where the Raft log lives; within `data_dir` when None.
    pub wal_dir: Option<PathBuf>,
    pub listen: Listen,
    pub http: Http,
    /// How clients call this member.
    pub advertise_client_urls: Vec<Url>,
    pub raft: Raft,
    pub membership: Membership,
    pub limits: Limits,
    pub keepalive: Keepalive,
    pub compaction: Compaction,
    pub auth: Auth,
    /// How often an idle watch that asked for it is told the current revision.
    pub watch_progress_notify_interval: Duration,
    /// How often members compare what they hold; zero: never.
    pub corrupt_check_time: Duration,
    /// Applying the entries at hand for longer than this is worth a warning.
    pub warning_apply_duration: Duration,
    /// So is answering a request for longer than this.
    pub warning_unary_request_duration: Duration,
    /// Memory for the newest values of keys; 0 for none.
    pub value_cache_bytes: u64,
    /// Whether all memory is kept from being swapped out.
    pub memory_locked: bool,
    /// 1 to 256.
    pub runtime_threads: usize,
    pub log: logging::Settings,
    initial: InitialFlags,
}

/// Where this member listens; every list is sorted.
#[derive(Debug, Clone)]
pub struct Listen {
    /// Never empty.
    pub client: Vec<ListenUrl>,
    /// Never empty.
    pub peer: Vec<ListenUrl>,
    /// Metrics and health only; may be empty.
    pub metrics: Vec<ListenUrl>,
    /// Whether other processes may listen on the same ports.
    pub ports_shared: bool,
}

#[derive(Debug, Clone)]
pub struct Raft {
    /// At least 1 ms.
    pub heartbeat_interval: Duration,
    /// At least five heartbeats, at most 50 s.
    pub election_timeout: Duration,
    pub pre_vote: bool,
    /// Entries applied between two snapshots; at least 1.
    pub snapshot_count: u64,
    /// Entries kept behind a snapshot.
    pub snapshot_catchup_entries: u64,
    /// At least twice the largest request.
    pub log_segment_bytes: u64,
}

#[derive(Debug, Clone)]
pub struct Membership {
    pub strict_reconfig_check: bool,
    pub learners_max: usize,
}

#[derive(Debug, Clone)]
pub struct Limits {
    /// Size of the data at which writes are refused; None for no limit.
    pub quota_bytes: Option<u64>,
    /// At least 1.
    pub txn_ops_max: usize,
    /// 1 to [`Limits::REQUEST_BYTES_MOST`].
    pub request_bytes_max: usize,
    /// For each client connection; at least 1.
    pub concurrent_streams_max: u32,
}

impl Limits {
    pub const QUOTA_BYTES_DEFAULT: u64 = 2 << 30;
    /// A request travels through the Raft log in one piece and is held in memory by every member more than once.
    pub const REQUEST_BYTES_MOST: u64 = 1 << 30;
}

/// HTTP/2 pings between server and client.
#[derive(Debug, Clone)]
pub struct Keepalive {
    /// A client that pings more often is hung up on.
    pub min_time: Duration,
    /// None: the server never pings.
    pub interval: Option<Duration>,
    /// None: the server waits for ever.
    pub timeout: Option<Duration>,
}

#[derive(Debug, Clone)]
pub struct Compaction {
    pub auto: AutoCompaction,
    /// Revisions dropped in one step; at least 1.
    pub batch_limit: u32,
    /// Pause between two steps.
    pub sleep_interval: Duration,
}

/// What history the server drops on its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AutoCompaction {
    Off,
    /// What is older than this; never zero.
    Periodic(Duration),
    /// All but this many of the newest revisions; at least 1.
    Revision(i64),
}

#[derive(Debug, Clone)]
pub struct Auth {
    /// Of a simple token, since its last use.
    pub token_ttl: Duration,
    /// 4 to 31.
    pub bcrypt_cost: u32,
}

/// What a member without data does first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum ClusterState {
    /// Found the cluster, together with the other initial members.
    New,
    /// Join a cluster that lists this member already.
    Existing,
}

/// Why the server does not start: one line for the operator, who has to change what the line names.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}; see 'tenured --help'")]
pub struct Error {
    message: String,
    exit_code: u8,
}

impl Error {
    /// As etcd: 2 when a flag could not be read, 1 when what was read cannot be honoured.
    pub fn exit_code(&self) -> u8 {
        self.exit_code
    }

    /// The first one, which says how many more there are.
    fn first_of(errors: Vec<Error>) -> Error {
        let more = errors.len().saturating_sub(1);
        let mut first =
            errors.into_iter().next().unwrap_or_else(|| Error::usage("it cannot be read".to_owned()));
        if more > 0 {
            first.message += &format!("; {more} more: 'tenured config check' with the same flags says all");
        }
        first
    }

    fn usage(message: String) -> Error {
        Error { message, exit_code: 2 }
    }

    fn check(message: String) -> Error {
        Error { message, exit_code: 1 }
    }
}
