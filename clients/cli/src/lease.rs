//! The noun `lease`.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::endpoints::Endpoints;
use crate::failure::Failure;
use crate::output::{self, Fact, Format, say};
use crate::span;

#[derive(Subcommand)]
pub enum Lease {
    /// Grant a lease; prints its id, in hexadecimal
    Grant(Grant),
    /// End a lease with all its keys
    Revoke(One),
    /// Give a lease its full time again, once
    Renew(One),
    /// What is left of a lease, and its keys
    Show(One),
    /// All leases
    Ls(Ls),
}

#[derive(Args)]
pub struct Grant {
    /// Such as 60s or 10m
    #[arg(value_parser = span::parse)]
    ttl: std::time::Duration,
    #[command(flatten)]
    endpoints: Endpoints,
}

#[derive(Args)]
pub struct One {
    /// In hexadecimal
    #[arg(value_parser = id)]
    id: i64,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
    #[command(flatten)]
    endpoints: Endpoints,
}

#[derive(Args)]
pub struct Ls {
    /// How to print it
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
    #[command(flatten)]
    endpoints: Endpoints,
}

/// As people are shown it, and etcdctl shows it.
pub fn id(text: &str) -> Result<i64, String> {
    i64::from_str_radix(text, 16).map_err(|_| "an id is a number in hexadecimal".into())
}

impl Lease {
    pub async fn run(self) -> Result<(), Failure> {
        match self {
            Lease::Grant(grant) => {
                let ttl_s = i64::try_from(grant.ttl.as_secs()).unwrap_or(i64::MAX);
                let (id, _) = grant.endpoints.client()?.leases().grant(ttl_s).await?;
                say(&format!("{id:x}"))
            }
            Lease::Revoke(one) => {
                one.endpoints.client()?.leases().revoke(one.id).await?;
                say("revoked")
            }
            Lease::Renew(one) => match one.endpoints.client()?.leases().keep_alive(one.id).await? {
                Some(ttl_s) => say(&format!("renewed for {ttl_s}s")),
                None => Err(unknown(one.id)),
            },
            Lease::Show(one) => one.show().await,
            Lease::Ls(ls) => {
                let ids = ls.endpoints.client()?.leases().list().await?;
                let rows = ids.iter().map(|id| vec![format!("{id:x}")]).collect();
                let json = ids.iter().map(|id| Value::from(format!("{id:x}"))).collect();
                output::print_all(ls.output, &["LEASE"], rows, Value::Array(json))
            }
        }
    }
}

impl One {
    async fn show(self) -> Result<(), Failure> {
        let left = self.endpoints.client()?.leases().time_to_live(self.id).await?;
        let left = left.ok_or_else(|| unknown(self.id))?;
        let keys: Vec<String> = left.keys.iter().map(|key| output::text(key)).collect();
        output::print(
            self.output,
            vec![
                Fact::new("id", "lease", format!("{:x}", self.id)),
                Fact::new("remaining", "left", left.remaining_s).note("s"),
                Fact::new("granted", "of", left.granted_s).note("s"),
                Fact::new(
                    "keys",
                    "keys",
                    match self.output {
                        Format::Json => json!(keys),
                        Format::Table => keys.join(", ").into(),
                    },
                ),
            ],
        )
    }
}

fn unknown(id: i64) -> Failure {
    Failure::failed(format!("there is no lease {id:x}"))
}
