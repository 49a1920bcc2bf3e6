//! The registry against a naive one, call by call with lost replies and time; and many callers at once in random order, where
//! what must hold of the keys is looked at after every revision.

#![allow(clippy::unwrap_used)]

#[path = "registry/invariants.rs"]
mod invariants;
#[path = "registry/reference.rs"]
mod reference;
#[path = "registry/stepwise.rs"]
mod stepwise;
mod support;
#[path = "registry/world.rs"]
mod world;

use std::collections::BTreeMap;
use std::future::Future;

use prost::Message;

use reference::{DEREGISTER_AFTER_S, MAX_PROTECT_S, MIN_AVAILABLE, Reference, TTL_S, WINDOW_S};
use stepwise::{Dice, Stepwise};
use support::{Fault, Started, Tasks, run};
use tenure_proto::tenure::v1::drain::End;
use tenure_proto::tenure::v1::set_instance_request::Change;
use tenure_proto::tenure::v1::watch_instances_response::removal::Reason;
use tenure_proto::tenure::v1::{
    DeregisterRequest, Drain, EndProtectionRequest, Health, Heartbeat, Instance, ListServicesRequest,
    Projection, RegisterRequest, Registration, ServicePolicy, SetInstanceRequest, SetServicePolicyRequest,
};
use tenure_recipes::registry::Registry;
use tenure_recipes::{Error, Failure, Primitives, Root};
use world::{
    Consumer, SERVICE, World, beat, endpoint, follow, id_of, into_naming, into_skydns, steward, supply,
};

/// What the service is shown as: at first by both.
fn projections(which: u64) -> Vec<Projection> {
    match which {
        0 => vec![into_naming("services/web", ""), into_skydns("web.services.local", "dns")],
        1 => vec![into_naming("elsewhere/web", "dns")],
        _ => Vec::new(),
    }
}

fn policy() -> ServicePolicy {
    ServicePolicy {
        ttl_s: TTL_S as i64,
        up: 1,
        down: 1,
        deregister_after_s: DEREGISTER_AFTER_S as i64,
        min_available: MIN_AVAILABLE as u32,
        window_s: WINDOW_S as i64,
        max_protect_s: MAX_PROTECT_S as i64,
        projections: projections(0),
        ..ServicePolicy::default()
    }
}

/// What a client may want.
#[derive(Clone, Debug)]
enum Wish {
    Register(RegisterRequest),
    Beat(Heartbeat),
    Deregister(DeregisterRequest),
    Set(SetInstanceRequest),
    EndProtection,
    Project(u64),
}

impl Wish {
    fn random(dice: &mut Dice, ids: u64) -> Wish {
        let (id, incarnation) = (dice.below(ids).to_string(), 1 + dice.below(3) as i64);
        let service = SERVICE.to_owned();
        match dice.below(21) {
            0..6 => {
                let all = [endpoint("", "10.0.0.1", 80), endpoint("dns", "10.0.0.2", 53)];
                let registration = Registration {
                    sequence: dice.below(3) as i64,
                    zone: ["a", "b"][dice.below(2) as usize].to_owned(),
                    weight: Some(dice.below(2) as u32),
                    endpoints: all[dice.below(3) as usize..].to_vec(),
                    ..world::instance(&id, incarnation)
                };
                Wish::Register(RegisterRequest {
                    registration: Some(registration),
                    health: Health::try_from(dice.below(5) as i32).unwrap().into(),
                    takeover: dice.below(3) == 0,
                    ..RegisterRequest::default()
                })
            }
            6..13 => {
                let health = Health::try_from(dice.below(5) as i32).unwrap();
                Wish::Beat(beat(&id, incarnation, health))
            }
            13..15 => Wish::Deregister(DeregisterRequest { service, id, incarnation: dice.below(4) as i64 }),
            15..19 => {
                let end = [End::StayOut, End::Return, End::Deregister][dice.below(3) as usize];
                let change = match dice.below(6) {
                    0..2 => Change::Drain(Drain {
                        deadline_s: 2 + dice.below(2) as i64 * 6,
                        end: end.into(),
                        ..Drain::default()
                    }),
                    2 => Change::Undrain(true),
                    3 => Change::Maintenance(true),
                    4 => Change::Maintenance(false),
                    _ => Change::Weight(65_534 + dice.below(3) as u32),
                };
                let force = dice.below(2) == 0;
                Wish::Set(SetInstanceRequest { service, id, change: Some(change), force, if_revision: 0 })
            }
            19 => Wish::EndProtection,
            _ => Wish::Project(dice.below(3)),
        }
    }

