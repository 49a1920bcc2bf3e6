//! Who is who: the ids of members, clusters and leases, computed exactly as etcd does, so that a cluster described by
//! the same flags answers with the same ids. Also the one place that rolls dice; whoever needs chance is handed a
//! [`Dice`]. Knows neither the clock nor where the URLs came from: both are arguments.

use std::cell::RefCell;
use std::convert::Infallible;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng, TryRng};
use sha1::{Digest, Sha1};
use tenure_state::LeaseId;

/// A member of the cluster. Printed in hexadecimal, as etcd's tools do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberId(pub u64);

impl MemberId {
    /// The id of a member that the cluster starts with: all members compute it alike from `--initial-cluster` and
    /// `--initial-cluster-token`. The order of `peer_urls` does not matter.
    pub fn at_bootstrap<U: AsRef<str>>(peer_urls: &[U], token: &str) -> MemberId {
        MemberId(hash_of_urls(peer_urls, token))
    }

    /// The id of a member that is added to a running cluster. The time makes it new: a removed member's id never
    /// returns, though its URLs may.
    pub fn at_addition<U: AsRef<str>>(peer_urls: &[U], unix_seconds: i64) -> MemberId {
        MemberId(hash_of_urls(peer_urls, &unix_seconds.to_string()))
    }
}

impl fmt::Display for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

/// A cluster, named after the members it started with; it keeps the id when they change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterId(pub u64);

impl ClusterId {
    /// The order of `members` does not matter.
    pub fn of(members: &[MemberId]) -> ClusterId {
        let mut sorted = members.to_vec();
        sorted.sort_unstable();
        let mut hash = Sha1::new();
        for member in sorted {
            hash.update(member.0.to_be_bytes());
        }
        ClusterId(first_eight(&hash.finalize()))
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

/// Hands out ids for leases whose clients did not choose one: 2 bytes of the member, 5 of the time in milliseconds at
/// start, 1 that counts and overflows into the time. Unique among members, and after a restart too unless the member
/// granted more than 256 leases a millisecond all along; a clash is refused when the grant is applied, never merged.
#[derive(Debug)]
pub struct LeaseIds {
    member: u64,
    sequence: AtomicU64,
}

impl LeaseIds {
    const SEQUENCE_BITS: u32 = 48;

    pub fn new(member: MemberId, unix_ms: u64) -> LeaseIds {
        LeaseIds { member: member.0 << Self::SEQUENCE_BITS, sequence: AtomicU64::new(unix_ms << 8) }
    }

    /// Positive, as lease id 0 means "none" and etcd's clients print ids as if unsigned.
    pub fn next(&self) -> LeaseId {
        loop {
            let sequence = self.sequence.fetch_add(1, Ordering::Relaxed) + 1;
            let id = (self.member | (sequence & ((1 << Self::SEQUENCE_BITS) - 1))) & (i64::MAX as u64);
            if id != 0 {
                return LeaseId(id as i64);
            }
        }
    }
}

/// Chance, fit for secrets. A simulation seeds it and gets the same throws again.
#[derive(Debug)]
pub struct Dice(StdRng);

impl Dice {
    /// Seeded by the operating system. Panics if that has no randomness to give, as no secret could be made then.
    pub fn from_system() -> Dice {
        Dice(rand::make_rng())
    }

    pub fn seeded(seed: u64) -> Dice {
        Dice(StdRng::seed_from_u64(seed))
    }

    pub fn number(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// Uniform in `0..bound`; 0 when the bound is 0. For jitter.
    pub fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.0.random_range(0..bound) }
    }

    /// For salts and keys.
    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.0.fill_bytes(&mut bytes);
        bytes
    }

    /// `len` Latin letters, for tokens that travel in a header.
    pub fn letters(&mut self, len: usize) -> String {
        const LETTERS: &[u8; 52] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
        (0..len).map(|_| char::from(LETTERS[self.0.random_range(0..LETTERS.len())])).collect()
    }
}

thread_local! {
    static SEEDED: RefCell<Option<StdRng>> = const { RefCell::new(None) };
}

/// From here on [`ThreadDice`] on this thread throw what follows from `seed`: for simulations.
pub fn seed_thread(seed: u64) {
    SEEDED.set(Some(StdRng::seed_from_u64(seed)));
}

/// The dice of those who cannot be handed any, as libraries are: the thread's own, seeded by the operating system.
#[derive(Clone, Copy, Debug)]
pub struct ThreadDice;

