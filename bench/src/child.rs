//! Servers we started, and the promise that none outlives us: they are killed when dropped, when we panic (the release build
//! aborts on panic, so nothing is dropped then) and on a second ctrl-C. Only our own children are ever signalled, by their id,
//! and only until they are reaped, after which the id may belong to somebody else.

use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::sleep;

use crate::command::Command;
use crate::failure::Failure;

/// Children not yet reaped. Reaping happens under this lock, so an id found here is still ours.
static RUNNING: Mutex<Vec<u32>> = Mutex::new(Vec::new());

/// How long a server may take to end after it was asked to, before it is killed.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(5);

/// A started server.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
}

impl Process {
    /// Starts the command with its output appended to `log`, out of reach of the terminal's ctrl-C.
    pub(crate) fn start(command: &Command, log: &Path) -> Result<Self, Failure> {
        let failed = |what: &str, e: std::io::Error| Failure::setup(format!("{what}: {e}"));
        let out = File::options().create(true).append(true).open(log);
        let out = out.map_err(|e| failed(&format!("write {}", log.display()), e))?;
        let err = out.try_clone().map_err(|e| failed("share the log", e))?;
        let mut running = running();
        let child = std::process::Command::new(&command.program)
            .args(&command.arguments)
            .envs(command.settings.iter().cloned())
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .process_group(0)
            .spawn()
            .map_err(|e| failed(&format!("start {}", command.program), e))?;
        running.push(child.id());
        Ok(Self { child })
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// How the process ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        let mut running = running();
        let status = self.child.try_wait().ok().flatten()?;
        running.retain(|id| *id != self.child.id());
        Some(status)
    }

    /// Sends the signal, unless the process has ended.
    pub(crate) fn signal(&self, signal: Signal) {
        if running().contains(&self.child.id()) {
            send(self.child.id(), signal);
        }
    }

    /// Sends the signal and waits for the end; kills what does not end in time.
    pub(crate) async fn end(&mut self, signal: Signal) {
        if self.ended().is_some() {
            return;
        }
        send(self.child.id(), signal);
        let start = Instant::now();
        while self.ended().is_none() {
            if start.elapsed() > PATIENCE {
                return self.kill();
            }
            sleep(POLL).await;
        }
    }

    fn kill(&mut self) {
        let mut running = running();
        if running.contains(&self.child.id()) {
            self.child.kill().ok();
            self.child.wait().ok();
            running.retain(|id| *id != self.child.id());
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Kills every child that still runs.
pub(crate) fn kill_all() {
    // A panic while the lock is held must not keep the others alive for ever.
    let Ok(running) = RUNNING.try_lock() else { return };
    running.iter().for_each(|id| send(*id, Signal::KILL));
}

/// From now on a panic kills all children before it is reported.
pub(crate) fn kill_all_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        kill_all();
        report(panic);
    }));
}

fn running() -> MutexGuard<'static, Vec<u32>> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

fn send(id: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(id).ok().and_then(Pid::from_raw) {
        kill_process(pid, signal).ok();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn sleeper(log: &Path) -> Process {
        let command =
            Command { settings: Vec::new(), program: "sleep".into(), arguments: vec!["600".into()] };
        Process::start(&command, log).unwrap()
    }

    /// A process that is gone or only waits to be reaped.
    fn is_gone(id: u32) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat"));
        stat.map_or(true, |stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z')))
    }

    #[tokio::test]
    async fn children_end_when_told_when_dropped_and_when_we_panic() {
        let log = std::env::temp_dir().join(format!("tenure-bench-child-{}", std::process::id()));
        let mut told = sleeper(&log);
        assert!(told.ended().is_none());
        told.end(Signal::TERM).await;
        assert!(told.ended().is_some() && is_gone(told.id()));

        let dropped = sleeper(&log);
        let id = dropped.id();
        assert!(!is_gone(id));
        drop(dropped);
        assert!(is_gone(id));
        assert!(!running().contains(&id));

        let mut left = sleeper(&log);
        kill_all_on_panic();
        std::panic::catch_unwind(|| panic!("on purpose")).unwrap_err();
        while left.ended().is_none() {
            tokio::task::yield_now().await;
        }
        std::fs::remove_file(&log).unwrap();
    }

    #[test]
    fn a_program_that_does_not_exist_is_named() {
        let command =
            Command { settings: Vec::new(), program: "/no/such/server".into(), arguments: Vec::new() };
        let failure = Process::start(&command, Path::new("/dev/null")).unwrap_err();
        assert!(failure.message.contains("/no/such/server"), "{failure}");
    }
}
