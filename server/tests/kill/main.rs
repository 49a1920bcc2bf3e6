//! A server that is killed at any moment keeps every promise it made. Round after round, clients write, read, hold leases and
//! watch; the process is killed (kill -9) in the midst of it and started again on the same directory. Then the whole history since the
//! last round is read back and each revision in it must be exactly what one client asked for:
//!
//! - every acknowledged write is there, whole, at the revision it was told; no revision was used twice or left out;
//! - a write whose answer did not come is there whole or not at all;
//! - every answered read told the truth about its revision;
//! - acknowledged leases exist with their TTL and their keys, revoked ones do not;
//! - a watch that resumes behind the last revision it saw misses nothing and repeats nothing.
//!
//! 20 rounds; `TENURE_LONG=1` for 200, `TENURE_ROUNDS` for any number. `TENURE_SEED` repeats the choices of a run (though not its
//! timing).

#![allow(clippy::unwrap_used)]

mod audit;
#[path = "../harness/mod.rs"]
mod harness;
mod journal;
mod load;
mod model;
mod watcher;

use std::sync::Arc;
use std::time::Duration;

use audit::Audit;
use harness::{Launch, Server};
use journal::Journal;
use load::Worker;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use watcher::Watcher;

const WORKERS: usize = 8;
/// For anything that a living server does at once.
pub const BOUND: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_keeps_its_promises() {
    let seed = harness::seed();
    let rounds = rounds();
    eprintln!("TENURE_SEED={seed} TENURE_ROUNDS={rounds}");
    let mut chance = StdRng::seed_from_u64(seed);
    let mut server = tokio::task::block_in_place(with_frequent_snapshots);
    let mut workers: Vec<Worker> = (0..WORKERS).map(|number| Worker::new(number, chance.random())).collect();
    let mut watchers = [Watcher::new(b"\0", b"\0"), Watcher::new(b"shared/", b"shared0")];
    let mut audit = Audit::new();

    for round in 1..=rounds {
        let journal = Arc::new(Journal::default());
        for watcher in &mut watchers {
            watcher.follow(&server.endpoint()).await;
        }
        let load: Vec<_> = workers
            .drain(..)
            .map(|worker| tokio::spawn(worker.work(server.endpoint(), journal.clone())))
            .collect();
        let moment = Duration::from_millis(chance.random_range(0..1500));
        tokio::time::sleep(moment).await;
        tokio::task::block_in_place(|| end(&mut server, &mut chance));
        for worker in load {
            let ended = tokio::time::timeout(BOUND, worker).await.expect("a request outlived its server");
            workers.push(ended.expect("a worker found a fault; see above"));
        }
        for watcher in &mut watchers {
            watcher.lost().await;
        }
        tokio::task::block_in_place(|| start(&mut server, &mut chance));
        for watcher in &mut watchers {
            watcher.follow(&server.endpoint()).await;
        }
        let found = audit.run(&server.endpoint(), &journal, &mut watchers).await;
        eprintln!("round {round}, after {moment:?}: {found}");
        if chance.random_bool(0.3) {
            audit.compact(&server.endpoint()).await;
        }
    }
}

fn rounds() -> usize {
    match std::env::var("TENURE_ROUNDS") {
        Ok(text) => text.parse().expect("TENURE_ROUNDS must be a whole number"),
        Err(_) if harness::long() => 200,
        Err(_) => 20,
    }
}

/// So frequent that the log is cut off behind the load all the time, and some kills come in the midst of that.
fn with_frequent_snapshots() -> Server {
    let home = tempfile::tempdir().unwrap();
    let mut launch = Launch::alone(Launch::program_under_test(), home.path());
    launch.extra.extend(["--snapshot-count", "500"].map(str::to_owned));
    Server::start_as(launch, home)
}

/// Mostly the hard way; now and then politely, which must promise no less.
fn end(server: &mut Server, chance: &mut StdRng) {
    if chance.random_bool(0.1) {
        server.stop();
    } else {
        server.kill();
    }
}

/// Now and then it is killed while it is still recovering, perhaps more than once.
fn start(server: &mut Server, chance: &mut StdRng) {
    while chance.random_bool(0.2) {
        server.begin();
        std::thread::sleep(Duration::from_millis(chance.random_range(0..400)));
        server.kill();
    }
    server.restart();
}
