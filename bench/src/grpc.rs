//! The least of gRPC over HTTP/2 that a load generator needs: unary calls and two-way streams on plain TCP.
//!
//! Client and server share the machine's cores, so every microsecond spent here is taken from the server. A general gRPC
//! client costs about as much per call as the server does; this one is h2 alone: no queue before the connection, no task
//! per call, no timer per call, one allocation for the request.
//! It knows nothing of etcd: messages are prost messages, answers are bytes for the caller to decode or ignore.

use std::str::FromStr;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures::future::poll_fn;
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::uri::Authority;
use http::{HeaderMap, Request, Version};
use prost::Message;
use tokio::net::TcpStream;

use crate::failure::Failure;

/// Bytes the server may send ahead of our reading, per stream and per connection: large, so that windows never limit it.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 64 << 20;
/// Streams we may open before the server has told its own limit.
const STREAMS_BEFORE_SETTINGS: usize = 1 << 16;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A gRPC message is preceded by one byte (compressed or not) and its length in four.
const PREFIX_BYTES: usize = 5;
/// Longest message accepted from a server; longer ones mean a broken stream.
const MESSAGE_BYTES_MAX: usize = 1 << 30;

/// Where a server listens: `host:port`, with or without `http://`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    authority: Authority,
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.starts_with("https://") {
            return Err(format!(
                "{text}: only plain http endpoints are supported, start the server without TLS"
            ));
        }
        let bare = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
        let authority = Authority::from_str(bare).map_err(|e| format!("{text}: not host:port ({e})"))?;
        match authority.port() {
            Some(_) => Ok(Self { authority }),
            None => Err(format!("{text}: the port is missing, write host:port")),
        }
    }
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.authority.fmt(f)
    }
}

/// One HTTP/2 connection; clones share it.
#[derive(Clone)]
pub(crate) struct Connection {
    requests: SendRequest<Bytes>,
    authority: Authority,
}

impl Connection {
    /// Connects within [`CONNECT_TIMEOUT`].
    pub(crate) async fn open(endpoint: &Endpoint) -> Result<Self, Failure> {
        let failed = |why: String| Failure::disconnected(format!("connect to {endpoint}: {why}"));
        let connecting = async {
            let socket =
                TcpStream::connect(endpoint.authority.as_str()).await.map_err(|e| failed(e.to_string()))?;
            socket.set_nodelay(true).map_err(|e| failed(e.to_string()))?;
            h2::client::Builder::new()
                .initial_window_size(STREAM_WINDOW_BYTES)
                .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
                .initial_max_send_streams(STREAMS_BEFORE_SETTINGS)
                .enable_push(false)
                .handshake(socket)
                .await
                .map_err(|e| failed(e.to_string()))
        };
        let (requests, connection) = tokio::time::timeout(CONNECT_TIMEOUT, connecting)
            .await
            .map_err(|_| failed(format!("no answer within {CONNECT_TIMEOUT:?}")))??;
        // How a connection ended is told to each call on it.
        tokio::spawn(async move { connection.await.ok() });
        Ok(Self { requests, authority: endpoint.authority.clone() })
    }

    /// Prepares calls of `path`, such as `/etcdserverpb.KV/Put`; each concurrent caller holds its own.
    pub(crate) fn method(&self, path: &'static str) -> Method {
        let head = Request::post(format!("http://{}{path}", self.authority))
            .version(Version::HTTP_2)
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())
            .expect("a parsed authority and a constant path make a valid URI");
        Method { requests: self.requests.clone(), head }
    }
}

/// One gRPC method on one connection.
pub(crate) struct Method {
    requests: SendRequest<Bytes>,
    head: Request<()>,
}

impl Method {
    /// Calls once and returns the answer's undecoded message.
    pub(crate) async fn call(&mut self, message: &impl Message) -> Result<Bytes, Failure> {
        let (response, mut body) = self.start().await?;
        body.send_data(frame(message), true).map_err(from_h2)?;
        let (head, mut body) = response.await.map_err(from_h2)?.into_parts();
        if let Some(status) = status_of(&head.headers) {
            status?;
        }
        let mut answer = Bytes::new();
        while let Some(chunk) = body.data().await {
            let chunk = chunk.map_err(from_h2)?;
            body.flow_control().release_capacity(chunk.len()).map_err(from_h2)?;
            answer = if answer.is_empty() { chunk } else { Bytes::from([answer, chunk].concat()) };
        }
        let trailers = body.trailers().await.map_err(from_h2)?.unwrap_or_default();
        status_of(&trailers).unwrap_or_else(|| Err(Failure::malformed("an answer without grpc-status")))?;
        if answer.len() < PREFIX_BYTES {
            return Err(Failure::malformed("a successful answer without a message"));
        }
        answer.advance(PREFIX_BYTES);
        Ok(answer)
    }

    /// Opens a two-way stream. The server may send nothing, not even its headers, before the first message.
    pub(crate) async fn open(&mut self) -> Result<(Outgoing, Incoming), Failure> {
        let (response, body) = self.start().await?;
        Ok((Outgoing { body }, Incoming { source: Source::Opening(response), unread: BytesMut::new() }))
    }

