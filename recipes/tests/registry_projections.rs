//! What readers of other systems see of registered instances: that it is never anything else than what the registry says.

#![allow(clippy::unwrap_used)]

#[path = "registry/invariants.rs"]
mod invariants;
mod support;
#[path = "registry/world.rs"]
mod world;

use std::collections::BTreeMap;

use support::{Fault, Store, run};
use tenure_proto::etcdserverpb::PutRequest;
use tenure_proto::tenure::v1::set_instance_request::Change;
use tenure_proto::tenure::v1::{
    DeregisterRequest, Drain, Endpoint, Health, Projection, RegisterRequest, Registration, ServicePolicy,
    SetServicePolicyRequest,
};
use tenure_recipes::{Error, Failure};
use world::{SERVICE, World, endpoint, instance, into_naming, into_skydns};

fn policy(projections: &[Projection]) -> ServicePolicy {
    ServicePolicy { projections: projections.to_vec(), down: 1, ..ServicePolicy::default() }
}

fn at(id: &str, endpoints: &[Endpoint]) -> Registration {
    Registration { endpoints: endpoints.to_vec(), ..instance(id, 1) }
}

fn shown(store: &Store) -> BTreeMap<String, String> {
    invariants::check(store, 0);
    let kvs = store.keys(b"").into_iter().filter(|kv| !kv.key.starts_with(b"/_tenure/"));
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    kvs.map(|kv| (text(&kv.key), text(&kv.value))).collect()
}

fn keys(store: &Store) -> Vec<String> {
    shown(store).into_keys().collect()
}

fn set_policy(world: &World, service: &str, projections: &[Projection]) -> Result<(), Error> {
    let request = SetServicePolicyRequest {
        service: service.to_owned(),
        policy: Some(policy(projections)),
        if_revision: 0,
    };
    let registry = world.registry.clone();
    run(async move { registry.set_policy(request).await }).map(|_| ())
}

fn deregister(world: &mut World, id: &str) {
    let request = DeregisterRequest { service: SERVICE.into(), id: id.into(), incarnation: 0 };
    let registry = world.registry.clone();
    run(async move { registry.deregister(request).await.unwrap() });
    world.tasks.settle();
}

/// One that is shown both ways, of a service with a steward.
fn world_with(ids: usize) -> World {
    let mut world = World::with_policy(policy(&[into_naming("web", ""), into_skydns("web.local", "")]));
    for id in 0..ids {
        world.register(at(&id.to_string(), &[endpoint("", "10.0.0.1", 80)]));
    }
    world
}

