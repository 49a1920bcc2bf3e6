//! What a keepalive is answered with while leaders are killed, frozen and restarted: a TTL, 0 once the lease has really ended, or
//! `Unavailable`, and nothing else. A client such as Patroni takes any other answer for the loss of its lease and gives up a healthy
//! primary (its handling was observed: only these are harmless).

#![allow(clippy::unwrap_used)]

mod harness;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use harness::Cluster;
use tenure_grpc::etcdserverpb::lease_client::LeaseClient;
use tenure_grpc::tenure_v1::sessions_client::SessionsClient;
use tenure_proto::etcdserverpb::{LeaseGrantRequest, LeaseKeepAliveRequest, LeaseRevokeRequest};
use tenure_proto::tenure::v1::BeatRequest;
use tokio::task::JoinSet;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

/// Longer than any silence in this test, so that nothing but the last step ends the lease.
const TTL: i64 = 120;
/// A frozen member answers nothing, and one that knows no leader answers after seven seconds; whoever asks gives up after this.
const PATIENCE: Duration = Duration::from_secs(15);
const PAUSE: Duration = Duration::from_millis(2);
/// Answers to wait for behind each fault.
const ANSWERS: usize = 200;

/// What a question was answered with.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Answer {
    Ttl(i64),
    Refused(String, String),
    /// None came: the connection broke, or nobody spoke.
    Silence,
    /// The stream ended in good order, but without an answer. Over HTTP that is a body of nothing, which is no JSON.
    Nothing,
}

impl From<Status> for Answer {
    fn from(status: Status) -> Answer {
        // What the client's own library says of a connection that broke is no answer of a server's; that a server reset the stream is.
        const OWN: [&str; 4] = ["transport error", "h2 protocol error", "connect", "operation was canceled"];
        let text = status.message().to_owned();
        let own = std::error::Error::source(&status).is_some() || OWN.iter().any(|own| text.contains(own));
        if own && !text.contains("stream error received") {
            return Answer::Silence;
        }
        Answer::Refused(format!("{:?}", status.code()), text)
    }
}

/// By whom, through which service, and what; how often.
type Tally = BTreeMap<(&'static str, Answer), usize>;

struct Callers {
    tasks: JoinSet<Tally>,
    stop: Arc<AtomicBool>,
    answers: Arc<AtomicUsize>,
    refusals: Arc<AtomicUsize>,
}

impl Callers {
    /// Two at each member, one for each service, one question at a time.
    fn start(cluster: &Cluster, lease: i64) -> Callers {
        let mut callers = Callers {
            tasks: JoinSet::new(),
            stop: Arc::default(),
            answers: Arc::default(),
            refusals: Arc::default(),
        };
        for endpoint in cluster.endpoints() {
            for service in ["Lease", "Sessions"] {
                let (stop, answers) = (callers.stop.clone(), callers.answers.clone());
                let refusals = callers.refusals.clone();
                let channel = Endpoint::from_shared(endpoint.clone()).unwrap().connect_lazy();
                callers.tasks.spawn(async move {
                    let mut tally = Tally::new();
                    while !stop.load(Ordering::Relaxed) {
                        let asked = ask(channel.clone(), service, lease);
                        let answer = tokio::time::timeout(PATIENCE, asked).await.unwrap_or(Answer::Silence);
                        answers.fetch_add(usize::from(answer == Answer::Ttl(TTL)), Ordering::Relaxed);
                        refusals
                            .fetch_add(usize::from(matches!(answer, Answer::Refused(..))), Ordering::Relaxed);
                        *tally.entry((service, answer)).or_default() += 1;
                        tokio::time::sleep(PAUSE).await;
                    }
                    tally
                });
            }
        }
        callers
    }

    /// Waits for further renewals, through whomever.
    async fn go_on(&self) {
        let goal = self.answers.load(Ordering::Relaxed) + ANSWERS;
        let waiting = async {
            while self.answers.load(Ordering::Relaxed) < goal {
                tokio::time::sleep(PAUSE).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), waiting).await.expect("renewals go on");
    }

    /// Waits until a server has said twice that it cannot renew.
    async fn refused(&self) {
        let goal = self.refusals.load(Ordering::Relaxed) + 2;
        let waiting = async {
            while self.refusals.load(Ordering::Relaxed) < goal {
                tokio::time::sleep(PAUSE).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), waiting)
            .await
            .expect("somebody is told that it is unavailable");
    }

    async fn finish(mut self) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Tally::new();
        while let Some(tally) = self.tasks.join_next().await {
            for (answer, count) in tally.unwrap() {
                *all.entry(answer).or_default() += count;
            }
        }
        all
    }
}

