//! The registry over gRPC, by processes: one instance's life on one member, and three members that lose their leader and then their
//! quorum.

#![allow(clippy::unwrap_used)]

mod harness;

use std::collections::BTreeMap;
use std::time::Duration;

use harness::{Cluster, Server};
use tenure_grpc::etcdserverpb::kv_client::KvClient;
use tenure_grpc::etcdserverpb::maintenance_client::MaintenanceClient;
use tenure_grpc::tenure_v1::registry_client::RegistryClient;
use tenure_proto::etcdserverpb::{CompactionRequest, PutRequest, RangeRequest, StatusRequest};
use tenure_proto::tenure::v1::set_instance_request::Change;
use tenure_proto::tenure::v1::watch_instances_response::Event;
use tenure_proto::tenure::v1::watch_instances_response::removal::Reason;
use tenure_proto::tenure::v1::*;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Streaming};

/// For anything that happens by itself, but for what has to wait for a TTL.
const BOUND: Duration = Duration::from_secs(60);
const SERVICE: &str = "web";

fn client(endpoint: String) -> RegistryClient<Channel> {
    let endpoint = Endpoint::from_shared(endpoint).unwrap().timeout(Duration::from_secs(10));
    RegistryClient::new(endpoint.connect_lazy())
}

fn registration(id: &str, ttl_s: i64) -> Registration {
    Registration { service: SERVICE.into(), id: id.into(), incarnation: 1, ttl_s, ..Default::default() }
}

async fn register(client: &mut RegistryClient<Channel>, registration: Registration) -> RegisterResponse {
    let request = RegisterRequest { registration: Some(registration), ..Default::default() };
    client.register(request).await.unwrap().into_inner()
}

fn heartbeats(ids: &[&str]) -> HeartbeatRequest {
    let beat = |id: &&str| Heartbeat {
        service: SERVICE.into(),
        id: (*id).to_owned(),
        incarnation: 1,
        ..Default::default()
    };
    HeartbeatRequest { heartbeats: ids.iter().map(beat).collect() }
}

fn of_service() -> Option<ServiceRange> {
    Some(ServiceRange { which: Some(service_range::Which::Service(SERVICE.into())) })
}

async fn lookup(client: &mut RegistryClient<Channel>, routable: bool) -> Vec<String> {
    let selector = Some(InstanceSelector { routable, ..Default::default() });
    let request = LookupRequest { services: of_service(), selector, ..Default::default() };
    ids(&client.lookup(request).await.unwrap().into_inner().instances)
}

fn ids(instances: &[Instance]) -> Vec<String> {
    instances.iter().map(|instance| instance.registration.as_ref().unwrap().id.clone()).collect()
}

/// What a consumer holds who follows the service.
struct Mirror {
    stream: Streaming<WatchInstancesResponse>,
    instances: BTreeMap<String, Instance>,
    removals: Vec<(String, Reason)>,
    revision: i64,
}

impl Mirror {
    async fn open(mut client: RegistryClient<Channel>, after_revision: i64) -> Mirror {
        let request = WatchInstancesRequest { services: of_service(), after_revision, ..Default::default() };
        let stream = client.watch(request).await.unwrap().into_inner();
        Mirror { stream, instances: BTreeMap::new(), removals: Vec::new(), revision: after_revision }
    }

    /// Takes in what comes until it is as wanted.
    async fn until(&mut self, what: &str, wanted: impl Fn(&Mirror) -> bool) {
        let met = async {
            while !wanted(self) {
                let told = self.stream.message().await.unwrap().expect("the stream goes on");
                self.take(told.event.unwrap());
            }
        };
        let in_time = tokio::time::timeout(BOUND, met).await;
        assert!(in_time.is_ok(), "{what}: {:?} {:?}", self.instances, self.removals);
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::SnapshotPart(part) => self.upsert(part.instances),
            Event::SnapshotEnd(end) => self.revision = end.revision,
            Event::Bookmark(bookmark) => {
                assert!(bookmark.revision >= self.revision);
                self.revision = bookmark.revision;
            }
            Event::Reset(_) => self.instances.clear(),
            Event::Delta(delta) => {
                assert!(delta.revision > self.revision);
                self.revision = delta.revision;
                self.upsert(delta.upserts);
                for removal in delta.removals {
                    self.instances.remove(&removal.id).unwrap();
                    let reason = removal.reason();
                    self.removals.push((removal.id, reason));
                }
            }
        }
    }

    fn upsert(&mut self, instances: Vec<Instance>) {
        for instance in instances {
            let id = instance.registration.as_ref().unwrap().id.clone();
            self.instances.insert(id, instance);
        }
    }

    fn health(&self, id: &str) -> Option<Health> {
        self.instances.get(id).map(Instance::health)
    }
}

