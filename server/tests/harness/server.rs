//! A server as a process: on loopback ports of its own, in a directory of its own, with its standard error kept for the
//! moment when a test fails. It may be stopped politely, killed, and started again on the same directory.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::wait::Deadline;

const READY: &str = "ready to serve client requests";
const START_BOUND: Duration = Duration::from_secs(60);
const STOP_BOUND: Duration = Duration::from_secs(60);
/// Below the range from which the kernel takes ports for outgoing connections, so that nobody is given a server's port
/// while it is being restarted.
const PORTS: std::ops::Range<u16> = 12_000..32_000;
/// As much of a server's log as a failed test shows.
const LOG_SHOWN: usize = 6 * 1024;

/// How to start a server.
#[derive(Clone)]
pub struct Launch {
    pub program: PathBuf,
    pub data_dir: PathBuf,
    pub client_port: u16,
    pub peer_port: u16,
    pub name: String,
    /// All founders, `name=peer URL` with commas; None: this one alone.
    pub initial_cluster: Option<String>,
    /// Flags after the usual ones.
    pub extra: Vec<String>,
}

/// A running (or stopped) server.
pub struct Server {
    pub launch: Launch,
    log: PathBuf,
    /// How long the log was when the current life began.
    begun: usize,
    child: Option<Child>,
    /// Held for its end: the directory goes with the server.
    _home: TempDir,
}

impl Launch {
    /// The server under test: `tenured` as just built, or whatever `TENURE_SERVER` names, by which each test is proven on etcd.
    pub fn program_under_test() -> PathBuf {
        std::env::var_os("TENURE_SERVER").map_or_else(|| env!("CARGO_BIN_EXE_tenured").into(), PathBuf::from)
    }

    /// A one-member cluster below `home`, on free ports.
    pub fn alone(program: PathBuf, home: &Path) -> Launch {
        let (client_port, peer_port) = (free_port(), free_port());
        Launch {
            program,
            data_dir: home.join("data"),
            client_port,
            peer_port,
            name: "default".to_owned(),
            initial_cluster: None,
            extra: Vec::new(),
        }
    }

    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.client_port)
    }

    pub fn peer_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.peer_port)
    }

    pub fn arguments(&self) -> Vec<String> {
        let data_dir = self.data_dir.to_str().expect("temporary directories have plain names");
        let alone = format!("{}={}", self.name, self.peer_url());
        let mut arguments: Vec<String> = [
            ("--name", self.name.as_str()),
            ("--data-dir", data_dir),
            ("--listen-client-urls", &self.endpoint()),
            ("--advertise-client-urls", &self.endpoint()),
            ("--listen-peer-urls", &self.peer_url()),
            ("--initial-advertise-peer-urls", &self.peer_url()),
            ("--initial-cluster", self.initial_cluster.as_ref().unwrap_or(&alone)),
        ]
        .into_iter()
        .flat_map(|(flag, value)| [flag.to_owned(), value.to_owned()])
        .collect();
        arguments.extend(self.extra.iter().cloned());
        arguments
    }
}

impl Server {
    /// The server under test, started and ready.
    pub fn start() -> Server {
        Server::start_program(Launch::program_under_test())
    }

    pub fn start_program(program: PathBuf) -> Server {
        let home = tempfile::tempdir().expect("a temporary directory");
        let launch = Launch::alone(program, home.path());
        Server::start_as(launch, home)
    }

    pub fn start_as(launch: Launch, home: TempDir) -> Server {
        let mut server = Server::prepared(launch, home);
        server.restart();
        server
    }

    /// One that is not started yet.
    pub fn prepared(launch: Launch, home: TempDir) -> Server {
        let log = home.path().join("server.log");
        Server { launch, log, begun: 0, child: None, _home: home }
    }

    pub fn endpoint(&self) -> String {
        self.launch.endpoint()
    }

    /// Starts the stopped server on its directory and waits until it is ready.
    pub fn restart(&mut self) {
        self.begin();
        self.wait_until_ready();
    }

