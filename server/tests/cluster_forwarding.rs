//! Three members, asked through those that do not lead: each answers like the leader, a leader's death costs a moment and no
//! acknowledged write, and without a quorum nothing is made up. How long an interruption lasts is printed, not asserted.

#![allow(clippy::unwrap_used)]

mod harness;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::StreamExt;
use harness::Cluster;
use tenure_grpc::etcdserverpb::{kv_client::KvClient, lease_client::LeaseClient, watch_client::WatchClient};
use tenure_proto::etcdserverpb::*;
use tenure_proto::mvccpb::KeyValue;
use tonic::transport::Channel;
use tonic::{Code, Request, Status, Streaming};

/// For anything that a living cluster does within a few elections.
const BOUND: Duration = Duration::from_secs(120);
const TTL_S: i64 = 20;

/// One member's client, with the few calls that these tests make.
#[derive(Clone)]
struct Client {
    kv: KvClient<Channel>,
    lease: LeaseClient<Channel>,
    watch: WatchClient<Channel>,
}

impl Client {
    async fn connect(cluster: &Cluster, member: usize) -> Client {
        let endpoint = cluster.members[member].endpoint();
        let channel = Channel::from_shared(endpoint).unwrap().connect().await.unwrap();
        Client {
            kv: KvClient::new(channel.clone()),
            lease: LeaseClient::new(channel.clone()),
            watch: WatchClient::new(channel),
        }
    }

    async fn put(&mut self, key: &str, lease: i64) -> Result<i64, Status> {
        let request = PutRequest { key: key.to_owned().into(), lease, ..Default::default() };
        let response = self.kv.put(request).await?.into_inner();
        Ok(response.header.unwrap().revision)
    }

    async fn get(&mut self, key: &str, serializable: bool) -> Result<(Option<KeyValue>, i64), Status> {
        let request = RangeRequest { key: key.to_owned().into(), serializable, ..Default::default() };
        let mut response = self.kv.range(request).await?.into_inner();
        Ok((response.kvs.pop(), response.header.unwrap().revision))
    }

    async fn all(&mut self) -> Vec<KeyValue> {
        let request = RangeRequest { key: "\0".into(), range_end: "\0".into(), ..Default::default() };
        self.kv.range(request).await.unwrap().into_inner().kvs
    }

    async fn grant(&mut self) -> i64 {
        self.lease.lease_grant(LeaseGrantRequest { ttl: TTL_S, id: 0 }).await.unwrap().into_inner().id
    }

    async fn keep_alive(&mut self, id: i64) -> Result<i64, Status> {
        let request = tokio_stream::once(LeaseKeepAliveRequest { id });
        let mut answers = self.lease.lease_keep_alive(request).await?.into_inner();
        Ok(answers.message().await?.unwrap().ttl)
    }

    async fn time_to_live(&mut self, id: i64) -> LeaseTimeToLiveResponse {
        self.lease.lease_time_to_live(LeaseTimeToLiveRequest { id, keys: true }).await.unwrap().into_inner()
    }

    /// A watch of everything; with `led` it demands a leader.
    async fn watch(&mut self, led: bool) -> Result<Streaming<WatchResponse>, Status> {
        let create =
            WatchCreateRequest { key: "\0".into(), range_end: "\0".into(), ..WatchCreateRequest::default() };
        let request =
            WatchRequest { request_union: Some(watch_request::RequestUnion::CreateRequest(create)) };
        let mut requests = Request::new(tokio_stream::once(request).chain(tokio_stream::pending()));
        if led {
            requests.metadata_mut().insert("hasleader", "true".parse().unwrap());
        }
        let mut stream = self.watch.watch(requests).await?.into_inner();
        assert!(stream.message().await?.unwrap().created);
        Ok(stream)
    }
}

