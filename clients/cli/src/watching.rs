//! The verb `watch`: what happens to keys, locks, an election or a service. On a terminal locks and services are a table that is
//! redrawn; into a pipe goes a line for each thing that happens.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};

use clap::Args;
use serde_json::json;
use tenure_client::proto::mvccpb::event::EventType;
use tenure_client::proto::tenure::v1::service_range::Which;
use tenure_client::proto::tenure::v1::watch_instances_response::Event;
use tenure_client::proto::tenure::v1::*;
use tenure_client::{Client, ElectionNews};

use crate::endpoints::Endpoints;
use crate::failure::Failure;
use crate::keys::pair_json;
use crate::ls::{LOCK_HEAD, leader, lock_json, lock_row, term_json, value};
use crate::output::{self, Format, say};
use crate::show::{INSTANCE_HEAD, instance_json, instance_row};

const EXAMPLES: &str = "\
Goes on until Ctrl-C, through the loss of members, and misses nothing.

Examples:
  tenure watch jobs/ --prefix
  tenure watch jobs/ --prefix --from 812 -o json
  tenure watch --locks
  tenure watch --locks jobs/ | grep delayed
  tenure watch --election db/main
  tenure watch --service web";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Watch {
    /// A key
    #[arg(required_unless_present_any = ["locks", "election", "service"])]
    key: Option<String>,
    /// All keys that begin with KEY
    #[arg(long, requires = "key")]
    prefix: bool,
    /// From that revision on, which may be past
    #[arg(long, value_name = "REVISION", default_value_t = 0, hide_default_value = true, requires = "key")]
    from: i64,
    /// Locks whose names begin so; all, if no name is given
    #[arg(long, value_name = "PREFIX", num_args = 0..=1, default_missing_value = "", conflicts_with = "key")]
    locks: Option<String>,
    /// Each term and each vacancy of an election
    #[arg(long, value_name = "NAME", conflicts_with_all = ["key", "locks"])]
    election: Option<String>,
    /// The instances of a service
    #[arg(long, value_name = "NAME", conflicts_with_all = ["key", "locks", "election"])]
    service: Option<String>,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
    #[command(flatten)]
    endpoints: Endpoints,
}

impl Watch {
    pub async fn run(self) -> Result<(), Failure> {
        let client = self.endpoints.client()?;
        if let Some(prefix) = &self.locks {
            return self.locks(&client, prefix).await;
        }
        if let Some(name) = &self.election {
            return self.election(&client, name).await;
        }
        match &self.service {
            Some(name) => self.service(&client, name).await,
            None => self.keys(&client, self.key.as_deref().unwrap_or_default()).await,
        }
    }

    async fn keys(&self, client: &Client, key: &str) -> Result<(), Failure> {
        let watching = client.watch(key).from(self.from);
        let mut watch = if self.prefix { watching.prefix().await? } else { watching.await? };
        loop {
            let change = watch.next().await?;
            for event in change.events {
                let put = event.r#type() == EventType::Put;
                let pair = event.kv.unwrap_or_default();
                let (what, key) = (if put { "put" } else { "del" }, output::text(&pair.key));
                say(&match self.output {
                    Format::Json if put => {
                        json!({ "revision": change.revision, "put": pair_json(&pair) }).to_string()
                    }
                    Format::Json => {
                        json!({ "revision": change.revision, "del": output::json(&pair.key) }).to_string()
                    }
                    Format::Table if put => {
                        format!("{}  {what}  {key} = {}", change.revision, output::text(&pair.value))
                    }
                    Format::Table => format!("{}  {what}  {key}", change.revision),
                })?;
            }
        }
    }

    /// Whether a table is redrawn.
    fn live(&self) -> bool {
        self.output == Format::Table && std::io::stdout().is_terminal()
    }

    async fn locks(&self, client: &Client, prefix: &str) -> Result<(), Failure> {
        let request = WatchLocksRequest { name: prefix.to_owned(), prefix: true };
        let mut watch = client.operate().watch_locks(request);
        let mut locks: BTreeMap<String, LockSummary> = BTreeMap::new();
        let mut whole = false;
        loop {
            let told = watch.next().await?;
            if told.reset {
                locks.clear();
                whole = false;
            }
            for lock in told.locks {
                if !self.live() {
                    say(&match self.output {
                        Format::Json => lock_json(&lock).to_string(),
                        Format::Table => lock_row(&lock).join("  "),
                    })?;
                }
                let free = lock.holder_count == 0 && lock.waiter_count == 0 && lock.delay.is_none();
                match free {
                    true => locks.remove(&lock.name),
                    false => locks.insert(lock.name.clone(), lock),
                };
            }
            whole |= told.complete;
            if whole && self.live() {
                redraw(&output::table(LOCK_HEAD, locks.values().map(lock_row).collect()))?;
            }
        }
    }