#[test]
fn who_moves_is_overwritten_in_one_revision() {
    let mut world = world_with(1);
    let before = shown(&world.store);
    assert_eq!(before["web/0"], r#"{"Op":0,"Addr":"10.0.0.1:80"}"#);
    assert_eq!(before["/skydns/local/web/0"], r#"{"host":"10.0.0.1","port":80,"weight":100,"ttl":7}"#);
    let moved = Registration { sequence: 1, ..at("0", &[endpoint("", "10.0.0.2", 81)]) };
    let revision = world.store.revision();
    world.register(moved);
    assert_eq!(world.store.revision(), revision + 1);
    let after = shown(&world.store);
    assert_eq!(after["web/0"], r#"{"Op":0,"Addr":"10.0.0.2:81"}"#);
    assert!(after.keys().eq(before.keys()));
}

#[test]
fn who_is_not_to_be_sent_traffic_is_not_shown() {
    let mut world = world_with(3);
    let (all, without) = (keys(&world.store).len(), 4);
    let changes = [
        (Change::Drain(Drain::default()), Change::Undrain(true)),
        (Change::Maintenance(true), Change::Maintenance(false)),
    ];
    for (out, back) in changes {
        world.set("1", out, true);
        assert_eq!(keys(&world.store).len(), without);
        world.set("1", back, true);
        assert_eq!(keys(&world.store).len(), all);
    }
    for (health, count) in [(Health::Critical, without), (Health::Warning, all), (Health::Starting, without)]
    {
        world.beat(["1".to_owned()], health);
        assert_eq!(keys(&world.store).len(), count, "{health:?}");
    }
    world.beat(["1".to_owned()], Health::Passing);
    world.set("1", Change::Weight(0), false);
    assert!(shown(&world.store)["/skydns/local/web/1"].contains(r#""weight":1,"#));
    deregister(&mut world, "1");
    assert_eq!(keys(&world.store).len(), without);
}

#[test]
fn a_drain_that_ends_shows_it_again() {
    let mut world = world_with(3);
    let end = tenure_proto::tenure::v1::drain::End::Return.into();
    world.set("0", Change::Drain(Drain { deadline_s: 3, end, ..Drain::default() }), true);
    assert_eq!(keys(&world.store).len(), 4);
    world.live(0..3, 5);
    assert_eq!(keys(&world.store).len(), 6);
}

#[test]
fn who_is_lost_is_not_shown_and_whom_protection_keeps_is() {
    let mut world = world_with(10);
    // Three of ten fall silent, and are lost.
    world.live(0..7, 25);
    assert_eq!(keys(&world.store).len(), 14);
    // All do: the registry keeps them, and so do those who read the other keys, the lost ones of this window included.
    world.pass(25);
    assert!(world.lookup().values().filter(|one| one.stale).count() >= 7);
    assert_eq!(keys(&world.store).len(), 2 * world.routable());
    assert!(world.routable() >= 7);
    // Protection ends at its longest time, and they go.
    world.pass(600);
    assert_eq!((keys(&world.store), world.routable()), (Vec::new(), 0));
    let back = at("0", &[endpoint("", "10.0.0.1", 80)]);
    world.register(Registration { sequence: 1, ..back });
    assert_eq!(keys(&world.store), ["/skydns/local/web/0", "web/0"]);
}

#[test]
fn what_somebody_else_does_to_these_keys_is_mended_by_the_next_registration() {
    let mut world = world_with(1);
    world.store.with(|solo| {
        let put = PutRequest { key: "web/0".into(), value: "nonsense".into(), ..PutRequest::default() };
        solo.put(&put).unwrap();
    });
    world.register(Registration { sequence: 1, ..at("0", &[endpoint("", "10.0.0.1", 80)]) });
    assert_eq!(shown(&world.store)["web/0"], r#"{"Op":0,"Addr":"10.0.0.1:80"}"#);
}

#[test]
fn other_projections_come_to_all_instances_and_leave_strangers_alone() {
    let mut world = world_with(60);
    world.set("7", Change::Maintenance(true), true);
    set_policy(&world, SERVICE, &[into_naming("elsewhere", "")]).unwrap();
    assert_eq!(keys(&world.store).len(), 59);
    assert!(keys(&world.store).iter().all(|key| key.starts_with("elsewhere/")));
    invariants::all_are_projected_as(&world.store, &[into_naming("elsewhere", "")], 0);
    world.store.with(|solo| {
        solo.put(&PutRequest { key: "elsewhere/stranger".into(), ..PutRequest::default() }).unwrap();
    });
    set_policy(&world, SERVICE, &[]).unwrap();
    world.tasks.settle();
    let left = world.store.keys(b"").into_iter().filter(|kv| !kv.key.starts_with(b"/_tenure/"));
    assert_eq!(left.map(|kv| kv.key).collect::<Vec<_>>(), ["elsewhere/stranger"]);
}

#[test]
fn a_change_that_is_interrupted_at_any_txn_is_carried_through_by_whoever_looks_next() {
    let wanted = [into_naming("elsewhere", ""), into_skydns("web.other", "")];
    for behind in 0..20 {
        let mut world = World::new();
        set_policy(&world, SERVICE, &[into_naming("web", "")]).unwrap();
        for id in 0..30 {
            world.register(at(&id.to_string(), &[endpoint("", "10.0.0.1", 80)]));
        }
        world.store.on_txn(behind, Fault::Refused);
        let done = set_policy(&world, SERVICE, &wanted);
        world.store.no_faults();
        if done.is_ok() {
            assert!(behind > 5, "txn {behind} is none of a change of projections");
            invariants::all_are_projected_as(&world.store, &wanted, 0);
            return;
        }
        assert!(matches!(done, Err(Error::Failed(Failure::Unavailable(_)))));
        invariants::check(&world.store, 0);
        // The repeat of the call does, as would a steward's look.
        match behind % 2 {
            0 => set_policy(&world, SERVICE, &wanted).unwrap(),
            _ => {
                let registry = world.registry.clone();
                run(async move { registry.help_all().await.unwrap() });
            }
        }
        if behind > 2 {
            invariants::all_are_projected_as(&world.store, &wanted, 0);
        }
        invariants::check(&world.store, 0);
    }
    panic!("a change of 30 instances took more than 20 txns");
}

#[test]
fn no_two_services_are_shown_at_one_place() {
    let mut world = world_with(3);
    for other in [into_naming("web", ""), into_skydns("web.local", ""), into_skydns("a.web.local", "")] {
        let refused = set_policy(&world, "other", &[other]).unwrap_err();
        assert!(refused.to_string().contains("\"web\""), "{refused}");
    }
    set_policy(&world, "other", &[into_naming("other", "")]).unwrap();
    // What one has left another may take; who is still being taken out of it is waited for.
    world.store.on_txn(2, Fault::Refused);
    let interrupted = set_policy(&world, SERVICE, &[]);
    assert!(interrupted.is_err());
    set_policy(&world, "other", &[into_naming("web", "")]).unwrap();
    let request = RegisterRequest {
        registration: Some(Registration {
            service: "other".into(),
            ..at("0", &[endpoint("", "10.0.0.9", 9)])
        }),
        ..RegisterRequest::default()
    };
    world.register_as(request);
    assert_eq!(keys(&world.store), ["web/0"]);
}
