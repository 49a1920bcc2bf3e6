//! The golden scripts of the core, put to servers. A real etcd 3.5.1 must say what they say, revisions included, but for
//! what `scripts/differences.md` lists with a reason: the scripts were written from documentation and memory, and this
//! is what makes them true. Our own server must say what they say to the letter: so the way from the wire to the core
//! and back adds nothing. Scripts that turn the clock or the store by hand are left out.
//!
//! What no script thought of is asked by chance: random commands, of etcd and of the core in memory.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use tokio::runtime::Runtime;

// Commands of which an enemy might think are not asked here.
#[allow(dead_code)]
#[path = "../../state/tests/properties/commands.rs"]
mod commands;
#[path = "../harness/mod.rs"]
mod harness;
#[path = "../../state/tests/script/mod.rs"]
mod script;

mod differences;
mod random;
mod remote;

use differences::Differences;
use harness::{Launch, NEW, Server};
use remote::Remote;
use script::{Script, scripts};

/// Commands that need time or the store turned by hand: a script that uses one says nothing to a server.
const IN_MEMORY_ONLY: [&str; 6] = ["advance", "restart", "change_leader", "tick", "sweep", "remaining"];
/// Each script has a server of its own, since revisions only rise; so many run at once. They mostly wait.
const AT_ONCE: usize = 6;
/// A script asks little: whoever needs longer for one answer hangs.
const ANSWER_BOUND: Duration = Duration::from_secs(60);

#[test]
fn etcd_says_what_the_golden_scripts_say() {
    let differences = Differences::read(&root().join("differences.md"));
    put_to(&NEW.server(), differences);
}

#[test]
fn our_server_says_what_the_golden_scripts_say() {
    put_to(&Launch::program_under_test(), Differences::default());
}

fn put_to(program: &Path, mut differences: Differences) {
    let askable = |(name, text): &(String, String)| !turns_by_hand(text) && differences.can_ask(name);
    let asked: Vec<_> = scripts(&root()).into_iter().filter(askable).collect();
    assert!(asked.len() > 200, "only {} scripts to ask {}", asked.len(), program.display());

    let mut wrong = Vec::new();
    for ((name, golden), answer) in at_once(&asked, |runtime, (_, golden)| ask(runtime, program, golden)) {
        match answer {
            Ok(answer) => wrong.extend(differences.judge(name, golden, &answer)),
            Err(error) => wrong.push(format!("{name} could not be asked: {error}")),
        }
    }
    wrong.extend(differences.unasked());
    wrong.sort();
    assert!(wrong.is_empty(), "of {} scripts:\n\n{}", asked.len(), wrong.join("\n\n"));
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("state/tests/scripts")
}

fn turns_by_hand(script: &str) -> bool {
    script.lines().any(|line| line.split(' ').next().is_some_and(|word| IN_MEMORY_ONLY.contains(&word)))
}

/// A server of one's own.
fn start(program: &Path) -> Server {
    let home = tempfile::tempdir().unwrap();
    let launch = Launch::alone(program.to_path_buf(), home.path());
    Server::start_as(launch, home)
}

/// What a server makes of the script.
fn ask(runtime: &Runtime, program: &Path, golden: &str) -> std::io::Result<String> {
    let server = start(program);
    let remote = runtime.block_on(Remote::connect(server.endpoint(), ANSWER_BOUND));
    goldenscript::generate(&mut Script::new(remote), golden)
}

/// Does this to each, several at once.
fn at_once<T: Sync, A: Send>(all: &[T], work: impl Fn(&Runtime, &T) -> A + Sync) -> Vec<(&T, A)> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let waiting = Mutex::new(all.iter());
    let done = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    // A statement of its own: the lock must not be held while working.
                    let next = waiting.lock().unwrap().next();
                    let Some(next) = next else { return };
                    let answer = work(&runtime, next);
                    done.lock().unwrap().push((next, answer));
                }
            });
        }
    });
    done.into_inner().unwrap()
}
