//! One member as a process: what it writes becomes news, and so does its end. It is in a process group of its own, so that a
//! Ctrl-C reaches it only through us, and it does not outlive us.

use std::path::Path;
use std::process::{ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, watch};

use crate::failure::Failure;

/// What a member said, or that it is no more.
pub enum News {
    Line { member: String, line: String },
    Ended { member: String, end: End },
}

/// How it ended, in words.
pub struct End(pub String);

/// A running member.
pub struct Member {
    pid: Pid,
    /// Told to kill it.
    kill: watch::Sender<bool>,
}

impl Member {
    pub fn start(
        program: &Path,
        name: &str,
        arguments: Vec<String>,
        tell: mpsc::Sender<News>,
    ) -> Result<Member, Failure> {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.process_group(0).kill_on_drop(true).spawn().map_err(|error| {
            let what = "build it with `cargo build --bin tenured`, or say where it is with --tenured";
            Failure::failed(format!("cannot start {}: {error}; {what}", program.display()))
        })?;
        let pid = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        let pid = pid.ok_or_else(|| Failure::failed(format!("{name} ended at once")))?;
        let outputs = [
            child.stdout.take().map(|output| tokio::spawn(read(output, name.to_owned(), tell.clone()))),
            child.stderr.take().map(|output| tokio::spawn(read(output, name.to_owned(), tell.clone()))),
        ];
        let (kill, killed) = watch::channel(false);
        let member = name.to_owned();
        tokio::spawn(async move {
            let status = wait(&mut child, killed).await;
            // Its last lines come before its end.
            for output in outputs.into_iter().flatten() {
                let _ = output.await;
            }
            let end = End(status.map_or_else(|error| error.to_string(), |status| status.to_string()));
            let _ = tell.send(News::Ended { member, end }).await;
        });
        Ok(Member { pid, kill })
    }

    pub fn ask_to_stop(&self) {
        // A member that ended meanwhile need not be asked. It is not yet reaped when its end was not yet told.
        let _ = kill_process(self.pid, Signal::TERM);
    }

    pub fn kill(&self) {
        self.kill.send_replace(true);
    }
}

async fn wait(child: &mut Child, mut killed: watch::Receiver<bool>) -> std::io::Result<ExitStatus> {
    tokio::select! {
        status = child.wait() => return status,
        Ok(_) = killed.wait_for(|killed| *killed) => {}
    }
    child.kill().await?;
    child.wait().await
}

async fn read(output: impl AsyncRead + Unpin, member: String, tell: mpsc::Sender<News>) {
    let mut lines = BufReader::new(output).lines();
    // A line that is no text is passed over; the end of the output ends this.
    loop {
        match lines.next_line().await {
            Ok(Some(line)) => {
                if tell.send(News::Line { member: member.clone(), line }).await.is_err() {
                    return;
                }
            }
            Ok(None) => return,
            Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {}
            Err(_) => return,
        }
    }
}
