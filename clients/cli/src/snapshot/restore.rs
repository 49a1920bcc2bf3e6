//! `tenure snapshot restore`: flags in etcdutl's words, made into what a member would be started with, and handed to the
//! server's own room for restoring.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Instant;

use clap::{ArgAction, Args};
use tenured::backup::Survey;
use tenured::config::{self, Config, Invocation};
use tenured::restore::{self, Plan, Restored};

use super::BackupFile;
use crate::failure::Failure;
use crate::{output, progress};

const EXAMPLES: &str = "\
Run it once for each member of the new cluster, on that member's machine, with the same file and the same flags but the member's own
--name, --initial-advertise-peer-urls and --data-dir. Then start all of them with the same flags. Leases begin anew with their full
time; alarms and members of the old cluster stay behind. Let no member of the old cluster run any more, or let clients not reach it.

Examples:
  tenure snapshot restore backup.db --data-dir /var/lib/tenure
  tenure snapshot restore backup.db --name a --data-dir /var/lib/tenure \\
      --initial-cluster a=http://10.0.1.1:2380,b=http://10.0.1.2:2380,c=http://10.0.1.3:2380 \\
      --initial-advertise-peer-urls http://10.0.1.1:2380";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Restore {
    /// The saved file
    file: PathBuf,
    /// This member's name
    #[arg(long, default_value = "default")]
    name: String,
    /// The new cluster's members, as name=url,name=url [default: this member alone]
    #[arg(long, value_name = "NAME=URL,...")]
    initial_cluster: Option<String>,
    /// Part of the new cluster's id, the same for all its members [default: from the file's own hash]
    #[arg(long, value_name = "TOKEN")]
    initial_cluster_token: Option<String>,
    /// This member's peer URLs, as --initial-cluster has them
    #[arg(long, value_name = "URL,...", default_value = "http://localhost:2380")]
    initial_advertise_peer_urls: String,
    /// A directory that is empty or not there yet [default: NAME.etcd]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// The Raft log, if on a disk of its own
    #[arg(long, value_name = "DIR")]
    wal_dir: Option<PathBuf>,
    /// How many revisions to skip: more than the old cluster can have had after the backup, so that what it told its clients
    /// is never mistaken for the new one's
    #[arg(long, value_name = "N", default_value_t = 1_000_000_000)]
    bump_revision: u32,
    /// Take all before the new revision for compacted, so that who watches from before learns it; needed with a bump
    #[arg(long, value_name = "BOOL", default_value_t = true, action = ArgAction::Set)]
    mark_compacted: bool,
}

impl Restore {
    pub fn run(self) -> Result<(), Failure> {
        if self.bump_revision > 0 && !self.mark_compacted {
            let text = "--bump-revision without --mark-compacted would have watchers wait for revisions that never come; \
                        give --mark-compacted=true, or --bump-revision=0";
            return Err(Failure::failed(text));
        }
        let began = Instant::now();
        let file = BackupFile::at(&self.file)?;
        // Wrong flags are said before the whole file is read.
        self.config("checked-below")?.bootstrap().map_err(Failure::failed)?;
        let survey = file.survey()?;
        let token = self.initial_cluster_token.clone().unwrap_or_else(|| token_of(&survey));
        let plan = Plan {
            config: self.config(&token)?,
            bump: i64::from(self.bump_revision),
            mark_compacted: self.mark_compacted,
        };
        let bar = progress::Bytes::start("restoring", file.size);
        let restored = restore::restore(&plan, &survey, bar.follow(file.open()?));
        drop(bar);
        let restored = restored.map_err(|error| match error {
            restore::Error::Backup(error) => Failure::of_backup(&self.file, &error),
            error => Failure::failed(format!("cannot restore {}: {error}", self.file.display())),
        })?;
        tell(&self, &survey, &restored, began)
    }

    /// What the server itself makes of these flags.
    fn config(&self, token: &str) -> Result<Config, Failure> {
        let mut arguments: Vec<OsString> = vec![
            "--name".into(),
            self.name.clone().into(),
            "--initial-cluster-token".into(),
            token.into(),
            "--initial-advertise-peer-urls".into(),
            self.initial_advertise_peer_urls.clone().into(),
        ];
        let optional = [
            ("--initial-cluster", self.initial_cluster.clone().map(OsString::from)),
            ("--data-dir", self.data_dir.clone().map(OsString::from)),
            ("--wal-dir", self.wal_dir.clone().map(OsString::from)),
        ];
        for (flag, value) in optional {
            arguments.extend(value.into_iter().flat_map(|value| [flag.into(), value]));
        }
        match config::read(arguments, []) {
            Ok(Invocation::Run { config, .. }) => Ok(*config),
            Ok(Invocation::Print(_) | Invocation::Check(_)) => {
                Err(Failure::failed("--help and --version go without other flags"))
            }
            Err(error) => Err(Failure::failed(error)),
        }
    }
}

/// A cluster restored from this file, and from no other; the same for all its members without their agreeing on one.
fn token_of(survey: &Survey) -> String {
    let hex: String = survey.whole.sha256.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("restored-{hex}")
}

fn tell(asked: &Restore, survey: &Survey, restored: &Restored, began: Instant) -> Result<(), Failure> {
    let Restored { identity, data_dir, revision } = restored;
    let machine = &survey.machine;
    output::say(&format!(
        "restored revision {} (keys: {}, leases: {}) into {} in {:.1} s",
        machine.revision(),
        machine.index().live_keys(),
        machine.leases().len(),
        data_dir.display(),
        began.elapsed().as_secs_f64()
    ))?;
    let (count, rest) = match identity.first_members.len() {
        1 => ("of one member".to_owned(), ""),
        members => (
            format!("of {members} members"),
            "; restore the other members from the same file before you start any",
        ),
    };
    output::say(&format!(
        "member {} of the new cluster {} {count}, which begins at revision {revision}",
        identity.member, identity.cluster
    ))?;
    output::say(&format!("start it with --name {} --data-dir {}{rest}", asked.name, data_dir.display()))
}
