//! Following, inspecting, listing and watching: what people and storage services are told.

use tenure_proto::tenure::v1::lock_event::{End, ReleaseRequested};
use tenure_proto::tenure::v1::{Ended, ended};
use tenure_recipes::lock::{self, Broke, Following, Told, Turn};
use tenure_recipes::{Root, session};

use crate::ground::{Ground, NOW, exclusive, owner, root, shared, wish};
use crate::support::{Started, Store, Tasks};

/// A stream that is asked for one thing after another.
struct Followed(Option<Following<Store>>);

impl Followed {
    fn new(ground: &Ground, session: i64, id: &str) -> Followed {
        Followed(Some(lock::follow(&ground.store, &root(), "x", &owner(session, id)).unwrap()))
    }

    fn ask(&mut self, tasks: &mut Tasks) -> Started<(Option<Turn>, Following<Store>)> {
        let mut following = self.0.take().unwrap();
        let started = tasks.start(async move {
            let turn = following.next().await.unwrap().map(|(turn, _)| turn);
            (turn, following)
        });
        tasks.settle();
        started
    }

    fn told(&mut self, started: &Started<(Option<Turn>, Following<Store>)>) -> Option<Turn> {
        let (turn, following) = started.done();
        self.0 = Some(following);
        turn
    }

    fn next(&mut self, ground: &mut Ground) -> Option<Turn> {
        let started = self.ask(&mut ground.tasks);
        self.told(&started)
    }
}

#[test]
fn an_acquisition_is_followed_from_its_place_to_its_end() {
    let mut ground = Ground::with_sessions(&[1]);
    let first = ground.hold(wish(1, "a", &[exclusive("x")]));
    ground.queue(wish(1, "b", &[exclusive("x")]));
    let mut followed = Followed::new(&ground, 1, "b");
    assert!(matches!(followed.next(&mut ground), Some(Turn::Queued(_))));
    let granted = followed.ask(&mut ground.tasks);
    assert!(!granted.is_done());
    ground.release("x", first.token);
    ground.tasks.settle();
    let Some(Turn::Granted(grant)) = followed.told(&granted) else { panic!() };
    let asked = followed.ask(&mut ground.tasks);
    let word = ReleaseRequested { reason: "upgrade".into(), by: "ops".into() };
    let (token, said) = (grant.token, word.clone());
    assert!(ground.run(|store| async move {
        lock::request_release(&store, &root(), "x", token, None, &said).await.unwrap()
    }));
    ground.tasks.settle();
    assert_eq!(followed.told(&asked), Some(Turn::ReleaseRequested(word)));
    let ended = followed.ask(&mut ground.tasks);
    assert!(ground.release("x", grant.token), "being asked does not change the token");
    ground.tasks.settle();
    match followed.told(&ended) {
        Some(Turn::Ended(ended)) => assert_eq!((ended.how(), ended.token), (End::Released, grant.token)),
        other => panic!("{other:?}"),
    }
    assert_eq!(followed.next(&mut ground), None);
}

