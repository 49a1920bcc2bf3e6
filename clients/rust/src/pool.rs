//! The members to ask and a connection to each, made when it is first needed. All calls go to one of them, until it fails
//! somebody; clients begin at different ones, so that a cluster's members share the work.

use std::sync::atomic::{AtomicUsize, Ordering};

use tonic::transport::{Channel, Endpoint};

use crate::error::Error;
use crate::options::Options;

pub(crate) struct Pool {
    members: Vec<Member>,
    /// Counts on for ever; its remainder is the place among the members.
    current: AtomicUsize,
}

pub(crate) struct Member {
    pub address: String,
    pub channel: Channel,
}

/// Whom a call was sent to.
#[derive(Clone, Copy)]
pub(crate) struct Turn(usize);

impl Pool {
    pub fn new(addresses: &str, options: &Options) -> Result<Pool, Error> {
        let addresses = addresses.split(',').map(str::trim).filter(|address| !address.is_empty());
        let mut members = Vec::new();
        for address in addresses {
            let channel = endpoint(address, options)?.connect_lazy();
            members.push(Member { address: address.to_owned(), channel });
        }
        if members.is_empty() {
            return Err(Error::Setup(
                "no member is named; give host:port, several separated by commas".into(),
            ));
        }
        let current = AtomicUsize::new(rand::random_range(0..members.len()));
        Ok(Pool { members, current })
    }

    pub fn len(&self) -> usize {
        self.members.len()
    }

    pub fn members(&self) -> &[Member] {
        &self.members
    }

    pub fn current(&self) -> (Turn, &Member) {
        let turn = self.current.load(Ordering::Relaxed);
        (Turn(turn), &self.members[turn % self.members.len()])
    }

    /// That member failed: everybody goes on to the next, once for however many it failed.
    pub fn leave(&self, Turn(turn): Turn) {
        let next = turn.wrapping_add(1);
        let _ = self.current.compare_exchange(turn, next, Ordering::Relaxed, Ordering::Relaxed);
    }
}

/// An address as people write it: with its scheme or without.
fn endpoint(address: &str, options: &Options) -> Result<Endpoint, Error> {
    let url = match address.contains("://") {
        true => address.to_owned(),
        false if options.is_tls() => format!("https://{address}"),
        false => format!("http://{address}"),
    };
    if url.starts_with("https://") && !options.is_tls() {
        let text = format!("{address} is to be spoken to with TLS, which was not set up: see Options");
        return Err(Error::Setup(text));
    }
    let endpoint = Endpoint::from_shared(url)
        .map_err(|error| Error::Setup(format!("{address} is no address: {error}")))?;
    let endpoint = endpoint
        .connect_timeout(options.connect_timeout)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(options.ping_interval)
        .keep_alive_timeout(options.ping_timeout)
        .keep_alive_while_idle(true);
    options.secure(endpoint)
}
