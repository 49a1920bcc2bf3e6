//! The workloads, one file each: their flags, their callers, and what they count.
//!
//! | workload | one operation | what else is checked |
//! |---|---|---|
//! | put | a put of a random or the next key | |
//! | range | a read of one or several keys | that all of them are there |
//! | txn | a compare-and-swap | how many were swapped |
//! | lease | a grant or its revoke | |
//! | keepalive | a renewal on a stream | that no lease is gone |
//! | watch | an event delivered to a watcher | that none is lost, doubled or out of order |
//! | expiry | a key gone with its lease | that none goes early, how late the last goes |
//! | mass-expiry | a put or get of others while very many leases expire | as expiry; how many entries it takes |
//! | registry | a heartbeat of an instance | that all are known; how many log entries it takes |
//! | lock | a lock taken and given back | that no two hold it at once |
//! | idle | a lease or watcher held open | memory for each |
//! | load | a key written | |
//!
//! They see the server through gRPC only, and say nothing of how results are shown.

pub(crate) mod expiry;
pub(crate) mod idle;
pub(crate) mod keepalive;
pub(crate) mod lease;
pub(crate) mod load;
pub(crate) mod lock;
pub(crate) mod mass_expiry;
pub(crate) mod put;
pub(crate) mod range;
pub(crate) mod registry;
pub(crate) mod txn;
pub(crate) mod watch;

use crate::failure::Failure;
use crate::outcome::Outcome;
use crate::session::Session;

pub(crate) const PUT: &str = "/etcdserverpb.KV/Put";
pub(crate) const RANGE: &str = "/etcdserverpb.KV/Range";
pub(crate) const TXN: &str = "/etcdserverpb.KV/Txn";
pub(crate) const LEASE_GRANT: &str = "/etcdserverpb.Lease/LeaseGrant";
pub(crate) const LEASE_REVOKE: &str = "/etcdserverpb.Lease/LeaseRevoke";
pub(crate) const LEASE_KEEP_ALIVE: &str = "/etcdserverpb.Lease/LeaseKeepAlive";
pub(crate) const LEASE_TIME_TO_LIVE: &str = "/etcdserverpb.Lease/LeaseTimeToLive";
pub(crate) const WATCH: &str = "/etcdserverpb.Watch/Watch";

/// A workload with its flags.
#[derive(Clone, Debug)]
pub(crate) enum Workload {
    Put(put::Put),
    Range(range::Range),
    Txn(txn::Txn),
    Lease(lease::Lease),
    Keepalive(keepalive::Keepalive),
    Watch(watch::Watch),
    Expiry(expiry::Expiry),
    MassExpiry(mass_expiry::MassExpiry),
    Registry(registry::Registry),
    Lock(lock::Lock),
    Idle(idle::Idle),
    Load(load::Load),
}

impl Workload {
    /// Runs to the session's limit, or until it is stopped; errors mean that it could not be run at all.
    pub(crate) async fn run(&self, session: &Session) -> Result<Outcome, Failure> {
        match self {
            Self::Put(put) => put.run(session).await,
            Self::Range(range) => range.run(session).await,
            Self::Txn(txn) => txn.run(session).await,
            Self::Lease(lease) => lease.run(session).await,
            Self::Keepalive(keepalive) => keepalive.run(session).await,
            Self::Watch(watch) => watch.run(session).await,
            Self::Expiry(expiry) => expiry.run(session).await,
            Self::MassExpiry(mass) => mass.run(session).await,
            Self::Registry(registry) => registry.run(session).await,
            Self::Lock(lock) => lock.run(session).await,
            Self::Idle(idle) => idle.run(session).await,
            Self::Load(load) => load.run(session).await,
        }
    }
}
