//! What a keepalive is answered with while a cluster is asked for more than it lets in: more writes than may be under way, more renewals
//! than anybody reads the answers of, and watchers that do not read. A TTL or `Unavailable`, and nothing else: never the refusal that
//! the writes are told, which Patroni takes for the loss of its lease. And nobody is told that a lease is gone before the time is over that
//! was last acknowledged.

#![allow(clippy::unwrap_used)]

mod harness;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use harness::Cluster;
use parking_lot::Mutex;
use tenure_grpc::etcdserverpb::kv_client::KvClient;
use tenure_grpc::etcdserverpb::lease_client::LeaseClient;
use tenure_grpc::etcdserverpb::watch_client::WatchClient;
use tenure_grpc::tenure_v1::sessions_client::SessionsClient;
use tenure_proto::etcdserverpb::watch_request::RequestUnion;
use tenure_proto::etcdserverpb::{
    LeaseGrantRequest, LeaseKeepAliveRequest, PutRequest, WatchCreateRequest, WatchRequest,
};
use tenure_proto::tenure::v1::BeatRequest;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_stream::StreamExt;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

const TTL: i64 = 15;
const LEASES: usize = 12;
/// A member lets in 16,384 writes at once.
const WRITERS: usize = 18_000;
const CONNECTIONS: usize = 24;
/// Streams whose answers nobody reads, and what is asked on each.
const DEAF: usize = 20;
const RENEWALS: usize = 5_000;
const WATCHES: usize = 20;
/// Whoever asks gives up after this.
const PATIENCE: Duration = Duration::from_secs(15);
const PAUSE: Duration = Duration::from_millis(5);
/// For what must come to pass.
const BOUND: Duration = Duration::from_secs(90);
const LONG: Duration = Duration::from_secs(60);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Answer {
    Ttl(i64),
    /// The TTL was zero before the time was over that was acknowledged last.
    Early,
    Refused(String, String),
    /// None came in time, or the connection broke.
    Silence,
}

/// The ways to keep a lease alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    Stream,
    Beat,
    Gateway,
}

struct Keepers {
    leases: Vec<i64>,
    /// Until when each must live.
    until: Mutex<Vec<Instant>>,
    renewed: AtomicUsize,
    stop: AtomicBool,
}

impl Keepers {
    async fn keep(self: Arc<Self>, endpoint: String, way: Way) -> BTreeMap<(Way, Answer), usize> {
        let channel = Endpoint::from_shared(endpoint.clone()).unwrap().connect_lazy();
        let mut tally = BTreeMap::new();
        let mut stream = None;
        for lease in (0..LEASES).cycle() {
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
            let (id, asked) = (self.leases[lease], Instant::now());
            let told = async {
                match way {
                    Way::Stream => on_one_stream(&channel, &mut stream, id).await,
                    Way::Beat => beat(&channel, id).await,
                    Way::Gateway => over_http(&endpoint, id).await,
                }
            };
            let answer = match tokio::time::timeout(PATIENCE, told).await {
                Ok(Ok(ttl)) => self.judge(lease, asked, ttl),
                Ok(Err(answer)) => answer,
                Err(_) => Answer::Silence,
            };
            if !matches!(answer, Answer::Ttl(_)) {
                stream = None;
            }
            *tally.entry((way, answer)).or_default() += 1;
            tokio::time::sleep(PAUSE).await;
        }
        tally
    }

    fn judge(&self, lease: usize, asked: Instant, ttl: i64) -> Answer {
        let until = &mut self.until.lock()[lease];
        if ttl > 0 {
            *until = (*until).max(asked + Duration::from_secs(ttl.unsigned_abs()));
            self.renewed.fetch_add(1, Ordering::Relaxed);
        } else if Instant::now() < *until {
            return Answer::Early;
        }
        Answer::Ttl(ttl)
    }

    /// Waits for further renewals, by whomever.
    async fn go_on(&self, renewals: usize) {
        at_least(&self.renewed, renewals, "renewals go on").await;
    }
}

