//! The pages at an address of their own, where there is nothing else: for those who may look at a member and not at its data.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::codegen::http::{Request, Response, StatusCode};
use tower_layer::Layer;

use super::{Pages, plain, prometheus};

/// Puts the pages in the place of whatever it is laid around.
#[derive(Clone)]
pub struct PagesAloneLayer {
    pages: Arc<Pages>,
}

impl PagesAloneLayer {
    pub fn new(pages: Arc<Pages>) -> PagesAloneLayer {
        PagesAloneLayer { pages }
    }
}

impl<S> Layer<S> for PagesAloneLayer {
    type Service = PagesAlone;

    fn layer(&self, _service: S) -> PagesAlone {
        PagesAlone { pages: self.pages.clone() }
    }
}

#[derive(Clone)]
pub struct PagesAlone {
    pages: Arc<Pages>,
}

impl Service<Request<Body>> for PagesAlone {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let pages = self.pages.clone();
        Box::pin(async move {
            // Without its body a request may be waited with.
            let (head, _) = request.into_parts();
            // Of the registry's contents nobody is told here.
            if head.uri.path() == prometheus::PATH {
                return Ok(plain(StatusCode::NOT_FOUND, "404 page not found\n"));
            }
            Ok(pages.answer(&head.method, &head.uri).await)
        })
    }
}
