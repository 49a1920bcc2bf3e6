//! The pure core: what the cluster agrees on (`machine`), what only the leader counts (`lessor`), what each member
//! shows its clients (`watchers`). Plain synchronous code: no network, disk, clock, chance, thread or log line, so that
//! the same entries give the same state everywhere and tests need no waiting.

mod alarm;
mod answer;
mod change;
pub mod check;
mod draft;
mod index;
mod interval;
mod lease;
mod lessor;
mod load;
mod machine;
mod member;
mod records;
mod revision;
mod scan;
pub mod solo;
pub mod stored;
pub mod txn;
mod watchers;

pub use alarm::Alarms;
pub use answer::{Applied, Refusal, Response};
pub use change::{Change, Effect, Event, Key, LeaseId, Previous, Write};
pub use index::{History, Index, Newest};
pub use interval::{Interval, prefix_end};
pub use lease::{Lease, Leases, TTL_MAX_S};
pub use lessor::{Checkpoint, Lasting, Lessor, Millis, Pace, Recollection, Remaining, Renewal, Standing};
pub use load::Load;
pub use machine::{Machine, Position};
pub use member::{Member, Members};
pub use records::{Fatal, Records};
pub use revision::{Place, Revision};
pub use scan::{Scan, Step};
pub use watchers::{
    CreateError, Created, Delivery, HistoryRequest, Limits, Piece, Pull, StreamId, WatchId, WatchSpec,
    WatchStats, Watchers,
};
