//! The clients: workers that put, delete, swap and read a few keys, holders that keep leases alive and then let them run out,
//! and followers that watch, now here, now there. All of them write down what they were told and judge nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use prost::bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tenure_grpc::etcdserverpb::watch_client::WatchClient;
use tenure_proto::etcdserverpb::{
    WatchCreateRequest, WatchRequest, WatchResponse, watch_request::RequestUnion,
};
use tenure_proto::mvccpb::{Event, KeyValue};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_stream::StreamExt;
use tonic::Streaming;

use crate::caller::{Caller, connect};
use crate::history::{Action, Answer, Delivery, Moment, Piece, Recorder, SECOND, Watch};

const WORKERS: usize = 8;
const HOLDERS: usize = 12;
const FOLLOWERS: usize = 4;
/// Keys that workers meet on at a time, and how long that time is: so that each key's history stays short enough to be
/// searched.
const KEYS: u32 = 6;
const EPOCH: Moment = 5 * SECOND;
/// A worker rests up to so long, so that a run has thousands of operations and not millions.
const REST_MAX_MS: u64 = 40;
/// The shortest that the servers grant at their election timeout is 2 s.
const TTLS_S: std::ops::Range<i64> = 2..5;
/// How long a holder waits to see its lease gone. A cluster without a leader removes nothing.
const REMOVAL_BOUND: Duration = Duration::from_secs(60);

/// How long followers may lag behind a cluster without faults.
const TOLD_BOUND: Duration = Duration::from_secs(20);

/// All clients at work.
pub struct Load {
    stop: Arc<AtomicBool>,
    /// Set later than `stop`, once there is nothing more to be told.
    hang_up: Arc<AtomicBool>,
    clients: JoinSet<()>,
    followers: JoinSet<()>,
    /// For each follower, the last revision it was told of.
    told: Vec<Arc<AtomicI64>>,
}

impl Load {
    pub fn start(endpoints: &Arc<Vec<String>>, recorder: &Arc<Recorder>, seed: u64) -> Load {
        let mut load = Load {
            stop: Arc::default(),
            hang_up: Arc::default(),
            clients: JoinSet::new(),
            followers: JoinSet::new(),
            told: (0..FOLLOWERS).map(|_| Arc::default()).collect(),
        };
        for number in 0..WORKERS + HOLDERS {
            let caller = Caller::new(number, endpoints.clone(), recorder.clone());
            let chance = StdRng::seed_from_u64(seed ^ number as u64);
            let client = Client { number, caller, chance, recorder: recorder.clone(), made: 0 };
            let stop = load.stop.clone();
            if number < WORKERS {
                load.clients.spawn(client.work(stop));
            } else {
                load.clients.spawn(client.hold_leases(stop));
            }
        }
        for number in 0..FOLLOWERS {
            let follower = Follower {
                number,
                endpoints: endpoints.clone(),
                recorder: recorder.clone(),
                told: load.told[number].clone(),
                chance: StdRng::seed_from_u64(seed ^ 0xf0 ^ number as u64),
            };
            load.followers.spawn(follower.follow(load.hang_up.clone()));
        }
        load
    }

    /// Lets workers and holders end what they are at; followers go on.
    pub async fn stop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.clients.join_next().await {
            ended.expect("a client cannot panic");
        }
    }

    /// Waits until those who follow everything have been told of this revision; what they never are told of shows as a gap.
    pub async fn told_up_to(&self, revision: i64) {
        let lag = || {
            let mut whole = self.told.iter().enumerate().filter(|(number, _)| follows_everything(*number));
            whole.any(|(_, told)| told.load(Ordering::Relaxed) < revision)
        };
        let told = async {
            while lag() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let _ = timeout(TOLD_BOUND, told).await;
    }

    pub async fn hang_up(mut self) {
        self.hang_up.store(true, Ordering::Relaxed);
        while let Some(ended) = self.followers.join_next().await {
            ended.expect("a follower cannot panic");
        }
    }
}

struct Client {
    number: usize,
    caller: Caller,
    chance: StdRng,
    recorder: Arc<Recorder>,
    /// Values and leases made so far: no two clients, and no two writes, make the same.
    made: u64,
}

impl Client {
    fn value(&mut self) -> Bytes {
        self.made += 1;
        format!("{}.{}", self.number, self.made).into()
    }

    fn key(&mut self) -> Bytes {
        let epoch = self.recorder.now() / EPOCH;
        format!("w/{epoch:04}/{}", self.chance.random_range(0..KEYS)).into()
    }

    async fn work(mut self, stop: Arc<AtomicBool>) {
        while !stop.load(Ordering::Relaxed) {
            let key = self.key();
            match self.chance.random_range(0..100) {
                0..30 => drop(self.put(key).await),
                30..38 => drop(self.caller.ask(Action::Delete { key }).await),
                38..58 => self.swap(key).await,
                58..88 => drop(self.caller.ask(Action::Get { key, serializable: false }).await),
                _ => drop(self.caller.ask(Action::Get { key, serializable: true }).await),
            }
            let rest = self.chance.random_range(0..=REST_MAX_MS);
            tokio::time::sleep(Duration::from_millis(rest)).await;
        }
    }

    async fn put(&mut self, key: Bytes) -> Option<Answer> {
        let value = self.value();
        let told = self.caller.ask(Action::Put { key, value, lease: 0 }).await;
        told.map(|(_, answer)| answer)
    }

