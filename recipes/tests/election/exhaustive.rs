//! Every interleaving of a few clients, call by call, with the end of any of their sessions at any moment: each revision of each path is
//! audited, whoever lives gets its term, and no third wins a switchover.
//!
//! The short form leaves out what takes minutes, above all the ends of sessions, of which races.rs has the paths with few interruptions;
//! TENURE_LONG=1 has all of it.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::Poll;

use tenure_proto::tenure::v1::campaign_event::Event as Told;
use tenure_proto::tenure::v1::election_term::End;
use tenure_proto::tenure::v1::transfer_event::{Phase, Reason as Cause};
use tenure_proto::tenure::v1::{CampaignRequest, ElectionResignRequest, TransferEvent};
use tenure_recipes::election::{Campaign, Elections, help};
use tenure_recipes::{Error, Primitives, Reason, Root};

use crate::ground::{Ground, NAME, audit, campaign, transfer};
use crate::support::explore::{Gated, Scene, explore};
use crate::support::run;

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

fn look_after(scene: &mut Scene) {
    scene.steward(|store| async move { help(&store, &Root::server(), NAME).await.unwrap() });
}

fn open(scene: &mut Scene, session: i64) {
    let store = scene.store.clone();
    run(async move { store.grant(session, 10).await.unwrap() });
    scene.mortal.push(session);
}

fn every_order_of(clients: i64, waiting: bool, deaths_max: usize, whole_looks: bool) {
    let begin = || {
        let mut scene = Scene::default();
        (scene.deaths_max, scene.whole_looks, scene.counts_tries) = (deaths_max, whole_looks, true);
        for session in 1..=clients {
            open(&mut scene, session);
            // The last to come is the first to be elected, if it comes in time.
            let priority = i32::from(session == clients);
            let request = CampaignRequest { priority, ..campaign(&format!("c{session}"), session) };
            if waiting {
                scene.client(true, move |store| take_a_term(store, request, false));
            } else {
                scene.client(true, move |store| take_a_term_at_once(store, request));
            }
        }
        look_after(&mut scene);
        scene
    };
    let explored = explore(
        begin,
        |_, _| {},
        |scene, over, path| {
            // At each step: of what was before a state that was seen, nothing is looked at again.
            let said = catch_unwind(AssertUnwindSafe(|| audit(&scene.store)));
            assert!(said.is_ok(), "after {path:?}");
            if over {
                let left = Ground { store: scene.store.clone() }.leader();
                let seen_to = if waiting { left.vacant } else { !left.vacant };
                assert!(seen_to || left.candidates.is_empty(), "somebody is left after {path:?}");
            }
        },
    );
    assert!(explored.ends > 0);
    eprintln!("{clients} candidates, {deaths_max} ends of sessions: {explored:?}");
}

#[test]
fn whoever_lives_gets_its_term() {
    every_order_of(2, true, 0, true);
    every_order_of(2, true, 0, false);
    if std::env::var_os("TENURE_LONG").is_some() {
        every_order_of(2, false, 1, true);
        every_order_of(2, true, 1, true);
        every_order_of(3, false, 0, true);
        every_order_of(3, false, 1, true);
        every_order_of(3, true, 0, true);
        every_order_of(2, false, 2, false);
    }
}

/// The leader a hands over to b when it is asked to; c comes, would be preferred, and hands over as well.
fn every_order_of_a_switchover(deaths_max: usize, whole_looks: bool) {
    // Of the path under way; the scene is made anew for each.
    let told: Arc<Mutex<Vec<TransferEvent>>> = Arc::default();
    let begin = || {
        let mut scene = Scene::default();
        (scene.deaths_max, scene.whole_looks, scene.counts_tries) = (deaths_max, whole_looks, true);
        (1..=3).for_each(|session| open(&mut scene, session));
        let ground = Ground { store: scene.store.clone() };
        ground.stand("a", 1);
        ground.stand("b", 2);
        scene.client(false, |store| take_a_term(store, campaign("a", 1), true));
        let preferred = CampaignRequest { priority: 1, ..campaign("c", 3) };
        scene.client(false, |store| take_a_term(store, preferred, true));
        look_after(&mut scene);
        told.lock().unwrap().clear();
        let heard = told.clone();
        scene.client(true, move |store| async move {
            let elections = Elections::new(store, Root::server());
            let mut following = elections.transfer(&transfer("t", "b")).await.unwrap();
            while let Some(event) = following.next().await.unwrap() {
                heard.lock().unwrap().push(event);
            }
        });
        scene
    };
    let explored = explore(
        begin,
        |_, _| {},
        |scene, over, path| {
            let said = catch_unwind(AssertUnwindSafe(|| audit(&scene.store)));
            assert!(said.is_ok(), "after {path:?}");
            if over {
                let ground = Ground { store: scene.store.clone() };
                let said = catch_unwind(AssertUnwindSafe(|| {
                    judge(&ground, told.lock().unwrap().last().unwrap(), deaths_max);
                }));
                assert!(said.is_ok(), "after {path:?}");
            }
        },
    );
    assert!(explored.ends > 0);
    eprintln!("a switchover, {deaths_max} ends of sessions: {explored:?}");
}

fn judge(ground: &Ground, outcome: &TransferEvent, deaths_max: usize) {
    let history = ground.history();
    let term = |epoch: i64| &history[usize::try_from(epoch).unwrap() - 1];
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
