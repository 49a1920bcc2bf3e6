//! Who the members are, changed while the cluster works: etcdctl's words for it, growing and shrinking under a load of which
//! nothing acknowledged is lost, the dead replaced, the leader removed, and those who may not return kept out.

#![allow(clippy::unwrap_used)]

mod harness;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use harness::{Cluster, Etcd, Launch, NEW, OLD, Program};
use parking_lot::Mutex;
use tenure_grpc::etcdserverpb::cluster_client::ClusterClient;
use tenure_grpc::etcdserverpb::kv_client::KvClient;
use tenure_proto::etcdserverpb::{
    Member, MemberAddRequest, MemberListRequest, MemberRemoveRequest, MemberUpdateRequest, PutRequest,
    RangeRequest,
};
use tokio::task::JoinSet;
use tonic::Code;

/// For what takes an election or two, and a slow machine.
const BOUND: Duration = Duration::from_secs(90);
const PAUSE: Duration = Duration::from_millis(50);
/// Flags by which a newcomer soon finds the beginning of the log gone, and has to be sent the state.
const SHORT_LOG: [&str; 4] = ["--snapshot-count", "200", "--snapshot-catchup-entries", "50"];

/// Asks one member with etcdctl. Gives what it printed on both streams, but for its own log, and its exit code.
fn etcdctl(etcd: Etcd, cluster: &Cluster, member: usize, words: &[&str]) -> (i32, String) {
    let endpoint = cluster.members[member].endpoint();
    let mut all = vec!["--endpoints", &endpoint, "--command-timeout=60s"];
    all.extend(words);
    let finished = Program::start(&etcd.etcdctl(), &all).finish(BOUND);
    let said = format!("{}{}", finished.stdout, finished.stderr);
    let said = said.lines().filter(|line| !line.starts_with('{')).collect::<Vec<_>>().join("\n");
    (finished.code(), said)
}

/// The same where it is to succeed.
fn ctl(etcd: Etcd, cluster: &Cluster, member: usize, words: &[&str]) -> String {
    let (code, said) = etcdctl(etcd, cluster, member, words);
    assert_eq!(code, 0, "etcdctl {} {words:?}: {said}", etcd.version);
    said
}

/// The same until it succeeds: right after a change some things are refused for a moment.
fn ctl_eventually(etcd: Etcd, cluster: &Cluster, member: usize, words: &[&str]) -> String {
    harness::eventually(&format!("etcdctl {words:?}"), BOUND, || {
        let (code, said) = etcdctl(etcd, cluster, member, words);
        (code == 0).then_some(said)
    })
}

/// Hexadecimal, as etcdctl prints and takes it.
fn id_of(etcd: Etcd, cluster: &Cluster, asked: usize, member: usize) -> String {
    let url = cluster.members[member].launch.peer_url();
    let listed = ctl(etcd, cluster, asked, &["member", "list"]);
    let line = listed.lines().find(|line| line.contains(&url)).unwrap_or_else(|| panic!("{url}: {listed}"));
    line.split(',').next().unwrap().to_owned()
}

async fn members(cluster: &Cluster, asked: usize) -> Vec<Member> {
    let mut client = ClusterClient::connect(cluster.members[asked].endpoint()).await.unwrap();
    client.member_list(MemberListRequest { linearizable: true }).await.unwrap().into_inner().members
}

async fn id(cluster: &Cluster, asked: usize, member: usize) -> u64 {
    let url = cluster.members[member].launch.peer_url();
    members(cluster, asked).await.into_iter().find(|member| member.peer_urls.contains(&url)).unwrap().id
}

/// Adds a member that is not started yet; those that are to be its company are `present`.
async fn add(cluster: &mut Cluster, asked: usize, present: &[usize]) -> usize {
    let number = cluster.newcomer(present, &SHORT_LOG);
    let peer_urls = vec![cluster.members[number].launch.peer_url()];
    let endpoint = cluster.members[asked].endpoint();
    let request = MemberAddRequest { peer_urls, is_learner: false };
    repeat("a member is added", async || {
        let mut client = ClusterClient::connect(endpoint.clone()).await.ok()?;
        client.member_add(request.clone()).await.ok()
    })
    .await;
    number
}

