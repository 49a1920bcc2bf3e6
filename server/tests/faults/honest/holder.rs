//! One who holds locks, as a process of its own, so that it can be stopped and killed as a whole: this program again, told by its
//! environment what to do. It adds elements to sets, each under a session of its own, and writes down what it was told. It does not
//! know that it is disturbed; it looks at no clock and asks nobody whether it still holds the lock: that is what the guard is for.

use std::fs::File;
use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

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
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};

use super::SETS;
use super::judge::{Entry, What};
use crate::caller::connect;

/// Its words: see [`Orders`].
pub const ORDERS: &str = "TENURE_HOLDER";
/// What the program is asked to run.
pub const NAME: &str = "honest::holder::holds_locks_when_it_is_told_to";
/// The shortest that servers grant at their election timeout.
const TTL_S: i64 = 2;
/// For one call; a member that was killed answers none.
const CALL_BOUND: Duration = Duration::from_secs(5);
const RENEWAL_PAUSE: Duration = Duration::from_millis(400);
/// How long it thinks at the most.
const THOUGHT_MAX_MS: u64 = 60;

/// Which holder this is, and what it is to do.
pub struct Orders {
    pub number: usize,
    /// How often it was killed before.
    pub life: usize,
    pub seed: u64,
    pub guarded: bool,
    pub journal: String,
    pub endpoints: Vec<String>,
}

pub fn key(set: usize) -> String {
    format!("set {set}")
}

