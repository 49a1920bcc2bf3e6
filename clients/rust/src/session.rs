//! A session: a lease that is renewed for as long as somebody here holds on to it, and that knows by its own clock when it must
//! be taken for lost, whatever the network does. Locks, candidacies and registrations live by one.
//!
//! One task for each session renews it. It ends with the last handle, so that nothing outlives the work it was for; what
//! a holder may do does not depend on whether that task gets to run, since [`Session::state`] looks at the clock itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tenure_grpc::tenure_v1::sessions_client::SessionsClient;
use tenure_proto::tenure::v1::{CloseSessionRequest, OpenSessionRequest};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tonic::{Code, Request};

use crate::backoff::Backoff;
use crate::client::{Client, Repeat};
use crate::clock::{Moment, sleep_until};
use crate::deadline::{Deadline, Phase};
use crate::error::{Error, Fault};
use crate::lease::{self, Leases};

/// What a session is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// What it holds is held.
    Held,
    /// A renewal is overdue. What it holds is still held; it may become `Held` again or be `Lost` soon.
    Doubtful,
    /// What it held is not to be relied on any more. It does not come back.
    Lost(Loss),
}

/// Why a session is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Loss {
    /// No renewal was confirmed in time. The server will end it, or has.
    #[error("no renewal was confirmed in time")]
    NotRenewed,
    /// The server says that it is gone.
    #[error("the server ended it")]
    Ended,
    /// It was closed here.
    #[error("it was closed")]
    Closed,
}

/// A session. It lives for as long as a clone of it does, and for its TTL after that; [`Session::close`] ends it at once.
///
/// ```no_run
/// # use std::time::Duration;
/// # async fn example(client: tenure_client::Client) -> Result<(), tenure_client::Error> {
/// let session = client.session(Duration::from_secs(15)).await?;
/// client.kv().put("workers/7", "here").lease(session.id()).await?;
/// let loss = session.lost().await;
/// println!("not to be relied on any more: {loss}");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Session {
    handle: Arc<Handle>,
}

struct Handle {
    client: Client,
    life: Arc<Life>,
    renewal: JoinHandle<()>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.renewal.abort();
    }
}

/// What the handles and the task share.
struct Life {
    id: i64,
    deadline: Mutex<Deadline>,
    /// Set once, never taken back.
    loss: watch::Sender<Option<Loss>>,
}

