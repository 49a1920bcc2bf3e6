//! The verbs `show`, `queue` and `history`: one lock, election or service in full.

use clap::Args;
use serde_json::{Value, json};
use tenure_client::Client;
use tenure_client::proto::tenure::v1::service_range::Which;
use tenure_client::proto::tenure::v1::*;

use crate::endpoints::Endpoints;
use crate::failure::Failure;
use crate::ls::{holder_json, leader, lock_json, term_json, value};
use crate::output::{self, Format, say};
use crate::{span, whoami};

const SHOW: &str = "\
Shows the lock, the election and the service of that name, whichever there are.

Examples:
  tenure show jobs/nightly
  tenure show web -o json | jq .service";

const QUEUE: &str = "\
Examples:
  tenure queue jobs/nightly";

const HISTORY: &str = "\
Examples:
  tenure history db/main --limit 20";

#[derive(Args)]
#[command(after_help = SHOW)]
pub struct Show {
    name: String,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
    #[command(flatten)]
    endpoints: Endpoints,
}

#[derive(Args)]
#[command(after_help = QUEUE)]
pub struct Queue {
    /// Of the lock
    name: String,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
    #[command(flatten)]
    endpoints: Endpoints,
}

#[derive(Args)]
#[command(after_help = HISTORY)]
pub struct History {
    /// Of the election
    name: String,
    /// At most so many terms, the newest
    #[arg(long, value_name = "N", default_value_t = 50)]
    limit: i64,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
    #[command(flatten)]
    endpoints: Endpoints,
}

impl Show {
    pub async fn run(self) -> Result<(), Failure> {
        let client = self.endpoints.client()?;
        let found = [
            ("lock", lock(&client, &self.name).await?),
            ("election", election(&client, &self.name).await?),
            ("service", service(&client, &self.name).await?),
        ];
        let found: Vec<_> = found.into_iter().filter_map(|(kind, found)| Some((kind, found?))).collect();
        if found.is_empty() {
            return Err(Failure::failed(format!("there is no lock, election or service {}", self.name)));
        }
        match self.output {
            Format::Json => {
                let object: serde_json::Map<String, Value> =
                    found.into_iter().map(|(kind, (_, json))| (kind.to_owned(), json)).collect();
                say(&Value::Object(object).to_string())
            }
            Format::Table => {
                let texts: Vec<String> = found.into_iter().map(|(_, (text, _))| text).collect();
                say(&texts.join("\n\n"))
            }
        }
    }
}

/// None: nobody holds it, nobody waits, and nothing is delayed.
async fn lock(client: &Client, name: &str) -> Result<Option<(String, Value)>, Failure> {
    let state = inspect(client, name).await?;
    let summary = state.lock.clone().unwrap_or_default();
    if state.holders.is_empty() && state.waiters.is_empty() && summary.delay.is_none() {
        return Ok(None);
    }
    let holders = state.holders.iter().map(|holder| {
        let who = whoami::show(&holder.labels, &holder.owner_id);
        let (token, since) = (holder.token.to_string(), span::ago(holder.since_unix_ms));
        vec![who, format!("{:x}", holder.session_id), token, since, span::left(holder.remaining_s)]
    });
    let mut text = format!("lock {name}\n");
    if let Some(delay) = &summary.delay {
        let left = span::left(delay.remaining_s);
        text.push_str(&format!("delayed for {left} since {} was lost\n", delay.lost_owner_id));
    }
    text.push_str(&output::table(&["HOLDER", "SESSION", "TOKEN", "HELD", "LEASE-LEFT"], holders.collect()));
    if !state.waiters.is_empty() {
        text.push_str("\n\n");
        text.push_str(&queue_table(&state.waiters));
    }
    let mut json = lock_json(&summary);
    json["holders"] = state.holders.iter().map(holder_json).collect();
    json["waiters"] = queue_json(&state.waiters);
    Ok(Some((text, json)))
}

pub async fn inspect(client: &Client, name: &str) -> Result<InspectLockResponse, Failure> {
    let question = InspectLockRequest { name: name.to_owned(), limit: 1_000 };
    Ok(client.operate().inspect_lock(question).await?)
}

fn queue_table(waiters: &[LockWaiter]) -> String {
    let rows = waiters.iter().enumerate().map(|(place, waiter)| {
        let wants = waiter.locks.iter().map(|spec| match spec.mode() {
            LockMode::Exclusive => spec.name.clone(),
            LockMode::Shared => format!("{} (shared)", spec.name),
            LockMode::Permits => format!("{} ({} permits)", spec.name, spec.permits.max(1)),
        });
        vec![
            (place + 1).to_string(),
            whoami::show(&waiter.labels, &waiter.owner_id),
            span::ago(waiter.since_unix_ms),
            wants.collect::<Vec<_>>().join(", "),
        ]
    });
    output::table(&["PLACE", "WAITER", "SINCE", "WANTS"], rows.collect())
}

fn queue_json(waiters: &[LockWaiter]) -> Value {
    let one = |waiter: &LockWaiter| {
        json!({
            "session": format!("{:x}", waiter.session_id),
            "owner": waiter.owner_id,
            "labels": waiter.labels,
            "sinceUnixMs": waiter.since_unix_ms,
        })
    };
    waiters.iter().map(one).collect()
}

