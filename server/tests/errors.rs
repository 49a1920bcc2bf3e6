//! A server that cannot start says so in one line on its standard error (what was attempted, on what, and what to do next) and
//! ends with an exit code that a supervisor sees as failure. It never hangs, never panics, and leaves the data alone.

#![allow(clippy::unwrap_used)]

mod harness;

use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use harness::{Finished, Launch, Program, Server};
use tempfile::TempDir;

const BOUND: Duration = Duration::from_secs(60);

/// A launch that would succeed, to be spoilt by the test.
fn sound() -> (TempDir, Launch) {
    let home = tempfile::tempdir().unwrap();
    let launch = Launch::alone(Launch::program_under_test(), home.path());
    (home, launch)
}

fn run(launch: &Launch) -> Finished {
    Program::start(&launch.program, &launch.arguments()).finish(BOUND)
}

/// The launch as is, with one more flag and value.
fn run_with(launch: &Launch, flag: &str, value: &str) -> Finished {
    let mut launch = launch.clone();
    launch.extra.extend([flag.to_owned(), value.to_owned()]);
    run(&launch)
}

/// The message is the last line; lines of the log may stand before it, but neither a panic nor a second message.
#[track_caller]
fn refused(finished: &Finished, mentions: &[&str]) {
    let stderr = &finished.stderr;
    assert!(!finished.endless, "it neither started to serve nor gave up:\n{stderr}");
    assert!(
        finished.status.code().is_some_and(|code| code != 0),
        "ended with {}:\n{stderr}",
        finished.status
    );
    if by_etcd() {
        return;
    }
    assert!(!stderr.contains("panicked") && !stderr.contains("RUST_BACKTRACE"), "a panic:\n{stderr}");
    let message = stderr.lines().last().unwrap_or_else(|| panic!("nothing on standard error"));
    for mention in mentions {
        assert!(message.contains(mention), "the message should mention '{mention}':\n{stderr}");
    }
}

/// etcd refuses the same things, in words of its own: with it only the exit code can be compared.
fn by_etcd() -> bool {
    std::env::var_os("TENURE_SERVER").is_some()
}

#[test]
fn an_unknown_flag() {
    let (_home, launch) = sound();
    let finished = run_with(&launch, "--no-such-flag", "1");
    refused(&finished, &["--no-such-flag", "--help"]);
    assert!(by_etcd() || finished.stderr.lines().count() == 1, "more than one line:\n{}", finished.stderr);
}

#[test]
fn a_flag_with_a_value_that_is_none() {
    let (_home, launch) = sound();
    let finished = run_with(&launch, "--heartbeat-interval", "soon");
    refused(&finished, &["heartbeat-interval", "soon"]);
    assert!(by_etcd() || finished.stderr.lines().count() == 1, "more than one line:\n{}", finished.stderr);
}

#[test]
fn a_url_that_is_none() {
    let (_home, launch) = sound();
    refused(&run_with(&launch, "--listen-client-urls", "127.0.0.1"), &["listen-client-urls", "127.0.0.1"]);
    refused(&run_with(&launch, "--listen-peer-urls", "ftp://127.0.0.1:1"), &["listen-peer-urls", "ftp"]);
    refused(
        &run_with(&launch, "--listen-client-urls", "http://name.example:1"),
        &["listen-client-urls", "name.example"],
    );
}

#[test]
fn a_name_that_the_initial_cluster_does_not_have() {
    let (_home, launch) = sound();
    refused(&run_with(&launch, "--name", "stranger"), &["stranger", "initial-cluster"]);
}

#[test]
fn a_cluster_to_join_where_there_is_none() {
    let (_home, launch) = sound();
    refused(&run_with(&launch, "--initial-cluster-state", "existing"), &["cluster info from peer urls"]);
}

#[test]
fn an_election_timeout_below_five_heartbeats() {
    let (_home, launch) = sound();
    refused(&run_with(&launch, "--election-timeout", "400"), &["election-timeout", "400"]);
}

#[test]
fn a_client_port_in_use() {
    let (_home, launch) = sound();
    let _taken = TcpListener::bind(("127.0.0.1", launch.client_port)).unwrap();
    refused(&run(&launch), &["listen-client-urls", &format!("127.0.0.1:{}", launch.client_port)]);
}

#[test]
fn a_peer_port_in_use() {
    let (_home, launch) = sound();
    let _taken = TcpListener::bind(("127.0.0.1", launch.peer_port)).unwrap();
    refused(&run(&launch), &["listen-peer-urls", &format!("127.0.0.1:{}", launch.peer_port)]);
}

