//! The least of an HTTP/1.1 client that reads what it is sent as it comes: a stream's lines are there before its end.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::transcript::Exchange;

/// For an answer, or the next of its lines.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Sends a request; gives its answer up to its end, or up to so many lines of a stream.
pub fn ask(port: u16, request: &Exchange, lines: usize) -> Exchange {
    ask_briefly(port, request, lines, PATIENCE)
}

/// The same, taking silence of so long for the end.
pub fn ask_briefly(port: u16, request: &Exchange, lines: usize, patience: Duration) -> Exchange {
    let Exchange { method, path, body, .. } = request;
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: here\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let mut connection = connect(port, patience);
    // Whoever refuses a body may hang up before it is through.
    let _ = connection.write_all(head.as_bytes()).and_then(|()| connection.write_all(body.as_bytes()));
    let mut answer = Vec::new();
    let mut piece = [0; 16 << 10];
    loop {
        let told = parse(&answer);
        let is_stream =
            told.as_ref().is_some_and(|told| told.lines.iter().any(|line| line.starts_with("{\"result\"")));
        if is_stream && told.as_ref().is_some_and(|told| told.lines.len() >= lines) {
            return told.unwrap();
        }
        match connection.read(&mut piece) {
            Ok(0) => return told.expect("an answer"),
            Ok(count) => answer.extend_from_slice(&piece[..count]),
            // Silence.
            Err(_) => return told.unwrap_or_else(|| Exchange::get(path)),
        }
    }
}

/// The head of the answer to a request without a body.
pub fn head(port: u16, request: &str) -> String {
    let mut connection = connect(port, PATIENCE);
    connection.write_all(format!("{request}Host: here\r\nConnection: close\r\n\r\n").as_bytes()).unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).unwrap();
    answer.split("\r\n\r\n").next().unwrap().to_owned()
}

fn connect(port: u16, patience: Duration) -> TcpStream {
    let connection = TcpStream::connect(("127.0.0.1", port)).unwrap();
    connection.set_read_timeout(Some(patience)).unwrap();
    connection
}

/// What has come so far; None: not even the head.
fn parse(answer: &[u8]) -> Option<Exchange> {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let body = &answer[end + 4..];
    let body = if head.contains("transfer-encoding: chunked") { unchunked(body) } else { body.to_vec() };
    let text = String::from_utf8_lossy(&body).into_owned();
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect();
    Some(Exchange { method: String::new(), path: String::new(), body: String::new(), lines, status })
}

fn unchunked(mut body: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    while let Some(end) = body.windows(2).position(|two| two == b"\r\n") {
        let size = usize::from_str_radix(std::str::from_utf8(&body[..end]).unwrap(), 16).unwrap();
        let Some(chunk) = body.get(end + 2..end + 2 + size) else { break };
        whole.extend_from_slice(chunk);
        body = body.get(end + 2 + size + 2..).unwrap_or_default();
    }
    whole
}