impl TryRng for ThreadDice {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(self.throw(|dice| dice.next_u32()))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(self.throw(|dice| dice.next_u64()))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        self.throw(|dice| dice.fill_bytes(bytes));
        Ok(())
    }
}

impl ThreadDice {
    fn throw<T>(self, throw: impl FnOnce(&mut dyn Rng) -> T) -> T {
        SEEDED.with_borrow_mut(|seeded| match seeded {
            Some(seeded) => throw(seeded),
            None => throw(&mut rand::rng()),
        })
    }
}

fn hash_of_urls<U: AsRef<str>>(peer_urls: &[U], suffix: &str) -> u64 {
    let mut sorted: Vec<&str> = peer_urls.iter().map(AsRef::as_ref).collect();
    sorted.sort_unstable();
    let mut hash = Sha1::new();
    for url in sorted {
        hash.update(url.as_bytes());
    }
    hash.update(suffix.as_bytes());
    first_eight(&hash.finalize())
}

fn first_eight(digest: &[u8]) -> u64 {
    let bytes: [u8; 8] = digest[..8].try_into().expect("a SHA-1 digest has 20 bytes");
    u64::from_be_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// Each line was read off a running etcd 3.5.1.
    #[test]
    fn bootstrap_ids_are_those_of_etcd() {
        let cases: [(&[&str], &str, u64, u64); 3] = [
            (&["http://localhost:2380"], "etcd-cluster", 0x8e9e05c52164694d, 0xcdf818194e3a8c32),
            (&["http://127.0.0.1:32380"], "etcd-cluster", 443629905751424238, 13455796455940752355),
            (
                &["http://127.0.0.1:22381", "http://127.0.0.1:22380"],
                "tok",
                0x5adf384a15faa86d,
                0x8fd478c43bed87f4,
            ),
        ];
        for (urls, token, member, cluster) in cases {
            let id = MemberId::at_bootstrap(urls, token);
            assert_eq!(
                (id, ClusterId::of(&[id])),
                (MemberId(member), ClusterId(cluster)),
                "{urls:?} {token}"
            );
        }
    }

    /// What etcd 3.5.1 answered to `member add` in that second.
    #[test]
    fn added_members_ids_are_those_of_etcd() {
        let id = MemberId::at_addition(&["http://127.0.0.1:32381", "http://127.0.0.1:32371"], 1795249514);
        assert_eq!(id.to_string(), "a7b2c057bbb970d0");
    }

    #[test]
    fn order_does_not_name_a_cluster() {
        let (a, b) = (MemberId(1), MemberId(u64::MAX));
        assert_eq!(ClusterId::of(&[a, b]), ClusterId::of(&[b, a]));
        assert_ne!(ClusterId::of(&[a]), ClusterId::of(&[b]));
    }

    #[test]
    fn lease_ids_are_positive_and_never_repeat() {
        for member in [0, 1, 0x8e9e05c52164694d, u64::MAX] {
            let ids = LeaseIds::new(MemberId(member), (1 << 40) - 2);
            let seen: HashSet<i64> = (0..2000).map(|_| ids.next().0).collect();
            assert_eq!(seen.len(), 2000);
            assert!(seen.iter().all(|id| *id > 0));
        }
    }

    #[test]
    fn lease_ids_of_members_and_of_restarts_differ() {
        let at = |member, unix_ms| LeaseIds::new(MemberId(member), unix_ms).next();
        assert_ne!(at(1, 1000), at(2, 1000));
        assert_ne!(at(1, 1000), at(1, 1001));
    }

    #[test]
    fn seeded_dice_repeat_and_the_systems_do_not() {
        assert_eq!(Dice::seeded(7).bytes::<16>(), Dice::seeded(7).bytes::<16>());
        assert_ne!(Dice::from_system().bytes::<16>(), Dice::from_system().bytes::<16>());
        let mut dice = Dice::seeded(1);
        assert!(dice.letters(64).bytes().all(|letter| letter.is_ascii_alphabetic()));
        assert_eq!(dice.below(0), 0);
        assert!((0..100).all(|_| dice.below(3) < 3));
        assert_ne!(dice.number(), dice.number());
    }

    #[test]
    fn a_seeded_threads_dice_repeat_and_another_threads_do_not() {
        let throws = || [ThreadDice.next_u64(), ThreadDice.next_u64()];
        let seeded = || {
            seed_thread(7);
            throws()
        };
        let elsewhere = |throws: fn() -> [u64; 2]| std::thread::spawn(throws).join().ok();
        assert_eq!(seeded(), seeded());
        assert_ne!(Some(throws()), elsewhere(throws));
    }
}
