//! The servers of one side of a comparison: one or several members on free loopback ports, with data in a directory of their own.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio::time::{sleep, timeout};

use crate::child::Process;
use crate::command::{Command, Place, Template};
use crate::failure::Failure;
use crate::grpc::Endpoint;
use crate::status;
use crate::stop::Stop;

const POLL: Duration = Duration::from_millis(20);
const ANSWER_LIMIT: Duration = Duration::from_secs(2);
/// Between choosing a free port and using it, somebody else may take it.
const START_ATTEMPTS: usize = 3;
const LOG_TAIL_BYTES: usize = 1500;

/// How servers are started.
#[derive(Clone)]
pub(crate) struct Starting {
    pub(crate) members: usize,
    /// Where the data directories are made.
    pub(crate) dir: PathBuf,
    pub(crate) ready_limit: Duration,
    pub(crate) stop: Stop,
}

/// Running members; dropping them kills them and removes their data.
pub(crate) struct Cluster {
    // Before `scratch`: processes must be gone when their directory is removed.
    members: Vec<Member>,
    starting: Starting,
    _scratch: Scratch,
}

struct Member {
    process: Process,
    command: Command,
    endpoint: Endpoint,
    log: PathBuf,
}

impl Cluster {
    /// Starts the members and waits until each has a leader and answers reads.
    pub(crate) async fn start(template: &Template, starting: &Starting) -> Result<Self, Failure> {
        let mut attempt = 1;
        loop {
            match Self::start_once(template, starting).await {
                Err(failure) if attempt < START_ATTEMPTS && failure.message.contains("in use") => {
                    attempt += 1
                }
                done => return done,
            }
        }
    }

    async fn start_once(template: &Template, starting: &Starting) -> Result<Self, Failure> {
        let scratch = Scratch::new(&starting.dir)?;
        let mut members = Vec::with_capacity(starting.members);
        for place in places(starting.members, &scratch.path)? {
            let endpoint = place.client.parse().map_err(Failure::setup)?;
            let (command, log) = (template.fill(&place), scratch.path.join(format!("{}.log", place.name)));
            members.push(Member { process: Process::start(&command, &log)?, command, endpoint, log });
        }
        let mut cluster = Self { members, starting: starting.clone(), _scratch: scratch };
        cluster.ready().await?;
        Ok(cluster)
    }

    pub(crate) fn endpoints(&self) -> Vec<Endpoint> {
        self.members.iter().map(|member| member.endpoint.clone()).collect()
    }

    pub(crate) fn process_ids(&self) -> Vec<u32> {
        self.members.iter().map(|member| member.process.id()).collect()
    }

    /// Ends all members by `signal`, starts them again on the same data and ports, and returns when they were started.
    pub(crate) async fn restart(&mut self, signal: Signal) -> Result<Instant, Failure> {
        for member in &mut self.members {
            member.process.end(signal).await;
        }
        let started = Instant::now();
        for number in 0..self.members.len() {
            self.start_again(number)?;
        }
        Ok(started)
    }

    /// Ends one member by `signal`.
    pub(crate) async fn end(&mut self, number: usize, signal: Signal) {
        self.members[number].process.end(signal).await;
    }

    /// Starts a member that was ended on the same data and ports; gives when.
    pub(crate) fn start_again(&mut self, number: usize) -> Result<Instant, Failure> {
        let (started, member) = (Instant::now(), &mut self.members[number]);
        member.process = Process::start(&member.command, &member.log)?;
        Ok(started)
    }

    /// Sends a signal that does not end it to one member.
    pub(crate) fn signal(&self, number: usize, signal: Signal) {
        self.members[number].process.signal(signal);
    }

