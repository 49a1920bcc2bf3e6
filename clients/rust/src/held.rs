//! What somebody holds while their code runs: the proof of it, how long it lasts, and the word that it is over. Locks and elections
//! differ in how they come to it and how they give it back; what happens between is here.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use tenure_proto::tenure::v1::Guard;
use tokio::sync::watch;

use crate::clock::{Moment, sleep_until};
use crate::error::Error;
use crate::kv::Kv;
use crate::session::Session;

/// Something that is held, for as long as [`Held::check`] says so. Clones speak of the same grant.
#[derive(Clone)]
pub struct Held {
    name: String,
    session: Session,
    guard: Guard,
    /// Why it is over, if the server said so before the session was lost.
    taken: watch::Receiver<Option<String>>,
}

impl Held {
    /// With it comes what tells the holder that it was taken away.
    pub(crate) fn new(name: &str, session: Session, guard: Guard) -> (Held, watch::Sender<Option<String>>) {
        let (take, taken) = watch::channel(None);
        (Held { name: name.to_owned(), session, guard, taken }, take)
    }

    /// Of the lock or election.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The fencing token: later grants of the same name have greater ones. Who stores things for the holder keeps the greatest
    /// it has seen and refuses all smaller ones.
    pub fn token(&self) -> i64 {
        self.guard.token
    }

    /// What a transaction, or the metadata `tenure-guard` of a write, proves the grant with.
    pub fn guard(&self) -> &Guard {
        &self.guard
    }

    /// Keys and values, each write of which is refused as soon as this grant has ended.
    pub fn kv(&self) -> Kv {
        self.session.client().kv().with_guard(&self.guard)
    }

    pub fn session(&self) -> &Session {
        &self.session
    }

    /// An error once it is not held any more. Asks nobody and takes no time: for use before each step that others can see.
    pub fn check(&self) -> Result<(), Error> {
        match &*self.taken.borrow() {
            Some(why) => Err(Error::Lost(why.clone())),
            None => self.session.check(),
        }
    }

    /// How long until it must be left alone: the bound for any step that cannot be called back.
    pub fn remaining(&self) -> Duration {
        if self.taken.borrow().is_some() { Duration::ZERO } else { self.session.remaining() }
    }

    /// Returns, with the reason, when it is not held any more: to be waited for beside the work.
    pub async fn lost(&self) -> Error {
        let mut taken = self.taken.clone();
        tokio::select! {
            loss = self.session.lost() => Error::Lost(loss.to_string()),
            Ok(why) = taken.wait_for(Option::is_some) => {
                Error::Lost(why.clone().unwrap_or_default())
            }
        }
    }

    /// Runs `work`. When it is lost, the work is told by [`Held::lost`] and has until the server may let go to return by itself;
    /// then it is dropped where it waits. So when this returns, nothing of the work runs any more.
    pub(crate) async fn through<T>(&self, work: impl Future<Output = T>) -> Result<T, Error> {
        let mut work = pin!(work);
        let why = tokio::select! {
            done = &mut work => return Ok(done),
            why = self.lost() => why,
        };
        let end = Moment::now().after(self.session.remaining_at_server());
        tokio::select! {
            // What it returned is of no use to anybody who relies on the grant.
            _ = &mut work => {}
            () = sleep_until(end) => {}
        }
        Err(why)
    }
}
