//! The registry, row by row of what went wrong elsewhere (R1-R17 of the README's table), on a server in memory.

#![allow(clippy::unwrap_used)]

mod support;
#[path = "registry/world.rs"]
mod world;

use std::sync::atomic::Ordering;

use support::run;
use tenure_proto::tenure::v1::drain::End;
use tenure_proto::tenure::v1::register_response::Outcome;
use tenure_proto::tenure::v1::set_instance_request::Change;
use tenure_proto::tenure::v1::watch_instances_response::removal::Reason;
use tenure_proto::tenure::v1::{
    DeregisterRequest, Drain, EndProtectionRequest, Health, Instance, ListServicesRequest, RegisterRequest,
    Registration, ServicePolicy, deregister_response, heartbeat_result, set_instance_response,
};
use tenure_recipes::Primitives;
use tenure_state::Limits;
use tenure_state::solo::{Settings, Solo};
use world::{SERVICE, World, instance};

/// TTL of those that say nothing, seconds.
const TTL: u64 = 15;
const ALIVE: heartbeat_result::Outcome = heartbeat_result::Outcome::Alive;
const NOT_REGISTERED: heartbeat_result::Outcome = heartbeat_result::Outcome::NotRegistered;

fn deregister(world: &mut World, id: &str, incarnation: i64) -> deregister_response::Outcome {
    let registry = world.registry.clone();
    let request = DeregisterRequest { service: SERVICE.into(), id: id.into(), incarnation };
    let reply = run(async move { registry.deregister(request).await.unwrap() });
    world.tasks.settle();
    reply.outcome()
}

fn end_protection(world: &mut World) -> bool {
    let registry = world.registry.clone();
    let request = EndProtectionRequest { service: SERVICE.into() };
    let reply = run(async move { registry.end_protection(request).await.unwrap() });
    world.tasks.settle();
    reply.ended
}

fn lost(world: &World) -> usize {
    world.healths().values().filter(|(health, _)| *health == Health::Lost).count()
}

fn stale(world: &World) -> usize {
    world.healths().values().filter(|(_, stale)| *stale).count()
}

/// Everything but what is for show.
fn without_times(instance: &Instance) -> Instance {
    let mut instance = instance.clone();
    instance.health_since_unix_ms = 0;
    if let Some(drain) = &mut instance.drain {
        drain.since_unix_ms = 0;
    }
    instance
}

#[test]
fn r1_a_service_that_falls_silent_is_kept() {
    let mut world = World::with_steward();
    world.populate(10);
    let consumer = world.consumer();
    world.live(0..10, 30);
    // They stopped at different times.
    for still in (0..10).rev() {
        world.live(0..still, 1);
    }
    world.pass(3 * TTL);
    assert_eq!((stale(&world), lost(&world), world.routable()), (10, 0, 10));
    let seen = consumer.seen();
    assert_eq!(seen.instances, world.lookup());
    assert!(seen.fewest_routable >= Some(6), "{:?}", seen.fewest_routable);
}

#[test]
fn r1_three_of_three_at_once_are_kept_and_two_of_ten_are_not() {
    let mut world = World::with_steward();
    world.populate(3);
    world.pass(TTL + 1);
    assert_eq!((stale(&world), world.routable()), (3, 3));

    let mut world = World::with_steward();
    world.populate(10);
    world.live(0..8, 2 * TTL);
    assert_eq!((lost(&world), stale(&world), world.routable()), (2, 0, 8));
}

#[test]
fn r2_protection_ends_after_its_longest_time() {
    let mut world = World::with_policy(ServicePolicy { max_protect_s: 60, ..Default::default() });
    world.populate(100);
    world.live(0..10, 30);
    assert_eq!((world.routable(), stale(&world)), (100, 90));
    world.live(0..10, 60);
    assert_eq!((world.routable(), lost(&world)), (10, 90));
    world.live(0..10, 10 * TTL + 5);
    assert_eq!(world.lookup().len(), 10);
}

#[test]
fn r2_protection_ends_for_each_that_is_heard_of_and_when_all_are() {
    let mut world = World::with_steward();
    world.populate(10);
    world.pass(TTL + 1);
    assert_eq!(stale(&world), 10);
    world.live(0..9, TTL);
    assert_eq!(stale(&world), 1);
    assert_eq!(protected(&world), Some(true));
    world.live(0..10, TTL);
    assert_eq!(stale(&world), 0);
    assert_eq!(protected(&world), Some(false));
    // The next loss is judged anew.
    world.live(0..9, 2 * TTL);
    assert_eq!((lost(&world), stale(&world)), (1, 0));
}