async fn remove(cluster: &Cluster, asked: usize, member: u64) {
    let endpoint = cluster.members[asked].endpoint();
    let mut tries = 0;
    repeat("a member is removed", async || {
        tries += 1;
        let mut client = ClusterClient::connect(endpoint.clone()).await.ok()?;
        match client.member_remove(MemberRemoveRequest { id: member }).await {
            Ok(_) => Some(()),
            // An earlier try had no answer, but an effect.
            Err(status) if tries > 1 && status.code() == Code::NotFound => Some(()),
            Err(_) => None,
        }
    })
    .await;
}

async fn repeat<T>(what: &str, mut attempt: impl AsyncFnMut() -> Option<T>) -> T {
    let repeated = async {
        loop {
            match attempt().await {
                Some(done) => return done,
                None => tokio::time::sleep(PAUSE).await,
            }
        }
    };
    tokio::time::timeout(BOUND, repeated).await.unwrap_or_else(|_| panic!("waited in vain until {what}"))
}

/// Writers that go on whatever happens, and remember what was acknowledged.
struct Load {
    endpoints: Arc<Mutex<Vec<String>>>,
    stop: Arc<AtomicBool>,
    writers: JoinSet<(usize, u32)>,
}

impl Load {
    fn start(endpoints: Vec<String>, writers: usize) -> Load {
        let (endpoints, stop) = (Arc::new(Mutex::new(endpoints)), Arc::new(AtomicBool::new(false)));
        let mut load = Load { endpoints, stop, writers: JoinSet::new() };
        for writer in 0..writers {
            load.writers.spawn(write(writer, load.endpoints.clone(), load.stop.clone()));
        }
        load
    }

    fn use_endpoints(&self, endpoints: Vec<String>) {
        *self.endpoints.lock() = endpoints;
    }

    /// How many writes each writer had acknowledged.
    async fn end(self) -> Vec<(usize, u32)> {
        self.stop.store(true, Ordering::Relaxed);
        self.writers.join_all().await
    }
}

/// Writes one key after the other, each until it is acknowledged, to whichever member answers.
async fn write(writer: usize, endpoints: Arc<Mutex<Vec<String>>>, stop: Arc<AtomicBool>) -> (usize, u32) {
    let (mut acknowledged, mut turn) = (0, writer);
    let mut client = None;
    while !stop.load(Ordering::Relaxed) {
        if client.is_none() {
            let endpoint = {
                let endpoints = endpoints.lock();
                endpoints[turn % endpoints.len()].clone()
            };
            client = KvClient::connect(endpoint).await.ok();
        }
        let request =
            PutRequest { key: key(writer, acknowledged).into(), value: "v".into(), ..Default::default() };
        let outcome = match &mut client {
            Some(client) => tokio::time::timeout(Duration::from_secs(3), client.put(request)).await.ok(),
            None => None,
        };
        if outcome.is_some_and(|outcome| outcome.is_ok()) {
            acknowledged += 1;
        } else {
            turn += 1;
            client = None;
            tokio::time::sleep(PAUSE).await;
        }
    }
    (writer, acknowledged)
}

fn key(writer: usize, number: u32) -> String {
    format!("load/{writer}/{number:08}")
}

async fn check_nothing_lost(cluster: &Cluster, asked: usize, acknowledged: &[(usize, u32)]) {
    let mut client = KvClient::connect(cluster.members[asked].endpoint()).await.unwrap();
    for (writer, count) in acknowledged {
        let (key, range_end) = (key(*writer, 0).into(), key(*writer, *count).into());
        let request = RangeRequest { key, range_end, count_only: true, ..Default::default() };
        let found = client.range(request).await.unwrap().into_inner().count;
        assert_eq!(found, i64::from(*count), "writer {writer}: not all that was acknowledged is there");
        assert!(*count > 0, "writer {writer} wrote nothing");
    }
}

