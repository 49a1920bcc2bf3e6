//! `tenure snapshot save`: takes a member's snapshot stream to a file that is there whole and proven, or not at all.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use tenure_disk::backup::Reader;
use tenure_grpc::etcdserverpb::maintenance_client::MaintenanceClient;
use tenure_proto::etcdserverpb::SnapshotRequest;
use tenured::backup;

use super::BackupFile;
use crate::endpoints::Endpoints;
use crate::failure::Failure;
use crate::{output, progress};

const EXAMPLES: &str = "\
The file is written under another name first, read back and verified, and only then gets its own. Only its owner may read it: it
holds every value.

Examples:
  tenure snapshot save backup.db
  tenure snapshot save /backup/$(date +%F).db --endpoints 10.0.0.1:2379,10.0.0.2:2379
  TENURE_ENDPOINTS=10.0.0.1:2379 tenure snapshot save backup.db";

/// How long a member may be silent in the middle of a snapshot.
const SILENCE_MAX: Duration = Duration::from_secs(60);

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Save {
    /// Where to; a file that is there is replaced
    file: PathBuf,
    #[command(flatten)]
    endpoints: Endpoints,
}

impl Save {
    pub async fn run(self) -> Result<(), Failure> {
        let began = Instant::now();
        let (endpoint, channel) = self.endpoints.connect().await?;
        let mut part = Part::create(&self.file)?;
        let mut client = MaintenanceClient::new(channel).max_decoding_message_size(usize::MAX);
        let refused = |status: tonic::Status| {
            Failure::failed(format!("{endpoint} gave no snapshot: {}", status.message()))
        };
        let mut stream = client.snapshot(SnapshotRequest {}).await.map_err(refused)?.into_inner();
        let bar = progress::Bytes::start("saving", 0);
        let mut received = 0;
        loop {
            let piece = tokio::time::timeout(SILENCE_MAX, stream.message()).await.map_err(|_| {
                Failure::unreachable(format!(
                    "{endpoint} fell silent in the middle of its snapshot, after {}; try another member",
                    output::bytes(received)
                ))
            })?;
            let broken = |status: tonic::Status| {
                let text = status.message();
                Failure::unreachable(format!(
                    "the snapshot of {endpoint} broke off after {}: {text}",
                    output::bytes(received)
                ))
            };
            let Some(piece) = piece.map_err(broken)? else { break };
            part.write(&piece.blob)?;
            received += piece.blob.len() as u64;
            bar.at(received, received + piece.remaining_bytes);
        }
        drop(bar);
        let revision = part.verify()?;
        part.finish()?;
        output::say(&format!(
            "saved {} from {endpoint}: revision {revision}, {}, verified, in {:.1} s",
            self.file.display(),
            output::bytes(received),
            began.elapsed().as_secs_f64()
        ))
    }
}

/// The file under its first name, removed unless it is finished.
struct Part {
    path: PathBuf,
    target: PathBuf,
    file: File,
}

impl Part {
    fn create(target: &Path) -> Result<Part, Failure> {
        let mut name = target.file_name().unwrap_or_default().to_owned();
        if name.is_empty() || target.is_dir() {
            return Err(Failure::failed(format!("{} is no file; name one", target.display())));
        }
        name.push(".part");
        let path = target.with_file_name(name);
        // What an earlier run left may have been readable for others.
        let _ = std::fs::remove_file(&path);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let file =
            file.map_err(|error| Failure::failed(format!("cannot create {}: {error}", path.display())))?;
        Ok(Part { path, target: target.to_owned(), file })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let written = self.file.write_all(bytes);
        written.map_err(|error| Failure::failed(format!("cannot write {}: {error}", self.path.display())))
    }

    /// Reads back what was written; gives its revision.
    fn verify(&self) -> Result<i64, Failure> {
        let file = BackupFile::at(&self.path)?;
        let bar = progress::Bytes::start("verifying", file.size);
        let damaged = |error: backup::Error| Failure::of_backup(&self.path, &error);
        let mut reader = Reader::open(bar.follow(file.open()?)).map_err(|error| damaged(error.into()))?;
        for item in reader.by_ref() {
            item.map_err(|error| damaged(error.into()))?;
        }
        Ok(backup::head(reader.head()).map_err(damaged)?.applied.unwrap_or_default().revision)
    }

    /// Durable, then under its own name, durably.
    fn finish(self) -> Result<(), Failure> {
        let parent = match self.target.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let finished = self
            .file
            .sync_all()
            .and_then(|()| std::fs::rename(&self.path, &self.target))
            .and_then(|()| File::open(parent)?.sync_all());
        finished.map_err(|error| Failure::failed(format!("cannot finish {}: {error}", self.target.display())))
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // After the rename there is none.
        let _ = std::fs::remove_file(&self.path);
    }
}