#[test]
fn r2_protection_ends_at_an_operators_word() {
    let mut world = World::with_steward();
    world.populate(10);
    world.live(0..3, 2 * TTL);
    assert_eq!(stale(&world), 7);
    // It never keeps what deregisters.
    assert_eq!(deregister(&mut world, "9", 0), deregister_response::Outcome::Deregistered);
    assert_eq!(stale(&world), 6);
    assert!(end_protection(&mut world));
    assert_eq!((lost(&world), stale(&world), world.routable()), (6, 0, 3));
    assert!(!end_protection(&mut world));
}

fn protected(world: &World) -> Option<bool> {
    let registry = world.registry.clone();
    let reply = run(async move { registry.list_services(ListServicesRequest::default()).await.unwrap() });
    reply.services.first().map(|service| service.protection.is_some())
}

#[test]
fn r3_a_change_of_leader_takes_no_time_from_whoever_was_heard_of() {
    let mut world = World::with_steward();
    world.populate(50);
    // Heard of for the last time five seconds before the end.
    world.live(0..50, 20);
    world.store.change_leader();
    world.pass(TTL - 6);
    assert_eq!((lost(&world), stale(&world)), (0, 0));
    world.live(0..50, TTL);
    assert_eq!((lost(&world), stale(&world), world.routable()), (0, 0, 50));
}

#[test]
fn r3_after_a_restart_nobody_is_lost_for_a_ttl() {
    let mut world = World::with_steward();
    world.populate(50);
    world.live(0..50, 20);
    world.store.with(|solo| *solo = Solo::restore(Settings::default(), solo.memory().clone(), solo.now()));
    world.pass(TTL - 1);
    assert_eq!((lost(&world), stale(&world)), (0, 0));
    world.live(0..50, TTL);
    assert_eq!((lost(&world), stale(&world), world.routable()), (0, 0, 50));
}

#[test]
fn r4_who_is_not_known_is_told_so_and_comes_back_with_its_latest_data() {
    let mut world = World::with_policy(ServicePolicy { deregister_after_s: 20, ..Default::default() });
    world.populate(1);
    world.pass(TTL + 21);
    assert!(world.lookup().is_empty());
    let results = world.beat(["0".to_owned()], Health::Passing);
    assert_eq!(results[0].outcome(), NOT_REGISTERED);
    let latest = Registration { version: "2".into(), sequence: 5, ..instance("0", 1) };
    assert_eq!(world.register(latest.clone()).outcome(), Outcome::Registered);
    assert_eq!(world.lookup()["0"].registration, Some(latest));
    assert_eq!(world.beat(["0".to_owned()], Health::Passing)[0].outcome(), ALIVE);
}

#[test]
fn r4_who_is_lost_comes_back_by_a_heartbeat() {
    let mut world = World::with_steward();
    world.populate(1);
    world.beat(["0".to_owned()], Health::Warning);
    world.beat(["0".to_owned()], Health::Warning);
    world.pass(TTL + 1);
    assert_eq!(world.healths()["0"], (Health::Lost, false));
    assert_eq!(world.beat(["0".to_owned()], Health::Unspecified)[0].outcome(), ALIVE);
    assert_eq!(world.healths()["0"], (Health::Warning, false));
    // It stays, though the time after which a lost one is removed passes.
    world.live(0..1, 12 * TTL);
    assert_eq!(world.healths()["0"], (Health::Warning, false));
}

#[test]
fn r5_what_is_out_of_date_never_overwrites() {
    let mut world = World::with_steward();
    let first = Registration { version: "1".into(), ..instance("0", 7) };
    let second = Registration { version: "2".into(), sequence: 1, ..instance("0", 7) };
    world.register(first.clone());
    assert_eq!(world.register(second.clone()).outcome(), Outcome::Registered);
    let late = world.register(first.clone());
    assert_eq!((late.outcome(), late.instance.unwrap().registration), (Outcome::Superseded, Some(second)));
    assert_eq!(world.register(instance("0", 6)).outcome(), Outcome::Superseded);

    // Even when it is lost, the later one is the later one.
    world.pass(TTL + 1);
    assert_eq!(world.healths()["0"].0, Health::Lost);
    assert_eq!(world.register(instance("0", 6)).outcome(), Outcome::Superseded);
}

