//! Locks, elections and registrations against a live member, through a network that fails: who holds is told in time, lets go only
//! when its code has ended, and lets go of nothing that is somebody else's.

#![allow(clippy::unwrap_used)]

mod fixture;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fixture::proxy::{Mode, Proxy};
use fixture::{BOUND, Cluster, until};
use tenure_client::proto::tenure::v1::BreakLockRequest;
use tenure_client::{Client, ElectionNews, Error, Options};

const TTL: Duration = Duration::from_secs(5);

/// Says that it was dropped.
struct Flag(Arc<AtomicBool>);

impl Drop for Flag {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

fn quick(endpoint: &str) -> Client {
    let options = Options {
        attempt_timeout: Duration::from_millis(500),
        ping_interval: Duration::from_millis(200),
        ping_timeout: Duration::from_millis(200),
        ..Options::default()
    };
    Client::with_options(endpoint, options).unwrap()
}

async fn held_by(client: &Client, name: &str) -> Option<i64> {
    client.lock(name).inspect().await.unwrap().holders.first().map(|holder| holder.token)
}

/// L20, E14.
#[tokio::test]
async fn a_lock_is_given_back_when_the_code_has_ended_and_not_before() {
    let cluster = Cluster::single().await;
    let client = cluster.client();
    let ended = Arc::new(AtomicBool::new(false));
    let lock = client.lock("x");
    let first = lock.run(|held| {
        let (client, ended) = (client.clone(), ended.clone());
        async move {
            until("another waits", || async {
                client.lock("x").inspect().await.unwrap().lock.unwrap().waiter_count == 1
            })
            .await;
            held.kv().put("written", "under it").await.unwrap();
            ended.store(true, Ordering::SeqCst);
            held.token()
        }
    });
    let second = async {
        until("the first holds it", || async { held_by(&client, "x").await.is_some() }).await;
        let second = client.lock("x").acquire().await.unwrap();
        assert!(ended.load(Ordering::SeqCst));
        second
    };
    let (first, second) = tokio::join!(first, second);
    assert!(first.unwrap() < second.token());
    second.release().await.unwrap();
    assert_eq!(held_by(&client, "x").await, None);
}

/// L18, S8, E9: told before the server lets go, and dropped by then.
#[tokio::test]
async fn a_holder_who_is_cut_off_is_told_in_time_and_then_dropped() {
    let cluster = Cluster::single().await;
    let direct = cluster.client();
    let proxy = Proxy::before(cluster.endpoint()).await;
    let client = quick(&proxy.endpoint);
    let (told, dropped) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let lock = client.lock("x").ttl(TTL);
    let run = lock.run(|held| {
        let (flag, told, direct) = (Flag(dropped.clone()), told.clone(), direct.clone());
        proxy.set(Mode::BlackHole);
        async move {
            let _flag = flag;
            let why = held.lost().await;
            assert!(held.check().is_err() && held.remaining().is_zero(), "{why}");
            assert_eq!(held_by(&direct, "x").await, Some(held.token()), "nobody else may have it yet");
            told.store(true, Ordering::SeqCst);
            // Code that does not listen.
            std::future::pending::<()>().await
        }
    });
    let error = tokio::time::timeout(BOUND, run).await.unwrap().unwrap_err();
    assert!(matches!(error, Error::Lost(_)), "{error}");
    assert!(told.load(Ordering::SeqCst) && dropped.load(Ordering::SeqCst));
    let next = tokio::time::timeout(BOUND, direct.lock("x").acquire()).await.unwrap().unwrap();
    next.release().await.unwrap();
}

/// L3, L6: it is sent again, and by then somebody else has it.
#[tokio::test]
async fn a_release_whose_answer_was_lost_frees_nothing_of_others() {
    let cluster = Cluster::single().await;
    let direct = cluster.client();
    let proxy = Proxy::before(cluster.endpoint()).await;
    let first = quick(&proxy.endpoint).lock("x").acquire().await.unwrap();
    proxy.set(Mode::LoseReplies);
    let releasing = tokio::spawn(first.release());
    let second = tokio::time::timeout(BOUND, direct.lock("x").acquire()).await.unwrap().unwrap();
    proxy.set(Mode::Cut);
    proxy.set(Mode::Pass);
    releasing.await.unwrap().unwrap();
    assert_eq!(held_by(&direct, "x").await, Some(second.token()));
    second.kv().put("k", "v").await.unwrap();
}

/// L5.
#[tokio::test]
async fn who_stops_waiting_leaves_the_queue_and_who_is_cut_off_keeps_the_place() {
    let cluster = Cluster::single().await;
    let client = cluster.client();
    let holder = client.lock("x").acquire().await.unwrap();
    let waiting = || async { client.lock("x").inspect().await.unwrap().lock.unwrap().waiter_count };
    assert!(client.lock("x").try_acquire().await.unwrap().is_none());
    assert!(client.lock("x").acquire_within(Duration::from_millis(50)).await.unwrap().is_none());
    let impatient = tokio::spawn({
        let client = client.clone();
        async move { client.lock("x").acquire().await.map(|_| ()) }
    });
    until("it waits", || async { waiting().await == 1 }).await;
    impatient.abort();
    until("it has left", || async { waiting().await == 0 }).await;

    let proxy = Proxy::before(cluster.endpoint()).await;
    let lock = quick(&proxy.endpoint).lock("x").ttl(Duration::from_secs(60));
    let patient = tokio::spawn(async move { lock.acquire().await });
    until("it waits", || async { waiting().await == 1 }).await;
    let place = client.lock("x").inspect().await.unwrap().waiters[0].clone();
    proxy.set(Mode::Cut);
    proxy.set(Mode::Pass);
    let behind = tokio::spawn({
        let client = client.clone();
        async move { client.lock("x").acquire().await }
    });
    until("another waits behind it", || async { waiting().await == 2 }).await;
    assert_eq!(client.lock("x").inspect().await.unwrap().waiters[0].owner_id, place.owner_id);
    holder.release().await.unwrap();
    let patient = tokio::time::timeout(BOUND, patient).await.unwrap().unwrap().unwrap();
    assert!(!behind.is_finished());
    patient.release().await.unwrap();
    behind.await.unwrap().unwrap().release().await.unwrap();
}

#[tokio::test]
async fn whose_lock_is_broken_is_told_by_whom_and_why() {
    let cluster = Cluster::single().await;
    let client = cluster.client();
    let locked = client.lock("x").acquire().await.unwrap();
    let (name, token) = ("x".to_owned(), locked.token());
    let (reason, by) = ("the host is dead".to_owned(), "an operator".to_owned());
    let request = BreakLockRequest { name, token, reason, by, ..BreakLockRequest::default() };
    assert!(client.operate().break_lock(request).await.unwrap().broken);
    let why = tokio::time::timeout(BOUND, locked.lost()).await.unwrap().to_string();
    assert!(why.contains("an operator") && why.contains("the host is dead"), "{why}");
    let error = locked.kv().put("k", "v").await.unwrap_err();
    assert!(matches!(error, Error::Stale(_)), "{error}");
}

/// E4, and E3: every term once and in order, and each vacancy.
#[tokio::test]
async fn an_observer_misses_nothing_while_it_is_cut_off() {
    let cluster = Cluster::single().await;
    let proxy = Proxy::before(cluster.endpoint()).await;
    let election = cluster.client().election("e");
    let mut observer = quick(&proxy.endpoint).election("e").observe();
    let mut next = async || tokio::time::timeout(BOUND, observer.next()).await.unwrap().unwrap();
    assert!(matches!(next().await, ElectionNews::Vacant(_)));
    for (round, mode) in [Mode::Pass, Mode::Cut, Mode::BlackHole].into_iter().enumerate() {
        proxy.set(mode);
        for id in ["a", "b"] {
            election.candidate(id).value(id).run(|term| async move { term.token() }).await.unwrap();
        }
        proxy.set(if mode == Mode::Pass { Mode::Pass } else { Mode::Cut });
        proxy.set(Mode::Pass);
        for number in 1..=2 {
            let epoch = 2 * round as i64 + number;
            let ElectionNews::Started(started) = next().await else { panic!("no start of {epoch}") };
            let ElectionNews::Ended(ended) = next().await else { panic!("no end of {epoch}") };
            let ElectionNews::Vacant(vacant) = next().await else { panic!("no vacancy after {epoch}") };
            assert_eq!((started.epoch, ended.epoch, vacant.epoch), (epoch, epoch, epoch));
        }
    }
}

/// R4, R7: what was known stays known, and what was forgotten is said again.
#[tokio::test]
async fn instances_are_known_through_cuts_and_registered_again_when_forgotten() {
    let cluster = Cluster::single().await;
    let client = cluster.client();
    let proxy = Proxy::before(cluster.endpoint()).await;
    let mut resolver = quick(&proxy.endpoint).registry().resolve("web").await.unwrap();
    assert!(resolver.instances().is_empty() && resolver.pick().is_none());
    let instance = quick(&proxy.endpoint).registry().instance("web", "w1").endpoint("http", "127.0.0.1", 80);
    let registered = instance.ttl(TTL).register().await.unwrap();
    tokio::time::timeout(BOUND, resolver.changed()).await.unwrap().unwrap();
    assert_eq!(resolver.pick().unwrap().registration().id, "w1");
    registered.update(|registration| registration.version = "2".into()).await.unwrap();
    tokio::time::timeout(BOUND, resolver.changed()).await.unwrap().unwrap();

    proxy.set(Mode::BlackHole);
    let lost = || async {
        let found = client.operate().lookup(Default::default()).await.unwrap();
        !found.instances.first().is_some_and(|instance| instance.routable)
    };
    until("the registry takes it for lost", lost).await;
    assert_eq!(resolver.instances().len(), 1, "who cannot ask goes by what was known last");
    proxy.set(Mode::Cut);
    proxy.set(Mode::Pass);
    until("it is back", || async { !lost().await }).await;
    let found = client.operate().lookup(Default::default()).await.unwrap();
    assert_eq!(found.instances[0].registration.as_ref().unwrap().version, "2");
    registered.deregister().await.unwrap();
    until("the resolver knows", || async { resolver.instances().is_empty() }).await;
}
