//! Three members as processes: what one acknowledged, a quorum has; whoever dies is replaced, whoever returns catches up.

#![allow(clippy::unwrap_used)]

mod harness;

use harness::Cluster;
use tenure_grpc::etcdserverpb::kv_client::KvClient;
use tenure_proto::etcdserverpb::{PutRequest, RangeRequest};
use tonic::transport::Channel;

/// Connects to a member, which serves.
async fn client(cluster: &Cluster, member: usize) -> KvClient<Channel> {
    KvClient::connect(cluster.members[member].endpoint()).await.unwrap()
}

async fn put(client: &mut KvClient<Channel>, keys: std::ops::Range<u32>) {
    for key in keys {
        let request = PutRequest {
            key: key.to_be_bytes().to_vec().into(),
            value: "value".into(),
            ..Default::default()
        };
        client.put(request).await.unwrap();
    }
}

/// How many keys there are, by a linearizable read.
async fn count(client: &mut KvClient<Channel>) -> i64 {
    let all =
        RangeRequest { key: "\0".into(), range_end: "\0".into(), count_only: true, ..Default::default() };
    client.range(all).await.unwrap().into_inner().count
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_writes_outlive_the_leader() {
    let mut cluster = Cluster::prepared(3, &[]);
    cluster.members.iter_mut().for_each(harness::Server::begin);
    let first = cluster.leader().await;
    put(&mut client(&cluster, first).await, 0..100).await;

    cluster.members[first].kill();
    let second = cluster.leader_other_than(Some(first)).await;
    let mut client = client(&cluster, second).await;
    assert_eq!(count(&mut client).await, 100);
    put(&mut client, 100..200).await;
    assert_eq!(count(&mut client).await, 200);
}
