//! The honest test of a lock: a set that is read under the lock, thought about, and written back with the guard, while holders stop for
//! longer than their sessions last, never come back, and leaders are killed. A lease cannot keep two from believing that they hold a
//! lock; the guard keeps the second belief from doing harm. So no element whose writing was acknowledged is ever missing from the
//! set. The same without the guard loses elements, or the test would prove nothing.
//!
//! The short form takes seconds. TENURE_LONG=1 goes on for half an hour, or for TENURE_SECONDS.

#![allow(clippy::unwrap_used)]

mod harness;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use harness::{Cluster, seed};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tenure_grpc::etcdserverpb::kv_client::KvClient;
use tenure_grpc::etcdserverpb::lease_client::LeaseClient;
use tenure_grpc::tenure_v1::locks_client::LocksClient;
use tenure_proto::etcdserverpb::{
    LeaseGrantRequest, LeaseKeepAliveRequest, LeaseRevokeRequest, PutRequest, RangeRequest,
};
use tenure_proto::tenure::v1::acquire_lock_response::Outcome;
use tenure_proto::tenure::v1::{AcquireLockRequest, LockGrant, LockSpec, ReleaseLockRequest};
use tokio::time::{sleep, timeout};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request};

const WORKERS: usize = 6;
/// The shortest that servers grant at their election timeout.
const TTL_S: i64 = 2;
const SET: &str = "the set";
const LOCK: &str = "of the set";
/// For one call; a member that was killed answers none.
const CALL_BOUND: Duration = Duration::from_secs(5);

/// What all workers share.
struct Work {
    endpoints: Vec<String>,
    guarded: bool,
    over: AtomicBool,
    /// Elements whose writing was acknowledged.
    acknowledged: Mutex<BTreeSet<String>>,
    /// Writes that the guard refused: holders who were late.
    refused: AtomicUsize,
}

/// One who adds elements, each under a session of its own.
struct Worker {
    work: Arc<Work>,
    number: usize,
    chance: StdRng,
    at: usize,
}

/// What a hold came to: None where a call was not answered.
type Tried<T> = Option<T>;

impl Worker {
    async fn work(mut self) {
        let mut made = 0;
        while !self.work.over.load(Ordering::Relaxed) {
            made += 1;
            let element = format!("{}-{made}", self.number);
            if self.add(&element).await.is_none() {
                // Another member, which may know more.
                self.at += 1;
                sleep(Duration::from_millis(20)).await;
            }
        }
    }

    /// Takes the lock, adds the element, and mostly gives the lock back.
    async fn add(&mut self, element: &str) -> Tried<()> {
        let channel = self.connect();
        let session = i64::from(self.chance.random_range(1..i32::MAX)) << 8 | self.number as i64;
        let mut lease = LeaseClient::new(channel.clone());
        answered(lease.lease_grant(LeaseGrantRequest { id: session, ttl: TTL_S })).await?;
        let renewing = tokio::spawn(renew(lease.clone(), session));
        let added = self.hold(channel, session, element, &renewing).await;
        renewing.abort();
        // A killed holder leaves its session to its end, a living one does not.
        if self.chance.random_bool(0.9) {
            let _ = answered(lease.lease_revoke(LeaseRevokeRequest { id: session })).await;
        }
        added
    }

    async fn hold(
        &mut self,
        channel: Channel,
        session: i64,
        element: &str,
        renewing: &tokio::task::JoinHandle<()>,
    ) -> Tried<()> {
        let mut locks = LocksClient::new(channel.clone());
        let grant = acquire(&mut locks, session).await?;
        let mut kv = KvClient::new(channel);
        let read = answered(kv.range(RangeRequest { key: SET.into(), ..RangeRequest::default() })).await?;
        let before =
            read.kvs.first().map(|kv| String::from_utf8_lossy(&kv.value).into_owned()).unwrap_or_default();
        if self.chance.random_bool(0.25) {
            // The whole process stands still for longer than its session lasts, and does not know it when it goes on.
            renewing.abort();
            sleep(Duration::from_millis(self.chance.random_range(2_500..4_500))).await;
        } else {
            sleep(Duration::from_millis(self.chance.random_range(0..30))).await;
        }
        let mut request = Request::new(PutRequest {
            key: SET.into(),
            value: format!("{before} {element}").into(),
            ..PutRequest::default()
        });
        if self.work.guarded {
            request.metadata_mut().insert("tenure-guard", grant.guard?.text.parse().ok()?);
        }
        match timeout(CALL_BOUND, kv.put(request)).await {
            Ok(Ok(_)) => {
                self.work.acknowledged.lock().unwrap().insert(element.to_owned());
            }
            Ok(Err(status)) if status.code() == Code::FailedPrecondition => {
                self.work.refused.fetch_add(1, Ordering::Relaxed);
            }
            // It may have been written, so it may be there or not.
            Ok(Err(_)) | Err(_) => return None,
        }
        let release = ReleaseLockRequest { name: LOCK.into(), token: grant.token, ..Default::default() };
        answered(locks.release(release)).await.map(|_| ())
    }

