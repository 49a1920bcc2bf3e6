//! Where recipes keep their keys: below one root, each thing's name as one segment whatever it contains.

/// Below which all keys of a set of recipes lie. Two roots know nothing of each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root(Vec<u8>);

impl Root {
    /// Where the server's own services keep theirs. Clients may read and watch there, not write.
    pub fn server() -> Root {
        Root(b"/_tenure/".to_vec())
    }

    /// `prefix` should end with a separator of the caller's choice.
    pub fn at(prefix: impl Into<Vec<u8>>) -> Root {
        Root(prefix.into())
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The key made of these segments, each escaped, with `/` between them and none at the end.
    pub fn key(&self, segments: &[&str]) -> Vec<u8> {
        let mut key = self.0.clone();
        for (number, segment) in segments.iter().enumerate() {
            if number > 0 {
                key.push(b'/');
            }
            escape(segment, &mut key);
        }
        key
    }

    /// The range of all keys strictly below those segments: first key, and the key behind the last.
    pub fn below(&self, segments: &[&str]) -> (Vec<u8>, Vec<u8>) {
        let mut from = self.key(segments);
        let mut to = from.clone();
        if !segments.is_empty() {
            from.push(b'/');
            // What comes right behind `/`.
            to.push(b'0');
            return (from, to);
        }
        (from, end_of_prefix(to))
    }

    /// The range of all keys strictly below those segments whose next segment begins with `prefix`, and of all below them.
    pub fn starting(&self, segments: &[&str], prefix: &str) -> (Vec<u8>, Vec<u8>) {
        let mut segments = segments.to_vec();
        segments.push(prefix);
        let from = self.key(&segments);
        let to = end_of_prefix(from.clone());
        (from, to)
    }

    /// The unescaped segments of a key below this root; None for any other key.
    pub fn segments(&self, key: &[u8]) -> Option<Vec<String>> {
        let rest = key.strip_prefix(&self.0[..])?;
        rest.split(|byte| *byte == b'/').map(unescape).collect()
    }
}

/// The first key that does not begin with `prefix`; `\0`, which stands for "to the end", if there is none.
pub(crate) fn end_of_prefix(mut prefix: Vec<u8>) -> Vec<u8> {
    while let Some(last) = prefix.pop() {
        if last < 0xff {
            prefix.push(last + 1);
            return prefix;
        }
    }
    vec![0]
}

/// Keeps what people read in names; `/`, `%` and control characters become `%XX`, so that no name reaches into another.
pub(crate) fn escape(segment: &str, key: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for byte in segment.bytes() {
        if byte == b'/' || byte == b'%' || byte.is_ascii_control() {
            key.extend([b'%', DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 0xf)]]);
        } else {
            key.push(byte);
        }
    }
}

fn unescape(segment: &[u8]) -> Option<String> {
    let mut name = Vec::with_capacity(segment.len());
    let mut bytes = segment.iter();
    while let Some(byte) = bytes.next() {
        if *byte != b'%' {
            name.push(*byte);
            continue;
        }
        let mut digit = || bytes.next().and_then(|byte| (*byte as char).to_digit(16));
        let (high, low) = (digit()?, digit()?);
        name.push((high << 4 | low) as u8);
    }
    String::from_utf8(name).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn names_survive_and_do_not_reach_into_each_other() {
        let root = Root::server();
        for name in ["jobs/nightly", "100%", "", "ä\u{0}b\n", "%2F", "a"] {
            let key = root.key(&["lock", name, "h"]);
            assert_eq!(root.segments(&key).unwrap(), ["lock", name, "h"]);
            assert_eq!(key[root.as_bytes().len()..].iter().filter(|byte| **byte == b'/').count(), 2);
        }
        let (from, to) = root.below(&["lock", "a"]);
        assert!(from <= root.key(&["lock", "a", "h"]) && root.key(&["lock", "a", "z"]) < to);
        assert!(!(from..to).contains(&root.key(&["lock", "a!"])));
    }

    #[test]
    fn all_keys_of_a_root_are_below_it() {
        let (from, to) = Root::at([1, 0xff]).below(&[]);
        assert_eq!((from, to), (vec![1, 0xff], vec![2]));
        assert_eq!(Root::at([0xff]).below(&[]).1, [0]);
    }

    #[test]
    fn other_keys_are_no_segments() {
        assert_eq!(Root::server().segments(b"/other/key"), None);
        assert_eq!(Root::server().segments(b"/_tenure/lock/%4"), None);
    }
}
