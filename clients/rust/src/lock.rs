//! Locks: to wait for one, to hold it, and to give it back after the holder's code has come to its end. The queue and the grant are
//! the server's; an acquisition is known by an id chosen here, so that a repeated call finds its place again.

use std::collections::BTreeMap;
use std::future::Future;
use std::ops::Deref;
use std::time::Duration;

use tenure_grpc::tenure_v1::locks_client::LocksClient;
use tenure_proto::tenure::v1::acquire_lock_response::Outcome;
use tenure_proto::tenure::v1::lock_event::{Event, ReleaseRequested};
use tenure_proto::tenure::v1::{
    AcquireLockRequest, FollowLockRequest, InspectLockRequest, InspectLockResponse, LeaveLockRequest,
    LockEvent, LockGrant, LockMode, LockSpec, ReleaseLockRequest,
};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tonic::transport::Channel;

use crate::client::{Client, Repeat};
use crate::clock::Moment;
use crate::error::Error;
use crate::feed::Feed;
use crate::held::Held;
use crate::lease;
use crate::session::Session;

/// How long one call waits for the grant before it asks again: a connection that died in silence costs no more.
const WAIT_AT_ONCE: Duration = Duration::from_secs(20);

/// A lock, by its name; or a number of permits of one.
///
/// ```no_run
/// # async fn step() {}
/// # async fn example(client: tenure_client::Client) -> Result<(), tenure_client::Error> {
/// let lock = client.lock("jobs/nightly");
/// lock.run(|held| async move {
///     for _ in 0..10 {
///         held.check()?;
///         step().await;
///         // Refused if somebody else holds the lock by then.
///         held.kv().put("jobs/nightly/progress", "one more").await?;
///     }
///     Ok(())
/// })
/// .await?
/// # }
/// ```
#[derive(Clone)]
#[must_use = "nothing is acquired before it is asked for"]
pub struct Lock {
    client: Client,
    spec: LockSpec,
    delay_s: Option<i64>,
    labels: BTreeMap<String, String>,
    ttl: Duration,
    session: Option<Session>,
}

impl Lock {
    pub(crate) fn new(client: Client, name: impl Into<String>) -> Lock {
        let spec = LockSpec { name: name.into(), ..LockSpec::default() };
        Lock {
            client,
            spec,
            delay_s: None,
            labels: BTreeMap::new(),
            ttl: Duration::from_secs(15),
            session: None,
        }
    }

    /// Along with others who share.
    pub fn shared(mut self) -> Lock {
        self.spec.mode = LockMode::Shared.into();
        self
    }

    /// So many permits out of `capacity`; 0: as many as were set for the lock.
    pub fn permits(mut self, permits: u32, capacity: u32) -> Lock {
        self.spec = LockSpec { mode: LockMode::Permits.into(), permits, capacity, ..self.spec };
        self
    }

    /// If this holder is lost, not before so much later is the lock given to others: for work that no guard protects. Whole seconds.
    pub fn delay(mut self, delay: Duration) -> Lock {
        self.delay_s = i64::try_from(delay.as_secs()).ok();
        self
    }

    /// For those who look at the lock.
    pub fn label(mut self, key: impl Into<String>, value: impl Into<String>) -> Lock {
        self.labels.insert(key.into(), value.into());
        self
    }

    /// How long the others have to wait when this process dies; 15 s unless it is said.
    pub fn ttl(mut self, ttl: Duration) -> Lock {
        self.ttl = ttl;
        self
    }

    /// Hold it with this session, not with one of its own.
    pub fn session(mut self, session: &Session) -> Lock {
        self.session = Some(session.clone());
        self
    }

    /// Waits for the lock as long as it takes, runs `work`, and gives the lock back when `work` has returned. If the lock is lost,
    /// `work` is told so by [`Held::lost`] and has until the server may let go to return; then it is dropped where it waits.
    pub async fn run<T, F, A>(&self, work: F) -> Result<T, Error>
    where
        F: FnOnce(Held) -> A,
        A: Future<Output = T>,
    {
        self.acquire().await?.run(work).await
    }

