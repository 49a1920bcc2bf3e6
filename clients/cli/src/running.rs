//! A command that runs while something is held: it is told to stop when that is lost, killed when others may have it, and does not
//! outlive this program.
//!
//! Where standard input is no terminal it gets a process group of its own, and signals go to the whole group. At a terminal it
//! stays in this one's, so that it can read from there and Ctrl-C reaches it as usual.

use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, getpid, kill_process, kill_process_group};
use tenure_client::Held;
use tokio::process::{Child, Command};

use crate::failure::Failure;
use crate::leash;
use crate::signals::{self, Signals};

/// What is run, and what it finds in its environment.
pub struct Work {
    pub command: Vec<OsString>,
    pub environment: Vec<(&'static str, String)>,
}

/// What the command of a lock or an election is told.
pub fn environment(held: &Held, endpoints: String) -> Vec<(&'static str, String)> {
    vec![
        ("TENURE_NAME", held.name().to_owned()),
        ("TENURE_TOKEN", held.token().to_string()),
        ("TENURE_GUARD", held.guard().text.clone()),
        ("TENURE_SESSION", format!("{:x}", held.session().id())),
        ("TENURE_ENDPOINTS", endpoints),
    ]
}

/// A command at work.
pub struct Running {
    child: Child,
    pid: Pid,
    /// It has a process group of its own.
    grouped: bool,
    ended: bool,
}

/// Whoever does not wait for its end does not want it to go on.
impl Drop for Running {
    fn drop(&mut self) {
        if !self.ended {
            self.signal(Signal::KILL);
        }
    }
}

/// What may end a command before it ends by itself.
pub enum Stop {
    /// It was lost: killed if it still runs after so long.
    Lost { why: String, kill_after: Duration },
    /// Asked for: it may take its time.
    Asked(String),
}

impl Running {
    pub fn start(work: Work) -> Result<Running, Failure> {
        let myself = std::env::current_exe()
            .map_err(|error| Failure::failed(format!("cannot find this program itself: {error}")))?;
        let grouped = !std::io::stdin().is_terminal();
        let mut command = Command::new(myself);
        command.arg(leash::VERB).arg(getpid().as_raw_nonzero().to_string()).arg("--").args(&work.command);
        command.envs(work.environment).stdin(Stdio::inherit()).kill_on_drop(true);
        if grouped {
            command.process_group(0);
        }
        let child =
            command.spawn().map_err(|error| Failure::failed(format!("cannot start a process: {error}")))?;
        let pid = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        let pid = pid.ok_or_else(|| Failure::failed("the command ended before it began"))?;
        Ok(Running { child, pid, grouped, ended: false })
    }

    /// Waits for its end. `stop` may come once; signals to this program are passed on. Gives the exit code.
    pub async fn end(mut self, stop: impl Future<Output = Stop>) -> Result<u8, Failure> {
        let mut signals = Signals::listen()?;
        let mut stop = std::pin::pin!(stop);
        let (mut stopped, mut lost, mut asked) = (false, None, false);
        let mut kill = std::pin::pin!(tokio::time::sleep(Duration::MAX));
        loop {
            tokio::select! {
                biased;
                status = self.child.wait() => {
                    self.ended = true;
                    let status = status.map_err(|error| Failure::failed(format!("cannot wait for the command: {error}")))?;
                    return match lost {
                        Some(why) => Err(Failure::lost(format!("{why}; the command was told to stop"))),
                        None => Ok(code(status)),
                    };
                }
                reason = &mut stop, if !stopped => {
                    stopped = true;
                    match reason {
                        Stop::Lost { why, kill_after } => {
                            warn(&format!("{why}: stopping the command"));
                            kill.set(tokio::time::sleep(kill_after));
                            lost = Some(why);
                        }
                        Stop::Asked(why) => warn(&format!("{why}: stopping the command")),
                    }
                    self.signal(Signal::TERM);
                }
                () = &mut kill, if lost.is_some() => {
                    self.signal(Signal::KILL);
                    kill.set(tokio::time::sleep(Duration::MAX));
                }
                signal = signals.next() => self.pass_on(signal, &mut asked),
            }
        }
    }

    /// The second one kills. At a terminal Ctrl-C has reached the command already.
    fn pass_on(&self, signal: Signal, asked: &mut bool) {
        if !self.grouped && signal == Signal::INT {
            return;
        }
        if *asked {
            warn(&format!("received {} again: killing the command", signals::name(signal)));
            return self.signal(Signal::KILL);
        }
        *asked = true;
        self.signal(signal);
    }

    fn signal(&self, signal: Signal) {
        // It is not yet reaped, so that the number is still its own; that it ended meanwhile is no failure.
        let _ = match self.grouped {
            true => kill_process_group(self.pid, signal),
            false => kill_process(self.pid, signal),
        };
    }
}

/// What shells say of it.
fn code(status: ExitStatus) -> u8 {
    use std::os::unix::process::ExitStatusExt;
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
    u8::try_from(code).unwrap_or(1)
}

/// A line on standard error.
pub fn warn(text: &str) {
    // Where this cannot be written, the exit code has to do.
    let _ = writeln!(std::io::stderr(), "tenure: {text}");
}
