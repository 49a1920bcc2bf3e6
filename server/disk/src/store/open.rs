//! Opening the store, and the ways in which that fails. What to do about a damaged store is the caller's choice.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::StoreOptions;
use super::database::Database;
use super::directory::Directory;
use super::engine::Engine;
use super::memory::{InMemory, Memory};
use super::shared::{Home, Shared};

/// Why a store could not be opened. Each text is one line: what was attempted, on what, what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("open the store {}: another process has it open; stop that one first", path.display())]
    Locked { path: PathBuf },
    /// The store is damaged, as a torn journal is after power loss. Its contents can be had again from the log if
    /// nothing was purged from it, else from the leader: then [`super::Store::set_aside`] and open anew.
    #[error(
        "open the store {}: {cause}; it cannot be repaired: move it aside, and the replica is rebuilt from its log or \
         from the leader",
        path.display()
    )]
    Rebuildable { path: PathBuf, cause: String },
    #[error("open the store {}: another release wrote it ({cause}); start that release, or move the store aside", path.display())]
    OtherFormat { path: PathBuf, cause: String },
    #[error("{attempt} {}: {error}; check permissions, free space and the disk", path.display())]
    Io { attempt: &'static str, path: PathBuf, error: io::Error },
}

pub(super) fn open(dir: &Path, options: StoreOptions) -> Result<Shared, OpenError> {
    let directory = Directory::hold(dir)?;
    let live = directory.live()?;
    let path = match &live {
        Some(path) => path.clone(),
        None => directory.first()?,
    };
    let database = Database::open(&path, &options).map_err(|error| classify(&path, error))?;
    if live.is_none() {
        directory.switch(&path).map_err(|error| OpenError::Io {
            attempt: "switch to",
            path: path.clone(),
            error,
        })?;
        directory.finished(&path)?;
    }
    let engine = Engine::Database(database);
    let applied =
        engine.applied().map_err(|fatal| OpenError::Rebuildable { path: path.clone(), cause: fatal.0 })?;
    Ok(Shared::new(Home::Directory(directory), Arc::new(engine), applied, options))
}

pub(super) fn in_memory(memory: &Memory, options: StoreOptions) -> Shared {
    let tables = InMemory::open(memory);
    let applied = tables.view().applied();
    Shared::new(Home::Memory, Arc::new(Engine::Memory(tables)), applied, options)
}

/// Sorts the library's errors by what the operator can do. Files that are missing, end early or stand where none should
/// are damage, not trouble with the disk.
pub(super) fn classify(path: &Path, error: fjall::Error) -> OpenError {
    let path = path.to_owned();
    match error {
        fjall::Error::Locked => OpenError::Locked { path },
        fjall::Error::InvalidVersion(Some(_)) => OpenError::OtherFormat { path, cause: error.to_string() },
        fjall::Error::Io(error) | fjall::Error::Storage(fjall::LsmError::Io(error)) if !is_damage(&error) => {
            OpenError::Io { attempt: "open the store", path, error }
        }
        error => OpenError::Rebuildable { path, cause: error.to_string() },
    }
}

fn is_damage(error: &io::Error) -> bool {
    use io::ErrorKind::{AlreadyExists, InvalidData, NotFound, UnexpectedEof};
    matches!(error.kind(), AlreadyExists | InvalidData | NotFound | UnexpectedEof)
}
