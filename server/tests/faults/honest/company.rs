//! The holders as processes: they are started, stopped (SIGSTOP) for longer than a session lasts, let go on, killed (SIGKILL) and
//! started again, mostly at the moment when they hold a lock.

use std::fmt;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::time::sleep;

use super::HOLDERS;
use super::holder::{self, Orders};
use super::judge::{Entry, What};
use crate::cluster::Cluster;

/// How often somebody looks whom to disturb.
const LOOK: Duration = Duration::from_millis(100);
/// The chance of it at each look: about one in a second.
const CHANCE: f64 = 0.12;
/// So many are stopped at once, at the most.
const STOPPED_MAX: usize = 2;
/// Longer than a session of 2 s lasts, also when a new leader begins meanwhile; and shorter.
const LONG_MS: std::ops::Range<u64> = 3_500..7_000;
const SHORT_MS: std::ops::Range<u64> = 100..1_500;
/// For a holder to end what it is at, once it is told to.
const END_BOUND: Duration = Duration::from_secs(90);
/// No line of a journal is longer.
const LINE_MAX: i64 = 200;

pub struct Company {
    holders: Vec<Holder>,
    disturbed: Disturbed,
    _home: TempDir,
}

/// How often what was done to holders.
#[derive(Clone, Copy, Debug, Default)]
pub struct Disturbed {
    stopped_long: usize,
    stopped_shortly: usize,
    killed: usize,
    /// How many of all these held a lock.
    while_holding: usize,
}

struct Holder {
    orders: Orders,
    space: Option<String>,
    log: PathBuf,
    child: Child,
    stopped_until: Option<Instant>,
}

impl Company {
    /// Each in a network namespace of its own, where there are any.
    pub fn start(cluster: &Cluster, guarded: bool, seed: u64) -> Company {
        let home = tempfile::tempdir().expect("a temporary directory");
        let holders = (0..HOLDERS).map(|number| {
            let journal = home.path().join(format!("journal{number}"));
            File::create(&journal).expect("our own directory");
            let journal = journal.to_str().expect("temporary directories have plain names").to_owned();
            let endpoints = cluster.endpoints();
            let orders = Orders { number, life: 0, seed, guarded, journal, endpoints };
            let network = cluster.network.as_ref().ok();
            let space = network.map(|network| network.space(cluster.members.len() + number));
            let log = home.path().join(format!("log{number}"));
            let child = start(&orders, space.as_deref(), &log);
            Holder { orders, space, log, child, stopped_until: None }
        });
        Company { holders: holders.collect(), disturbed: Disturbed::default(), _home: home }
    }

    /// Until it is over; then all go on.
    pub async fn disturb(mut self, over: Arc<AtomicBool>, mut chance: StdRng) -> Company {
        while !over.load(Ordering::Relaxed) {
            sleep(LOOK).await;
            let now = Instant::now();
            for holder in &mut self.holders {
                if holder.stopped_until.is_some_and(|until| until <= now) {
                    holder.go_on();
                }
            }
            let stopped = self.holders.iter().filter(|holder| holder.stopped_until.is_some()).count();
            if stopped < STOPPED_MAX && chance.random_bool(CHANCE) {
                self.disturb_one(&mut chance);
            }
        }
        self.holders.iter_mut().for_each(Holder::go_on);
        self
    }

    fn disturb_one(&mut self, chance: &mut StdRng) {
        let awake = |number: &usize| self.holders[*number].stopped_until.is_none();
        let awake: Vec<usize> = (0..HOLDERS).filter(awake).collect();
        let holding: Vec<usize> =
            awake.iter().copied().filter(|number| self.holders[*number].holds()).collect();
        let choice = if holding.is_empty() { &awake } else { &holding };
        let holder = &mut self.holders[*choice.choose(chance).expect("not all are stopped")];
        let Disturbed { stopped_long, stopped_shortly, killed, while_holding } = &mut self.disturbed;
        match chance.random_range(0..10) {
            0..7 => {
                *stopped_long += 1;
                holder.stop(Duration::from_millis(chance.random_range(LONG_MS)));
            }
            7..9 => {
                *stopped_shortly += 1;
                holder.stop(Duration::from_millis(chance.random_range(SHORT_MS)));
            }
            _ => {
                *killed += 1;
                holder.kill();
            }
        }
        // It may have gone on between the look and the signal; now it cannot.
        *while_holding += usize::from(holder.holds());
        if holder.stopped_until.is_none() {
            holder.begin();
        }
    }

