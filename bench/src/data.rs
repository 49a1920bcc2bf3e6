//! The keys and values of a run: fixed lengths, no two keys alike, values that do not compress.

use bytes::Bytes;
use rand::rngs::SmallRng;
use rand::{Rng, RngExt};

/// Random bytes from which values are cut; a value is a slice of them, so making one copies nothing.
const POOL_BYTES: usize = 1 << 20;

/// Numbered keys of one length: a prefix, then the number in decimal digits.
#[derive(Clone, Debug)]
pub(crate) struct Keys {
    prefix: String,
    digits: usize,
    pub(crate) count: u64,
}

impl Keys {
    /// `count` keys of `size` bytes.
    pub(crate) fn new(prefix: &str, size: usize, count: u64) -> Result<Self, String> {
        let needed = (count.max(2) - 1).ilog10() as usize + 1;
        match size.checked_sub(prefix.len()) {
            Some(digits) if digits >= needed => Ok(Self { prefix: prefix.to_owned(), digits, count }),
            _ => Err(format!(
                "{count} keys with prefix {prefix:?} do not fit in {size} bytes: use --key-size {} or more",
                prefix.len() + needed
            )),
        }
    }

    /// Keys of the same length, `count` of them.
    pub(crate) fn resized(&self, count: u64) -> Result<Self, String> {
        Self::new(&self.prefix, self.prefix.len() + self.digits, count)
    }

    /// Which key this is, if it is one of these.
    pub(crate) fn number_of(&self, key: &[u8]) -> Option<u64> {
        let digits = key.strip_prefix(self.prefix.as_bytes()).filter(|digits| digits.len() == self.digits)?;
        std::str::from_utf8(digits).ok()?.parse().ok().filter(|number| *number < self.count)
    }

    /// Key number `number`, counted round the key space.
    pub(crate) fn key(&self, number: u64) -> Bytes {
        self.numbered(number % self.count)
    }

    pub(crate) fn random(&self, random: &mut SmallRng) -> Bytes {
        self.numbered(random.random_range(0..self.count))
    }

    /// The first key and the end of the range that holds all keys.
    pub(crate) fn all(&self) -> (Bytes, Bytes) {
        (self.numbered(0), prefix_end(self.prefix.as_bytes()))
    }

    /// `span` keys that follow each other, starting at a random multiple of `span`: first key and end of range.
    pub(crate) fn random_span(&self, span: u64, random: &mut SmallRng) -> (Bytes, Bytes) {
        let first = random.random_range(0..(self.count / span).max(1)) * span;
        let last = (first + span).min(self.count) - 1;
        // The end is exclusive: the last key with a zero byte after it is the next possible key.
        let mut end = self.numbered(last).to_vec();
        end.push(0);
        (self.numbered(first), end.into())
    }

    fn numbered(&self, number: u64) -> Bytes {
        let mut key = Vec::with_capacity(self.prefix.len() + self.digits);
        key.extend_from_slice(self.prefix.as_bytes());
        key.resize(self.prefix.len() + self.digits, b'0');
        let mut rest = number;
        for digit in key.iter_mut().rev().take(self.digits) {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        key.into()
    }
}

/// The smallest key after all keys that start with `prefix`; `\0` (no end) when there is none.
fn prefix_end(prefix: &[u8]) -> Bytes {
    let Some(at) = prefix.iter().rposition(|byte| *byte < u8::MAX) else { return Bytes::from_static(b"\0") };
    let mut end = prefix[..=at].to_vec();
    end[at] += 1;
    end.into()
}

/// Random values of one length.
#[derive(Clone, Debug)]
pub(crate) struct Values {
    pool: Bytes,
    size: usize,
}

impl Values {
    pub(crate) fn new(size: usize, random: &mut SmallRng) -> Self {
        let mut pool = vec![0; POOL_BYTES + size];
        random.fill_bytes(&mut pool);
        Self { pool: pool.into(), size }
    }

    pub(crate) fn random(&self, random: &mut SmallRng) -> Bytes {
        let at = random.random_range(0..POOL_BYTES);
        self.pool.slice(at..at + self.size)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn keys_have_the_length_asked_for_and_keep_order() {
        let keys = Keys::new("bench/", 16, 1000).unwrap();
        assert_eq!(keys.key(7), "bench/0000000007");
        assert_eq!(keys.key(1007), "bench/0000000007");
        assert_eq!(keys.all(), ("bench/0000000000".into(), "bench0".into()));
        assert_eq!(keys.number_of(b"bench/0000000007"), Some(7));
        for other in ["bench/0000001000", "bench/7", "other/0000000007", "bench/000000000x"] {
            assert_eq!(keys.number_of(other.as_bytes()), None, "{other}");
        }
        assert_eq!(keys.resized(10_000).map(|keys| keys.key(9999)), Ok("bench/0000009999".into()));
        assert!(Keys::new("bench/", 9, 1000).is_ok());
        assert!(Keys::new("bench/", 8, 1000).is_err());
        assert!(Keys::new("bench/", 3, 1).is_err());
    }

    #[test]
    fn a_span_holds_exactly_its_keys() {
        let (keys, mut random) = (Keys::new("k", 5, 1000).unwrap(), SmallRng::seed_from_u64(1));
        for _ in 0..100 {
            let (first, end) = keys.random_span(10, &mut random);
            let inside = (0..1000).map(|n| keys.key(n)).filter(|key| (&first..&end).contains(&key)).count();
            assert_eq!(inside, 10);
        }
        let (first, _) = keys.random_span(5000, &mut random);
        assert_eq!(first, "k0000");
    }

    #[test]
    fn the_end_of_a_prefix_is_above_all_its_keys() {
        assert_eq!(prefix_end(b"a\xff"), "b");
        assert_eq!(prefix_end(b"\xff"), "\0");
        assert_eq!(prefix_end(b""), "\0");
    }

    #[test]
    fn values_are_as_long_as_asked_and_differ() {
        let mut random = SmallRng::seed_from_u64(1);
        let values = Values::new(256, &mut random);
        let (one, two) = (values.random(&mut random), values.random(&mut random));
        assert_eq!((one.len(), two.len()), (256, 256));
        assert_ne!(one, two);
        assert_eq!(Values::new(0, &mut random).random(&mut random).len(), 0);
    }
}
