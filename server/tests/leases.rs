//! Leases by the clock on the wall, on whole servers: none ends before its time, all end, and being killed neither shortens a
//! lease nor brings one back. How late the last one ends is printed, not asserted: a busy machine is not a defect.

#![allow(clippy::unwrap_used)]

mod harness;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures::stream::{self, StreamExt};
use harness::{Cluster, Server, get};
use tenure_grpc::etcdserverpb::{kv_client::KvClient, lease_client::LeaseClient, watch_client::WatchClient};
use tenure_proto::etcdserverpb::{
    LeaseGrantRequest, LeaseKeepAliveRequest, LeaseRevokeRequest, LeaseTimeToLiveRequest,
    LeaseTimeToLiveResponse, PutRequest, RangeRequest, WatchCreateRequest, WatchRequest, WatchResponse,
    watch_create_request::FilterType, watch_request::RequestUnion,
};
use tenure_proto::mvccpb::event::EventType;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::Streaming;
use tonic::transport::{Channel, Endpoint};

const BOUND: Duration = Duration::from_secs(180);

/// One connection, with the few calls that these tests make.
#[derive(Clone)]
struct Client {
    kv: KvClient<Channel>,
    lease: LeaseClient<Channel>,
    watch: WatchClient<Channel>,
}

impl Client {
    async fn connect(server: &Server) -> Client {
        // A wide window, for the HTTP/2 library takes many small frames that wait to be read for an attack, and half the
        // window is what it bears.
        let endpoint =
            Endpoint::from_shared(server.endpoint()).unwrap().initial_connection_window_size(64 << 20);
        let channel = endpoint.connect().await.unwrap();
        Client {
            kv: KvClient::new(channel.clone()),
            lease: LeaseClient::new(channel.clone()),
            watch: WatchClient::new(channel),
        }
    }

    async fn grant(&mut self, id: i64, ttl: i64) {
        let granted = self.lease.lease_grant(LeaseGrantRequest { ttl, id }).await.unwrap().into_inner();
        assert_eq!((granted.id, granted.ttl), (id, ttl));
    }

    async fn put(&mut self, key: String, lease: i64) {
        let request = PutRequest { key: key.into(), lease, ..Default::default() };
        self.kv.put(request).await.unwrap();
    }

    async fn has(&mut self, key: &'static str) -> bool {
        let request = RangeRequest { key: key.into(), ..Default::default() };
        self.kv.range(request).await.unwrap().into_inner().count == 1
    }

    /// The TTL that one keepalive is answered with; 0 for a lease that is not there.
    async fn keep_alive(&mut self, id: i64) -> i64 {
        let request = tokio_stream::once(LeaseKeepAliveRequest { id });
        let mut answers = self.lease.lease_keep_alive(request).await.unwrap().into_inner();
        answers.message().await.unwrap().unwrap().ttl
    }

    async fn time_to_live(&mut self, id: i64) -> LeaseTimeToLiveResponse {
        let request = LeaseTimeToLiveRequest { id, keys: true };
        self.lease.lease_time_to_live(request).await.unwrap().into_inner()
    }

    /// Deletions only: a stream that nobody reads for a while must not fill the connection.
    async fn watch_ends(&mut self, from: &'static str, to: &'static str) -> Streaming<WatchResponse> {
        let filters = vec![FilterType::Noput.into()];
        let create =
            WatchCreateRequest { key: from.into(), range_end: to.into(), filters, ..Default::default() };
        let request = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        let requests = tokio_stream::once(request).chain(tokio_stream::pending());
        let mut stream = self.watch.watch(requests).await.unwrap().into_inner();
        assert!(stream.message().await.unwrap().unwrap().created);
        stream
    }
}

