//! `tenure.v1.Locks` on whole servers: what holds of the recipe in memory holds over the wire, for callers who go away, sessions that
//! end while nobody calls, and members that die.

#![allow(clippy::unwrap_used)]

mod harness;

use std::time::Duration;

use harness::{Cluster, Server};
use tenure_grpc::etcdserverpb::kv_client::KvClient;
use tenure_grpc::etcdserverpb::lease_client::LeaseClient;
use tenure_grpc::tenure_v1::locks_client::LocksClient;
use tenure_proto::etcdserverpb::{LeaseGrantRequest, LeaseRevokeRequest, PutRequest, RangeRequest};
use tenure_proto::tenure::v1::acquire_lock_response::Outcome;
use tenure_proto::tenure::v1::lock_event::{End, Event};
use tenure_proto::tenure::v1::release_lock_response::Outcome as Released;
use tenure_proto::tenure::v1::*;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt;

const BOUND: Duration = Duration::from_secs(60);

#[derive(Clone)]
struct Client {
    locks: LocksClient<Channel>,
    kv: KvClient<Channel>,
    lease: LeaseClient<Channel>,
}

fn exclusive(name: &str, session_id: i64, owner_id: &str) -> AcquireLockRequest {
    let spec = LockSpec { name: name.into(), ..LockSpec::default() };
    AcquireLockRequest { locks: vec![spec], session_id, owner_id: owner_id.into(), ..Default::default() }
}

impl Client {
    async fn connect(server: &Server) -> Client {
        let channel = Channel::from_shared(server.endpoint()).unwrap().connect().await.unwrap();
        let (locks, kv) = (LocksClient::new(channel.clone()), KvClient::new(channel.clone()));
        Client { locks, kv, lease: LeaseClient::new(channel) }
    }

    async fn session(&mut self, id: i64) {
        let request = LeaseGrantRequest { id, ttl: 60 };
        self.lease.lease_grant(request).await.unwrap();
    }

    async fn acquire(&mut self, request: AcquireLockRequest) -> Result<AcquireLockResponse, Status> {
        Ok(self.locks.acquire(request).await?.into_inner())
    }

    async fn hold(&mut self, request: AcquireLockRequest) -> LockGrant {
        let answer = self.acquire(request).await.unwrap();
        assert_eq!(answer.outcome(), Outcome::Granted);
        answer.grants[0].clone()
    }

    fn acquiring(&self, request: AcquireLockRequest) -> tokio::task::JoinHandle<LockGrant> {
        let mut client = self.clone();
        tokio::spawn(async move { client.hold(request).await })
    }

    async fn release(&mut self, name: &str, token: i64) -> Released {
        let request = ReleaseLockRequest { name: name.into(), token, ..Default::default() };
        self.locks.release(request).await.unwrap().into_inner().outcome()
    }

    async fn inspect(&mut self, name: &str) -> InspectLockResponse {
        let request = InspectLockRequest { name: name.into(), limit: 0 };
        self.locks.inspect(request).await.unwrap().into_inner()
    }