/// etcd waits for the lock for ever; Tenure says who is in the way.
#[test]
fn a_data_directory_that_another_process_has_open() {
    if by_etcd() {
        return;
    }
    let mut first = Server::start();
    let (_home, mut second) = sound();
    second.data_dir = first.launch.data_dir.clone();
    refused(&run(&second), &[second.data_dir.to_str().unwrap(), "another process"]);
    assert!(first.is_running(), "the refused server disturbed the first one");
    first.stop();
    first.restart();
}

#[test]
fn a_data_directory_that_is_a_file() {
    let (_home, launch) = sound();
    std::fs::write(&launch.data_dir, "not a directory").unwrap();
    refused(&run(&launch), &[launch.data_dir.to_str().unwrap()]);
    assert_eq!(std::fs::read_to_string(&launch.data_dir).unwrap(), "not a directory");
}

#[test]
fn a_data_directory_that_cannot_be_made() {
    let (home, mut launch) = sound();
    let file = home.path().join("file");
    std::fs::write(&file, "").unwrap();
    launch.data_dir = file.join("data");
    refused(&run(&launch), &[launch.data_dir.to_str().unwrap()]);
}

/// Whatever the data directory is: the storage library asks for it.
#[test]
fn a_working_directory_that_is_gone() {
    let (home, launch) = sound();
    let gone = home.path().join("gone");
    let script = format!("mkdir {0} && cd {0} && rmdir {0} && exec \"$@\"", gone.display());
    let mut arguments = vec!["-c".to_owned(), script, "sh".to_owned(), launch.program.display().to_string()];
    arguments.extend(launch.arguments());
    refused(&Program::start(Path::new("sh"), &arguments).finish(BOUND), &["working directory is gone"]);
}

/// A directory of etcd's must neither be taken for an empty one nor be touched: the data in it are somebody's.
#[test]
fn a_data_directory_of_etcd() {
    if by_etcd() {
        return;
    }
    let (_home, launch) = sound();
    let snapshots = launch.data_dir.join("member/snap");
    std::fs::create_dir_all(&snapshots).unwrap();
    std::fs::write(snapshots.join("db"), "somebody's data").unwrap();
    refused(&run(&launch), &[launch.data_dir.to_str().unwrap(), "etcd"]);
    assert_eq!(entries(&launch.data_dir), ["member"]);
    assert_eq!(std::fs::read_to_string(snapshots.join("db")).unwrap(), "somebody's data");
}

/// A directory may hold what is not ours (a volume's `lost+found`, an operator's note): it stays as it is.
#[test]
fn what_else_is_in_the_data_directory_is_left_alone() {
    let (home, launch) = sound();
    let note = launch.data_dir.join("note.txt");
    std::fs::create_dir_all(&launch.data_dir).unwrap();
    std::fs::write(&note, "disk replaced in May").unwrap();
    let mut server = Server::start_as(launch, home);
    server.kill();
    server.restart();
    assert_eq!(std::fs::read_to_string(&note).unwrap(), "disk replaced in May");
}

/// The flags of a cluster count only when it is founded, but a token that contradicts the directory is a mix-up.
#[test]
fn a_data_directory_of_another_cluster() {
    if by_etcd() {
        return;
    }
    let mut first = Server::start();
    first.stop();
    let mut launch = first.launch.clone();
    launch.extra.extend(["--initial-cluster-token", "another"].map(str::to_owned));
    refused(&run(&launch), &[launch.data_dir.to_str().unwrap(), "another"]);
    first.restart();
}

#[test]
fn a_certificate_that_cannot_be_read() {
    let (home, launch) = sound();
    let missing = home.path().join("missing.pem");
    let mut launch = launch;
    let url = format!("https://127.0.0.1:{}", launch.client_port);
    let missing = missing.to_str().unwrap();
    for (flag, value) in [
        ("--listen-client-urls", url.as_str()),
        ("--advertise-client-urls", &url),
        ("--cert-file", missing),
        ("--key-file", missing),
    ] {
        launch.extra.extend([flag.to_owned(), value.to_owned()]);
    }
    refused(&run(&launch), &[missing]);
}

#[test]
fn a_configuration_file_that_is_not_there() {
    let (home, launch) = sound();
    let missing = home.path().join("missing.yaml");
    let missing = missing.to_str().unwrap();
    refused(&run_with(&launch, "--config-file", missing), &[missing]);
}

fn entries(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}
