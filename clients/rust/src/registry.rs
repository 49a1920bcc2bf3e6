//! The registry: to be found by others for as long as one lives, with one's latest data, and to find others (`resolver`).

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tenure_grpc::tenure_v1::registry_client::RegistryClient;
use tenure_proto::tenure::v1::heartbeat_result::Outcome as Beaten;
use tenure_proto::tenure::v1::register_response::Outcome as Registering;
use tenure_proto::tenure::v1::set_instance_request::Change;
use tenure_proto::tenure::v1::set_instance_response::Outcome as Set;
use tenure_proto::tenure::v1::{
    DeregisterRequest, Drain, Endpoint, Health, Heartbeat, HeartbeatRequest, HeartbeatResult,
    RegisterRequest, RegisterResponse, Registration, SetInstanceRequest,
};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tonic::transport::Channel;

use crate::backoff::Backoff;
use crate::client::{Client, Repeat};
use crate::clock::{Moment, sleep_until, unix_ms};
use crate::error::{Error, Fault};
use crate::resolver::Resolver;

/// The registry.
#[derive(Clone)]
pub struct Registry {
    client: Client,
}

impl Registry {
    pub(crate) fn new(client: Client) -> Registry {
        Registry { client }
    }

    /// An instance of a service, to be described and registered; `id` is unique within the service.
    pub fn instance(&self, service: impl Into<String>, id: impl Into<String>) -> Instance {
        let registration = Registration {
            service: service.into(),
            id: id.into(),
            incarnation: unix_ms().max(1),
            ..Registration::default()
        };
        Instance { client: self.client.clone(), registration, takeover: false }
    }

    /// The instances of a service that can be sent work, kept up to date from now on. Returns when it knows them.
    pub async fn resolve(&self, service: &str) -> Result<Resolver, Error> {
        Resolver::start(self.client.clone(), service).await
    }

    /// Takes an instance out: nothing new is sent to it, and it has so long to come to an end.
    pub async fn drain(&self, service: &str, id: &str, drain: Drain) -> Result<(), Error> {
        let request = SetInstanceRequest {
            service: service.to_owned(),
            id: id.to_owned(),
            change: Some(Change::Drain(drain)),
            ..SetInstanceRequest::default()
        };
        let ask = |channel, request| async move { registry(channel).set_instance(request).await };
        let reply = self.client.call(Repeat::Harmless, request, ask).await?;
        match reply.outcome() {
            Set::Set | Set::Unspecified => Ok(()),
            Set::NotRegistered => Err(Error::refused(format!("{service} has no instance {id}"))),
            Set::MinAvailable => Err(Error::refused(format!(
                "without {id} only {} instances of {service} could be sent work, which its policy forbids",
                reply.routable
            ))),
            Set::Changed => {
                Err(Error::refused(format!("{id} of {service} was changed meanwhile; look again")))
            }
        }
    }
}

/// An instance that is being described.
///
/// ```no_run
/// # use std::time::Duration;
/// # async fn serve() {}
/// # async fn example(client: tenure_client::Client) -> Result<(), tenure_client::Error> {
/// let registered = client
///     .registry()
///     .instance("web", "web-1")
///     .endpoint("http", "10.0.0.1", 8080)
///     .label("version", "1.2.3")
///     .register()
///     .await?;
/// serve().await;
/// registered.deregister().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use = "nobody knows of it before it is registered"]
pub struct Instance {
    client: Client,
    registration: Registration,
    takeover: bool,
}

impl Instance {
    /// Where it listens, and what for.
    pub fn endpoint(mut self, name: impl Into<String>, host: impl Into<String>, port: u16) -> Instance {
        let (name, host, port) = (name.into(), host.into(), u32::from(port));
        self.registration.endpoints.push(Endpoint { name, host, port, protocol: String::new() });
        self
    }

    pub fn label(mut self, key: impl Into<String>, value: impl Into<String>) -> Instance {
        self.registration.labels.insert(key.into(), value.into());
        self
    }

