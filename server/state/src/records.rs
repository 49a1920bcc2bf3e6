//! What the machine reads but does not keep in memory: records of past changes. The store answers from disk, tests
//! from a map.

use std::fmt;

use bytes::Bytes;

use crate::revision::Place;

/// Read access to every record that was written and not dropped, including those of commands applied a moment ago.
pub trait Records {
    /// The encoded `mvccpb.KeyValue` at `place`; None when no such record exists (never written, or compacted away).
    fn record(&self, place: Place) -> Result<Option<Bytes>, Fatal>;
}

/// This replica can no longer be trusted and must stop: its disk failed, or what it holds contradicts itself. Never an
/// answer to a client's mistake.
#[derive(Debug, Clone, PartialEq)]
pub struct Fatal(pub String);

impl fmt::Display for Fatal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Fatal {}
