//! Mends what some etcd clients put into `:authority`, on the way from the socket to the HTTP/2 library. clientv3 3.4
//! writes there the endpoint as its user wrote it (`http://10.0.0.1:2379`), clientv3 3.5.0 a list
//! (`#initially=[10.0.0.1:2379]`). Neither is an authority, the library resets such streams before any of our code sees them,
//! and it cannot be told otherwise; Go's servers never looked. Nothing of ours looks either, so what is put in its place
//! need only be well-formed.
//!
//! It reads the client's bytes up to the first header block (RFC 9113 sections 3.4 and 4.1). If the authority in it is sound,
//! as with almost everyone, it steps aside for good and costs one comparison a read. If not, that client's header
//! blocks are rewritten as long as the connection lives. Whatever it does not understand it passes on as it came: to judge
//! that is the library's task. It knows nothing of requests, and no more of HTTP/2 than where an authority stands.

mod hpack;

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;

/// A connection whose reading side is mended.
pub struct Mended<S> {
    connection: S,
    /// None once it has stepped aside.
    mender: Option<Box<Mender>>,
    /// Mended bytes that the reader has not had room for, from `taken` on.
    ready: Vec<u8>,
    taken: usize,
}

impl<S> Mended<S> {
    pub fn new(connection: S) -> Mended<S> {
        Mended { connection, mender: Some(Box::default()), ready: Vec::new(), taken: 0 }
    }

