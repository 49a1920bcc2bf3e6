//! What is saved from a running cluster is restored into another: the same keys and leases, nothing else the same. Damaged and
//! misplaced files are refused before anything is touched.

#![allow(clippy::unwrap_used)]

mod fixture;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use fixture::{Client, Cluster, bytes, free_ports, must, refused};
use tenure_proto::etcdserverpb::watch_request::RequestUnion;
use tenure_proto::etcdserverpb::*;
use tonic::Code;

const BUMP: i64 = 1_000_000_000;

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Restores every member of a cluster of so many below `dir`, for the ports from `port` on.
fn restore_all(file: &Path, dir: &Path, members: u16, port: u16) {
    for number in 0..members {
        let (all, own) = Cluster::initial(port, members, number);
        let name = format!("m{}", number + 1);
        let words = ["snapshot", "restore", text(file), "--name", &name, "--initial-cluster", &all];
        let data_dir = dir.join(&name);
        let more = ["--initial-advertise-peer-urls", &own, "--data-dir", text(&data_dir)];
        let printed = must(&[&words[..], &more].concat());
        assert!(printed.contains("restored revision"), "{printed}");
    }
}

/// A cluster's state with everything in it: history, a deletion, a lease with a key. Gives the lease and the last revision.
async fn fill(client: &mut Client) -> (i64, i64) {
    let grant = client.lease.lease_grant(LeaseGrantRequest { ttl: 600, id: 0 }).await.unwrap().into_inner();
    for number in 0..30 {
        client.put(&format!("key {}", number % 10), &format!("value {number}"), 0).await;
    }
    client.delete("key 3").await;
    (grant.id, client.put("held", "by a lease", grant.id).await)
}

/// A watch from that revision is refused because that is compacted.
async fn watching_is_refused(client: &mut Client, start_revision: i64) {
    let create = WatchCreateRequest { key: bytes("key 1"), start_revision, ..WatchCreateRequest::default() };
    let (ask, asked) = tokio::sync::mpsc::channel(1);
    ask.send(WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) }).await.unwrap();
    let mut stream = {
        let requests = tokio_stream::wrappers::ReceiverStream::new(asked);
        client.watch.watch(requests).await.unwrap().into_inner()
    };
    loop {
        let told = stream.message().await.unwrap().expect("the stream goes on");
        if told.canceled {
            assert!(told.compact_revision > BUMP, "{told:?}");
            return;
        }
        assert!(told.created && told.events.is_empty(), "{told:?}");
    }
}

#[tokio::test]
async fn a_restored_cluster_has_the_old_keys_and_nothing_of_the_old_ids() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("backup.db");
    let old = Cluster::serving(&home.path().join("old"), 1, free_ports(1));
    let mut client = Client::to(&old.endpoint(0));
    let (lease, revision) = fill(&mut client).await;
    let saved = client.everything().await;
    let hash = client.maintenance.hash_kv(HashKvRequest::default()).await.unwrap().into_inner();
    must(&["snapshot", "save", text(&file), "--endpoints", &old.endpoint(0)]);
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600, "it holds every value");
    let status = must(&["snapshot", "status", text(&file), "-o", "json"]);
    for fact in
        [format!("\"revision\":{revision},"), format!("\"hash\":{},", hash.hash), "\"totalKey\":10,".into()]
    {
        assert!(status.contains(&fact), "{fact} is not in {status}");
    }
    let lost = client.put("key 1", "after the backup", 0).await;
    old.stop();

    let (dir, port) = (home.path().join("new"), free_ports(1));
    restore_all(&file, &dir, 1, port);
    let new = Cluster::serving(&dir, 1, port);
    let mut client = Client::to(&new.endpoint(0));
    let restored = client.everything().await;
    assert_eq!(restored.kvs, saved.kvs, "keys keep their values and their revisions");
    let (then, now) = (saved.header.unwrap(), restored.header.unwrap());
    assert_eq!(now.revision, then.revision + BUMP);
    assert_ne!((now.cluster_id, now.member_id), (then.cluster_id, then.member_id));
    let old_read = RangeRequest { key: bytes("key 1"), revision, ..RangeRequest::default() };
    let refusal = client.kv.range(old_read).await.expect_err("the old revisions are gone");
    assert!(refusal.code() == Code::OutOfRange && refusal.message().contains("compacted"), "{refusal}");
    for start in [revision, lost, now.revision - 1] {
        watching_is_refused(&mut client, start).await;
    }
    let ask = LeaseTimeToLiveRequest { id: lease, keys: true };
    let kept = client.lease.lease_time_to_live(ask).await.unwrap().into_inner();
    assert!(kept.ttl > 590 && kept.keys == vec![bytes::<Vec<u8>>("held")], "it begins anew: {kept:?}");
    assert_eq!(client.put("key 1", "goes on", 0).await, now.revision + 1);
    client.lease.lease_revoke(LeaseRevokeRequest { id: lease }).await.unwrap();
    assert_eq!(client.everything().await.count, saved.count - 1, "its key went with it");
    new.stop();
    // What it was restored to survives its next start as any member's data does.
    let again = Cluster::serving(&dir, 1, port);
    assert_eq!(Client::to(&again.endpoint(0)).everything().await.count, saved.count - 1);
    again.stop();
}