#[tokio::test]
async fn an_instance_lives_drains_falls_silent_and_is_removed() {
    let server = Server::start();
    let mut client = client(server.endpoint());
    let policy = ServicePolicy { deregister_after_s: 3, min_available: 1, ..Default::default() };
    let request =
        SetServicePolicyRequest { service: SERVICE.into(), policy: Some(policy), ..Default::default() };
    client.set_service_policy(request).await.unwrap();
    let mut mirror = Mirror::open(client.clone(), 0).await;

    for id in ["1", "2"] {
        let reply = register(&mut client, registration(id, 600)).await;
        assert_eq!((reply.outcome(), reply.ttl_s), (register_response::Outcome::Registered, 600));
        assert!(reply.header.unwrap().member_id != 0);
    }
    mirror.until("both are there", |mirror| mirror.instances.len() == 2).await;

    // Drained, and back by itself.
    let drain = Drain { deadline_s: 2, end: drain::End::Return.into(), ..Default::default() };
    let request = SetInstanceRequest {
        service: SERVICE.into(),
        id: "2".into(),
        change: Some(Change::Drain(drain)),
        ..Default::default()
    };
    let set = client.set_instance(request.clone()).await.unwrap().into_inner();
    assert_eq!(set.outcome(), set_instance_response::Outcome::Set);
    let other = SetInstanceRequest { id: "1".into(), ..request };
    let refused = client.set_instance(other).await.unwrap().into_inner();
    assert_eq!(refused.outcome(), set_instance_response::Outcome::MinAvailable);
    mirror.until("it drains", |mirror| !mirror.instances["2"].routable).await;
    mirror.until("it is back", |mirror| mirror.instances["2"].routable).await;

    // The first says that it must be heard of more often, and is not: lost, then removed.
    let update = Registration { sequence: 1, ..registration("1", 3) };
    assert_eq!(register(&mut client, update).await.outcome(), register_response::Outcome::Registered);
    mirror.until("it is lost", |mirror| mirror.health("1") == Some(Health::Lost)).await;
    assert_eq!(lookup(&mut client, true).await, ["2"]);
    mirror.until("it is removed", |mirror| mirror.health("1").is_none()).await;
    let gone =
        client.deregister(DeregisterRequest { service: SERVICE.into(), id: "2".into(), incarnation: 1 });
    assert_eq!(gone.await.unwrap().into_inner().outcome(), deregister_response::Outcome::Deregistered);
    mirror.until("nothing is left", |mirror| mirror.instances.is_empty()).await;
    assert_eq!(mirror.removals, [("1".to_owned(), Reason::Expired), ("2".to_owned(), Reason::Deregistered)]);
}

