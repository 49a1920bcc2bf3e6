//! Planned switchovers: from one leader to the named next in one revision, or not at all.

use std::sync::{Arc, Mutex};

use tenure_proto::tenure::v1::campaign_event::Event as Told;
use tenure_proto::tenure::v1::election_event::Event;
use tenure_proto::tenure::v1::election_resign_response::Outcome as Resigned;
use tenure_proto::tenure::v1::election_term::End;
use tenure_proto::tenure::v1::transfer_event::{Phase, Reason};
use tenure_proto::tenure::v1::*;

use crate::ground::{Ground, NAME, audit, campaign, transfer};
use crate::support::Tasks;

/// Leads when it is elected, hands over when it is asked, and stands again.
async fn candidate(ground: Ground, id: &'static str, session: i64) {
    let elections = ground.elections();
    loop {
        let mut campaign = elections.campaign(&campaign(id, session)).await.unwrap();
        let mut token = 0;
        while let Some((_, event)) = campaign.next().await.unwrap() {
            match event {
                Told::Elected(elected) => token = elected.token,
                Told::HandoverRequested(handover) => {
                    let request = ElectionResignRequest {
                        name: NAME.into(),
                        token,
                        successor_id: handover.to_candidate_id,
                        successor_session_id: handover.to_session_id,
                        stand_again: true,
                        ..Default::default()
                    };
                    assert_eq!(elections.resign(&request).await.unwrap().outcome(), Resigned::Resigned);
                }
                _ => {}
            }
        }
    }
}

async fn observe(ground: Ground, told: Arc<Mutex<Vec<Event>>>) {
    let request = ElectionObserveRequest { name: NAME.into(), from_epoch: 1 };
    let mut observation = ground.elections().observe(&request).await.unwrap();
    loop {
        let (_, event) = observation.next().await.unwrap();
        told.lock().unwrap().push(event);
    }
}

#[test]
fn a_thousand_switchovers_have_no_vacancy_and_no_third_winner() {
    const TIMES: i64 = 1_000;
    let ground = Ground::with([1, 2, 3]);
    let mut tasks = Tasks::default();
    let observers: Vec<Arc<Mutex<Vec<Event>>>> = (0..3).map(|_| Arc::default()).collect();
    for (id, session) in [("a", 1), ("b", 2), ("c", 3)] {
        tasks.start(candidate(ground.clone(), id, session));
    }
    tasks.settle();
    for told in &observers {
        tasks.start(observe(ground.clone(), told.clone()));
    }
    let operating = ground.clone();
    let operator = tasks.start(async move {
        let mut leads = vec!["a"];
        for number in 0..TIMES {
            let others: Vec<&str> =
                ["a", "b", "c"].into_iter().filter(|id| leads.last() != Some(id)).collect();
            // Any order that is not always the same.
            let to = others[usize::try_from(number * number / 3 % 2).unwrap()];
            let request = transfer(&format!("t{number}"), to);
            let mut following = operating.elections().transfer(&request).await.unwrap();
            let mut phases = Vec::new();
            while let Some(event) = following.next().await.unwrap() {
                phases.push(event.phase());
                if event.phase() == Phase::Committed {
                    assert_eq!(event.epoch, number + 2);
                }
            }
            assert_eq!(phases, [Phase::Requested, Phase::Committed], "switchover {number} to {to}");
            leads.push(to);
        }
        leads
    });
    tasks.settle();
    let leads = operator.done();
    for told in &observers {
        let told = told.lock().unwrap();
        let mut expected = leads.iter().zip(1..);
        let mut running = None;
        for event in told.iter() {
            match event {
                Event::Started(term) => {
                    let (leader, epoch) = expected.next().unwrap();
                    assert_eq!((term.leader.as_ref().unwrap().id.as_str(), term.epoch), (*leader, epoch));
                    assert_eq!(running.replace(epoch), None);
                }
                Event::Ended(term) => {
                    assert_eq!(running.take(), Some(term.epoch));
                    assert_eq!(term.end(), End::Transferred);
                }
                other => panic!("no switchover tells this: {other:?}"),
            }
        }
        assert!(expected.next().is_none(), "every term was told");
    }
    audit(&ground.store);
}

fn three() -> Ground {
    let ground = Ground::with([1, 2, 3]);
    for (id, session) in [("a", 1), ("b", 2), ("c", 3)] {
        ground.stand(id, session);
    }
    ground
}

fn outcome(event: &TransferEvent) -> (Phase, Reason) {
    (event.phase(), event.reason())
}

#[test]
fn a_deadline_that_is_missed_leaves_the_leader_where_it_is() {
    let ground = three();
    let order = TransferRequest { deadline_s: 5, ..transfer("t", "c") };
    assert_eq!(outcome(&ground.transfer(order.clone())), (Phase::Requested, Reason::None));
    assert_eq!(outcome(&ground.transfer(order.clone())), (Phase::Requested, Reason::None), "attached again");
    assert_eq!(ground.transfer(transfer("other", "b")).reason(), Reason::Busy);
    ground.pass(7, &[1, 2, 3]);
    ground.help();
    assert_eq!(ground.leads(), Some((1, "a".into())));
    assert_eq!(outcome(&ground.transfer(order)), (Phase::Aborted, Reason::Deadline));
    // A leader that answers late hands over to nobody by mistake: it names its successor.
    assert_eq!(ground.resign_to(ground.token(), "c").outcome(), Resigned::Resigned);
    assert_eq!(ground.leads(), Some((2, "c".into())));
}