impl Session {
    /// By the server's Sessions, which keep the labels; as a bare lease where there is no such service.
    pub(crate) async fn open(
        client: &Client,
        ttl: Duration,
        labels: BTreeMap<String, String>,
    ) -> Result<Session, Error> {
        let ttl = i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX).max(1);
        let client_key = format!("{:016x}{:016x}", lease::new_id(), lease::new_id());
        let sent = Moment::now();
        let ask = |channel, request| async move { SessionsClient::new(channel).open(request).await };
        let opened = client.call(Repeat::Harmless, OpenSessionRequest { ttl, labels, client_key }, ask).await;
        let (id, ttl_s) = match opened {
            Ok(opened) => opened.session.map(|session| (session.id, session.ttl)).unwrap_or_default(),
            Err(Error::Refused { code: Code::Unimplemented, .. }) => {
                Leases::new(client.clone()).grant(ttl).await?
            }
            Err(error) => return Err(error),
        };
        Ok(Session::adopt(client, id, ttl_s, sent))
    }

    /// Of a lease that was asked for at `sent` and confirmed just now.
    pub(crate) fn adopt(client: &Client, id: i64, ttl_s: i64, sent: Moment) -> Session {
        let deadline = Deadline::confirmed(seconds(ttl_s), sent, Moment::now());
        let life = Arc::new(Life { id, deadline: Mutex::new(deadline), loss: watch::Sender::new(None) });
        let renewal = tokio::spawn(renew(client.clone(), life.clone()));
        Session { handle: Arc::new(Handle { client: client.clone(), life, renewal }) }
    }

    /// The id, which is a lease's: keys can be attached to it.
    pub fn id(&self) -> i64 {
        self.handle.life.id
    }

    pub fn client(&self) -> &Client {
        &self.handle.client
    }

    /// A look at the clock; asks nobody. Right even when nothing else of this process could run for long.
    pub fn state(&self) -> State {
        self.handle.life.state()
    }

    /// How long until what it holds must be left alone; nothing once it is lost.
    pub fn remaining(&self) -> Duration {
        let life = &self.handle.life;
        match life.state() {
            State::Lost(_) => Duration::ZERO,
            State::Held | State::Doubtful => life.deadline.lock().stop_at().since(Moment::now()),
        }
    }

    /// The same until the server may give what it holds to others: a little after `remaining`.
    pub fn remaining_at_server(&self) -> Duration {
        self.handle.life.deadline.lock().end_at().since(Moment::now())
    }

    /// An error as soon as the session is lost.
    pub fn check(&self) -> Result<(), Error> {
        match self.state() {
            State::Lost(loss) => Err(Error::Lost(loss.to_string())),
            State::Held | State::Doubtful => Ok(()),
        }
    }

    /// Returns when it is lost.
    pub async fn lost(&self) -> Loss {
        let life = self.handle.life.clone();
        let mut told = life.loss.subscribe();
        loop {
            if let State::Lost(loss) = life.state() {
                return loss;
            }
            let stop_at = life.deadline.lock().stop_at();
            tokio::select! {
                _ = told.changed() => {}
                () = sleep_until(stop_at) => {}
            }
        }
    }

    /// Ends it at once, with all that it holds: others need not wait, as they would after a loss.
    pub async fn close(&self) -> Result<(), Error> {
        self.handle.renewal.abort();
        self.handle.life.lose(Loss::Closed);
        let close = CloseSessionRequest { session: self.id() };
        let ask = |channel, request| async move { SessionsClient::new(channel).close(request).await };
        match self.client().call(Repeat::Harmless, close, ask).await {
            Ok(_) => Ok(()),
            Err(Error::Refused { code: Code::Unimplemented, .. }) => {
                Leases::new(self.client().clone()).revoke(self.id()).await
            }
            Err(error) => Err(error),
        }
    }

    /// Somebody learnt from the server that it is gone.
    pub(crate) fn ended(&self) {
        self.handle.life.lose(Loss::Ended);
    }
}

impl Life {
    fn state(&self) -> State {
        if let Some(loss) = *self.loss.borrow() {
            return State::Lost(loss);
        }
        let phase = self.deadline.lock().phase(Moment::now());
        match phase {
            Phase::Held => State::Held,
            Phase::Doubtful => State::Doubtful,
            Phase::Over => State::Lost(self.lose(Loss::NotRenewed)),
        }
    }

    /// The first reason stays.
    fn lose(&self, loss: Loss) -> Loss {
        self.loss.send_if_modified(|lost| {
            let first = lost.is_none();
            lost.get_or_insert(loss);
            first
        });
        self.loss.borrow().unwrap_or(loss)
    }
}

/// Renews until it is lost. An attempt that gets no answer in a sixth of the TTL is made again at the next member.
async fn renew(client: Client, life: Arc<Life>) {
    let mut backoff = Backoff::default();
    loop {
        let next = life.deadline.lock().beat_at(rand::random_range(0.0..1.0));
        sleep_until(next).await;
        // Renewing what somebody here was already told is lost would bring back the dead.
        if let State::Lost(_) = life.state() {
            return;
        }
        let (bound, left) = {
            let deadline = life.deadline.lock();
            (deadline.attempt(), deadline.stop_at().since(Moment::now()))
        };
        let sent = Moment::now();
        let bound = bound.min(left);
        let beat = |channel| {
            let mut request = Request::new(life.id);
            request.set_timeout(bound);
            lease::keep_alive(channel, request)
        };
        match client.once(bound, beat).await {
            Ok((_, Some(ttl_s))) => {
                // A confirmation that comes after the end, as when this process was stopped, is too late.
                if let State::Lost(_) = life.state() {
                    return;
                }
                life.deadline.lock().renew(seconds(ttl_s), sent, Moment::now());
                backoff = Backoff::default();
            }
            Ok((_, None)) => {
                life.lose(Loss::Ended);
                return;
            }
            // Even an answer that makes no sense of a renewal leaves the deadline to decide.
            Err(Fault::NotDone(_) | Fault::Lost(_) | Fault::Answered(_)) => {
                tokio::time::sleep(backoff.pause().min(bound)).await;
            }
        }
    }
}

fn seconds(count: i64) -> Duration {
    Duration::from_secs(u64::try_from(count).unwrap_or_default())
}
