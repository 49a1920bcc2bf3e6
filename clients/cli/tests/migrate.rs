//! A real etcd is copied into Tenure: running, while it goes on, and from its snapshot files; and copied back. etcdctl's own mirror
//! works both ways.

#![allow(clippy::unwrap_used)]

mod fixture;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use fixture::etcd::{Etcd, NEW, OLD, etcdctl, program};
use fixture::{BOUND, Client, Cluster, bytes, free_ports, must, refused};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tenure_proto::etcdserverpb::*;

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Both sides, empty, and a client of each. The directory goes when it is dropped.
async fn both(version: &'static str) -> (TempDir, Etcd, Cluster, Client, Client) {
    let home = tempfile::tempdir().unwrap();
    let etcd = Etcd::start(version, &home.path().join("etcd")).await;
    let tenure = tenure_in(home.path());
    let (old, new) = (etcd.client(), Client::to(&tenure.endpoint(0)));
    (home, etcd, tenure, old, new)
}

fn tenure_in(home: &Path) -> Cluster {
    Cluster::serving(&home.join("tenure"), 1, free_ports(1))
}

async fn grant(client: &mut Client, id: i64, ttl: i64) -> i64 {
    client.lease.lease_grant(LeaseGrantRequest { id, ttl }).await.unwrap().into_inner().id
}

async fn left(client: &mut Client, id: i64) -> LeaseTimeToLiveResponse {
    let ask = LeaseTimeToLiveRequest { id, keys: true };
    client.lease.lease_time_to_live(ask).await.unwrap().into_inner()
}

/// What an etcd may hold: many keys, history, deletions, bytes that are no text, nothing, very much, leases. Gives the lease.
async fn fill(client: &mut Client) -> i64 {
    let lease = grant(client, 0x1234_5678, 600).await;
    grant(client, 77, 900).await;
    for number in 0..400 {
        client.put(&format!("app/{:03}", number % 300), &format!("value {number}"), 0).await;
    }
    client.delete("app/007").await;
    client.put("app/again", "", 0).await;
    client.delete("app/again").await;
    client.put("app/again", "there", 0).await;
    client.put("empty", "", 0).await;
    client.put("large", &"x".repeat(1_400_000), 0).await;
    let put =
        PutRequest { key: vec![0xff, 0, 0xfe].into(), value: vec![0, 0xff].into(), ..PutRequest::default() };
    client.kv.put(put).await.unwrap();
    client.put("held/1", "by a lease", lease).await;
    client.put("held/2", "by a lease", lease).await;
    lease
}

/// Keys, values and whether they have a lease.
async fn contents(client: &mut Client) -> Vec<(Vec<u8>, Vec<u8>, bool)> {
    let all = client.everything().await.kvs.into_iter();
    all.map(|pair| (pair.key.to_vec(), pair.value.to_vec(), pair.lease != 0)).collect()
}

#[tokio::test]
async fn a_running_etcd_is_copied_and_the_second_run_brings_the_difference() {
    for version in [OLD, NEW] {
        let (_home, etcd, tenure, mut old, mut new) = both(version).await;
        let lease = fill(&mut old).await;
        let words = ["migrate", "--from", &etcd.endpoint(), "--to", &tenure.endpoint(0)];
        let once = |more: &'static [&'static str]| [&words[..], &["--once"], more].concat();
        let said = must(&once(&[]));
        assert!(said.contains("both sides agree") && said.contains("305 keys"), "{said}");
        assert_eq!(contents(&mut new).await, contents(&mut old).await);
        let there = left(&mut new, lease).await;
        assert!(there.granted_ttl == 600 && there.ttl > 500 && there.keys.len() == 2, "{there:?}");
        assert!(left(&mut new, 77).await.ttl > 800, "a lease without keys");

        // Nothing would be lost, so nothing has to be said.
        assert!(must(&once(&[])).contains("written 0, removed 0"));
        old.put("app/001", "changed", 0).await;
        old.put("app/new", "new", lease).await;
        old.delete("app/002").await;
        let (code, complaint) = refused(&once(&[]));
        assert!(
            code == 1 && complaint.contains("1 keys that the source does not have and 1 with"),
            "{complaint}"
        );
        let said = must(&once(&["--again"]));
        assert!(said.contains("written 2, removed 1") && said.contains("both sides agree"), "{said}");
        assert_eq!(contents(&mut new).await, contents(&mut old).await);

        new.put("mine", "stays", 0).await;
        old.put("app/003", "changed", 0).await;
        assert!(must(&once(&["--keep-others"])).contains("written 1, removed 0"));
        assert_eq!(contents(&mut new).await.len(), contents(&mut old).await.len() + 1);
        tenure.stop();
    }
}