    /// Lets them end what they are at. What they have written down, and what they went through.
    pub async fn finish(mut self) -> (Vec<Entry>, Disturbed) {
        for holder in &mut self.holders {
            holder.child.stdin = None;
        }
        let bound = Instant::now() + END_BOUND;
        let mut entries = Vec::new();
        for holder in &mut self.holders {
            let status = loop {
                if let Some(status) = holder.child.try_wait().expect("our own child") {
                    break status;
                }
                assert!(Instant::now() < bound, "a holder does not end");
                sleep(LOOK).await;
            };
            let log = std::fs::read_to_string(&holder.log).unwrap_or_default();
            assert!(status.success(), "holder {} failed:\n{log}", holder.orders.number);
            let journal = std::fs::read_to_string(&holder.orders.journal).expect("our own directory");
            entries.extend(journal.lines().map(|line| Entry::parse(line).expect("whole lines")));
        }
        (entries, self.disturbed)
    }
}

impl Holder {
    fn stop(&mut self, time: Duration) {
        self.signal(Signal::STOP);
        self.stopped_until = Some(Instant::now() + time);
    }

    fn go_on(&mut self) {
        if self.stopped_until.take().is_some() {
            self.signal(Signal::CONT);
        }
    }

    fn kill(&mut self) {
        let _ = self.child.kill();
        self.child.wait().expect("our own child");
    }

    /// Its next life.
    fn begin(&mut self) {
        self.orders.life += 1;
        self.child = start(&self.orders, self.space.as_deref(), &self.log);
    }

    fn signal(&mut self, signal: Signal) {
        // Once it has been seen to end, its number may be somebody else's.
        if self.child.try_wait().expect("our own child").is_none() {
            kill_process(Pid::from_child(&self.child), signal).expect("our own child, not yet reaped");
        }
    }

    /// Whether it has a lock, by what it wrote down last.
    fn holds(&self) -> bool {
        let mut file = File::open(&self.orders.journal).expect("our own directory");
        // A short journal has no such place, and is read from its beginning.
        let _ = file.seek(SeekFrom::End(-LINE_MAX));
        let mut tail = String::new();
        file.read_to_string(&mut tail).expect("plain text");
        tail.lines().last().and_then(Entry::parse).is_some_and(|entry| entry.what == What::Holds)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn start(orders: &Orders, space: Option<&str>, log: &Path) -> Child {
    let log = File::options().create(true).append(true).open(log).expect("our own directory");
    let own = std::env::current_exe().expect("a program knows where it is");
    // Each of these becomes the next, so that the child's number is the holder's.
    let mut command = match space {
        Some(space) => {
            let mut command = Command::new("ip");
            command.args(["netns", "exec", space]).arg(own);
            command
        }
        None => Command::new(own),
    };
    command.args(["--exact", holder::NAME, "--nocapture"]);
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.env(holder::ORDERS, orders.text());
    let errors = log.try_clone().expect("an open file");
    let child = command.stdin(Stdio::piped()).stdout(log).stderr(errors).spawn();
    child.expect("this program can be started")
}

impl fmt::Display for Disturbed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Disturbed { stopped_long, stopped_shortly, killed, while_holding } = self;
        write!(
            f,
            "holders were stopped {stopped_long} times for longer than a session and {stopped_shortly} times for less, and \
             killed {killed} times; {while_holding} times one that held a lock"
        )
    }
}
