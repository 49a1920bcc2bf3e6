//! `tenure snapshot status`: verifies a file as a restore would, and says what is in it.

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Args;
use tenured::backup::Survey;
use tenured::ids::{ClusterId, MemberId};

use super::BackupFile;
use crate::failure::Failure;
use crate::output::{self, Fact, Format};
use crate::progress;

const EXAMPLES: &str = "\
The hash is the one that `etcdctl endpoint hashkv --rev REVISION` gives for the same history.

Examples:
  tenure snapshot status backup.db
  tenure snapshot status backup.db -o json | jq .revision";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Status {
    file: PathBuf,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

impl Status {
    pub fn run(self) -> Result<(), Failure> {
        let file = BackupFile::at(&self.file)?;
        let survey = file.survey()?;
        let hash = {
            let bar = progress::Bytes::start("hashing", file.size);
            survey.hash(bar.follow(file.open()?)).map_err(|error| Failure::of_backup(&self.file, &error))?
        };
        output::print(self.output, facts(&survey, hash))
    }
}

fn facts(survey: &Survey, hash: u32) -> Vec<Fact> {
    let Survey { head, whole, machine } = survey;
    let leases = machine.leases().len();
    let index = head.applied.clone().unwrap_or_default().position.unwrap_or_default();
    let sha256: String = whole.sha256.iter().map(|byte| format!("{byte:02x}")).collect();
    vec![
        Fact::new("hash", "hash", hash).note(format!("({hash:08x})")),
        Fact::new("revision", "revision", machine.revision().0),
        Fact::new("compacted", "compacted at", machine.compacted().0),
        Fact::new("totalKey", "keys", machine.index().live_keys()),
        Fact::new("records", "records", whole.records).note("with earlier values of keys"),
        Fact::new("leases", "leases", leases),
        Fact::new("totalSize", "size", whole.size).note(format!("({})", output::bytes(whole.size))),
        Fact::new("version", "version", head.version.clone()),
        Fact::new("cluster", "cluster", ClusterId(head.cluster).to_string()),
        Fact::new("member", "member", MemberId(head.member).to_string()).note(&head.member_name),
        Fact::new("term", "raft term", index.term),
        Fact::new("index", "raft index", index.index),
        Fact::new("takenAt", "taken", head.taken_unix_seconds).note(age(head.taken_unix_seconds)),
        Fact::new("sha256", "sha256", sha256),
    ]
}

/// For eyes, beside the seconds since 1970.
fn age(taken: i64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    match now.checked_sub(taken.unsigned_abs()) {
        Some(seconds @ 0..60) => format!("({seconds} s ago)"),
        Some(seconds @ 60..3_600) => format!("({} min ago)", seconds / 60),
        Some(seconds @ 3_600..172_800) => format!("({} h ago)", seconds / 3_600),
        Some(seconds) => format!("({} days ago)", seconds / 86_400),
        None => "(in the future: one of the clocks is wrong)".into(),
    }
}
