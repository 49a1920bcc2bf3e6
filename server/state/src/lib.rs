//! The pure core: what the cluster agrees on (`machine`), what only the leader counts (`lessor`), what each member
//! shows its clients (`watchers`). Plain synchronous code: no network, disk, clock, chance, thread or log line, so that
//! the same entries give the same state everywhere and tests need no waiting.

mod change;
mod interval;
mod records;
mod revision;

pub use change::{Change, Effect, Event, Key, LeaseId, Previous, Write};
pub use interval::{Interval, prefix_end};
pub use records::{Fatal, Records};
pub use revision::{Place, Revision};