/// None: nobody leads, led or stands.
async fn election(client: &Client, name: &str) -> Result<Option<(String, Value)>, Failure> {
    let state = leading(client, name).await?;
    if state.term.is_none() && state.candidates.is_empty() {
        return Ok(None);
    }
    let mut text = format!("election {name}\n");
    match state.term.as_ref().filter(|_| !state.vacant) {
        Some(term) => text.push_str(&format!(
            "led by {} ({}), epoch {}, token {}",
            leader(term),
            value(term),
            term.epoch,
            term.token
        )),
        None => text.push_str(&format!("vacant: {}", state.pause().as_str_name().to_lowercase())),
    }
    if let Some(handover) = &state.handover {
        text.push_str(&format!("\nasked to hand over to {}", handover.to_candidate_id));
    }
    if !state.candidates.is_empty() {
        let rows = state.candidates.iter().map(|one| {
            let eligible = if one.ineligible { "no" } else { "yes" };
            vec![
                one.id.clone(),
                one.priority.to_string(),
                one.rank.to_string(),
                eligible.into(),
                one.value.clone(),
            ]
        });
        let head = &["CANDIDATE", "PRIORITY", "RANK", "ELIGIBLE", "VALUE"];
        text.push_str(&format!("\n\n{}", output::table(head, rows.collect())));
    }
    let json = json!({
        "vacant": state.vacant,
        "term": state.term.as_ref().map(term_json),
        "candidates": state.candidates.iter().map(|one| one.id.clone()).collect::<Vec<_>>(),
        "handoverTo": state.handover.as_ref().map(|handover| handover.to_candidate_id.clone()),
    });
    Ok(Some((text, json)))
}

pub async fn leading(client: &Client, name: &str) -> Result<ElectionLeaderResponse, Failure> {
    Ok(client.operate().election(ElectionLeaderRequest { name: name.to_owned(), detail: true }).await?)
}

pub const INSTANCE_HEAD: &[&str] = &["INSTANCE", "ENDPOINTS", "HEALTH", "WEIGHT", "ROUTABLE", "STATE"];

/// None: it has no instances.
async fn service(client: &Client, name: &str) -> Result<Option<(String, Value)>, Failure> {
    let services = Some(ServiceRange { which: Some(Which::Service(name.to_owned())) });
    let mut request = LookupRequest { services, ..LookupRequest::default() };
    let mut instances = Vec::new();
    loop {
        let page = client.operate().lookup(request.clone()).await?;
        instances.extend(page.instances);
        match page.next {
            Some(next) => request.after = Some(next),
            None => break,
        }
    }
    if instances.is_empty() {
        return Ok(None);
    }
    let table = output::table(INSTANCE_HEAD, instances.iter().map(instance_row).collect());
    let json = json!({ "instances": instances.iter().map(instance_json).collect::<Vec<_>>() });
    Ok(Some((format!("service {name}\n{table}"), json)))
}

pub fn instance_row(instance: &Instance) -> Vec<String> {
    let registration = instance.registration.clone().unwrap_or_default();
    let endpoints = registration.endpoints.iter().map(|endpoint| {
        let name = if endpoint.name.is_empty() { String::new() } else { format!("{}=", endpoint.name) };
        format!("{name}{}:{}", endpoint.host, endpoint.port)
    });
    let state = match (&instance.drain, instance.maintenance, instance.stale) {
        (Some(drain), _, _) if drain.over => "drained",
        (Some(_), _, _) => "draining",
        (None, true, _) => "maintenance",
        (None, false, true) => "stale",
        (None, false, false) => "-",
    };
    vec![
        registration.id.clone(),
        endpoints.collect::<Vec<_>>().join(","),
        health(instance),
        instance.weight.to_string(),
        if instance.routable { "yes".into() } else { "no".into() },
        state.into(),
    ]
}

pub fn health(instance: &Instance) -> String {
    instance.health().as_str_name().trim_start_matches("HEALTH_").to_lowercase()
}

pub fn instance_json(instance: &Instance) -> Value {
    let registration = instance.registration.clone().unwrap_or_default();
    let endpoint = |one: &Endpoint| json!({ "name": one.name, "host": one.host, "port": one.port });
    json!({
        "id": registration.id,
        "endpoints": registration.endpoints.iter().map(endpoint).collect::<Vec<_>>(),
        "labels": registration.labels,
        "version": registration.version,
        "zone": registration.zone,
        "health": health(instance),
        "weight": instance.weight,
        "routable": instance.routable,
        "draining": instance.drain.is_some(),
        "maintenance": instance.maintenance,
        "stale": instance.stale,
    })
}

impl Queue {
    pub async fn run(self) -> Result<(), Failure> {
        let state = inspect(&self.endpoints.client()?, &self.name).await?;
        match self.output {
            Format::Json => say(&queue_json(&state.waiters).to_string()),
            Format::Table => say(&queue_table(&state.waiters)),
        }
    }
}

impl History {
    pub async fn run(self) -> Result<(), Failure> {
        let terms = self.endpoints.client()?.election(self.name).history(self.limit).await?;
        let row = |term: &ElectionTerm| {
            let end = match term.end() {
                election_term::End::Running => "(leads)".to_owned(),
                end => end.as_str_name().to_lowercase().replace('_', " "),
            };
            vec![term.epoch.to_string(), leader(term), term.token.to_string(), end, term.note.clone()]
        };
        let rows = terms.iter().map(row).collect();
        let json = terms.iter().map(term_json).collect();
        output::print_all(
            self.output,
            &["EPOCH", "LEADER", "TOKEN", "ENDED", "NOTE"],
            rows,
            Value::Array(json),
        )
    }
}
