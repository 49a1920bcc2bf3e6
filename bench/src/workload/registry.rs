//! Registered instances that send heartbeats, many a message, as often as they must or as fast as they are answered: what a heartbeat costs,
//! and how many log entries all of them make, which in the steady state should be about none.

use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tenure_proto::tenure::v1::{
    DeregisterRequest, Heartbeat, HeartbeatRequest, HeartbeatResponse, RegisterRequest, RegisterResponse,
    Registration, heartbeat_result, register_response,
};

use crate::failure::Failure;
use crate::grpc::{Connection, Incoming, Method, Outgoing, decode};
use crate::outcome::{Metric, Outcome};
use crate::run::{Caller, Limit, Run, Turn};
use crate::session::Session;
use crate::status;

const REGISTER: &str = "/tenure.v1.Registry/Register";
const HEARTBEAT: &str = "/tenure.v1.Registry/Heartbeat";
const DEREGISTER: &str = "/tenure.v1.Registry/Deregister";

#[derive(Args, Clone, Debug)]
pub(crate) struct Registry {
    /// Instances registered
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) instances: u32,

    /// Services they are spread over
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) services: u32,

    /// Heartbeats in one message
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) per_message: u32,

    /// Time to live of the instances in seconds
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(i64).range(2..=86_400))]
    pub(crate) ttl: i64,

    /// Send without pause; otherwise each instance is heard of every third of its time to live (--rate: messages a second)
    #[arg(long)]
    pub(crate) flat_out: bool,
}

impl Default for Registry {
    fn default() -> Self {
        Self { instances: 10_000, services: 100, per_message: 500, ttl: 15, flat_out: false }
    }
}

impl Registry {
    pub(crate) async fn run(&self, session: &Session) -> Result<Outcome, Failure> {
        let connections = session.connect().await?;
        let all: Arc<[Heartbeat]> = (0..self.instances).map(|number| self.heartbeat(number)).collect();
        let registering = |connection: &Connection, _| Registrar {
            register: connection.method(REGISTER),
            all: all.clone(),
            ttl: self.ttl,
        };
        session.prepare("registering", all.len() as u64, &connections, registering).await?;
        let messages: Arc<[HeartbeatRequest]> = all
            .chunks(self.per_message as usize)
            .map(|some| HeartbeatRequest { heartbeats: some.to_vec() })
            .collect();
        // Whoever was registered long ago is heard of again, before anything is measured.
        let unmeasured = Limit {
            total: Some(messages.len() as u64),
            duration: Duration::from_secs(600),
            warmup: Duration::ZERO,
            rate: None,
        };
        self.send(session, &connections, &messages, "settling", unmeasured).await?;

        let every = self.ttl as f64 / 3.0;
        let pace = (!self.flat_out).then_some(messages.len() as f64 / every);
        let limit = Limit { rate: session.load.limit.rate.or(pace), ..session.load.limit.clone() };
        let before = status::log_end(&session.endpoints).await?.0;
        let mut outcome = self.send(session, &connections, &messages, "registry", limit).await?;
        let after = status::log_end(&session.endpoints).await?.0;

        let seconds = outcome.span.elapsed.as_secs_f64().max(1e-9);
        let beats = outcome.operations * u64::from(self.instances) / messages.len() as u64;
        outcome.operations = beats;
        outcome.unit = "heartbeats";
        outcome.facts = vec![
            Metric::neither("instances", "", f64::from(self.instances)),
            Metric::lower("log entries", "/s", (after - before) as f64 / seconds),
        ];
        if let Some(server) = outcome.span.server {
            let share = server.cpu.as_secs_f64() / seconds * 100.0;
            outcome.facts.push(Metric::lower("CPU", "% of a core", share));
        }
        let leaving = |connection: &Connection, _| Leaver {
            deregister: connection.method(DEREGISTER),
            all: all.clone(),
        };
        session.prepare("deregistering", all.len() as u64, &connections, leaving).await?;
        Ok(outcome)
    }

    fn heartbeat(&self, number: u32) -> Heartbeat {
        Heartbeat {
            service: format!("bench-{}", number % self.services),
            id: format!("10.{}.{}.{}:8080", number >> 16, number >> 8 & 0xff, number & 0xff),
            incarnation: 1,
            ..Heartbeat::default()
        }
    }

    async fn send(
        &self,
        session: &Session,
        connections: &[Connection],
        messages: &Arc<[HeartbeatRequest]>,
        label: &'static str,
        limit: Limit,
    ) -> Result<Outcome, Failure> {
        let mut callers = Vec::new();
        for n in 0..session.load.clients.min(messages.len()) {
            let (out, incoming) = connections[n % connections.len()].method(HEARTBEAT).open().await?;
            callers.push(Beater { out, incoming, messages: messages.clone() });
        }
        let run = Run::begin(session, label, limit);
        let measured = run.finish(run.spawn(callers), async {}).await?;
        Ok(Outcome::of_requests(session, label, measured))
    }
}

struct Registrar {
    register: Method,
    all: Arc<[Heartbeat]>,
    ttl: i64,
}

impl Caller for Registrar {
    async fn step(&mut self, turn: Turn) -> Result<&'static str, Failure> {
        let beat = &self.all[turn.number as usize];
        let registration = Registration {
            service: beat.service.clone(),
            id: beat.id.clone(),
            incarnation: beat.incarnation,
            version: "1.0.0".to_owned(),
            zone: "a".to_owned(),
            ttl_s: self.ttl,
            ..Registration::default()
        };
        // An earlier run may have left it.
        let request =
            RegisterRequest { registration: Some(registration), takeover: true, ..Default::default() };
        let answer: RegisterResponse = decode(self.register.call(&request).await?)?;
        match answer.outcome() {
            register_response::Outcome::Registered => Ok("register"),
            other => Err(Failure::wrong(format!("{} was not registered: {other:?}", beat.id))),
        }
    }
}

struct Beater {
    out: Outgoing,
    incoming: Incoming,
    messages: Arc<[HeartbeatRequest]>,
}

impl Caller for Beater {
    async fn step(&mut self, turn: Turn) -> Result<&'static str, Failure> {
        let message = &self.messages[turn.number as usize % self.messages.len()];
        self.out.send(message)?;
        let ended = || Failure::disconnected("the server ended the stream of heartbeats");
        let answer: HeartbeatResponse = decode(self.incoming.next().await?.ok_or_else(ended)?)?;
        let alive = |result: &tenure_proto::tenure::v1::HeartbeatResult| {
            result.outcome() == heartbeat_result::Outcome::Alive
        };
        if answer.results.len() != message.heartbeats.len() || !answer.results.iter().all(alive) {
            return Err(Failure::wrong("an instance is not known any more, or was not answered for"));
        }
        Ok("message")
    }
}

struct Leaver {
    deregister: Method,
    all: Arc<[Heartbeat]>,
}

impl Caller for Leaver {
    async fn step(&mut self, turn: Turn) -> Result<&'static str, Failure> {
        let beat = &self.all[turn.number as usize];
        let request =
            DeregisterRequest { service: beat.service.clone(), id: beat.id.clone(), incarnation: 0 };
        self.deregister.call(&request).await?;
        Ok("deregister")
    }
}
