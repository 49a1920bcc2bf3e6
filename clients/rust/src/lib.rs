//! The Rust client of Tenure: one [`Client`] for a cluster, and from it keys and values, watches, leases and sessions, which any
//! etcd v3 server has; and Tenure's own locks, elections and registry.
//!
//! ```no_run
//! # async fn example() -> Result<(), tenure_client::Error> {
//! use tenure_client::Client;
//!
//! let client = Client::connect("127.0.0.1:2379")?;
//! client.kv().put("hello", "world").await?;
//! let found = client.kv().get("hello").await?;
//! assert_eq!(found.first().unwrap().value, "world");
//! # Ok(())
//! # }
//! ```
//!
//! One at a time, whoever else wants to:
//!
//! ```no_run
//! # async fn work() {}
//! # async fn example(client: tenure_client::Client) -> Result<(), tenure_client::Error> {
//! client.lock("jobs/nightly").run(|held| async move {
//!     tokio::select! {
//!         () = work() => println!("done"),
//!         why = held.lost() => println!("stopped: {why}"),
//!     }
//! }).await
//! # }
//! ```
//!
//! What is promised, everywhere here:
//!
//! - A call goes to one member after the other until one answers or the time is over. A write whose outcome is unknown is not
//!   sent again, unless it would find out by itself that it was done already.
//! - What is held by a session is held until [`Session::remaining`] is over by this machine's own clock, which runs in suspend and
//!   counts from the *sending* of the last renewal: a holder stops before the server gives away what it held.
//! - Nothing here starts a thread. Sessions, registrations and the like have a task each, which ends when they are dropped.
//!
//! ```text
//! client  pool  options  backoff      calls: to whom, how long, how often
//! kv  txn  watch  lease  members      what any etcd server does
//! remote                              the same as recipes see it
//! session  deadline  clock            what is held, and until when
//! lock  election  held  observer      what a session is for: code that runs while something is held
//! registry  resolver  balance         to be found, and to find
//! feed  operate                       streams that are reopened; what operators ask
//! error                               what went wrong, and whether it may be done again
//! ```

mod backoff;
mod balance;
mod client;
mod clock;
mod deadline;
mod election;
mod error;
mod feed;
mod held;
mod key;
mod kv;
mod lease;
mod lock;
mod members;
mod observer;
mod operate;
mod options;
mod pool;
mod registry;
mod remote;
mod resolver;
mod session;
mod txn;
mod watch;

use std::collections::BTreeMap;
use std::time::Duration;

/// The messages of the wire, where they appear in this crate's types.
pub use tenure_proto as proto;
/// What a watch tells.
pub use tenure_recipes::Change;

/// What happens in an election.
pub use tenure_proto::tenure::v1::election_event::Event as ElectionNews;

/// What [`Options::tls`] is made of.
#[cfg(feature = "tls")]
pub use tonic::transport::{Certificate, ClientTlsConfig, Identity};

pub use balance::Picked;
pub use client::{Client, MemberStatus};
pub use election::{Candidate, Election, Term};
pub use error::Error;
pub use held::Held;
pub use key::end_of_prefix;
pub use kv::{Delete, Found, Get, Kv, Put};
pub use lease::{LeaseLeft, Leases};
pub use lock::{Lock, Locked};
pub use members::Members;
pub use observer::Observer;
pub use operate::{Operate, Telling};
pub use options::Options;
pub use registry::{Instance, Registered, Registry};
pub use remote::Remote;
pub use resolver::Resolver;
pub use session::{Loss, Session, State};
pub use txn::{Outcome, Txn, when};
pub use watch::{Watch, Watching};

impl Client {
    /// Keys and values.
    pub fn kv(&self) -> Kv {
        Kv::new(self.clone())
    }

    /// Changes of a key, or of several.
    pub fn watch(&self, key: impl AsRef<[u8]>) -> Watching {
        Watching::new(self.clone(), key)
    }

    pub fn leases(&self) -> Leases {
        Leases::new(self.clone())
    }

    pub fn members(&self) -> Members {
        Members::new(self.clone())
    }

    /// Opens a session. The TTL, in whole seconds and 1 at the least, may come out longer than asked for: it is how long others
    /// have to wait when this process dies, and how long the network may be away without loss.
    pub async fn session(&self, ttl: Duration) -> Result<Session, Error> {
        Session::open(self, ttl, BTreeMap::new()).await
    }

    /// The same with words about it, for those who look at sessions.
    pub async fn labelled_session(
        &self,
        ttl: Duration,
        labels: BTreeMap<String, String>,
    ) -> Result<Session, Error> {
        Session::open(self, ttl, labels).await
    }

    pub fn lock(&self, name: impl Into<String>) -> Lock {
        Lock::new(self.clone(), name)
    }

    pub fn election(&self, name: impl Into<String>) -> Election {
        Election::new(self.clone(), name)
    }

    pub fn registry(&self) -> Registry {
        Registry::new(self.clone())
    }

    /// What operators ask and do.
    pub fn operate(&self) -> Operate {
        Operate::new(self.clone())
    }
}
