//! What went wrong, in one line, with the exit code by which a script can tell what to do about it.

use std::fmt;
use std::process::ExitCode;

use tenured::backup;

/// Why a command was not carried out.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub struct Failure {
    kind: Kind,
    text: String,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Failed = 1,
    Unreachable = 3,
    Damaged = 4,
}

impl Failure {
    pub fn failed(text: impl fmt::Display) -> Failure {
        Failure { kind: Kind::Failed, text: text.to_string() }
    }

    /// No member answered.
    pub fn unreachable(text: impl fmt::Display) -> Failure {
        Failure { kind: Kind::Unreachable, text: text.to_string() }
    }

    /// A backup, named by its path, was not one that can be used.
    pub fn of_backup(path: &std::path::Path, error: &backup::Error) -> Failure {
        use tenure_disk::backup::ReadError;
        let kind = match error {
            backup::Error::Read(ReadError::Foreign | ReadError::Damaged { .. }) => Kind::Damaged,
            backup::Error::Read(ReadError::Io { .. })
            | backup::Error::Unknown(_)
            | backup::Error::Changed => Kind::Failed,
        };
        Failure { kind, text: format!("the backup {} is of no use: {error}", path.display()) }
    }

    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.kind as u8)
    }
}
