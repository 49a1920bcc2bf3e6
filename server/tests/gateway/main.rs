//! The gateway against a recording of etcd's: every request of the transcript is sent again, in its order, to one fresh member, and
//! what it answers must be what etcd 3.5.1 (and 3.4.23) answered, but for what `alike.rs` says is different in any two clusters, and
//! the differences that `differences.md` gives a reason for. Each of those must still be one.
#![allow(clippy::unwrap_used)]

mod alike;
#[path = "../harness/mod.rs"]
mod harness;
mod http;
mod transcript;

use std::collections::BTreeMap;
use std::time::Duration;

use harness::{Launch, Server};
use transcript::Exchange;

#[test]
fn the_gateway_answers_as_etcds_did() {
    let reasons = differences(include_str!("differences.md"));
    let stale = replay(transcript::read(include_str!("etcd-3.5.1.txt")), "/v3/", &reasons);
    assert!(stale.is_empty(), "these are no differences any more: {stale:?}");
}

/// By the name that all paths had then besides: `/v3beta`.
#[test]
fn the_gateway_answers_as_an_older_etcds_did() {
    let mut exchanges = transcript::read(include_str!("etcd-3.4.23.txt"));
    for exchange in exchanges.iter_mut().filter(|exchange| exchange.status == 412) {
        exchange.status = 400;
    }
    let own = differences(include_str!("differences-3.4.23.md"));
    let mut reasons = own.clone();
    reasons.extend(differences(include_str!("differences.md")));
    let stale = replay(exchanges, "/v3beta/", &reasons);
    let stale: Vec<_> = stale.iter().filter(|title| own.contains_key(*title)).collect();
    assert!(stale.is_empty(), "these are no differences any more: {stale:?}");
}

/// Sends the requests again and compares what is answered; gives the reasons that explained nothing.
fn replay(exchanges: Vec<Exchange>, prefix: &str, reasons: &BTreeMap<String, String>) -> Vec<String> {
    let home = tempfile::tempdir().unwrap();
    let mut launch = Launch::alone(Launch::program_under_test(), home.path());
    launch.name = "n1".to_owned();
    let server = Server::start_as(launch, home);
    let port = server.launch.client_port;
    assert!(exchanges.len() > 140, "the transcript is whole");
    let exchanges = transcript::without_users(exchanges);
    let (mut wrong, mut differ) = (Vec::new(), Vec::new());
    for exchange in exchanges.iter().filter(|exchange| exchange.status != 0) {
        let mut asked = exchange.here(server.launch.peer_port);
        asked.path = asked.path.replacen("/v3/", prefix, 1);
        // Some of these say less, and then nothing.
        let differs = reasons.contains_key(&exchange.title());
        let patience = if differs { Duration::from_secs(1) } else { http::PATIENCE };
        let told = http::ask_briefly(port, &asked, exchange.lines.len(), patience);
        if alike::alike(exchange, &told) {
            continue;
        }
        if differs {
            differ.push(exchange.title());
        } else {
            wrong.push(format!("{}\n  etcd: {exchange:?}\n  here: {told:?}", exchange.title()));
        }
    }
    assert!(wrong.is_empty(), "{} answers differ:\n{}", wrong.len(), wrong.join("\n"));
    reasons.keys().filter(|title| !differ.contains(title)).cloned().collect()
}

/// From the request to the reason: `- REQUEST` and, below it, why.
fn differences(text: &str) -> BTreeMap<String, String> {
    let mut reasons = BTreeMap::new();
    for part in text.split("\n- `").skip(1) {
        let (title, why) = part.split_once("`:").expect("a request in quotes, a colon, a reason");
        reasons.insert(title.to_owned(), why.trim().to_owned());
    }
    reasons
}

#[test]
fn a_request_is_answered_whatever_it_holds() {
    let server = Server::start();
    let port = server.launch.client_port;
    let large = format!(r#"{{"key":"{}"}}"#, "A".repeat(4 << 20));
    let deep = format!("{}{}", r#"{"success":[{"request_txn":"#.repeat(10_000), "}]}".repeat(10_000));
    for (path, body) in [
        ("/v3/kv/put", &*large),
        ("/v3/kv/txn", &*deep),
        ("/v3/kv/range", "{"),
        ("/v3/kv/range", "[]"),
        ("/v3/kv/range", "\u{0}"),
        ("/v3/watch", "}"),
        ("/v3/watch", &*large),
        ("/v3/lease/keepalive", r#"{"ID":"x"}"#),
    ] {
        let exchange = Exchange::post(path, body);
        let told = http::ask(port, &exchange, 1);
        assert!((400..500).contains(&told.status), "{path} {}: {told:?}", &body[..body.len().min(60)]);
    }
    let well = http::ask(port, &Exchange::get("/health"), 1);
    assert_eq!(well.status, 200);
}

#[test]
fn pages_and_origins() {
    let server = Server::start();
    let port = server.launch.client_port;
    let get = |path: &str| http::ask(port, &Exchange::get(path), 1);
    assert_eq!(get("/readyz?verbose").lines.last().unwrap(), "readyz check passed");
    assert_eq!(get("/livez").lines, ["ok"]);
    assert_eq!(get("/readyz/linearizable_read").status, 200);
    assert_eq!(get("/readyz/nonsense").status, 404);
    assert_eq!(get("/nonsense").status, 404);
    assert_eq!(http::ask(port, &Exchange::post("/health", ""), 1).status, 405);
    let head = http::head(port, "OPTIONS /v3/kv/range HTTP/1.1\r\nOrigin: http://elsewhere\r\n");
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert!(head.to_ascii_lowercase().contains("access-control-allow-origin: *"), "{head}");
}

#[test]
fn origins_hosts_and_the_gateway_itself_can_be_limited() {
    let home = tempfile::tempdir().unwrap();
    let mut launch = Launch::alone(Launch::program_under_test(), home.path());
    launch.extra = ["--cors=https://app.example.com", "--host-whitelist=here", "--enable-grpc-gateway=false"]
        .map(str::to_owned)
        .to_vec();
    let server = Server::start_as(launch, home);
    let port = server.launch.client_port;
    let allowed = |origin: &str| {
        let head = http::head(port, &format!("GET /version HTTP/1.1\r\nOrigin: {origin}\r\n"));
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        head.to_ascii_lowercase().contains(&format!("access-control-allow-origin: {origin}\r\n"))
    };
    assert!(allowed("https://app.example.com"));
    assert!(!allowed("https://elsewhere.example.com"));
    assert_eq!(http::ask(port, &Exchange::post("/v3/kv/range", "{}"), 1).status, 404);
    assert_eq!(http::ask(port, &Exchange::get("/health"), 1).status, 200);
    // The first of two counts, so this asks for another host.
    let head = http::head(port, "GET /version HTTP/1.0\r\nHost: rebound.example.com\r\nX-");
    assert!(head.starts_with("HTTP/1.1 421") || head.starts_with("HTTP/1.0 421"), "{head}");
}
