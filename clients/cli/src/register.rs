//! The verb `register`: a command that others can find in the registry while it runs.

use std::ffi::OsString;
use std::time::Duration;

use clap::Args;
use tenure_client::Registered;

use crate::endpoints::Endpoints;
use crate::failure::Failure;
use crate::running::{Running, Stop, Work, warn};
use crate::{span, whoami};

const EXAMPLES: &str = "\
The command is registered once it is started, and deregistered once it has ended. If the registry cannot be reached meanwhile it
goes on, and is registered again. If another process takes its id it gets SIGTERM.

Exit codes: the command's own; 76 its id was taken; 77 no member answered.

Examples:
  tenure register web --port 8080 -- ./server --listen 8080
  tenure register web --id web-7 --host 10.0.0.7 --port 8080 --label canary=true --zone a -- ./server";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Register {
    service: String,
    /// Unique within the service [default: this host's name and the port]
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// Where it listens [default: this host's name]
    #[arg(long, value_name = "HOST")]
    host: Option<String>,
    #[arg(long, value_name = "PORT")]
    port: u16,
    #[arg(long, value_name = "KEY=VALUE", value_parser = label)]
    label: Vec<(String, String)>,
    #[arg(long, value_name = "ZONE", default_value = "", hide_default_value = true)]
    zone: String,
    /// Its share of the work relative to others
    #[arg(long, value_name = "N", default_value_t = 100)]
    weight: u16,
    /// After how long it counts as lost when it is not heard of
    #[arg(long, value_name = "SPAN", default_value = "15s", value_parser = span::parse)]
    ttl: Duration,
    /// Replace one of the same id that still counts as alive
    #[arg(long)]
    takeover: bool,
    #[command(flatten)]
    endpoints: Endpoints,
    /// What to run
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

impl Register {
    pub async fn run(self) -> Result<u8, Failure> {
        let client = self.endpoints.client()?;
        let host = self.host.clone().unwrap_or_else(whoami::host);
        let id = self.id.clone().unwrap_or_else(|| format!("{host}:{}", self.port));
        let mut instance = client.registry().instance(&self.service, &id).endpoint("", &host, self.port);
        instance = instance.zone(&self.zone).weight(self.weight).ttl(self.ttl);
        for (key, value) in &self.label {
            instance = instance.label(key, value);
        }
        if self.takeover {
            instance = instance.takeover();
        }
        let registered = instance.register().await.map_err(|error| Failure::from(error).before_command())?;
        warn(&format!("registered as {id} of {}", self.service));
        let environment = vec![
            ("TENURE_SERVICE", self.service.clone()),
            ("TENURE_INSTANCE", id),
            ("TENURE_ENDPOINTS", self.endpoints.list()),
        ];
        let ended = match Running::start(Work { command: self.command, environment }) {
            Ok(running) => running.end(replaced(&registered)).await,
            Err(failure) => Err(failure),
        };
        if let Err(error) = registered.deregister().await {
            warn(&format!("it counts as lost when its time is over; deregistering it failed: {error}"));
        }
        ended
    }
}

async fn replaced(registered: &Registered) -> Stop {
    registered.replaced().await;
    let why = "another process was registered under this id".to_owned();
    Stop::Lost { why, kill_after: Duration::from_secs(10) }
}