    async fn start(&mut self) -> Result<(ResponseFuture, SendStream<Bytes>), Failure> {
        poll_fn(|context| self.requests.poll_ready(context)).await.map_err(from_h2)?;
        self.requests.send_request(self.head.clone(), false).map_err(from_h2)
    }
}

/// The sending half of a stream; dropping it resets the stream.
pub(crate) struct Outgoing {
    body: SendStream<Bytes>,
}

impl Outgoing {
    /// Queues a message. The queue is not bounded here: callers bound what they leave unanswered.
    pub(crate) fn send(&mut self, message: &impl Message) -> Result<(), Failure> {
        self.body.send_data(frame(message), false).map_err(from_h2)
    }
}

/// The receiving half of a stream.
pub(crate) struct Incoming {
    source: Source,
    unread: BytesMut,
}

enum Source {
    Opening(ResponseFuture),
    Open(RecvStream),
}

impl Incoming {
    /// The next message, or nothing when the server ended the stream without an error. Safe to drop and call again.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        loop {
            if let Some(message) = take_message(&mut self.unread)? {
                return Ok(Some(message));
            }
            match &mut self.source {
                Source::Opening(response) => {
                    let (head, body) = response.await.map_err(from_h2)?.into_parts();
                    if let Some(status) = status_of(&head.headers) {
                        return status.map(|()| None);
                    }
                    self.source = Source::Open(body);
                }
                Source::Open(body) => match body.data().await {
                    Some(chunk) => {
                        let chunk = chunk.map_err(from_h2)?;
                        body.flow_control().release_capacity(chunk.len()).map_err(from_h2)?;
                        self.unread.extend_from_slice(&chunk);
                    }
                    None => {
                        let trailers = body.trailers().await.map_err(from_h2)?.unwrap_or_default();
                        return status_of(&trailers).unwrap_or(Ok(())).map(|()| None);
                    }
                },
            }
        }
    }
}

/// Decodes an answer; one that cannot be decoded counts as an error of the server.
pub(crate) fn decode<M: Message + Default>(answer: Bytes) -> Result<M, Failure> {
    M::decode(answer).map_err(|e| Failure::malformed(format!("undecodable answer: {e}")))
}

fn frame(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut buffer = BytesMut::with_capacity(PREFIX_BYTES + length);
    buffer.put_u8(0);
    buffer.put_u32(u32::try_from(length).expect("flags bound requests far below 4 GiB"));
    message.encode(&mut buffer).expect("the buffer has room for the message");
    buffer.freeze()
}

fn take_message(unread: &mut BytesMut) -> Result<Option<Bytes>, Failure> {
    let Some(length) = unread.get(1..PREFIX_BYTES) else { return Ok(None) };
    let length = length.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
    if unread[0] != 0 || length > MESSAGE_BYTES_MAX {
        return Err(Failure::malformed(format!("a frame with flag {} and length {length}", unread[0])));
    }
    if unread.len() < PREFIX_BYTES + length {
        return Ok(None);
    }
    unread.advance(PREFIX_BYTES);
    Ok(Some(unread.split_to(length).freeze()))
}

fn status_of(headers: &HeaderMap) -> Option<Result<(), Failure>> {
    let code = headers.get("grpc-status")?;
    if code == "0" {
        return Some(Ok(()));
    }
    let message = headers.get("grpc-message").and_then(|m| m.to_str().ok()).unwrap_or_default();
    Some(Err(Failure::status(code.to_str().unwrap_or_default(), message)))
}

fn from_h2(error: h2::Error) -> Failure {
    if error.is_reset() {
        Failure::reset(error.to_string())
    } else {
        Failure::disconnected(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn endpoints_are_host_and_port_without_tls() {
        for text in ["127.0.0.1:2379", "http://127.0.0.1:2379", "http://127.0.0.1:2379/"] {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), "127.0.0.1:2379");
        }
        assert_eq!("http://[::1]:2379".parse::<Endpoint>().unwrap().to_string(), "[::1]:2379");
        for text in ["https://127.0.0.1:2379", "127.0.0.1", "", "a b:1"] {
            assert!(text.parse::<Endpoint>().is_err(), "{text}");
        }
    }

    #[test]
    fn messages_are_found_wherever_the_chunks_are_cut() {
        let mut wire = Vec::new();
        for text in ["", "one", "second"] {
            wire.extend_from_slice(&[0, 0, 0, 0, u8::try_from(text.len()).unwrap()]);
            wire.extend_from_slice(text.as_bytes());
        }
        for cut in 0..=wire.len() {
            let (mut unread, mut found) = (BytesMut::new(), Vec::new());
            for chunk in [&wire[..cut], &wire[cut..]] {
                unread.extend_from_slice(chunk);
                while let Some(message) = take_message(&mut unread).unwrap() {
                    found.push(message);
                }
            }
            assert_eq!(found, ["", "one", "second"], "cut at {cut}");
        }
    }

    #[test]
    fn compressed_or_absurd_frames_are_refused() {
        assert!(take_message(&mut BytesMut::from(&[1, 0, 0, 0, 0][..])).is_err());
        assert!(take_message(&mut BytesMut::from(&[0, 255, 0, 0, 0][..])).is_err());
    }
}