async fn clients(cluster: &Cluster) -> Vec<Client> {
    let mut clients = Vec::new();
    for member in 0..cluster.members.len() {
        clients.push(Client::connect(cluster, member).await);
    }
    clients
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_member_answers_like_the_leader() {
    let cluster = Cluster::start(3);
    let mut clients = clients(&cluster).await;
    let mut watches = Vec::new();
    for client in &mut clients {
        watches.push(client.watch(true).await.unwrap());
    }
    let mut revision = 1;
    for round in 0..30 {
        let (writer, reader) = (round % 3, (round / 3) % 3);
        let key = format!("key{round:02}");
        let written = clients[writer].put(&key, 0).await.unwrap();
        assert_eq!(written, revision + 1);
        revision = written;
        let (found, at) = clients[reader].get(&key, false).await.unwrap();
        assert_eq!(found.map(|kv| kv.mod_revision), Some(revision), "read on {reader}, written on {writer}");
        assert_eq!(at, revision);
    }
    for watch in &mut watches {
        let mut seen = Vec::new();
        while seen.len() < 30 {
            let events = watch.message().await.unwrap().unwrap().events;
            seen.extend(events.into_iter().map(|event| event.kv.unwrap().mod_revision));
        }
        assert_eq!(seen, (2..=revision).collect::<Vec<_>>());
    }
    for client in &mut clients {
        let refused = client.put("key", 4_711).await.unwrap_err();
        assert_eq!(
            (refused.code(), refused.message()),
            (Code::NotFound, "etcdserver: requested lease not found")
        );
        let txn = TxnRequest {
            compare: vec![Compare {
                key: "key29".into(),
                target_union: Some(compare::TargetUnion::Version(1)),
                ..Compare::default()
            }],
            success: vec![RequestOp {
                request: Some(request_op::Request::RequestPut(PutRequest {
                    key: "txn".into(),
                    ..PutRequest::default()
                })),
            }],
            ..TxnRequest::default()
        };
        assert!(client.kv.txn(txn).await.unwrap().into_inner().succeeded);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_is_the_same_to_whichever_member_is_asked() {
    let cluster = Cluster::start(3);
    let mut clients = clients(&cluster).await;
    for round in 0..3 {
        let [a, b, c] = [round, (round + 1) % 3, (round + 2) % 3];
        let id = clients[a].grant().await;
        assert_eq!(clients[b].keep_alive(id).await.unwrap(), TTL_S);
        clients[c].put("leased", id).await.unwrap();
        for client in &mut clients {
            let left = client.time_to_live(id).await;
            assert_eq!((left.granted_ttl, left.keys.len()), (TTL_S, 1));
            assert!((0..=TTL_S).contains(&left.ttl));
            let listed = client.lease.lease_leases(LeaseLeasesRequest {}).await.unwrap().into_inner();
            assert_eq!(listed.leases.iter().map(|lease| lease.id).collect::<Vec<_>>(), [id]);
        }
        clients[b].lease.lease_revoke(LeaseRevokeRequest { id }).await.unwrap();
        assert_eq!(clients[a].get("leased", false).await.unwrap().0, None);
        for client in &mut clients {
            assert_eq!(client.keep_alive(id).await.unwrap(), 0);
            assert_eq!(client.time_to_live(id).await.ttl, -1);
        }
    }
}

/// What one writer was told.
#[derive(Default)]
struct Told {
    acknowledged: Vec<String>,
    failed: usize,
    longest: Duration,
}

async fn write(mut client: Client, name: String, enough: Arc<AtomicBool>, count: Arc<AtomicU64>) -> Told {
    let mut told = Told::default();
    for number in 0.. {
        if enough.load(Ordering::SeqCst) {
            break;
        }
        let key = format!("{name}/{number:06}");
        let asked = Instant::now();
        match client.put(&key, 0).await {
            Ok(_) => {
                told.acknowledged.push(key);
                count.fetch_add(1, Ordering::SeqCst);
            }
            Err(status) => {
                assert_eq!(status.code(), Code::Unavailable, "{status}");
                told.failed += 1;
            }
        }
        told.longest = told.longest.max(asked.elapsed());
    }
    told
}

async fn renew(mut client: Client, id: i64, enough: Arc<AtomicBool>) {
    while !enough.load(Ordering::SeqCst) {
        assert_eq!(client.keep_alive(id).await.unwrap(), TTL_S, "the lease was renewed all along");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn reaches(count: &AtomicU64, goal: u64) {
    let reached = async {
        while count.load(Ordering::SeqCst) < goal {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(BOUND, reached).await.expect("writes go on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leaders_death_under_load_costs_no_acknowledged_write_and_no_lease() {
    let mut cluster = Cluster::start(3);
    let leader = cluster.leader().await;
    let survivors: Vec<usize> = (0..3).filter(|member| *member != leader).collect();
    let (enough, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let (mut writers, mut renewals) = (Vec::new(), Vec::new());
    for &member in &survivors {
        let mut client = Client::connect(&cluster, member).await;
        let id = client.grant().await;
        renewals.push(tokio::spawn(renew(client.clone(), id, enough.clone())));
        for writer in 0..8 {
            let name = format!("{member}/{writer}");
            writers.push(tokio::spawn(write(client.clone(), name, enough.clone(), count.clone())));
        }
    }
    reaches(&count, 200).await;
    cluster.members[leader].kill();
    let before = count.load(Ordering::SeqCst);
    reaches(&count, before + 400).await;
    enough.store(true, Ordering::SeqCst);

    let mut acknowledged = Vec::new();
    for writer in writers {
        let told = writer.await.unwrap();
        eprintln!(
            "{} acknowledged, {} unknown, longest {:?}",
            told.acknowledged.len(),
            told.failed,
            told.longest
        );
        acknowledged.extend(told.acknowledged);
    }
    for renewal in renewals {
        renewal.await.unwrap();
    }
    for &member in &survivors {
        let kvs = Client::connect(&cluster, member).await.all().await;
        let missing = acknowledged
            .iter()
            .filter(|key| kvs.binary_search_by(|kv| kv.key.as_ref().cmp(key.as_bytes())).is_err());
        assert_eq!(missing.collect::<Vec<_>>(), Vec::<&String>::new());
        // What was sent to the dead leader and again to its successor was still written once.
        assert!(kvs.iter().all(|kv| kv.version == 1));
    }
}

/// What must be refused, and what must not, by a member that is left alone.
async fn alone(client: &mut Client, watch: &mut Streaming<WatchResponse>) {
    let began = Instant::now();
    let mut other = client.clone();
    let (put, get) = tokio::join!(client.put("alone", 0), other.get("before", false));
    for status in [put.unwrap_err(), get.unwrap_err()] {
        assert_eq!(status.code(), Code::Unavailable);
        assert!(status.message().starts_with("etcdserver: request timed out"), "{status}");
    }
    eprintln!("refused after {:?}", began.elapsed());
    let (found, _) = client.get("before", true).await.unwrap();
    assert!(found.is_some(), "a serializable read asks nobody");
    let ended = loop {
        if let Err(status) = watch.message().await {
            break status;
        }
    };
    assert_eq!((ended.code(), ended.message()), (Code::Unavailable, "etcdserver: no leader"));
    let refused = client.watch(true).await.unwrap_err();
    assert_eq!((refused.code(), refused.message()), (Code::Unavailable, "etcdserver: no leader"));
    client.watch(false).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_quorum_nothing_is_made_up_and_with_one_all_goes_on() {
    let mut cluster = Cluster::start(3);
    let leader = cluster.leader().await;
    // Once the member that is left leads, once it follows.
    for left in [leader, (leader + 1) % 3] {
        let mut client = Client::connect(&cluster, left).await;
        client.put("before", 0).await.unwrap();
        let id = client.grant().await;
        let mut watch = client.watch(true).await.unwrap();
        let others: Vec<usize> = (0..3).filter(|member| *member != left).collect();
        others.iter().for_each(|member| cluster.members[*member].kill());
        alone(&mut client, &mut watch).await;
        others.iter().for_each(|member| cluster.members[*member].begin());
        others.iter().for_each(|member| cluster.members[*member].wait_until_ready());
        let revision = client.put("after", 0).await.unwrap();
        assert!(client.keep_alive(id).await.unwrap() == TTL_S, "its holder had time to come back");
        for member in others {
            let mut other = Client::connect(&cluster, member).await;
            let (found, at) = other.get("after", false).await.unwrap();
            assert_eq!((found.unwrap().mod_revision, at), (revision, revision));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_returns_serves_only_what_is_not_older_than_what_it_said() {
    let mut cluster = Cluster::start(3);
    let leader = cluster.leader().await;
    let (returning, other) = ((leader + 1) % 3, (leader + 2) % 3);
    let mut client = Client::connect(&cluster, other).await;
    for round in 0..3 {
        cluster.members[returning].kill();
        let mut revision = 0;
        for number in 0..50 {
            revision = client.put(&format!("{round}/{number}"), 0).await.unwrap();
        }
        cluster.members[returning].restart();
        let mut returned = Client::connect(&cluster, returning).await;
        let (_, at) = returned.get("anything", true).await.unwrap();
        assert!(at >= revision, "{at} < {revision}");
    }
}
