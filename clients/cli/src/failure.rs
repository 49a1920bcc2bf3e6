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
    NotAcquired = 75,
    Lost = 76,
    CutOff = 77,
    /// What shells say of commands that cannot be run, and of those that are not there.
    NotRunnable = 126,
    NotFound = 127,
}

/// What clients are refused with says whether anybody was there.
impl From<tenure_client::Error> for Failure {
    fn from(error: tenure_client::Error) -> Failure {
        match error {
            tenure_client::Error::Unavailable(_) => Failure::unreachable(error),
            error => Failure::failed(error),
        }
    }
}

impl Failure {
    pub fn failed(text: impl fmt::Display) -> Failure {
        Failure { kind: Kind::Failed, text: text.to_string() }
    }

    /// No member answered.
    pub fn unreachable(text: impl fmt::Display) -> Failure {
        Failure { kind: Kind::Unreachable, text: text.to_string() }
    }

    /// The command was not run: somebody else has what it needs.
    pub fn not_acquired(text: impl fmt::Display) -> Failure {
        Failure { kind: Kind::NotAcquired, text: text.to_string() }
    }

    /// The command was ended: what it needed was lost.
    pub fn lost(text: impl fmt::Display) -> Failure {
        Failure { kind: Kind::Lost, text: text.to_string() }
    }

    /// The command was not run, for the same reason for which others fail as [`Failure::unreachable`]: a code that no command has.
    pub fn before_command(self) -> Failure {
        match self.kind {
            Kind::Unreachable => Failure { kind: Kind::CutOff, ..self },
            _ => self,
        }
    }

    pub fn command_not_started(program: &str, error: &std::io::Error) -> Failure {
        let missing = error.kind() == std::io::ErrorKind::NotFound;
        let kind = if missing { Kind::NotFound } else { Kind::NotRunnable };
        Failure { kind, text: format!("cannot run {program}: {error}") }
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

    /// A file that should have been read is damaged, or is none of its kind.
    pub fn damaged(text: impl fmt::Display) -> Failure {
        Failure { kind: Kind::Damaged, text: text.to_string() }
    }

    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.kind as u8)
    }
}
