//! Which members to ask, and the connection to the first of them that answers.

use std::time::Duration;

use clap::Args;
use tenure_client::{Client, Options};
use tonic::transport::{Channel, Endpoint};

use crate::failure::Failure;

/// The members to ask.
#[derive(Args)]
pub struct Endpoints {
    /// Members' client addresses, separated by commas; the first that answers is asked
    #[arg(
        long,
        value_name = "HOST:PORT,...",
        env = "TENURE_ENDPOINTS",
        value_delimiter = ',',
        default_value = "127.0.0.1:2379"
    )]
    endpoints: Vec<String>,
    /// How long each may take to accept a connection, seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 3)]
    dial_timeout: u64,
}

impl Endpoints {
    /// All of them, for calls that go to whichever answers.
    pub fn client(&self) -> Result<Client, Failure> {
        let options =
            Options { connect_timeout: Duration::from_secs(self.dial_timeout.max(1)), ..Options::default() };
        Ok(Client::with_options(&self.list(), options)?)
    }

    /// As another process is told of them.
    pub fn list(&self) -> String {
        self.endpoints.join(",")
    }

    /// The first member that accepts a connection, with its address.
    pub async fn connect(&self) -> Result<(String, Channel), Failure> {
        let mut complaints = Vec::new();
        for address in
            self.endpoints.iter().map(|address| address.trim()).filter(|address| !address.is_empty())
        {
            let bound = Duration::from_secs(self.dial_timeout);
            match endpoint(address)?.connect_timeout(bound).connect().await {
                Ok(channel) => return Ok((address.to_owned(), channel)),
                Err(error) => complaints.push(format!("{address} ({})", root_cause(&error))),
            }
        }
        match complaints.is_empty() {
            true => Err(Failure::failed("--endpoints names nobody; give host:port")),
            false => Err(Failure::unreachable(format!(
                "no member answered: {}; are they running, and are these their client addresses?",
                complaints.join(", ")
            ))),
        }
    }
}

/// An address as people write it: with its scheme or without.
pub fn endpoint(address: &str) -> Result<Endpoint, Failure> {
    if address.starts_with("https://") {
        return Err(Failure::failed(format!("{address}: TLS is not there yet; give http://host:port")));
    }
    let url = if address.starts_with("http://") { address.to_owned() } else { format!("http://{address}") };
    Endpoint::from_shared(url).map_err(|error| Failure::failed(format!("{address} is no address: {error}")))
}

/// What the library says of itself helps nobody; what the system said does.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}