/// Waits until so many more were counted.
async fn at_least(counter: &AtomicUsize, more: usize, what: &str) {
    let goal = counter.load(Ordering::Relaxed) + more;
    let waiting = async {
        while counter.load(Ordering::Relaxed) < goal {
            tokio::time::sleep(PAUSE).await;
        }
    };
    tokio::time::timeout(BOUND, waiting).await.expect(what);
}

type Stream = (tokio::sync::mpsc::Sender<LeaseKeepAliveRequest>, tonic::Streaming<LeaseKeepAliveAnswer>);
type LeaseKeepAliveAnswer = tenure_proto::etcdserverpb::LeaseKeepAliveResponse;

/// On a stream that stays open from one question to the next.
async fn on_one_stream(channel: &Channel, stream: &mut Option<Stream>, id: i64) -> Result<i64, Answer> {
    let question = LeaseKeepAliveRequest { id };
    if stream.is_none() {
        let (sender, questions) = tokio::sync::mpsc::channel(1);
        sender.send(question).await.map_err(|_| Answer::Silence)?;
        let questions = tokio_stream::wrappers::ReceiverStream::new(questions);
        let answers = LeaseClient::new(channel.clone()).lease_keep_alive(questions).await.map_err(refusal)?;
        *stream = Some((sender, answers.into_inner()));
    } else if let Some((sender, _)) = stream {
        sender.send(question).await.map_err(|_| Answer::Silence)?;
    }
    let (_, answers) = stream.as_mut().expect("it was opened");
    Ok(answers.message().await.map_err(refusal)?.ok_or(Answer::Silence)?.ttl)
}

async fn beat(channel: &Channel, id: i64) -> Result<i64, Answer> {
    let told = SessionsClient::new(channel.clone()).beat(BeatRequest { sessions: vec![id] }).await;
    Ok(told.map_err(refusal)?.into_inner().beats[0].ttl)
}