/// They agree on where the log begins, elect one of them, and go on from the same state.
#[tokio::test]
async fn members_restored_from_one_file_form_one_cluster() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("backup.db");
    let old = Cluster::serving(&home.path().join("old"), 3, free_ports(3));
    let (_, revision) = fill(&mut old.leader().await).await;
    // A follower's backup is as good as the leader's once it has come so far.
    let mut saved = Vec::new();
    for (number, mut client) in (0..3).zip(old.clients()) {
        saved = client.own_at(revision).await.kvs;
        must(&["snapshot", "save", text(&file), "--endpoints", &old.endpoint(number)]);
    }
    old.stop();

    let (dir, port) = (home.path().join("new"), free_ports(3));
    restore_all(&file, &dir, 3, port);
    let new = Cluster::serving(&dir, 3, port);
    let written = new.leader().await.put("written", "after the restore", 0).await;
    assert_eq!(written, revision + BUMP + 1);
    for mut client in new.clients() {
        let mut own = client.own_at(written).await;
        own.kvs.retain(|kv| kv.key != b"written"[..]);
        assert_eq!(own.kvs, saved);
        let mut list =
            client.cluster.member_list(MemberListRequest::default()).await.unwrap().into_inner().members;
        list.sort_by(|left, right| left.name.cmp(&right.name));
        assert_eq!(list.iter().map(|member| member.name.as_str()).collect::<Vec<_>>(), ["m1", "m2", "m3"]);
    }
    new.stop();
}

#[tokio::test]
async fn what_cannot_be_restored_is_refused_and_nothing_is_touched() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("backup.db");
    let port = free_ports(1);
    let old = Cluster::serving(&home.path().join("old"), 1, port);
    fill(&mut Client::to(&old.endpoint(0))).await;
    must(&["snapshot", "save", text(&file), "--endpoints", &old.endpoint(0)]);
    old.stop();

    let target = home.path().join("target");
    let restore = |file: &Path, more: &[&str]| {
        let words = ["snapshot", "restore", text(file), "--data-dir", text(&target)];
        refused(&[&words[..], more].concat())
    };
    let mut damaged = std::fs::read(&file).unwrap();
    let middle = damaged.len() / 2;
    let damaged_file = home.path().join("damaged.db");
    for at in (16..damaged.len()).step_by(97) {
        damaged[at] ^= 1;
        std::fs::write(&damaged_file, &damaged).unwrap();
        let (code, complaint) = restore(&damaged_file, &[]);
        assert!(code == 4 && complaint.contains("damaged at byte"), "byte {at}: {code}: {complaint}");
        damaged[at] ^= 1;
    }
    std::fs::write(&damaged_file, &damaged[..middle]).unwrap();
    let (code, complaint) = restore(&damaged_file, &[]);
    assert!(
        code == 4 && complaint.contains(&format!("damaged at byte {middle}: it ends")),
        "{code}: {complaint}"
    );
    std::fs::write(&damaged_file, "no backup at all").unwrap();
    let (code, complaint) = restore(&damaged_file, &[]);
    assert!(code == 4 && complaint.contains("does not begin as a backup"), "{code}: {complaint}");

    let (all, own) = Cluster::initial(port, 1, 0);
    let same = ["--name", "m1", "--initial-cluster", &all, "--initial-advertise-peer-urls", &own];
    let (code, complaint) =
        restore(&file, &[&same[..], &["--initial-cluster-token", "etcd-cluster"]].concat());
    assert!(code == 1 && complaint.contains("could not be told apart"), "{code}: {complaint}");
    let (code, complaint) = restore(&file, &["--name", "stranger", "--initial-cluster", &all]);
    assert!(code == 1 && complaint.contains("stranger"), "{code}: {complaint}");
    let (code, complaint) = restore(&file, &["--mark-compacted", "false"]);
    assert!(code == 1 && complaint.contains("--bump-revision"), "{code}: {complaint}");
    assert_eq!(restore(&file, &["--no-such-flag"]).0, 2);
    assert!(!target.exists(), "nothing of all this has touched the target");

    std::fs::create_dir(&target).unwrap();
    std::fs::write(target.join("precious"), "").unwrap();
    let (code, complaint) = restore(&file, &[]);
    assert!(code == 1 && complaint.contains("is not empty"), "{code}: {complaint}");
    assert_eq!(std::fs::read_dir(&target).unwrap().count(), 1);
}

#[tokio::test]
async fn a_save_that_fails_leaves_no_file() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("backup.db");
    let nobody = format!("127.0.0.1:{}", free_ports(1));
    let (code, complaint) = refused(&["snapshot", "save", text(&file), "--endpoints", &nobody]);
    assert!(code == 3 && complaint.contains(&nobody), "{code}: {complaint}");
    let (code, _) = refused(&["snapshot", "status", text(&file)]);
    assert_eq!((code, std::fs::read_dir(home.path()).unwrap().count()), (1, 0));
    tokio::time::timeout(Duration::from_secs(60), async {
        let cluster = Cluster::serving(&home.path().join("data"), 1, free_ports(1));
        let nowhere = home.path().join("missing").join("backup.db");
        // The first that answers is asked.
        let endpoints = format!("{nobody},{}", cluster.endpoint(0));
        let (code, complaint) = refused(&["snapshot", "save", text(&nowhere), "--endpoints", &endpoints]);
        assert!(code == 1 && complaint.contains("cannot create"), "{code}: {complaint}");
        must(&["snapshot", "save", text(&file), "--endpoints", &endpoints]);
        cluster.stop();
    })
    .await
    .unwrap();
    let names = std::fs::read_dir(home.path()).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(names.filter(|name| name.to_string_lossy().contains("backup")).count(), 1, "no part is left");
}
