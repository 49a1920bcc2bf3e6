//! Elections: to stand, to lead for one term, to hand over when asked, and to see who leads. The server decides; here is what
//! keeps a candidacy's stream alive, and what gives the lead back only after the leader's code has come to its end.

use std::collections::BTreeMap;
use std::future::Future;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tenure_grpc::tenure_v1::elections_client::ElectionsClient;
use tenure_proto::tenure::v1::campaign_event::{self, Event};
use tenure_proto::tenure::v1::election_proclaim_response::Outcome as Proclaimed;
use tenure_proto::tenure::v1::{
    CampaignEvent, CampaignRequest, ElectionHistoryRequest, ElectionLeaderRequest, ElectionLeaderResponse,
    ElectionProclaimRequest, ElectionResignRequest, ElectionTerm, Handover, WithdrawRequest,
};
use tokio::sync::watch;
use tonic::transport::Channel;

use crate::client::{Client, Repeat};
use crate::error::Error;
use crate::feed::Feed;
use crate::held::Held;
use crate::observer::Observer;
use crate::session::Session;

/// Terms asked for at once.
const HISTORY_MAX: i64 = 1_000;

/// An election, by its name.
///
/// ```no_run
/// # async fn serve() {}
/// # async fn example(client: tenure_client::Client) -> Result<(), tenure_client::Error> {
/// let candidate = client.election("db/main").candidate("n1").value("10.0.0.1:5432");
/// loop {
///     candidate
///         .run(|term| async move {
///             println!("leading, epoch {}, token {}", term.epoch(), term.token());
///             tokio::select! {
///                 () = serve() => {}
///                 why = term.lost() => println!("stopping: {why}"),
///                 handover = term.handover() => println!("{} is to take over", handover.to_candidate_id),
///             }
///         })
///         .await?;
/// }
/// # }
/// ```
#[derive(Clone)]
pub struct Election {
    client: Client,
    name: String,
}

impl Election {
    pub(crate) fn new(client: Client, name: impl Into<String>) -> Election {
        Election { client, name: name.into() }
    }

    /// One that may stand; `id` is unique among the candidates of an election.
    pub fn candidate(&self, id: impl Into<String>) -> Candidate {
        let request = CampaignRequest {
            name: self.name.clone(),
            candidate_id: id.into(),
            ..CampaignRequest::default()
        };
        Candidate { client: self.client.clone(), request, ttl: Duration::from_secs(15), session: None }
    }

    /// Who leads, who stands, and why nobody leads if nobody does.
    pub async fn leader(&self) -> Result<ElectionLeaderResponse, Error> {
        let question = ElectionLeaderRequest { name: self.name.clone(), detail: true };
        let ask = |channel, request| async move { elections(channel).leader(request).await };
        self.client.call(Repeat::Harmless, question, ask).await
    }

    /// Everything that happens, each term and each vacancy once and in order, from the present one on.
    pub fn observe(&self) -> Observer {
        self.observe_from(0)
    }

    /// The same from an epoch on, which may be past; what is not on record any more is told as a gap.
    pub fn observe_from(&self, epoch: i64) -> Observer {
        Observer::new(self.client.clone(), &self.name, epoch)
    }

    /// The latest terms on record, the newest first.
    pub async fn history(&self, limit: i64) -> Result<Vec<ElectionTerm>, Error> {
        let limit = limit.clamp(1, HISTORY_MAX);
        let question = ElectionHistoryRequest { name: self.name.clone(), before_epoch: 0, limit };
        let ask = |channel, request| async move { elections(channel).history(request).await };
        Ok(self.client.call(Repeat::Harmless, question, ask).await?.terms)
    }
}

/// One that stands in an election when it is run.
#[derive(Clone)]
#[must_use = "it does not stand before it is run"]
pub struct Candidate {
    client: Client,
    request: CampaignRequest,
    ttl: Duration,
    session: Option<Session>,
}

impl Candidate {
    /// Greater is preferred.
    pub fn priority(mut self, priority: i32) -> Candidate {
        self.request.priority = priority;
        self
    }

    /// Greater is preferred among equal priorities: how far a replica has come, for instance.
    pub fn rank(mut self, rank: i64) -> Candidate {
        self.request.rank = rank;
        self
    }