#[test]
fn r5_who_deregistered_is_not_brought_back_by_a_late_message() {
    let mut world = World::with_steward();
    world.register(instance("0", 7));
    assert_eq!(deregister(&mut world, "0", 6), deregister_response::Outcome::Superseded);
    assert_eq!(deregister(&mut world, "0", 7), deregister_response::Outcome::Deregistered);
    assert_eq!(deregister(&mut world, "0", 7), deregister_response::Outcome::Deregistered);
    assert_eq!(world.register(instance("0", 7)).outcome(), Outcome::Deregistered);
    assert_eq!(world.beat(["0".to_owned()], Health::Passing)[0].outcome(), NOT_REGISTERED);
    assert_eq!(world.register(instance("0", 8)).outcome(), Outcome::Registered);
    assert_eq!(world.register(instance("0", 7)).outcome(), Outcome::Deregistered);

    // The message to deregister came before the one to register.
    assert_eq!(deregister(&mut world, "1", 3), deregister_response::Outcome::Deregistered);
    assert_eq!(world.register(instance("1", 3)).outcome(), Outcome::Deregistered);
    world.pass(TTL + 1);
    assert_eq!(world.register(instance("1", 3)).outcome(), Outcome::Registered);
}

#[test]
fn r6_an_update_is_one_revision_without_a_gap() {
    let mut world = World::with_steward();
    world.populate(1);
    let consumer = world.consumer();
    let before = world.store.revision();
    let update = Registration { version: "2".into(), sequence: 1, ..instance("0", 1) };
    world.register(update);
    assert_eq!(world.store.revision(), before + 1);
    let restart =
        RegisterRequest { registration: Some(instance("0", 2)), takeover: true, ..Default::default() };
    assert_eq!(world.register_as(restart).outcome(), Outcome::Registered);
    let seen = consumer.seen();
    assert_eq!((seen.deltas, seen.removals), (2, vec![]));
    assert_eq!(seen.fewest_routable, Some(1));
}

#[test]
fn r7_a_compaction_under_a_watch_gives_a_reset_and_a_snapshot_on_the_same_stream() {
    let mut world = World::new();
    // With little memory for who is behind.
    let watch = Limits { ring_changes: 2, pending: 1, ..Limits::default() };
    world.store.with(|solo| *solo = Solo::new(Settings { watch, ..Settings::default() }));
    world.populate(3);
    let consumer = world.consumer();
    // Changes that it has not been told of when they are compacted away.
    let registry = world.registry.clone();
    run(async move {
        for sequence in 1..5 {
            let registration = Registration { sequence, version: sequence.to_string(), ..instance("0", 1) };
            let request = RegisterRequest { registration: Some(registration), ..Default::default() };
            registry.register(request).await.unwrap();
        }
    });
    deregister_quietly(&world, "1");
    world.store.compact(world.store.revision());
    world.tasks.settle();
    let seen = consumer.seen();
    assert_eq!(seen.instances, world.lookup());
    assert_eq!((seen.resets, seen.snapshots), (1, 2));
    // And it goes on.
    world.register(instance("4", 1));
    assert_eq!(consumer.seen().instances, world.lookup());
}

fn deregister_quietly(world: &World, id: &str) {
    let registry = world.registry.clone();
    let request = DeregisterRequest { service: SERVICE.into(), id: id.into(), incarnation: 0 };
    run(async move { registry.deregister(request).await.unwrap() });
}

#[test]
fn r7_an_idle_watch_survives_any_compaction() {
    let mut world = World::with_steward();
    world.populate(3);
    let consumer = world.consumer();
    let other = tenure_recipes::registry::Registry::new(
        world.store.clone(),
        tenure_recipes::Root::at("/elsewhere/"),
        world::supply(&world.calendar),
    );
    run(async move {
        for incarnation in 1..50 {
            let registration = Some(instance("0", incarnation));
            let request = RegisterRequest { registration, takeover: true, ..Default::default() };
            other.register(request).await.unwrap();
        }
    });
    world.tasks.settle();
    world.store.compact(world.store.revision());
    world.tasks.settle();
    world.register(instance("3", 1));
    let seen = consumer.seen();
    assert_eq!((seen.instances, seen.resets), (world.lookup(), 0));
}

#[test]
fn r7_who_resumes_misses_nothing() {
    let mut world = World::with_steward();
    world.populate(5);
    let consumer = world::Consumer::default();
    let first = world.tasks.start(world::follow(world.registry.clone(), consumer.clone(), 0));
    world.tasks.settle();
    world.tasks.stop(&first);
    deregister(&mut world, "0", 1);
    world.register(instance("5", 1));
    world.register(Registration { sequence: 1, zone: "b".into(), ..instance("2", 1) });
    let revision = consumer.seen().revision;
    let second = world.tasks.start(world::follow(world.registry.clone(), consumer.clone(), revision));
    world.tasks.settle();
    let seen = consumer.seen();
    assert_eq!((seen.instances, seen.snapshots, seen.resets), (world.lookup(), 1, 0));
    assert_eq!(seen.removals, [("0".to_owned(), Reason::Deregistered)]);

    // Too late: the truth is told whole.
    world.tasks.stop(&second);
    deregister(&mut world, "1", 1);
    world.store.compact(world.store.revision());
    world.tasks.start(world::follow(world.registry.clone(), consumer.clone(), revision));
    world.tasks.settle();
    let seen = consumer.seen();
    assert_eq!((seen.instances, seen.snapshots, seen.resets), (world.lookup(), 2, 1));
}

