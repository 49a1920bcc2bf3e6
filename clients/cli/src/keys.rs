//! The verbs `get`, `put` and `del`: keys and values.

use std::io::{Read, Write};

use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use tenure_client::proto::mvccpb::KeyValue;
use tenure_client::proto::tenure::v1::Guard;
use tenure_client::{Client, Found, Kv};

use crate::endpoints::Endpoints;
use crate::failure::Failure;
use crate::output::{self, Format, say};

const GET: &str = "\
Of one key, prints its value, and exits with 1 if there is no such key.

Examples:
  tenure get config/colour
  tenure get jobs/ --prefix
  tenure get jobs/ --prefix --limit 10 -o json | jq -r '.[].key'";

const PUT: &str = "\
Examples:
  tenure put config/colour blue
  tenure put config/logo - < logo.png
  tenure lock jobs/nightly -- sh -c 'tenure put jobs/nightly/step 7 --guard \"$TENURE_GUARD\"'";

const DEL: &str = "\
Examples:
  tenure del config/colour
  tenure del jobs/ --prefix";

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum GetFormat {
    Value,
    Table,
    Json,
}

#[derive(Args)]
#[command(after_help = GET)]
pub struct Get {
    key: String,
    /// All keys that begin with KEY
    #[arg(long, conflicts_with = "to")]
    prefix: bool,
    /// All keys from KEY up to this one, which is not among them
    #[arg(long, value_name = "END")]
    to: Option<String>,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    limit: i64,
    /// As it was at that revision
    #[arg(long, value_name = "REVISION", default_value_t = 0, hide_default_value = true)]
    rev: i64,
    /// From the asked member's own state, which may be behind; works without a quorum
    #[arg(long)]
    serializable: bool,
    /// How to print it [default: value for one key, else table]
    #[arg(short, long, value_enum)]
    output: Option<GetFormat>,
    #[command(flatten)]
    endpoints: Endpoints,
}

impl Get {
    pub async fn run(self) -> Result<(), Failure> {
        let single = !self.prefix && self.to.is_none();
        let mut get = self.endpoints.client()?.kv().get(&self.key).limit(self.limit).revision(self.rev);
        if self.prefix {
            get = get.prefix();
        }
        if let Some(end) = &self.to {
            get = get.to(end);
        }
        if self.serializable {
            get = get.serializable();
        }
        let found = get.await?;
        if single && found.pairs.is_empty() {
            return Err(Failure::failed(format!("there is no key {}", self.key)));
        }
        match self.output.unwrap_or(if single { GetFormat::Value } else { GetFormat::Table }) {
            GetFormat::Value => values(&found),
            GetFormat::Table => print(Format::Table, &found),
            GetFormat::Json => print(Format::Json, &found),
        }
    }
}

/// As they are, each with a line's end behind it.
fn values(found: &Found) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    for pair in &found.pairs {
        let written = out.write_all(&pair.value).and_then(|()| out.write_all(b"\n"));
        if let Err(error) = written
            && error.kind() != std::io::ErrorKind::BrokenPipe
        {
            return Err(Failure::failed(format!("cannot write to standard output: {error}")));
        }
    }
    Ok(())
}

fn print(format: Format, found: &Found) -> Result<(), Failure> {
    let row = |pair: &KeyValue| {
        let lease = if pair.lease == 0 { "-".into() } else { format!("{:x}", pair.lease) };
        vec![output::text(&pair.key), output::text(&pair.value), pair.mod_revision.to_string(), lease]
    };
    let rows = found.pairs.iter().map(row).collect();
    let json = found.pairs.iter().map(pair_json).collect();
    output::print_all(format, &["KEY", "VALUE", "REVISION", "LEASE"], rows, Value::Array(json))
}

pub fn pair_json(pair: &KeyValue) -> Value {
    json!({
        "key": output::json(&pair.key),
        "value": output::json(&pair.value),
        "createRevision": pair.create_revision,
        "modRevision": pair.mod_revision,
        "version": pair.version,
        "lease": pair.lease,
    })
}

/// Under what writes are made.
#[derive(Args)]
pub struct Guarded {
    /// Only while this grant lasts: what a command under `tenure lock` or `tenure elect` finds in TENURE_GUARD
    #[arg(long, value_name = "GUARD")]
    guard: Option<String>,
}

impl Guarded {
    pub fn kv(&self, client: &Client) -> Result<Kv, Failure> {
        let mut kv = client.kv();
        for compare in self
            .guard
            .as_deref()
            .map(tenure_recipes::guard::parse)
            .transpose()
            .map_err(Failure::failed)?
            .unwrap_or_default()
        {
            kv = kv.with_guard(&Guard { compare: Some(compare), ..Guard::default() });
        }
        Ok(kv)
    }
}

#[derive(Args)]
#[command(after_help = PUT)]
pub struct Put {
    key: String,
    /// `-`: what standard input has
    value: String,
    /// The lease, in hexadecimal, that the key goes with
    #[arg(long, value_name = "LEASE", value_parser = crate::lease::id)]
    lease: Option<i64>,
    #[command(flatten)]
    guarded: Guarded,
    #[command(flatten)]
    endpoints: Endpoints,
}

impl Put {
    pub async fn run(self) -> Result<(), Failure> {
        let mut value = self.value.into_bytes();
        if value == b"-" {
            value.clear();
            let read = std::io::stdin().lock().read_to_end(&mut value);
            read.map_err(|error| Failure::failed(format!("cannot read standard input: {error}")))?;
        }
        let kv = self.guarded.kv(&self.endpoints.client()?)?;
        let revision = kv.put(self.key, value).lease(self.lease.unwrap_or_default()).await?;
        say(&format!("written at revision {revision}"))
    }
}

#[derive(Args)]
#[command(after_help = DEL)]
pub struct Del {
    key: String,
    /// All keys that begin with KEY
    #[arg(long)]
    prefix: bool,
    #[command(flatten)]
    guarded: Guarded,
    #[command(flatten)]
    endpoints: Endpoints,
}

impl Del {
    pub async fn run(self) -> Result<(), Failure> {
        let delete = self.guarded.kv(&self.endpoints.client()?)?.delete(&self.key);
        let count = if self.prefix { delete.prefix().await? } else { delete.await? };
        say(&format!("{count} removed"))
    }
}
