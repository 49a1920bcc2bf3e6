//! A page fetched over HTTP/1.1, as a person or a scraper would. It knows nothing of what is on it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// How long a server may take for a page.
const BOUND: Duration = Duration::from_secs(60);

/// The head and the body of what a server on loopback answers.
pub fn get(port: u16, path: &str) -> (String, String) {
    let mut connection = TcpStream::connect(("127.0.0.1", port)).unwrap();
    connection.set_read_timeout(Some(BOUND)).unwrap();
    write!(connection, "GET {path} HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    connection.read_to_end(&mut answer).unwrap();
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}
