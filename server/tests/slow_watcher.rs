//! A client that watches and does not read costs the server little and loses nothing: what it did not take in time it gets
//! from history, every event once and in order.
#![allow(clippy::unwrap_used)]

mod harness;

use futures::StreamExt;
use harness::Server;
use tenure_grpc::etcdserverpb::kv_client::KvClient;
use tenure_grpc::etcdserverpb::watch_client::WatchClient;
use tenure_proto::etcdserverpb::watch_request::RequestUnion;
use tenure_proto::etcdserverpb::{PutRequest, WatchCreateRequest, WatchRequest};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Endpoint;

/// More than the ring of recent changes and all windows together hold.
const PUTS: i64 = 20_000;
const VALUE_BYTES: usize = 4_000;
/// What was written is 80 MB; of that the server may keep in memory for one stalled watcher its ring, its log's tail and its
/// caches, but not the whole.
const GROWTH_MAX_KIB: u64 = 200 * 1024;

fn resident_kib(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_watcher_that_stalls_gets_everything_later_and_fills_no_memory() {
    let server = Server::start();
    let endpoint = Endpoint::from_shared(server.endpoint()).unwrap();
    // Small windows, so that what is not read soon stays with the server.
    let stalled = endpoint.clone().initial_stream_window_size(65_535).initial_connection_window_size(65_535);
    let mut watch = WatchClient::new(stalled.connect().await.unwrap()).max_decoding_message_size(usize::MAX);
    let mut kv = KvClient::new(endpoint.connect().await.unwrap());

    let (requests, receiver) = tokio::sync::mpsc::channel(4);
    let create = WatchCreateRequest { key: "key".into(), ..Default::default() };
    requests.send(WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) }).await.unwrap();
    let mut responses = watch.watch(ReceiverStream::new(receiver)).await.unwrap().into_inner();
    assert!(responses.next().await.unwrap().unwrap().created);

    let before = resident_kib(&server);
    let mut last = 0;
    let puts = futures::stream::iter(0..PUTS).map(|_| {
        let mut kv = kv.clone();
        let put =
            PutRequest { key: "key".into(), value: vec![b'v'; VALUE_BYTES].into(), ..Default::default() };
        async move { kv.put(put).await.unwrap().into_inner().header.unwrap().revision }
    });
    let mut puts = puts.buffer_unordered(64);
    while let Some(revision) = puts.next().await {
        last = last.max(revision);
    }
    drop(puts);
    let growth = resident_kib(&server).saturating_sub(before);
    eprintln!("the server grew by {growth} KiB while the watcher stalled");
    assert!(growth < GROWTH_MAX_KIB, "grew by {growth} KiB");

    let mut expected = last - PUTS + 1;
    while expected <= last {
        let response = responses.next().await.unwrap().unwrap();
        assert!(!response.canceled, "{}", response.cancel_reason);
        for event in response.events {
            assert_eq!(event.kv.unwrap().mod_revision, expected, "every event once and in order");
            expected += 1;
        }
    }
    kv.put(PutRequest { key: "key".into(), ..Default::default() }).await.unwrap();
    let live = responses.next().await.unwrap().unwrap();
    assert_eq!(live.events[0].kv.as_ref().unwrap().mod_revision, last + 1, "and goes on live");
}