    /// What it proclaims when it is elected: an address, for instance.
    pub fn value(mut self, value: impl Into<String>) -> Candidate {
        self.request.value = value.into();
        self
    }

    pub fn label(mut self, key: impl Into<String>, value: impl Into<String>) -> Candidate {
        self.request.labels.insert(key.into(), value.into());
        self
    }

    pub fn labels(mut self, labels: BTreeMap<String, String>) -> Candidate {
        self.request.labels = labels;
        self
    }

    /// How long the others have to wait when this process dies; 15 s unless it is said.
    pub fn ttl(mut self, ttl: Duration) -> Candidate {
        self.ttl = ttl;
        self
    }

    /// Stand with this session, not with one of its own.
    pub fn session(mut self, session: &Session) -> Candidate {
        self.session = Some(session.clone());
        self
    }

    /// Stands until elected, runs `lead` for that one term, and gives the lead back when `lead` has returned: to whom a handover
    /// names, else to the next in line. An error if the lead, or the session before it, was lost. Dropped, it withdraws.
    pub async fn run<T, F, A>(&self, lead: F) -> Result<T, Error>
    where
        F: FnOnce(Term) -> A,
        A: Future<Output = T>,
    {
        let session = match &self.session {
            Some(session) => session.clone(),
            None => self.client.session(self.ttl).await?,
        };
        let request = CampaignRequest { session_id: session.id(), ..self.request.clone() };
        let mut withdrawal = Withdrawal { client: self.client.clone(), request: Some(request.clone()) };
        let mut campaign = Campaign::new(self.client.clone(), request);
        let elected = loop {
            let event = tokio::select! {
                event = campaign.next() => event,
                loss = session.lost() => {
                    withdrawal.request = None;
                    return Err(Error::Lost(loss.to_string()));
                }
            };
            match event? {
                Event::Elected(elected) => break elected,
                Event::Ended(ended) => return Err(over(&session, &ended)),
                Event::Waiting(_)
                | Event::HandoverRequested(_)
                | Event::HandoverEnded(_)
                | Event::Progress(_) => {}
            }
        };
        let (term, reins) = Term::new(&self.request.name, session, elected);
        let done = tokio::select! {
            done = term.held.through(lead(term.clone())) => done,
            never = follow(&mut campaign, &term, &reins) => match never {},
        };
        // Only now that the leader's code has ended.
        if term.check().is_ok() {
            term.resign().await?;
            if self.session.is_none() {
                // What is left of it runs out by itself.
                let _ = term.session().close().await;
            }
        }
        withdrawal.request = None;
        done
    }
}

/// While the leader's code runs: passes on what the server says of the term.
async fn follow(campaign: &mut Campaign, term: &Term, reins: &Reins) -> std::convert::Infallible {
    loop {
        match campaign.next().await {
            Ok(Event::HandoverRequested(handover)) => {
                reins.handover.send_replace(Some(handover));
            }
            Ok(Event::HandoverEnded(_)) => {
                reins.handover.send_replace(None);
            }
            Ok(Event::Ended(ended)) => {
                let Error::Lost(why) = over(term.session(), &ended) else { continue };
                reins.taken.send_replace(Some(why));
                std::future::pending().await
            }
            Ok(Event::Elected(_) | Event::Waiting(_) | Event::Progress(_)) => {}
            // The session's own clock decides from here.
            Err(_) => std::future::pending().await,
        }
    }
}

fn over(session: &Session, ended: &campaign_event::Ended) -> Error {
    use campaign_event::ended::Reason;
    let why = match ended.reason() {
        Reason::SessionLost => {
            session.ended();
            "the server ended it".to_owned()
        }
        Reason::Withdrawn => "the candidate was withdrawn".to_owned(),
        Reason::TermEnded | Reason::Unspecified => {
            format!("the term ended: {}{}", ended.end().as_str_name().to_lowercase(), note(&ended.note))
        }
    };
    Error::Lost(why)
}

fn note(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(" ({text})") }
}

