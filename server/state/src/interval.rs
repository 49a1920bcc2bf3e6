//! A range of keys as etcd's `key` and `range_end` say it. Knows nothing of what lies in it.

use std::ops::Bound;

/// One key, a half-open range, or everything from a key on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Interval {
    Key(Box<[u8]>),
    /// `start <= key < end`; empty when `end <= start`.
    Range(Box<[u8]>, Box<[u8]>),
    From(Box<[u8]>),
}

impl Interval {
    /// `range_end` empty means the one key, a single zero byte means to the end of the key space.
    pub fn new(key: &[u8], range_end: &[u8]) -> Interval {
        match range_end {
            [] => Interval::Key(key.into()),
            [0] => Interval::From(key.into()),
            end => Interval::Range(key.into(), end.into()),
        }
    }

    pub fn contains(&self, key: &[u8]) -> bool {
        match self {
            Interval::Key(own) => **own == *key,
            Interval::Range(start, end) => **start <= *key && *key < **end,
            Interval::From(start) => **start <= *key,
        }
    }

    pub fn is_empty(&self) -> bool {
        matches!(self, Interval::Range(start, end) if end <= start)
    }

    pub fn start(&self) -> &[u8] {
        match self {
            Interval::Key(start) | Interval::Range(start, _) | Interval::From(start) => start,
        }
    }

    /// Bounds for an ordered map. An empty range gives bounds that hold nothing and that no map refuses.
    pub fn bounds(&self) -> (Bound<&[u8]>, Bound<&[u8]>) {
        match self {
            Interval::Key(key) => (Bound::Included(key), Bound::Included(key)),
            Interval::Range(start, _) if self.is_empty() => (Bound::Included(start), Bound::Excluded(start)),
            Interval::Range(start, end) => (Bound::Included(start), Bound::Excluded(end)),
            Interval::From(start) => (Bound::Included(start), Bound::Unbounded),
        }
    }
}

/// The `range_end` that makes `prefix` a prefix: the last byte that can be raised is, what follows falls away.
pub fn prefix_end(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return end;
        }
    }
    vec![0]
}