/// The TTL of a lease that is renewed all the time, seconds.
const SHORT_S: i64 = 8;

async fn renew(mut client: Client, id: i64) {
    loop {
        let ask = tokio_stream::iter([LeaseKeepAliveRequest { id }]);
        client.lease.lease_keep_alive(ask).await.unwrap().into_inner().message().await.unwrap();
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// `tenure migrate` at work.
fn following(words: &[&str]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tenure"));
    command.args(words).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

async fn until<F: AsyncFnMut() -> bool>(what: &str, mut holds: F) {
    let deadline = Instant::now() + BOUND;
    while !holds().await {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn value(client: &mut Client, key: &str) -> Option<Vec<u8>> {
    let range = RangeRequest { key: bytes(key), ..RangeRequest::default() };
    client.kv.range(range).await.unwrap().into_inner().kvs.first().map(|pair| pair.value.to_vec())
}

#[tokio::test]
async fn what_happens_after_the_copy_follows_until_cut_over() {
    let (_home, etcd, tenure, mut old, mut new) = both(NEW).await;
    fill(&mut old).await;
    // Somebody else's at the target.
    grant(&mut new, 77, 600).await;
    new.put("/elsewhere", "", 77).await;
    let short = grant(&mut old, 0, SHORT_S).await;
    let renewing = tokio::spawn(renew(etcd.client(), short));
    old.put("short", "is renewed", short).await;
    old.put("taken", "by an id that is not free", 77).await;
    let child =
        following(&["migrate", "--from", &etcd.endpoint(), "--to", &tenure.endpoint(0), "--keep-others"]);
    until("the copy", async || value(&mut new, "taken").await.is_some()).await;

    let began = Instant::now();
    let (mut revision, mut number) = (0, 0);
    // Longer than the short lease: only renewals at both sides keep it.
    while began.elapsed() < Duration::from_secs(SHORT_S.unsigned_abs() + 2) {
        revision = old.put(&format!("live/{}", number % 7), &format!("{number}"), 0).await;
        old.delete(&format!("app/{number:03}")).await;
        number += 1;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(value(&mut old, "short").await.is_some() && value(&mut new, "short").await.is_some());
    let compact = CompactionRequest { revision, physical: true };
    old.kv.compact(compact).await.unwrap();
    let last = grant(&mut old, 0, 100).await;
    old.put("last", "before the cut", last).await;
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    let output = child.wait_with_output().unwrap();
    let (said, warned) =
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(output.status.success() && said.contains("both sides agree"), "{said}{warned}");
    assert!(warned.contains("lease 4d of its own"), "{warned}");
    let mut there = contents(&mut new).await;
    there.retain(|(key, ..)| key != b"/elsewhere");
    assert_eq!(there, contents(&mut old).await);
    assert_eq!(left(&mut new, last).await.granted_ttl, 100);
    assert_eq!(left(&mut new, 77).await.keys.len(), 1, "it has its own key only");
    renewing.abort();
    tenure.stop();
}

#[tokio::test]
async fn the_way_back_is_the_same() {
    let (_home, etcd, tenure, mut old, mut new) = both(NEW).await;
    let lease = fill(&mut new).await;
    let back = ["migrate", "--from", &tenure.endpoint(0), "--to", &etcd.endpoint()];
    let said = must(&[&back[..], &["--prefix", "held/", "--once"]].concat());
    assert!(said.contains("2 keys"), "{said}");
    assert_eq!(contents(&mut old).await.len(), 2);
    let said = must(&[&back[..], &["--until-caught-up"]].concat());
    assert!(said.contains("both sides agree"), "{said}");
    assert_eq!(contents(&mut old).await, contents(&mut new).await);
    assert_eq!(left(&mut old, lease).await.keys.len(), 2);

    let (code, complaint) = refused(&["migrate", "--from", &etcd.endpoint(), "--to", &etcd.endpoint()]);
    assert!(code == 1 && complaint.contains("both source and target"), "{complaint}");
    let nobody = format!("127.0.0.1:{}", free_ports(1));
    let (code, complaint) = refused(&["migrate", "--from", &nobody, "--to", &etcd.endpoint()]);
    assert!(code == 3 && complaint.contains("no member of the source"), "{complaint}");
    tenure.stop();
}

#[tokio::test]
async fn a_snapshot_file_is_copied_and_a_damaged_one_is_refused() {
    for version in [OLD, NEW] {
        let home = tempfile::tempdir().unwrap();
        let etcd = Etcd::start(version, &home.path().join("etcd")).await;
        let mut old = etcd.client();
        let lease = fill(&mut old).await;
        let compact = CompactionRequest { revision: 200, physical: true };
        old.kv.compact(compact).await.unwrap();
        let file = home.path().join("backup.db");
        etcd.etcdctl(&["snapshot", "save", text(&file)]);
        let saved = contents(&mut old).await;
        old.put("after", "the snapshot", 0).await;
        let mut files = vec![file.clone()];
        if version == NEW {
            // What etcdutl makes of it is a database without a checksum.
            let dir = home.path().join("restored");
            let mut restore = Command::new(program(NEW, "etcdutl"));
            restore.args(["snapshot", "restore", text(&file), "--data-dir", text(&dir)]);
            assert!(restore.output().unwrap().status.success());
            files.push(dir.join("member/snap/db"));
        }
        for (number, file) in files.iter().enumerate() {
            let tenure = tenure_in(&home.path().join(number.to_string()));
            let mut new = Client::to(&tenure.endpoint(0));
            let words = ["migrate", "--from-snapshot", text(file), "--to", &tenure.endpoint(0)];
            let said = must(&words);
            assert!(said.contains("both sides agree") && said.contains("305 keys"), "{said}");
            assert_eq!(contents(&mut new).await, saved);
            let there = left(&mut new, lease).await;
            assert!(there.ttl > 500 && there.keys.len() == 2, "{there:?}");
            assert!(must(&words).contains("written 0, removed 0"), "twice is once");
            tenure.stop();
        }
        damage(&file);
    }
}

/// With its checksum each damage is found by that; without it by what reads the pages, or not, but never by a panic.
fn damage(file: &Path) {
    let nobody = format!("127.0.0.1:{}", free_ports(1));
    let damaged = file.with_extension("damaged");
    let whole = std::fs::read(file).unwrap();
    let run = |bytes: &[u8]| {
        std::fs::write(&damaged, bytes).unwrap();
        refused(&["migrate", "--from-snapshot", text(&damaged), "--to", &nobody])
    };
    let data = whole.len() - 32;
    let mut flipped = whole.clone();
    flipped[data / 2] ^= 1;
    let (code, complaint) = run(&flipped);
    assert!(code == 4 && complaint.contains("SHA-256"), "{complaint}");
    let (code, complaint) = run(&whole[..data / 2 / 4096 * 4096]);
    assert!(code == 4 && complaint.contains("ends before"), "{complaint}");
    let (code, complaint) = run(&[7; 8192]);
    assert!(code == 4 && complaint.contains("no bbolt database"), "{complaint}");
    assert_eq!(run(b"").0, 4);
    // The whole file is good: only nobody is there to take it.
    assert_eq!(run(&whole).0, 3);
    for number in 0..60 {
        let mut bytes = whole[..data].to_vec();
        // Heads of pages, where the structure is.
        for _ in 0..=number % 4 {
            let page = rand::random_range(0..bytes.len() / 4096) * 4096;
            bytes[page + rand::random_range(0..64)] = rand::random();
        }
        let (code, complaint) = run(&bytes);
        assert!((3..=4).contains(&code), "{code}: {complaint}");
    }
}

#[tokio::test]
async fn etcdctl_make_mirror_works_both_ways() {
    for version in [OLD, NEW] {
        let (_home, etcd, tenure, mut old, mut new) = both(NEW).await;
        for (from, to, source, target) in
            [(etcd.endpoint(), tenure.endpoint(0), 0, 1), (tenure.endpoint(0), etcd.endpoint(), 1, 0)]
        {
            let clients = &mut [&mut old, &mut new];
            let key = format!("mirrored/{from}");
            clients[source].put(&format!("{key}/before"), "before", 0).await;
            let mut mirror = etcdctl(version)
                .args([&format!("--endpoints={from}"), "make-mirror", "--prefix", &key, &to])
                .stdout(Stdio::null())
                .spawn()
                .unwrap();
            let before = format!("{key}/before");
            until("the mirror's base", async || value(clients[target], &before).await.is_some()).await;
            for number in 0..100 {
                clients[source].put(&format!("{key}/{number}"), "live", 0).await;
            }
            clients[source].delete(&before).await;
            until("the mirror's end", async || value(clients[target], &before).await.is_none()).await;
            let last = format!("{key}/99");
            assert_eq!(value(clients[target], &last).await, Some(b"live".to_vec()));
            mirror.kill().unwrap();
            mirror.wait().unwrap();
        }
        assert_eq!(contents(&mut old).await, contents(&mut new).await);
        tenure.stop();
    }
}