#[test]
fn r9_who_flaps_writes_nothing() {
    let mut world = World::with_steward();
    world.populate(1);
    let revision = world.store.revision();
    for _ in 0..60 {
        world.beat(["0".to_owned()], Health::Critical);
        world.pass(1);
        let result = world.beat(["0".to_owned()], Health::Passing)[0];
        assert_eq!(result.health(), Health::Passing);
    }
    assert_eq!(world.store.revision(), revision);
    // Who means it is believed, and then also that it is better again.
    world.beat(["0".to_owned()], Health::Critical);
    assert_eq!(world.beat(["0".to_owned()], Health::Critical)[0].health(), Health::Critical);
    assert_eq!(world.healths()["0"].0, Health::Critical);
    assert_eq!(world.beat(["0".to_owned()], Health::Passing)[0].health(), Health::Passing);
    assert_eq!(world.store.revision(), revision + 2);
}

#[test]
fn r10_who_is_killed_is_lost_and_then_removed() {
    let mut world = World::with_steward();
    world.populate(2);
    let consumer = world.consumer();
    world.live(0..1, TTL - 1);
    assert_eq!(world.healths()["1"], (Health::Passing, false));
    world.live(0..1, 2);
    assert_eq!(world.healths()["1"], (Health::Lost, false));
    world.live(0..1, 9 * TTL);
    assert_eq!(world.healths()["1"], (Health::Lost, false));
    world.live(0..1, TTL + 5);
    assert_eq!(world.lookup().len(), 1);
    assert_eq!(consumer.seen().removals, [("1".to_owned(), Reason::Expired)]);
    // With the last one the service goes.
    deregister(&mut world, "0", 0);
    assert_eq!(protected(&world), None);
    world.pass(TTL + 1);
    assert_eq!(world.store.keys(b"/_tenure/"), []);
}

#[test]
fn r10_a_session_takes_its_instances_with_it() {
    let mut world = World::with_steward();
    let store = world.store.clone();
    run(async move { store.grant(77, 10).await.unwrap() });
    for id in ["0", "1"] {
        let reply = world.register(Registration { session: 77, ..instance(id, 1) });
        assert_eq!(reply.outcome(), Outcome::Registered);
    }
    world.pass(6);
    assert_eq!(world.beat(["0".to_owned()], Health::Unspecified)[0].ttl_s, 10);
    world.pass(6);
    assert_eq!(lost(&world), 0);
    world.store.expire(77);
    world.tasks.settle();
    assert_eq!(lost(&world), 2);
    // Its heartbeat does not bring a session back.
    assert_eq!(world.beat(["0".to_owned()], Health::Unspecified)[0].outcome(), NOT_REGISTERED);
    let registry = world.registry.clone();
    let registration = Some(Registration { session: 77, ..instance("0", 1) });
    let request = RegisterRequest { registration, ..Default::default() };
    let refused = run(async move { registry.register(request).await.unwrap_err() });
    assert!(refused.to_string().contains("session 4d is over"), "{refused}");
    assert_eq!(world.register(instance("0", 1)).outcome(), Outcome::Registered);
}

#[test]
fn r14_steady_heartbeats_write_nothing() {
    let mut world = World::with_steward();
    world.populate(200);
    let index = |world: &World| world.store.with(|solo| solo.memory().applied().index);
    let before = index(&world);
    world.live(0..200, 60);
    assert_eq!(index(&world), before);
    assert_eq!(world.routable(), 200);
}

#[test]
fn r15_two_processes_with_one_id_are_told() {
    let mut world = World::with_steward();
    let first = Registration { zone: "a".into(), ..instance("0", 1) };
    world.register(first.clone());
    let second = Registration { zone: "b".into(), ..instance("0", 2) };
    let reply = world.register(second.clone());
    assert_eq!(reply.outcome(), Outcome::AlreadyRegistered);
    assert_eq!(reply.instance.unwrap().registration, Some(first));
    let takeover = RegisterRequest { registration: Some(second), takeover: true, ..Default::default() };
    assert_eq!(world.register_as(takeover).outcome(), Outcome::Registered);
    let results = world.beat(["0".to_owned()], Health::Passing);
    assert_eq!(results[0].outcome(), heartbeat_result::Outcome::Superseded);
    // Who is silent is replaced without a word.
    world.pass(TTL + 1);
    assert_eq!(world.register(instance("0", 3)).outcome(), Outcome::Registered);
}

