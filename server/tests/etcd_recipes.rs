//! etcd's Lock and Election services, and etcdctl which runs the same recipes itself: on one name they stand in one line. Answers and
//! refusals are those of a real etcd; whoever goes away, or loses his lease, is out of the line at once.

#![allow(clippy::unwrap_used)]

mod harness;

use std::time::{Duration, Instant};

use harness::{NEW, Program, Server};
use tenure_grpc::etcdserverpb::kv_client::KvClient;
use tenure_grpc::etcdserverpb::lease_client::LeaseClient;
use tenure_grpc::v3electionpb::election_client::ElectionClient;
use tenure_grpc::v3lockpb::lock_client::LockClient;
use tenure_proto::etcdserverpb::{
    LeaseGrantRequest, LeaseRevokeRequest, LeaseTimeToLiveRequest, RangeRequest,
};
use tenure_proto::mvccpb::KeyValue;
use tenure_proto::v3electionpb::*;
use tenure_proto::v3lockpb::{LockRequest, LockResponse, UnlockRequest};
use tokio::task::JoinHandle;
use tonic::transport::Channel;
use tonic::{Code, Status};

const BOUND: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(5);

#[derive(Clone)]
struct Client {
    kv: KvClient<Channel>,
    lease: LeaseClient<Channel>,
    lock: LockClient<Channel>,
    election: ElectionClient<Channel>,
}

impl Client {
    async fn connect(server: &Server) -> Client {
        let channel = Channel::from_shared(server.endpoint()).unwrap().connect().await.unwrap();
        Client {
            kv: KvClient::new(channel.clone()),
            lease: LeaseClient::new(channel.clone()),
            lock: LockClient::new(channel.clone()),
            election: ElectionClient::new(channel),
        }
    }

    async fn grant(&self, id: i64) -> i64 {
        let request = LeaseGrantRequest { ttl: 600, id };
        self.lease.clone().lease_grant(request).await.unwrap().into_inner().id
    }

    async fn revoke(&self, id: i64) {
        self.lease.clone().lease_revoke(LeaseRevokeRequest { id }).await.unwrap();
    }

    async fn lock(&self, name: &'static str, lease: i64) -> Result<LockResponse, Status> {
        Ok(self.lock.clone().lock(LockRequest { name: name.into(), lease }).await?.into_inner())
    }

    /// A call that waits in a task of its own; aborting that cancels the call.
    fn locking(&self, name: &'static str, lease: i64) -> JoinHandle<Result<LockResponse, Status>> {
        let client = self.clone();
        tokio::spawn(async move { client.lock(name, lease).await })
    }

    async fn unlock(&self, key: bytes::Bytes) -> Result<(), Status> {
        self.lock.clone().unlock(UnlockRequest { key }).await.map(drop)
    }

    async fn campaign(&self, lease: i64, value: &'static str) -> Result<CampaignResponse, Status> {
        let request = CampaignRequest { name: "e".into(), lease, value: value.into() };
        Ok(self.election.clone().campaign(request).await?.into_inner())
    }

    async fn resign(&self, leader: Option<LeaderKey>) -> Result<(), Status> {
        self.election.clone().resign(ResignRequest { leader }).await.map(drop)
    }

    /// The keys of a line, in their order.
    async fn line(&self, name: &str) -> Vec<KeyValue> {
        let (key, range_end) = (format!("{name}/").into(), format!("{name}0").into());
        let request = RangeRequest { key, range_end, ..RangeRequest::default() };
        let mut kvs = self.kv.clone().range(request).await.unwrap().into_inner().kvs;
        kvs.sort_by_key(|kv| kv.create_revision);
        kvs
    }

    /// Waits until so many stand in line.
    async fn line_of(&self, name: &str, length: usize) -> Vec<KeyValue> {
        let waiting = async {
            loop {
                let line = self.line(name).await;
                if line.len() == length {
                    return line;
                }
                tokio::time::sleep(PAUSE).await;
            }
        };
        tokio::time::timeout(BOUND, waiting).await.unwrap_or_else(|_| panic!("never {length} in line"))
    }
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(BOUND, future).await.expect("this should not have taken so long")
}

