//! The verb `migrate`: an etcd copied into Tenure, while it goes on or from its snapshot file.
//!
//! ```text
//! source   where keys come from          target   where they go       leases   the same for leases, kept alive meanwhile
//! copy     one pass over both sides      follow   what happens after the copy, until somebody cuts over
//! bolt     a bbolt database, read        etcd_file   what etcd puts into it
//! ```
//!
//! Each side is an etcd v3 server to this, so that it also copies back.

mod bolt;
mod copy;
mod etcd_file;
mod follow;
mod leases;
mod source;
mod target;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use tenure_client::{Client, Options};

use crate::failure::Failure;
use crate::output;
use crate::running::warn;
use crate::signals::{self, Signals};
use copy::{Comparison, Sides};
use etcd_file::EtcdFile;
use follow::{Followed, stopped};
use leases::Leases;
use source::{Broken, Source, Span};

const EXAMPLES: &str = "\
Copies keys, values and leases as they are at one revision, then writes each change as it happens, until Ctrl-C (or SIGTERM) cuts
over: what had happened until then is written, and both sides are compared. Revisions and versions are the target's own.

Leases keep their ids where the target has no lease of that id, get the time that is left (their full TTL if more than half is),
and are renewed there for as long as they are at the source.

To cut over: stop the writers, Ctrl-C, wait for \"both sides agree\", start the writers with the new addresses.

Examples:
  tenure migrate --from 10.0.0.9:2379 --to 127.0.0.1:2379
  tenure migrate --from 10.0.0.9:2379 --prefix config/ --once
  tenure migrate --from-snapshot backup.db
  tenure migrate --from 127.0.0.1:2379 --to 10.0.0.9:2379 --again --until-caught-up    the way back";

/// How often a pass begins anew because what it read was compacted meanwhile.
const PASSES_MAX: usize = 5;

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Migrate {
    /// Client addresses of the etcd to copy, separated by commas
    #[arg(long, value_name = "HOST:PORT,...", required_unless_present = "from_snapshot")]
    from: Option<String>,
    /// A file by `etcdctl snapshot save`, or an etcd's member/snap/db while it is stopped
    #[arg(long, value_name = "FILE", conflicts_with_all = ["from", "once", "until_caught_up"])]
    from_snapshot: Option<PathBuf>,
    /// Client addresses of the members to copy to, separated by commas
    #[arg(
        long,
        visible_alias = "endpoints",
        value_name = "HOST:PORT,...",
        env = "TENURE_ENDPOINTS",
        default_value = "127.0.0.1:2379"
    )]
    to: String,
    /// Only keys that begin with PREFIX
    #[arg(long, value_name = "PREFIX", default_value = "", hide_default_value = true)]
    prefix: String,
    /// Do not follow: stop after the copy
    #[arg(long, conflicts_with = "until_caught_up")]
    once: bool,
    /// Follow, and cut over by itself as soon as all is written that had happened
    #[arg(long)]
    until_caught_up: bool,
    /// The target was filled before: overwrite what differs, and remove what the source does not have
    #[arg(long)]
    again: bool,
    /// Overwrite what differs, and leave keys that the source does not have
    #[arg(long, conflicts_with = "again")]
    keep_others: bool,
}

impl Migrate {
    pub async fn run(self) -> Result<(), Failure> {
        let mut signals = Signals::listen()?;
        let target = client(&self.to)?;
        let source = match (&self.from_snapshot, &self.from) {
            (Some(file), _) => Source::File(Arc::new(open(file)?)),
            (None, from) => Source::Live(other(from.as_deref().unwrap_or_default(), &target)?),
        };
        answers(&target, "target").await?;
        if let Source::Live(source) = &source {
            answers(source, "source").await?;
        }
        let leases = Leases::new(source.clone(), target.clone());
        let span = Span::of_prefix(&self.prefix);
        let sides = Sides { source, target, leases, span, keep_others: self.keep_others };
        let mut empty = interruptible(&mut signals, self.admitted(&sides)).await?;
        loop {
            let copied = interruptible(&mut signals, self.copy(&sides, empty)).await?;
            let Source::Live(_) = &sides.source else { return self.end(&sides, copied, &mut signals).await };
            if self.once {
                return self.end(&sides, copied, &mut signals).await;
            }
            if !self.until_caught_up {
                output::say("following; Ctrl-C or SIGTERM cuts over")?;
            }
            match sides.follow(copied, self.until_caught_up, &mut signals).await? {
                Followed::Until(revision) => return self.end(&sides, revision, &mut signals).await,
                Followed::Compacted => {
                    warn("what was to be told next was compacted at the source; copying anew");
                    empty = false;
                }
            }
        }
    }

    /// Whether the target may be written to; gives whether there is nothing yet.
    async fn admitted(&self, sides: &Sides) -> Result<bool, Failure> {
        let empty = sides.target_is_empty().await.map_err(unbroken)?;
        if empty || self.again || self.keep_others {
            return Ok(empty);
        }
        let found = compared(sides, sides.source.revision().await?).await?;
        if found.different + found.others == 0 {
            return Ok(false);
        }
        Err(Failure::failed(format!(
            "the target has {} keys that the source does not have and {} with other values (the first that differs: {}); nothing was \
             written. --again brings the target to what the source has, --keep-others leaves what only the target has",
            found.others,
            found.different,
            found.first.unwrap_or_default()
        )))
    }

