//! The registry where two do something at the same time: one goes so many calls far, then the other does all of its own, then the first
//! goes on. Every such number is tried.

#![allow(clippy::unwrap_used)]

#[path = "registry/stepwise.rs"]
mod stepwise;
mod support;
#[path = "registry/world.rs"]
mod world;

use stepwise::{Dice, Stepwise};
use support::{Fault, run};
use tenure_proto::tenure::v1::drain::End;
use tenure_proto::tenure::v1::set_instance_request::Change;
use tenure_proto::tenure::v1::{
    DeregisterRequest, Drain, Health, ListServicesRequest, RegisterRequest, Registration, ServicePolicy,
    SetInstanceRequest, SetServicePolicyRequest, heartbeat_result, register_response,
};
use tenure_recipes::Root;
use tenure_recipes::registry::{Look, Registry};
use world::{SERVICE, World, endpoint, instance, into_naming, supply};

/// More calls than any of these makes.
const CALLS: usize = 40;
const TTL: u64 = 15;

fn slow(world: &World) -> Registry<Stepwise> {
    Registry::new(Stepwise(world.store.clone()), Root::server(), supply_apart(world))
}

/// Leases of other ids than the world's own.
fn supply_apart(world: &World) -> tenure_recipes::registry::Supply {
    let supply = supply(&world.calendar);
    let (lease, unix_ms) = (supply.lease.clone(), supply.unix_ms.clone());
    tenure_recipes::registry::Supply { lease: std::sync::Arc::new(move || (*lease)() + 1_000_000), unix_ms }
}

fn drain(deadline_s: i64, end: End) -> Change {
    Change::Drain(Drain { deadline_s, end: end.into(), ..Drain::default() })
}

fn setting(id: &str, change: Change) -> SetInstanceRequest {
    let (service, id) = (SERVICE.to_owned(), id.to_owned());
    SetInstanceRequest { service, id, change: Some(change), ..SetInstanceRequest::default() }
}

#[test]
fn a_drain_that_begins_anew_is_not_ended_by_the_deadline_of_the_one_before() {
    for calls in 0..CALLS {
        for end in [End::StayOut, End::Return, End::Deregister] {
            let mut world = World::new();
            world.populate(1);
            world.set("0", drain(5, end), true);
            world.step(6_000);
            let registry = slow(&world);
            let helping = world.tasks.start(async move { registry.help(SERVICE).await });
            for _ in 0..calls {
                world.tasks.step(&helping);
            }
            if world.lookup().is_empty() {
                break;
            }
            let registry = world.registry.clone();
            run(async move { registry.set_instance(setting("0", drain(60, End::StayOut))).await.unwrap() });
            world.tasks.settle();
            let drain = world.lookup()["0"].drain.clone().unwrap();
            assert!(!drain.over && drain.deadline_s == 60, "after {calls} calls: {drain:?}");
        }
    }
}

#[test]
fn two_drains_at_once_do_not_leave_too_few() {
    for seed in 0..100 {
        let mut dice = Dice::new(seed);
        let mut world = World::with_policy(ServicePolicy { min_available: 2, ..Default::default() });
        world.populate(3);
        let registry = slow(&world);
        let draining = ["0", "1"].map(|id| {
            let registry = registry.clone();
            world.tasks.start(async move {
                let change = if id == "0" { drain(60, End::Return) } else { Change::Maintenance(true) };
                registry.set_instance(setting(id, change)).await.unwrap()
            })
        });
        for _ in 0..dice.below(30) {
            world.tasks.step(&draining[dice.below(2) as usize]);
        }
        world.tasks.settle();
        assert_eq!(world.routable(), 2, "seed {seed}");
    }
}

