//! gRPC's framing: a byte for compression, four of length, the message (gRPC over HTTP/2, "Length-Prefixed-Message"). The gateway
//! speaks to services in its own process, so nothing is ever compressed.

use bytes::{Buf, BufMut, Bytes, BytesMut};

const HEAD: usize = 5;

pub fn frame(message: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(HEAD + message.len());
    frame.put_u8(0);
    frame.put_u32(message.len() as u32);
    frame.put_slice(message);
    frame.freeze()
}

/// Messages out of a body that comes in pieces.
#[derive(Debug, Default)]
pub struct Unframer(BytesMut);

impl Unframer {
    pub fn push(&mut self, piece: &[u8]) {
        self.0.extend_from_slice(piece);
    }

    /// None: more must come first.
    pub fn next(&mut self) -> Option<Bytes> {
        let length = u32::from_be_bytes(self.0.get(1..HEAD)?.try_into().ok()?) as usize;
        if self.0.len() - HEAD < length {
            return None;
        }
        self.0.advance(HEAD);
        Some(self.0.split_to(length).freeze())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_survive() {
        let mut unframer = Unframer::default();
        let bytes = [frame(b"one"), frame(b""), frame(b"three")].concat();
        let mut found = Vec::new();
        for byte in bytes {
            unframer.push(&[byte]);
            found.extend(unframer.next());
        }
        assert_eq!(found, [&b"one"[..], b"", b"three"]);
        assert_eq!(unframer.next(), None);
    }
}
