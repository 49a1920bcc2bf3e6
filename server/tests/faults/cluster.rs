//! A cluster of real processes, each with an address, a log file and a disk of its own, that can be killed, stopped and
//! started one by one. It knows how servers are run; it must not know what is asked of them, nor what any fault means.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::harness::{Deadline, Launch};
use crate::network::{Network, run};
use crate::volume::Volume;

const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";
const CLIENT_PORT: u16 = 2379;
const PEER_PORT: u16 = 2380;
/// What a cluster is made of.
#[derive(Clone)]
pub struct Design {
    pub program: PathBuf,
    pub members: usize,
    /// How many others get a place in the network, behind the members.
    pub guests: usize,
    /// For the members, beside the usual.
    pub environment: Vec<(String, String)>,
    /// Whether each member gets a file system of its own.
    pub volumes: bool,
}

pub struct Cluster {
    pub members: Vec<Member>,
    /// None: this machine cannot make one, and why; the members are on loopback.
    pub network: Result<Network, String>,
    /// Whether the members' time of day can be changed; else why not.
    pub clocks: Result<(), String>,
    _home: TempDir,
}

pub struct Member {
    pub endpoint: String,
    pub volume: Result<Volume, String>,
    program: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    space: Option<String>,
    clock: PathBuf,
    log: PathBuf,
    /// Until it is started again: whether it has a reason to end by itself.
    pub may_end: bool,
    child: Option<Child>,
}

impl Cluster {
    /// Makes everything and starts all members, without waiting for them.
    pub fn start(design: &Design) -> Cluster {
        let home = tempfile::tempdir().expect("a temporary directory");
        let network = Network::new(design.members + design.guests);
        let clocks = try_faketime(home.path());
        let addresses: Vec<(String, String)> = (0..design.members)
            .map(|number| match &network {
                Ok(network) => {
                    let address = network.address(number);
                    (format!("http://{address}:{CLIENT_PORT}"), format!("http://{address}:{PEER_PORT}"))
                }
                Err(_) => {
                    let ports = Launch::alone(design.program.clone(), home.path());
                    (ports.endpoint(), ports.peer_url())
                }
            })
            .collect();
        let list: Vec<String> =
            addresses.iter().enumerate().map(|(number, (_, peer))| format!("m{number}={peer}")).collect();
        let list = list.join(",");
        let mut members = Vec::new();
        for (number, (client, peer)) in addresses.iter().enumerate() {
            let own = home.path().join(format!("m{number}"));
            std::fs::create_dir(&own).expect("our own directory");
            let volume = match design.volumes {
                true => Volume::new(&own),
                false => Err("not asked for".to_owned()),
            };
            let data = volume.as_ref().map_or(&*own, Volume::path).join("data");
            let clock = own.join("clock");
            std::fs::write(&clock, "+0\n").expect("our own directory");
            let mut environment = design.environment.clone();
            if clocks.is_ok() {
                environment.extend(faketime(&clock));
            }
            members.push(Member {
                endpoint: client.clone(),
                volume,
                program: design.program.clone(),
                arguments: arguments(&design.program, number, &data, client, peer, &list),
                environment,
                space: network.as_ref().ok().map(|network| network.space(number)),
                clock,
                log: own.join("log"),
                may_end: false,
                child: None,
            });
        }
        let mut cluster = Cluster { members, network, clocks, _home: home };
        cluster.members.iter_mut().for_each(Member::begin);
        cluster
    }

    pub fn endpoints(&self) -> Vec<String> {
        self.members.iter().map(|member| member.endpoint.clone()).collect()
    }

    /// Starts whoever does not run. How many had ended by themselves or by others.
    pub fn revive(&mut self) -> usize {
        let mut dead = 0;
        for member in &mut self.members {
            if !member.is_running() {
                dead += 1;
                member.begin();
            }
        }
        dead
    }

    /// Keeps all logs for whoever looks for the cause, and says where.
    pub fn keep_logs(&self, seed: u64) {
        let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("faults-{seed}"));
        let _ = std::fs::create_dir_all(&kept);
        for (number, member) in self.members.iter().enumerate() {
            let _ = std::fs::copy(&member.log, kept.join(format!("m{number}.log")));
        }
        eprintln!("  the members' logs are kept in {}", kept.display());
    }
}

