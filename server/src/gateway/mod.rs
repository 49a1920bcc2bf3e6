//! JSON over plain HTTP for whoever does not speak gRPC: each RPC that carries a `google.api.http` rule answers at its path, and
//! streams are lines. It stands in front of the gRPC routes, turns such a request into the gRPC request that it means, and
//! the answer back; so it knows no service, and no service knows of it. What is gRPC passes untouched.
//!
//! | file      | what it knows                                                  |
//! |-----------|----------------------------------------------------------------|
//! | `routes`  | which path is which RPC: read from the descriptors             |
//! | `json`    | messages as JSON and back, in etcd's conventions               |
//! | `split`   | where one JSON value ends and the next begins                  |
//! | `frames`  | gRPC's framing of messages in a body, both ways                |
//! | `call`    | one call: its request, its answer, its refusal                 |
//! | `refusal` | a gRPC status as an HTTP status and a body                     |
//! | `prometheus` | the registry as Prometheus' `http_sd` reads it              |
//! | `pages`   | what is no RPC: `/version`, `/health`, `/livez`, `/readyz`, `/metrics` |
//! | `alone`   | those, where nothing else is served                            |

mod alone;
mod call;
mod frames;
mod json;
mod pages;
mod prometheus;
mod refusal;
mod routes;
mod split;

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tonic::body::Body;
use tonic::codegen::Service;
use tonic::codegen::http::header::{
    ACCESS_CONTROL_ALLOW_ORIGIN, CONTENT_TYPE, HOST, HeaderName, HeaderValue, ORIGIN, VARY,
};
use tonic::codegen::http::uri::Authority;
use tonic::codegen::http::{Method, Request, Response, StatusCode};
use tower_layer::Layer;

use crate::config::{Http, Origins};
pub use alone::PagesAloneLayer;
pub use pages::Pages;
use routes::Routes;

/// Puts the gateway in front of the services.
#[derive(Clone)]
pub struct GatewayLayer {
    shared: Arc<Shared>,
}

struct Shared {
    http: Http,
    routes: Routes,
    pages: Arc<Pages>,
    /// The largest body of a unary request, and the largest request of a stream, bytes.
    body_bytes_max: usize,
}

impl GatewayLayer {
    /// `message_bytes_max`: the largest message that the services read, bytes.
    pub fn new(http: Http, pages: Arc<Pages>, message_bytes_max: usize) -> GatewayLayer {
        // Base64 makes four bytes of three; names and numbers want some room too.
        let body_bytes_max = message_bytes_max / 3 * 4 + (64 << 10);
        GatewayLayer { shared: Arc::new(Shared { http, routes: Routes::new(), pages, body_bytes_max }) }
    }
}

#[derive(Clone)]
pub struct Gateway<S> {
    service: S,
    shared: Arc<Shared>,
}

impl<S> Layer<S> for GatewayLayer {
    type Service = Gateway<S>;

    fn layer(&self, service: S) -> Gateway<S> {
        Gateway { service, shared: self.shared.clone() }
    }
}

/// The gRPC routes: they answer whatever they are asked.
pub trait GrpcRoutes:
    Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send + 'static>
    + Clone
    + Send
    + 'static
{
}

impl<S> GrpcRoutes for S where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send + 'static>
        + Clone
        + Send
        + 'static
{
}

impl<S: GrpcRoutes> Service<Request<Body>> for Gateway<S> {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, task: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.service.poll_ready(task)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if is_grpc(&request) {
            return Box::pin(self.service.call(request));
        }
        let (shared, service) = (self.shared.clone(), self.service.clone());
        Box::pin(async move { Ok(answer(&shared, service, request).await) })
    }
}

fn is_grpc(request: &Request<Body>) -> bool {
    let told = request.headers().get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    told.is_some_and(|told| told.starts_with(b"application/grpc"))
}

async fn answer<S: GrpcRoutes>(shared: &Shared, service: S, request: Request<Body>) -> Response<Body> {
    if !shared.http.hosts.allow(host(&request)) {
        return unknown_host(host(&request));
    }
    let allowed = allowed_origin(&shared.http.origins, request.headers().get(ORIGIN));
    let mut response = if request.method() == Method::OPTIONS {
        plain(StatusCode::OK, "")
    } else if let Some(route) = shared.route(request.uri().path()) {
        if request.method() == Method::POST {
            call::call(route, service, request, shared.body_bytes_max).await
        } else {
            plain(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed\n")
        }
    } else if request.uri().path() != prometheus::PATH
        && ["/v3/", "/v3beta/", "/v1/"].iter().any(|prefix| request.uri().path().starts_with(prefix))
    {
        plain(StatusCode::NOT_FOUND, "Not Found\n")
    } else {
        // Without its body a request may be waited with.
        let (head, _) = request.into_parts();
        shared.pages.answer(&head.method, &head.uri).await
    };
    if let Some(origin) = allowed {
        allow_origin(&mut response, origin);
    }
    response
}

impl Shared {
    fn route(&self, path: &str) -> Option<&routes::Route> {
        if self.http.gateway { self.routes.find(path) } else { None }
    }
}

/// The host that a request is addressed to, perhaps with its port; empty when it does not say.
fn host(request: &Request<Body>) -> &str {
    let told = request.headers().get(HOST).and_then(|host| host.to_str().ok());
    told.or_else(|| request.uri().authority().map(Authority::as_str)).unwrap_or_default()
}

/// As etcd: 421, and what to do.
fn unknown_host(host: &str) -> Response<Body> {
    let text = format!(
        "this member does not answer under the host name {host:?}; call it by a name in --host-whitelist, or add this one there\n"
    );
    plain(StatusCode::MISDIRECTED_REQUEST, text)
}

/// What a browser is told of who may read the answer; None for nothing, and then its page gets none.
fn allowed_origin(origins: &Origins, asking: Option<&HeaderValue>) -> Option<HeaderValue> {
    let asking = asking?;
    match origins {
        Origins::All => Some(HeaderValue::from_static("*")),
        Origins::These(listed) => {
            let name = asking.to_str().ok()?.to_ascii_lowercase();
            listed.contains(&name).then(|| asking.clone())
        }
    }
}

fn allow_origin(response: &mut Response<Body>, origin: HeaderValue) {
    let allowed = [
        ("access-control-allow-methods", "POST, GET, OPTIONS, PUT, DELETE"),
        ("access-control-allow-headers", "accept, content-type, authorization, tenure-guard"),
    ];
    for (name, value) in allowed {
        response.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    if origin != "*" {
        // A cache must not give one origin's answer to another.
        response.headers_mut().insert(VARY, HeaderValue::from_static("origin"));
    }
    response.headers_mut().insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
}

/// An answer in plain text.
fn plain(status: StatusCode, text: impl Into<String>) -> Response<Body> {
    typed(status, "text/plain; charset=utf-8", text.into())
}

fn typed(status: StatusCode, content_type: &'static str, text: String) -> Response<Body> {
    let mut response = Response::new(Body::new(http_body_util::Full::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