    /// Repeats `ask` until it succeeds, every `pause`; fails when a member ends, time runs out, or the run is stopped.
    pub(crate) async fn until<T>(
        &mut self,
        pause: Duration,
        mut ask: impl AsyncFnMut() -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let start = Instant::now();
        loop {
            let failure = match timeout(ANSWER_LIMIT, ask()).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(failure)) => failure,
                Err(_) => Failure::unanswered(format!("no answer within {ANSWER_LIMIT:?}")),
            };
            for member in &mut self.members {
                if let Some(status) = member.process.ended() {
                    return Err(Failure::setup(format!(
                        "{} ended ({status}){}",
                        member.command.program,
                        tail(&member.log)
                    )));
                }
            }
            if start.elapsed() > self.starting.ready_limit || self.starting.stop.is_set() {
                let (program, log) = (&self.members[0].command.program, tail(&self.members[0].log));
                return Err(Failure::setup(format!("{program} did not answer in time: {failure}{log}")));
            }
            sleep(pause).await;
        }
    }

    async fn ready(&mut self) -> Result<(), Failure> {
        for endpoint in self.endpoints() {
            self.until(POLL, async || status::serves(&endpoint).await).await?;
        }
        Ok(())
    }
}

/// Chooses ports, names and directories for so many members.
fn places(count: usize, scratch: &Path) -> Result<Vec<Place>, Failure> {
    let ports =
        free_ports(count * 2).map_err(|e| Failure::setup(format!("find free ports on 127.0.0.1: {e}")))?;
    let url = |port: &u16| format!("http://127.0.0.1:{port}");
    let name = |number| if count == 1 { "default".to_owned() } else { format!("m{number}") };
    let (clients, peers) = ports.split_at(count);
    let cluster = peers.iter().enumerate().map(|(number, port)| format!("{}={}", name(number), url(port)));
    let cluster = cluster.collect::<Vec<_>>().join(",");
    let place = |number: usize| Place {
        dir: scratch.join(name(number)).to_string_lossy().into_owned(),
        client: url(&clients[number]),
        peer: url(&peers[number]),
        name: name(number),
        number,
        cluster: cluster.clone(),
    };
    Ok((0..count).map(place).collect())
}

/// Ports free at this moment, all different: they are held together before they are let go.
fn free_ports(count: usize) -> std::io::Result<Vec<u16>> {
    let held: Vec<_> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<_, _>>()?;
    held.iter().map(|listener| Ok(listener.local_addr()?.port())).collect()
}

/// The end of a log, for an error message.
fn tail(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text[text.len().saturating_sub(LOG_TAIL_BYTES)..]).trim().to_owned();
    if text.is_empty() { String::new() } else { format!("; its log ends with:\n{text}") }
}

/// A directory of our own, removed with all that is in it.
struct Scratch {
    path: PathBuf,
}

impl Scratch {
    fn new(parent: &Path) -> Result<Self, Failure> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = parent.join(format!("tenure-bench-{}-{number}", std::process::id()));
        // One that exists already is not ours to remove.
        std::fs::create_dir(&path)
            .map_err(|e| Failure::setup(format!("make directory {}: {e}", path.display())))?;
        Ok(Self { path })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.path).ok();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_lone_member_is_the_default_and_several_know_each_other() {
        let alone = places(1, Path::new("/s")).unwrap();
        assert_eq!((alone[0].name.as_str(), alone[0].dir.as_str()), ("default", "/s/default"));
        assert_eq!(alone[0].cluster, format!("default={}", alone[0].peer));

        let three = places(3, Path::new("/s")).unwrap();
        let ports: BTreeSet<_> = three.iter().flat_map(|place| [&place.client, &place.peer]).collect();
        assert_eq!(ports.len(), 6);
        let cluster: Vec<_> = three.iter().map(|place| format!("{}={}", place.name, place.peer)).collect();
        assert!(three.iter().all(|place| place.cluster == cluster.join(",")));
        assert_eq!((three[2].name.as_str(), three[2].number), ("m2", 2));
    }

    #[test]
    fn scratch_directories_are_removed_with_their_content() {
        let scratch = Scratch::new(&std::env::temp_dir()).unwrap();
        let path = scratch.path.clone();
        std::fs::write(path.join("file"), "x").unwrap();
        drop(scratch);
        assert!(!path.exists());
        assert!(Scratch::new(Path::new("/no/such/parent")).is_err());
    }
}
