//! The verb `ls`: what there is of locks, elections, services and sessions.

use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use tenure_client::Client;
use tenure_client::proto::tenure::v1::list_elections_response::Election;
use tenure_client::proto::tenure::v1::*;

use crate::endpoints::Endpoints;
use crate::failure::Failure;
use crate::output::{self, Format, say};
use crate::{span, whoami};

const EXAMPLES: &str = "\
Examples:
  tenure ls
  tenure ls locks --prefix jobs/
  tenure ls sessions -o json";

/// Asked for at once.
const PAGE: i64 = 1_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    Locks,
    Elections,
    Services,
    Sessions,
}

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Ls {
    /// Of which kind [default: all but sessions]
    #[arg(value_enum)]
    kind: Option<Kind>,
    /// Only names that begin so
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    prefix: String,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
    #[command(flatten)]
    endpoints: Endpoints,
}

/// A kind's table and the same for programs.
struct Listing {
    name: &'static str,
    head: &'static [&'static str],
    rows: Vec<Vec<String>>,
    json: Vec<Value>,
}

impl Ls {
    pub async fn run(self) -> Result<(), Failure> {
        let client = self.endpoints.client()?;
        let all = [Kind::Locks, Kind::Elections, Kind::Services];
        let kinds = self.kind.map_or(all.to_vec(), |kind| vec![kind]);
        let mut listings = Vec::new();
        for kind in kinds {
            listings.push(match kind {
                Kind::Locks => locks(&client, &self.prefix).await?,
                Kind::Elections => elections(&client, &self.prefix).await?,
                Kind::Services => services(&client, &self.prefix).await?,
                Kind::Sessions => sessions(&client).await?,
            });
        }
        if self.output == Format::Json {
            let object: serde_json::Map<String, Value> =
                listings.into_iter().map(|listing| (listing.name.to_owned(), listing.json.into())).collect();
            return say(&Value::Object(object).to_string());
        }
        let single = listings.len() == 1;
        listings.retain(|listing| single || !listing.rows.is_empty());
        let tables = listings.into_iter().map(|listing| output::table(listing.head, listing.rows));
        say(&tables.collect::<Vec<_>>().join("\n\n"))
    }
}

pub const LOCK_HEAD: &[&str] = &["LOCK", "MODE", "HOLDER", "TOKEN", "HELD", "LEASE-LEFT", "WAITING", "STATE"];

async fn locks(client: &Client, prefix: &str) -> Result<Listing, Failure> {
    let mut listing = Listing { name: "locks", head: LOCK_HEAD, rows: Vec::new(), json: Vec::new() };
    let mut request =
        ListLocksRequest { prefix: prefix.to_owned(), limit: PAGE, ..ListLocksRequest::default() };
    loop {
        let page = client.operate().list_locks(request.clone()).await?;
        for lock in &page.locks {
            listing.rows.push(lock_row(lock));
            listing.json.push(lock_json(lock));
        }
        match page.locks.last() {
            Some(last) if page.more => request.after = last.name.clone(),
            _ => return Ok(listing),
        }
    }
}

pub fn lock_row(lock: &LockSummary) -> Vec<String> {
    let mode = match lock.mode() {
        LockMode::Exclusive => "exclusive".to_owned(),
        LockMode::Shared => "shared".to_owned(),
        LockMode::Permits => format!("{}/{}", lock.permits_used, lock.capacity),
    };
    let state = match &lock.delay {
        Some(delay) => format!("delayed {} (lost {})", span::left(delay.remaining_s), delay.lost_owner_id),
        None if lock.holder_count > 0 => "held".into(),
        None if lock.waiter_count > 0 => "changing".into(),
        None => "free".into(),
    };
    let waiting = lock.waiter_count.to_string();
    let Some(first) = lock.holders.first() else {
        let none = || "-".to_owned();
        return vec![lock.name.clone(), none(), none(), none(), none(), none(), waiting, state];
    };
    let more = lock.holder_count - 1;
    let more = if more > 0 { format!(" +{more}") } else { String::new() };
    vec![
        lock.name.clone(),
        mode,
        format!("{}{more}", whoami::show(&first.labels, &first.owner_id)),
        first.token.to_string(),
        span::ago(first.since_unix_ms),
        span::left(first.remaining_s),
        waiting,
        state,
    ]
}

pub fn lock_json(lock: &LockSummary) -> Value {
    json!({
        "name": lock.name,
        "mode": lock.mode().as_str_name(),
        "holders": lock.holders.iter().map(holder_json).collect::<Vec<_>>(),
        "holderCount": lock.holder_count,
        "waiterCount": lock.waiter_count,
        "permitsUsed": lock.permits_used,
        "capacity": lock.capacity,
        "delaySeconds": lock.delay.as_ref().map(|delay| delay.remaining_s),
    })
}