impl Member {
    pub fn begin(&mut self) {
        assert!(self.child.is_none(), "it runs already");
        let log = File::options().create(true).append(true).open(&self.log).expect("our own directory");
        let errors = log.try_clone().expect("an open file");
        // Each of these becomes the next, so that the child's number is the member's.
        let mut command = match &self.space {
            Some(space) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", space, "env"]);
                command
            }
            None => Command::new("env"),
        };
        command.args(self.environment.iter().map(|(name, value)| format!("{name}={value}")));
        command.arg(&self.program).args(&self.arguments);
        // No variable of the caller's changes what it does.
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        let child = command.stdin(Stdio::null()).stdout(log).stderr(errors).spawn();
        self.child = Some(child.expect("ip and env are there"));
        self.may_end = false;
    }

    pub fn is_running(&mut self) -> bool {
        let running =
            self.child.as_mut().is_some_and(|child| child.try_wait().expect("our own child").is_none());
        if !running {
            self.child = None;
        }
        running
    }

    /// The power switch.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            child.wait().expect("our own child");
        }
    }

    /// The polite way; the hard way after ten seconds. Whether it took the hint.
    pub fn stop(&mut self) -> bool {
        self.signal(Signal::TERM);
        let deadline = Deadline::after(Duration::from_secs(10));
        while self.is_running() {
            if !deadline.pause() {
                self.kill();
                return false;
            }
        }
        true
    }

    pub fn pause(&mut self) {
        self.signal(Signal::STOP);
    }

    pub fn resume(&mut self) {
        self.signal(Signal::CONT);
    }

    /// Shows it another time of day, so many seconds away from the real one.
    pub fn shift_clock(&self, seconds: i64) {
        let new = self.clock.with_extension("new");
        std::fs::write(&new, format!("{seconds:+}\n")).expect("our own directory");
        std::fs::rename(&new, &self.clock).expect("our own directory");
    }

    fn signal(&mut self, signal: Signal) {
        if self.is_running()
            && let Some(child) = &self.child
        {
            let _ = kill_process(Pid::from_child(child), signal);
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        if let Ok(volume) = &self.volume {
            volume.thaw();
        }
        self.resume();
        self.kill();
    }
}

fn arguments(
    program: &Path,
    number: usize,
    data: &Path,
    client: &str,
    peer: &str,
    list: &str,
) -> Vec<String> {
    let (name, data) = (format!("m{number}"), data.to_str().expect("temporary directories have plain names"));
    let usual = [
        ("--name", &*name),
        ("--data-dir", data),
        ("--listen-client-urls", client),
        ("--advertise-client-urls", client),
        ("--listen-peer-urls", peer),
        ("--initial-advertise-peer-urls", peer),
        ("--initial-cluster", list),
        ("--heartbeat-interval", "100"),
        ("--election-timeout", "1000"),
        // So often that members that were away long get snapshots.
        ("--snapshot-count", "2000"),
    ];
    let ours = [("--snapshot-catchup-entries", "500"), ("--log-segment-bytes", "4MiB")];
    let etcd = program.file_name().is_some_and(|name| name == "etcd");
    let ours = ours.into_iter().filter(|_| !etcd);
    usual.into_iter().chain(ours).flat_map(|(flag, value)| [flag.to_owned(), value.to_owned()]).collect()
}

fn faketime(clock: &Path) -> [(String, String); 4] {
    [
        ("LD_PRELOAD", FAKETIME),
        ("FAKETIME_TIMESTAMP_FILE", clock.to_str().expect("temporary directories have plain names")),
        ("FAKETIME_NO_CACHE", "1"),
        // The time of day may jump; the clock that only counts does not, on any machine.
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
}

/// Whether a process can be shown another time of day: one is, and says what it sees.
fn try_faketime(home: &Path) -> Result<(), String> {
    if !Path::new(FAKETIME).is_file() {
        return Err("libfaketime is not installed; run server/tests/faults/setup.sh".to_owned());
    }
    let clock = home.join("clock");
    std::fs::write(&clock, "+1000000000\n").expect("our own directory");
    let settings = faketime(&clock).map(|(name, value)| format!("{name}={value}"));
    let mut words: Vec<&str> = settings.iter().map(String::as_str).collect();
    words.extend(["date", "+%s"]);
    let seen: i64 = run("env", &words)?.parse().map_err(|_| "date printed no number".to_owned())?;
    let now =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |now| now.as_secs());
    if seen - (now as i64) < 900_000_000 {
        return Err("libfaketime has no effect here".to_owned());
    }
    Ok(())
}