fn etcdctl(server: &Server, arguments: &[&str]) -> Program {
    let endpoints = format!("--endpoints={}", server.endpoint());
    Program::start(&NEW.etcdctl(), &[&[endpoints.as_str()], arguments].concat())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_is_one_for_etcdctl_and_the_service() {
    let server = Server::start();
    let client = Client::connect(&server).await;

    let mut holder = etcdctl(&server, &["lock", "l"]);
    assert!(holder.wait_for_lines(1, BOUND), "etcdctl has the lock");
    let lease = client.grant(0).await;
    let waiting = client.locking("l", lease);
    let line = client.line_of("l", 2).await;
    assert!(!waiting.is_finished());
    holder.interrupt(BOUND);
    let held = within(waiting).await.unwrap().unwrap();
    assert_eq!(held.key, line[1].key);
    assert_eq!(held.key, format!("l/{lease:x}").as_bytes());

    let mut second = etcdctl(&server, &["lock", "l", "echo", "got it"]);
    client.line_of("l", 2).await;
    assert!(!second.wait_for_lines(1, Duration::from_millis(300)), "it must wait");
    client.unlock(held.key).await.unwrap();
    assert!(second.wait_for_lines(1, BOUND));
    let finished = second.finish(BOUND);
    assert_eq!((finished.code(), &*finished.stdout), (0, "got it\n"), "{}", finished.stderr);
    client.line_of("l", 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_election_is_one_for_etcdctl_and_the_service() {
    let server = Server::start();
    let client = Client::connect(&server).await;
    let observing = client.election.clone().observe(LeaderRequest { name: "e".into() }).await;
    let mut observing = observing.unwrap().into_inner();
    let mut listening = etcdctl(&server, &["elect", "-l", "e"]);

    let lease = client.grant(0).await;
    let elected = client.campaign(lease, "ours").await.unwrap();
    let leader = elected.leader.unwrap();
    assert_eq!((leader.key.clone(), leader.lease), (format!("e/{lease:x}").into(), lease));
    let candidate = etcdctl(&server, &["elect", "e", "theirs"]);
    let line = client.line_of("e", 2).await;
    assert_eq!((leader.rev, line[0].key.clone()), (line[0].create_revision, leader.key.clone()));
    let proclaim = ProclaimRequest { leader: Some(leader.clone()), value: "ours still".into() };
    client.election.clone().proclaim(proclaim).await.unwrap();
    client.resign(Some(leader.clone())).await.unwrap();
    // Once more: whoever resigned does not make another leader resign.
    client.resign(Some(leader)).await.unwrap();

    let mut told = Vec::new();
    while told.len() < 3 {
        let seen = within(observing.message()).await.unwrap().unwrap();
        told.push(String::from_utf8(seen.kv.unwrap().value.to_vec()).unwrap());
    }
    assert_eq!(told, ["ours", "ours still", "theirs"]);
    let now = client.election.clone().leader(LeaderRequest { name: "e".into() }).await.unwrap().into_inner();
    assert_eq!(now.kv.unwrap().value, "theirs");
    assert!(listening.wait_for_lines(2, BOUND), "etcdctl observes as well");

    let next = {
        let client = client.clone();
        tokio::spawn(async move { client.campaign(lease, "ours again").await })
    };
    client.line_of("e", 2).await;
    assert!(!next.is_finished());
    candidate.interrupt(BOUND);
    within(next).await.unwrap().unwrap();
    drop(listening);
}

/// etcd 3.4 says that such a caller holds the lock, others say so only when all before him have left.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_loses_his_lease_while_waiting_is_told_so_at_once() {
    let server = Server::start();
    let client = Client::connect(&server).await;
    let (first, second, third) = (client.grant(0).await, client.grant(0).await, client.grant(0).await);
    let held = client.lock("l", first).await.unwrap();
    let waiting = client.locking("l", second);
    client.line_of("l", 2).await;
    let behind = client.locking("l", third);
    client.line_of("l", 3).await;
    client.revoke(second).await;
    let refused = within(waiting).await.unwrap().unwrap_err();
    assert_eq!((refused.code(), refused.message()), (Code::Unknown, "mutex: session is expired"));
    assert!(!behind.is_finished());
    client.unlock(held.key).await.unwrap();
    within(behind).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_who_goes_away_leaves_no_entry() {
    let server = Server::start();
    let client = Client::connect(&server).await;
    let (first, second) = (client.grant(0).await, client.grant(0).await);
    client.lock("l", first).await.unwrap();
    for lease in [second, 0] {
        let waiting = client.locking("l", lease);
        client.line_of("l", 2).await;
        waiting.abort();
        client.line_of("l", 1).await;
    }
    // A holder who merely called again has lost nothing if he goes away.
    let again = client.locking("l", second);
    let line = client.line_of("l", 2).await;
    let repeat = client.locking("l", second);
    // Somebody who comes and goes behind the repeat shows that both were noticed.
    let behind = client.locking("l", client.grant(0).await);
    client.line_of("l", 3).await;
    repeat.abort();
    behind.abort();
    assert_eq!(client.line_of("l", 2).await, line);
    again.abort();
    client.line_of("l", 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_lease_the_lock_is_on_one_of_a_minute_named_by_its_key() {
    let server = Server::start();
    let client = Client::connect(&server).await;
    let held = client.lock("l", 0).await.unwrap();
    let text = String::from_utf8(held.key.to_vec()).unwrap();
    let lease = i64::from_str_radix(text.strip_prefix("l/").unwrap(), 16).unwrap();
    let request = LeaseTimeToLiveRequest { id: lease, keys: true };
    let left = client.lease.clone().lease_time_to_live(request).await.unwrap().into_inner();
    assert_eq!((left.granted_ttl, &left.keys[..]), (60, &[held.key][..]));
}

/// What each server says to calls that it must refuse.
async fn refusals(client: &Client) -> Vec<(&'static str, Code, String)> {
    let told = |what, status: Result<(), Status>| {
        let status = status.unwrap_err();
        (what, status.code(), status.message().to_owned())
    };
    let stale = LeaderKey { name: "e".into(), key: "e/n".into(), rev: 3, lease: 9 };
    let proclaim = |leader| {
        let request = ProclaimRequest { leader, value: "v".into() };
        async move { client.election.clone().proclaim(request).await.map(drop) }
    };
    let leader = client.election.clone().leader(LeaderRequest { name: "e".into() }).await.map(drop);
    vec![
        told("lock with an unknown lease", client.lock("l", 987).await.map(drop)),
        told("campaign with an unknown lease", client.campaign(987, "v").await.map(drop)),
        told("unlock nothing", client.unlock("".into()).await),
        told("leader of nobody", leader),
        told("proclaim without a leader", proclaim(None).await),
        told("proclaim as nobody", proclaim(Some(stale)).await),
        told("resign without a leader", client.resign(None).await),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_are_etcds_word_by_word() {
    let (etcd, tenure) = (Server::start_program(NEW.server()), Server::start());
    let theirs = refusals(&Client::connect(&etcd).await).await;
    let ours = refusals(&Client::connect(&tenure).await).await;
    assert_eq!(ours, theirs);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_within_the_servers_own_keys_are_refused() {
    let server = Server::start();
    let client = Client::connect(&server).await;
    for name in ["/_tenure", "/_tenure/lock/a"] {
        assert_eq!(client.lock(name, 0).await.unwrap_err().code(), Code::PermissionDenied, "{name}");
    }
    let unlocked = client.unlock("/_tenure/lock/a/h".into()).await;
    assert_eq!(unlocked.unwrap_err().code(), Code::PermissionDenied);
}

/// etcd needs 100 ms for each step of such a line. How fast it is here is printed, not asserted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_line_of_256_moves_on_one_by_one() {
    const LINE: usize = 256;
    let server = Server::start();
    let client = Client::connect(&server).await;
    let first = client.grant(0).await;
    let held = client.lock("l", first).await.unwrap();
    let mut waiting = Vec::new();
    for _ in 1..LINE {
        let (client, lease) = (client.clone(), client.grant(0).await);
        waiting.push(tokio::spawn(async move {
            let held = client.lock("l", lease).await.unwrap();
            client.unlock(held.key.clone()).await.unwrap();
            held
        }));
    }
    let line = client.line_of("l", LINE).await;
    let began = Instant::now();
    client.unlock(held.key).await.unwrap();
    for waiting in waiting {
        let held = within(waiting).await.unwrap();
        assert!(line.iter().any(|kv| kv.key == held.key));
    }
    let rate = (LINE - 1) as f64 / began.elapsed().as_secs_f64();
    eprintln!("{LINE} in line moved on in {:?}: {rate:.0} a second", began.elapsed());
    assert!(client.line("l").await.is_empty());
}
