//! Bounds as clients meet them, with etcd's codes and texts: too large, too many, no space. What is refused changes
//! nothing, and a store that is out of space finds its way back by itself.
#![allow(clippy::unwrap_used)]

mod harness;

use std::time::Duration;

use harness::{Launch, Server, eventually};
use tenure_grpc::etcdserverpb::kv_client::KvClient;
use tenure_grpc::etcdserverpb::lease_client::LeaseClient;
use tenure_grpc::etcdserverpb::maintenance_client::MaintenanceClient;
use tenure_proto::etcdserverpb::request_op::Request as Op;
use tenure_proto::etcdserverpb::{
    AlarmRequest, CompactionRequest, DeleteRangeRequest, LeaseGrantRequest, PutRequest, RangeRequest,
    RequestOp, StatusRequest, TxnRequest,
};
use tonic::transport::Channel;
use tonic::{Code, Status};

fn start_with(flags: &[&str]) -> Server {
    let home = tempfile::tempdir().unwrap();
    let mut launch = Launch::alone(Launch::program_under_test(), home.path());
    launch.extra = flags.iter().map(ToString::to_string).collect();
    Server::start_as(launch, home)
}

async fn connect(server: &Server) -> KvClient<Channel> {
    KvClient::connect(server.endpoint()).await.unwrap()
}

fn put(key: &str, bytes: usize) -> PutRequest {
    PutRequest { key: key.to_owned().into(), value: vec![b'v'; bytes].into(), ..Default::default() }
}

fn operations(count: usize) -> Vec<RequestOp> {
    let op = |number| RequestOp { request: Some(Op::RequestPut(put(&format!("key{number}"), 1))) };
    (0..count).map(op).collect()
}

async fn revision(kv: &mut KvClient<Channel>) -> i64 {
    let range = RangeRequest { key: "nothing".into(), ..Default::default() };
    kv.range(range).await.unwrap().into_inner().header.unwrap().revision
}

fn said(status: &Status) -> (Code, &str) {
    (status.code(), status.message())
}

#[tokio::test]
async fn a_request_that_is_too_large_is_refused_and_changes_nothing() {
    let server = start_with(&[]);
    let mut kv = connect(&server).await;
    let before = revision(&mut kv).await;
    let refused = kv.put(put("large", 1_572_864)).await.unwrap_err();
    assert_eq!(said(&refused), (Code::InvalidArgument, "etcdserver: request is too large"));
    assert_eq!(revision(&mut kv).await, before);
    kv.put(put("large", 1_500_000)).await.unwrap();

    let refused = kv.put(put("larger than any message may be", 3_000_000)).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
    assert!(
        refused.message().starts_with("grpc: received message larger than max (30000"),
        "{}",
        refused.message()
    );
}

#[tokio::test]
async fn a_txn_may_have_128_operations_or_what_the_flag_says() {
    let txn = |count| TxnRequest { success: operations(count), ..Default::default() };
    let server = start_with(&[]);
    let mut kv = connect(&server).await;
    kv.txn(txn(128)).await.unwrap();
    let refused = kv.txn(txn(129)).await.unwrap_err();
    assert_eq!(said(&refused), (Code::InvalidArgument, "etcdserver: too many operations in txn request"));

    let server = start_with(&["--max-txn-ops=200"]);
    connect(&server).await.txn(txn(200)).await.unwrap();
}

#[tokio::test]
async fn a_store_out_of_space_refuses_growth_takes_deletions_and_recovers_by_itself() {
    const NO_SPACE: (Code, &str) = (Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded");
    let server = start_with(&["--quota-backend-bytes=1000000"]);
    let mut kv = connect(&server).await;
    let mut maintenance = MaintenanceClient::connect(server.endpoint()).await.unwrap();
    let mut lease = LeaseClient::connect(server.endpoint()).await.unwrap();

    let refused = loop {
        if let Err(refused) = kv.put(put("same key", 50_000)).await {
            break refused;
        }
    };
    assert_eq!(said(&refused), NO_SPACE);
    let alarms = maintenance.alarm(AlarmRequest::default()).await.unwrap().into_inner().alarms;
    assert_eq!(alarms.len(), 1, "the alarm is up: {alarms:?}");
    let status = maintenance.status(StatusRequest {}).await.unwrap().into_inner();
    assert!(status.errors[0].ends_with("alarm:NOSPACE "), "{:?}", status.errors);
    assert_eq!(said(&kv.put(put("small", 1)).await.unwrap_err()), NO_SPACE);
    let grant = LeaseGrantRequest { ttl: 60, id: 0 };
    assert_eq!(said(&lease.lease_grant(grant).await.unwrap_err()), NO_SPACE);
    let writing = TxnRequest { success: operations(1), ..Default::default() };
    assert_eq!(said(&kv.txn(writing).await.unwrap_err()), NO_SPACE);

    let delete = DeleteRangeRequest { key: "same key".into(), ..Default::default() };
    assert_eq!(kv.delete_range(delete).await.unwrap().into_inner().deleted, 1);
    let revision = revision(&mut kv).await;
    kv.compact(CompactionRequest { revision, physical: true }).await.unwrap();
    let runtime = tokio::runtime::Handle::current();
    tokio::task::spawn_blocking(move || {
        eventually("writes are taken again", Duration::from_secs(30), || {
            runtime.block_on(kv.put(put("small", 1))).ok()
        });
    })
    .await
    .unwrap();
}