/// 20,000 leases of one TTL with a key each, all renewed within a moment and then left alone. Those which the granting outlasts may
/// end before that moment, but each only after its own time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_thousand_leases_end_and_none_before_its_time() {
    const LEASES: i64 = 20_000;
    const TTL: i64 = 30;
    let server = Server::start();
    let mut client = Client::connect(&server).await;
    let mut ends = client.watch_ends("many/", "many0").await;

    let granting = Instant::now();
    let asked: Vec<(i64, Instant)> = stream::iter(1..=LEASES)
        .map(|id| {
            let mut client = client.clone();
            async move {
                let asked = Instant::now();
                client.grant(id, TTL).await;
                client.put(format!("many/{id}"), id).await;
                (id, asked)
            }
        })
        .buffer_unordered(64)
        .collect()
        .await;
    let mut since: BTreeMap<i64, Instant> = asked.into_iter().collect();
    eprintln!("{LEASES} leases of {TTL} s granted, with a key each, in {:?}", granting.elapsed());

    let renewed = renew_all(&mut client, &mut since, TTL).await;
    let last_renewal = Instant::now();
    eprintln!("{renewed} of them renewed in one burst");

    let mut earliest = Duration::MAX;
    let mut latest = last_renewal;
    while !since.is_empty() {
        let response = tokio::time::timeout(BOUND, ends.message()).await;
        let response =
            response.unwrap_or_else(|_| panic!("{} leases never ended", since.len())).unwrap().unwrap();
        let now = Instant::now();
        for event in response.events.iter().filter(|event| event.r#type() == EventType::Delete) {
            let key = std::str::from_utf8(&event.kv.as_ref().unwrap().key).unwrap();
            let id: i64 = key.strip_prefix("many/").unwrap().parse().unwrap();
            let since = since.remove(&id).unwrap_or_else(|| panic!("{key} was deleted twice"));
            let lived = now - since;
            assert!(lived >= Duration::from_secs(TTL as u64), "lease {id} of {TTL} s ended after {lived:?}");
            earliest = earliest.min(lived);
            latest = now;
        }
    }
    let late = (latest - last_renewal).saturating_sub(Duration::from_secs(TTL as u64));
    eprintln!(
        "the earliest ended {earliest:?} after its renewal was sent; the last {late:?} after the TTL of the last renewal"
    );
    let mut client = Client::connect(&server).await;
    assert_eq!(client.time_to_live(1).await.ttl, -1);
}

/// Sends a keepalive for every lease without waiting in between. Sets `since` to just before each one that was granted.
async fn renew_all(client: &mut Client, since: &mut BTreeMap<i64, Instant>, ttl: i64) -> usize {
    let (send, requests) = mpsc::unbounded_channel();
    let mut sent = BTreeMap::new();
    for id in since.keys() {
        sent.insert(*id, Instant::now());
        send.send(LeaseKeepAliveRequest { id: *id }).unwrap();
    }
    // Not before: etcd opens its side of the stream with the first answer.
    let mut answers =
        client.lease.lease_keep_alive(UnboundedReceiverStream::new(requests)).await.unwrap().into_inner();
    let mut renewed = 0;
    for _ in 0..sent.len() {
        let answer =
            tokio::time::timeout(BOUND, answers.message()).await.expect("an answer to each keepalive");
        let answer = answer.unwrap().unwrap();
        if answer.ttl > 0 {
            assert_eq!(answer.ttl, ttl);
            since.insert(answer.id, sent[&answer.id]);
            renewed += 1;
        }
    }
    renewed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_keepalive_gives_the_whole_time_again() {
    let server = Server::start();
    let mut client = Client::connect(&server).await;
    client.grant(1, 20).await;
    client.put("kept".to_owned(), 1).await;
    let told = client.time_to_live(1).await;
    assert_eq!((told.granted_ttl, told.keys.as_slice()), (20, ["kept".into()].as_slice()));
    // Until some of it has gone by.
    while client.time_to_live(1).await.ttl > 18 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(client.keep_alive(1).await, 20);
    assert!(client.time_to_live(1).await.ttl >= 19);
    assert_eq!(client.keep_alive(2).await, 0);
    assert_eq!(client.time_to_live(2).await.ttl, -1);
}

/// The time in which the server was down does not count, and nothing is forgotten: not the lease, its keys, or its end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_outlives_a_server_that_was_down_for_longer_than_its_ttl() {
    const TTL: u64 = 6;
    let mut server = Server::start();
    let mut client = Client::connect(&server).await;
    client.grant(1, TTL as i64).await;
    client.put("left".to_owned(), 1).await;
    client.grant(2, 1000).await;
    client.put("long".to_owned(), 2).await;
    client.grant(3, 1000).await;
    client.put("gone".to_owned(), 3).await;
    client.lease.lease_revoke(LeaseRevokeRequest { id: 3 }).await.unwrap();
    let killed = Instant::now();
    server.kill();
    // Not waiting for anything: this time is what the test is about.
    std::thread::sleep(Duration::from_secs(TTL + 1));
    let started = Instant::now();
    server.restart();

    let mut client = Client::connect(&server).await;
    assert!(
        client.has("left").await,
        "the lease ended while nobody counted ({:?} after the kill)",
        killed.elapsed()
    );
    assert_eq!(client.keep_alive(1).await, TTL as i64);
    let kept = Instant::now();
    let long = client.time_to_live(2).await;
    assert_eq!((long.granted_ttl, long.keys.as_slice()), (1000, ["long".into()].as_slice()));
    assert!(long.ttl > 0 && long.ttl <= 1000);
    assert_eq!(client.time_to_live(3).await.ttl, -1);
    assert!(!client.has("gone").await);

    // The answer came after the renewal, so what is left is at most the TTL from here, and at least that from the start.
    let bound = kept + BOUND;
    while client.has("left").await {
        assert!(Instant::now() < bound, "the lease never ended after the restart");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(
        started.elapsed() >= Duration::from_secs(TTL),
        "it ended {:?} after the restart began",
        started.elapsed()
    );
    assert_eq!(client.keep_alive(1).await, 0);
    server.kill();
    server.restart();
    let mut client = Client::connect(&server).await;
    assert_eq!(client.time_to_live(1).await.ttl, -1, "an ended lease came back");
    assert!(!client.has("left").await, "a key came back with its ended lease");
}

/// As a client with a lease does it: keep it alive, whatever happens to the server meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_that_is_kept_outlives_every_restart() {
    let mut server = Server::start();
    let mut client = Client::connect(&server).await;
    client.grant(1, 6).await;
    client.put("held".to_owned(), 1).await;
    for restart in 1..=3 {
        for _ in 0..20 {
            assert_eq!(client.keep_alive(1).await, 6, "before restart {restart}");
        }
        if restart == 2 {
            server.stop();
        } else {
            server.kill();
        }
        server.restart();
        client = Client::connect(&server).await;
        assert!(client.has("held").await, "after restart {restart}");
    }
    assert_eq!(client.keep_alive(1).await, 6);
}

