//! What the clients did and were told: every question with the moments it was asked and answered, on one monotonic clock, and
//! what came back. Plain data that checkers judge afterwards; it knows no network, and no checker.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use prost::bytes::Bytes;
use tenure_proto::etcdserverpb::ResponseHeader;
use tenure_proto::mvccpb::{Event, KeyValue};

/// Nanoseconds since the recording began.
pub type Moment = u64;

pub const SECOND: Moment = 1_000_000_000;

/// Who answered, and how far that member had come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    pub revision: i64,
    pub term: u64,
}

impl From<Option<ResponseHeader>> for Header {
    fn from(header: Option<ResponseHeader>) -> Header {
        let header = header.unwrap_or_default();
        Header { revision: header.revision, term: header.raft_term }
    }
}

/// What was asked.
#[derive(Clone, Debug)]
pub enum Action {
    /// Values are unique in a recording, so that an event tells whose it is.
    Put {
        key: Bytes,
        value: Bytes,
        lease: i64,
    },
    Delete {
        key: Bytes,
    },
    /// If the key was last changed at `unchanged_since` (0: does not exist), when its value was `expected`, it gets `value`;
    /// otherwise it is read.
    Swap {
        key: Bytes,
        unchanged_since: i64,
        expected: Option<Bytes>,
        value: Bytes,
    },
    Get {
        key: Bytes,
        serializable: bool,
    },
    Grant {
        lease: i64,
        ttl_s: i64,
    },
    Renew {
        lease: i64,
    },
    Revoke {
        lease: i64,
    },
    TimeToLive {
        lease: i64,
    },
}

/// What was answered, beside the header.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    Put,
    /// Whether there was such a key.
    Deleted(bool),
    Swapped,
    NotSwapped(Option<KeyValue>),
    Got(Option<KeyValue>),
    /// Seconds.
    Granted(i64),
    /// Seconds; 0 or less: there is no such lease.
    Renewed(i64),
    Revoked,
    /// Seconds; -1: there is no such lease.
    Left(i64),
}

// Some of this is only read by whoever is shown a finding.
#[allow(dead_code)]
#[derive(Clone, Debug)]
pub enum Outcome {
    Done(Header, Answer),
    /// It did not happen, and never will.
    Refused(String),
    /// It may have happened, or may still happen.
    Unknown(String),
}

#[allow(dead_code)]
#[derive(Clone, Debug)]
pub struct Operation {
    pub client: usize,
    /// The member that was asked, by its number.
    pub member: usize,
    pub asked: Moment,
    pub answered: Moment,
    pub action: Action,
    pub outcome: Outcome,
}

impl Operation {
    pub fn done(&self) -> Option<(Header, &Answer)> {
        match &self.outcome {
            Outcome::Done(header, answer) => Some((*header, answer)),
            Outcome::Refused(_) | Outcome::Unknown(_) => None,
        }
    }
}

/// One message of a watch.
#[derive(Clone, Debug)]
pub struct Delivery {
    pub at: Moment,
    pub header: Header,
    /// None: word of how far the watch has come.
    pub events: Vec<Event>,
}

/// A watch as long as its connection lasted.
#[derive(Clone, Debug)]
pub struct Piece {
    pub member: usize,
    /// The revision from which it was to be told.
    pub from: i64,
    pub deliveries: Vec<Delivery>,
}

/// One watcher's story over all its connections, each resumed behind the last revision seen.
#[derive(Clone, Debug)]
pub struct Watch {
    pub name: String,
    pub from: Bytes,
    pub to: Bytes,
    pub pieces: Vec<Piece>,
}

impl Watch {
    pub fn covers(&self, key: &[u8]) -> bool {
        match &self.to[..] {
            [] => key == self.from,
            [0] => key >= &self.from[..],
            to => key >= &self.from[..] && key < to,
        }
    }
}

/// All that was recorded.
#[derive(Clone, Debug, Default)]
pub struct Recording {
    pub operations: Vec<Operation>,
    pub watches: Vec<Watch>,
}

impl Recording {
    /// When somebody had seen that the cluster had come to a revision, in the order of time.
    pub fn sightings(&self) -> Vec<Sighting> {
        let answers = self.operations.iter().filter_map(|operation| {
            let (header, _) = operation.done()?;
            Some(Sighting { at: operation.answered, revision: header.revision })
        });
        let told = self.watches.iter().flat_map(|watch| &watch.pieces).flat_map(|piece| &piece.deliveries);
        let told = told.map(|told| Sighting { at: told.at, revision: told.header.revision });
        let mut sightings: Vec<Sighting> = answers.chain(told).collect();
        sightings.sort_unstable_by_key(|sighting| sighting.at);
        sightings
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Sighting {
    pub at: Moment,
    pub revision: i64,
}

/// Where clients write down what they saw.
pub struct Recorder {
    began: Instant,
    recording: Mutex<Recording>,
}

impl Recorder {
    pub fn start() -> Recorder {
        Recorder { began: Instant::now(), recording: Mutex::default() }
    }

    pub fn now(&self) -> Moment {
        self.began.elapsed().as_nanos() as Moment
    }

    pub fn operation(&self, operation: Operation) {
        self.recording.lock().unwrap_or_else(PoisonError::into_inner).operations.push(operation);
    }

    pub fn watch(&self, watch: Watch) {
        self.recording.lock().unwrap_or_else(PoisonError::into_inner).watches.push(watch);
    }

    pub fn operations(&self) -> usize {
        self.recording.lock().unwrap_or_else(PoisonError::into_inner).operations.len()
    }

    /// Everything so far, by the time it was asked.
    pub fn take(&self) -> Recording {
        let mut recording =
            std::mem::take(&mut *self.recording.lock().unwrap_or_else(PoisonError::into_inner));
        recording.operations.sort_by_key(|operation| operation.asked);
        recording
    }
}
