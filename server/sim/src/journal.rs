//! What clients asked and were told, in the order in which it happened. One thread runs the whole world, so that order is
//! exact: of two events one came first. Knows nothing of what is right.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

/// When something happened: its place in the order of all events, and the world's time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment {
    pub seq: u64,
    pub ms: u64,
}

/// What a client asks of a member.
#[derive(Clone, Debug, PartialEq)]
pub enum Ask {
    Put {
        key: Bytes,
        value: Bytes,
        lease: i64,
    },
    Get {
        key: Bytes,
        serializable: bool,
    },
    /// Puts if the key is still at this revision (0: is not there), else reads it.
    Swap {
        key: Bytes,
        at: i64,
        value: Bytes,
    },
    Delete {
        key: Bytes,
    },
    Compact {
        at: i64,
    },
    Grant {
        ttl_s: i64,
    },
    Renew {
        lease: i64,
    },
    Revoke {
        lease: i64,
    },
    Left {
        lease: i64,
    },
}

/// A key's newest value, as far as it is looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    pub at: i64,
    pub value: Bytes,
    pub lease: i64,
}

/// What the member said. `at` is the header's revision.
#[derive(Clone, Debug, PartialEq)]
pub enum Told {
    Put {
        at: i64,
    },
    Got {
        at: i64,
        held: Option<Held>,
    },
    Swapped {
        at: i64,
        done: bool,
        held: Option<Held>,
    },
    Deleted {
        at: i64,
        count: i64,
    },
    Compacted,
    Granted {
        at: i64,
        lease: i64,
        ttl_s: i64,
    },
    Renewed {
        ttl_s: i64,
    },
    Revoked {
        at: i64,
    },
    /// None: there is no such lease.
    Left {
        at: i64,
        granted_s: Option<i64>,
    },
    /// No, for certain: nothing was done.
    Refused(String),
    /// It may have been done, or be done yet.
    Unknown(String),
}

impl Told {
    /// The header's revision.
    pub fn at(&self) -> Option<i64> {
        match self {
            Told::Put { at }
            | Told::Got { at, .. }
            | Told::Swapped { at, .. }
            | Told::Deleted { at, .. }
            | Told::Granted { at, .. }
            | Told::Revoked { at }
            | Told::Left { at, .. } => Some(*at),
            Told::Compacted | Told::Renewed { .. } | Told::Refused(_) | Told::Unknown(_) => None,
        }
    }
}

/// One question and its answer.
#[derive(Clone, Debug)]
pub struct Exchange {
    pub client: usize,
    pub member: usize,
    /// The member's life that was asked.
    pub life: u64,
    pub ask: Ask,
    pub asked: Moment,
    pub told: Option<(Moment, Told)>,
}

impl fmt::Display for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Exchange { client, member, life, ask, asked, told } = self;
        write!(f, "client {client} asked member {} (life {life}) at {} ms: {ask:?}; ", member + 1, asked.ms)?;
        match told {
            Some((moment, told)) => write!(f, "told at {} ms: {told:?}", moment.ms),
            None => f.write_str("not told yet"),
        }
    }
}

/// All exchanges, by number. Clones share it.
#[derive(Clone, Default)]
pub struct Journal {
    pages: Arc<Mutex<Pages>>,
}

#[derive(Default)]
struct Pages {
    now: Moment,
    exchanges: Vec<Exchange>,
    /// Folds in all that happens.
    hash: Hash,
}

impl Journal {
    pub fn tick(&self, now_ms: u64) {
        self.pages.lock().now.ms = now_ms;
    }

    /// A moment of its own, after all before.
    pub fn moment(&self) -> Moment {
        let mut pages = self.pages.lock();
        pages.now.seq += 1;
        pages.now
    }

    pub fn ask(&self, client: usize, member: usize, life: u64, ask: Ask) -> usize {
        let asked = self.moment();
        let mut pages = self.pages.lock();
        pages.exchanges.push(Exchange { client, member, life, ask, asked, told: None });
        pages.exchanges.len() - 1
    }

    /// The first word counts.
    pub fn tell(&self, number: usize, told: Told) {
        let moment = self.moment();
        let mut pages = self.pages.lock();
        let exchange = &mut pages.exchanges[number];
        if exchange.told.is_none() {
            exchange.told = Some((moment, told));
            let line = exchange.to_string();
            pages.hash.fold(line.as_bytes());
        }
    }

    pub fn told(&self, number: usize) -> Option<Told> {
        self.pages.lock().exchanges[number].told.as_ref().map(|(_, told)| told.clone())
    }

    /// Notes something that happened besides, for the hash.
    pub fn note(&self, what: &str) {
        self.pages.lock().hash.fold(what.as_bytes());
    }

    pub fn exchanges(&self) -> Vec<Exchange> {
        self.pages.lock().exchanges.clone()
    }

    pub fn len(&self) -> usize {
        self.pages.lock().exchanges.len()
    }

    /// Looks at the exchanges from `from` on without copying them.
    pub fn read<T>(&self, from: usize, look: impl FnOnce(&[Exchange]) -> T) -> T {
        look(self.pages.lock().exchanges.get(from..).unwrap_or_default())
    }

    pub fn hash(&self) -> u64 {
        self.pages.lock().hash.0
    }
}

/// FNV-1a, 64 bits: the same on every machine.
#[derive(Clone, Copy, Debug)]
pub struct Hash(pub u64);

impl Default for Hash {
    fn default() -> Hash {
        Hash(0xcbf2_9ce4_8422_2325)
    }
}

impl Hash {
    pub fn fold(&mut self, bytes: &[u8]) {
        for byte in bytes.iter().chain(&[0xff]) {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}