    pub fn zone(mut self, zone: impl Into<String>) -> Instance {
        self.registration.zone = zone.into();
        self
    }

    pub fn version(mut self, version: impl Into<String>) -> Instance {
        self.registration.version = version.into();
        self
    }

    /// Its share of the work relative to others, 100 unless it is said.
    pub fn weight(mut self, weight: u16) -> Instance {
        self.registration.weight = Some(u32::from(weight));
        self
    }

    /// How long it counts as alive after it was heard of last. Whole seconds; as the service's policy has it, unless it is said.
    pub fn ttl(mut self, ttl: Duration) -> Instance {
        self.registration.ttl_s = i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX).max(1);
        self
    }

    /// Replace one of the same id that still counts as alive: this is its restart.
    pub fn takeover(mut self) -> Instance {
        self.takeover = true;
        self
    }

    pub async fn register(self) -> Result<Registered, Error> {
        let (service, id) = (self.registration.service.clone(), self.registration.id.clone());
        let desired =
            Desired { registration: self.registration, health: Health::Passing, note: String::new() };
        let sent = Moment::now();
        let reply = register(&self.client, &desired, self.takeover).await?;
        let ttl = match reply.outcome() {
            Registering::Registered => seconds(reply.ttl_s),
            Registering::AlreadyRegistered => {
                let text =
                    "is registered by another process that is alive; if this is its restart, take over";
                return Err(Error::refused(format!("{id} of {service} {text}")));
            }
            Registering::Superseded | Registering::Deregistered | Registering::Unspecified => {
                let text = "was registered or deregistered later than this process says it started; look at its clock";
                return Err(Error::refused(format!("{id} of {service} {text}")));
            }
        };
        let shared = Arc::new(Shared {
            desired: Mutex::new(desired),
            changed: Notify::new(),
            replaced: watch::Sender::new(false),
        });
        let beating = tokio::spawn(beat(self.client.clone(), shared.clone(), ttl, sent));
        Ok(Registered { client: self.client, shared, beating })
    }
}

/// An instance that others can find, for as long as this lives; dropped without a word, it counts as lost after its TTL.
pub struct Registered {
    client: Client,
    shared: Arc<Shared>,
    beating: JoinHandle<()>,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.beating.abort();
    }
}

struct Shared {
    desired: Mutex<Desired>,
    /// It is to be told before the next beat is due.
    changed: Notify,
    /// Another process has the id.
    replaced: watch::Sender<bool>,
}

/// What shall be known of it.
#[derive(Clone)]
struct Desired {
    registration: Registration,
    health: Health,
    note: String,
}

impl Registered {
    /// How it is; told at once, and again whenever the registry forgot it.
    pub fn set_health(&self, health: Health, note: impl Into<String>) {
        let mut desired = self.shared.desired.lock();
        desired.health = health;
        desired.note = note.into();
        self.shared.changed.notify_one();
    }

    /// Changes what it said of itself, in one step for those who look. Service, id and incarnation stay.
    pub async fn update(&self, change: impl FnOnce(&mut Registration)) -> Result<(), Error> {
        let desired = {
            let mut desired = self.shared.desired.lock();
            let before = desired.registration.clone();
            change(&mut desired.registration);
            desired.registration.service = before.service;
            desired.registration.id = before.id;
            desired.registration.incarnation = before.incarnation;
            desired.registration.sequence = before.sequence + 1;
            desired.clone()
        };
        register(&self.client, &desired, false).await.map(|_| ())
    }

    /// Nothing new is sent to it from now on; then do what is left, and deregister.
    pub async fn drain(&self, deadline: Duration) -> Result<(), Error> {
        let (service, id) = self.shared.desired.lock().identity();
        let deadline_s = i64::try_from(deadline.as_secs()).unwrap_or(i64::MAX).max(1);
        let drain = Drain { deadline_s, ..Drain::default() };
        Registry::new(self.client.clone()).drain(&service, &id, drain).await
    }