    async fn election(&self, client: &Client, name: &str) -> Result<(), Failure> {
        let mut observer = client.election(name).observe();
        loop {
            let news = observer.next().await?;
            if self.output == Format::Json {
                say(&election_json(&news).to_string())?;
                continue;
            }
            say(&match &news {
                ElectionNews::Started(term) => {
                    format!(
                        "epoch {}  led by {} ({})  token {}",
                        term.epoch,
                        leader(term),
                        value(term),
                        term.token
                    )
                }
                ElectionNews::Ended(term) => {
                    let how = term.end().as_str_name().to_lowercase().replace('_', " ");
                    format!("epoch {}  ended: {how} {}", term.epoch, term.note).trim_end().to_owned()
                }
                ElectionNews::Proclaimed(said) => format!("epoch {}  proclaims {}", said.epoch, said.value),
                ElectionNews::Vacant(_) => "nobody leads".to_owned(),
                ElectionNews::Gap(gap) => {
                    format!("epochs {} to {} are not on record any more", gap.from, gap.to)
                }
                ElectionNews::Progress(_) => continue,
            })?;
        }
    }

    async fn service(&self, client: &Client, name: &str) -> Result<(), Failure> {
        let services = Some(ServiceRange { which: Some(Which::Service(name.to_owned())) });
        let request = WatchInstancesRequest { services, ..WatchInstancesRequest::default() };
        let mut watch = client.operate().watch_instances(request);
        let mut instances: BTreeMap<String, Instance> = BTreeMap::new();
        let mut coming = BTreeMap::new();
        loop {
            match watch.next().await?.event {
                Some(Event::SnapshotPart(part)) => {
                    coming.extend(part.instances.into_iter().map(|instance| (id(&instance), instance)));
                    continue;
                }
                Some(Event::SnapshotEnd(_)) => {
                    instances = std::mem::take(&mut coming);
                    for instance in instances.values() {
                        self.line(instance)?;
                    }
                }
                Some(Event::Delta(delta)) => {
                    for instance in delta.upserts {
                        self.line(&instance)?;
                        instances.insert(id(&instance), instance);
                    }
                    for removal in delta.removals {
                        if !self.live() {
                            say(&match self.output {
                                Format::Json => json!({ "removed": removal.id }).to_string(),
                                Format::Table => format!("{}  removed", removal.id),
                            })?;
                        }
                        instances.remove(&removal.id);
                    }
                }
                Some(Event::Bookmark(_) | Event::Reset(_)) | None => continue,
            }
            if self.live() {
                redraw(&output::table(INSTANCE_HEAD, instances.values().map(instance_row).collect()))?;
            }
        }
    }

    fn line(&self, instance: &Instance) -> Result<(), Failure> {
        match self.output {
            _ if self.live() => Ok(()),
            Format::Json => say(&instance_json(instance).to_string()),
            Format::Table => say(&instance_row(instance).join("  ")),
        }
    }
}

fn id(instance: &Instance) -> String {
    instance.registration.as_ref().map(|one| one.id.clone()).unwrap_or_default()
}

fn election_json(news: &ElectionNews) -> serde_json::Value {
    match news {
        ElectionNews::Started(term) => json!({ "started": term_json(term) }),
        ElectionNews::Ended(term) => json!({ "ended": term_json(term) }),
        ElectionNews::Proclaimed(said) => json!({ "proclaimed": said.value, "epoch": said.epoch }),
        ElectionNews::Vacant(vacant) => json!({ "vacantAfter": vacant.epoch }),
        ElectionNews::Gap(gap) => json!({ "gap": [gap.from, gap.to] }),
        ElectionNews::Progress(_) => json!({}),
    }
}

/// Where the table was, the table.
fn redraw(table: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    // Home, each line to its end, and what is left below.
    let text = format!("\x1b[H{}\x1b[K\n\x1b[J", table.replace('\n', "\x1b[K\n"));
    let drawn = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    drawn.map_err(|error| Failure::failed(format!("cannot write to the terminal: {error}")))
}