    /// One pass; gives the revision of the source that the target then is at.
    async fn copy(&self, sides: &Sides, mut empty: bool) -> Result<i64, Failure> {
        let began = Instant::now();
        for _ in 0..PASSES_MAX {
            let revision = sides.source.revision().await?;
            let copied = match sides.copy(revision, empty).await {
                Ok(copied) => copied,
                Err(Broken::Compacted) => {
                    warn(&format!("revision {revision} was compacted at the source; copying anew"));
                    empty = false;
                    continue;
                }
                Err(Broken::Failed(failure)) => return Err(failure),
            };
            if self.prefix.is_empty() {
                sides.leases.learn_all().await?;
            }
            if copied.reserved > 0 {
                warn(&format!(
                    "{} keys below /_tenure/ were left out: that is the server's own room",
                    copied.reserved
                ));
            }
            output::say(&format!(
                "copied revision {revision}: {} keys, {}, {} leases; written {}, removed {}, in {:.1} s",
                copied.keys,
                output::bytes(copied.bytes),
                sides.leases.count(),
                copied.written.puts,
                copied.written.deletes,
                began.elapsed().as_secs_f64()
            ))?;
            return Ok(revision);
        }
        Err(Failure::failed(format!(
            "the source is compacted faster than it can be read, {PASSES_MAX} times; suspend its compaction meanwhile"
        )))
    }

    /// Compares, mends what differs once, and says whether both sides agree.
    async fn end(&self, sides: &Sides, revision: i64, signals: &mut Signals) -> Result<(), Failure> {
        interruptible(signals, async {
            let mut found = compared(sides, revision).await?;
            if !found.agrees() {
                warn(&format!("{}; copying what differs", found.differences()));
                let revision = self.copy(sides, false).await?;
                found = compared(sides, revision).await?;
            }
            sides.leases.end_the_ended().await?;
            found.say()
        })
        .await
    }
}

impl Comparison {
    fn differences(&self) -> String {
        format!(
            "missing at the target: {}, different: {}, only there: {} (the first: {})",
            self.missing,
            self.different,
            self.others,
            self.first.as_deref().unwrap_or("none")
        )
    }

    fn say(&self) -> Result<(), Failure> {
        for (name, side) in [("source", &self.source), ("target", &self.target)] {
            let bytes = output::bytes(side.bytes);
            output::say(&format!("{name}  {} keys, {bytes}, sha256 {}", side.keys, side.sha256))?;
        }
        if self.ended > 0 {
            output::say(&format!("not counted: {} keys whose leases ended meanwhile", self.ended))?;
        }
        match self.agrees() {
            true => output::say("both sides agree"),
            false => Err(Failure::failed(format!(
                "the two sides differ: {}; does anybody write to them? The same with --again brings the difference",
                self.differences()
            ))),
        }
    }
}

/// Both sides as they are; of the source's revision, or a newer one if that is compacted.
async fn compared(sides: &Sides, mut revision: i64) -> Result<Comparison, Failure> {
    for _ in 0..PASSES_MAX {
        match sides.compare(revision).await {
            Ok(found) => return Ok(found),
            Err(Broken::Compacted) => revision = sides.source.revision().await?,
            Err(Broken::Failed(failure)) => return Err(failure),
        }
    }
    Err(Failure::failed(
        "the source is compacted faster than it can be compared; suspend its compaction meanwhile",
    ))
}

fn unbroken(broken: Broken) -> Failure {
    match broken {
        Broken::Failed(failure) => failure,
        Broken::Compacted => Failure::failed("the target compacts what it has while it is read; try again"),
    }
}

async fn interruptible<T>(
    signals: &mut Signals,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    tokio::select! {
        signal = signals.next() => Err(stopped(signals::name(signal))),
        done = work => done,
    }
}

fn client(addresses: &str) -> Result<Client, Failure> {
    // A page of large values takes longer than a question.
    let options = Options { attempt_timeout: Duration::from_secs(20), ..Options::default() };
    let options = Options { request_timeout: Duration::from_secs(30), ..options };
    Ok(Client::with_options(addresses, options)?)
}

/// Whoever is not there at the beginning is not waited for.
async fn answers(client: &Client, side: &str) -> Result<(), Failure> {
    let mut complaints = Vec::new();
    for member in client.status().await {
        match member.status {
            Ok(_) => return Ok(()),
            Err(error) => complaints.push(error.to_string()),
        }
    }
    Err(Failure::unreachable(format!("no member of the {side} answered: {}", complaints.join(", "))))
}

/// The source, which must not be the target.
fn other(addresses: &str, target: &Client) -> Result<Client, Failure> {
    let source = client(addresses)?;
    let bare = |address: &str| address.trim_start_matches("http://").replace("localhost", "127.0.0.1");
    let targets: Vec<String> = target.endpoints().into_iter().map(bare).collect();
    match source.endpoints().into_iter().find(|address| targets.contains(&bare(address))) {
        Some(address) => Err(Failure::failed(format!("{address} is both source and target; give --to"))),
        None => Ok(source),
    }
}

fn open(path: &std::path::Path) -> Result<EtcdFile, Failure> {
    let file = EtcdFile::open(path)?;
    if !file.was_summed {
        warn(
            "the file ends without a checksum, so it is a database and not a snapshot: was its etcd stopped?",
        );
    }
    if file.has_users {
        warn("users and roles are not copied: Tenure has none yet");
    }
    Ok(file)
}