    /// Waits as long as it takes. Dropped while it waits, it leaves the queue.
    pub async fn acquire(&self) -> Result<Locked, Error> {
        match self.acquire_by(None).await? {
            Some(locked) => Ok(locked),
            None => Err(Error::refused("the server gave up waiting though it was not asked to")),
        }
    }

    /// None: somebody else has it.
    pub async fn try_acquire(&self) -> Result<Option<Locked>, Error> {
        self.acquire_by(Some(Duration::ZERO)).await
    }

    /// None: it was not to be had in that time.
    pub async fn acquire_within(&self, wait: Duration) -> Result<Option<Locked>, Error> {
        self.acquire_by(Some(wait)).await
    }

    /// Who holds it, who waits, and what for.
    pub async fn inspect(&self) -> Result<InspectLockResponse, Error> {
        let question = InspectLockRequest { name: self.spec.name.clone(), limit: 0 };
        let ask = |channel, request| async move { locks(channel).inspect(request).await };
        self.client.call(Repeat::Harmless, question, ask).await
    }

    async fn acquire_by(&self, wait: Option<Duration>) -> Result<Option<Locked>, Error> {
        let give_up = wait.map(|wait| Moment::now().after(wait));
        let (session, own) = match &self.session {
            Some(session) => (session.clone(), false),
            None => (self.client.session(self.ttl).await?, true),
        };
        let mut place = Place {
            session: session.clone(),
            own,
            name: self.spec.name.clone(),
            owner: format!("{:016x}", lease::new_id()),
            left: false,
        };
        let granted = tokio::select! {
            granted = self.granted(&place, give_up) => granted?,
            loss = session.lost() => {
                place.left = true;
                return Err(Error::Lost(loss.to_string()));
            }
        };
        match granted {
            Some(grant) => Ok(Some(Locked::new(place, grant))),
            None => {
                place.leave().await;
                Ok(None)
            }
        }
    }