/// A term of one's own. It can do what [`Held`] can.
#[derive(Clone)]
pub struct Term {
    held: Held,
    epoch: i64,
    handover: watch::Receiver<Option<Handover>>,
    /// Of the last value that was proclaimed.
    seq: Arc<AtomicI64>,
}

struct Reins {
    handover: watch::Sender<Option<Handover>>,
    taken: watch::Sender<Option<String>>,
}

impl Deref for Term {
    type Target = Held;

    fn deref(&self) -> &Held {
        &self.held
    }
}

impl Term {
    fn new(name: &str, session: Session, elected: campaign_event::Elected) -> (Term, Reins) {
        let mut guard = elected.guard.unwrap_or_default();
        guard.token = elected.token;
        let (held, taken) = Held::new(name, session, guard);
        let (handing, handover) = watch::channel(None);
        let term = Term { held, epoch: elected.epoch, handover, seq: Arc::default() };
        (term, Reins { handover: handing, taken })
    }

    /// 1 for the election's first term, one more for each later one.
    pub fn epoch(&self) -> i64 {
        self.epoch
    }

    /// Returns when a planned switchover asks this leader to come to an end. Return from the leader's code before the deadline,
    /// and the successor leads in the same revision.
    pub async fn handover(&self) -> Handover {
        let mut handover = self.handover.clone();
        match handover.wait_for(Option::is_some).await {
            Ok(asked) => asked.clone().unwrap_or_default(),
            // Nobody could ask any more.
            Err(_) => std::future::pending().await,
        }
    }

    /// Changes the leader's value for all who observe.
    pub async fn proclaim(&self, value: impl Into<String>) -> Result<(), Error> {
        let seq = self.seq.fetch_add(1, Ordering::Relaxed) + 1;
        let (name, token, value) = (self.name().to_owned(), self.token(), value.into());
        let proclaim = ElectionProclaimRequest { name, token, seq, value };
        let ask = |channel, request| async move { elections(channel).proclaim(request).await };
        let done = self.session().client().call(Repeat::Harmless, proclaim, ask).await?;
        match done.outcome() {
            Proclaimed::NotCurrent => Err(Error::Stale("the term is over; nothing was proclaimed".into())),
            Proclaimed::Proclaimed | Proclaimed::Superseded | Proclaimed::Unspecified => Ok(()),
        }
    }

    async fn resign(&self) -> Result<(), Error> {
        let resign = ElectionResignRequest {
            name: self.name().to_owned(),
            token: self.token(),
            ..ElectionResignRequest::default()
        };
        let ask = |channel, request| async move { elections(channel).resign(request).await };
        self.session().client().call(Repeat::Harmless, resign, ask).await.map(|_| ())
    }
}

/// What becomes of a candidacy. After a break the server goes on where the candidate is.
struct Campaign(Feed<CampaignRequest, CampaignEvent>);

impl Campaign {
    fn new(client: Client, request: CampaignRequest) -> Campaign {
        Campaign(Feed::new(client, request, |channel, request| {
            Box::pin(async move { elections(channel).campaign(request).await })
        }))
    }

    async fn next(&mut self) -> Result<Event, Error> {
        loop {
            if let Some(event) = self.0.next().await?.event {
                return Ok(event);
            }
        }
    }
}

/// Withdraws a candidate whose `run` was dropped half-way, as well as can be done there; its session's end does it otherwise.
struct Withdrawal {
    client: Client,
    /// None once there is nothing to withdraw.
    request: Option<CampaignRequest>,
}

impl Drop for Withdrawal {
    fn drop(&mut self) {
        let (Some(request), Ok(runtime)) = (self.request.take(), tokio::runtime::Handle::try_current())
        else {
            return;
        };
        let client = self.client.clone();
        let withdraw = WithdrawRequest {
            name: request.name,
            session_id: request.session_id,
            candidate_id: request.candidate_id,
        };
        runtime.spawn(async move {
            let ask = |channel, request| async move { elections(channel).withdraw(request).await };
            let _ = client.call(Repeat::Harmless, withdraw, ask).await;
        });
    }
}

pub(crate) fn elections(channel: Channel) -> ElectionsClient<Channel> {
    ElectionsClient::new(channel).max_decoding_message_size(usize::MAX)
}
