//! When the disk under the log fails, the member says so and stops taking writes; what it acknowledged before is there at
//! its revision after the disk is well again. The real node, on a log whose disk fails on demand.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tenure_disk::store::{Store, StoreOptions};
use tenure_disk::wal::{Wal, WalOptions};
use tenure_disk::{FakeDisk, Loss};
use tenure_proto::etcdserverpb::{PutRequest, RangeRequest};
use tenure_proto::internal::Command;
use tenure_proto::internal::command::Wish;
use tenured::clock::SystemClock;
use tenured::ids::{ClusterId, MemberId};
use tenured::metrics::Meters;
use tenured::net::Tcp;
use tenured::node::{Error, Node, Pace, Retention, Rules, Settings};
use tenured::peers::Peers;
use tenured::raft::Unavailable;

const MEMBER: MemberId = MemberId(7);

fn settings() -> Settings {
    Settings {
        member: MEMBER,
        token: "etcd-cluster".into(),
        name: "alone".into(),
        client_urls: vec!["http://127.0.0.1:2379".into()],
        founders: BTreeMap::from([(MEMBER.0, vec!["http://127.0.0.1:2380".into()])]),
        heartbeat: Duration::from_millis(100),
        election: Duration::from_secs(1),
        snapshot_entries: 1_000,
        kept_entries: 100,
        pre_vote: true,
        membership: Rules { strict: true, learners_max: 1 },
        sweep: Pace { keys_at_once: 1_000, rest: Duration::from_millis(1) },
        record_bytes_max: 1 << 20,
        request_bytes_max: 1 << 20,
        quota_bytes_max: None,
        retention: Retention::Everything,
        watch_progress_interval: Duration::from_secs(600),
        audit_interval: Duration::ZERO,
        first_ticket: 1,
        meters: Meters::unread(),
    }
}

async fn start(disk: &FakeDisk, dir: &Path) -> Node {
    let options =
        WalOptions { segment_bytes: 1 << 16, first_segment_bytes: 1 << 14, ..WalOptions::default() };
    let wal = Wal::open(Arc::new(disk.clone()), Path::new("/log"), options).unwrap();
    let store = Store::open(&dir.join("state"), StoreOptions::default()).unwrap();
    let peers = Peers::new(ClusterId(1), MEMBER, Arc::new(Tcp::default()), Duration::from_secs(1));
    let node = Node::start(settings(), Arc::new(SystemClock::start()), peers, wal, store).await.unwrap();
    node.ready(MEMBER).await.unwrap();
    node
}

async fn put(node: &Node, number: usize) -> Result<i64, Error> {
    let put = PutRequest {
        key: format!("key{number}").into(),
        value: vec![b'v'; 200].into(),
        ..Default::default()
    };
    let written = node.writer.write(Command { wish: Some(Wish::Put(put)), ..Default::default() }).await?;
    Ok(written.revision.0)
}

async fn revision_of(node: &Node, number: usize) -> Option<i64> {
    let get = RangeRequest { key: format!("key{number}").into(), ..Default::default() };
    let (response, _) = node.reader.range(&get).await.unwrap();
    response.kvs.first().map(|kv| kv.mod_revision)
}

/// Writes until the disk fails; gives what was acknowledged, and how the first write that was not ended.
async fn write_until_failure(node: &Node) -> (Vec<i64>, Error) {
    let mut acknowledged = Vec::new();
    loop {
        match put(node, acknowledged.len()).await {
            Ok(revision) => acknowledged.push(revision),
            Err(error) => return (acknowledged, error),
        }
        assert!(acknowledged.len() < 10_000, "the disk never failed");
    }
}

async fn fails_and_recovers(break_disk: impl Fn(&FakeDisk), loss: Loss) {
    let (disk, dir) = (FakeDisk::default(), tempfile::tempdir().unwrap());
    let node = start(&disk, dir.path()).await;
    put(&node, 0).await.unwrap();

    break_disk(&disk);
    let (acknowledged, error) = write_until_failure(&node).await;
    assert_eq!(error, Error::Unavailable(Unavailable::Stopped), "after {} writes", acknowledged.len());
    assert!(!acknowledged.is_empty(), "the disk still took some writes");
    assert!(node.consensus.failure().is_some(), "the member says why it stopped");
    assert_eq!(put(&node, 0).await, Err(Error::Unavailable(Unavailable::Stopped)), "it takes no more");
    node.stop().await;

    disk.cut_power(loss);
    let node = start(&disk, dir.path()).await;
    for (number, revision) in acknowledged.iter().enumerate().skip(1) {
        assert_eq!(revision_of(&node, number).await, Some(*revision), "key{number}");
    }
    let next = put(&node, 99_999).await.unwrap();
    assert!(next > *acknowledged.last().unwrap(), "no revision is used twice");
    node.stop().await;
}

#[tokio::test]
async fn a_failed_sync_stops_the_member_and_loses_nothing() {
    fails_and_recovers(|disk| disk.fail_sync_after(20), Loss::Everything).await;
}

#[tokio::test]
async fn a_full_disk_stops_the_member_and_loses_nothing() {
    fails_and_recovers(|disk| disk.limit_space(Some(100_000)), Loss::Everything).await;
}

#[tokio::test]
async fn a_dying_disk_stops_the_member_and_loses_nothing() {
    fails_and_recovers(|disk| disk.die_after(50), Loss::Everything).await;
}

#[tokio::test]
async fn short_writes_are_completed() {
    let (disk, dir) = (FakeDisk::default(), tempfile::tempdir().unwrap());
    let node = start(&disk, dir.path()).await;
    disk.limit_writes(Some(100));
    for number in 0..50 {
        put(&node, number).await.unwrap();
    }
    node.stop().await;
    disk.cut_power(Loss::Everything);
    let node = start(&disk, dir.path()).await;
    for number in 0..50 {
        assert!(revision_of(&node, number).await.is_some(), "key{number}");
    }
    node.stop().await;
}