    fn connect(&self) -> Channel {
        let endpoint = &self.work.endpoints[self.at % self.work.endpoints.len()];
        Endpoint::from_shared(endpoint.clone()).unwrap().connect_timeout(CALL_BOUND).connect_lazy()
    }
}

async fn acquire(locks: &mut LocksClient<Channel>, session_id: i64) -> Tried<LockGrant> {
    let spec = LockSpec { name: LOCK.into(), ..LockSpec::default() };
    let request = AcquireLockRequest {
        locks: vec![spec],
        session_id,
        owner_id: "worker".into(),
        wait_ms: Some(20_000),
        ..AcquireLockRequest::default()
    };
    let answer = timeout(Duration::from_secs(30), locks.acquire(request)).await.ok()?.ok()?.into_inner();
    if answer.outcome() != Outcome::Granted { None } else { answer.grants.into_iter().next() }
}

async fn renew(mut lease: LeaseClient<Channel>, id: i64) {
    loop {
        sleep(Duration::from_millis(400)).await;
        let beats = tokio_stream::iter([LeaseKeepAliveRequest { id }]);
        if let Ok(Ok(answers)) = timeout(CALL_BOUND, lease.lease_keep_alive(beats)).await {
            let _ = timeout(CALL_BOUND, answers.into_inner().message()).await;
        }
    }
}

async fn answered<T>(call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>) -> Tried<T> {
    Some(timeout(CALL_BOUND, call).await.ok()?.ok()?.into_inner())
}

/// Lets workers add elements for some time while leaders die. Gives those that were acknowledged and are missing, how many were acknowledged,
/// and how often the guard refused.
async fn run(guarded: bool, seconds: u64, deaths: u64) -> (Vec<String>, usize, usize) {
    let seed = seed();
    eprintln!("TENURE_SEED={seed}");
    let mut cluster = Cluster::start(3);
    let work = Arc::new(Work {
        endpoints: cluster.endpoints(),
        guarded,
        over: AtomicBool::new(false),
        acknowledged: Mutex::default(),
        refused: AtomicUsize::new(0),
    });
    let workers: Vec<_> = (0..WORKERS)
        .map(|number| {
            let chance = StdRng::seed_from_u64(seed ^ number as u64);
            tokio::spawn(Worker { work: work.clone(), number, chance, at: number }.work())
        })
        .collect();
    for _ in 0..deaths {
        sleep(Duration::from_secs(seconds) / (deaths as u32 + 1)).await;
        let leader = cluster.leader().await;
        cluster.members[leader].kill();
        cluster.leader_other_than(Some(leader)).await;
        cluster.members[leader].restart();
    }
    sleep(Duration::from_secs(seconds) / (deaths as u32 + 1)).await;
    work.over.store(true, Ordering::Relaxed);
    for worker in workers {
        worker.await.unwrap();
    }
    let leader = cluster.leader().await;
    let mut kv = KvClient::connect(cluster.members[leader].endpoint()).await.unwrap();
    let read =
        kv.range(RangeRequest { key: SET.into(), ..RangeRequest::default() }).await.unwrap().into_inner();
    let set = read.kvs.first().map(|kv| String::from_utf8_lossy(&kv.value).into_owned()).unwrap_or_default();
    let there: BTreeSet<&str> = set.split_whitespace().collect();
    let acknowledged = work.acknowledged.lock().unwrap();
    let lost: Vec<String> = acknowledged.iter().filter(|one| !there.contains(&***one)).cloned().collect();
    let refused = work.refused.load(Ordering::Relaxed);
    eprintln!(
        "guarded {guarded}: {} acknowledged, {} lost, {refused} refused",
        acknowledged.len(),
        lost.len()
    );
    (lost, acknowledged.len(), refused)
}

fn seconds(short: u64) -> u64 {
    let long = if harness::long() { 1_800 } else { short };
    std::env::var("TENURE_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(long)
}

#[tokio::test]
async fn no_acknowledged_element_is_lost_with_the_guard() {
    let seconds = seconds(20);
    let (lost, acknowledged, refused) = run(true, seconds, (seconds / 20).max(1)).await;
    assert!(lost.is_empty(), "{lost:?}");
    assert!(
        acknowledged > 0 && refused > 0,
        "{acknowledged} acknowledged, {refused} refused: it was too easy"
    );
}

#[tokio::test]
async fn elements_are_lost_without_the_guard() {
    // However long it takes until a holder comes back too late.
    for _ in 0..5 {
        if !run(false, seconds(20).min(60), 0).await.0.is_empty() {
            return;
        }
    }
    panic!("nothing was lost: the test does not bite");
}
