//! Fan-out: many watchers on few streams, all watching the same key or prefix while others put. Every event must reach every
//! watcher, once and in order; each put carries the time it was due, so that each event tells how old it is.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use clap::Args;
use rand::rngs::SmallRng;
use tenure_proto::etcdserverpb::watch_request::RequestUnion;
use tenure_proto::etcdserverpb::{PutRequest, WatchCreateRequest, WatchRequest, WatchResponse};
use tokio::sync::watch::Receiver;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::data::{Keys, Values};
use crate::failure::Failure;
use crate::flags::duration;
use crate::grpc::{Connection, Incoming, Method, Outgoing, decode};
use crate::outcome::{Metric, Outcome};
use crate::run::{Caller, Run, Turn};
use crate::session::Session;
use crate::workload::{PUT, WATCH};

/// The time a put was due, at the head of its value.
const STAMP_BYTES: usize = 8;
/// Watchers must be created within this time.
const CREATE_LIMIT: Duration = Duration::from_secs(60);
const DRAIN_POLL: Duration = Duration::from_millis(5);

#[derive(Args, Clone, Debug)]
pub(crate) struct Watch {
    /// Watchers, each of which must see every put
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) watchers: u32,

    /// Streams the watchers are spread over [default: one per connection]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) streams: Option<u32>,

    /// Watch the whole key space and put keys all over it, instead of one key
    #[arg(long)]
    pub(crate) whole: bool,

    /// Events still missing after so long without any new one are lost
    #[arg(long, default_value = "10s", value_parser = duration)]
    pub(crate) silence: Duration,
}

impl Default for Watch {
    fn default() -> Self {
        Self { watchers: 100, streams: None, whole: false, silence: Duration::from_secs(10) }
    }
}

impl Watch {
    pub(crate) async fn run(&self, session: &Session) -> Result<Outcome, Failure> {
        if session.value_size < STAMP_BYTES {
            return Err(Failure::setup(format!("watch needs --value-size {STAMP_BYTES} or more")));
        }
        let connections = session.connect().await?;
        let streams = self.open(session, &connections).await?;

        let epoch = Instant::now();
        let run = Run::begin(session, "watch", session.load.limit.clone());
        let (delivered, acknowledged) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let (end, ended) = tokio::sync::watch::channel(false);
        let mut receiving = JoinSet::new();
        for (lane, mut stream) in streams.into_iter().enumerate() {
            let (run, delivered, mut ended) = (run.clone(), delivered.clone(), ended.clone());
            receiving.spawn(async move {
                if let Err(failure) = stream.receive(&run, lane, epoch, &delivered, &mut ended).await {
                    run.fail(lane, &failure);
                }
                stream.seen
            });
        }
        let values = session.values();
        let putting = run.spawn(session.callers(&connections, |connection, n| Putter {
            method: connection.method(PUT),
            keys: self.whole.then(|| session.keys.clone()),
            key: session.keys.key(0),
            values: values.clone(),
            random: session.random(n),
            epoch,
            acknowledged: acknowledged.clone(),
        }));
        let drain = drained(&delivered, &acknowledged, u64::from(self.watchers), self.silence);
        let measured = run.finish(putting, drain).await?;
        end.send_replace(true);
        let seen = receiving.join_all().await.into_iter().flatten().collect::<Vec<_>>();

        let mut outcome = Outcome::of_requests(session, "watch", measured);
        self.judge(&mut outcome, &seen, acknowledged.load(Ordering::Relaxed));
        Ok(outcome)
    }

    /// Opens the streams and waits until every watcher is created.
    async fn open(&self, session: &Session, connections: &[Connection]) -> Result<Vec<Stream>, Failure> {
        let count =
            self.streams.map_or(connections.len(), |streams| streams as usize).min(self.watchers as usize);
        let (key, range_end) =
            if self.whole { session.keys.all() } else { (session.keys.key(0), Bytes::new()) };
        let mut streams = Vec::with_capacity(count);
        for n in 0..count {
            let watchers = (n..self.watchers as usize).step_by(count).count();
            let requests = (0..watchers).map(|_| (key.clone(), range_end.clone()));
            streams.push(Stream::open(&connections[n % connections.len()], requests).await?);
        }
        Ok(streams)
    }

    fn judge(&self, outcome: &mut Outcome, seen: &[Seen], acknowledged: u64) {
        let lost = seen.iter().map(|one| acknowledged.saturating_sub(one.events)).sum::<u64>();
        let disordered = seen.iter().map(|one| one.disordered).sum::<u64>();
        if lost > 0 {
            outcome.violations.push(format!("{lost} events of {acknowledged} puts were lost"));
        }
        if disordered > 0 {
            outcome.violations.push(format!("{disordered} events came twice or out of order"));
        }
        let of = |kind: &str| {
            outcome.kinds.iter().find(|(name, _)| *name == kind).map(|(_, histogram)| histogram.clone())
        };
        let (events, puts) = (of(EVENT), of(PUT_KIND));
        outcome.facts.push(Metric::neither("watchers", "", f64::from(self.watchers)));
        let puts_per_s = puts.map_or(0.0, |puts| puts.len() as f64 / outcome.span.elapsed.as_secs_f64());
        outcome.facts.push(Metric::higher("puts", "/s", puts_per_s));
        outcome.facts.push(Metric::lower("lost", "events", lost as f64));
        outcome.latency = events.unwrap_or_else(crate::tally::empty_histogram);
        outcome.operations = outcome.latency.len();
        outcome.unit = "events";
    }
}