pub fn holder_json(holder: &LockHolder) -> Value {
    json!({
        "session": format!("{:x}", holder.session_id),
        "owner": holder.owner_id,
        "labels": holder.labels,
        "mode": holder.mode().as_str_name(),
        "permits": holder.permits,
        "token": holder.token,
        "sinceUnixMs": holder.since_unix_ms,
        "remainingSeconds": holder.remaining_s,
    })
}

async fn elections(client: &Client, prefix: &str) -> Result<Listing, Failure> {
    const HEAD: &[&str] = &["ELECTION", "EPOCH", "LEADER", "TOKEN", "VALUE", "CANDIDATES"];
    let mut listing = Listing { name: "elections", head: HEAD, rows: Vec::new(), json: Vec::new() };
    let mut request = ListElectionsRequest { prefix: prefix.to_owned(), ..ListElectionsRequest::default() };
    loop {
        let page = client.operate().list_elections(request.clone()).await?;
        for election in &page.elections {
            listing.rows.push(election_row(election));
            listing.json.push(json!({
                "name": election.name,
                "vacant": election.vacant,
                "term": election.term.as_ref().map(term_json),
                "candidates": election.candidates,
            }));
        }
        match page.elections.last() {
            Some(last) if page.more => request.after = last.name.clone(),
            _ => return Ok(listing),
        }
    }
}

fn election_row(election: &Election) -> Vec<String> {
    let waiting = election.candidates.to_string();
    match election.term.as_ref().filter(|_| !election.vacant) {
        Some(term) => {
            let (leader, value) = (leader(term), value(term));
            vec![
                election.name.clone(),
                term.epoch.to_string(),
                leader,
                term.token.to_string(),
                value,
                waiting,
            ]
        }
        None => vec![election.name.clone(), "-".into(), "(vacant)".into(), "-".into(), "-".into(), waiting],
    }
}

pub fn leader(term: &ElectionTerm) -> String {
    term.leader.as_ref().map_or_else(|| "?".into(), |leader| leader.id.clone())
}

/// What was proclaimed, or what the candidate came with.
pub fn value(term: &ElectionTerm) -> String {
    let own = term.leader.as_ref().map(|leader| leader.value.clone()).unwrap_or_default();
    if term.seq > 0 { term.value.clone() } else { own }
}

pub fn term_json(term: &ElectionTerm) -> Value {
    json!({
        "epoch": term.epoch,
        "token": term.token,
        "leader": leader(term),
        "value": value(term),
        "end": term.end().as_str_name(),
        "endRevision": term.end_revision,
        "note": term.note,
    })
}

async fn services(client: &Client, prefix: &str) -> Result<Listing, Failure> {
    const HEAD: &[&str] = &["SERVICE", "INSTANCES", "ROUTABLE", "LOST", "STATE"];
    let mut listing = Listing { name: "services", head: HEAD, rows: Vec::new(), json: Vec::new() };
    let mut request =
        ListServicesRequest { prefix: prefix.to_owned(), limit: 1_000, ..ListServicesRequest::default() };
    loop {
        let page = client.operate().list_services(request.clone()).await?;
        for service in &page.services {
            let state = if service.protection.is_some() { "protected: many were lost at once" } else { "-" };
            let counts = [service.instances, service.routable, service.lost].map(|count| count.to_string());
            let mut row = vec![service.name.clone()];
            row.extend(counts);
            row.push(state.into());
            listing.rows.push(row);
            listing.json.push(json!({
                "name": service.name,
                "instances": service.instances,
                "routable": service.routable,
                "lost": service.lost,
                "stale": service.stale,
                "protected": service.protection.is_some(),
            }));
        }
        match page.services.last() {
            Some(last) if page.more => request.after = last.name.clone(),
            _ => return Ok(listing),
        }
    }
}

async fn sessions(client: &Client) -> Result<Listing, Failure> {
    const HEAD: &[&str] = &["SESSION", "WHO", "TTL", "OPENED", "COMMAND"];
    let mut listing = Listing { name: "sessions", head: HEAD, rows: Vec::new(), json: Vec::new() };
    let mut request = ListSessionsRequest { limit: PAGE, after: 0 };
    loop {
        let page = client.operate().list_sessions(request).await?;
        for session in &page.sessions {
            let command = session.labels.get("command").cloned().unwrap_or_default();
            listing.rows.push(vec![
                format!("{:x}", session.id),
                whoami::show(&session.labels, "-"),
                span::left(session.ttl),
                format!("{} ago", span::ago(session.opened_unix_ms)),
                command,
            ]);
            listing.json.push(json!({
                "id": format!("{:x}", session.id),
                "ttl": session.ttl,
                "labels": session.labels,
                "openedUnixMs": session.opened_unix_ms,
            }));
        }
        if page.next == 0 {
            return Ok(listing);
        }
        request = ListSessionsRequest { limit: PAGE, after: page.next };
    }
}
