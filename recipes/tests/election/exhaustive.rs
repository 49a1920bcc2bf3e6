//! Every interleaving of a few clients, call by call, with the end of any of their sessions at any moment: each revision of each path is
//! audited, whoever lives gets its term, and no third wins a switchover.
//!
//! The short form leaves out what takes minutes, above all the ends of sessions, of which races.rs has the paths with few interruptions;
//! TENURE_LONG=1 has all of it.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Instant;

use prost::Message;
use tenure_proto::etcdserverpb::TxnRequest;
use tenure_proto::mvccpb::KeyValue;
use tenure_proto::tenure::v1::campaign_event::Event as Told;
use tenure_proto::tenure::v1::election_term::End;
use tenure_proto::tenure::v1::transfer_event::{Phase, Reason as Cause};
use tenure_proto::tenure::v1::{
    CampaignRequest, ElectionHistoryRequest, ElectionLeaderRequest, ElectionLeaderResponse,
    ElectionResignRequest, ElectionTerm, TransferEvent,
};
use tenure_recipes::election::{Campaign, Elections, help};
use tenure_recipes::{Error, Reason, Root};

use crate::ground::{NAME, audit_since, campaign, transfer};
use crate::support::explore::{Answer, Ask, Forgotten, Gated, Planted, Rules, Scene, Shelf, explore, finds};

/// What happens next to a candidate. While nothing does, all it knows is how it stands.
async fn next(store: &Gated, following: &mut Campaign<Gated>) -> Option<Told> {
    loop {
        let told = {
            let mut next = pin!(following.next());
            poll_fn(|context| match next.as_mut().poll(context) {
                Poll::Ready(told) => Poll::Ready(Some(told.unwrap())),
                Poll::Pending if store.is_asking() => Poll::Pending,
                Poll::Pending => Poll::Ready(None),
            })
            .await
        };
        if let Some(told) = told {
            return told.map(|(_, event)| event);
        }
        store.knows(&stands(&format!("{following:?}")));
        let mut waited = false;
        poll_fn(|_| if std::mem::replace(&mut waited, true) { Poll::Ready(()) } else { Poll::Pending }).await;
    }
}

/// The same for all revisions up to which nothing was missed.
fn stands(following: &str) -> String {
    let (before, behind) = following.split_once(", revision: ").expect("a campaign has one");
    format!("{before}{}", behind.trim_start_matches(|digit: char| digit.is_ascii_digit()))
}

/// Stands, leads, resigns; to whoever it is asked to hand over to, if it waits for that.
async fn take_a_term(store: Gated, request: CampaignRequest, hands_over: bool) {
    store.knows(&"its wish");
    let elections = Elections::new(store.clone(), Root::server());
    let mut following = match elections.campaign(&request).await {
        Ok(campaign) => campaign,
        Err(Error::Refused(refusal)) if refusal.reason == Reason::SessionGone => return,
        Err(error) => panic!("{error}"),
    };
    let mut token = 0;
    while let Some(event) = next(&store, &mut following).await {
        let successor_id = match event {
            Told::Elected(elected) => {
                token = elected.token;
                String::new()
            }
            Told::HandoverRequested(handover) => handover.to_candidate_id,
            _ => continue,
        };
        if successor_id.is_empty() == hands_over {
            continue;
        }
        store.knows(&(stands(&format!("{following:?}")), token, &successor_id));
        let request = ElectionResignRequest {
            name: NAME.into(),
            token,
            successor_id,
            ..ElectionResignRequest::default()
        };
        elections.resign(&request).await.unwrap();
    }
}

/// The same without waiting: who is not elected at once stays in line.
async fn take_a_term_at_once(store: Gated, request: CampaignRequest) {
    let elections = Elections::new(store, Root::server());
    let Ok(stood) = elections.stand(&request).await else { return };
    let Some(guard) = stood.guard else { return };
    let request = ElectionResignRequest { name: NAME.into(), token: guard.token, ..Default::default() };
    elections.resign(&request).await.unwrap();
}

/// Everybody's rules: from the eighth time that others were faster, recipes go by that.
fn rules(deaths_max: usize, whole_looks: bool) -> Rules {
    const TRIES_IN_ORDER: u32 = 8;
    let (tries_max, forgotten) = (Some(TRIES_IN_ORDER), Some(is_forgotten as Forgotten));
    Rules {
        deaths_max,
        whole_looks,
        tries_max,
        forgotten,
        forgetful: true,
        minded: Some(is_minded),
        planted: None,
    }
}

