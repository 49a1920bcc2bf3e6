//! How a member that does not lead serves clients all the same: what only the leader can do is passed on to it. Knows what is
//! passed on and to whom; not what a command means, and not how members reach each other.
//!
//! ```text
//!   writer ─► tickets ─► sender ══ one stream ══► service (at the leader) ─► consensus
//!                ▲                                                               │ replicated
//!                └───────────────────── apply, here ◄────────────────────────────┘
//! ```
//!
//! A proposal is answered where it was made, by that member's own apply, which knows it again by its ticket. So the answer
//! never speaks of a state that this member has not reached, and the leader has no answer to send.
//!
//! **What becomes of a proposal when leaders change.** It is sent for one leadership ([`Mandate`](crate::raft::Mandate)) and
//! is written in that one or not at all. Once an entry of a later leadership is applied here, whatever was sent for an
//! earlier one and is not applied never will be: it is sent again, to the new leader, and nobody notices but for the wait.

pub mod asking;
mod leases;
pub mod renewals;
mod sender;
mod service;
#[cfg(test)]
mod tests;
mod tickets;

pub use asking::ReadIndexes;
pub use leases::Elsewhere;
pub use sender::Sender;
pub use service::{Parts as ServiceParts, Service};
pub use tickets::Tickets;

/// Refusals that wait to be passed back, as many as a member's proposals may be under way. What does not fit is not passed
/// back: then the proposal's timeout says it.
const REFUSALS_MAX: usize = 16_384;