async fn ask(channel: Channel, service: &str, lease: i64) -> Answer {
    match service {
        "Lease" => {
            let question = tokio_stream::once(LeaseKeepAliveRequest { id: lease });
            let told = async {
                let mut answers = LeaseClient::new(channel).lease_keep_alive(question).await?.into_inner();
                Ok::<_, Status>(
                    answers.message().await?.map_or(Answer::Nothing, |told| Answer::Ttl(told.ttl)),
                )
            };
            told.await.unwrap_or_else(Answer::from)
        }
        _ => match SessionsClient::new(channel).beat(BeatRequest { sessions: vec![lease] }).await {
            Ok(told) => Answer::Ttl(told.into_inner().beats[0].ttl),
            Err(status) => Answer::from(status),
        },
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_keepalive_is_answered_with_a_ttl_or_unavailable_whatever_happens_to_leaders() {
    let mut cluster = Cluster::start(3);
    let mut client = LeaseClient::connect(cluster.members[0].endpoint()).await.unwrap();
    let lease = client.lease_grant(LeaseGrantRequest { ttl: TTL, id: 0 }).await.unwrap().into_inner().id;
    let callers = Callers::start(&cluster, lease);
    callers.go_on().await;

    let killed = cluster.leader().await;
    cluster.members[killed].kill();
    cluster.leader_other_than(Some(killed)).await;
    callers.go_on().await;
    cluster.members[killed].restart();

    let frozen = cluster.leader().await;
    cluster.members[frozen].freeze();
    cluster.leader_other_than(Some(frozen)).await;
    callers.go_on().await;
    cluster.members[frozen].go_on();
    callers.go_on().await;

    // Nobody leads while two are down, until those who ask the third are told so.
    let (first, second) = ((frozen + 1) % 3, (frozen + 2) % 3);
    cluster.members[first].kill();
    cluster.members[second].kill();
    callers.refused().await;
    cluster.members[first].begin();
    cluster.members[second].begin();
    cluster.members[first].wait_until_ready();
    cluster.members[second].wait_until_ready();
    callers.go_on().await;

    for member in 0..3 {
        cluster.members[member].stop();
        cluster.members[member].restart();
        callers.go_on().await;
    }
    let tally = callers.finish().await;
    eprintln!("{tally:#?}");
    let allowed = |answer: &Answer| match answer {
        Answer::Ttl(ttl) => *ttl == TTL,
        Answer::Refused(code, _) => *code == format!("{:?}", Code::Unavailable),
        Answer::Silence => true,
        Answer::Nothing => false,
    };
    let wrong: Vec<_> = tally.keys().filter(|(_, answer)| !allowed(answer)).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");

    // And once it has really ended, that is said, by every member.
    let mut client = LeaseClient::connect(cluster.members[0].endpoint()).await.unwrap();
    client.lease_revoke(LeaseRevokeRequest { id: lease }).await.unwrap();
    for endpoint in cluster.endpoints() {
        for service in ["Lease", "Sessions"] {
            let channel = Endpoint::from_shared(endpoint.clone()).unwrap().connect_lazy();
            assert_eq!(ask(channel, service, lease).await, Answer::Ttl(0));
        }
    }
}
