//! A client program that a test runs: its words in, its lines out, its end. Always bounded, always reaped.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::wait::Deadline;

/// A program under way.
pub struct Program {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Collected,
    stderr: Collected,
}

/// How a program ended and what it said.
pub struct Finished {
    pub status: ExitStatus,
    /// It did not end within its bound and was killed.
    pub endless: bool,
    pub stdout: String,
    pub stderr: String,
}

impl Program {
    /// Starts it in an environment of its own, so that no variable of the caller's changes what it does.
    pub fn start<A: AsRef<OsStr>>(path: &Path, arguments: &[A]) -> Program {
        let mut command = Command::new(path);
        command.args(arguments).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {}: {error}", path.display()));
        let stdin = child.stdin.take();
        let stdout = Collected::from(child.stdout.take().expect("piped above"));
        let stderr = Collected::from(child.stderr.take().expect("piped above"));
        Program { child, stdin, stdout, stderr }
    }

    /// Gives it something to read; more may follow. A program that has stopped reading is not at fault here.
    pub fn say(&mut self, text: &str) {
        let stdin = self.stdin.as_mut().expect("nothing is said after the end of the input");
        let _ = stdin.write_all(text.as_bytes()).and_then(|()| stdin.flush());
    }

    /// Waits until it has written so many lines to its standard output; false if it ends, or `bound` passes, without.
    pub fn wait_for_lines(&mut self, lines: usize, bound: Duration) -> bool {
        let deadline = Deadline::after(bound);
        loop {
            // Looked at in this order, so that the last lines of a program that ends are not missed.
            let ended = self.child.try_wait().expect("our own child").is_some();
            if self.stdout.text().lines().count() >= lines {
                return true;
            }
            if ended || !deadline.pause() {
                return false;
            }
        }
    }

    /// Ends its input, then waits for its own end.
    pub fn finish(mut self, bound: Duration) -> Finished {
        self.stdin = None;
        self.ended(bound)
    }

    /// Asks it to stop, then waits for its end. By SIGTERM: SIGINT is ignored by all that a background job starts.
    pub fn interrupt(mut self, bound: Duration) -> Finished {
        // Once it has been seen to end, its number may be somebody else's.
        if self.child.try_wait().expect("our own child").is_none() {
            kill_process(Pid::from_child(&self.child), Signal::TERM).expect("our own child, not yet reaped");
        }
        let finished = self.ended(bound);
        self.stdin = None;
        finished
    }

    fn ended(&mut self, bound: Duration) -> Finished {
        let deadline = Deadline::after(bound);
        let mut endless = false;
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("our own child") {
                break status;
            }
            if !deadline.pause() {
                endless = true;
                self.child.kill().expect("our own child, not yet reaped");
                break self.child.wait().expect("our own child");
            }
        };
        Finished { status, endless, stdout: self.stdout.complete(), stderr: self.stderr.complete() }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Finished {
    /// The exit code, or minus the number of the signal that ended it.
    pub fn code(&self) -> i32 {
        self.status
            .code()
            .or(self.status.signal().map(|signal| -signal))
            .expect("it has ended one way or the other")
    }
}

/// A stream read by a thread of its own, so that a full pipe never blocks the program.
struct Collected {
    bytes: Arc<Mutex<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
}

impl Collected {
    fn from(mut stream: impl Read + Send + 'static) -> Collected {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let sink = bytes.clone();
        let reader = std::thread::spawn(move || {
            let mut chunk = [0; 8192];
            while let Ok(count @ 1..) = stream.read(&mut chunk) {
                sink.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&chunk[..count]);
            }
        });
        Collected { bytes, reader: Some(reader) }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }

    /// Everything, once the program has ended.
    fn complete(&mut self) -> String {
        if let Some(reader) = self.reader.take() {
            reader.join().expect("the reader cannot panic");
        }
        self.text()
    }
}
