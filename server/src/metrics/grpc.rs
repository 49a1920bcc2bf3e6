//! Every RPC of the client port, under the names that go-grpc-prometheus has made common: etcd's dashboards and alerts read those. Which
//! methods there are is read from the descriptors, once; all their codes are there from then on. Counting costs a call one
//! look-up, of its path.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use prost_reflect::{DescriptorPool, MethodDescriptor};

use super::{Counter, Histogram, Registry, Slow, Stopwatch};

/// By number: gRPC's codes, in the words of grpc-go.
const CODES: [&str; 17] = [
    "OK",
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
const OK: usize = 0;
const CANCELED: usize = 1;
const UNKNOWN: usize = 2;

/// Whose services are no client's business.
const OWN_PACKAGE: &str = "tenure.internal";
/// Whose unary calls are to be answered at once. Others, such as for a lock, may wait on purpose.
const PROMPT_PACKAGE: &str = "etcdserverpb";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// Whether a request is many messages, and whether an answer is.
    pub asks_many: bool,
    pub answers_many: bool,
}

impl Kind {
    pub const fn is_unary(self) -> bool {
        !self.asks_many && !self.answers_many
    }

    fn word(self) -> &'static str {
        match (self.asks_many, self.answers_many) {
            (false, false) => "unary",
            (false, true) => "server_stream",
            (true, false) => "client_stream",
            (true, true) => "bidi_stream",
        }
    }
}

/// All methods, by their paths.
pub struct Grpc {
    methods: HashMap<String, Arc<Method>>,
}

pub struct Method {
    pub kind: Kind,
    path: String,
    /// Which of its calls are worth a warning; None: none is.
    slow: Option<Arc<Slow>>,
    started: Counter,
    received: Counter,
    sent: Counter,
    handled: [Counter; CODES.len()],
    took: Histogram,
    /// etcd's own count of such calls, if it has one.
    also: Counter,
}

impl Grpc {
    /// `slow`: what unary call takes longer is worth a warning.
    pub fn new(registry: &Registry, slow: Duration) -> Grpc {
        let pool = DescriptorPool::decode(tenure_proto::DESCRIPTORS).expect("we made these descriptors");
        let methods = pool
            .services()
            .filter(|service| service.package_name() != OWN_PACKAGE)
            .flat_map(|service| service.methods().collect::<Vec<_>>());
        let slow = Arc::new(Slow::new(slow));
        let known = |method: MethodDescriptor| {
            let method = Method::new(registry, &method, &slow);
            (method.path.clone(), Arc::new(method))
        };
        Grpc { methods: methods.map(known).collect() }
    }

    /// None for what is no method of ours: such calls are not counted.
    pub fn method(&self, path: &str) -> Option<&Arc<Method>> {
        self.methods.get(path)
    }
}

impl Method {
    fn new(registry: &Registry, method: &MethodDescriptor, slow: &Arc<Slow>) -> Method {
        let kind =
            Kind { asks_many: method.is_client_streaming(), answers_many: method.is_server_streaming() };
        let service = method.parent_service();
        let labels = [
            ("grpc_type", kind.word()),
            ("grpc_service", service.full_name()),
            ("grpc_method", method.name()),
        ];
        let counter = |name, help| registry.counter((name, help), &labels);
        let handled = |code| {
            let labels = [labels[0], labels[1], labels[2], ("grpc_code", code)];
            registry.counter(("grpc_server_handled_total", "Calls that ended, by their code."), &labels)
        };
        let prompt = kind.is_unary() && service.package_name() == PROMPT_PACKAGE;
        Method {
            kind,
            path: format!("/{}/{}", service.full_name(), method.name()),
            slow: prompt.then(|| slow.clone()),
            started: counter("grpc_server_started_total", "Calls that began."),
            received: counter("grpc_server_msg_received_total", "Messages received."),
            sent: counter("grpc_server_msg_sent_total", "Messages sent."),
            handled: CODES.map(handled),
            took: registry.histogram(
                ("grpc_server_handling_seconds", "How long calls took, streams to their end."),
                &labels,
            ),
            also: match (service.full_name(), method.name()) {
                ("etcdserverpb.KV", "Range") => registry.counter(
                    ("etcd_mvcc_range_total", "Ranges asked of this member, without those in transactions."),
                    &[],
                ),
                ("etcdserverpb.KV", "Txn") => {
                    registry.counter(("etcd_mvcc_txn_total", "Transactions asked of this member."), &[])
                }
                _ => Counter::noop(),
            },
        }
    }

