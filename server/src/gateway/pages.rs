//! What is asked over plain HTTP and is no RPC: which version answers here, whether this member is well, in etcd's words, and its metrics. Load
//! balancers, Kubernetes' probes, Patroni and Prometheus read these.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;
use tenure_proto::etcdserverpb::{AlarmType, RangeRequest};
use tonic::body::Body;
use tonic::codegen::http::{Method, Response, StatusCode, Uri};

use super::prometheus::{self, Discovery};
use super::{plain, typed};
use crate::config::ETCD_COMPATIBILITY_VERSION;
use crate::metrics::{CONTENT_TYPE, Counter, Registry};
use crate::node::{Error, Node, Reader, View};
use crate::raft::Leadership;
use crate::scrape::Scrape;

/// What the pages look at.
pub struct Pages {
    reader: Reader,
    view: Arc<View>,
    leadership: tokio::sync::watch::Receiver<Leadership>,
    learning: Arc<AtomicBool>,
    discovery: Discovery,
    scrape: Scrape,
    healthy: Counter,
    unhealthy: Counter,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Check {
    DataCorruption,
    SerializableRead,
    LinearizableRead,
    NonLearner,
}

impl Check {
    fn name(self) -> &'static str {
        match self {
            Check::DataCorruption => "data_corruption",
            Check::SerializableRead => "serializable_read",
            Check::LinearizableRead => "linearizable_read",
            Check::NonLearner => "non_learner",
        }
    }
}

/// Whether the process is worth keeping, and whether it should be sent requests.
const LIVE: &[Check] = &[Check::SerializableRead];
const READY: &[Check] =
    &[Check::DataCorruption, Check::SerializableRead, Check::LinearizableRead, Check::NonLearner];

impl Pages {
    /// `scrape`: what makes the page of metrics, of this registry.
    pub fn new(node: &Node, scrape: Scrape, registry: &Registry) -> Pages {
        Pages {
            scrape,
            healthy: registry
                .counter(("etcd_server_health_success", "Answers of /health that all is well."), &[]),
            unhealthy: registry
                .counter(("etcd_server_health_failures", "Answers of /health that something is not."), &[]),
            reader: node.reader.clone(),
            view: node.view.clone(),
            leadership: node.consensus.leadership(),
            learning: node.members.learning(),
            discovery: Discovery::new(node),
        }
    }

    pub async fn answer(&self, method: &Method, uri: &Uri) -> Response<Body> {
        let (path, query) = (uri.path(), uri.query().unwrap_or_default());
        if !matches!(path, "/version" | "/health" | "/metrics" | prometheus::PATH)
            && !path.starts_with("/livez")
            && !path.starts_with("/readyz")
        {
            return plain(StatusCode::NOT_FOUND, "404 page not found\n");
        }
        if method != Method::GET && method != Method::HEAD {
            return plain(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed\n");
        }
        match path {
            "/version" => version(),
            "/health" => self.health(query).await,
            prometheus::PATH => match self.alarm(&[AlarmType::Nospace.as_str_name()]) {
                Some(alarm) => plain(StatusCode::SERVICE_UNAVAILABLE, format!("alarm activated: {alarm}\n")),
                None => self.discovery.answer(query).await,
            },
            "/metrics" => match self.scrape.page().await {
                Some(page) => typed(StatusCode::OK, CONTENT_TYPE, page),
                None => plain(StatusCode::SERVICE_UNAVAILABLE, "this member is stopping\n"),
            },
            _ => match path.strip_prefix("/livez") {
                Some(rest) => self.checks("livez", LIVE, rest, query).await,
                None => self.checks("readyz", READY, path.trim_start_matches("/readyz"), query).await,
            },
        }
    }

    async fn health(&self, query: &str) -> Response<Body> {
        let excluded = values(query, "exclude");
        let serializable = values(query, "serializable").any(|value| value == "true");
        let reason = match self.alarm(&excluded.collect::<Vec<_>>()) {
            Some(alarm) => format!("ALARM {alarm}"),
            None if !serializable && self.leadership.borrow().lost => "RAFT NO LEADER".to_owned(),
            None => match self.read(serializable).await {
                Ok(()) => String::new(),
                Err(why) => format!("RANGE ERROR:{why}"),
            },
        };
        let healthy = reason.is_empty();
        if healthy { &self.healthy } else { &self.unhealthy }.increment(1);
        let status = if healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        let said = json!({ "health": if healthy { "true" } else { "false" }, "reason": reason });
        plain(status, said.to_string())
    }

    /// The first alarm that stands and is not to be passed over.
    fn alarm(&self, excluded: &[&str]) -> Option<&'static str> {
        let machine = self.view.machine();
        let alarms = machine.alarms().list(0, AlarmType::None);
        alarms.iter().map(|alarm| alarm.alarm().as_str_name()).find(|name| !excluded.contains(name))
    }