/// In a usual run of the tests this does nothing: nobody has told it to.
#[tokio::test]
async fn holds_locks_when_it_is_told_to() {
    let Ok(orders) = std::env::var(ORDERS) else { return };
    let orders = Orders::parse(&orders);
    let over = Arc::new(AtomicBool::new(false));
    let heard = over.clone();
    // Whoever started it closes its input when it is to end, and dying closes it as well.
    std::thread::spawn(move || {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        heard.store(true, Ordering::Relaxed);
    });
    let journal = File::options().append(true).open(&orders.journal).unwrap();
    let chance = StdRng::seed_from_u64(orders.seed ^ (orders.number as u64) << 32 ^ orders.life as u64);
    let at = orders.number;
    let mut holder = Holder { orders, journal, chance, at, channel: None };
    let mut made = 0;
    while !over.load(Ordering::Relaxed) {
        made += 1;
        if holder.add(made).await.is_none() {
            // Another member, which may know more.
            holder.at += 1;
            holder.channel = None;
            sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Orders {
    /// For the environment.
    pub fn text(&self) -> String {
        let Orders { number, life, seed, guarded, journal, endpoints } = self;
        format!("{number} {life} {seed} {guarded} {journal} {}", endpoints.join(" "))
    }

    fn parse(text: &str) -> Orders {
        let words: Vec<&str> = text.split(' ').collect();
        let [number, life, seed, guarded, journal, ref endpoints @ ..] = words[..] else {
            panic!("{ORDERS} is too short: {text}");
        };
        Orders {
            number: number.parse().unwrap(),
            life: life.parse().unwrap(),
            seed: seed.parse().unwrap(),
            guarded: guarded.parse().unwrap(),
            journal: journal.to_owned(),
            endpoints: endpoints.iter().map(|&endpoint| endpoint.to_owned()).collect(),
        }
    }
}

struct Holder {
    orders: Orders,
    journal: File,
    chance: StdRng,
    /// The member it asks.
    at: usize,
    channel: Option<Channel>,
}

/// None where a call was not answered.
type Tried<T> = Option<T>;

impl Holder {
    /// Takes a lock, adds an element to its set, and mostly gives the lock back.
    async fn add(&mut self, made: usize) -> Tried<()> {
        let channel = self.channel().await?;
        let element = format!("{}.{}-{made}", self.orders.number, self.orders.life);
        let session = i64::from(self.chance.random_range(1..i32::MAX)) << 8 | self.orders.number as i64;
        let mut lease = LeaseClient::new(channel.clone());
        answered(lease.lease_grant(LeaseGrantRequest { id: session, ttl: TTL_S })).await?;
        let renewing = tokio::spawn(renew(lease.clone(), session));
        let added = self.hold(channel, session, element).await;
        renewing.abort();
        // Who forgets to close a session leaves it to its end.
        if self.chance.random_bool(0.9) {
            let _ = answered(lease.lease_revoke(LeaseRevokeRequest { id: session })).await;
        }
        added
    }

    async fn hold(&mut self, channel: Channel, session: i64, element: String) -> Tried<()> {
        let set = self.chance.random_range(0..SETS);
        let mut locks = LocksClient::new(channel.clone());
        let grant = acquire(&mut locks, set, session).await?;
        let mut kv = KvClient::new(channel);
        let read = answered(kv.range(RangeRequest { key: key(set).into(), ..Default::default() })).await?;
        let before = read.kvs.first().map(|kv| String::from_utf8(kv.value.to_vec()).unwrap());
        let mut entry = Entry { what: What::Holds, set, element, token: grant.token, revision: 0 };
        self.note(&entry);
        sleep(Duration::from_millis(self.chance.random_range(0..THOUGHT_MAX_MS))).await;
        let mut request = Request::new(PutRequest {
            key: key(set).into(),
            value: format!("{} {}", before.unwrap_or_default(), entry.element).into(),
            ..PutRequest::default()
        });
        if self.orders.guarded {
            request.metadata_mut().insert("tenure-guard", grant.guard?.text.parse().ok()?);
        }
        entry.what = match timeout(CALL_BOUND, kv.put(request)).await {
            Ok(Ok(told)) => {
                entry.revision = told.into_inner().header.unwrap_or_default().revision;
                What::Wrote
            }
            Ok(Err(status)) if status.code() == Code::FailedPrecondition => What::Refused,
            // It may be there or not.
            Ok(Err(_)) | Err(_) => What::Unsure,
        };
        self.note(&entry);
        if entry.what == What::Unsure {
            return None;
        }
        let release = ReleaseLockRequest { name: key(set), token: grant.token, ..Default::default() };
        answered(locks.release(release)).await.map(|_| ())
    }

    async fn channel(&mut self) -> Tried<Channel> {
        if self.channel.is_none() {
            self.channel = connect(&self.orders.endpoints[self.at % self.orders.endpoints.len()]).await;
        }
        self.channel.clone()
    }

    /// In one write, so that nobody who is killed leaves half a line.
    fn note(&mut self, entry: &Entry) {
        self.journal.write_all(format!("{entry}\n").as_bytes()).unwrap();
    }
}

async fn acquire(locks: &mut LocksClient<Channel>, set: usize, session_id: i64) -> Tried<LockGrant> {
    let request = AcquireLockRequest {
        locks: vec![LockSpec { name: key(set), ..LockSpec::default() }],
        session_id,
        owner_id: "holder".into(),
        wait_ms: Some(20_000),
        ..AcquireLockRequest::default()
    };
    let answer = timeout(Duration::from_secs(30), locks.acquire(request)).await.ok()?.ok()?.into_inner();
    if answer.outcome() != Outcome::Granted { None } else { answer.grants.into_iter().next() }
}

async fn renew(mut lease: LeaseClient<Channel>, id: i64) {
    loop {
        sleep(RENEWAL_PAUSE).await;
        let beats = tokio_stream::iter([LeaseKeepAliveRequest { id }]);
        if let Ok(Ok(answers)) = timeout(CALL_BOUND, lease.lease_keep_alive(beats)).await {
            let _ = timeout(CALL_BOUND, answers.into_inner().message()).await;
        }
    }
}

async fn answered<T>(call: impl Future<Output = Result<Response<T>, Status>>) -> Tried<T> {
    Some(timeout(CALL_BOUND, call).await.ok()?.ok()?.into_inner())
}
