//! Leases granted and revoked in turn by each caller; also how other workloads get leases.

use std::sync::{Arc, Mutex};

use clap::Args;
use tenure_proto::etcdserverpb::{LeaseGrantRequest, LeaseGrantResponse, LeaseRevokeRequest};

use crate::failure::Failure;
use crate::grpc::{Connection, Method, decode};
use crate::outcome::Outcome;
use crate::run::{Caller, Turn};
use crate::session::Session;
use crate::workload::{LEASE_GRANT, LEASE_REVOKE};

#[derive(Args, Clone, Debug)]
pub(crate) struct Lease {
    /// Time to live of the leases in seconds
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(i64).range(1..=1_000_000_000))]
    pub(crate) ttl: i64,
}

impl Default for Lease {
    fn default() -> Self {
        Self { ttl: 60 }
    }
}

impl Lease {
    pub(crate) async fn run(&self, session: &Session) -> Result<Outcome, Failure> {
        let connections = session.connect().await?;
        let callers = session.callers(&connections, |connection, _| Lessee {
            grant: connection.method(LEASE_GRANT),
            revoke: connection.method(LEASE_REVOKE),
            ttl: self.ttl,
            held: None,
        });
        let measured = session.drive("lease", callers).await?;
        Ok(Outcome::of_requests(session, "lease", measured))
    }
}

struct Lessee {
    grant: Method,
    revoke: Method,
    ttl: i64,
    held: Option<i64>,
}

impl Caller for Lessee {
    async fn step(&mut self, _: Turn) -> Result<&'static str, Failure> {
        match self.held.take() {
            Some(id) => {
                self.revoke.call(&LeaseRevokeRequest { id }).await?;
                Ok("revoke")
            }
            None => {
                self.held = Some(grant(&mut self.grant, self.ttl).await?.id);
                Ok("grant")
            }
        }
    }
}

/// One lease of `ttl` seconds, its id chosen by the server.
pub(crate) async fn grant(method: &mut Method, ttl: i64) -> Result<LeaseGrantResponse, Failure> {
    let granted: LeaseGrantResponse = decode(method.call(&LeaseGrantRequest { ttl, id: 0 }).await?)?;
    if granted.id == 0 || granted.ttl < ttl {
        return Err(Failure::wrong(format!("a lease of {ttl} s was granted as {granted:?}")));
    }
    Ok(granted)
}

/// `count` leases of `ttl` seconds, as fast as possible.
pub(crate) async fn grant_many(
    session: &Session,
    connections: &[Connection],
    count: usize,
    ttl: i64,
) -> Result<Vec<i64>, Failure> {
    let ids = Arc::new(Mutex::new(Vec::with_capacity(count)));
    let make =
        |connection: &Connection, _| Granter { grant: connection.method(LEASE_GRANT), ttl, ids: ids.clone() };
    session.prepare("granting", count as u64, connections, make).await?;
    Ok(std::mem::take(&mut *ids.lock().expect("nothing panics while adding an id")))
}

/// Revokes the leases, as fast as possible.
pub(crate) async fn revoke_many(
    session: &Session,
    connections: &[Connection],
    ids: Vec<i64>,
) -> Result<(), Failure> {
    let (count, ids) = (ids.len() as u64, Arc::new(ids));
    let make =
        |connection: &Connection, _| Revoker { revoke: connection.method(LEASE_REVOKE), ids: ids.clone() };
    session.prepare("revoking", count, connections, make).await.map(drop)
}

struct Granter {
    grant: Method,
    ttl: i64,
    ids: Arc<Mutex<Vec<i64>>>,
}

impl Caller for Granter {
    async fn step(&mut self, _: Turn) -> Result<&'static str, Failure> {
        let id = grant(&mut self.grant, self.ttl).await?.id;
        self.ids.lock().expect("nothing panics while adding an id").push(id);
        Ok("grant")
    }
}

struct Revoker {
    revoke: Method,
    ids: Arc<Vec<i64>>,
}

impl Caller for Revoker {
    async fn step(&mut self, turn: Turn) -> Result<&'static str, Failure> {
        self.revoke.call(&LeaseRevokeRequest { id: self.ids[turn.number as usize] }).await?;
        Ok("revoke")
    }
}