    /// Starts the stopped server without waiting.
    pub fn begin(&mut self) {
        assert!(self.child.is_none(), "it runs already");
        let log = File::options().create(true).append(true).open(&self.log).expect("our own directory");
        self.begun = log.metadata().expect("an open file").len() as usize;
        let stdout = log.try_clone().expect("an open file");
        let child = Command::new(&self.launch.program)
            .args(self.launch.arguments())
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {}: {error}", self.launch.program.display()));
        self.child = Some(child);
    }

    /// The polite way: SIGTERM, then its end within a bound, without an error.
    pub fn stop(&mut self) {
        let mut child = self.child.take().expect("only a running server is stopped");
        kill_process(Pid::from_child(&child), Signal::TERM).expect("our own child");
        let deadline = Deadline::after(STOP_BOUND);
        let status = loop {
            if let Some(status) = child.try_wait().expect("our own child") {
                break status;
            }
            if !deadline.pause() {
                self.child = Some(child);
                panic!("the server was still there {STOP_BOUND:?} after SIGTERM");
            }
        };
        // etcd ends itself with the signal it was sent; others may say success.
        let by_signal = status.signal() == Some(Signal::TERM.as_raw());
        assert!(status.success() || by_signal, "after SIGTERM the server ended with {status}");
    }

    /// kill -9, as a power switch for the process.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("only a running server is killed");
        child.kill().expect("our own child");
        child.wait().expect("our own child");
    }

    /// Waits until it has ended by itself; gives its exit code.
    pub fn wait_until_ended(&mut self) -> Option<i32> {
        let child = self.child.as_mut().expect("only a running server ends");
        let deadline = Deadline::after(STOP_BOUND);
        loop {
            if let Some(status) = child.try_wait().expect("our own child") {
                self.child = None;
                return status.code();
            }
            assert!(deadline.pause(), "the server has not ended within {STOP_BOUND:?}");
        }
    }

    /// What it has written in its current life, or its last.
    pub fn latest_log(&self) -> String {
        self.log_from(self.begun)
    }

    pub fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| child.try_wait().expect("our own child").is_none())
    }

    /// SIGSTOP: it keeps all it has and does nothing, until [`Server::go_on`].
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    pub fn go_on(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("only a running server is sent signals");
        kill_process(Pid::from_child(child), signal).expect("our own child");
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("only a running server has one").id()
    }

    /// Everything the server has written, of all its lives.
    pub fn log(&self) -> String {
        self.log_from(0)
    }

    fn log_from(&self, byte: usize) -> String {
        let bytes = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(bytes.get(byte..).unwrap_or_default()).into_owned()
    }

    /// Waits until the server that was begun serves.
    pub fn wait_until_ready(&mut self) {
        let deadline = Deadline::after(START_BOUND);
        while !self.log_from(self.begun).contains(READY) {
            let status = self.child.as_mut().expect("just started").try_wait().expect("our own child");
            assert!(
                status.is_none(),
                "the server ended with {} instead of serving",
                status.expect("checked")
            );
            assert!(deadline.pause(), "no line with '{READY}' from the server within {START_BOUND:?}");
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            let log = self.log();
            let mut from = log.len().saturating_sub(LOG_SHOWN);
            while !log.is_char_boundary(from) {
                from += 1;
            }
            // The lock makes two failing tests take turns; the macros would hide this behind output capture.
            let _ = writeln!(
                std::io::stderr().lock(),
                "--- the end of the log of {} ---\n{}\n---",
                self.launch.program.display(),
                &log[from..]
            );
        }
    }
}

/// One that this process has not given away: of many tests at once, one may not have taken its own yet.
fn free_port() -> u16 {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let mut given = GIVEN.lock().expect("nobody panics who holds it");
    for _ in 0..1000 {
        let port = rand::random_range(PORTS);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() && given.insert(port) {
            return port;
        }
    }
    drop(given);
    panic!("found no free port in {PORTS:?}");
}
