//! Between `tenure` and a command that it runs: this program again, which asks the kernel to be killed when its parent dies and then
//! becomes the command. So nothing runs on under a lock that nobody renews, and no code needs to run between fork and exec.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;

use clap::Args;
use rustix::process::{Pid, Signal, getppid};

use crate::failure::Failure;

/// The verb by which it is called.
pub const VERB: &str = "__leash";

#[derive(Args)]
pub struct Leash {
    /// Who must be alive
    parent: i32,
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

impl Leash {
    /// Returns only if the command cannot be started.
    pub fn run(self) -> Failure {
        if let Err(failure) = bind(self.parent) {
            return failure;
        }
        let (program, arguments) =
            self.command.split_first().expect("the parser asks for one word at the least");
        let error = std::process::Command::new(program).args(arguments).exec();
        Failure::command_not_started(&program.to_string_lossy(), &error)
    }
}

#[cfg(target_os = "linux")]
fn bind(parent: i32) -> Result<(), Failure> {
    let bound = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    bound.map_err(|error| Failure::failed(format!("cannot be bound to the parent's life: {error}")))?;
    alive(parent)
}

#[cfg(not(target_os = "linux"))]
fn bind(parent: i32) -> Result<(), Failure> {
    alive(parent)
}

/// It may have died before the kernel was asked.
fn alive(parent: i32) -> Result<(), Failure> {
    match getppid().map(Pid::as_raw_nonzero) {
        Some(pid) if pid.get() == parent => Ok(()),
        _ => Err(Failure::failed("the parent is gone")),
    }
}