#[test]
fn by_force_the_leader_is_deposed_at_the_deadline_and_only_the_target_follows() {
    for lock_delay_s in [0, 10] {
        let ground = three();
        ground.policy(ElectionPolicy { lock_delay_s, ..Default::default() });
        let order = TransferRequest { deadline_s: 5, force: true, ..transfer("t", "c") };
        ground.transfer(order.clone());
        ground.pass(7, &[1, 2, 3]);
        ground.help();
        if lock_delay_s > 0 {
            assert_eq!(ground.leads(), None);
            ground.pass(12, &[1, 2, 3]);
            ground.help();
        }
        assert_eq!(ground.leads(), Some((2, "c".into())));
        let event = ground.transfer(order);
        assert_eq!(
            (outcome(&event), event.epoch, event.token),
            ((Phase::Forced, Reason::None), 2, ground.token())
        );
        assert_eq!(ground.history()[0].end(), End::Deposed);
        audit(&ground.store);
    }
}

#[test]
fn without_its_target_a_switchover_is_over_and_the_leader_stays() {
    let ground = three();
    assert_eq!(ground.transfer(transfer("nobody", "d")).reason(), Reason::TargetGone);
    ground.transfer(transfer("t", "c"));
    let token = ground.token();
    ground.store.expire(3);
    // The leader answers before anybody noticed: it stays, for it was asked to make way for c and nobody else.
    assert_eq!(ground.resign(token).outcome(), Resigned::NoSuchSuccessor);
    assert_eq!(ground.leads(), Some((1, "a".into())));
    assert_eq!(outcome(&ground.transfer(transfer("t", "c"))), (Phase::Aborted, Reason::TargetGone));
    assert_eq!(ground.resign_to(token, "c").outcome(), Resigned::NoSuchSuccessor);
    assert_eq!(ground.resign(token).outcome(), Resigned::Resigned);
    assert_eq!(ground.leads(), Some((2, "b".into())));
}

#[test]
fn a_leader_lost_in_a_switchover_is_followed_by_the_target() {
    let ground = three();
    let mut tasks = Tasks::default();
    let elections = ground.elections();
    let phases = tasks.start(async move {
        let mut following = elections.transfer(&transfer("t", "c")).await.unwrap();
        let mut phases = Vec::new();
        while let Some(event) = following.next().await.unwrap() {
            phases.push(event.phase());
        }
        phases
    });
    tasks.settle();
    ground.store.expire(1);
    ground.help();
    assert_eq!(ground.leads(), Some((2, "c".into())));
    tasks.settle();
    assert_eq!(phases.done(), [Phase::Requested, Phase::Vacant, Phase::Forced]);
}

#[test]
fn the_last_sixteen_outcomes_are_remembered() {
    let ground = three();
    for number in 0..20 {
        let order = transfer(&format!("t{number}"), "c");
        ground.transfer(order.clone());
        // Another successor: the switchover is superseded.
        let request = ElectionResignRequest {
            name: NAME.into(),
            token: ground.token(),
            successor_id: "b".into(),
            stand_again: true,
            ..Default::default()
        };
        ground.resign_as(request);
        assert_eq!(outcome(&ground.transfer(order)), (Phase::Aborted, Reason::Superseded));
        let back = ground.leader().candidates.iter().find(|it| it.id == "a").map(|it| it.id.clone()).unwrap();
        let request = ElectionResignRequest {
            name: NAME.into(),
            token: ground.token(),
            successor_id: back,
            stand_again: true,
            ..Default::default()
        };
        ground.resign_as(request);
    }
    assert_eq!(ground.store.keys(b"/_tenure/election/db%2Fmain/transfer/").len(), 16);
    assert_eq!(ground.transfer(transfer("t19", "c")).reason(), Reason::Superseded);
}

#[test]
fn a_switchover_to_who_leads_is_done_and_one_without_a_leader_is_refused() {
    let ground = three();
    let event = ground.transfer(transfer("t", "a"));
    assert_eq!((event.phase(), event.epoch, event.token), (Phase::Committed, 1, ground.token()));
    let empty = Ground::with([1]);
    assert_eq!(empty.transfer(transfer("t", "a")).reason(), Reason::NoLeader);
}

#[test]
fn an_outcome_survives_that_its_follower_was_away() {
    let ground = three();
    let mut tasks = Tasks::default();
    let elections = ground.elections();
    let follower = tasks.start(async move {
        let mut following = elections.transfer(&transfer("t", "c")).await.unwrap();
        let mut last = TransferEvent::default();
        while let Some(event) = following.next().await.unwrap() {
            last = event;
        }
        last
    });
    tasks.step(&follower);
    ground.resign(ground.token());
    let (epoch, token) = (2, ground.token());
    ground.stand("a", 1);
    ground.store.compact(ground.store.revision());
    tasks.settle();
    let last = follower.done();
    assert_eq!((last.phase(), last.epoch, last.token), (Phase::Committed, epoch, token));
}
