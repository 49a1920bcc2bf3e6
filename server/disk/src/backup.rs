//! A whole state in one stream of bytes, to be kept elsewhere: the format of `snapshot save`. Written here while writes go
//! on; read by `reader`, which believes nothing that it has not checked.
//!
//! ```text
//!   "TENURE BACKUP 1\n"
//!   frame*     [length u32][kind u8][body]      records, then pairs of other state, then the end with both counts
//!   zeros      up to a multiple of 512          etcdctl expects a size of 512 n + 32
//!   SHA-256    of all before
//! ```
//!
//! A records frame holds many `[place 13][length u32][bytes]`, a meta frame many `[length u32][key][length u32][value]`;
//! the head holds what the caller wants to say of the whole.

mod reader;

use bytes::{BufMut, Bytes, BytesMut};
use sha2::{Digest, Sha256};
use tenure_state::{Fatal, Place};

pub use self::reader::{Item, ReadError, Reader, Whole};

use crate::store::Snapshot;

pub const MAGIC: &[u8; 16] = b"TENURE BACKUP 1\n";
/// Size of the frames that are sent, about.
const FRAME_BYTES: usize = 64 << 10;
const ALIGNMENT: u64 = 512;
const DIGEST_BYTES: usize = 32;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Head = 1,
    Records = 2,
    Meta = 3,
    End = 4,
}

impl Kind {
    const ALL: [Kind; 4] = [Kind::Head, Kind::Records, Kind::Meta, Kind::End];
}

/// Gives the stream to `send`, piece by piece, until it is whole or `send` says (false) that nobody listens any more.
pub fn write(snapshot: &Snapshot, head: &[u8], send: impl FnMut(Bytes) -> bool) -> Result<(), Fatal> {
    let mut stream = Stream { digest: Sha256::new(), written: 0, send, listening: true };
    stream.put(Bytes::from_static(MAGIC));
    stream.frame(Kind::Head, head);
    let (mut records, mut pairs) = (0u64, 0u64);
    let mut body = BytesMut::with_capacity(FRAME_BYTES + 4096);
    for record in snapshot.records() {
        let (place, bytes): (Place, Bytes) = record?;
        body.put_slice(&place.encode());
        body.put_u32(bytes.len() as u32);
        body.put_slice(&bytes);
        records += 1;
        if body.len() >= FRAME_BYTES && !stream.flush(Kind::Records, &mut body) {
            return Ok(());
        }
    }
    stream.flush(Kind::Records, &mut body);
    for pair in snapshot.meta() {
        let (key, value): (Bytes, Bytes) = pair?;
        for part in [key, value] {
            body.put_u32(part.len() as u32);
            body.put_slice(&part);
        }
        pairs += 1;
        if body.len() >= FRAME_BYTES && !stream.flush(Kind::Meta, &mut body) {
            return Ok(());
        }
    }
    stream.flush(Kind::Meta, &mut body);
    stream.frame(Kind::End, &[records.to_be_bytes(), pairs.to_be_bytes()].concat());
    stream.finish();
    Ok(())
}

struct Stream<F> {
    digest: Sha256,
    written: u64,
    send: F,
    listening: bool,
}

impl<F: FnMut(Bytes) -> bool> Stream<F> {
    fn put(&mut self, bytes: Bytes) {
        self.digest.update(&bytes);
        self.written += bytes.len() as u64;
        self.listening = self.listening && (self.send)(bytes);
    }

    fn frame(&mut self, kind: Kind, body: &[u8]) {
        let mut frame = BytesMut::with_capacity(5 + body.len());
        frame.put_u32(body.len() as u32);
        frame.put_u8(kind as u8);
        frame.put_slice(body);
        self.put(frame.freeze());
    }

    /// Sends what has gathered. False when nobody listens.
    fn flush(&mut self, kind: Kind, body: &mut BytesMut) -> bool {
        if !body.is_empty() {
            self.frame(kind, body);
            body.clear();
        }
        self.listening
    }

    fn finish(mut self) {
        let padding = (ALIGNMENT - self.written % ALIGNMENT) % ALIGNMENT;
        self.put(Bytes::from(vec![0; padding as usize]));
        let digest = Bytes::copy_from_slice(&self.digest.clone().finalize());
        self.put(digest);
    }
}
