//! The noun `snapshot`: a cluster's whole state in one file. Its verbs are a file each; here is what they share.

mod restore;
mod save;
mod status;

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use clap::Subcommand;
use tenured::backup::Survey;

use crate::failure::Failure;
use crate::progress;

/// Bytes read from a backup at a time.
const BUFFER_BYTES: usize = 1 << 20;

#[derive(Subcommand)]
pub enum Snapshot {
    /// Save the state of a running cluster to a file, while it goes on
    Save(save::Save),
    /// Verify a saved file and say what it holds
    Status(status::Status),
    /// Make the data directory of a new cluster's member from a saved file, offline
    Restore(restore::Restore),
}

impl Snapshot {
    pub async fn run(self) -> Result<(), Failure> {
        match self {
            Snapshot::Save(save) => save.run().await,
            Snapshot::Status(status) => status.run(),
            Snapshot::Restore(restore) => restore.run(),
        }
    }
}

/// A backup to be read from its beginning, several times over.
struct BackupFile<'a> {
    path: &'a Path,
    size: u64,
}

impl BackupFile<'_> {
    fn at(path: &Path) -> Result<BackupFile<'_>, Failure> {
        let size = std::fs::metadata(path).map_err(|error| unreadable(path, &error))?.len();
        Ok(BackupFile { path, size })
    }

    fn open(&self) -> Result<impl Read, Failure> {
        let file = File::open(self.path).map_err(|error| unreadable(self.path, &error))?;
        Ok(BufReader::with_capacity(BUFFER_BYTES, file))
    }

    /// Reads and proves all of it.
    fn survey(&self) -> Result<Survey, Failure> {
        let bar = progress::Bytes::start("verifying", self.size);
        Survey::of(bar.follow(self.open()?)).map_err(|error| Failure::of_backup(self.path, &error))
    }
}

fn unreadable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::failed(format!("cannot read {}: {error}", path.display()))
}
