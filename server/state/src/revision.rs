//! Where in history: a revision, and the place of one change within it. Knows nothing of what changed.

use std::fmt;

/// A point in the store's history. An empty store stands at 1; each command that changes something takes the next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub i64);

impl Revision {
    /// The revision of a store to which nothing has happened.
    pub const EMPTY: Revision = Revision(1);

    pub fn next(self) -> Revision {
        Revision(self.0 + 1)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The place of one change: its revision, its order within the revision, and whether it removed the key. Ordered as it
/// happened, and so are its bytes: this is the key of a record in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    pub main: i64,
    pub sub: u32,
    pub tombstone: bool,
}

impl Place {
    pub const ENCODED_LEN: usize = 13;

    pub fn revision(self) -> Revision {
        Revision(self.main)
    }

    pub fn encode(self) -> [u8; Self::ENCODED_LEN] {
        let mut bytes = [0; Self::ENCODED_LEN];
        bytes[..8].copy_from_slice(&self.main.to_be_bytes());
        bytes[8..12].copy_from_slice(&self.sub.to_be_bytes());
        bytes[12] = u8::from(self.tombstone);
        bytes
    }

    /// None when the bytes are not a place that [`Place::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Option<Place> {
        let bytes: &[u8; Self::ENCODED_LEN] = bytes.try_into().ok()?;
        let main = i64::from_be_bytes(bytes[..8].try_into().ok()?);
        let sub = u32::from_be_bytes(bytes[8..12].try_into().ok()?);
        (main > 0 && bytes[12] <= 1).then_some(Place { main, sub, tombstone: bytes[12] == 1 })
    }

    /// The first place that a change of `revision` can have.
    pub fn first_of(revision: Revision) -> Place {
        Place { main: revision.0, sub: 0, tombstone: false }
    }
}