fn drain(deadline_s: i64, end: End) -> Change {
    Change::Drain(Drain { deadline_s, end: end.into(), ..Default::default() })
}

#[test]
fn r16_a_drain_lasts_to_its_deadline_and_ends_as_it_was_said() {
    let mut world = World::with_steward();
    world.populate(4);
    for (id, end) in [("0", End::StayOut), ("1", End::Return), ("2", End::Deregister)] {
        let reply = world.set(id, drain(20, end), false);
        assert_eq!(reply.outcome(), set_instance_response::Outcome::Set);
        assert!(!reply.instance.unwrap().routable);
    }
    world.live(0..4, 10);
    // A repeat does not give it more time; drained is not unhealthy.
    world.set("1", drain(20, End::Return), false);
    assert_eq!(world.healths()["1"], (Health::Passing, false));
    world.live(0..4, 9);
    assert_eq!(world.routable(), 1);
    assert!(world.lookup().values().take(3).all(|one| !one.drain.as_ref().unwrap().over));
    world.pass(2);
    let after = world.lookup();
    assert!(after["0"].drain.as_ref().unwrap().over && !after["0"].routable);
    assert!(after["1"].drain.is_none() && after["1"].routable);
    assert!(!after.contains_key("2"));
    assert_eq!(world.register(instance("2", 1)).outcome(), Outcome::Deregistered);
    assert!(world.set("0", Change::Undrain(true), false).instance.unwrap().routable);
}

#[test]
fn r16_a_drain_is_over_with_the_process_and_maintenance_is_not() {
    let mut world = World::with_steward();
    world.populate(1);
    world.set("0", drain(60, End::StayOut), false);
    world.set("0", Change::Maintenance(true), false);
    world.set("0", Change::Weight(7), false);
    world.register(Registration { sequence: 1, ..instance("0", 1) });
    assert!(world.lookup()["0"].drain.is_some());
    let restart =
        RegisterRequest { registration: Some(instance("0", 2)), takeover: true, ..Default::default() };
    world.register_as(restart);
    let one = world.lookup()["0"].clone();
    assert!(one.drain.is_none() && one.maintenance && !one.routable);
    assert_eq!(one.weight, 7);
    world.set("0", Change::Weight(u32::MAX), false);
    world.set("0", Change::Maintenance(false), false);
    assert_eq!(world.lookup()["0"].weight, 100);
    assert_eq!(world.routable(), 1);
}

#[test]
fn r16_no_drain_leaves_too_few_unless_it_is_forced() {
    use set_instance_response::Outcome::{MinAvailable, NotRegistered, Set};
    let mut world = World::with_policy(ServicePolicy { min_available: 2, ..Default::default() });
    world.populate(3);
    assert_eq!(world.set("0", drain(60, End::StayOut), false).outcome(), Set);
    let refused = world.set("1", Change::Maintenance(true), false);
    assert_eq!((refused.outcome(), refused.routable), (MinAvailable, 1));
    assert_eq!(world.routable(), 2);
    // Who serves nobody anyway may go.
    assert_eq!(world.set("0", Change::Maintenance(true), false).outcome(), Set);
    assert_eq!(world.set("1", drain(60, End::StayOut), true).outcome(), Set);
    assert_eq!(world.set("9", drain(60, End::StayOut), true).outcome(), NotRegistered);
}

#[test]
fn r17_what_the_calendar_says_decides_nothing() {
    let story = |jump_ms: i64| {
        let mut world = World::with_steward();
        world.populate(5);
        world.calendar.fetch_add(jump_ms, Ordering::Relaxed);
        world.set("1", drain(20, End::Return), false);
        world.live(0..4, 12);
        world.calendar.fetch_sub(3 * jump_ms, Ordering::Relaxed);
        world.live(0..3, 12);
        world.beat(["0".to_owned()], Health::Critical);
        world.beat(["0".to_owned()], Health::Critical);
        world.live(0..3, 12 * TTL);
        world.lookup().values().map(without_times).collect::<Vec<_>>()
    };
    let hour_ms = 3_600_000;
    assert_eq!(story(0), story(hour_ms));
    assert_eq!(story(0), story(-hour_ms));
}