#[test]
fn etcdctl_lists_moves_and_asks_all_members() {
    let cluster = Cluster::start(3);
    for etcd in [OLD, NEW] {
        let listed = ctl(etcd, &cluster, 0, &["member", "list"]);
        assert_eq!(listed.lines().count(), 3, "{listed}");
        assert!(listed.lines().all(|line| line.contains("started") && line.ends_with("false")), "{listed}");
        for command in ["status", "health", "hashkv"] {
            let said = ctl_eventually(etcd, &cluster, 1, &["endpoint", command, "--cluster"]);
            let asked = said.lines().filter(|line| line.starts_with("http://127.0.0.1:")).count();
            assert_eq!(asked, 3, "{said}");
        }
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("backup");
        ctl(etcd, &cluster, 2, &["snapshot", "save", file.to_str().unwrap()]);

        let status = ctl(etcd, &cluster, 0, &["endpoint", "status", "--cluster"]);
        let leading = |line: &&str| line.split(", ").nth(4) == Some("true");
        let leader = status.lines().find(leading).expect("one leads");
        let follower = status.lines().find(|line| !leading(line)).unwrap().split(", ").nth(1).unwrap();
        let endpoints = cluster.endpoints();
        let leads = (0..3).find(|member| leader.starts_with(&endpoints[*member])).unwrap();
        let (code, said) = etcdctl(etcd, &cluster, (leads + 1) % 3, &["move-leader", follower]);
        assert!(code != 0 && said.contains("no leader endpoint given"), "{said}");
        let (code, said) = etcdctl(etcd, &cluster, leads, &["move-leader", "1234"]);
        assert!(code != 0 && said.contains("etcdserver: bad leader transferee"), "{said}");
        let said = ctl(etcd, &cluster, leads, &["move-leader", follower]);
        assert!(said.starts_with("Leadership transferred from"), "{said}");
    }
}

/// What is refused in a cluster that has a learner, `id`, which was added with that URL and is not started.
fn check_refusals(etcd: Etcd, cluster: &Cluster, asked: usize, url: &str, id: &str) {
    let refused = |words: &[&str], why: &str| {
        let (code, said) = etcdctl(etcd, cluster, asked, words);
        assert!(code != 0 && said.contains(why), "{words:?}: {said}");
    };
    let taken = format!("--peer-urls=http://10.0.0.1:1,{url}");
    refused(&["member", "add", "x", &taken, "--learner"], "etcdserver: Peer URLs already exists");
    refused(
        &["member", "add", "x", "--peer-urls=http://10.0.0.1:1", "--learner"],
        "too many learner members",
    );
    refused(&["member", "promote", id], "can only promote a learner member which is in sync with leader");
    refused(&["member", "remove", "1234"], "etcdserver: member not found");
    refused(&["member", "promote", "1234"], "etcdserver: member not found");
    refused(&["member", "update", "1234", "--peer-urls=http://10.0.0.1:1"], "etcdserver: member not found");
    refused(&["member", "promote", &id_of(etcd, cluster, asked, 0)], "can only promote a learner member");
}

