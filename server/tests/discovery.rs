//! The registry as Prometheus reads it, over raw HTTP: who is a target, and that an empty list is never said by mistake.

#![allow(clippy::unwrap_used)]

mod harness;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use harness::{Cluster, Server};
use serde_json::{Value, json};

/// Status and body.
fn ask(port: u16, method: &str, path: &str, body: &str) -> (u16, String) {
    let mut connection = TcpStream::connect(("127.0.0.1", port)).unwrap();
    connection.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: here\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    connection.write_all(format!("{head}{body}").as_bytes()).unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

fn targets(port: u16, query: &str) -> Value {
    let (status, body) = ask(port, "GET", &format!("/v1/prometheus/sd?{query}"), "");
    assert_eq!(status, 200, "{query}: {body}");
    serde_json::from_str(&body).unwrap()
}

fn addresses(found: &Value) -> Vec<&str> {
    found.as_array().unwrap().iter().map(|group| group["targets"][0].as_str().unwrap()).collect()
}

fn post(port: u16, path: &str, body: &Value) -> Value {
    let (status, answer) = ask(port, "POST", path, &body.to_string());
    assert_eq!(status, 200, "{path}: {answer}");
    serde_json::from_str(answer.lines().next().unwrap_or_default()).unwrap_or_default()
}

fn register(port: u16, id: &str, health: &str, labels: &Value) {
    let endpoints = json!([{ "name": "http", "host": "10.0.0.1", "port": 80 }, { "name": "metrics", "host": id, "port": 9100 }]);
    let registration = json!({
        "service": "web", "id": id, "incarnation": "1", "endpoints": endpoints, "labels": labels, "zone": "a", "ttl_s": "600"
    });
    post(port, "/v1/registry/register", &json!({ "registration": registration, "health": health }));
}

#[test]
fn instances_are_targets_and_an_unknown_service_is_none_of_nothing() {
    let server = Server::start();
    let port = server.launch.client_port;
    let status = |query: &str| ask(port, "GET", &format!("/v1/prometheus/sd{query}"), "").0;
    assert_eq!((status("?service=web"), status(""), status("?service=web&lable=a:b")), (404, 400, 400));
    register(port, "web-1", "HEALTH_PASSING", &json!({ "tier": "gold", "app.kubernetes.io/name": "shop" }));
    register(port, "web-2", "HEALTH_CRITICAL", &json!({ "tier": "gold" }));
    register(port, "web-3", "HEALTH_PASSING", &json!({}));
    let all = targets(port, "service=web");
    assert_eq!(addresses(&all), ["web-1:9100", "web-2:9100", "web-3:9100"]);
    let labels = &all[0]["labels"];
    assert_eq!(labels["__meta_tenure_label_app_kubernetes_io_name"], "shop");
    assert_eq!((&labels["__meta_tenure_id"], &labels["__meta_tenure_zone"]), (&json!("web-1"), &json!("a")));
    assert_eq!(addresses(&targets(port, "service=web&label=tier:gold")), ["web-1:9100", "web-2:9100"]);
    assert_eq!(addresses(&targets(port, "service=web&label=tier:gold&health=passing")), ["web-1:9100"]);
    assert_eq!(addresses(&targets(port, "service=web&endpoint=http")), ["10.0.0.1:80"; 3]);

    // Who is drained works on, and is looked at.
    post(
        port,
        "/v1/registry/set-instance",
        &json!({ "service": "web", "id": "web-3", "drain": {}, "force": true }),
    );
    let all = targets(port, "service=web");
    assert_eq!(
        (all[2]["labels"]["__meta_tenure_draining"].as_str(), addresses(&all).len()),
        (Some("true"), 3)
    );
    // Selected to nothing, it is empty and known; a name that only begins alike is another.
    assert_eq!(targets(port, "service=web&zone=b"), json!([]));
    assert_eq!(status("?service=we"), 404);
    let policy = json!({ "service": "web", "policy": { "ttl_s": "30" } });
    post(port, "/v1/registry/set-policy", &policy);
    for id in ["web-1", "web-2", "web-3"] {
        post(port, "/v1/registry/deregister", &json!({ "service": "web", "id": id, "incarnation": "1" }));
    }
    assert_eq!(targets(port, "service=web"), json!([]));
    assert_eq!(ask(port, "POST", "/v1/prometheus/sd?service=web", "").0, 405);
}

#[test]
fn without_a_quorum_the_answer_is_that_there_is_none() {
    let mut cluster = Cluster::start(3);
    let port = cluster.members[0].launch.client_port;
    register(port, "web-1", "HEALTH_PASSING", &json!({}));
    cluster.members[1].kill();
    cluster.members[2].kill();
    let (status, body) = ask(port, "GET", "/v1/prometheus/sd?service=web", "");
    assert_eq!(status, 503, "{body}");
}