    /// Asks until it is granted or the time is over. Members that are away are waited for: the session decides when to stop.
    async fn granted(&self, place: &Place, give_up: Option<Moment>) -> Result<Option<LockGrant>, Error> {
        loop {
            let left = give_up.map(|give_up| give_up.since(Moment::now()));
            let span = left.unwrap_or(WAIT_AT_ONCE).min(WAIT_AT_ONCE);
            let request = AcquireLockRequest {
                locks: vec![self.spec.clone()],
                session_id: place.session.id(),
                owner_id: place.owner.clone(),
                wait_ms: i64::try_from(span.as_millis()).ok(),
                delay_s: self.delay_s,
                // A broken connection must not cost the place in the queue.
                keep_place: !span.is_zero(),
                labels: self.labels.clone(),
            };
            let ask = |channel, request| async move { locks(channel).acquire(request).await };
            match self.client.wait(span, Repeat::Harmless, request, ask).await {
                Ok(mut answer) => match answer.outcome() {
                    Outcome::Granted => return Ok(answer.grants.pop()),
                    Outcome::Busy | Outcome::TimedOut => return Ok(None),
                    Outcome::Queued | Outcome::Unspecified => {}
                },
                Err(error @ (Error::Unavailable(_) | Error::Unknown(_))) if left == Some(Duration::ZERO) => {
                    return Err(error);
                }
                Err(Error::Unavailable(_) | Error::Unknown(_)) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// A place in the queue or a grant, left when it is dropped as well as can be done there; else the session's end does it.
struct Place {
    session: Session,
    /// The session is for this lock only, and ends with it.
    own: bool,
    name: String,
    owner: String,
    left: bool,
}

impl Place {
    async fn leave(&mut self) {
        self.left = true;
        let _ = end(self.session.clone(), self.own, self.leaving()).await;
    }

    fn leaving(&self) -> LeaveLockRequest {
        let (session_id, owner_id) = (self.session.id(), self.owner.clone());
        LeaveLockRequest { names: vec![self.name.clone()], session_id, owner_id }
    }
}

async fn end(session: Session, own: bool, leaving: LeaveLockRequest) -> Result<(), Error> {
    if own {
        return session.close().await;
    }
    let ask = |channel, request| async move { locks(channel).leave(request).await };
    session.client().call(Repeat::Harmless, leaving, ask).await.map(|_| ())
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.left {
            return;
        }
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let (session, own, leaving) = (self.session.clone(), self.own, self.leaving());
            runtime.spawn(async move { drop(end(session, own, leaving).await) });
        }
    }
}

/// A lock that is held. It can do what [`Held`] can, and ends with [`Locked::release`]; dropped, it is released soon.
pub struct Locked {
    held: Held,
    asked: watch::Receiver<Option<ReleaseRequested>>,
    following: Following,
    place: Place,
}

/// The task that listens to what becomes of the grant.
struct Following(JoinHandle<()>);

impl Drop for Following {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Deref for Locked {
    type Target = Held;

    fn deref(&self) -> &Held {
        &self.held
    }
}

impl Locked {
    fn new(place: Place, grant: LockGrant) -> Locked {
        let mut guard = grant.guard.unwrap_or_default();
        guard.token = grant.token;
        let (held, taken) = Held::new(&place.name, place.session.clone(), guard);
        let (asking, asked) = watch::channel(None);
        let question = FollowLockRequest {
            name: place.name.clone(),
            session_id: place.session.id(),
            owner_id: place.owner.clone(),
        };
        let feed = Feed::new(place.session.client().clone(), question, |channel, request| {
            Box::pin(async move { locks(channel).follow(request).await })
        });
        let following = Following(tokio::spawn(follow(feed, taken, asking)));
        Locked { held, asked, following, place }
    }

    /// What its holder's code is given.
    pub fn held(&self) -> Held {
        self.held.clone()
    }

    /// Returns when somebody asks the holder to let go. Whether to is the holder's to decide.
    pub async fn release_requested(&self) -> ReleaseRequested {
        let mut asked = self.asked.clone();
        match asked.wait_for(Option::is_some).await {
            Ok(asked) => asked.clone().unwrap_or_default(),
            // Nobody could ask any more.
            Err(_) => std::future::pending().await,
        }
    }

    /// As [`Lock::run`], with the lock at hand.
    pub async fn run<T, F, A>(self, work: F) -> Result<T, Error>
    where
        F: FnOnce(Held) -> A,
        A: Future<Output = T>,
    {
        let done = self.held.through(work(self.held.clone())).await?;
        self.release().await?;
        Ok(done)
    }

    /// Gives it back: this grant and no other, whatever has happened meanwhile. Who is next has it in the same revision.
    pub async fn release(mut self) -> Result<(), Error> {
        self.following.0.abort();
        self.place.left = true;
        let release = ReleaseLockRequest {
            name: self.place.name.clone(),
            token: self.held.token(),
            session_id: self.place.session.id(),
            owner_id: self.place.owner.clone(),
        };
        let ask = |channel, request| async move { locks(channel).release(request).await };
        self.place.session.client().call(Repeat::Harmless, release, ask).await?;
        if self.place.own {
            // What is left of it runs out by itself.
            let _ = self.place.session.close().await;
        }
        Ok(())
    }
}

/// Listens until the grant has ended.
async fn follow(
    mut feed: Feed<FollowLockRequest, LockEvent>,
    taken: watch::Sender<Option<String>>,
    asking: watch::Sender<Option<ReleaseRequested>>,
) {
    loop {
        match feed.next().await {
            Ok(LockEvent { event: Some(Event::ReleaseRequested(request)), .. }) => {
                asking.send_replace(Some(request));
            }
            Ok(LockEvent { event: Some(Event::Ended(ended)), .. }) => {
                let by = if ended.by.is_empty() { String::new() } else { format!(" by {}", ended.by) };
                let why = if ended.reason.is_empty() { String::new() } else { format!(": {}", ended.reason) };
                let how = ended.how().as_str_name().to_lowercase();
                taken.send_replace(Some(format!("the lock was {how}{by}{why}")));
                return;
            }
            Ok(_) => {}
            // An answer that there is nothing to follow: the session's own clock decides.
            Err(_) => return,
        }
    }
}

pub(crate) fn locks(channel: Channel) -> LocksClient<Channel> {
    LocksClient::new(channel).max_decoding_message_size(usize::MAX)
}