#[test]
fn etcdctl_adds_updates_promotes_and_removes() {
    let mut cluster = Cluster::start(3);
    let mut present = vec![0, 1, 2];
    for (etcd, asked) in [(OLD, 0), (NEW, 1)] {
        let number = cluster.newcomer(&present, &[]);
        let url = cluster.members[number].launch.peer_url();
        let name = cluster.members[number].launch.name.clone();
        let add = ["member", "add", &name, &format!("--peer-urls={url}"), "--learner"];
        let said = ctl_eventually(etcd, &cluster, asked, &add);
        assert!(
            said.contains("added to cluster") && said.contains("ETCD_INITIAL_CLUSTER_STATE=\"existing\""),
            "{said}"
        );
        let id = id_of(etcd, &cluster, asked, number);
        let listed = ctl(etcd, &cluster, asked, &["member", "list"]);
        assert!(listed.contains(&format!("{id}, unstarted, , {url}, , true")), "{listed}");
        check_refusals(etcd, &cluster, asked, &url, &id);

        cluster.members[number].restart();
        let serves = |words: &[&str]| etcdctl(etcd, &cluster, number, words);
        assert_eq!(serves(&["get", "k", "--consistency=s"]).0, 0);
        let (code, said) = serves(&["put", "k", "v"]);
        assert!(code != 0 && said.contains("etcdserver: rpc not supported for learner"), "{said}");
        let status = ctl(etcd, &cluster, number, &["endpoint", "status"]);
        assert_eq!(status.split(", ").nth(5), Some("true"), "{status}");
        ctl_eventually(etcd, &cluster, asked, &["member", "promote", &id]);
        harness::eventually("the new voter serves", BOUND, || {
            (etcdctl(etcd, &cluster, number, &["put", "k", "v"]).0 == 0).then_some(())
        });

        let both = format!("--peer-urls={url},http://localhost:1");
        ctl(etcd, &cluster, number, &["member", "update", &id, &both]);
        let listed = ctl(etcd, &cluster, number, &["member", "list"]);
        assert!(
            listed.contains(&format!("{url};http://localhost:1"))
                || listed.contains(&format!("{url},http://localhost:1")),
            "{listed}"
        );
        ctl(etcd, &cluster, asked, &["member", "update", &id, &format!("--peer-urls={url}")]);

        // One who was there from the start goes, so that the newcomer must really take part.
        let oldest = present.remove(present.len() - 1);
        let leaving = id_of(etcd, &cluster, asked, oldest);
        let said = ctl_eventually(etcd, &cluster, asked, &["member", "remove", &leaving]);
        assert!(said.contains("removed from cluster"), "{said}");
        assert!(cluster.members[oldest].wait_until_ended().is_some());
        present.push(number);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_grows_to_five_and_shrinks_to_one_under_load() {
    let mut cluster = Cluster::start_with(1, &SHORT_LOG);
    let load = Load::start(cluster.endpoints(), 4);
    for size in 1..5 {
        let present: Vec<usize> = (0..size).collect();
        // Any member can be asked.
        let number = add(&mut cluster, size - 1, &present).await;
        cluster.members[number].restart();
        load.use_endpoints(cluster.endpoints());
    }
    assert_eq!(members(&cluster, 2).await.len(), 5);
    for gone in 0..4 {
        let id = id(&cluster, 4, gone).await;
        load.use_endpoints(cluster.endpoints()[gone + 1..].to_vec());
        // Asked of the one that goes, it still gets its answer.
        remove(&cluster, if gone % 2 == 0 { gone } else { 4 }, id).await;
        assert_eq!(cluster.members[gone].wait_until_ended(), Some(1));
        assert!(cluster.members[gone].latest_log().contains("was removed from the cluster"));
    }
    let acknowledged = load.end().await;
    assert_eq!(members(&cluster, 4).await.len(), 1);
    check_nothing_lost(&cluster, 4, &acknowledged).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_member_is_replaced() {
    let mut cluster = Cluster::start(3);
    let leader = cluster.leader().await;
    let (dead, other) = ((leader + 1) % 3, (leader + 2) % 3);
    let dead_id = id(&cluster, leader, dead).await;
    let load = Load::start(vec![cluster.members[leader].endpoint(), cluster.members[other].endpoint()], 2);
    cluster.members[dead].kill();
    // While one of three is down, the others are needed.
    let refused = {
        let mut client = ClusterClient::connect(cluster.members[other].endpoint()).await.unwrap();
        let id = id(&cluster, other, leader).await;
        client.member_remove(MemberRemoveRequest { id }).await.unwrap_err()
    };
    assert_eq!(refused.message(), "etcdserver: unhealthy cluster");
    remove(&cluster, other, dead_id).await;
    let number = add(&mut cluster, other, &[leader, other]).await;
    cluster.members[number].restart();
    cluster.caught_up(number).await;
    let acknowledged = load.end().await;
    check_nothing_lost(&cluster, number, &acknowledged).await;

    // The dead one's disk turns up again: nobody takes it in.
    cluster.members[dead].begin();
    assert_eq!(cluster.members[dead].wait_until_ended(), Some(1));
    assert!(cluster.members[dead].latest_log().contains("was removed from the cluster"));
    assert_eq!(members(&cluster, number).await.len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_lost_its_data_is_kept_out() {
    let mut cluster = Cluster::start(3);
    let wiped = (cluster.leader().await + 1) % 3;
    let own_id = id(&cluster, wiped, wiped).await;
    let known = format!("member {own_id:x} has already been bootstrapped");
    cluster.members[wiped].kill();
    std::fs::remove_dir_all(&cluster.members[wiped].launch.data_dir).unwrap();
    for state in ["new", "existing"] {
        cluster.members[wiped].launch.extra = vec!["--initial-cluster-state".to_owned(), state.to_owned()];
        cluster.members[wiped].begin();
        assert_eq!(cluster.members[wiped].wait_until_ended(), Some(1));
        let log = cluster.members[wiped].latest_log();
        assert!(log.contains(&known), "{state}: {log}");
    }
    // Without its log, but with its identity, it is no better.
    let other = (wiped + 1) % 3;
    cluster.members[other].stop();
    for lost in ["wal", "state"] {
        std::fs::remove_dir_all(cluster.members[other].launch.data_dir.join(lost)).unwrap();
    }
    cluster.members[other].begin();
    assert_eq!(cluster.members[other].wait_until_ended(), Some(1));
    let log = cluster.members[other].latest_log();
    assert!(log.contains("has already been bootstrapped"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_join_that_was_cut_short_is_taken_up_again() {
    let mut cluster = Cluster::start(1);
    let number = add(&mut cluster, 0, &[0]).await;
    let identity = cluster.members[number].launch.data_dir.join("IDENTITY");
    cluster.members[number].begin();
    repeat("the directory is marked", async || identity.exists().then_some(())).await;
    cluster.members[number].kill();
    // What the flags say counts no more.
    cluster.members[number].launch.extra.clear();
    cluster.members[number].restart();
    cluster.caught_up(number).await;
    assert_eq!(members(&cluster, number).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_moves_to_another_address() {
    let mut cluster = Cluster::start(3);
    let moving = (cluster.leader().await + 1) % 3;
    let asked = (moving + 1) % 3;
    let own_id = id(&cluster, asked, moving).await;
    cluster.members[moving].stop();
    let home = tempfile::tempdir().unwrap();
    let elsewhere = Launch::alone(Launch::program_under_test(), home.path()).peer_port;
    cluster.members[moving].launch.peer_port = elsewhere;
    let peer_urls = vec![cluster.members[moving].launch.peer_url()];
    let mut client = ClusterClient::connect(cluster.members[asked].endpoint()).await.unwrap();
    client.member_update(MemberUpdateRequest { id: own_id, peer_urls }).await.unwrap();
    cluster.members[moving].restart();
    cluster.caught_up(moving).await;
    assert_eq!(id(&cluster, moving, moving).await, own_id);
}

/// It stands for no election, in which it would be told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_learner_that_was_removed_stops() {
    let mut cluster = Cluster::start(1);
    let number = cluster.newcomer(&[0], &[]);
    let peer_urls = vec![cluster.members[number].launch.peer_url()];
    let mut client = ClusterClient::connect(cluster.members[0].endpoint()).await.unwrap();
    client.member_add(MemberAddRequest { peer_urls, is_learner: true }).await.unwrap();
    cluster.members[number].restart();
    let id = id(&cluster, 0, number).await;
    remove(&cluster, 0, id).await;
    assert_eq!(cluster.members[number].wait_until_ended(), Some(1));
    assert!(cluster.members[number].latest_log().contains("was removed from the cluster"));
}
