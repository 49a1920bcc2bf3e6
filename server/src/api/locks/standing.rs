//! An acquisition on behalf of a call: asked for, waited for, and given up when the caller goes away before it has an answer.

use std::time::Duration;

use tenure_proto::tenure::v1::LockGrant;
use tenure_recipes::lock::{self, Acquired, Ticket, Waited, Wish};
use tenure_recipes::{Error, Failure, Root};
use tokio::sync::oneshot;

use crate::node::Here;

/// Tries to give up the place of a caller who is gone, and the pause between them: for as long as a cluster may be without a leader.
/// After that the place ends with its session.
const TRIES: usize = 120;
const PAUSE: Duration = Duration::from_millis(500);

pub struct Standing {
    here: Here,
    wish: Wish,
    queue: bool,
    /// Given up when this is dropped.
    place: Option<Ticket>,
}

/// What a caller is told.
pub enum Outcome {
    Granted {
        grants: Vec<LockGrant>,
        revision: i64,
    },
    Busy {
        obstacle: String,
        revision: i64,
    },
    /// The time is over.
    TimedOut {
        ticket: Ticket,
    },
}

impl Standing {
    pub fn new(here: &Here, wish: Wish, queue: bool) -> Standing {
        Standing { here: here.clone(), wish, queue, place: None }
    }

    /// Asks, and waits for so long, or until it is granted.
    pub async fn acquire(&mut self, wait: Option<Duration>) -> Result<Outcome, Error> {
        let root = Root::server();
        let mut over = std::pin::pin!(async {
            match wait {
                Some(wait) => tokio::time::sleep(wait).await,
                None => std::future::pending().await,
            }
        });
        loop {
            let ticket = match self.ask().await? {
                Acquired::Granted { grants, revision } => return Ok(Outcome::Granted { grants, revision }),
                Acquired::Busy { obstacle, revision } => return Ok(Outcome::Busy { obstacle, revision }),
                Acquired::Queued(ticket) => ticket,
            };
            self.place = Some(ticket.clone());
            let waited = tokio::select! {
                biased;
                waited = lock::wait(&self.here, &root, &ticket) => waited,
                () = &mut over => return Ok(Outcome::TimedOut { ticket }),
            };
            // Whatever the answer is, it is one: after a failure the caller repeats the call, and has its place still.
            self.place = None;
            match waited? {
                Waited::Granted { grants, revision } => return Ok(Outcome::Granted { grants, revision }),
                // Its session has ended, which asking tells; or another call of the same caller gave up their place.
                Waited::Gone { .. } => {}
            }
        }
    }

    /// The place stays, though nobody waits here any more.
    pub fn keep(&mut self) {
        self.place = None;
    }

    /// Gives up the place, unless it was granted this moment.
    pub async fn give_up(&mut self) -> Result<Waited, Failure> {
        let Some(ticket) = self.place.clone() else { return Ok(Waited::Gone { revision: 0 }) };
        let waited = lock::abandon(&self.here, &Root::server(), &ticket, self.here.unix_ms()).await;
        self.place = None;
        waited
    }

    /// Not by the caller's own task: who goes away meanwhile would leave a place behind that nobody knows of.
    async fn ask(&self) -> Result<Acquired, Error> {
        let (tell, told) = oneshot::channel();
        let (here, wish, queue) = (self.here.clone(), self.wish.clone(), self.queue);
        tokio::spawn(async move {
            let acquired = lock::acquire(&here, &Root::server(), wish, queue).await;
            if let Err(Ok(Acquired::Queued(ticket))) = tell.send(acquired) {
                give_up(here, ticket).await;
            }
        });
        let stopping = || Failure::Unavailable("this member is stopping; ask another one".into());
        told.await.unwrap_or_else(|_| Err(stopping().into()))
    }
}

impl Drop for Standing {
    fn drop(&mut self) {
        let Some(ticket) = self.place.take() else { return };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(give_up(self.here.clone(), ticket));
    }
}

async fn give_up(here: Here, ticket: Ticket) {
    for _ in 0..TRIES {
        match lock::abandon(&here, &Root::server(), &ticket, here.unix_ms()).await {
            Ok(_) => return,
            Err(failure) => tracing::debug!(%failure, "could not give up the place of a caller who is gone"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}