#[tokio::test]
async fn many_heartbeats_a_message_cost_no_log_entries() {
    let server = Server::start();
    let mut client = client(server.endpoint());
    let names: Vec<String> = (0..200).map(|number| number.to_string()).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    for name in &names {
        register(&mut client, registration(name, 600)).await;
    }
    let index = async || {
        let mut status = MaintenanceClient::connect(server.endpoint()).await.unwrap();
        status.status(StatusRequest {}).await.unwrap().into_inner().raft_index
    };
    let before = index().await;
    let (send, receive) = tokio::sync::mpsc::channel(4);
    let requests = tokio_stream::wrappers::ReceiverStream::new(receive);
    send.send(heartbeats(&names)).await.unwrap();
    let mut answers = client.heartbeat(requests).await.unwrap().into_inner();
    for _ in 0..50 {
        let answer = answers.message().await.unwrap().unwrap();
        let alive = |result: &HeartbeatResult| {
            (result.outcome(), result.ttl_s) == (heartbeat_result::Outcome::Alive, 600)
        };
        assert!(answer.results.len() == 200 && answer.results.iter().all(alive));
        send.send(heartbeats(&names)).await.unwrap();
    }
    let grown = index().await - before;
    assert!(grown < 5, "10,000 heartbeats made {grown} log entries");

    let unknown = client.beat(heartbeats(&["nobody"])).await.unwrap().into_inner();
    assert_eq!(unknown.results[0].outcome(), heartbeat_result::Outcome::NotRegistered);
    let nonsense = client.beat(heartbeats(&[""])).await.unwrap_err();
    assert_eq!(nonsense.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_follower_resumes_or_is_told_all_anew() {
    let server = Server::start();
    let mut client = client(server.endpoint());
    register(&mut client, registration("1", 600)).await;
    let mut mirror = Mirror::open(client.clone(), 0).await;
    mirror.until("the snapshot", |mirror| mirror.revision > 0 && mirror.instances.len() == 1).await;
    let (revision, known) = (mirror.revision, mirror.instances.clone());
    drop(mirror);
    let last = register(&mut client, registration("2", 600)).await;
    let mut resumed = Mirror::open(client.clone(), revision).await;
    resumed.instances = known;
    resumed.until("what was missed", |mirror| mirror.instances.len() == 2).await;

    let mut kv = KvClient::connect(server.endpoint()).await.unwrap();
    let at = last.header.unwrap().revision;
    kv.compact(CompactionRequest { revision: at, physical: true }).await.unwrap();
    let mut late = Mirror::open(client, revision).await;
    late.revision = 0;
    late.until("all anew", |mirror| mirror.revision >= at).await;
    assert_eq!(late.instances, resumed.instances);
}

#[tokio::test]
async fn a_follower_of_a_quiet_service_is_told_how_far_it_is() {
    let server = Server::start();
    let mut client = client(server.endpoint());
    register(&mut client, registration("1", 600)).await;
    let mut mirror = Mirror::open(client, 0).await;
    mirror.until("the snapshot", |mirror| mirror.revision > 0).await;
    let mut kv = KvClient::connect(server.endpoint()).await.unwrap();
    let put = PutRequest { key: "elsewhere".into(), ..Default::default() };
    let revision = kv.put(put).await.unwrap().into_inner().header.unwrap().revision;
    mirror.until("a bookmark behind the put", |mirror| mirror.revision >= revision).await;
    assert_eq!(mirror.instances.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instances_outlive_their_leader() {
    const TTL_S: i64 = 10;
    let mut cluster = Cluster::start(3);
    let leader = cluster.leader().await;
    let survivor = (leader + 1) % 3;
    let mut client = client(cluster.members[survivor].endpoint());
    let names: Vec<String> = (0..50).map(|number| number.to_string()).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    futures::future::join_all(names.iter().map(|name| {
        let mut client = client.clone();
        async move { register(&mut client, registration(name, TTL_S)).await }
    }))
    .await;
    let mut mirror = Mirror::open(client.clone(), 0).await;
    mirror.until("all are there", |mirror| mirror.instances.len() == 50).await;

    let beaten = std::time::Instant::now();
    client.beat(heartbeats(&names)).await.unwrap();
    cluster.members[leader].kill();
    let next = cluster.leader_other_than(Some(leader)).await;
    // Nobody beats any more: none is stale before its TTL is over, whoever led, and as all are at once, none is lost.
    mirror.until("one is stale", |mirror| mirror.instances.values().any(|one| one.stale)).await;
    assert!(
        beaten.elapsed() >= Duration::from_secs(TTL_S as u64),
        "stale {:?} after its heartbeat",
        beaten.elapsed()
    );
    mirror
        .until("all are stale", |mirror| mirror.instances.values().filter(|one| one.stale).count() == 50)
        .await;
    assert_eq!(lookup(&mut client, true).await.len(), 50, "leader is {next}");

    // Whoever is heard of is well again.
    let results = client.beat(heartbeats(&names)).await.unwrap().into_inner().results;
    assert!(results.iter().all(|result| result.outcome() == heartbeat_result::Outcome::Alive));
    mirror.until("all are well", |mirror| mirror.instances.values().all(|one| !one.stale)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_alone_still_answers_lookups() {
    let mut cluster = Cluster::start(3);
    let mut client = client(cluster.members[0].endpoint());
    register(&mut client, registration("1", 600)).await;
    cluster.members[1].kill();
    cluster.members[2].kill();
    let request = LookupRequest { services: of_service(), serializable: true, ..Default::default() };
    let reply = client.lookup(request).await.unwrap().into_inner();
    assert_eq!(ids(&reply.instances), ["1"]);
    // And who asks for the newest is not told that there is nothing.
    let newest = LookupRequest { services: of_service(), ..Default::default() };
    assert!(matches!(
        client.lookup(newest).await.unwrap_err().code(),
        Code::Unavailable | Code::Cancelled | Code::DeadlineExceeded
    ));
}

/// Keys and values below a prefix, at any member.
async fn below(endpoint: String, prefix: &str) -> Vec<(String, String)> {
    let (key, mut range_end) = (prefix.as_bytes().to_vec(), prefix.as_bytes().to_vec());
    *range_end.last_mut().unwrap() += 1;
    let request = RangeRequest { key: key.into(), range_end: range_end.into(), ..Default::default() };
    let mut kv = KvClient::new(Endpoint::from_shared(endpoint).unwrap().connect_lazy());
    let kvs = kv.range(request).await.unwrap().into_inner().kvs;
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    kvs.iter().map(|kv| (text(&kv.key), text(&kv.value))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_readers_keys_follow_the_instances_at_every_member_and_through_a_leaders_death() {
    let mut cluster = Cluster::start(3);
    let leader = cluster.leader().await;
    let (one, two) = ((leader + 1) % 3, (leader + 2) % 3);
    let endpoint = |member: usize| cluster.members[member].endpoint();
    let (mut at_one, mut at_two) = (client(endpoint(one)), client(endpoint(two)));
    let (read_at_one, read_at_two) = (endpoint(one), endpoint(two));
    let with_endpoint = |id: &str, ttl_s| Registration {
        endpoints: vec![tenure_proto::tenure::v1::Endpoint {
            host: format!("10.0.0.{id}"),
            port: 80,
            ..Default::default()
        }],
        ..registration(id, ttl_s)
    };
    // Who was there before the projections is shown as well.
    register(&mut at_one, with_endpoint("1", 600)).await;
    let naming = projection::Naming { target: "services/web".into() };
    let skydns = projection::SkyDns { domain: "web.services.local".into(), ..Default::default() };
    let into = [projection::Into::Naming(naming), projection::Into::Skydns(skydns)];
    let projections = into.map(|into| Projection { into: Some(into), endpoint: String::new() }).to_vec();
    let policy = ServicePolicy { projections, ..Default::default() };
    let request =
        SetServicePolicyRequest { service: SERVICE.into(), policy: Some(policy), ..Default::default() };
    at_two.set_service_policy(request.clone()).await.unwrap();
    register(&mut at_two, with_endpoint("2", 600)).await;
    register(&mut at_two, with_endpoint("3", 3)).await;
    let naming = below(read_at_two.clone(), "services/").await;
    let address = |id: &str| (format!("services/web/{id}"), format!(r#"{{"Op":0,"Addr":"10.0.0.{id}:80"}}"#));
    assert_eq!(naming, ["1", "2", "3"].map(address));
    let skydns = below(read_at_one.clone(), "/skydns/").await;
    let first = r#"{"host":"10.0.0.1","port":80,"weight":100,"ttl":30}"#;
    assert_eq!(skydns[0], ("/skydns/local/services/web/1".to_owned(), first.to_owned()));
    assert_eq!(skydns.len(), 3);

    // Another service may not be shown there.
    let clash = SetServicePolicyRequest { service: "other".into(), ..request };
    let refused = at_one.set_service_policy(clash).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");

    // Out by an operator's word; and silent while the leader dies, lost under the next.
    let maintenance = SetInstanceRequest {
        service: SERVICE.into(),
        id: "2".into(),
        change: Some(Change::Maintenance(true)),
        ..Default::default()
    };
    at_one.set_instance(maintenance).await.unwrap();
    assert_eq!(below(read_at_two.clone(), "services/web/2").await, []);
    cluster.members[leader].kill();
    cluster.leader_other_than(Some(leader)).await;
    let mut mirror = Mirror::open(at_one.clone(), 0).await;
    mirror.until("the third is lost", |mirror| mirror.health("3") == Some(Health::Lost)).await;
    assert_eq!(below(read_at_one.clone(), "services/").await, [address("1")]);
    assert_eq!(below(read_at_two, "/skydns/").await.len(), 1);
    assert_eq!(lookup(&mut at_two, true).await, ["1"]);
    let gone =
        at_two.deregister(DeregisterRequest { service: SERVICE.into(), id: "1".into(), incarnation: 0 });
    gone.await.unwrap();
    assert_eq!(below(read_at_one, "services/").await, []);
}
