//! What Tenure exists for: sessions, locks, elections and a registry, each a state machine over ordinary keys that changes by
//! compare-and-swap transactions, waits by watching, and ends by leases.
//!
//! Why a crate: the same code runs in the server, in a client, and on a server in memory under test, so it sees only
//! [`Primitives`]. It starts no task, sets no timer, asks no clock and opens no connection; what takes time is a lease, and who
//! wants to wait for less says so to whoever calls.

pub mod census;
pub mod check;
pub mod election;
pub mod etcd;
pub mod guard;
pub mod key;
pub mod lock;
pub mod primitives;
pub mod refusal;
pub mod registry;
pub mod session;

pub use key::Root;
pub use primitives::{Change, Changes, Failure, Primitives, TimeLeft};
pub use refusal::{Error, Reason, Refusal};
