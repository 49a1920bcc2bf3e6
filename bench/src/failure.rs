//! Why a call did not succeed: the gRPC status the server gave, or what happened on the way to it.
//!
//! Reports count failures by `code`, so codes are a small fixed set; the message serves as an example.

/// A call that did not succeed. Writes that failed may have happened all the same.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub(crate) struct Failure {
    pub(crate) code: &'static str,
    pub(crate) message: String,
}

/// Names of gRPC status codes 0 to 16.
const STATUS: [&str; 17] = [
    "Ok",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

pub(crate) const DISCONNECTED: &str = "Disconnected";
pub(crate) const UNANSWERED: &str = "Unanswered";

impl Failure {
    /// From the `grpc-status` and `grpc-message` the server sent.
    pub(crate) fn status(number: &str, message: &str) -> Self {
        let name = number.parse::<usize>().ok().and_then(|n| STATUS.get(n)).unwrap_or(&"Unknown");
        Self { code: name, message: unescaped(message) }
    }

    /// The connection is gone: nothing more will be answered on it.
    pub(crate) fn disconnected(message: impl Into<String>) -> Self {
        Self { code: DISCONNECTED, message: message.into() }
    }

    /// The server reset this one stream.
    pub(crate) fn reset(message: impl Into<String>) -> Self {
        Self { code: "Reset", message: message.into() }
    }

    /// The server answered something that is not gRPC or not the expected message.
    pub(crate) fn malformed(message: impl Into<String>) -> Self {
        Self { code: "Malformed", message: message.into() }
    }

    /// The server answered well-formed, and wrong.
    pub(crate) fn wrong(message: impl Into<String>) -> Self {
        Self { code: "WrongAnswer", message: message.into() }
    }

    /// No answer came within the time given.
    pub(crate) fn unanswered(message: impl Into<String>) -> Self {
        Self { code: UNANSWERED, message: message.into() }
    }

    /// What the run needs could not be set up: a file, a process, a port, its data in the server.
    pub(crate) fn setup(message: impl Into<String>) -> Self {
        Self { code: "Setup", message: message.into() }
    }

    pub(crate) fn is_disconnected(&self) -> bool {
        self.code == DISCONNECTED
    }
}

/// gRPC messages travel percent-encoded, some servers encode even blanks. What is not a valid escape stays as it is.
fn unescaped(message: &str) -> String {
    let (mut bytes, mut rest) = (Vec::with_capacity(message.len()), message.as_bytes());
    while let Some((first, after)) = rest.split_first() {
        let hex = after.first_chunk::<2>().filter(|_| *first == b'%');
        let byte = hex.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        bytes.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &after[2..] } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_unescaped() {
        for (wire, text) in
            [("no%20leader", "no leader"), ("100%", "100%"), ("%zz%2", "%zz%2"), ("%C3%BC", "ü")]
        {
            assert_eq!(Failure::status("14", wire).message, text);
        }
    }

    #[test]
    fn status_numbers_become_names() {
        assert_eq!(Failure::status("14", "no leader").to_string(), "Unavailable: no leader");
        assert_eq!(Failure::status("99", "").code, "Unknown");
        assert_eq!(Failure::status("x", "").code, "Unknown");
    }
}
