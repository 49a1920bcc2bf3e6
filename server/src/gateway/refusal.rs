//! A gRPC status as HTTP says it: which status each code is, and the bodies in which etcd's gateways of all versions put code and
//! text, so that clients of each find what they look for.

use serde_json::json;
use tonic::codegen::http::StatusCode;
use tonic::{Code, Status};

/// As grpc-gateway v2 has it, which etcd uses since 3.5.
pub fn http_status(code: Code) -> StatusCode {
    match code {
        Code::Ok => StatusCode::OK,
        Code::Cancelled => StatusCode::REQUEST_TIMEOUT,
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => StatusCode::BAD_REQUEST,
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::Aborted => StatusCode::CONFLICT,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::Unknown | Code::Internal | Code::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// The whole answer to a unary call.
pub fn unary(status: &Status) -> String {
    let (code, text) = (status.code() as i32, json!(status.message()));
    format!(r#"{{"error":{text},"code":{code},"message":{text}}}"#)
}

/// The last line of a stream.
pub fn line(status: &Status) -> String {
    let (code, http, text) = (status.code() as i32, http_status(status.code()), json!(status.message()));
    let (number, name) = (http.as_u16(), json!(http.canonical_reason().unwrap_or_default()));
    format!(
        "{{\"error\":{{\"grpc_code\":{code},\"http_code\":{number},\"message\":{text},\"http_status\":{name},\"code\":{code}}}}}\n"
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn texts_are_escaped_and_found_by_clients_of_any_age() {
        let status = Status::not_found("a \"quoted\" text\n");
        let whole: serde_json::Value = serde_json::from_str(&unary(&status)).unwrap();
        assert_eq!(whole, json!({ "error": status.message(), "code": 5, "message": status.message() }));
        let line: serde_json::Value = serde_json::from_str(&line(&status)).unwrap();
        let error = json!({
            "grpc_code": 5, "http_code": 404, "message": status.message(), "http_status": "Not Found", "code": 5
        });
        assert_eq!(line, json!({ "error": error }));
    }
}