    /// Returns when another process has taken its id, after which nothing is told of this one.
    pub async fn replaced(&self) {
        let mut replaced = self.shared.replaced.subscribe();
        // The sender lives as long as this does.
        let _ = replaced.wait_for(|replaced| *replaced).await;
    }

    /// Removes it at once.
    pub async fn deregister(self) -> Result<(), Error> {
        self.beating.abort();
        let (service, id) = self.shared.desired.lock().identity();
        let incarnation = self.shared.desired.lock().registration.incarnation;
        let ask = |channel, request| async move { registry(channel).deregister(request).await };
        let request = DeregisterRequest { service, id, incarnation };
        self.client.call(Repeat::Harmless, request, ask).await.map(|_| ())
    }
}

impl Desired {
    fn identity(&self) -> (String, String) {
        (self.registration.service.clone(), self.registration.id.clone())
    }

    fn heartbeat(&self) -> HeartbeatRequest {
        let (service, id) = self.identity();
        let incarnation = self.registration.incarnation;
        let (health, note) = (self.health.into(), self.note.clone());
        HeartbeatRequest { heartbeats: vec![Heartbeat { service, id, incarnation, health, note }] }
    }
}

async fn register(client: &Client, desired: &Desired, takeover: bool) -> Result<RegisterResponse, Error> {
    let request = RegisterRequest {
        registration: Some(desired.registration.clone()),
        health: desired.health.into(),
        note: desired.note.clone(),
        takeover,
    };
    let ask = |channel, request| async move { registry(channel).register(request).await };
    client.call(Repeat::Harmless, request, ask).await
}

/// Says every third of the TTL that it lives, and registers it again, with its latest data, where it was forgotten.
async fn beat(client: Client, shared: Arc<Shared>, mut ttl: Duration, mut sent: Moment) {
    let mut backoff = Backoff::default();
    loop {
        let due = sent.after((ttl / 3).mul_f64(rand::random_range(0.9..1.1)));
        tokio::select! {
            () = sleep_until(due) => {}
            () = shared.changed.notified() => {}
        }
        let desired = shared.desired.lock().clone();
        let now = Moment::now();
        let heartbeat = desired.heartbeat();
        let answer =
            client.once(ttl / 6, |channel| async move { registry(channel).beat(heartbeat).await }).await;
        let told = match answer {
            Ok((_, reply)) => reply.results.into_iter().next().unwrap_or_default(),
            Err(Fault::NotDone(_) | Fault::Lost(_) | Fault::Answered(_)) => {
                tokio::time::sleep(backoff.pause().min(ttl / 6)).await;
                continue;
            }
        };
        backoff = Backoff::default();
        match told.outcome() {
            Beaten::Alive => (ttl, sent) = (time_of(&told, ttl), now),
            Beaten::NotRegistered | Beaten::Unspecified => {
                let reply = register(&client, &desired, false).await;
                match reply.as_ref().map(RegisterResponse::outcome) {
                    Ok(Registering::Registered) => sent = now,
                    // What is registered instead is later than this, or alive.
                    Ok(_) => return shared.replace(),
                    Err(_) => tokio::time::sleep(backoff.pause()).await,
                }
            }
            Beaten::Superseded => return shared.replace(),
        }
    }
}

impl Shared {
    fn replace(&self) {
        self.replaced.send_replace(true);
    }
}

/// With a session of its own the instance has no TTL; it is still told of now and then.
fn time_of(told: &HeartbeatResult, before: Duration) -> Duration {
    if told.ttl_s > 0 { seconds(told.ttl_s) } else { before }
}

fn seconds(count: i64) -> Duration {
    Duration::from_secs(u64::try_from(count).unwrap_or_default().max(1))
}

pub(crate) fn registry(channel: Channel) -> RegistryClient<Channel> {
    RegistryClient::new(channel).max_decoding_message_size(usize::MAX)
}