/// As Patroni asks: one question, and the stream ends behind its answer.
async fn over_http(endpoint: &str, id: i64) -> Result<i64, Answer> {
    let body = format!(r#"{{"ID":"{id}"}}"#);
    let head = "POST /v3/lease/keepalive HTTP/1.1\r\nHost: here\r\nConnection: close\r\nContent-Type: application/json";
    let request = format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let asked = async {
        let mut connection = TcpStream::connect(endpoint.trim_start_matches("http://")).await?;
        connection.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    let answer = asked.await.map_err(|_| Answer::Silence)?;
    // Chunked or not, the object stands in one line.
    let line = answer.lines().find(|line| line.starts_with('{')).ok_or(Answer::Silence)?;
    let told: serde_json::Value =
        serde_json::from_str(line).map_err(|_| Answer::Refused("no JSON".into(), answer.clone()))?;
    match told.get("result") {
        Some(result) => Ok(result["TTL"].as_str().map_or(0, |ttl| ttl.parse().unwrap())),
        None => {
            let error = if told["error"].is_object() { &told["error"] } else { &told };
            let code = Code::from(i32::try_from(error["code"].as_i64().unwrap_or_default()).unwrap());
            Err(Answer::Refused(format!("{code:?}"), error["message"].as_str().unwrap_or_default().into()))
        }
    }
}

/// What the client's own library says of a connection that broke is no answer of a server's.
fn refusal(status: Status) -> Answer {
    if std::error::Error::source(&status).is_some() {
        return Answer::Silence;
    }
    Answer::Refused(format!("{:?}", status.code()), status.message().to_owned())
}

/// All that is too much, until it is dropped.
struct Flood {
    tasks: JoinSet<()>,
    refused: Arc<AtomicUsize>,
}

impl Flood {
    fn start(endpoint: &str, lease: i64) -> Flood {
        let mut flood = Flood { tasks: JoinSet::new(), refused: Arc::default() };
        let channel = || Endpoint::from_shared(endpoint.to_owned()).unwrap().connect_lazy();
        let channels: Vec<Channel> = (0..CONNECTIONS).map(|_| channel()).collect();
        for writer in 0..WRITERS {
            let (channel, refused) = (channels[writer % CONNECTIONS].clone(), flood.refused.clone());
            flood.tasks.spawn(write(channel, writer, refused));
        }
        for _ in 0..DEAF {
            flood.tasks.spawn(ask_and_never_listen(channel(), lease));
            flood.tasks.spawn(watch_and_never_listen(channel()));
        }
        flood
    }
}

/// Again and again, as soon as there was an answer.
async fn write(channel: Channel, writer: usize, refused: Arc<AtomicUsize>) {
    loop {
        let put = PutRequest { key: format!("flood/{writer}").into(), ..PutRequest::default() };
        let answer = KvClient::new(channel.clone()).put(put).await;
        if answer.is_err_and(|status| status.message() == "etcdserver: too many requests") {
            refused.fetch_add(1, Ordering::Relaxed);
        }
    }
}

async fn ask_and_never_listen(channel: Channel, id: i64) {
    let questions = tokio_stream::iter(vec![LeaseKeepAliveRequest { id }; RENEWALS]);
    let _unread = LeaseClient::new(channel).lease_keep_alive(questions.chain(tokio_stream::pending())).await;
    std::future::pending().await
}

async fn watch_and_never_listen(channel: Channel) {
    let create =
        WatchCreateRequest { key: "flood/".into(), range_end: "flood0".into(), ..Default::default() };
    let request = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    let requests = tokio_stream::iter(vec![request; WATCHES]).chain(tokio_stream::pending());
    let _unread = WatchClient::new(channel).watch(requests).await;
    std::future::pending().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_keepalive_is_answered_with_a_ttl_or_unavailable_however_much_else_is_asked() {
    let cluster = Cluster::start(3);
    let mut client = LeaseClient::connect(cluster.members[0].endpoint()).await.unwrap();
    let (mut leases, mut until) = (Vec::new(), Vec::new());
    for _ in 0..LEASES {
        until.push(Instant::now());
        leases.push(client.lease_grant(LeaseGrantRequest { ttl: TTL, id: 0 }).await.unwrap().into_inner().id);
    }
    let lease = leases[0];
    let (renewed, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let keepers = Arc::new(Keepers { leases, until: Mutex::new(until), renewed, stop });
    let mut keeping = JoinSet::new();
    for endpoint in cluster.endpoints() {
        for way in [Way::Stream, Way::Beat, Way::Gateway] {
            keeping.spawn(keepers.clone().keep(endpoint.clone(), way));
        }
    }
    keepers.go_on(200).await;

    let flooded = cluster.leader().await;
    let flood = Flood::start(&cluster.members[flooded].endpoint(), lease);
    let begun = Instant::now();
    loop {
        // While nothing can be committed, writes gather up to the bound, however fast the machine is.
        let others = || cluster.members.iter().enumerate().filter(|(member, _)| *member != flooded);
        others().for_each(|(_, member)| member.freeze());
        at_least(&flood.refused, 100, "more is asked than is let in").await;
        others().for_each(|(_, member)| member.go_on());
        keepers.go_on(200).await;
        if !harness::long() || begun.elapsed() > LONG {
            break;
        }
    }
    eprintln!("{} writes were refused", flood.refused.load(Ordering::Relaxed));
    drop(flood);
    keepers.go_on(200).await;

    keepers.stop.store(true, Ordering::Relaxed);
    let mut tally = BTreeMap::new();
    while let Some(told) = keeping.join_next().await {
        told.unwrap().into_iter().for_each(|(answer, count)| *tally.entry(answer).or_insert(0) += count);
    }
    eprintln!("{tally:#?}");
    let allowed = |answer: &Answer| match answer {
        Answer::Ttl(ttl) => *ttl == TTL,
        Answer::Refused(code, _) => *code == format!("{:?}", Code::Unavailable),
        Answer::Early => false,
        Answer::Silence => true,
    };
    let wrong: Vec<_> = tally.keys().filter(|(_, answer)| !allowed(answer)).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}
