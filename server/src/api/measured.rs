//! Counts every call around the services: begun, ended with which code, how many messages. What came as JSON counts as the gRPC call
//! that it meant. It looks at a call's path and at the frames of its messages, and knows no service.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::codegen::http::{HeaderMap, Request, Response};
use tonic::{Code, Status};
use tower_layer::Layer;

use crate::metrics::{Call, Grpc, Method};

/// Puts [`Measured`] around the services.
#[derive(Clone)]
pub struct MeasuredLayer {
    grpc: Arc<Grpc>,
}

impl MeasuredLayer {
    pub fn new(grpc: Arc<Grpc>) -> MeasuredLayer {
        MeasuredLayer { grpc }
    }
}

#[derive(Clone)]
pub struct Measured<S> {
    service: S,
    grpc: Arc<Grpc>,
}

impl<S> Layer<S> for MeasuredLayer {
    type Service = Measured<S>;

    fn layer(&self, service: S) -> Measured<S> {
        Measured { service, grpc: self.grpc.clone() }
    }
}

impl<S> Service<Request<Body>> for Measured<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Unpin>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answering<S::Future>;

    fn poll_ready(&mut self, task: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.service.poll_ready(task)
    }

    fn call(&mut self, request: Request<Body>) -> Answering<S::Future> {
        let Some(method) = self.grpc.method(request.uri().path()) else {
            return Answering { answer: self.service.call(request), call: None };
        };
        let call = Some(Call::begin(method));
        let request = match method.kind.asks_many {
            true => {
                let method = method.clone();
                request.map(|body| Body::new(Watched::new(body, Way::In(method))))
            }
            false => request,
        };
        Answering { answer: self.service.call(request), call }
    }
}

/// An answer under way.
pub struct Answering<F> {
    answer: F,
    /// None once it is there, and for calls that are not counted.
    call: Option<Call>,
}

impl<F> Future for Answering<F>
where
    F: Future<Output = Result<Response<Body>, Infallible>> + Unpin,
{
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<F::Output> {
        let Ok(response) = ready!(Pin::new(&mut self.answer).poll(task));
        let Some(call) = self.call.take() else { return Poll::Ready(Ok(response)) };
        // With nothing to say but a refusal the status comes before any message.
        if let Some(code) = code(response.headers()) {
            call.end(code as i32);
            return Poll::Ready(Ok(response));
        }
        if !call.method().kind.answers_many {
            call.end(Code::Ok as i32);
            return Poll::Ready(Ok(response));
        }
        Poll::Ready(Ok(response.map(|body| Body::new(Watched::new(body, Way::Out(Some(call)))))))
    }
}

fn code(headers: &HeaderMap) -> Option<Code> {
    headers.get("grpc-status").map(|code| Code::from_bytes(code.as_bytes()))
}

/// A stream of messages whose number is counted.
struct Watched {
    body: Body,
    frames: Frames,
    way: Way,
}

enum Way {
    In(Arc<Method>),
    /// With the call, until it has ended.
    Out(Option<Call>),
}

impl Watched {
    fn new(body: Body, way: Way) -> Watched {
        Watched { body, frames: Frames::default(), way }
    }

    fn see(&mut self, frame: &Frame<Bytes>) {
        if let Some(data) = frame.data_ref() {
            let messages = self.frames.count(data);
            match &self.way {
                Way::In(method) => method.received(messages),
                Way::Out(Some(call)) => call.method().sent(messages),
                Way::Out(None) => {}
            }
        } else if let Some(trailers) = frame.trailers_ref() {
            self.end(code(trailers).unwrap_or(Code::Unknown));
        }
    }

    fn end(&mut self, code: Code) {
        if let Way::Out(call) = &mut self.way
            && let Some(call) = call.take()
        {
            call.end(code as i32);
        }
    }
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(task));
        match &frame {
            Some(Ok(frame)) => self.see(frame),
            Some(Err(status)) => self.end(status.code()),
            None => self.end(Code::Ok),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Finds where messages begin in a stream of bytes: each has a flag, four bytes of length, and its own.
#[derive(Debug, Default)]
struct Frames {
    /// Bytes of the message under way that are still to come.
    missing: usize,
    /// How many bytes of a head were seen, and what length they gave so far.
    head: usize,
    length: usize,
}

impl Frames {
    const HEAD: usize = 5;

    /// Messages that begin in this piece, each at the end of its head.
    fn count(&mut self, mut piece: &[u8]) -> u64 {
        let mut messages = 0;
        loop {
            let passed = self.missing.min(piece.len());
            self.missing -= passed;
            piece = &piece[passed..];
            let Some((byte, rest)) = piece.split_first() else { return messages };
            piece = rest;
            self.length = if self.head == 0 { 0 } else { self.length << 8 | usize::from(*byte) };
            self.head += 1;
            if self.head == Frames::HEAD {
                messages += 1;
                self.head = 0;
                self.missing = self.length;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_counted_however_they_are_cut() {
        let mut stream = Vec::new();
        for length in [0_u32, 1, 300, 0, 70_000] {
            stream.push(0);
            stream.extend(length.to_be_bytes());
            stream.extend(vec![9; length as usize]);
        }
        for size in [1, 2, 3, 5, 7, 1_000, stream.len()] {
            let mut frames = Frames::default();
            let count: u64 = stream.chunks(size).map(|piece| frames.count(piece)).sum();
            assert_eq!(count, 5, "in pieces of {size}");
        }
    }
}