const EVENT: &str = "event";
const PUT_KIND: &str = "put";

/// What one watcher saw.
#[derive(Clone, Copy, Default)]
pub(crate) struct Seen {
    pub(crate) events: u64,
    pub(crate) disordered: u64,
    last_revision: i64,
}

/// One stream with its watchers; watch ids are the places in `seen`, counted from 1.
pub(crate) struct Stream {
    // Dropping it would reset the stream.
    _out: Outgoing,
    incoming: Incoming,
    pub(crate) seen: Vec<Seen>,
}

impl Stream {
    /// Creates a watcher for each key and range end, and waits until the server says that all are created.
    pub(crate) async fn open(
        connection: &Connection,
        requests: impl Iterator<Item = (Bytes, Bytes)>,
    ) -> Result<Self, Failure> {
        let (mut out, incoming) = connection.method(WATCH).open().await?;
        let mut watch_id = 0;
        for (key, range_end) in requests {
            watch_id += 1;
            let create = WatchCreateRequest { key, range_end, watch_id, ..Default::default() };
            out.send(&WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) })?;
        }
        let mut stream = Self { _out: out, incoming, seen: vec![Seen::default(); watch_id as usize] };
        timeout(CREATE_LIMIT, stream.all_created())
            .await
            .map_err(|_| Failure::setup(format!("watchers were not created within {CREATE_LIMIT:?}")))??;
        Ok(stream)
    }

    async fn all_created(&mut self) -> Result<(), Failure> {
        let mut missing = self.seen.len();
        while missing > 0 {
            let response = self.next().await?;
            missing -= usize::from(response.created);
        }
        Ok(())
    }

    /// The next response, which is never a cancellation.
    pub(crate) async fn next(&mut self) -> Result<WatchResponse, Failure> {
        let ended = || Failure::disconnected("the server ended the watch stream");
        let response: WatchResponse = decode(self.incoming.next().await?.ok_or_else(ended)?)?;
        if response.canceled {
            return Err(Failure::wrong(format!(
                "watcher {} was cancelled: {}",
                response.watch_id, response.cancel_reason
            )));
        }
        Ok(response)
    }

    async fn receive(
        &mut self,
        run: &Run,
        lane: usize,
        epoch: Instant,
        delivered: &AtomicU64,
        ended: &mut Receiver<bool>,
    ) -> Result<(), Failure> {
        loop {
            let response = tokio::select! {
                biased;
                response = self.next() => response?,
                _ = ended.wait_for(|ended| *ended) => return Ok(()),
            };
            let place = usize::try_from(response.watch_id - 1).ok().filter(|place| *place < self.seen.len());
            let Some(place) = place else {
                return Err(Failure::wrong(format!(
                    "an event for watcher {}, which does not exist",
                    response.watch_id
                )));
            };
            let seen = &mut self.seen[place];
            for kv in response.events.iter().filter_map(|event| event.kv.as_ref()) {
                seen.events += 1;
                seen.disordered += u64::from(kv.mod_revision <= seen.last_revision);
                seen.last_revision = kv.mod_revision;
                if let Some(stamp) = kv.value.first_chunk::<STAMP_BYTES>() {
                    run.record(lane, EVENT, epoch + Duration::from_nanos(u64::from_be_bytes(*stamp)));
                }
            }
            delivered.fetch_add(response.events.len() as u64, Ordering::Relaxed);
        }
    }
}

/// Returns when every watcher has every acknowledged put, or when nothing more comes.
async fn drained(delivered: &AtomicU64, acknowledged: &AtomicU64, watchers: u64, silence: Duration) {
    let (mut last, mut since) = (0, Instant::now());
    loop {
        let now = delivered.load(Ordering::Relaxed);
        if now >= acknowledged.load(Ordering::Relaxed) * watchers || since.elapsed() > silence {
            return;
        }
        if now > last {
            (last, since) = (now, Instant::now());
        }
        sleep(DRAIN_POLL).await;
    }
}

struct Putter {
    method: Method,
    keys: Option<Keys>,
    key: Bytes,
    values: Values,
    random: SmallRng,
    epoch: Instant,
    acknowledged: Arc<AtomicU64>,
}

impl Caller for Putter {
    async fn step(&mut self, turn: Turn) -> Result<&'static str, Failure> {
        let key = self.keys.as_ref().map_or_else(|| self.key.clone(), |keys| keys.random(&mut self.random));
        let mut value = BytesMut::from(self.values.random(&mut self.random));
        let age =
            u64::try_from(turn.due.saturating_duration_since(self.epoch).as_nanos()).unwrap_or(u64::MAX);
        value[..STAMP_BYTES].copy_from_slice(&age.to_be_bytes());
        self.method.call(&PutRequest { key, value: value.freeze(), ..Default::default() }).await?;
        self.acknowledged.fetch_add(1, Ordering::Relaxed);
        Ok(PUT_KIND)
    }
}
