//! What the gRPC library refuses by itself, in the words etcd has for it: a deadline that passed, a message that is too
//! large. Clients compare code and text, and these are said before or around any service.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tonic::body::Body;
use tonic::codegen::Service;
use tonic::codegen::http::{HeaderMap, HeaderValue, Request, Response};
use tonic::{Code, Status};
use tower_layer::Layer;

/// Puts `Wording` around the services.
#[derive(Clone, Copy, Debug)]
pub struct WordingLayer {
    pub message_bytes_max: usize,
}

#[derive(Clone, Debug)]
pub struct Wording<S> {
    service: S,
    message_bytes_max: usize,
}

/// The library's own timer for the same deadline runs outside of this one, and must not be the first.
const HEAD_START: Duration = Duration::from_millis(2);

impl<S> Layer<S> for WordingLayer {
    type Service = Wording<S>;

    fn layer(&self, service: S) -> Wording<S> {
        Wording { service, message_bytes_max: self.message_bytes_max }
    }
}

impl<S> Service<Request<Body>> for Wording<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let deadline = deadline(request.headers());
        let message_bytes_max = self.message_bytes_max;
        let answer = self.service.call(request);
        Box::pin(async move {
            let mut response = match deadline {
                None => answer.await?,
                Some(time) => match tokio::time::timeout(time.saturating_sub(HEAD_START), answer).await {
                    Ok(answered) => answered?,
                    Err(_) => Status::new(Code::DeadlineExceeded, "context deadline exceeded").into_http(),
                },
            };
            if let Some(bytes) = too_large(response.headers()) {
                let text =
                    format!("grpc: received message larger than max ({bytes} vs. {message_bytes_max})");
                response = Status::new(Code::ResourceExhausted, text).into_http();
            }
            Ok(response)
        })
    }
}

/// The size for which the library refused a message: it says `OutOfRange`, in words of its own, escaped in the header.
fn too_large(headers: &HeaderMap<HeaderValue>) -> Option<u64> {
    if headers.get("grpc-status")? != "11" {
        return None;
    }
    let text = headers.get("grpc-message")?.to_str().ok()?;
    let (_, behind) = text.split_once("message%20length%20too%20large:%20found%20")?;
    behind.split_once('%')?.0.parse().ok()
}

/// The time a caller gives, from `grpc-timeout`: at most eight digits and a unit (gRPC over HTTP/2, "Requests").
fn deadline(headers: &HeaderMap<HeaderValue>) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let amount: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(amount * 3_600)),
        "M" => Some(Duration::from_secs(amount * 60)),
        "S" => Some(Duration::from_secs(amount)),
        "m" => Some(Duration::from_millis(amount)),
        "u" => Some(Duration::from_micros(amount)),
        "n" => Some(Duration::from_nanos(amount)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(text: &'static str) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        headers.insert("grpc-timeout", HeaderValue::from_static(text));
        deadline(&headers)
    }

    #[test]
    fn the_librarys_words_for_too_large_a_message_are_known() {
        let status = Status::out_of_range(
            "Error, decoded message length too large: found 5000000 bytes, the limit is: 2097152 bytes",
        );
        let response: Response<Body> = status.into_http();
        assert_eq!(too_large(response.headers()), Some(5_000_000));
        assert_eq!(too_large(Status::out_of_range("another").into_http::<Body>().headers()), None);
    }

    struct Silent;

    impl Service<Request<Body>> for Silent {
        type Response = Response<Body>;
        type Error = std::convert::Infallible;
        type Future = std::future::Pending<Result<Response<Body>, Self::Error>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: Request<Body>) -> Self::Future {
            std::future::pending()
        }
    }

    /// Not asked of a whole server: a client library has a timer of its own for the deadline it sends, and whose answer
    /// comes first is then a matter of luck.
    #[tokio::test]
    async fn a_deadline_that_passes_is_said_in_etcds_words() {
        let mut worded = WordingLayer { message_bytes_max: 1 }.layer(Silent);
        let request = Request::builder().header("grpc-timeout", "100u").body(Body::empty());
        let response = worded.call(request.expect("it is well-formed")).await.expect("it cannot fail");
        let status = Status::from_header_map(response.headers()).expect("it is refused");
        assert_eq!((status.code(), status.message()), (Code::DeadlineExceeded, "context deadline exceeded"));
    }

    #[test]
    fn a_deadline_has_a_unit_and_eight_digits_at_the_most() {
        assert_eq!(asked("5S"), Some(Duration::from_secs(5)));
        assert_eq!(asked("4999971u"), Some(Duration::from_micros(4_999_971)));
        assert_eq!(asked("99999999H"), Some(Duration::from_secs(99_999_999 * 3_600)));
        for nonsense in ["", "S", "5", "123456789m", "-5S", "5s", "5 S"] {
            assert_eq!(asked(nonsense), None, "{nonsense:?}");
        }
    }
}
