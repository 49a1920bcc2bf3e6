//! Where one JSON object ends and the next begins, in a body that comes in pieces. It looks at braces and quotes only; whether what
//! lies between is JSON is for the parser to say.

use bytes::{Buf, Bytes, BytesMut};

/// What came and was not given out yet.
#[derive(Debug)]
pub struct Splitter {
    bytes: BytesMut,
    bytes_max: usize,
    /// How far it has looked.
    seen: usize,
    depth: usize,
    in_string: bool,
    escaped: bool,
}

/// Why no further object can be found.
#[derive(Debug, PartialEq, Eq)]
pub enum Malformed {
    NoObject(char),
    TooLarge,
    CutShort,
}

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Malformed::NoObject(begun) => {
                write!(f, "invalid character {begun:?} looking for beginning of value")
            }
            Malformed::TooLarge => f.write_str("the request is larger than the server reads"),
            Malformed::CutShort => f.write_str("unexpected EOF"),
        }
    }
}

impl Splitter {
    /// Objects of more than `bytes_max` bytes are refused.
    pub fn new(bytes_max: usize) -> Splitter {
        let bytes = BytesMut::new();
        Splitter { bytes, bytes_max, seen: 0, depth: 0, in_string: false, escaped: false }
    }

    pub fn push(&mut self, piece: &[u8]) {
        self.bytes.extend_from_slice(piece);
    }

    /// The next object; None: more must come first.
    pub fn next(&mut self) -> Result<Option<Bytes>, Malformed> {
        if self.depth == 0 {
            let blank = self.bytes.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
            self.bytes.advance(blank);
            match self.bytes.first() {
                None => return Ok(None),
                Some(b'{') => {}
                Some(other) => return Err(Malformed::NoObject(char::from(*other))),
            }
        }
        while let Some(byte) = self.bytes.get(self.seen) {
            self.seen += 1;
            if self.look(*byte) {
                let object = self.bytes.split_to(self.seen).freeze();
                self.seen = 0;
                return Ok(Some(object));
            }
        }
        if self.bytes.len() > self.bytes_max { Err(Malformed::TooLarge) } else { Ok(None) }
    }

    /// Nothing more comes.
    pub fn end(&self) -> Result<(), Malformed> {
        if self.bytes.iter().all(u8::is_ascii_whitespace) { Ok(()) } else { Err(Malformed::CutShort) }
    }

    /// Whether this byte ends the object.
    fn look(&mut self, byte: u8) -> bool {
        if self.in_string {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => self.in_string = false,
                _ => {}
            }
            return false;
        }
        match byte {
            b'"' => self.in_string = true,
            b'{' => self.depth += 1,
            b'}' => {
                self.depth -= 1;
                return self.depth == 0;
            }
            _ => {}
        }
        false
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn objects_are_found_however_they_are_cut() {
        let text = br#" {"a":"}{\"","b":{}}  {"c":1}{}"#;
        for size in 1..text.len() {
            let mut splitter = Splitter::new(100);
            let mut found = Vec::new();
            for piece in text.chunks(size) {
                splitter.push(piece);
                while let Some(object) = splitter.next().unwrap() {
                    found.push(object);
                }
            }
            assert_eq!(found, [&br#"{"a":"}{\"","b":{}}"#[..], br#"{"c":1}"#, b"{}"], "in pieces of {size}");
            assert_eq!(splitter.end(), Ok(()));
        }
    }

    #[test]
    fn what_is_no_object_is_refused() {
        let next = |text: &[u8]| {
            let mut splitter = Splitter::new(10);
            splitter.push(text);
            splitter.next()
        };
        assert_eq!(next(b"x"), Err(Malformed::NoObject('x')));
        assert_eq!(next(b"}"), Err(Malformed::NoObject('}')));
        assert_eq!(next(b"{\"aaaaaaaaaaaaaaa"), Err(Malformed::TooLarge));
        let mut cut = Splitter::new(10);
        cut.push(b"{\"a\"");
        assert_eq!((cut.next(), cut.end()), (Ok(None), Err(Malformed::CutShort)));
    }
}