/// The record of a term is looked for by who had it, and by the revision since which it stood or led: nobody asks for the record of a
/// candidate that has come to its end, nor goes by it on finding it. Candidates are numbered as their sessions, which count from 1.
fn is_forgotten(kv: &KeyValue, has_ended: &dyn Fn(usize) -> bool) -> bool {
    if !kv.key.windows(6).any(|part| part == b"/past/") {
        return false;
    }
    let leader = ElectionTerm::decode(kv.value.clone()).unwrap().leader.unwrap();
    has_ended(usize::try_from(leader.session_id - 1).unwrap())
}

/// Who follows its candidacy goes by its own candidate, by terms and by switchovers: not by other candidates, nor by the key of the last
/// term, which is written with the others.
fn is_minded(kv: &KeyValue, client: usize) -> bool {
    let has = |part: &[u8]| kv.key.windows(part.len()).any(|bytes| bytes == part);
    let own = format!("/{:016x}", client + 1);
    !has(b"/term/now") && (!has(b"/candidate/") || has(own.as_bytes()))
}

fn look_after(scene: &mut Scene) {
    scene.steward(|store| async move { help(&store, &Root::server(), NAME).await.unwrap() });
}

/// At each step: of what was before, nothing is looked at again.
fn audit(before: &Scene, after: &Scene) {
    let changes = after.store.changes_since(before.store.revision()).cloned();
    audit_since(&before.store.keys(), changes);
}

fn leader(scene: &Scene) -> ElectionLeaderResponse {
    let request = ElectionLeaderRequest { name: NAME.into(), detail: true };
    scene.store.told(move |store| {
        let request = request.clone();
        async move { Elections::new(store, Root::server()).leader(&request).await.unwrap() }
    })
}

fn candidates(clients: i64, waiting: bool, rules: Rules) -> Scene {
    let mut scene = Scene::new(rules);
    for session in 1..=clients {
        // The last to come is the first to be elected, if it comes in time.
        let priority = i32::from(session == clients);
        let request = CampaignRequest { priority, ..campaign(&format!("c{session}"), session) };
        if waiting {
            scene.client_of(session, move |store| take_a_term(store, request.clone(), false));
        } else {
            scene.client_of(session, move |store| take_a_term_at_once(store, request.clone()));
        }
    }
    look_after(&mut scene);
    scene
}

fn check(scene: &Scene, over: bool, waiting: bool) {
    if over {
        let left = leader(scene);
        let seen_to = if waiting { left.vacant } else { !left.vacant };
        assert!(seen_to || left.candidates.is_empty(), "somebody is left");
    }
}

fn every_order_of(clients: i64, waiting: bool, deaths_max: usize, whole_looks: bool) {
    let scene = candidates(clients, waiting, rules(deaths_max, whole_looks));
    let begun = Instant::now();
    let explored = explore(scene, audit, |scene, over| check(scene, over, waiting));
    assert!(explored.ends > 0);
    let what = if waiting { "who wait" } else { "who do not wait" };
    let (looks, seconds) = (if whole_looks { "whole" } else { "torn" }, begun.elapsed().as_secs());
    eprintln!(
        "{clients} candidates {what}, {deaths_max} ends of sessions, {looks} looks: {explored:?}, {seconds} s"
    );
}

/// Two with the end of both their sessions, three with the end of none; in the long form three with the end of any one.
#[test]
fn whoever_lives_gets_its_term() {
    every_order_of(2, true, 0, false);
    every_order_of(2, true, 2, true);
    every_order_of(3, false, 0, true);
    every_order_of(3, true, 0, true);
    if std::env::var_os("TENURE_LONG").is_some() {
        every_order_of(2, false, 2, false);
        every_order_of(3, false, 1, true);
        every_order_of(3, true, 1, true);
    }
}

/// Does what was asked whatever has happened since the look.
fn ignores_what_is_compared(store: &mut Shelf, ask: &Ask) -> Option<Answer> {
    match ask {
        Ask::Txn(txn) => store.answer(&Ask::Txn(TxnRequest { compare: Vec::new(), ..txn.clone() })),
        other => store.answer(other),
    }
}

