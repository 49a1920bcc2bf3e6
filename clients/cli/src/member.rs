//! The nouns `member` and `endpoint`: who belongs to the cluster, and how those are that were named.

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use tenure_client::proto::etcdserverpb::Member as Known;

use crate::endpoints::Endpoints;
use crate::failure::Failure;
use crate::output::{self, Format, say};

#[derive(Subcommand)]
pub enum Member {
    /// The members of the cluster
    #[command(visible_alias = "list")]
    Ls(Ls),
    /// Add a member; it is to be started with what this prints
    Add(Add),
    /// Remove a member
    Remove(One),
    /// Let a learner vote
    Promote(One),
}

#[derive(Args)]
pub struct Ls {
    /// How to print it
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
    #[command(flatten)]
    endpoints: Endpoints,
}

#[derive(Args)]
pub struct Add {
    name: String,
    /// Its peer URLs, separated by commas
    #[arg(long, value_name = "URL,...", value_delimiter = ',', required = true)]
    peer_urls: Vec<String>,
    /// It learns, and does not vote before it is promoted
    #[arg(long)]
    learner: bool,
    #[command(flatten)]
    endpoints: Endpoints,
}

#[derive(Args)]
pub struct One {
    /// In hexadecimal, as `tenure member ls` shows it
    #[arg(value_parser = id)]
    id: u64,
    #[command(flatten)]
    endpoints: Endpoints,
}

fn id(text: &str) -> Result<u64, String> {
    u64::from_str_radix(text, 16).map_err(|_| "an id is a number in hexadecimal".into())
}

impl Member {
    pub async fn run(self) -> Result<(), Failure> {
        match self {
            Member::Ls(ls) => {
                let members = ls.endpoints.client()?.members().list().await?;
                let rows = members.iter().map(row).collect();
                let json = members.iter().map(member_json).collect();
                let head = &["ID", "NAME", "PEER-URLS", "CLIENT-URLS", "ROLE"];
                output::print_all(ls.output, head, rows, Value::Array(json))
            }
            Member::Add(add) => {
                let peer_urls = add.peer_urls.join(",");
                let (added, all) = add.endpoints.client()?.members().add(add.peer_urls, add.learner).await?;
                let urls = |member: &Known, name: &str| {
                    member.peer_urls.iter().map(|url| format!("{name}={url}")).collect::<Vec<_>>()
                };
                let cluster = all.iter().flat_map(|member| {
                    urls(member, if member.id == added { &add.name } else { &member.name })
                });
                let cluster = cluster.collect::<Vec<_>>().join(",");
                say(&format!(
                    "member {added:x} added; start it with the following, and with --listen-client-urls and \
                     --advertise-client-urls of its own\n  tenured --name {} --listen-peer-urls {peer_urls} \
                     --initial-advertise-peer-urls {peer_urls} --initial-cluster {cluster} \
                     --initial-cluster-state existing",
                    add.name
                ))
            }
            Member::Remove(one) => {
                one.endpoints.client()?.members().remove(one.id).await?;
                say("removed")
            }
            Member::Promote(one) => {
                one.endpoints.client()?.members().promote(one.id).await?;
                say("promoted")
            }
        }
    }
}

fn row(member: &Known) -> Vec<String> {
    let name = if member.name.is_empty() { "(not started)" } else { &member.name };
    let role = if member.is_learner { "learner" } else { "voter" };
    vec![
        format!("{:x}", member.id),
        name.to_owned(),
        member.peer_urls.join(","),
        member.client_urls.join(","),
        role.to_owned(),
    ]
}

fn member_json(member: &Known) -> Value {
    json!({
        "id": format!("{:x}", member.id),
        "name": member.name,
        "peerUrls": member.peer_urls,
        "clientUrls": member.client_urls,
        "learner": member.is_learner,
    })
}

#[derive(Subcommand)]
pub enum Endpoint {
    /// How each of the members named by --endpoints is; exits with 3 if one does not answer
    Status(Ls),
}

impl Endpoint {
    pub async fn run(self) -> Result<(), Failure> {
        let Endpoint::Status(ls) = self;
        let statuses = ls.endpoints.client()?.status().await;
        let (mut rows, mut json, mut silent) = (Vec::new(), Vec::new(), Vec::new());
        for member in &statuses {
            let Ok(status) = &member.status else {
                rows.push(vec![member.address.clone(), "does not answer".into()]);
                json.push(json!({ "endpoint": member.address, "answers": false }));
                silent.push(member.address.as_str());
                continue;
            };
            let own = status.header.as_ref().map_or(0, |header| header.member_id);
            let role = match (status.leader, status.is_learner) {
                (0, _) => "no leader",
                (leader, _) if leader == own => "leader",
                (_, true) => "learner",
                (_, false) => "follower",
            };
            let revision = status.header.as_ref().map_or(0, |header| header.revision);
            let size = u64::try_from(status.db_size).unwrap_or_default();
            rows.push(vec![
                member.address.clone(),
                format!("{own:x}"),
                role.into(),
                status.version.clone(),
                revision.to_string(),
                output::bytes(size),
                status.raft_term.to_string(),
                status.raft_applied_index.to_string(),
                status.errors.join("; "),
            ]);
            json.push(json!({
                "endpoint": member.address,
                "answers": true,
                "member": format!("{own:x}"),
                "role": role,
                "version": status.version,
                "revision": revision,
                "dbSize": size,
                "raftTerm": status.raft_term,
                "raftApplied": status.raft_applied_index,
                "errors": status.errors,
            }));
        }
        let head = &["ENDPOINT", "ID", "ROLE", "VERSION", "REVISION", "SIZE", "TERM", "APPLIED", "ERRORS"];
        output::print_all(ls.output, head, rows, Value::Array(json))?;
        match silent.is_empty() {
            true => Ok(()),
            false => Err(Failure::unreachable(format!("no answer from {}", silent.join(", ")))),
        }
    }
}
