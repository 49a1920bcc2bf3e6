//! The registry as Prometheus' `http_sd` reads it: `GET /v1/prometheus/sd?service=NAME` gives a service's instances as targets.
//!
//! Prometheus keeps the targets it knows when an answer is no 200, and drops them all when an answer is an empty list. So `[]` is
//! said only of a service that is known and has nobody, at a revision that a quorum confirmed.
//!
//! Instances that are drained or in maintenance, or that say they are not well, are among the targets: they run, and that is when one
//! looks at them. What was lost is not. `health=passing` leaves out whoever does not pass.

use tenure_proto::tenure::v1::{
    Endpoint, Health, Instance, InstanceSelector, ListServicesRequest, LookupRequest, ServiceRange,
    service_range,
};
use tenure_recipes::Error;
use tenure_recipes::registry::Registry;
use tonic::body::Body;
use tonic::codegen::http::{Response, StatusCode};

use super::{plain, typed};
use crate::node::{Here, Node, registry};

pub const PATH: &str = "/v1/prometheus/sd";
/// The endpoint that is for Prometheus where nothing else is asked for; the first one, where there is none of that name.
const METRICS: &str = "metrics";
const META: &str = "__meta_tenure_";

pub struct Discovery {
    registry: Registry<Here>,
}

/// What is asked for.
#[derive(Debug, Default, PartialEq)]
struct Question {
    service: String,
    selector: InstanceSelector,
    endpoint: Option<String>,
}

impl Discovery {
    pub fn new(node: &Node) -> Discovery {
        Discovery { registry: registry::at(node.here()) }
    }

    pub async fn answer(&self, query: &str) -> Response<Body> {
        let question = match Question::parse(query) {
            Ok(question) => question,
            Err(text) => return plain(StatusCode::BAD_REQUEST, text),
        };
        match self.instances(&question).await {
            Ok(Some(instances)) => {
                let groups =
                    instances.iter().filter_map(|instance| group(instance, question.endpoint.as_deref()));
                let groups: Vec<_> = groups.collect();
                typed(StatusCode::OK, "application/json", serde_json::Value::Array(groups).to_string())
            }
            Ok(None) => {
                let text =
                    format!("no service {:?} is registered, and none has a policy\n", question.service);
                plain(StatusCode::NOT_FOUND, text)
            }
            Err(Error::Refused(refusal)) => plain(StatusCode::BAD_REQUEST, format!("{refusal}\n")),
            Err(Error::Failed(failure)) => plain(
                StatusCode::SERVICE_UNAVAILABLE,
                format!("the registry cannot be read now: {failure}\n"),
            ),
        }
    }

    /// All that are selected and not lost; None: there is no such service.
    async fn instances(&self, question: &Question) -> Result<Option<Vec<Instance>>, Error> {
        let services =
            Some(ServiceRange { which: Some(service_range::Which::Service(question.service.clone())) });
        let selector = Some(question.selector.clone());
        let mut ask = LookupRequest { services, selector, ..LookupRequest::default() };
        let mut instances = Vec::new();
        loop {
            let found = self.registry.lookup(ask.clone()).await?;
            instances
                .extend(found.instances.into_iter().filter(|instance| instance.health() != Health::Lost));
            ask.after = found.next;
            if ask.after.is_none() {
                break;
            }
        }
        let known = !instances.is_empty() || self.knows(&question.service).await?;
        Ok(known.then_some(instances))
    }

    async fn knows(&self, service: &str) -> Result<bool, Error> {
        let list =
            ListServicesRequest { prefix: service.to_owned(), limit: 1, ..ListServicesRequest::default() };
        let first = self.registry.list_services(list).await?.services.into_iter().next();
        Ok(first.is_some_and(|first| first.name == service))
    }
}

impl Question {
    fn parse(query: &str) -> Result<Question, String> {
        let mut question = Question::default();
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            let selector = &mut question.selector;
            match (&*name, &*value) {
                ("service", service) => question.service = service.to_owned(),
                ("endpoint", endpoint) => question.endpoint = Some(endpoint.to_owned()),
                ("zone", zone) => selector.zones.push(zone.to_owned()),
                ("health", "passing") => selector.healths.push(Health::Passing.into()),
                ("label", label) => {
                    let (key, value) = label.split_once(':').ok_or("write label=KEY:VALUE\n")?;
                    selector.labels.insert(key.to_owned(), value.to_owned());
                }
                (name, value) => {
                    return Err(format!(
                        "{name}={value} is not understood: ask for service=NAME, and with it label=KEY:VALUE, zone=ZONE, \
                         health=passing, endpoint=NAME\n"
                    ));
                }
            }
        }
        match question.service.is_empty() {
            true => Err("say which: service=NAME\n".to_owned()),
            false => Ok(question),
        }
    }
}

/// An instance with what is known of it; None: it has no such endpoint.
fn group(instance: &Instance, endpoint: Option<&str>) -> Option<serde_json::Value> {
    let registration = instance.registration.as_ref()?;
    let named = |name: &str| registration.endpoints.iter().find(|endpoint| endpoint.name == name);
    let endpoint = match endpoint {
        Some(name) => named(name)?,
        None => named(METRICS).or(registration.endpoints.first())?,
    };
    let health = instance.health().as_str_name().trim_start_matches("HEALTH_").to_lowercase();
    let facts = [
        ("service", registration.service.clone()),
        ("id", registration.id.clone()),
        ("version", registration.version.clone()),
        ("zone", registration.zone.clone()),
        ("endpoint", endpoint.name.clone()),
        ("protocol", endpoint.protocol.clone()),
        ("health", health),
        ("routable", instance.routable.to_string()),
        ("draining", instance.drain.is_some().to_string()),
        ("maintenance", instance.maintenance.to_string()),
        ("stale", instance.stale.to_string()),
    ];
    let facts = facts.into_iter().map(|(name, value)| (format!("{META}{name}"), value.into()));
    let labels = registration.labels.iter();
    let labels = labels.map(|(name, value)| (format!("{META}label_{}", word(name)), value.as_str().into()));
    let labels: serde_json::Map<String, serde_json::Value> = facts.chain(labels).collect();
    Some(serde_json::json!({ "targets": [address(endpoint)], "labels": labels }))
}

fn address(Endpoint { host, port, .. }: &Endpoint) -> String {
    match host.contains(':') && !host.starts_with('[') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    }
}

/// What Prometheus takes as part of a label's name.
fn word(name: &str) -> String {
    name.chars().map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '_' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_read_whole_or_not_at_all() {
        let question =
            Question::parse("service=a%20b&label=tier:web:1&zone=x&health=passing&endpoint=admin").unwrap();
        assert_eq!((question.service.as_str(), question.endpoint.as_deref()), ("a b", Some("admin")));
        assert_eq!(question.selector.labels.get("tier").map(String::as_str), Some("web:1"));
        assert_eq!(question.selector.healths, [i32::from(Health::Passing)]);
        for query in ["", "service=", "service=a&label=x", "service=a&health=lost", "service=a&lable=x:y"] {
            assert!(Question::parse(query).is_err(), "{query}");
        }
    }

    #[test]
    fn an_address_of_many_colons_stands_in_brackets() {
        let endpoint = |host: &str| Endpoint { host: host.into(), port: 80, ..Endpoint::default() };
        assert_eq!(address(&endpoint("::1")), "[::1]:80");
        assert_eq!(address(&endpoint("web-1")), "web-1:80");
        assert_eq!(word("app.kubernetes.io/name"), "app_kubernetes_io_name");
    }
}