    /// What the registry says, as text. Asks until there is an answer, as a client does.
    async fn ask<P: Primitives>(&self, registry: &Registry<P>) -> String {
        match self {
            Wish::Register(request) => {
                let reply = persist(|| registry.register(request.clone())).await;
                format!("{:?}", reply.outcome())
            }
            Wish::Beat(beat) => {
                let results = persist(|| registry.heartbeat(std::slice::from_ref(beat))).await;
                format!("{:?}", results[0].outcome())
            }
            Wish::Deregister(request) => {
                let reply = persist(|| registry.deregister(request.clone())).await;
                format!("{:?}", reply.outcome())
            }
            Wish::Set(request) => {
                let reply = persist(|| registry.set_instance(request.clone())).await;
                format!("{:?}", reply.outcome())
            }
            Wish::EndProtection => {
                let request = EndProtectionRequest { service: SERVICE.to_owned() };
                persist(|| registry.end_protection(request.clone())).await;
                "ended".to_owned()
            }
            Wish::Project(which) => {
                let policy = ServicePolicy { projections: projections(*which), ..policy() };
                let request = SetServicePolicyRequest {
                    service: SERVICE.to_owned(),
                    policy: Some(policy),
                    if_revision: 0,
                };
                persist(|| registry.set_policy(request.clone())).await;
                "projected".to_owned()
            }
        }
    }

    fn ask_reference(&self, reference: &mut Reference) -> String {
        match self {
            Wish::Register(request) => format!("{:?}", reference.register(request)),
            Wish::Beat(beat) => {
                format!("{:?}", reference.beat(&beat.id, beat.incarnation, beat.health()))
            }
            Wish::Deregister(request) => {
                format!("{:?}", reference.deregister(&request.id, request.incarnation))
            }
            Wish::Set(request) => {
                let change = request.change.as_ref().unwrap();
                format!("{:?}", reference.set(&request.id, change, request.force))
            }
            Wish::EndProtection => {
                reference.end_protection();
                "ended".to_owned()
            }
            Wish::Project(_) => "projected".to_owned(),
        }
    }
}

