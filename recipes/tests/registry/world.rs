//! A registry on a server in memory, with a steward that helps, consumers that follow, and a clock turned by hand.

// Each test program uses its part of this.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use tenure_proto::mvccpb::event::EventType;
use tenure_proto::tenure::v1::watch_instances_response::removal;
use tenure_proto::tenure::v1::{
    Endpoint, Health, Heartbeat, HeartbeatResult, Instance, LookupRequest, Projection, RegisterRequest,
    RegisterResponse, Registration, ServicePolicy, ServiceRange, SetInstanceRequest, SetInstanceResponse,
    SetServicePolicyRequest, WatchInstancesRequest, heartbeat_result, projection, register_response,
    service_range, set_instance_request,
};
use tenure_recipes::registry::{Deed, Registry, Supply, Told, concerned};
use tenure_recipes::{Changes, Failure, Primitives, Root};

use super::support::{Store, Tasks, run};

pub const SERVICE: &str = "web";

pub struct World {
    pub store: Store,
    pub registry: Registry<Store>,
    pub tasks: Tasks,
    /// What the members' calendars say, milliseconds.
    pub calendar: Arc<AtomicI64>,
}

impl World {
    pub fn new() -> World {
        let (store, calendar) = (Store::default(), Arc::new(AtomicI64::new(1_000_000)));
        let registry = Registry::new(store.clone(), Root::server(), supply(&calendar));
        World { store, registry, tasks: Tasks::default(), calendar }
    }

    /// With somebody who helps whenever there is a reason to.
    pub fn with_steward() -> World {
        let mut world = World::new();
        world.tasks.start(steward(world.store.clone(), world.registry.clone()));
        world.tasks.settle();
        world
    }

    pub fn with_policy(policy: ServicePolicy) -> World {
        let world = World::with_steward();
        world.set_policy(policy);
        world
    }

    pub fn set_policy(&self, policy: ServicePolicy) {
        let registry = self.registry.clone();
        let request =
            SetServicePolicyRequest { service: SERVICE.into(), policy: Some(policy), if_revision: 0 };
        run(async move { registry.set_policy(request).await.unwrap() });
    }

    /// Time passes in steps of half a second; whoever has something to do does it at each.
    pub fn pass(&mut self, seconds: u64) {
        for _ in 0..2 * seconds {
            self.step(500);
        }
    }

    pub fn step(&mut self, ms: u64) {
        self.store.advance(ms);
        self.calendar.fetch_add(ms as i64, Ordering::Relaxed);
        self.tasks.settle();
    }

    pub fn register(&mut self, registration: Registration) -> RegisterResponse {
        let request = RegisterRequest { registration: Some(registration), ..Default::default() };
        self.register_as(request)
    }

    pub fn register_as(&mut self, request: RegisterRequest) -> RegisterResponse {
        let registry = self.registry.clone();
        let reply = run(async move { registry.register(request).await.unwrap() });
        self.tasks.settle();
        reply
    }

    /// `count` instances named 0, 1, ...; each must be taken.
    pub fn populate(&mut self, count: usize) {
        for number in 0..count {
            let reply = self.register(instance(&number.to_string(), 1));
            assert_eq!(reply.outcome(), register_response::Outcome::Registered);
        }
    }

    pub fn beat(&mut self, ids: impl IntoIterator<Item = String>, health: Health) -> Vec<HeartbeatResult> {
        let beats: Vec<Heartbeat> = ids.into_iter().map(|id| beat(&id, 1, health)).collect();
        let registry = self.registry.clone();
        let results = run(async move { registry.heartbeat(&beats).await.unwrap() });
        self.tasks.settle();
        results
    }

    /// Those beat every third of the TTL while time passes.
    pub fn live(&mut self, ids: std::ops::Range<usize>, seconds: u64) {
        for second in 0..seconds {
            if second % 5 == 0 {
                let results = self.beat(ids.clone().map(|id| id.to_string()), Health::Unspecified);
                let alive = heartbeat_result::Outcome::Alive;
                assert!(results.iter().all(|result| result.outcome() == alive), "{results:?}");
            }
            self.pass(1);
        }
    }

    pub fn set(
        &mut self,
        id: &str,
        change: set_instance_request::Change,
        force: bool,
    ) -> SetInstanceResponse {
        let request = SetInstanceRequest {
            service: SERVICE.into(),
            id: id.into(),
            change: Some(change),
            force,
            if_revision: 0,
        };
        let registry = self.registry.clone();
        let reply = run(async move { registry.set_instance(request).await.unwrap() });
        self.tasks.settle();
        reply
    }

    pub fn lookup(&self) -> BTreeMap<String, Instance> {
        let registry = self.registry.clone();
        let reply = run(async move { registry.lookup(LookupRequest::default()).await.unwrap() });
        reply.instances.into_iter().map(|instance| (id_of(&instance), instance)).collect()
    }

    pub fn routable(&self) -> usize {
        self.lookup().values().filter(|instance| instance.routable).count()
    }

    pub fn healths(&self) -> BTreeMap<String, (Health, bool)> {
        self.lookup().into_iter().map(|(id, one)| (id, (one.health(), one.stale))).collect()
    }

