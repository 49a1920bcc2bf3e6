//! Commands under a lock, an election, a registration: what they are told, when they are stopped, and what the exit code says.

#![allow(clippy::unwrap_used)]

mod fixture;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use fixture::{BOUND, Cluster, free_ports, must, refused, tenure};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::Value;

fn single(home: &Path) -> (Cluster, String) {
    let cluster = Cluster::serving(&home.join("data"), 1, free_ports(1));
    let endpoint = cluster.endpoint(0);
    (cluster, endpoint)
}

fn json(words: &[&str]) -> Value {
    serde_json::from_str(&must(words)).unwrap()
}

/// Waits for a condition; it is looked at anew every 50 ms.
fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + BOUND;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {BOUND:?}: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// `tenure` at work, killed when the test is over.
struct Running(std::process::Child);

impl Running {
    fn start(words: &[&str]) -> Running {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tenure"));
        command.args(words).stdin(Stdio::null()).stdout(Stdio::null());
        Running(command.spawn().unwrap())
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }

    fn code(mut self) -> i32 {
        self.0.wait().unwrap().code().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_command_is_told_what_proves_the_lock_and_its_exit_code_is_passed_on() {
    let home = tempfile::tempdir().unwrap();
    let (cluster, at) = single(home.path());
    let script = "echo $TENURE_TOKEN $TENURE_GUARD $TENURE_SESSION $TENURE_ENDPOINTS; exit 7";
    let output = tenure(&["lock", "jobs/nightly", "--endpoints", &at, "--", "sh", "-c", script]);
    assert_eq!(output.status.code(), Some(7), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8(output.stdout).unwrap();
    let [token, guard, session, endpoints] = said.split_whitespace().collect::<Vec<_>>()[..] else {
        panic!("four words: {said}")
    };
    assert!(guard.ends_with(&format!("={token}")) && endpoints == at, "{said}");
    assert!(i64::from_str_radix(session, 16).unwrap() > 0);
    // The grant is over, and so is all that it could write.
    let (code, complaint) = refused(&["put", "k", "v", "--guard", guard, "--endpoints", &at]);
    assert!(code == 1 && complaint.contains("guard"), "{code}: {complaint}");
    let again = must(&["lock", "jobs/nightly", "--endpoints", &at, "--", "sh", "-c", "echo $TENURE_TOKEN"]);
    assert!(again.trim().parse::<i64>().unwrap() > token.parse::<i64>().unwrap());

    let (code, _) = refused(&["lock", "x", "--endpoints", &at, "--", "no-such-program-anywhere"]);
    assert_eq!(code, 127);
    let nobody = format!("127.0.0.1:{}", free_ports(1));
    let (code, complaint) = refused(&["lock", "x", "--endpoints", &nobody, "--", "true"]);
    assert!(code == 77 && complaint.contains(&nobody), "{code}: {complaint}");
    cluster.stop();
}

#[test]
fn under_the_guard_a_command_writes_while_it_holds() {
    let home = tempfile::tempdir().unwrap();
    let (cluster, at) = single(home.path());
    let script = format!("{} put k v --guard \"$TENURE_GUARD\"", env!("CARGO_BIN_EXE_tenure"));
    must(&["lock", "jobs/ä b", "--endpoints", &at, "--", "sh", "-c", &script]);
    assert_eq!(must(&["get", "k", "--endpoints", &at]), "v\n");
    cluster.stop();
}

#[test]
fn one_holds_the_others_wait_and_why_says_so() {
    let home = tempfile::tempdir().unwrap();
    let (cluster, at) = single(home.path());
    let first = Running::start(&["lock", "jobs/nightly", "--endpoints", &at, "--", "sleep", "1000"]);
    let state = || json(&["ls", "locks", "-o", "json", "--endpoints", &at])["locks"][0].clone();
    until("it is held", || state()["holderCount"] == 1);
    let (code, complaint) = refused(&["lock", "jobs/nightly", "--try", "--endpoints", &at, "--", "true"]);
    assert!(code == 75 && complaint.contains("tenure why"), "{code}: {complaint}");
    let (code, _) = refused(&["lock", "jobs/nightly", "--wait", "200ms", "--endpoints", &at, "--", "true"]);
    assert_eq!(code, 75);

    let second = Running::start(&["lock", "jobs/nightly", "--endpoints", &at, "--", "true"]);
    until("somebody waits", || state()["waiterCount"] == 1);
    let why = must(&["why", "jobs/nightly", "--endpoints", &at]);
    assert!(why.contains("held by") && why.contains("sleep 1000") && why.contains("Next is"), "{why}");
    assert_eq!(must(&["queue", "jobs/nightly", "--endpoints", &at]).lines().count(), 2);
    assert!(must(&["show", "jobs/nightly", "--endpoints", &at]).contains("HOLDER"));

    // Ended by its supervisor it lets go, and the next has it at once, long before any lease runs out.
    first.signal(Signal::TERM);
    assert_eq!(first.code(), 128 + 15);
    assert_eq!(second.code(), 0);
    let why = must(&["why", "jobs/nightly", "--endpoints", &at]);
    assert!(why.contains("is free"), "{why}");
    cluster.stop();
}

#[test]
fn a_command_ends_when_its_lock_is_broken_and_when_its_runner_dies() {
    let home = tempfile::tempdir().unwrap();
    let (cluster, at) = single(home.path());
    let pid_file = home.path().join("pid");
    let script = format!("echo $$ > {}; exec sleep 1000", pid_file.display());
    let words = ["lock", "a", "--endpoints", &at, "--", "sh", "-c", &script];
    let started = || std::fs::read_to_string(&pid_file).is_ok_and(|text| text.ends_with('\n'));
    let pid = || Pid::from_raw(std::fs::read_to_string(&pid_file).unwrap().trim().parse().unwrap()).unwrap();

    let holder = Running::start(&words);
    until("it runs", started);
    let token = json(&["ls", "locks", "-o", "json", "--endpoints", &at])["locks"][0]["holders"][0]["token"]
        .to_string();
    must(&["break", "a", "--token", &token, "--reason", "test", "--endpoints", &at]);
    assert_eq!(holder.code(), 76);
    assert!(test_kill_process(pid()).is_err(), "the command has ended");
    let (code, _) = refused(&["break", "a", "--token", &token, "--endpoints", &at]);
    assert_eq!(code, 1);

    std::fs::remove_file(&pid_file).unwrap();
    let holder = Running::start(&words);
    until("it runs again", started);
    let pid = pid();
    holder.signal(Signal::KILL);
    until("the command dies with who ran it", || test_kill_process(pid).is_err());
    cluster.stop();
}

#[test]
fn permits_are_shared_up_to_the_capacity() {
    let home = tempfile::tempdir().unwrap();
    let (cluster, at) = single(home.path());
    let words = ["sem", "gpus", "--capacity", "2", "--endpoints", &at, "--", "sleep", "1000"];
    let holders = [Running::start(&words), Running::start(&words)];
    let used = || json(&["ls", "locks", "-o", "json", "--endpoints", &at])["locks"][0]["permitsUsed"] == 2;
    until("both hold one", used);
    let (code, _) = refused(&["sem", "gpus", "--capacity", "2", "--try", "--endpoints", &at, "--", "true"]);
    assert_eq!(code, 75);
    holders.iter().for_each(|holder| holder.signal(Signal::TERM));
    cluster.stop();
}

#[test]
fn the_lead_is_handed_over_when_asked_for_and_history_tells_it() {
    let home = tempfile::tempdir().unwrap();
    let (cluster, at) = single(home.path());
    let stand = |id: &'static str| {
        Running::start(&[
            "elect",
            "db/main",
            "--id",
            id,
            "--value",
            "here",
            "--endpoints",
            &at,
            "--",
            "sleep",
            "1000",
        ])
    };
    let state = || json(&["show", "db/main", "-o", "json", "--endpoints", &at])["election"].clone();
    let led_by = |id: &str| {
        let output = tenure(&["show", "db/main", "--endpoints", &at]);
        output.status.success() && state()["term"]["leader"] == id && state()["vacant"] == false
    };
    let first = stand("n1");
    until("the first leads", || led_by("n1"));
    let _second = stand("n2");
    until("the second stands", || state()["candidates"].as_array().is_some_and(|all| all.len() == 1));
    must(&["transfer", "db/main", "--to", "n2", "--endpoints", &at]);
    assert!(led_by("n2"));
    assert_eq!(first.code(), 128 + 15);
    let history = json(&["history", "db/main", "-o", "json", "--endpoints", &at]);
    assert_eq!(
        (history[1]["leader"].as_str(), history[1]["end"].as_str()),
        (Some("n1"), Some("TRANSFERRED"))
    );
    let (code, complaint) = refused(&["transfer", "db/main", "--to", "nobody", "--endpoints", &at]);
    assert!(code == 1 && complaint.contains("nobody does not stand"), "{code}: {complaint}");
    cluster.stop();
}

#[test]
fn a_service_is_found_while_its_command_runs() {
    let home = tempfile::tempdir().unwrap();
    let (cluster, at) = single(home.path());
    let words = ["register", "web", "--id", "w1", "--port", "8080", "--label", "a=b", "--endpoints", &at];
    let serving = Running::start(&[&words[..], &["--", "sleep", "1000"]].concat());
    let found = || tenure(&["show", "web", "--endpoints", &at]).status.success();
    until("it is found", found);
    let instance =
        || json(&["show", "web", "-o", "json", "--endpoints", &at])["service"]["instances"][0].clone();
    assert_eq!(
        (instance()["routable"].as_bool(), instance()["labels"]["a"].as_str()),
        (Some(true), Some("b"))
    );
    must(&["drain", "web", "w1", "--reason", "test", "--endpoints", &at]);
    assert_eq!(
        (instance()["routable"].as_bool(), instance()["draining"].as_bool()),
        (Some(false), Some(true))
    );
    must(&["undrain", "web", "w1", "--endpoints", &at]);
    assert_eq!(instance()["routable"], true);
    let words = ["project", "web", "--grpc", "services/web", "--dns", "web.local", "--endpoints", &at];
    let projected = must(&words);
    assert!(projected.starts_with("grpc  etcd:///services/web\ndns   web.local  path /skydns  ttl 30s"));
    assert_eq!(must(&["project", "web", "--endpoints", &at]), projected);
    assert!(must(&["get", "services/web/w1", "--endpoints", &at]).contains(r#"{"Op":0,"Addr":""#));
    assert!(must(&["get", "/skydns/local/web/w1", "--endpoints", &at]).contains(r#""weight":100,"ttl":30}"#));
    assert!(must(&["ls", "--endpoints", &at]).contains("web"));
    serving.signal(Signal::TERM);
    assert_eq!(serving.code(), 128 + 15);
    assert!(!found());
    assert!(!must(&["get", "services/web/", "--prefix", "--endpoints", &at]).contains("w1"));
    cluster.stop();
}