#[test]
fn the_end_of_an_acquisition_has_its_reason() {
    for (how, waiting) in [
        (End::Expired, false),
        (End::Expired, true),
        (End::Closed, false),
        (End::Killed, true),
        (End::Broken, false),
    ] {
        let mut ground = Ground::with_sessions(&[1, 2]);
        if waiting {
            ground.hold(wish(2, "other", &[exclusive("x")]));
            ground.queue(wish(1, "a", &[exclusive("x")]));
        } else {
            ground.hold(wish(1, "a", &[exclusive("x")]));
        }
        let mut followed = Followed::new(&ground, 1, "a");
        followed.next(&mut ground).unwrap();
        let ended = followed.ask(&mut ground.tasks);
        let token = ground.picture("x").holders[0].2;
        ground.run(move |store| async move {
            let root = Root::server();
            let word = Ended {
                session: 1,
                reason: "dead".into(),
                how: ended::How::Killed.into(),
                ..Ended::default()
            };
            let broke = Broke { reason: "dead".into(), ..Broke::default() };
            match how {
                End::Expired => store.expire(1),
                End::Closed => assert!(session::close(&store, &root, 77, 1, 0).await.unwrap()),
                End::Killed => assert!(session::kill(&store, &root, 77, &word).await.unwrap()),
                _ => assert!(
                    lock::break_grant(&store, &root, "x", token, None, &broke).await.unwrap().is_some()
                ),
            }
        });
        ground.tasks.settle();
        match followed.told(&ended) {
            Some(Turn::Ended(ended)) => {
                assert_eq!(ended.how(), how);
                assert_eq!(ended.reason, if matches!(how, End::Killed | End::Broken) { "dead" } else { "" });
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn nothing_to_follow_is_said() {
    let mut ground = Ground::with_sessions(&[1]);
    match Followed::new(&ground, 1, "a").next(&mut ground) {
        Some(Turn::Ended(ended)) => assert_eq!(ended.how(), End::Nothing),
        other => panic!("{other:?}"),
    }
}

#[test]
fn who_takes_over_from_a_lost_holder_holds_since_that_was_seen() {
    let ground = Ground::with_sessions(&[1, 2]);
    ground.hold(wish(1, "a", &[exclusive("x")]));
    ground.queue(wish(2, "b", &[exclusive("x")]));
    ground.store.expire(1);
    ground.help("x");
    let inspected = ground.run(|store| async move { lock::inspect(&store, &root(), "x", 0).await.unwrap() });
    let holder = &inspected.holders[0];
    assert_eq!((&*holder.owner_id, holder.since_unix_ms), ("b", NOW));
}

#[test]
fn an_inspection_names_who_holds_and_who_waits() {
    let ground = Ground::with_sessions(&[1, 2]);
    let mut labelled = wish(1, "a", &[shared("x")]);
    labelled.labels.insert("host".into(), "n1".into());
    labelled.unix_ms = 5;
    let grant = ground.hold(labelled);
    ground.hold(wish(2, "b", &[shared("x")]));
    ground.queue(wish(2, "w", &[exclusive("x"), exclusive("y")]));
    let inspected = ground.run(|store| async move { lock::inspect(&store, &root(), "x", 0).await.unwrap() });
    assert_eq!((inspected.lock.holder_count, inspected.lock.waiter_count), (2, 1));
    let holder = &inspected.holders[0];
    assert_eq!((&*holder.owner_id, holder.token, holder.since_unix_ms), ("a", grant.token, 5));
    assert_eq!((holder.ttl_s, &*holder.labels["host"]), (10, "n1"));
    assert_eq!(inspected.waiters[0].locks.len(), 2);
    let page = |after: &'static str| {
        let listed =
            ground.run(move |store| async move { lock::list(&store, &root(), "", after, 1).await.unwrap() });
        (listed.0.iter().map(|lock| lock.name.clone()).collect::<Vec<_>>(), listed.1)
    };
    assert_eq!(page(""), (vec!["x".to_owned()], true));
    assert_eq!(page("x"), (vec!["y".to_owned()], false));
}

#[test]
fn a_picture_of_many_locks_stays_what_an_inspection_says() {
    let mut ground = Ground::with_sessions(&[1, 2]);
    ground.steward();
    ground.hold(wish(1, "a", &[exclusive("one")]));
    let mut watching = Some(lock::watch(&ground.store, &root(), "", true).unwrap());
    let mut next = |ground: &mut Ground| {
        let mut stream = watching.take().unwrap();
        let started = ground.tasks.start(async move { (stream.next().await.unwrap(), stream) });
        ground.tasks.settle();
        let (told, stream) = started.done();
        watching = Some(stream);
        told
    };
    let begun = next(&mut ground);
    assert!(begun.complete && begun.locks.len() == 1);
    let compare = |ground: &Ground, told: &Told| {
        for lock in &told.locks {
            let name = lock.name.clone();
            let mut now =
                ground.run(|store| async move { lock::summary(&store, &root(), &name).await.unwrap() });
            now.delay = None;
            assert_eq!(*lock, now);
        }
    };
    compare(&ground, &begun);
    ground.hold(wish(2, "b", &[exclusive("two")]));
    let told = next(&mut ground);
    compare(&ground, &told);
    ground.queue(wish(2, "c", &[exclusive("one")]));
    let told = next(&mut ground);
    compare(&ground, &told);
    ground.leave("one", 1, "a");
    let told = next(&mut ground);
    compare(&ground, &told);
    ground.leave("one", 2, "c");
    let freed = next(&mut ground);
    assert_eq!((freed.locks[0].holder_count, &*freed.locks[0].name), (0, "one"));
    compare(&ground, &freed);
}

#[test]
fn the_floor_rises_with_each_grant_and_makes_former_tokens_stale() {
    let mut ground = Ground::with_sessions(&[1]);
    let first = ground.hold(wish(1, "a", &[exclusive("x")]));
    let mut stream = Some(lock::floor(&ground.store, &root(), "x").unwrap());
    let mut next = |ground: &mut Ground| {
        let mut floor = stream.take().unwrap();
        let started = ground.tasks.start(async move { (floor.next().await.unwrap().0, floor) });
        ground.tasks.settle();
        let (told, floor) = started.done();
        stream = Some(floor);
        told
    };
    assert_eq!(next(&mut ground), first.token);
    let check = |ground: &Ground, token| {
        ground.run(move |store| async move { lock::check(&store, &root(), "x", token, None).await.unwrap() })
    };
    assert!(check(&ground, first.token).current);
    ground.queue(wish(1, "b", &[exclusive("x")]));
    ground.release("x", first.token);
    let second = ground.store.revision();
    assert_eq!(next(&mut ground), second);
    assert!(!check(&ground, first.token).current && check(&ground, second).current);
    ground.release("x", second);
    assert!(next(&mut ground) > second, "nobody holds it: all tokens there were are stale");
    let freed = check(&ground, second);
    assert!(!freed.current && freed.floor > second);
}