    /// Somebody who follows the service from now on.
    pub fn consumer(&mut self) -> Consumer {
        let seen = Consumer::default();
        self.tasks.start(follow(self.registry.clone(), seen.clone(), 0));
        self.tasks.settle();
        seen
    }
}

/// What a consumer holds and was told.
#[derive(Clone, Default)]
pub struct Consumer(Arc<Mutex<Seen>>);

#[derive(Clone, Default)]
pub struct Seen {
    pub instances: BTreeMap<String, Instance>,
    /// Being gathered; takes the place of `instances` when it is whole.
    coming: Option<BTreeMap<String, Instance>>,
    pub revision: i64,
    pub snapshots: usize,
    pub resets: usize,
    pub deltas: usize,
    pub removals: Vec<(String, removal::Reason)>,
    /// The fewest that were ever routable since the first were.
    pub fewest_routable: Option<usize>,
}

impl Consumer {
    pub fn seen(&self) -> Seen {
        self.0.lock().unwrap().clone()
    }

    fn take(&self, told: Told) {
        let mut seen = self.0.lock().unwrap();
        match told {
            Told::Part(part) => {
                let coming = seen.coming.get_or_insert_default();
                coming.extend(part.into_iter().map(|instance| (id_of(&instance), instance)));
            }
            Told::End(revision) => {
                assert!(revision >= seen.revision);
                seen.instances = seen.coming.take().unwrap_or_default();
                seen.revision = revision;
                seen.snapshots += 1;
            }
            Told::Resumed(revision) => assert_eq!(revision, seen.revision),
            Told::Delta(delta) => {
                assert!(delta.revision > seen.revision, "a delta came late or twice");
                seen.revision = delta.revision;
                seen.deltas += 1;
                let delta = delta.into_response();
                for instance in delta.upserts {
                    seen.instances.insert(id_of(&instance), instance);
                }
                for removal in delta.removals {
                    assert!(seen.instances.remove(&removal.id).is_some(), "{removal:?} was not there");
                    let reason = removal.reason();
                    seen.removals.push((removal.id, reason));
                }
            }
            Told::Reset(_) => {
                seen.coming = None;
                seen.resets += 1;
            }
        }
        let routable = seen.instances.values().filter(|instance| instance.routable).count();
        seen.fewest_routable = match seen.fewest_routable {
            None if routable == 0 => None,
            None => Some(routable),
            Some(fewest) => Some(fewest.min(routable)),
        };
    }
}

pub async fn follow<P: Primitives>(
    registry: Registry<P>,
    consumer: Consumer,
    after_revision: i64,
) -> Failure {
    let services = ServiceRange { which: Some(service_range::Which::Service(SERVICE.into())) };
    let request = WatchInstancesRequest { services: Some(services), after_revision, ..Default::default() };
    let mut follow = registry.follow(request).unwrap();
    loop {
        match follow.next().await {
            Ok(told) => consumer.take(told),
            Err(failure) => return failure,
        }
    }
}

/// Helps wherever a change gives reason to, as a leading member does.
pub async fn steward<P: Primitives>(store: P, registry: Registry<P>) -> Failure {
    let root = Root::server();
    let (from, to) = root.below(&[]);
    let mut changes = store.watch(from, to, 1).await.unwrap();
    loop {
        let change = match changes.next().await {
            Ok(change) => change,
            Err(failure) => return failure,
        };
        let events = change.events.iter().filter_map(|event| {
            let deed = if event.r#type() == EventType::Put { Deed::Put } else { Deed::Deleted };
            Some((&event.kv.as_ref()?.key[..], deed))
        });
        for (service, looks) in concerned(&root, events) {
            for look in looks {
                // What could not be done is done at the next reason.
                let _ = registry.help_with(&service, look).await;
            }
        }
    }
}

pub fn supply(calendar: &Arc<AtomicI64>) -> Supply {
    let (leases, calendar) = (AtomicI64::new(1_000), calendar.clone());
    Supply {
        lease: Arc::new(move || leases.fetch_add(1, Ordering::Relaxed)),
        unix_ms: Arc::new(move || calendar.load(Ordering::Relaxed)),
    }
}

pub fn into_naming(target: &str, endpoint: &str) -> Projection {
    let into = projection::Into::Naming(projection::Naming { target: target.into() });
    Projection { into: Some(into), endpoint: endpoint.into() }
}

pub fn into_skydns(domain: &str, endpoint: &str) -> Projection {
    let into = projection::SkyDns { domain: domain.into(), path: String::new(), ttl_s: 7 };
    Projection { into: Some(projection::Into::Skydns(into)), endpoint: endpoint.into() }
}

pub fn endpoint(name: &str, host: &str, port: u32) -> Endpoint {
    Endpoint { name: name.into(), host: host.into(), port, protocol: String::new() }
}

pub fn instance(id: &str, incarnation: i64) -> Registration {
    Registration { service: SERVICE.into(), id: id.into(), incarnation, ..Default::default() }
}

pub fn beat(id: &str, incarnation: i64, health: Health) -> Heartbeat {
    Heartbeat {
        service: SERVICE.into(),
        id: id.into(),
        incarnation,
        health: health.into(),
        ..Default::default()
    }
}

pub fn id_of(instance: &Instance) -> String {
    instance.registration.as_ref().unwrap().id.clone()
}
