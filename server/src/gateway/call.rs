//! One call: the gRPC request that an HTTP request means, and its answer in HTTP's words.

use std::convert::Infallible;

use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use http_body_util::{BodyExt, BodyStream, Full, Limited, StreamBody};
use tonic::body::Body;
use tonic::codegen::http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue, TE};
use tonic::codegen::http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use tonic::{Code, Status};

use super::frames::{Unframer, frame};
use super::routes::Route;
use super::split::Splitter;
use super::{GrpcRoutes, json, refusal, typed};

/// Headers of HTTP that become metadata under the same name; others do with this before them.
const PASSED_ON: [HeaderName; 3] =
    [AUTHORIZATION, HeaderName::from_static("grpc-timeout"), HeaderName::from_static("tenure-guard")];
const METADATA_PREFIX: &str = "grpc-metadata-";
const JSON: &str = "application/json";

pub async fn call<S: GrpcRoutes>(
    route: &Route,
    service: S,
    request: Request<Body>,
    body_bytes_max: usize,
) -> Response<Body> {
    let (head, body) = request.into_parts();
    let messages = if route.asks_many {
        Ok(Body::new(StreamBody::new(Box::pin(requests(route, body, body_bytes_max)))))
    } else {
        one(route, body, body_bytes_max).await
    };
    let messages = match messages {
        Ok(messages) => messages,
        Err(status) => return refused(&status),
    };
    let response = ask(service, grpc_request(route, &head.headers, messages)).await;
    if let Some(status) = Status::from_header_map(response.headers())
        && status.code() != Code::Ok
    {
        return if route.answers_many { ended(&status) } else { refused(&status) };
    }
    if route.answers_many { lines(route, response.into_body()).await } else { whole(route, response).await }
}

async fn ask<S: GrpcRoutes>(mut service: S, request: Request<Body>) -> Response<Body> {
    // A clone must be asked whether it is ready, though routes always are.
    let ready = std::future::poll_fn(|task| service.poll_ready(task)).await;
    let answered = match ready {
        Ok(()) => service.call(request).await,
        Err(never) => match never {},
    };
    answered.unwrap_or_else(|never: Infallible| match never {})
}

fn grpc_request(route: &Route, given: &HeaderMap, messages: Body) -> Request<Body> {
    let mut request = Request::new(messages);
    *request.method_mut() = Method::POST;
    *request.uri_mut() = Uri::try_from(&route.method).expect("names of services and methods are plain");
    let headers = request.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(TE, HeaderValue::from_static("trailers"));
    for (name, value) in given {
        if PASSED_ON.contains(name) {
            headers.append(name.clone(), value.clone());
        } else if let Some(rest) = name.as_str().strip_prefix(METADATA_PREFIX)
            && let Ok(name) = HeaderName::try_from(rest)
        {
            headers.append(name, value.clone());
        }
    }
    request
}

/// The body of a unary request.
async fn one(route: &Route, body: Body, bytes_max: usize) -> Result<Body, Status> {
    let body = Limited::new(body, bytes_max).collect().await.map_err(|error| {
        Status::invalid_argument(format!(
            "the request cannot be read, or is larger than the server reads: {error}"
        ))
    })?;
    let message = json::read(&body.to_bytes(), &route.input).map_err(Status::invalid_argument)?;
    Ok(Body::new(Full::from(frame(&message))))
}

type Frame = http_body::Frame<Bytes>;

/// The body of a request that goes on: a frame for each JSON object as it comes. What cannot be read ends it.
fn requests(
    route: &Route,
    body: Body,
    bytes_max: usize,
) -> impl Stream<Item = Result<Frame, Status>> + Send + use<> {
    let kind = route.input.clone();
    let begun = Some((BodyStream::new(body), Splitter::new(bytes_max)));
    stream::unfold(begun, move |state| {
        let kind = kind.clone();
        async move {
            let (mut body, mut splitter) = state?;
            loop {
                match splitter.next() {
                    Ok(Some(object)) => {
                        return Some(match json::read(&object, &kind) {
                            Ok(message) => (Ok(Frame::data(frame(&message))), Some((body, splitter))),
                            Err(text) => (Err(Status::invalid_argument(text)), None),
                        });
                    }
                    Ok(None) => {}
                    Err(malformed) => {
                        return Some((Err(Status::invalid_argument(malformed.to_string())), None));
                    }
                }
                match body.next().await {
                    Some(Ok(piece)) => {
                        if let Some(piece) = piece.data_ref() {
                            splitter.push(piece);
                        }
                    }
                    Some(Err(status)) => return Some((Err(status), None)),
                    None => {
                        let end = splitter.end().err()?;
                        return Some((Err(Status::invalid_argument(end.to_string())), None));
                    }
                }
            }
        }
    })
}

/// The answer to a unary request.
async fn whole(route: &Route, response: Response<Body>) -> Response<Body> {
    let collected = match response.into_body().collect().await {
        Ok(collected) => collected,
        Err(status) => return refused(&status),
    };
    if let Some(status) = collected.trailers().and_then(Status::from_header_map)
        && status.code() != Code::Ok
    {
        return refused(&status);
    }
    let mut messages = Unframer::default();
    messages.push(&collected.to_bytes());
    let message = messages.next().unwrap_or_default();
    match json::write(&message, &route.output) {
        Ok(text) => typed(StatusCode::OK, JSON, text),
        Err(text) => refused(&Status::internal(format!("an answer cannot be written as JSON: {text}"))),
    }
}

/// The answers of a stream, a line each. Its status is known once there is a first line, or none.
async fn lines(route: &Route, body: Body) -> Response<Body> {
    let mut answers = Answers {
        body: Some(BodyStream::new(body)),
        messages: Unframer::default(),
        kind: route.output.clone(),
    };
    let first = match answers.next().await {
        None => return typed(StatusCode::OK, JSON, String::new()),
        Some(Err(status)) => return ended(&status),
        Some(Ok(line)) => line,
    };
    let rest = stream::unfold(answers, |mut answers| async move {
        let line = answers.next().await?;
        Some((line.unwrap_or_else(|status| refusal::line(&status)), answers))
    });
    let body = stream::iter([first]).chain(rest).map(|line| Ok::<_, Status>(Frame::data(Bytes::from(line))));
    let mut response = Response::new(Body::new(StreamBody::new(Box::pin(body))));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(JSON));
    response
}

struct Answers {
    /// None once it has ended.
    body: Option<BodyStream<Body>>,
    messages: Unframer,
    kind: prost_reflect::MessageDescriptor,
}

impl Answers {
    async fn next(&mut self) -> Option<Result<String, Status>> {
        loop {
            if let Some(message) = self.messages.next() {
                let line = json::write(&message, &self.kind).map(|json| format!("{{\"result\":{json}}}\n"));
                return Some(line.map_err(Status::internal));
            }
            let frame = self.body.as_mut()?.next().await;
            let end = match frame {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(piece) => {
                        self.messages.push(&piece);
                        continue;
                    }
                    Err(frame) => frame.into_trailers().ok().as_ref().and_then(Status::from_header_map),
                },
                Some(Err(status)) => Some(status),
                None => None,
            };
            self.body = None;
            if let Some(status) = end
                && status.code() != Code::Ok
            {
                return Some(Err(status));
            }
        }
    }
}

/// The refusal of a unary call.
fn refused(status: &Status) -> Response<Body> {
    typed(refusal::http_status(status.code()), JSON, refusal::unary(status))
}

/// The refusal of a stream that said nothing before.
fn ended(status: &Status) -> Response<Body> {
    typed(refusal::http_status(status.code()), JSON, refusal::line(status))
}