    async fn until_waiting(&mut self, name: &str, count: i64) {
        let waiting = async {
            while self.inspect(name).await.lock.unwrap().waiter_count != count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(BOUND, waiting).await.expect("the queue has another length");
    }
}

#[tokio::test]
async fn a_lock_goes_from_one_to_the_next_and_its_guard_with_it() {
    let server = Server::start();
    let mut client = Client::connect(&server).await;
    client.session(1).await;
    let first = client.hold(exclusive("jobs/nightly", 1, "a")).await;
    let again = client.hold(exclusive("jobs/nightly", 1, "a")).await;
    assert_eq!(first, again, "asked again, the same");
    let waiting = client.acquiring(exclusive("jobs/nightly", 1, "b"));
    client.until_waiting("jobs/nightly", 1).await;
    let put = |guard: &Guard| {
        let mut request = Request::new(PutRequest { key: "set".into(), ..PutRequest::default() });
        request.metadata_mut().insert("tenure-guard", guard.text.parse().unwrap());
        let mut kv = client.kv.clone();
        async move { kv.put(request).await }
    };
    let guard = first.guard.clone().unwrap();
    put(&guard).await.unwrap();
    let late = put(&guard);
    assert_eq!(client.release("jobs/nightly", first.token).await, Released::Released);
    let second = tokio::time::timeout(BOUND, waiting).await.unwrap().unwrap();
    assert!(second.token > first.token);
    assert_eq!(late.await.unwrap_err().code(), Code::FailedPrecondition);
    assert_eq!(client.release("jobs/nightly", first.token).await, Released::NotCurrent);
    assert_eq!(client.release("jobs/nightly", second.token).await, Released::Released);
}

#[tokio::test]
async fn who_does_not_wait_or_not_long_is_told_who_is_in_the_way() {
    let server = Server::start();
    let mut client = Client::connect(&server).await;
    client.session(1).await;
    let held = client.hold(exclusive("x", 1, "a")).await;
    for (wait_ms, keep_place, outcome) in
        [(0, false, Outcome::Busy), (20, false, Outcome::TimedOut), (20, true, Outcome::Queued)]
    {
        let request = AcquireLockRequest { wait_ms: Some(wait_ms), keep_place, ..exclusive("x", 1, "b") };
        let answer = client.acquire(request).await.unwrap();
        assert_eq!(answer.outcome(), outcome);
        assert_eq!(answer.obstacle.unwrap().holders[0].token, held.token);
        let waiting = i64::from(keep_place);
        assert_eq!(client.inspect("x").await.lock.unwrap().waiter_count, waiting);
    }
    let gone = client.acquire(exclusive("x", 77, "c")).await.unwrap_err();
    let details = gone.get_error_details();
    assert_eq!((gone.code(), &*details.error_info().unwrap().reason), (Code::NotFound, "SESSION_GONE"));
}

#[tokio::test]
async fn a_caller_who_goes_away_leaves_no_place_behind() {
    let server = Server::start();
    let mut client = Client::connect(&server).await;
    client.session(1).await;
    let held = client.hold(exclusive("x", 1, "a")).await;
    let waiting = client.acquiring(exclusive("x", 1, "b"));
    client.until_waiting("x", 1).await;
    waiting.abort();
    client.until_waiting("x", 0).await;
    client.release("x", held.token).await;
    assert_eq!(client.inspect("x").await.lock.unwrap().holder_count, 0);
    let left = RangeRequest {
        key: "/_tenure/lock/".into(),
        range_end: "/_tenure/lock0".into(),
        ..Default::default()
    };
    assert_eq!(client.kv.range(left).await.unwrap().into_inner().count, 0);
}

#[tokio::test]
async fn the_next_is_granted_the_lock_of_a_lost_holder_though_nobody_calls() {
    let server = Server::start();
    let mut client = Client::connect(&server).await;
    client.session(1).await;
    client.session(2).await;
    client.hold(exclusive("x", 1, "a")).await;
    let keep = AcquireLockRequest { wait_ms: Some(1), keep_place: true, ..exclusive("x", 2, "b") };
    assert_eq!(client.acquire(keep).await.unwrap().outcome(), Outcome::Queued);
    let followed = FollowLockRequest { name: "x".into(), session_id: 1, owner_id: "a".into() };
    let mut events = client.locks.follow(followed).await.unwrap().into_inner();
    assert!(matches!(events.message().await.unwrap().unwrap().event, Some(Event::Granted(_))));
    client.lease.lease_revoke(LeaseRevokeRequest { id: 1 }).await.unwrap();
    match events.message().await.unwrap().unwrap().event {
        Some(Event::Ended(ended)) => assert_eq!(ended.how(), End::Expired),
        other => panic!("{other:?}"),
    }
    assert!(events.message().await.unwrap().is_none());
    let granted = async {
        loop {
            let inspected = client.inspect("x").await;
            if inspected.holders.iter().any(|holder| holder.session_id == 2) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(BOUND, granted).await.expect("nobody looked after the lock");
}

#[tokio::test]
async fn storage_services_and_screens_are_told_of_every_change() {
    let server = Server::start();
    let mut client = Client::connect(&server).await;
    client.session(1).await;
    let watch = WatchLocksRequest { name: String::new(), prefix: true };
    let mut seen = client.locks.watch(watch).await.unwrap().into_inner();
    assert!(seen.message().await.unwrap().unwrap().complete);
    let held = client.hold(exclusive("x", 1, "a")).await;
    let told = seen.message().await.unwrap().unwrap();
    assert_eq!((&*told.locks[0].name, told.locks[0].holder_count), ("x", 1));
    let floor = LockTokenFloorRequest { name: "x".into() };
    let mut floors = client.locks.token_floor(floor).await.unwrap().into_inner();
    assert_eq!(floors.message().await.unwrap().unwrap().floor, held.token);
    client.release("x", held.token).await;
    assert!(floors.message().await.unwrap().unwrap().floor > held.token);
    let listed = client.locks.list(ListLocksRequest::default()).await.unwrap().into_inner();
    assert!(listed.locks.is_empty());
}

#[tokio::test]
async fn members_die_and_the_queue_goes_on_in_its_order() {
    let mut cluster = Cluster::start(3);
    let mut clients = Vec::new();
    for server in &cluster.members {
        clients.push(Client::connect(server).await);
    }
    clients[0].session(1).await;
    let mut held = clients[0].hold(exclusive("x", 1, "holder")).await;
    let leader = cluster.leader().await;
    // They wait at the members that stay.
    let stay: Vec<usize> = (0..3).filter(|member| *member != leader).collect();
    let mut waiting = Vec::new();
    for number in 0..6 {
        let client = &mut clients[stay[number % 2]];
        waiting.push(client.acquiring(exclusive("x", 1, &format!("w{number}"))));
        client.until_waiting("x", number as i64 + 1).await;
    }
    cluster.members[leader].kill();
    for (number, next) in waiting.into_iter().enumerate() {
        let client = &mut clients[stay[number % 2]];
        let release = async {
            loop {
                let request =
                    ReleaseLockRequest { name: "x".into(), token: held.token, ..Default::default() };
                match client.locks.release(request).await {
                    Ok(_) => break,
                    Err(status) => assert_eq!(status.code(), Code::Unavailable, "{status}"),
                }
            }
        };
        tokio::time::timeout(BOUND, release).await.unwrap();
        let granted = tokio::time::timeout(BOUND, next).await.expect("the next was not granted").unwrap();
        assert!(granted.token > held.token);
        held = granted;
    }
}

/// The long form has ten thousand, and says how long a step takes.
#[tokio::test]
async fn many_wait_for_one_lock_and_each_step_grants_it_to_the_next() {
    let count = if harness::long() { 10_000 } else { 300 };
    let server = Server::start();
    let mut clients = Vec::new();
    // A connection has so many calls under way at the most.
    for _ in 0..count / 100 {
        clients.push(Client::connect(&server).await);
    }
    clients[0].session(1).await;
    let mut held = clients[0].hold(exclusive("x", 1, "holder")).await;
    let (granted, mut grants) = tokio::sync::mpsc::channel(count);
    for number in 0..count {
        let mut client = clients[number % clients.len()].clone();
        let granted = granted.clone();
        tokio::spawn(async move {
            let grant = client.hold(exclusive("x", 1, &format!("w{number}"))).await;
            granted.send((std::time::Instant::now(), grant)).await.unwrap();
        });
    }
    clients[0].until_waiting("x", count as i64).await;
    let mut took = Vec::with_capacity(count);
    for _ in 0..count {
        let released = std::time::Instant::now();
        assert_eq!(clients[0].release("x", held.token).await, Released::Released);
        let (at, grant) =
            tokio::time::timeout(BOUND, grants.recv()).await.expect("a step granted nothing").unwrap();
        assert!(grant.token > held.token);
        assert!(grants.try_recv().is_err(), "a step granted the lock twice");
        took.push(at - released);
        held = grant;
    }
    took.sort();
    eprintln!(
        "{count} waiters: a step takes {:?}, of a hundred one {:?}",
        took[count / 2],
        took[count * 99 / 100]
    );
    assert_eq!(clients[0].release("x", held.token).await, Released::Released);
}