/// Does not see that somebody better has come since the look.
fn ignores_who_came_since(store: &mut Shelf, ask: &Ask) -> Option<Answer> {
    let Ask::Txn(mut txn) = ask.clone() else { return store.answer(ask) };
    txn.compare.retain(|compare| compare.range_end.is_empty());
    store.answer(&Ask::Txn(txn))
}

#[test]
fn planted_mistakes_are_found() {
    let with = |planted: Planted, deaths_max: usize| {
        let rules = Rules { planted: Some(planted), ..rules(deaths_max, true) };
        explore(candidates(2, true, rules), audit, |scene, over| check(scene, over, true))
    };
    finds("a holder key is put once", || with(ignores_what_is_compared, 0));
    finds("was the best at revision", || with(ignores_who_came_since, 0));
}

/// The leader a hands over to b when it is asked to; c comes, would be preferred, and hands over as well.
fn every_order_of_a_switchover(deaths_max: usize, whole_looks: bool) {
    let mut scene = Scene::new(Rules {
        forgotten: None,
        minded: None,
        forgetful: false,
        ..rules(deaths_max, whole_looks)
    });
    for session in 1..=3 {
        scene.open(session);
    }
    for (id, session) in [("a", 1), ("b", 2)] {
        scene.prepare(move |store| async move {
            Elections::new(store, Root::server()).stand(&campaign(id, session)).await.unwrap()
        });
    }
    scene.client(false, |store| take_a_term(store, campaign("a", 1), true));
    let preferred = CampaignRequest { priority: 1, ..campaign("c", 3) };
    scene.client(false, move |store| take_a_term(store, preferred.clone(), true));
    look_after(&mut scene);
    const OPERATOR: usize = 3;
    scene.client(true, |store| async move {
        let mut following =
            Elections::new(store, Root::server()).transfer(&transfer("t", "b")).await.unwrap();
        let mut last = None;
        while let Some(event) = following.next().await.unwrap() {
            last = Some(event);
        }
        last.expect("a switchover has an outcome")
    });
    let begun = Instant::now();
    let explored = explore(scene, audit, |scene, over| {
        if over {
            let outcome: TransferEvent = scene.outcome(OPERATOR).expect("the operator is told the outcome");
            judge(scene, &outcome, deaths_max);
        }
    });
    assert!(explored.ends > 0);
    let (looks, seconds) = (if whole_looks { "whole" } else { "torn" }, begun.elapsed().as_secs());
    eprintln!("a switchover, {deaths_max} ends of sessions, {looks} looks: {explored:?}, {seconds} s");
}

fn judge(scene: &Scene, outcome: &TransferEvent, deaths_max: usize) {
    let history = scene.store.told(|store| async move {
        let request = ElectionHistoryRequest { name: NAME.into(), before_epoch: 0, limit: 1_000 };
        Elections::new(store, Root::server()).history(&request).await.unwrap().terms
    });
    // The newest comes first.
    let term = |epoch: i64| history.iter().find(|term| term.epoch == epoch).unwrap();
    if deaths_max == 0 {
        assert_eq!((outcome.phase(), outcome.epoch), (Phase::Committed, 2));
    }
    match outcome.phase() {
        // Nobody was asked: b had become the leader by then.
        Phase::Committed if outcome.handover.is_none() => {}
        Phase::Committed => {
            let (old, new) = (term(outcome.epoch - 1), term(outcome.epoch));
            assert_eq!((new.token, new.leader.as_ref().unwrap().id.as_str()), (outcome.token, "b"));
            assert_eq!((old.end(), old.end_revision), (End::Transferred, new.token), "no vacancy between");
        }
        Phase::Forced => {
            let (old, new) = (term(outcome.epoch - 1), term(outcome.epoch));
            assert_eq!((old.end(), new.leader.as_ref().unwrap().id.as_str()), (End::SessionExpired, "b"));
        }
        // b is dead, or nobody led at that moment.
        Phase::Aborted => assert!(matches!(outcome.reason(), Cause::TargetGone | Cause::NoLeader)),
        other => panic!("{other:?} is no outcome"),
    }
}

#[test]
fn no_third_wins_a_switchover_whoever_dies_and_when() {
    every_order_of_a_switchover(0, true);
    if std::env::var_os("TENURE_LONG").is_some() {
        every_order_of_a_switchover(1, true);
        every_order_of_a_switchover(0, false);
    }
}
