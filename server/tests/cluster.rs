//! Three members as processes: what one acknowledged, a quorum has; whoever dies is replaced, whoever returns catches up, by
//! the log or, where that is gone, by a snapshot.

#![allow(clippy::unwrap_used)]

mod harness;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use futures::future::try_join_all;
use harness::{Cluster, Deadline};
use tenure_grpc::etcdserverpb::kv_client::KvClient;
use tenure_proto::etcdserverpb::{PutRequest, RangeRequest};
use tonic::transport::{Channel, Endpoint};

/// For anything that a living cluster does within an election or two.
const BOUND: Duration = Duration::from_secs(60);
/// Requests under way at once.
const WRITERS: u32 = 32;
/// Few enough that the log behind a stopped member is gone soon.
const FREQUENT_SNAPSHOTS: [&str; 4] = ["--snapshot-count", "500", "--snapshot-catchup-entries", "100"];
/// More than all that makes a log be kept: what is above, and that it is cut off in pieces of 1,024.
const BEYOND_THE_LOG: u32 = 4_000;

/// What a member says that takes a snapshot.
const COMING: &str = "a snapshot is coming";

/// Connects to a member, which serves.
fn client(cluster: &Cluster, member: usize) -> KvClient<Channel> {
    KvClient::new(Endpoint::from_shared(cluster.members[member].endpoint()).unwrap().connect_lazy())
}

async fn put(client: &KvClient<Channel>, key: u32) -> Result<(), tonic::Status> {
    let key = key.to_be_bytes().to_vec().into();
    client.clone().put(PutRequest { key, value: "value".into(), ..Default::default() }).await.map(drop)
}

/// Puts as many keys as are missing up to `to`, from many tasks.
async fn put_up_to(client: &KvClient<Channel>, next: &Arc<AtomicU32>, to: u32) {
    let writer = |_| async {
        loop {
            let key = next.fetch_add(1, Ordering::Relaxed);
            if key >= to {
                return Ok::<_, tonic::Status>(());
            }
            put(client, key).await?;
        }
    };
    try_join_all((0..WRITERS).map(writer)).await.unwrap();
    next.store(to, Ordering::Relaxed);
}

/// How many keys there are, by a linearizable read.
async fn count(client: &KvClient<Channel>) -> u32 {
    let all =
        RangeRequest { key: "\0".into(), range_end: "\0".into(), count_only: true, ..Default::default() };
    client.clone().range(all).await.unwrap().into_inner().count.try_into().unwrap()
}

