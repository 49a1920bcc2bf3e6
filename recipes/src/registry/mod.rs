//! The registry: which instances serve what, and how well. An instance is a record that stays, and beside it a sign of life on
//! a lease that heartbeats renew, so that a heartbeat writes nothing, and the end of the lease is a change that everybody
//! sees and nobody has to write.
//!
//! ```text
//!  register ─► alive ──lease ends──► stale ─► lost ──deregister_after──► removed
//!                ▲                     │        │
//!                └─────heartbeat───────┴────────┘      many at once: protected, they stay stale (loss.rs)
//! ```
//!
//! Keys are in keys.rs. Every transition is one txn that compares what was read. What takes time is a lease: a window, a deadline,
//! the stay of what is lost. Nothing here knows what time it is; the calendar's times are for show and are handed in.

mod beat;
mod control;
mod damping;
mod drain;
mod follow;
mod help;
mod instance;
mod keys;
mod look;
mod lookup;
mod loss;
mod mirror;
mod policy;
mod projecting;
mod projection;
mod register;
mod request;
mod selector;
mod survey;
mod together;
mod transition;

use std::sync::{Arc, Mutex};

use tenure_proto::etcdserverpb::ResponseHeader;

use crate::key::Root;
use crate::primitives::{Failure, Primitives};
use damping::Damping;
use keys::Keys;

pub use follow::{Follow, Told};
pub use instance::Held;
pub use look::{Deed, Look, concerned};
pub use mirror::{Delta, Mirror, Moved};
pub use selector::selects;

/// Heartbeats in one message at the most.
pub const HEARTBEATS_MAX: usize = 10_000;

/// How often a call reads again, when others were quicker or an answer was lost, before it gives up.
const ATTEMPTS: usize = 32;

/// What the registry cannot make for itself.
#[derive(Clone)]
pub struct Supply {
    /// A lease id that nobody has.
    pub lease: Arc<dyn Fn() -> i64 + Send + Sync>,
    /// Milliseconds since 1970, for people to read.
    pub unix_ms: Arc<dyn Fn() -> i64 + Send + Sync>,
}

/// Clones are the same registry, and share what they remember of flapping instances.
#[derive(Clone)]
pub struct Registry<P> {
    primitives: P,
    keys: Keys,
    supply: Supply,
    damping: Arc<Mutex<Damping>>,
}

impl<P: Primitives> Registry<P> {
    pub fn new(primitives: P, root: Root, supply: Supply) -> Registry<P> {
        Registry { primitives, keys: Keys::new(root), supply, damping: Arc::default() }
    }

    fn now_unix_ms(&self) -> i64 {
        (self.supply.unix_ms)()
    }

    /// A new lease for something that shall end by itself; gives its id and the TTL it got, seconds.
    async fn grant(&self, ttl_s: i64) -> Result<(i64, i64), Failure> {
        let mut again = Again::default();
        loop {
            let lease = (self.supply.lease)();
            match self.primitives.grant(lease, ttl_s).await {
                Ok(ttl_s) => return Ok((lease, ttl_s)),
                // Somebody else's: another id. Of unknown fate: it ends by itself, if it is.
                Err(failure @ (Failure::LeaseExists | Failure::Unknown(_))) => again.after(failure)?,
                Err(failure) => return Err(failure),
            }
        }
    }

    /// A lease that is not needed. Should this fail, it ends by itself.
    async fn give_up(&self, lease: Option<i64>) {
        if let Some(lease) = lease {
            let _ends_by_itself = self.primitives.revoke(lease).await;
        }
    }
}

/// Counts the attempts of one call.
#[derive(Default)]
struct Again(usize);

impl Again {
    /// Others were quicker: read again, unless that has happened too often.
    fn after_race(&mut self) -> Result<(), Failure> {
        self.after(Failure::Unavailable("too many change the same at once; call again".to_owned()))
    }

    fn after(&mut self, failure: Failure) -> Result<(), Failure> {
        self.0 += 1;
        if self.0 >= ATTEMPTS { Err(failure) } else { Ok(()) }
    }
}

/// A header that says at which revision something holds; who answered is for the server to add.
fn at(revision: i64) -> Option<ResponseHeader> {
    Some(ResponseHeader { revision, ..ResponseHeader::default() })
}