    /// Compare and swap, on what may be an old reading.
    async fn swap(&mut self, key: Bytes) {
        let serializable = self.chance.random_bool(0.5);
        let Some((_, Answer::Got(read))) =
            self.caller.ask(Action::Get { key: key.clone(), serializable }).await
        else {
            return;
        };
        let unchanged_since = read.as_ref().map_or(0, |kv| kv.mod_revision);
        let expected = read.map(|kv: KeyValue| kv.value);
        let value = self.value();
        self.caller.ask(Action::Swap { key, unchanged_since, expected, value }).await;
    }

    /// Grants a lease, hangs keys on it, keeps it alive for a while, lets it run out (or revokes it), sees it go, and begins
    /// again.
    async fn hold_leases(mut self, stop: Arc<AtomicBool>) {
        while !stop.load(Ordering::Relaxed) {
            self.made += 1;
            let lease = ((self.number as i64 + 1) << 32) | self.made as i64;
            let ttl_s = self.chance.random_range(TTLS_S);
            if self.caller.ask(Action::Grant { lease, ttl_s }).await.is_none() {
                continue;
            }
            for number in 0..3 {
                let key = format!("lease/{lease:x}/{number}").into();
                let value = self.value();
                self.caller.ask(Action::Put { key, value, lease }).await;
            }
            let renewals = self.chance.random_range(1..8);
            for _ in 0..renewals {
                let rest = Duration::from_millis(ttl_s as u64 * self.chance.random_range(150..400));
                tokio::time::sleep(rest).await;
                let told = self.caller.ask(Action::Renew { lease }).await;
                if let Some((_, Answer::Renewed(0))) = told {
                    break;
                }
            }
            if self.chance.random_bool(0.15) {
                self.caller.ask(Action::Revoke { lease }).await;
            }
            self.see_gone(lease).await;
        }
    }

    async fn see_gone(&mut self, lease: i64) {
        let gone = async {
            loop {
                let told = self.caller.ask(Action::TimeToLive { lease }).await;
                if let Some((_, Answer::Left(-1))) = told {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        };
        // Whether they all went in the end is asked once more when all is over.
        let _ = timeout(REMOVAL_BOUND, gone).await;
    }
}

/// Watches everything, or the workers' keys only, from revision 1 on, and takes up again behind the last revision seen whenever
/// it is cut off, nothing comes, or it likes to.
struct Follower {
    number: usize,
    endpoints: Arc<Vec<String>>,
    recorder: Arc<Recorder>,
    told: Arc<AtomicI64>,
    chance: StdRng,
}

fn follows_everything(number: usize) -> bool {
    number.is_multiple_of(2)
}

impl Follower {
    async fn follow(mut self, hang_up: Arc<AtomicBool>) {
        let (from, to) = if follows_everything(self.number) { ("\0", "\0") } else { ("w/", "w0") };
        let mut watch = Watch {
            name: format!("watch {}", self.number),
            from: Bytes::from_static(from.as_bytes()),
            to: Bytes::from_static(to.as_bytes()),
            pieces: Vec::new(),
        };
        let mut next = 1;
        let mut member = self.number;
        while !hang_up.load(Ordering::Relaxed) {
            member = (member + 1) % self.endpoints.len();
            let patience = Duration::from_millis(self.chance.random_range(1_500..6_000));
            if let Some(piece) = self.piece(&watch, member, next, patience, &hang_up).await {
                let told = piece.deliveries.iter().flat_map(|delivery| &delivery.events);
                next = told.map(|event| revision(event) + 1).max().unwrap_or(next).max(next);
                watch.pieces.push(piece);
            } else {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        self.recorder.watch(watch);
    }

    /// One connection, for as long as it is told something, but not much longer than its patience.
    async fn piece(
        &self,
        watch: &Watch,
        member: usize,
        from: i64,
        patience: Duration,
        hang_up: &AtomicBool,
    ) -> Option<Piece> {
        let opened = timeout(patience, open(&self.endpoints[member], &watch.from, &watch.to, from)).await;
        let mut stream = opened.ok().flatten()?;
        let mut piece = Piece { member, from, deliveries: Vec::new() };
        let end = tokio::time::Instant::now() + patience;
        while tokio::time::Instant::now() < end {
            let quiet = if hang_up.load(Ordering::Relaxed) { 300 } else { 1_500 };
            let Ok(Ok(Some(response))) = timeout(Duration::from_millis(quiet), stream.message()).await else {
                break;
            };
            if response.canceled {
                break;
            }
            let (header, events) = (response.header.into(), response.events);
            self.told.fetch_max(events.last().map_or(0, revision), Ordering::Relaxed);
            piece.deliveries.push(Delivery { at: self.recorder.now(), header, events });
        }
        Some(piece)
    }
}

fn revision(event: &Event) -> i64 {
    event.kv.as_ref().map_or(0, |kv| kv.mod_revision)
}

/// A watch, with its first message taken off; None if there is none to be had.
pub async fn open(endpoint: &str, from: &Bytes, to: &Bytes, start: i64) -> Option<Streaming<WatchResponse>> {
    let create = WatchCreateRequest {
        key: from.clone(),
        range_end: to.clone(),
        start_revision: start,
        prev_kv: true,
        ..WatchCreateRequest::default()
    };
    let request = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    let mut client = WatchClient::new(connect(endpoint).await?).max_decoding_message_size(usize::MAX);
    // The sending side stays open: its end would be the watch's end.
    let requests = tokio_stream::once(request).chain(tokio_stream::pending());
    let mut stream = client.watch(requests).await.ok()?.into_inner();
    let first = stream.message().await.ok()??;
    (first.created && !first.canceled).then_some(stream)
}