    fn hand_out(&mut self, buffer: &mut ReadBuf<'_>) {
        let some = buffer.remaining().min(self.ready.len() - self.taken);
        buffer.put_slice(&self.ready[self.taken..self.taken + some]);
        self.taken += some;
        if self.taken == self.ready.len() {
            self.taken = 0;
            match self.mender {
                Some(_) => self.ready.clear(),
                None => self.ready = Vec::new(),
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Mended<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        task: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if !this.ready.is_empty() {
                this.hand_out(buffer);
                return Poll::Ready(Ok(()));
            }
            let Some(mender) = &mut this.mender else {
                return Pin::new(&mut this.connection).poll_read(task, buffer);
            };
            let mut bytes = [0; READ_BYTES];
            let mut read = ReadBuf::new(&mut bytes);
            std::task::ready!(Pin::new(&mut this.connection).poll_read(task, &mut read))?;
            let done = if read.filled().is_empty() {
                mender.give_up(&mut this.ready);
                true
            } else {
                mender.pass(read.filled(), &mut this.ready)
            };
            if done {
                this.mender = None;
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Mended<S> {
    fn poll_write(self: Pin<&mut Self>, task: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().connection).poll_write(task, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        task: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().connection).poll_write_vectored(task, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.connection.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().connection).poll_flush(task)
    }

    fn poll_shutdown(self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().connection).poll_shutdown(task)
    }
}

impl<S: Connected> Connected for Mended<S> {
    type ConnectInfo = S::ConnectInfo;

    fn connect_info(&self) -> S::ConnectInfo {
        self.connection.connect_info()
    }
}

const READ_BYTES: usize = 4096;
/// A header block longer than this, with its frames' heads, is passed on unseen.
const BLOCK_BYTES_MAX: usize = 64 << 10;
/// The largest frame payload that every peer must accept (RFC 9113 section 4.2).
const FRAME_BYTES_MAX: usize = 16 << 10;
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const FRAME_HEAD: usize = 9;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

/// The client's side of a connection, frame by frame.
#[derive(Default)]
struct Mender {
    place: Place,
    /// Bytes of the preface seen and passed on.
    preface: usize,
    /// The frames of a header block (or the head of some frame) as they came, until it is known what becomes of them.
    held: Vec<u8>,
    /// Where in `held` the frame begins that is being read.
    frame: usize,
    /// The fragments of the block in `held`.
    block: Vec<u8>,
    /// This connection has shown a bad authority.
    needed: bool,
}

#[derive(Default)]
enum Place {
    #[default]
    Preface,
    Head,
    /// In a frame that is no concern of ours, with so many bytes to go.
    Passing(usize),
    /// In a frame of a header block, whose payload is so long.
    Block(usize),
}

/// So much of the input is dealt with.
enum Step {
    Took(usize),
    /// And nothing after it needs to be looked at.
    Done(usize),
}

impl Mender {
    /// Takes what the client sent and puts out what the library shall read. True when it need not be asked again: what
    /// follows may go past it.
    fn pass(&mut self, mut input: &[u8], out: &mut Vec<u8>) -> bool {
        while !input.is_empty() {
            let step = match self.place {
                Place::Preface => self.preface(input, out),
                Place::Head => self.head(input, out),
                Place::Passing(left) => self.passing(left, input, out),
                Place::Block(length) => self.block(length, input, out),
            };
            match step {
                Step::Took(took) => input = &input[took..],
                Step::Done(took) => {
                    self.give_up(out);
                    out.extend_from_slice(&input[took..]);
                    return true;
                }
            }
        }
        false
    }

    /// Puts out what is still held, as it came.
    fn give_up(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.held);
    }

    fn preface(&mut self, input: &[u8], out: &mut Vec<u8>) -> Step {
        let rest = &PREFACE[self.preface..];
        let took = rest.len().min(input.len());
        if input[..took] != rest[..took] {
            // Not HTTP/2, or not as we know it.
            return Step::Done(0);
        }
        out.extend_from_slice(&input[..took]);
        self.preface += took;
        if self.preface == PREFACE.len() {
            self.place = Place::Head;
        }
        Step::Took(took)
    }

    fn passing(&mut self, left: usize, input: &[u8], out: &mut Vec<u8>) -> Step {
        let took = left.min(input.len());
        out.extend_from_slice(&input[..took]);
        self.place = if took == left { Place::Head } else { Place::Passing(left - took) };
        Step::Took(took)
    }

    /// Reads on in a frame's head.
    fn head(&mut self, input: &[u8], out: &mut Vec<u8>) -> Step {
        let took = (self.frame + FRAME_HEAD - self.held.len()).min(input.len());
        self.held.extend_from_slice(&input[..took]);
        let &[high, middle, low, kind, _, _, _, _, _] = &self.held[self.frame..] else {
            return Step::Took(took);
        };
        let length = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        let expected = if self.frame == 0 { HEADERS } else { CONTINUATION };
        if kind == expected {
            if self.held.len() + length > BLOCK_BYTES_MAX {
                return Step::Done(took);
            }
            self.place = Place::Block(length);
            // It may be empty, and then there is no more input to wait for.
            if length == 0 { self.block_frame(took, out) } else { Step::Took(took) }
        } else if self.frame == 0 {
            out.append(&mut self.held);
            self.place = if length == 0 { Place::Head } else { Place::Passing(length) };
            Step::Took(took)
        } else {
            // Nothing may come between the frames of a block.
            Step::Done(took)
        }
    }

    fn block(&mut self, length: usize, input: &[u8], out: &mut Vec<u8>) -> Step {
        let whole = self.frame + FRAME_HEAD + length;
        let took = (whole - self.held.len()).min(input.len());
        self.held.extend_from_slice(&input[..took]);
        if self.held.len() == whole { self.block_frame(took, out) } else { Step::Took(took) }
    }

    /// A frame of a header block is whole, by the last `took` bytes.
    fn block_frame(&mut self, took: usize, out: &mut Vec<u8>) -> Step {
        let frame = &self.held[self.frame..];
        let Some(fragment) = fragment(frame) else { return Step::Done(took) };
        self.block.extend_from_slice(fragment);
        let last = frame[4] & END_HEADERS != 0;
        self.place = Place::Head;
        if !last {
            self.frame = self.held.len();
            return Step::Took(took);
        }
        self.frame = 0;
        let block = std::mem::take(&mut self.block);
        match hpack::mend(&block) {
            hpack::Verdict::Bad(mended) => {
                self.needed = true;
                put_block(&self.held, &mended, out);
                self.held.clear();
                Step::Took(took)
            }
            hpack::Verdict::Sound if self.needed => {
                out.append(&mut self.held);
                Step::Took(took)
            }
            hpack::Verdict::Sound | hpack::Verdict::Unclear => Step::Done(took),
        }
    }
}

/// The part of a HEADERS or CONTINUATION frame that belongs to the header block.
fn fragment(frame: &[u8]) -> Option<&[u8]> {
    let (kind, flags, mut payload) = (frame[3], frame[4], &frame[FRAME_HEAD..]);
    if kind != HEADERS {
        return Some(payload);
    }
    let mut padding = 0;
    if flags & PADDED != 0 {
        let (length, rest) = payload.split_first()?;
        (padding, payload) = (usize::from(*length), rest);
    }
    if flags & PRIORITY != 0 {
        payload = payload.get(5..)?;
    }
    payload.get(..payload.len().checked_sub(padding)?)
}

/// Puts a block out in frames of its own, on the stream and with the end that the frames it came in (`held`) had.
/// Padding and priority are left away: the one has hidden what it had to, the other means nothing any more.
fn put_block(held: &[u8], block: &[u8], out: &mut Vec<u8>) {
    let stream = &held[5..FRAME_HEAD];
    let (mut kind, mut flags) = (HEADERS, held[4] & END_STREAM);
    let mut pieces = block.chunks(FRAME_BYTES_MAX).peekable();
    while let Some(piece) = pieces.next() {
        if pieces.peek().is_none() {
            flags |= END_HEADERS;
        }
        // At most 2^14, so three bytes hold it.
        out.extend_from_slice(&(piece.len() as u32).to_be_bytes()[1..]);
        out.extend_from_slice(&[kind, flags]);
        out.extend_from_slice(stream);
        out.extend_from_slice(piece);
        (kind, flags) = (CONTINUATION, 0);
    }
}

#[cfg(test)]
mod tests;