/// Members whose number is neither of these.
fn other_than(members: [usize; 2]) -> usize {
    (0..3).find(|member| !members.contains(member)).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_writes_outlive_the_leader_and_reach_whoever_was_away() {
    let mut cluster = Cluster::start(3);
    let next = Arc::default();
    let first = cluster.leader().await;
    put_up_to(&client(&cluster, first), &next, 500).await;

    cluster.members[first].kill();
    let second = cluster.leader_other_than(Some(first)).await;
    assert_eq!(count(&client(&cluster, second)).await, 500);
    put_up_to(&client(&cluster, second), &next, 1_000).await;

    // With the third gone, the first one must have caught up for anything more to be acknowledged.
    cluster.members[first].begin();
    cluster.members[other_than([first, second])].kill();
    put_up_to(&client(&cluster, second), &next, 1_500).await;

    // And with the second gone and the third behind, only the first can lead.
    cluster.members[second].kill();
    cluster.members[other_than([first, second])].begin();
    assert_eq!(cluster.leader().await, first);
    assert_eq!(count(&client(&cluster, first)).await, 1_500);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_behind_the_log_is_sent_a_snapshot_while_writes_go_on() {
    let mut cluster = Cluster::start_with(3, &FREQUENT_SNAPSHOTS);
    let next = Arc::default();
    let leader = cluster.leader().await;
    let away = other_than([leader, leader]);
    let client = client(&cluster, leader);
    put_up_to(&client, &next, 100).await;
    cluster.caught_up(away).await;
    while !cluster.members[away].log().contains(COMING) {
        cluster.members[away].stop();
        // The leader keeps what it is about to send until it finds that there is nobody, which takes it a moment.
        for _ in 0..4 {
            let upto = next.load(Ordering::Relaxed) + BEYOND_THE_LOG / 4;
            put_up_to(&client, &next, upto).await;
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        let going_on = tokio::spawn({
            let (client, next) = (client.clone(), Arc::clone(&next));
            async move {
                let upto = next.load(Ordering::Relaxed) + BEYOND_THE_LOG;
                put_up_to(&client, &next, upto).await
            }
        });
        cluster.members[away].begin();
        let deadline = Deadline::after(Duration::from_secs(5));
        while !cluster.members[away].log().contains(COMING)
            && tokio::task::block_in_place(|| deadline.pause())
        {}
        going_on.await.unwrap();
    }
    let written = next.load(Ordering::Relaxed);

    // It must have all of it for more to be acknowledged, and then to lead.
    let other = other_than([leader, away]);
    cluster.members[other].kill();
    put_up_to(&client, &next, written + 100).await;
    cluster.members[leader].kill();
    // What was installed and then continued from the log is also what is there after a crash.
    cluster.members[away].kill();
    cluster.members[away].begin();
    cluster.members[other].begin();
    assert_eq!(cluster.leader().await, away);
    assert_eq!(count(&self::client(&cluster, away)).await, written + 100);
}

/// Puts one key, through one member, as often as it takes.
async fn put_at_last(client: &KvClient<Channel>, key: u32) {
    let tried = async {
        while !tokio::time::timeout(Duration::from_secs(1), put(client, key)).await.is_ok_and(|it| it.is_ok())
        {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(BOUND, tried).await.expect("nothing is written any more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_killed_or_frozen_is_replaced_and_disturbs_nobody_when_it_returns() {
    let mut cluster = Cluster::start(3);
    for round in 0..4 {
        let leader = cluster.leader().await;
        let client = client(&cluster, other_than([leader, leader]));
        put_at_last(&client, round).await;
        let gone = Instant::now();
        if round % 2 == 0 {
            cluster.members[leader].kill();
        } else {
            cluster.members[leader].freeze();
        }
        put_at_last(&client, round).await;
        eprintln!("round {round}: writes went on after {:?}", gone.elapsed());

        let next = cluster.leader_other_than(Some(leader)).await;
        let before = cluster.status(next).await.unwrap();
        if round % 2 == 0 {
            cluster.members[leader].restart();
        } else {
            cluster.members[leader].go_on();
        }
        cluster.caught_up(leader).await;
        let after = cluster.status(next).await.unwrap();
        assert_eq!((after.leader, after.raft_term), (before.leader, before.raft_term), "it disturbed");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_told_to_stop_hands_over_first() {
    let mut cluster = Cluster::start(5);
    let first = cluster.leader().await;
    put_at_last(&client(&cluster, first), 1).await;
    for member in 0..5 {
        cluster.caught_up(member).await;
    }
    let term = cluster.status(first).await.unwrap().raft_term;
    let stop = |cluster: &mut Cluster, member: usize| {
        tokio::task::block_in_place(|| cluster.members[member].stop());
        let log = cluster.members[member].log();
        assert!(log.contains("handed the lead over"), "{log}");
    };
    stop(&mut cluster, first);
    let second = cluster.leader_other_than(Some(first)).await;
    assert_eq!(cluster.status(second).await.unwrap().raft_term, term + 1);
    // The first one is gone, which nobody can know yet.
    stop(&mut cluster, second);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_follower_holds_nobody_up_and_catches_up() {
    let cluster = Cluster::start(3);
    let leader = cluster.leader().await;
    let frozen = other_than([leader, leader]);
    let client = client(&cluster, leader);
    cluster.members[frozen].freeze();
    let before = cluster.status(leader).await.unwrap();
    for key in 0..200u32 {
        let value = vec![0; 256 << 10].into();
        let request = PutRequest { key: key.to_be_bytes().to_vec().into(), value, ..Default::default() };
        client.clone().put(request).await.unwrap();
    }
    cluster.members[frozen].go_on();
    cluster.caught_up(frozen).await;
    let after = cluster.status(leader).await.unwrap();
    assert_eq!((after.leader, after.raft_term), (before.leader, before.raft_term), "it disturbed");
}