    pub fn received(&self, messages: u64) {
        self.received.increment(messages);
    }

    pub fn sent(&self, messages: u64) {
        self.sent.increment(messages);
    }

    fn warn_if_slow(&self, took: Duration, code: usize) {
        let slow = self.slow.as_deref().filter(|slow| slow.is_slow(took));
        if let Some((slow, passed_over)) = slow.and_then(|slow| Some((slow, slow.turn()?))) {
            // etcd's words, which people look for.
            tracing::warn!(
                method = self.path,
                code = CODES[code],
                "time spent" = ?took,
                "expected-duration" = ?slow.bound(),
                passed_over,
                "request stats"
            );
        }
    }
}

/// A call under way. Dropped without an end it was given up by its caller.
pub struct Call {
    method: Arc<Method>,
    since: Stopwatch,
    ended: bool,
}

impl Call {
    pub fn begin(method: &Arc<Method>) -> Call {
        method.started.increment(1);
        method.also.increment(1);
        if !method.kind.asks_many {
            method.received.increment(1);
        }
        Call { method: method.clone(), since: Stopwatch::start(), ended: false }
    }

    pub fn method(&self) -> &Arc<Method> {
        &self.method
    }

    /// `code`: gRPC's number.
    pub fn end(mut self, code: i32) {
        let code = usize::try_from(code).unwrap_or(UNKNOWN);
        self.count(if code < CODES.len() { code } else { UNKNOWN });
    }

    fn count(&mut self, code: usize) {
        self.ended = true;
        self.method.handled[code].increment(1);
        let took = self.since.read();
        self.method.took.record(took);
        self.method.warn_if_slow(took, code);
        if code == OK && !self.method.kind.answers_many {
            self.method.sent.increment(1);
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if !self.ended {
            self.count(CANCELED);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn every_method_stands_there_with_every_code() {
        let registry = Registry::default();
        let grpc = Grpc::new(&registry, Duration::MAX);
        let put = grpc.method("/etcdserverpb.KV/Put").unwrap();
        assert!(put.kind.is_unary());
        assert!(grpc.method("/tenure.v1.Locks/Acquire").is_some());
        assert!(grpc.method("/tenure.internal.Forwarding/Propose").is_none() && grpc.method("/x").is_none());
        Call::begin(put).end(0);
        Call::begin(put).end(99);
        drop(Call::begin(put));
        let page = registry.page();
        let labels = "grpc_type=\"unary\",grpc_service=\"etcdserverpb.KV\",grpc_method=\"Put\"";
        for line in [
            format!("grpc_server_started_total{{{labels}}} 3"),
            format!("grpc_server_handled_total{{{labels},grpc_code=\"OK\"}} 1"),
            format!("grpc_server_handled_total{{{labels},grpc_code=\"Canceled\"}} 1"),
            format!("grpc_server_handled_total{{{labels},grpc_code=\"Unknown\"}} 1"),
            format!("grpc_server_handled_total{{{labels},grpc_code=\"Unavailable\"}} 0"),
            format!("grpc_server_msg_sent_total{{{labels}}} 1"),
            format!("grpc_server_handling_seconds_count{{{labels}}} 3"),
        ] {
            assert!(page.lines().any(|other| other == line), "{line}");
        }
        let watch = "grpc_type=\"bidi_stream\",grpc_service=\"etcdserverpb.Watch\",grpc_method=\"Watch\"";
        assert!(page.contains(&format!("grpc_server_started_total{{{watch}}} 0")));
    }
}