async fn persist<T, F: Future<Output = Result<T, Error>>>(mut call: impl FnMut() -> F) -> T {
    loop {
        match call().await {
            Ok(reply) => return reply,
            Err(Error::Failed(Failure::Unavailable(_) | Failure::Unknown(_))) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

/// Without what the store alone knows, and the calendar.
fn comparable(instances: BTreeMap<String, Instance>) -> BTreeMap<String, Instance> {
    let strip = |(id, mut instance): (String, Instance)| {
        instance.create_revision = 0;
        instance.mod_revision = 0;
        instance.lease = 0;
        instance.health_since_unix_ms = 0;
        if let Some(drain) = &mut instance.drain {
            drain.since_unix_ms = 0;
        }
        (id, instance)
    };
    instances.into_iter().map(strip).collect()
}

fn is_protected(world: &World) -> bool {
    let registry = world.registry.clone();
    let reply = run(async move { registry.list_services(ListServicesRequest::default()).await.unwrap() });
    reply.services[0].protection.is_some()
}

/// Ten times as many in the long form.
fn seeds(short: u64) -> u64 {
    if std::env::var_os("TENURE_LONG").is_some() { 10 * short } else { short }
}

/// How often the stories came to what they are about.
#[derive(Default)]
struct Met {
    protected: usize,
    lost: usize,
    stale: usize,
    drained: usize,
    expired: usize,
}

fn one_story(seed: u64, met: &mut Met) {
    let mut dice = Dice::new(seed);
    let mut world = World::with_policy(policy());
    let consumer = world.consumer();
    let mut reference = Reference::default();
    let ids = 3 + dice.below(6);
    let mut projected = projections(0);
    let mut told = Vec::new();
    for _ in 0..150 {
        if dice.below(4) == 0 {
            let fault = [Fault::ReplyLost, Fault::RequestLost, Fault::Refused][dice.below(3) as usize];
            world.store.on_txn(dice.below(4) as usize, fault);
        }
        if dice.below(3) == 0 {
            let ms = 500 * (1 + dice.below(8));
            told.push(format!("{ms} ms pass"));
            for _ in 0..ms / 500 {
                world.store.no_faults();
                world.step(500);
                reference.pass(500);
                look_at_all(&mut world);
            }
        } else {
            let wish = Wish::random(&mut dice, ids);
            if let Wish::Project(which) = wish {
                projected = projections(which);
            }
            let (registry, asked) = (world.registry.clone(), wish.clone());
            let said = run(async move { asked.ask(&registry).await });
            world.store.no_faults();
            world.tasks.settle();
            look_at_all(&mut world);
            let should = wish.ask_reference(&mut reference);
            told.push(format!("{wish:?} -> {said}"));
            assert_eq!(said, should, "seed {seed}\n{}", told.join("\n"));
        }
        let (is, should) = (comparable(world.lookup()), comparable(reference.instances()));
        assert_eq!(is, should, "seed {seed}\n{}", told.join("\n"));
        assert_eq!(is_protected(&world), reference.is_protected(), "seed {seed}\n{}", told.join("\n"));
        assert_eq!(consumer.seen().instances, world.lookup(), "seed {seed}\n{}", told.join("\n"));
        invariants::check(&world.store, seed);
        invariants::all_are_projected_as(&world.store, &projected, seed);
        met.protected += usize::from(reference.is_protected());
        met.lost += is.values().filter(|one| one.health() == Health::Lost).count();
        met.stale += is.values().filter(|one| one.stale).count();
        met.drained += is.values().filter(|one| one.drain.as_ref().is_some_and(|drain| drain.over)).count();
    }
    met.expired += consumer.seen().removals.iter().filter(|(_, reason)| *reason == Reason::Expired).count();
}

/// Not only where a change gave reason: the reference looks always.
fn look_at_all(world: &mut World) {
    let registry = world.registry.clone();
    run(async move { registry.help_all().await.unwrap() });
    world.tasks.settle();
}

#[test]
fn it_does_what_a_naive_registry_does_though_replies_are_lost() {
    let mut met = Met::default();
    for seed in 0..seeds(40) {
        one_story(seed, &mut met);
    }
    let Met { protected, lost, stale, drained, expired } = met;
    assert!([protected, lost, stale, drained, expired].into_iter().all(|times| times > 30));
}

/// Several clients, two stewards and a consumer, each going on one call at a time, in random order.
fn one_scramble(seed: u64) {
    let mut dice = Dice::new(seed);
    let store = support::Store::default();
    let calendar = std::sync::Arc::default();
    let (slow, supply) = (Stepwise(store.clone()), supply(&calendar));
    let registry = Registry::new(slow.clone(), Root::server(), supply.clone());
    let settled = Registry::new(store.clone(), Root::server(), supply);
    let mut tasks = Tasks::default();
    run(set_policy(settled.clone()));

    let consumer = Consumer::default();
    let mut background: Vec<Started<Failure>> = Vec::new();
    background.push(tasks.start(follow(registry.clone(), consumer.clone(), 0)));
    for _ in 0..2 {
        background.push(tasks.start(steward(slow.clone(), registry.clone())));
    }
    let mut clients: Vec<Started<String>> = Vec::new();
    for _ in 0..40 {
        while clients.len() < 3 {
            let (wish, registry) = (Wish::random(&mut dice, 4), registry.clone());
            clients.push(tasks.start(async move { wish.ask(&registry).await }));
        }
        for _ in 0..dice.below(60) {
            match dice.below(5) {
                0..3 => tasks.step(&clients[dice.below(3) as usize]),
                _ => tasks.step(&background[dice.below(3) as usize]),
            }
            invariants::check(&store, seed);
        }
        if dice.below(4) == 0 {
            store.advance(500 * dice.below(6));
        }
        if dice.below(8) == 0 {
            let fault = [Fault::ReplyLost, Fault::RequestLost, Fault::Refused][dice.below(3) as usize];
            store.on_txn(dice.below(6) as usize, fault);
        }
        if dice.below(20) == 0 {
            compact(&store);
        }
        clients.retain(|client| !client.is_done());
    }
    store.no_faults();
    tasks.settle();
    assert!(clients.iter().all(Started::is_done), "seed {seed}: somebody waits for ever");
    invariants::check(&store, seed);
    let reader = settled.clone();
    let reply = run(async move { reader.lookup(Default::default()).await.unwrap() });
    let there: BTreeMap<String, Instance> =
        reply.instances.into_iter().map(|instance| (id_of(&instance), instance)).collect();
    assert_eq!(consumer.seen().instances, there, "seed {seed}");
    let policy = store.keys(b"/_tenure/services/").pop().map(|kv| ServicePolicy::decode(kv.value).unwrap());
    invariants::all_are_projected_as(&store, &policy.unwrap().projections, seed);
}

/// Unless it has been compacted there already.
fn compact(store: &support::Store) {
    let revision = store.revision();
    if store.with(|solo| solo.machine().compacted().0) < revision {
        store.compact(revision);
    }
}

async fn set_policy<P: Primitives>(registry: Registry<P>) {
    let request = tenure_proto::tenure::v1::SetServicePolicyRequest {
        service: SERVICE.to_owned(),
        policy: Some(policy()),
        if_revision: 0,
    };
    registry.set_policy(request).await.unwrap();
}

#[test]
fn r8_whoever_follows_holds_what_is_there_in_whatever_order_all_go_on() {
    for seed in 0..seeds(60) {
        one_scramble(seed);
    }
}
