//! Elections over the wire, against real servers: on one member, and on three of which the leader is killed.

#![allow(clippy::unwrap_used)]

mod harness;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::join_all;
use harness::{Cluster, Server};
use tenure_grpc::etcdserverpb::lease_client::LeaseClient;
use tenure_grpc::tenure_v1::elections_client::ElectionsClient;
use tenure_proto::etcdserverpb::{LeaseGrantRequest, LeaseKeepAliveRequest, LeaseRevokeRequest};
use tenure_proto::tenure::v1::campaign_event::{Event as Told, ended};
use tenure_proto::tenure::v1::election_event::Event;
use tenure_proto::tenure::v1::election_resign_response::Outcome as Resigned;
use tenure_proto::tenure::v1::election_term::End;
use tenure_proto::tenure::v1::transfer_event::{Phase, Reason};
use tenure_proto::tenure::v1::*;
use tokio::task::JoinHandle;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status, Streaming};
use tonic_types::StatusExt;

/// For anything that a living cluster does within a few elections.
const BOUND: Duration = Duration::from_secs(60);
const NAME: &str = "db/main";
const TTL_S: i64 = 10;

/// The members that a client knows, of which it asks another one when one does not answer.
#[derive(Clone)]
struct Members {
    endpoints: Arc<Vec<String>>,
    first: usize,
}

impl Members {
    fn of(endpoints: Vec<String>, first: usize) -> Members {
        Members { endpoints: Arc::new(endpoints), first }
    }

    fn channel(&self, number: usize) -> Channel {
        let endpoint = &self.endpoints[(self.first + number) % self.endpoints.len()];
        Endpoint::from_shared(endpoint.clone()).unwrap().timeout(BOUND).connect_lazy()
    }

    fn elections(&self, number: usize) -> ElectionsClient<Channel> {
        ElectionsClient::new(self.channel(number))
    }

    /// Asks one after the other until there is an answer.
    async fn insist<T>(&self, ask: impl AsyncFn(ElectionsClient<Channel>) -> Result<T, Status>) -> T {
        for number in 0..200 {
            match ask(self.elections(number)).await {
                Ok(answer) => return answer,
                Err(status) if status.code() == Code::Unavailable => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                Err(status) => panic!("{status:?}"),
            }
        }
        panic!("no member answers");
    }

    /// Opens a session.
    async fn open(&self) -> i64 {
        let request = LeaseGrantRequest { ttl: TTL_S, id: 0 };
        LeaseClient::new(self.channel(0)).lease_grant(request).await.unwrap().into_inner().id
    }

