//! The members of a cluster compare what they hold. A record that differs on one of them, planted behind the server's back, raises
//! the CORRUPT alarm with that member named; writing, deleting and compacting meanwhile never does.

#![allow(clippy::unwrap_used)]

mod harness;

use std::time::Duration;

use harness::{Cluster, eventually};
use tenure_disk::store::{Store, StoreOptions};
use tenure_grpc::etcdserverpb::kv_client::KvClient;
use tenure_grpc::etcdserverpb::maintenance_client::MaintenanceClient;
use tenure_proto::etcdserverpb::*;
use tenure_state::{Place, Records, Write};
use tonic::transport::Channel;

const BOUND: Duration = Duration::from_secs(60);
const AGREED: &str = "members hold the same history";

async fn kv(cluster: &Cluster, member: usize) -> KvClient<Channel> {
    KvClient::connect(cluster.members[member].endpoint()).await.unwrap()
}

async fn put(client: &mut KvClient<Channel>, key: String, value: String) -> i64 {
    let put = PutRequest { key: key.into(), value: value.into(), ..PutRequest::default() };
    client.put(put).await.unwrap().into_inner().header.unwrap().revision
}

async fn alarms(cluster: &Cluster, member: usize) -> Vec<AlarmMember> {
    let mut client = MaintenanceClient::connect(cluster.members[member].endpoint()).await.unwrap();
    client.alarm(AlarmRequest::default()).await.unwrap().into_inner().alarms
}

/// Changes the value of the record at that revision in a stopped member's store.
fn plant(cluster: &Cluster, member: usize, revision: i64) {
    let dir = cluster.members[member].launch.data_dir.join("state");
    let store = Store::open(&dir, StoreOptions::default()).unwrap();
    let at = Place { main: revision, sub: 0, tombstone: false };
    let bytes = store.record(at).unwrap().expect("it holds the record").to_vec();
    let planted = String::from_utf8_lossy(&bytes).replace("right", "wrong").into_bytes();
    assert!(planted != bytes && planted.len() == bytes.len());
    let applied = store.applied().unwrap();
    store.write(vec![Write::Record { at, bytes: planted.into() }], applied).unwrap();
    store.sync().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_record_that_differs_on_one_member_raises_the_alarm_and_names_it() {
    // Of five, so that there is a majority with one away.
    let mut cluster = Cluster::start_with(5, &["--corrupt-check-time", "1s"]);
    let leader = cluster.leader().await;
    let follower = (leader + 1) % 5;
    let mut client = kv(&cluster, leader).await;
    let mut revision = 0;
    for number in 0..100 {
        revision = put(&mut client, format!("key {number}"), format!("right {number}")).await;
    }
    cluster.caught_up(follower).await;
    let member = cluster.status(follower).await.unwrap().header.unwrap().member_id;
    cluster.members[follower].stop();
    plant(&cluster, follower, revision - 50);
    cluster.members[follower].restart();
    // What members have agreed on is not read again and again, but by the next leader: be that the one that is wrong.
    cluster.members[leader].stop();
    let next = cluster.leader_other_than(Some(leader)).await;

    let named = vec![AlarmMember { member_id: member, alarm: AlarmType::Corrupt as i32 }];
    let raised = async {
        while alarms(&cluster, next).await != named {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(BOUND, raised).await.expect("the alarm comes");
    let logs: String = cluster.members.iter().map(|server| server.log()).collect();
    assert!(logs.contains("history differs between members (most members agree against it)"), "{logs}");
    let mut client = kv(&cluster, next).await;
    let refused = client.put(PutRequest { key: "k".into(), ..PutRequest::default() }).await;
    assert!(
        refused.unwrap_err().message().contains("corrupt cluster"),
        "the cluster stands still until it is seen to"
    );
}

/// Members drop history at times of their own, and some lag behind: none of that is a difference.
#[tokio::test]
async fn load_and_compaction_raise_no_alarm() {
    let cluster = Cluster::start_with(3, &["--corrupt-check-time", "100ms"]);
    let leader = cluster.leader().await;
    let mut clients = Vec::new();
    for member in 0..3 {
        clients.push(kv(&cluster, member).await);
    }
    for round in 0..30 {
        let writes = clients.iter().cloned().enumerate().map(|(member, mut client)| async move {
            let mut revision = 0;
            for number in 0..20 {
                revision = put(&mut client, format!("key {member} {number}"), format!("value {round}")).await;
            }
            let delete = DeleteRangeRequest {
                key: format!("key {member} {}", round % 20).into(),
                ..Default::default()
            };
            client.delete_range(delete).await.unwrap();
            revision
        });
        let reached = futures::future::join_all(writes).await.into_iter().max().unwrap();
        // To the very front, and far behind it, in turn.
        let revision = if round % 2 == 0 { reached } else { reached - 30 };
        let compaction = CompactionRequest { revision, physical: false };
        let outcome = clients[round % 3].compact(compaction).await;
        assert!(outcome.is_ok() || round % 2 == 1, "{outcome:?}");
    }
    let last = put(&mut clients[0], "last".into(), "one".into()).await;
    let agreed = format!("\"revision\":{last},\"members\":2");
    eventually("all agree at the end", BOUND, || {
        let logs: String = cluster.members.iter().map(|server| server.log()).collect();
        logs.lines().any(|line| line.contains(AGREED) && line.contains(&agreed)).then_some(())
    });
    assert_eq!(alarms(&cluster, leader).await, []);
    let logs: String = cluster.members.iter().map(|server| server.log()).collect();
    assert!(!logs.contains("history differs") && !logs.contains("differed"), "{logs}");
}
