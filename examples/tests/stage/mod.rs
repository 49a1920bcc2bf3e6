//! A server, and examples as processes whose lines are read. It must not know what any test claims.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tenure_client::Client;

/// How long anything may take on a machine that has other work.
const BOUND: Duration = Duration::from_secs(60);
/// Below the range from which the kernel takes ports for outgoing connections.
const PORTS: std::ops::Range<u16> = 12_000..31_900;
/// Lines without a word that count as silence.
const SILENCE: usize = 30;
const LINES_MAX: usize = 10_000;

/// A member that serves.
pub struct Server {
    child: Child,
    pub endpoint: String,
    _home: TempDir,
}

impl Server {
    pub async fn start() -> Server {
        let home = tempfile::tempdir().unwrap();
        let (client_port, peer_port) = (free_port(), free_port());
        let tests = std::env::current_exe().unwrap();
        let program = tests.parent().and_then(Path::parent).unwrap().join("tenured");
        assert!(
            program.is_file(),
            "{} is not there; build it with `cargo build --bin tenured`",
            program.display()
        );
        let (client, peer) =
            (format!("http://127.0.0.1:{client_port}"), format!("http://127.0.0.1:{peer_port}"));
        let mut command = Command::new(program);
        command.arg("--data-dir").arg(home.path().join("data")).args(["--log-level", "error"]);
        command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.args(["--initial-cluster", &format!("default={peer}")]);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        let server = Server { child, endpoint: format!("127.0.0.1:{client_port}"), _home: home };
        let deadline = Instant::now() + BOUND;
        while server.client().kv().get("is it there").await.is_err() {
            assert!(Instant::now() < deadline, "the server does not serve");
        }
        server
    }

    pub fn client(&self) -> Client {
        Client::connect(&self.endpoint).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An example that runs.
pub struct Example {
    child: Child,
    lines: Receiver<String>,
    pub words: Vec<String>,
    pub said: Vec<String>,
}

impl Example {
    pub fn start(program: &str, words: &[&str], server: &Server) -> Example {
        let mut command = Command::new(program);
        command
            .args(words)
            .env("TENURE_ENDPOINTS", &server.endpoint)
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (tell, lines) = sync_channel(LINES_MAX);
        let stdout = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| tell.send(line)));
        let words = words.iter().map(|word| (*word).to_owned()).collect();
        Example { child, lines, words, said: Vec::new() }
    }

    /// Reads on until a line has these words.
    pub fn wait_for(&mut self, text: &str) {
        let deadline = Instant::now() + BOUND;
        while !self.next(deadline, text).contains(text) {}
    }

    /// Reads on until so many lines in a row did not have these words.
    pub fn wait_for_silence_of(&mut self, text: &str) {
        let deadline = Instant::now() + BOUND;
        let mut silent = 0;
        while silent < SILENCE {
            silent = if self.next(deadline, text).contains(text) { 0 } else { silent + 1 };
        }
    }

    fn next(&mut self, deadline: Instant, text: &str) -> String {
        let line = self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now()));
        let line =
            line.unwrap_or_else(|why| panic!("{:?}, {text} ({why}):\n{}", self.words, self.said.join("\n")));
        self.said.push(line.clone());
        line
    }

    pub fn kill(mut self) {
        self.child.kill().unwrap();
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One that this process has not given away.
fn free_port() -> u16 {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let mut given = GIVEN.lock().unwrap();
    let mut ports = (0..1_000).map(|_| rand::random_range(PORTS));
    ports.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok() && given.insert(*port)).unwrap()
}