    /// Renews a session each second until the task is aborted, at whichever member answers.
    fn renewing(&self, session: i64) -> JoinHandle<()> {
        let members = self.clone();
        tokio::spawn(async move {
            for number in 0.. {
                let request = tokio_stream::once(LeaseKeepAliveRequest { id: session });
                let mut client = LeaseClient::new(members.channel(number));
                let renewed = tokio::time::timeout(Duration::from_secs(1), async {
                    client.lease_keep_alive(request).await?.into_inner().message().await
                });
                if matches!(renewed.await, Ok(Ok(Some(_)))) {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        })
    }

    async fn revoke(&self, session: i64) {
        let request = LeaseRevokeRequest { id: session };
        LeaseClient::new(self.channel(0)).lease_revoke(request).await.unwrap();
    }

    async fn stand(&self, id: &str, session: i64) -> StandResponse {
        self.insist(async |mut client| Ok(client.stand(campaign(id, session)).await?.into_inner())).await
    }

    async fn leader(&self) -> ElectionLeaderResponse {
        let request = ElectionLeaderRequest { name: NAME.into(), detail: true };
        self.insist(async |mut client| Ok(client.leader(request.clone()).await?.into_inner())).await
    }

    async fn history(&self) -> Vec<ElectionTerm> {
        let request = ElectionHistoryRequest { name: NAME.into(), before_epoch: 0, limit: 1_000 };
        let newest_first: Vec<ElectionTerm> = self
            .insist(async |mut client| Ok(client.history(request.clone()).await?.into_inner().terms))
            .await;
        newest_first.into_iter().rev().collect()
    }

    /// Notes every event from the first epoch on, going on at another member behind the last epoch that ended.
    fn observing(&self) -> (Arc<Mutex<Vec<Event>>>, JoinHandle<()>) {
        let told: Arc<Mutex<Vec<Event>>> = Arc::default();
        let (members, seen) = (self.clone(), told.clone());
        let task = tokio::spawn(async move {
            for number in 0.. {
                let from_epoch = next_epoch(&seen.lock().unwrap());
                let request = ElectionObserveRequest { name: NAME.into(), from_epoch };
                if let Ok(observed) = members.elections(number).observe(request).await {
                    note(observed.into_inner(), &seen).await;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        (told, task)
    }

    /// Leads when it is elected, hands over when it is asked, stands again, for ever.
    fn candidate(&self, id: &'static str, session: i64) -> JoinHandle<()> {
        let members = self.clone();
        tokio::spawn(async move {
            for number in 0.. {
                let Ok(told) = members.elections(number).campaign(campaign(id, session)).await else {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                };
                let mut told = told.into_inner();
                let mut token = 0;
                while let Ok(Some(event)) = told.message().await {
                    match event.event {
                        Some(Told::Elected(elected)) => token = elected.token,
                        Some(Told::HandoverRequested(handover)) => members.hand_over(token, handover).await,
                        _ => {}
                    }
                }
            }
        })
    }

    async fn hand_over(&self, token: i64, handover: Handover) {
        let request = ElectionResignRequest {
            name: NAME.into(),
            token,
            successor_id: handover.to_candidate_id,
            successor_session_id: handover.to_session_id,
            stand_again: true,
            ..ElectionResignRequest::default()
        };
        for number in 0.. {
            match self.elections(number).resign(request.clone()).await {
                Err(status) if status.code() == Code::Unavailable => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                answered => return drop(answered.unwrap()),
            }
        }
    }
}

fn campaign(id: &str, session: i64) -> CampaignRequest {
    CampaignRequest { name: NAME.into(), session_id: session, candidate_id: id.into(), ..Default::default() }
}

fn transfer(id: &str, to: &str) -> TransferRequest {
    TransferRequest {
        name: NAME.into(),
        transfer_id: id.into(),
        to_candidate_id: to.into(),
        ..Default::default()
    }
}

/// Until the stream ends. What a new stream repeats of an epoch that was seen to start is passed over; one stream repeats nothing.
async fn note(mut observed: Streaming<ElectionEvent>, seen: &Mutex<Vec<Event>>) {
    let mut here = Vec::new();
    while let Ok(Some(ElectionEvent { event: Some(event), .. })) = observed.message().await {
        if matches!(event, Event::Progress(_)) {
            continue;
        }
        assert!(!here.contains(&event), "a stream told this twice: {event:?}");
        here.push(event.clone());
        let mut seen = seen.lock().unwrap();
        if !seen.contains(&event) {
            seen.push(event);
        }
    }
}

fn next_epoch(seen: &[Event]) -> i64 {
    let started = seen.iter().rev().find_map(|event| match event {
        Event::Started(term) => Some(term.epoch),
        _ => None,
    });
    started.unwrap_or(1)
}

/// Who led, and how that ended, in order; vacancies as such.
fn words(events: &[Event]) -> Vec<String> {
    let who = |term: &ElectionTerm| term.leader.as_ref().map_or(String::new(), |leader| leader.id.clone());
    let word = |event: &Event| match event {
        Event::Started(term) => format!("{} {} starts", term.epoch, who(term)),
        Event::Ended(term) => format!("{} {} {}", term.epoch, who(term), term.end().as_str_name()),
        Event::Proclaimed(said) => format!("{} says {}", said.epoch, said.value),
        Event::Vacant(vacant) => format!("{} vacant", vacant.epoch),
        other => format!("{other:?}"),
    };
    events.iter().map(word).collect()
}

async fn until(what: &str, condition: impl AsyncFn() -> bool) {
    let waited = tokio::time::timeout(BOUND, async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    assert!(waited.await.is_ok(), "in vain: {what}");
}

async fn next(stream: &mut Streaming<CampaignEvent>) -> Option<Told> {
    tokio::time::timeout(BOUND, stream.message()).await.unwrap().unwrap().and_then(|event| event.event)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_candidate_campaigns_leads_and_resigns_and_observers_are_told() {
    let server = Server::start();
    let members = Members::of(vec![server.endpoint()], 0);
    let (a, b) = (members.open().await, members.open().await);
    let renewing = [members.renewing(a), members.renewing(b)];
    let (told, observing) = members.observing();
    let mut first = members.elections(0).campaign(campaign("a", a)).await.unwrap().into_inner();
    let Some(Told::Elected(elected)) = next(&mut first).await else { panic!("a is alone") };
    assert_eq!((elected.epoch, elected.guard.unwrap().token), (1, elected.token));
    let mut second = members.elections(0).campaign(campaign("b", b)).await.unwrap().into_inner();
    assert!(matches!(next(&mut second).await, Some(Told::Waiting(waiting)) if waiting.ahead == 0));

    let request =
        ElectionProclaimRequest { name: NAME.into(), token: elected.token, seq: 1, value: "here".into() };
    members.elections(0).proclaim(request).await.unwrap();
    let request =
        ElectionResignRequest { name: NAME.into(), token: elected.token, ..ElectionResignRequest::default() };
    let resigned = members.elections(0).resign(request.clone()).await.unwrap().into_inner();
    assert_eq!(resigned.outcome(), Resigned::Resigned);
    assert_eq!(resigned.header.unwrap().revision, resigned.next.unwrap().token);
    assert_eq!(
        members.elections(0).resign(request).await.unwrap().into_inner().outcome(),
        Resigned::Resigned
    );
    let Some(Told::Ended(over)) = next(&mut first).await else { panic!("a has resigned") };
    assert_eq!((over.reason(), over.end()), (ended::Reason::TermEnded, End::Resigned));
    assert_eq!(next(&mut first).await, None);
    assert!(matches!(next(&mut second).await, Some(Told::Elected(elected)) if elected.epoch == 2));

    members.revoke(b).await;
    let Some(Told::Ended(over)) = next(&mut second).await else { panic!("b has no session") };
    assert_eq!(over.reason(), ended::Reason::SessionLost);
    let expected = [
        "0 vacant",
        "1 a starts",
        "1 says here",
        "1 a RESIGNED",
        "2 b starts",
        "2 b SESSION_EXPIRED",
        "2 vacant",
    ];
    until("the observer is told all", async || words(&told.lock().unwrap()) == expected).await;
    let lost = members.elections(0).stand(campaign("b", b)).await.unwrap_err();
    assert_eq!(lost.code(), Code::NotFound);
    assert_eq!(lost.get_details_error_info().unwrap().reason, "SESSION_GONE");
    renewing.iter().chain([&observing]).for_each(JoinHandle::abort);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_leader_is_followed_though_nobody_calls() {
    let server = Server::start();
    let members = Members::of(vec![server.endpoint()], 0);
    let (a, b) = (members.open().await, members.open().await);
    let renewing = members.renewing(b);
    members.stand("a", a).await;
    members.stand("b", b).await;
    // Nobody renews a; no stream is open.
    until("b leads", async || members.leader().await.term.unwrap().epoch == 2).await;
    assert_eq!(members.history().await[0].end(), End::SessionExpired);
    renewing.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_candidate_that_wants_it_is_withdrawn_with_its_stream() {
    let server = Server::start();
    let members = Members::of(vec![server.endpoint()], 0);
    let (a, b) = (members.open().await, members.open().await);
    let renewing = [members.renewing(a), members.renewing(b)];
    let request = CampaignRequest { withdraw_on_disconnect: true, ..campaign("a", a) };
    let mut stream = members.elections(0).campaign(request).await.unwrap().into_inner();
    assert!(matches!(next(&mut stream).await, Some(Told::Elected(_))));
    members.stand("b", b).await;
    drop(stream);
    until("b leads", async || members.leader().await.term.unwrap().epoch == 2).await;
    assert_eq!(members.history().await[0].end(), End::Resigned);
    renewing.iter().for_each(JoinHandle::abort);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_switchovers_have_no_vacancy_and_no_third_winner() {
    let times = if harness::long() { 1_000 } else { 100 };
    let server = Server::start();
    let members = Members::of(vec![server.endpoint()], 0);
    let sessions = join_all((0..3).map(|_| members.open())).await;
    let mut tasks: Vec<JoinHandle<()>> = sessions.iter().map(|session| members.renewing(*session)).collect();
    members.stand("a", sessions[0]).await;
    let observers: Vec<_> = (0..3).map(|_| members.observing()).collect();
    for (id, session) in ["a", "b", "c"].into_iter().zip(&sessions) {
        members.stand(id, *session).await;
        tasks.push(members.candidate(id, *session));
    }
    let mut expected = vec!["1 a starts".to_owned()];
    let mut leads = "a";
    for number in 0..times {
        let others: Vec<&str> = ["a", "b", "c"].into_iter().filter(|id| *id != leads).collect();
        let to = others[number * number / 3 % 2];
        let mut events =
            members.elections(0).transfer(transfer(&format!("t{number}"), to)).await.unwrap().into_inner();
        let mut last = TransferEvent::default();
        while let Some(event) = tokio::time::timeout(BOUND, events.message()).await.unwrap().unwrap() {
            last = event;
        }
        assert_eq!((last.phase(), last.reason()), (Phase::Committed, Reason::None), "{number} to {to}");
        assert_eq!(last.epoch, number as i64 + 2);
        expected.push(format!("{} {leads} TRANSFERRED", number + 1));
        expected.push(format!("{} {to} starts", number + 2));
        leads = to;
    }
    for (told, task) in observers {
        until("an observer is told all", async || told.lock().unwrap().len() >= expected.len()).await;
        assert_eq!(words(&told.lock().unwrap()), expected);
        task.abort();
    }
    tasks.iter().for_each(JoinHandle::abort);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cluster_loses_its_leader_and_the_election_does_not() {
    let mut cluster = Cluster::start(3);
    let first = cluster.leader().await;
    let endpoints = cluster.endpoints();
    // Everybody asks another member first.
    let at = |number: usize| Members::of(endpoints.clone(), number);
    let members = at(first);
    let sessions = join_all((0..3).map(|_| members.open())).await;
    let mut tasks: Vec<JoinHandle<()>> =
        sessions.iter().enumerate().map(|(number, session)| at(number).renewing(*session)).collect();
    for (id, session) in ["a", "b", "c"].into_iter().zip(&sessions) {
        members.stand(id, *session).await;
    }
    let observers: Vec<_> = (0..3).map(|number| at(number).observing()).collect();
    for (number, (id, session)) in ["a", "b", "c"].into_iter().zip(&sessions).enumerate() {
        tasks.push(at(number).candidate(id, *session));
    }
    cluster.members[first].kill();
    let second = cluster.leader_other_than(Some(first)).await;
    let term = at(second).leader().await.term.unwrap();
    assert_eq!((term.epoch, term.leader.unwrap().id.as_str()), (1, "a"), "a lost nothing");
    // A switchover, and then a leader that is not heard of any more.
    let mut events = at(second).elections(0).transfer(transfer("t", "b")).await.unwrap().into_inner();
    while let Some(event) = tokio::time::timeout(BOUND, events.message()).await.unwrap().unwrap() {
        assert!(matches!(event.phase(), Phase::Requested | Phase::Committed | Phase::Progress), "{event:?}");
    }
    tasks[1].abort();
    until("b is lost", async || at(second).leader().await.term.unwrap().epoch == 3).await;
    let expected =
        ["1 a starts", "1 a TRANSFERRED", "2 b starts", "2 b SESSION_EXPIRED", "2 vacant", "3 c starts"];
    for (told, task) in observers {
        until("an observer is told all", async || told.lock().unwrap().len() >= expected.len()).await;
        assert_eq!(words(&told.lock().unwrap()), expected);
        task.abort();
    }
    tasks.iter().for_each(JoinHandle::abort);
}

/// How long it takes is printed, not asserted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_of_observers_is_told_each_step_once() {
    let (connections, each) = if harness::long() { (100, 100) } else { (10, 50) };
    let server = Server::start();
    let members = Members::of(vec![server.endpoint()], 0);
    let (a, b) = (members.open().await, members.open().await);
    let renewing = [members.renewing(a), members.renewing(b)];
    members.stand("a", a).await;
    members.stand("b", b).await;
    let connect = |_| async {
        let mut client = members.elections(0);
        let mut streams = Vec::with_capacity(each);
        for _ in 0..each {
            let request = ElectionObserveRequest { name: NAME.into(), from_epoch: 1 };
            streams.push(client.observe(request).await.unwrap().into_inner());
        }
        streams
    };
    let mut crowd: Vec<_> = join_all((0..connections).map(connect)).await.into_iter().flatten().collect();
    assert_eq!(told_next(&mut crowd).await, ["1 a starts"]);
    let token = members.leader().await.term.unwrap().token;
    let steps: [(&str, &[&str]); 2] =
        [("b", &["1 a TRANSFERRED", "2 b starts"]), ("", &["2 b RESIGNED", "2 vacant"])];
    let mut token = token;
    for (successor, expected) in steps {
        let successor_id = successor.to_owned();
        let request = ElectionResignRequest { name: NAME.into(), token, successor_id, ..Default::default() };
        let begun = std::time::Instant::now();
        let resigned = members.elections(0).resign(request).await.unwrap().into_inner();
        token = resigned.next.map_or(0, |next| next.token);
        for event in expected {
            assert_eq!(told_next(&mut crowd).await, [*event]);
        }
        eprintln!("{} observers were told {expected:?} within {:?}", crowd.len(), begun.elapsed());
    }
    renewing.iter().for_each(JoinHandle::abort);
}

/// The next event of each, which must be the same for all.
async fn told_next(crowd: &mut [Streaming<ElectionEvent>]) -> Vec<String> {
    let next = crowd.iter_mut().map(|stream| async {
        loop {
            let event = stream.message().await.unwrap().unwrap().event.unwrap();
            if !matches!(event, Event::Progress(_)) {
                return words(&[event]).remove(0);
            }
        }
    });
    let mut told = tokio::time::timeout(BOUND, join_all(next)).await.unwrap();
    told.dedup();
    told
}