    async fn read(&self, serializable: bool) -> Result<(), String> {
        let request =
            RangeRequest { key: "health".into(), limit: 1, serializable, ..RangeRequest::default() };
        match self.reader.range(&request).await {
            Ok(_) => Ok(()),
            Err(Error::Unavailable(_)) => {
                Err("the cluster has no leader, or did not answer in time".to_owned())
            }
            Err(error) => Err(format!("{error:?}")),
        }
    }

    /// `rest`: nothing, or `/` and the one check that is asked for.
    async fn checks(&self, name: &str, all: &[Check], rest: &str, query: &str) -> Response<Body> {
        let wanted = rest.trim_start_matches('/');
        let excluded: Vec<&str> = values(query, "exclude").collect();
        let chosen: Vec<Check> = all
            .iter()
            .copied()
            .filter(|check| wanted.is_empty() || check.name() == wanted)
            .filter(|check| !excluded.contains(&check.name()))
            .collect();
        if chosen.is_empty() && !wanted.is_empty() {
            return plain(StatusCode::NOT_FOUND, "404 page not found\n");
        }
        let (mut report, mut failed) = (String::new(), false);
        for check in chosen {
            match self.check(check).await {
                Ok(()) => report += &format!("[+]{} ok\n", check.name()),
                Err(why) => {
                    failed = true;
                    report += &format!("[-]{} failed: {why}\n", check.name());
                }
            }
        }
        if failed {
            return plain(StatusCode::SERVICE_UNAVAILABLE, format!("{report}{name} check failed\n"));
        }
        let verbose = query.split('&').any(|pair| pair == "verbose" || pair.starts_with("verbose="));
        plain(
            StatusCode::OK,
            if verbose { format!("{report}{name} check passed\n") } else { "ok\n".to_owned() },
        )
    }

    async fn check(&self, check: Check) -> Result<(), String> {
        match check {
            Check::DataCorruption => match self.alarm(&[AlarmType::Nospace.as_str_name()]) {
                Some(alarm) => Err(format!("alarm activated: {alarm}")),
                None => Ok(()),
            },
            Check::SerializableRead => self.read(true).await,
            Check::LinearizableRead => self.read(false).await,
            Check::NonLearner if self.learning.load(Ordering::Relaxed) => {
                Err("not supported for learner".to_owned())
            }
            Check::NonLearner => Ok(()),
        }
    }
}

/// Plain numbers between points: some clients parse them.
fn version() -> Response<Body> {
    let (minor, _) = ETCD_COMPATIBILITY_VERSION.rsplit_once('.').unwrap_or((ETCD_COMPATIBILITY_VERSION, ""));
    let said = format!(r#"{{"etcdserver":"{ETCD_COMPATIBILITY_VERSION}","etcdcluster":"{minor}.0"}}"#);
    typed(StatusCode::OK, "application/json", said)
}

fn values<'q>(query: &'q str, name: &'q str) -> impl Iterator<Item = &'q str> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.filter(move |(key, _)| *key == name).map(|(_, value)| value)
}
