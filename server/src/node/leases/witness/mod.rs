//! Between the leader and the voters: until when leases may last, which is not in the log. The leader tells a majority of each renewal
//! before it acknowledges it ([`telling`]), teaches those that have lost their knowledge, and when it came to lead it asks what they
//! know ([`recalling`]); `service.rs` is the other side. What the knowledge means, and why nothing ends early by it, stands at the
//! head of the lessor (`state/src/lessor.rs`).
//!
//! The rule that all of it hangs on: who is told, taught or asked looks, with the lessor held, whether its vote is on its disk with
//! the caller's leadership. A majority's votes are with a new leader before that asks anything, so what an earlier one tells
//! later is refused by those whose answer counts, also after they were started anew.

pub mod recalling;
mod service;
pub mod telling;

use tenure_proto::internal::LeaseLasting;
use tenure_state::{Lasting, LeaseId};

pub use service::Service;

/// Leases in one message about their time, so that none holds the lessor long.
const LEASES_AT_ONCE: usize = 4_096;

fn to_wire(lasting: &Lasting) -> LeaseLasting {
    LeaseLasting { id: lasting.id.0, left_ms: lasting.left_ms }
}

fn from_wire(lasting: &LeaseLasting) -> Lasting {
    Lasting { id: LeaseId(lasting.id), left_ms: lasting.left_ms }
}