#[test]
fn a_service_is_listed_though_its_last_instance_left_as_another_came() {
    for calls in 0..CALLS {
        let mut world = World::new();
        world.populate(1);
        let registry = world.registry.clone();
        let last = DeregisterRequest { service: SERVICE.into(), id: "0".into(), incarnation: 0 };
        run(async move { registry.deregister(last).await.unwrap() });
        for helps in [true, false] {
            let registry = slow(&world);
            let first = world.tasks.start(async move {
                if helps {
                    registry.help_with(SERVICE, Look::Emptied).await.unwrap();
                } else {
                    let request =
                        RegisterRequest { registration: Some(instance("2", 1)), ..Default::default() };
                    registry.register(request).await.unwrap();
                }
            });
            for _ in 0..calls {
                world.tasks.step(&first);
            }
            let registry = world.registry.clone();
            run(async move {
                if helps {
                    let request =
                        RegisterRequest { registration: Some(instance("1", 1)), ..Default::default() };
                    registry.register(request).await.unwrap();
                    let request =
                        DeregisterRequest { service: SERVICE.into(), id: "1".into(), incarnation: 0 };
                    registry.deregister(request).await.unwrap();
                } else {
                    registry.help_with(SERVICE, Look::Emptied).await.unwrap();
                }
            });
            world.tasks.settle();
        }
        let registry = world.registry.clone();
        let listed =
            run(async move { registry.list_services(ListServicesRequest::default()).await.unwrap() });
        assert_eq!(listed.services.len(), 1, "after {calls} calls");
        assert_eq!(listed.services[0].instances, 1, "after {calls} calls");
    }
}

#[test]
fn who_is_heard_of_is_not_taken_for_lost_by_somebody_who_looked_before() {
    for calls in 0..CALLS {
        let mut world = World::new();
        world.populate(2);
        world.step(1_000 * TTL);
        let registry = slow(&world);
        let helping = world.tasks.start(async move { registry.help(SERVICE).await });
        for _ in 0..calls {
            world.tasks.step(&helping);
        }
        let results = world.beat(["0".to_owned()], Health::Unspecified);
        assert_eq!(results[0].outcome(), heartbeat_result::Outcome::Alive);
        world.tasks.settle();
        assert_eq!(world.healths()["0"], (Health::Passing, false), "after {calls} calls");
        assert_eq!(world.healths()["1"].0, Health::Lost, "after {calls} calls");
    }
}

#[test]
fn an_update_whose_lease_ends_meanwhile_is_alive_all_the_same() {
    for behind in 0..3 {
        let mut world = World::with_steward();
        world.populate(1);
        let lease = world.lookup()["0"].lease;
        world.store.on_txn(behind, Fault::Expires(lease));
        let reply = world.register(Registration { sequence: 1, ..instance("0", 1) });
        world.store.no_faults();
        assert_eq!(reply.outcome(), register_response::Outcome::Registered);
        if behind < 2 {
            assert_eq!(world.healths()["0"], (Health::Passing, false), "{behind}");
            assert_eq!(world.lookup()["0"].lease, reply.instance.unwrap().lease);
        }
    }
}

#[test]
fn who_registers_while_the_projections_change_is_shown_by_the_new_ones() {
    let policy = |target: &str| ServicePolicy {
        projections: vec![into_naming(target, "")],
        ..ServicePolicy::default()
    };
    for calls in 0..CALLS {
        let mut world = World::new();
        world.set_policy(policy("before"));
        let registry = slow(&world);
        let registration = Registration { endpoints: vec![endpoint("", "10.0.0.1", 80)], ..instance("0", 1) };
        let request = RegisterRequest { registration: Some(registration), ..Default::default() };
        let registering = world.tasks.start(async move { registry.register(request).await });
        for _ in 0..calls {
            world.tasks.step(&registering);
        }
        world.set_policy(policy("after"));
        world.tasks.settle();
        assert!(registering.is_done());
        let keys: Vec<_> = world.store.keys(b"").into_iter().map(|kv| kv.key).collect();
        let shown: Vec<_> = keys.iter().filter(|key| !key.starts_with(b"/_tenure/")).collect();
        assert_eq!(shown, ["after/0"], "the policy changed behind call {calls}");
    }
}

#[test]
fn of_two_services_that_want_one_place_one_gets_it() {
    for calls in 0..CALLS {
        let mut world = World::new();
        let ask = |service: &str| SetServicePolicyRequest {
            service: service.to_owned(),
            policy: Some(ServicePolicy { projections: vec![into_naming("web", "")], ..Default::default() }),
            if_revision: 0,
        };
        let (registry, first, second) = (slow(&world), ask("first"), ask("second"));
        let setting = world.tasks.start(async move { registry.set_policy(first).await.is_ok() });
        for _ in 0..calls {
            world.tasks.step(&setting);
        }
        let registry = world.registry.clone();
        run(async move { registry.set_policy(second).await }).ok();
        world.tasks.settle();
        let policies = world.store.keys(b"/_tenure/services/");
        assert_eq!(policies.len(), 1, "behind call {calls}: {policies:?}");
    }
}
