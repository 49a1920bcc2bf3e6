//! The verb `project`: by which keys the readers of other systems find a service's instances. It changes this part of the service's policy
//! and leaves the rest as it is.

use std::time::Duration;

use clap::Args;
use tenure_client::Client;
use tenure_client::proto::tenure::v1::projection::{Into, Naming, SkyDns};
use tenure_client::proto::tenure::v1::set_service_policy_response::Outcome;
use tenure_client::proto::tenure::v1::{ListServicesRequest, Projection, Service, SetServicePolicyRequest};

use crate::endpoints::Endpoints;
use crate::failure::Failure;
use crate::output::say;
use crate::span;

const EXAMPLES: &str = "\
Each instance that is to be sent traffic has one key for each projection, which comes, changes and goes with it in one revision. What is
named takes the place of all that was; with nothing named, what there is is shown.

Examples:
  tenure project web --grpc services/web --dns web.services.local
  tenure project web
  tenure project web --none";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Project {
    service: String,
    /// For gRPC clients with etcd's resolver: they dial etcd:///TARGET
    #[arg(long, value_name = "TARGET")]
    grpc: Vec<String>,
    /// For CoreDNS with its plugin etcd: the name of the service, those of its instances lie below
    #[arg(long, value_name = "DOMAIN")]
    dns: Vec<String>,
    /// How long an answer of CoreDNS may be kept
    #[arg(long, value_name = "SPAN", default_value = "30s", value_parser = span::parse, requires = "dns")]
    dns_ttl: Duration,
    /// The path in CoreDNS' configuration
    #[arg(long, value_name = "PATH", default_value = "/skydns", requires = "dns")]
    dns_path: String,
    /// Which of an instance's endpoints is shown [default: its first]
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    endpoint: String,
    /// Show it to nobody any more
    #[arg(long, conflicts_with_all = ["grpc", "dns"])]
    none: bool,
    #[command(flatten)]
    endpoints: Endpoints,
}

impl Project {
    pub async fn run(self) -> Result<(), Failure> {
        let client = self.endpoints.client()?;
        let there = service(&client, &self.service).await?;
        let wanted = self.projections();
        if wanted.is_empty() && !self.none {
            let policy = there.and_then(|service| service.policy).unwrap_or_default();
            return say(&text(&policy.projections));
        }
        let (mut policy, if_revision) = match there {
            Some(service) => (service.policy.unwrap_or_default(), service.policy_revision),
            None => Default::default(),
        };
        policy.projections = wanted;
        let (service, shown) = (self.service, text(&policy.projections));
        let request = SetServicePolicyRequest { service: service.clone(), policy: Some(policy), if_revision };
        match client.operate().set_service_policy(request).await?.outcome() {
            Outcome::Changed => {
                Err(Failure::failed(format!("the policy of {service} was changed meanwhile; try again")))
            }
            Outcome::Set | Outcome::Unspecified => say(&shown),
        }
    }

    fn projections(&self) -> Vec<Projection> {
        let ttl_s = i64::try_from(self.dns_ttl.as_secs()).unwrap_or(i64::MAX).max(1);
        let naming = self.grpc.iter().map(|target| Into::Naming(Naming { target: target.clone() }));
        let skydns = self.dns.iter().map(|domain| {
            Into::Skydns(SkyDns { domain: domain.clone(), path: self.dns_path.clone(), ttl_s })
        });
        let into = naming.chain(skydns);
        into.map(|into| Projection { into: Some(into), endpoint: self.endpoint.clone() }).collect()
    }
}

/// None: nobody has registered, and there is no policy.
async fn service(client: &Client, name: &str) -> Result<Option<Service>, Failure> {
    // In order of their names the very one comes first.
    let request = ListServicesRequest { prefix: name.to_owned(), limit: 1, ..ListServicesRequest::default() };
    let found = client.operate().list_services(request).await?.services;
    Ok(found.into_iter().find(|service| service.name == name))
}

fn text(projections: &[Projection]) -> String {
    if projections.is_empty() {
        return "no other readers".to_owned();
    }
    let lines = projections.iter().map(|projection| {
        let endpoint = match projection.endpoint.as_str() {
            "" => String::new(),
            name => format!("  endpoint {name}"),
        };
        match &projection.into {
            Some(Into::Naming(Naming { target })) => format!("grpc  etcd:///{target}{endpoint}"),
            Some(Into::Skydns(SkyDns { domain, path, ttl_s })) => {
                format!("dns   {domain}  path {path}  ttl {ttl_s}s{endpoint}")
            }
            None => "of a kind that this version does not know".to_owned(),
        }
    });
    lines.collect::<Vec<_>>().join("\n")
}
