//! What a state looks like, whatever its revisions are. Recipes go by the order of revisions and by whether one follows the other at once
//! (`looked - 1`, `revision + 1`); how large they are, and how many of others' lie between, nothing depends on. So two states that
//! differ only in that have the same future, and one is looked at: a look wherever revisions are replaced by their places in the order
//! of all that are there, with gaps of more than two as three.
//!
//! What a revision is, is seen by its size, in each of the notations in which recipes write numbers: as a varint of protobuf, as sixteen
//! hexadecimal digits (in keys of queues), and in decimal digits (in guards, and what Rust prints). Only a limit of a queue asks for more, every 64th
//! revision; none is reached here.

use std::hash::{DefaultHasher, Hash, Hasher};

/// No other number in a test comes near.
pub const FIRST_REVISION: i64 = (1 << 40) + 1;
/// Revisions of one path, so that none is a multiple of 64.
const REVISIONS_MAX: i64 = 62;
/// Greater distances are all alike.
const GAP_MAX: i64 = 3;

/// Bytes, and the revisions in them apart.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Print {
    shape: u64,
    revisions: Vec<i64>,
}

/// A state, put together from prints.
#[derive(Default)]
pub struct Portrait {
    hasher: DefaultHasher,
    revisions: Vec<i64>,
}

impl Print {
    pub fn of(bytes: &[u8]) -> Print {
        let (mut hasher, mut revisions) = (DefaultHasher::new(), Vec::new());
        let (mut plain, mut at) = (0, 0);
        while at < bytes.len() {
            let Some((revision, len)) = revision_at(&bytes[at..]) else {
                at += 1;
                continue;
            };
            bytes[plain..at].hash(&mut hasher);
            revisions.push(revision);
            at += len;
            plain = at;
        }
        bytes[plain..].hash(&mut hasher);
        Print { shape: hasher.finish(), revisions }
    }
}

/// The revision that stands here, and how many bytes long.
fn revision_at(bytes: &[u8]) -> Option<(i64, usize)> {
    const ZERO: i64 = 1 << 40;
    const VARINT: [u8; 5] = [0x80, 0x80, 0x80, 0x80, 0x20];
    match bytes {
        [low, rest @ ..] if low & 0x80 != 0 && rest.starts_with(&VARINT) => {
            Some((ZERO + i64::from(low & 0x7f), 6))
        }
        [b'0', ..] if bytes.starts_with(b"00000100000000") => {
            let digits = std::str::from_utf8(bytes.get(..16)?).ok()?;
            Some((i64::from_str_radix(digits, 16).ok()?, 16))
        }
        [b'1', ..] if bytes.starts_with(b"1099511627") => {
            let digits = std::str::from_utf8(bytes.get(..13)?).ok()?;
            Some((digits.parse().ok()?, 13))
        }
        _ => None,
    }
}

impl Portrait {
    pub fn add(&mut self, print: &Print) {
        (print.shape, print.revisions.len()).hash(&mut self.hasher);
        self.revisions.extend(&print.revisions);
    }

    pub fn say(&mut self, what: &impl Hash) {
        what.hash(&mut self.hasher);
    }

    /// As one number. `now` is the revision of the store: what is written next comes behind it.
    pub fn finish(mut self, now: i64) -> u64 {
        assert!(now - FIRST_REVISION < REVISIONS_MAX, "a path of few clients has so many revisions");
        self.revisions.push(now);
        let mut order = self.revisions.clone();
        order.sort_unstable();
        order.dedup();
        let mut places = vec![0; order.len()];
        for (at, pair) in order.windows(2).enumerate() {
            places[at + 1] = places[at] + (pair[1] - pair[0]).min(GAP_MAX);
        }
        for revision in &self.revisions {
            let at = order.binary_search(revision).expect("all are in order");
            places[at].hash(&mut self.hasher);
        }
        self.hasher.finish()
    }
}

#[test]
fn revisions_are_known_by_sight_and_only_their_order_counts() {
    let text = |revision: i64| {
        let mut bytes = format!("k/{revision:016x}/{revision}=").into_bytes();
        prost::encoding::encode_varint(revision as u64, &mut bytes);
        bytes
    };
    let portrait = |revisions: &[i64], now: i64| {
        let mut portrait = Portrait::default();
        revisions.iter().for_each(|revision| portrait.add(&Print::of(&text(*revision))));
        portrait.finish(now)
    };
    let first = FIRST_REVISION;
    assert_eq!(Print::of(&text(first + 7)).revisions, [first + 7; 3]);
    assert_eq!(portrait(&[first, first + 9], first + 30), portrait(&[first + 2, first + 7], first + 11));
    assert_ne!(portrait(&[first, first + 9], first + 30), portrait(&[first + 9, first], first + 30));
    assert_ne!(portrait(&[first, first + 9], first + 30), portrait(&[first + 8, first + 9], first + 30));
    assert_ne!(portrait(&[first], first), portrait(&[first], first + 1));
}
