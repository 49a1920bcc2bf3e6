//! What one workload is given: where the server is, how much load, which data, when to stop.

use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::SmallRng;

use crate::data::{Keys, Values};
use crate::failure::Failure;
use crate::grpc::{Connection, Endpoint};
use crate::progress::Progress;
use crate::run::{Caller, Limit, Measured, Run};
use crate::stop::Stop;

/// Setting up (filling keys, granting leases) must be done within this time.
const SETUP_LIMIT: Duration = Duration::from_secs(900);

/// Callers that set up: enough to keep any server busy.
const SETUP_CALLERS: usize = 64;

#[derive(Clone)]
pub(crate) struct Session {
    pub(crate) endpoints: Vec<Endpoint>,
    pub(crate) load: Load,
    pub(crate) keys: Keys,
    pub(crate) value_size: usize,
    /// Processes whose CPU time and memory are measured; may be empty.
    pub(crate) server_pids: Vec<u32>,
    pub(crate) progress: Progress,
    pub(crate) stop: Stop,
}

/// How hard to drive.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    pub(crate) clients: usize,
    pub(crate) connections: usize,
    pub(crate) limit: Limit,
    pub(crate) seed: u64,
}

/// Connections for so many callers unless told otherwise: as etcd's own benchmark is commonly run, and as many to each endpoint,
/// so that no member is given more callers than another.
pub(crate) fn connections_for(clients: usize, endpoints: usize) -> usize {
    (clients / 16).max(1).next_multiple_of(endpoints.max(1))
}

impl Session {
    /// Opens the connections, spread over the endpoints.
    pub(crate) async fn connect(&self) -> Result<Vec<Connection>, Failure> {
        let mut connections = Vec::with_capacity(self.load.connections);
        for endpoint in self.endpoints.iter().cycle().take(self.load.connections) {
            connections.push(Connection::open(endpoint).await?);
        }
        Ok(connections)
    }

    /// One caller per client, spread over `connections`; `make` gets the connection and the caller's number.
    pub(crate) fn callers<C>(
        &self,
        connections: &[Connection],
        make: impl Fn(&Connection, usize) -> C,
    ) -> Vec<C> {
        (0..self.load.clients).map(|n| make(&connections[n % connections.len()], n)).collect()
    }

    /// Runs the callers to the session's limit and measures.
    pub(crate) async fn drive<C: Caller>(
        &self,
        label: &'static str,
        callers: Vec<C>,
    ) -> Result<Measured, Failure> {
        let run = Run::begin(self, label, self.load.limit.clone());
        let tasks = run.spawn(callers);
        run.finish(tasks, async {}).await
    }

    /// Takes `total` turns of preparation as fast as possible; any failure is an error.
    pub(crate) async fn prepare<C: Caller>(
        &self,
        label: &'static str,
        total: u64,
        connections: &[Connection],
        make: impl Fn(&Connection, usize) -> C,
    ) -> Result<Measured, Failure> {
        let limit = Limit { total: Some(total), duration: SETUP_LIMIT, warmup: Duration::ZERO, rate: None };
        let callers = (0..SETUP_CALLERS).map(|n| make(&connections[n % connections.len()], n)).collect();
        let run = Run::begin(self, label, limit);
        let tasks = run.spawn(callers);
        let measured = run.finish(tasks, async {}).await?;
        match measured.counts.errors.main() {
            Some(failure) => Err(Failure::setup(format!("{label}: {failure}"))),
            None if measured.counts.all().len() < total => {
                Err(Failure::setup(format!("{label}: stopped early")))
            }
            None => Ok(measured),
        }
    }

    /// Chance for caller number `stream`: the same for the same seed.
    pub(crate) fn random(&self, stream: usize) -> SmallRng {
        SmallRng::seed_from_u64(
            self.load.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(stream as u64),
        )
    }

    pub(crate) fn values(&self) -> Values {
        Values::new(self.value_size, &mut self.random(usize::MAX))
    }
}