/// The holder is gone, and then one leader after the other. What was left of its lease goes over to the next leader and from that to the
/// one after: it ends about an election after its time, where counting anew would take its time once for each of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_left_alone_ends_in_its_time_while_leaders_are_killed() {
    const TTL: i64 = 12;
    let mut cluster = Cluster::start(3);
    let first = cluster.leader().await;
    let mut client = Client::connect(&cluster.members[first]).await;
    let asked = Instant::now();
    client.grant(1, TTL).await;
    client.put("held".to_owned(), 1).await;
    let before = cluster.status(first).await.unwrap().raft_applied_index;
    // The next entry is the lease's checkpoint.
    for member in 0..3 {
        while cluster.status(member).await.is_none_or(|status| status.raft_applied_index <= before) {
            assert!(asked.elapsed() < BOUND, "what was left of the lease was not remembered");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    let mut leader = first;
    for _ in 0..2 {
        cluster.members[leader].kill();
        let next = cluster.leader_other_than(Some(leader)).await;
        cluster.members[leader].restart();
        cluster.caught_up(leader).await;
        leader = next;
    }
    let mut client = Client::connect(&cluster.members[leader]).await;
    while client.has("held").await {
        assert!(asked.elapsed() < BOUND, "the lease never ended");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let lived = asked.elapsed();
    assert!(lived >= Duration::from_secs(TTL as u64), "it ended after {lived:?}");
    eprintln!("a lease of {TTL} s that was left alone ended after {lived:?}, under its third leader");
}

/// Waits until all members know what the leader knows of leases' time.
async fn all_know(cluster: &Cluster) {
    let asked = Instant::now();
    for member in &cluster.members {
        while !get(member.launch.client_port, "/metrics").1.contains("\ntenure_lease_time_known 1\n") {
            assert!(asked.elapsed() < BOUND, "the leader teaches all members");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// The same while no leader counts for long enough to have anything remembered: what members were told of renewals is enough.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_left_alone_ends_in_its_time_though_leaders_are_killed_too_soon_to_remember_it() {
    const TTL: i64 = 15;
    /// One election timeout, the leader's grace, and much for a busy machine; far less than the TTL.
    const LATE_MAX: Duration = Duration::from_secs(7);
    let mut cluster = Cluster::start(3);
    all_know(&cluster).await;
    let follower = (cluster.leader().await + 1) % 3;
    let mut client = Client::connect(&cluster.members[follower]).await;
    client.grant(1, TTL).await;
    client.put("held".to_owned(), 1).await;
    let asked = Instant::now();
    assert_eq!(client.keep_alive(1).await, TTL);
    let mut led = asked;
    for _ in 0..3 {
        let leader = cluster.leader().await;
        cluster.members[leader].kill();
        cluster.leader_other_than(Some(leader)).await;
        led = Instant::now();
        cluster.members[leader].restart();
        all_know(&cluster).await;
    }
    let due = asked + Duration::from_secs(TTL as u64);
    let mut client = Client::connect(&cluster.members[follower]).await;
    while client.has("held").await {
        assert!(asked.elapsed() < BOUND, "the lease never ended");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let ended = Instant::now();
    assert!(ended >= due, "it ended early");
    eprintln!(
        "a lease of {TTL} s that was left alone ended after {:?}, under its fourth leader",
        ended - asked
    );
    assert!(ended <= due.max(led) + LATE_MAX, "a change of leader gave it more time");
}
