//! Locks: exclusive, shared, or by permits; one, or several at once; with a queue in the order of asking, a fencing token for each
//! grant, and a delay behind holders that were lost. A state machine over the keys of one lock (recipes/README.md) in which every
//! transition is one txn: who leaves, and who comes in its place.
//!
//! ```text
//!   acquire ──► granted ──► release ─────────────────────────► the next is granted, in the same revision
//!        └────► queued ──► wait ──► granted       │ session ends
//!                  └─────► leave                  └──────────► help: the same, by whoever sees it first
//! ```
//!
//! `plan` is the heart of it; the other files are its callers. Nothing here waits but `wait` and `follow`, and nothing keeps
//! time: how long somebody is willing to wait is its caller's business.

mod acquire;
mod convert;
mod follow;
mod help;
mod inspect;
pub mod keys;
mod leave;
mod overview;
mod plan;
mod policy;
mod reading;
mod step;
mod token;
mod wait;
mod watching;
pub mod wish;

pub use acquire::{Acquired, Ticket, acquire};
pub use convert::{Converted, convert};
pub use follow::{Following, Turn, follow};
pub use help::help;
pub use inspect::{Inspected, ahead, inspect, summary};
pub use keys::Owner;
pub use leave::{Broke, abandon, break_grant, leave, release};
pub use overview::{Overview, list};
pub use policy::{policy, set_policy};
pub use token::{Checked, Floor, check, floor, request_release};
pub use wait::{Waited, wait};
pub use watching::{Told, Watching, watch};
pub use wish::Wish;

/// How often a call begins anew because others were in its way. Each time one of them got through.
const TRIES_MAX: usize = 1_000;

/// Too many others got through before a call.
fn crowded(name: &str) -> crate::Failure {
    crate::Failure::Unavailable(format!("others change the lock {name:?} too fast; ask again"))
}
