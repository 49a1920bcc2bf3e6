//! Candidates, leaders, observers: what each is told, and what no token, retry or loss can do.

use std::sync::{Arc, Mutex};

use tenure_proto::tenure::v1::campaign_event::{Event as Told, ended};
use tenure_proto::tenure::v1::election_leader_response::Pause;
use tenure_proto::tenure::v1::election_policy::Preemption;
use tenure_proto::tenure::v1::election_proclaim_response::Outcome as Proclaimed;
use tenure_proto::tenure::v1::election_resign_response::Outcome as Resigned;
use tenure_proto::tenure::v1::election_term::End;
use tenure_proto::tenure::v1::stand_response::Outcome as Stood;
use tenure_proto::tenure::v1::update_candidate_response::Outcome as Updated;
use tenure_proto::tenure::v1::withdraw_response::Outcome as Withdrew;
use tenure_proto::tenure::v1::*;
use tenure_recipes::election::{self, Elections};
use tenure_recipes::{Error, Reason, Root, session};

use crate::ground::{Ground, NAME, audit, campaign, words};
use crate::slow::Slow;
use crate::support::{Fault, Tasks, run};

/// A campaign that runs on, and what it has been told so far.
fn follow(tasks: &mut Tasks, ground: &Ground, request: CampaignRequest) -> Arc<Mutex<Vec<Told>>> {
    let told = Arc::new(Mutex::new(Vec::new()));
    let (seen, elections) = (told.clone(), ground.elections());
    tasks.start(async move {
        let mut campaign = elections.campaign(&request).await.unwrap().helping();
        while let Some((_, event)) = campaign.next().await.unwrap() {
            seen.lock().unwrap().push(event);
        }
    });
    tasks.settle();
    told
}

fn heard(told: &Arc<Mutex<Vec<Told>>>) -> Vec<String> {
    let word = |event: &Told| match event {
        Told::Waiting(waiting) => format!("waiting behind {}", waiting.ahead),
        Told::Elected(elected) => format!("elected {}", elected.epoch),
        Told::HandoverRequested(handover) => format!("hand over to {}", handover.to_candidate_id),
        Told::HandoverEnded(_) => "stay".to_owned(),
        Told::Ended(ended) => match ended.reason() {
            ended::Reason::TermEnded => format!("ended {}", ended.end().as_str_name()),
            reason => format!("ended {}", reason.as_str_name()),
        },
        Told::Progress(_) => "progress".to_owned(),
    };
    told.lock().unwrap().iter().map(word).collect()
}

#[test]
fn candidates_lead_one_after_the_other() {
    let ground = Ground::with([1, 2, 3]);
    assert_eq!(ground.stand("a", 1).outcome(), Stood::Leading);
    let second = ground.stand("b", 2);
    assert_eq!((second.outcome(), second.ahead, second.term.unwrap().epoch), (Stood::Queued, 0, 1));
    assert_eq!(ground.stand("c", 3).ahead, 1);
    let token = ground.token();
    let resigned = ground.resign(token);
    assert_eq!(resigned.outcome(), Resigned::Resigned);
    let next = resigned.next.unwrap();
    assert_eq!((next.epoch, next.leader.unwrap().id.as_str(), next.token), (2, "b", ground.token()));
    assert!(next.token > token);
    let leads = ground.stand("b", 2);
    let guard = leads.guard.clone().unwrap();
    assert_eq!((leads.outcome(), guard.token), (Stood::Leading, next.token));
    assert_eq!(ground.store.keys(&guard.compare.unwrap().key)[0].create_revision, next.token);
    assert_eq!(ground.ends(), [(1, "a".into(), End::Resigned), (2, "b".into(), End::Running)]);
    audit(&ground.store);
}

#[test]
fn a_lost_leader_is_followed_at_once_and_its_loss_is_on_record() {
    let ground = Ground::with([1, 2]);
    ground.stand("a", 1);
    ground.stand("b", 2);
    ground.pass(15, &[2]);
    ground.help();
    assert_eq!(ground.leads(), Some((2, "b".into())));
    assert_eq!(ground.ends()[0], (1, "a".into(), End::SessionExpired));
    audit(&ground.store);
}

#[test]
fn who_waits_is_elected_without_asking_anybody_once_the_leader_is_lost() {
    let ground = Ground::with([1, 2, 3]);
    let mut tasks = Tasks::default();
    let a = follow(&mut tasks, &ground, campaign("a", 1));
    let b = follow(&mut tasks, &ground, campaign("b", 2));
    let c = follow(&mut tasks, &ground, campaign("c", 3));
    assert_eq!((heard(&a), heard(&b)), (vec!["elected 1".into()], vec!["waiting behind 0".to_owned()]));
    ground.store.expire(1);
    tasks.settle();
    assert_eq!(heard(&a), ["elected 1", "ended SESSION_LOST"]);
    assert_eq!(heard(&b), ["waiting behind 0", "elected 2"]);
    assert_eq!(heard(&c), ["waiting behind 1"]);
    audit(&ground.store);
}

#[test]
fn a_campaign_ends_with_its_session_at_once_though_its_predecessor_stays() {
    let ground = Ground::with([1, 2]);
    ground.stand("a", 1);
    let mut tasks = Tasks::default();
    let b = follow(&mut tasks, &ground, campaign("b", 2));
    ground.pass(15, &[1]);
    tasks.settle();
    assert_eq!(heard(&b), ["waiting behind 0", "ended SESSION_LOST"]);
    assert_eq!(ground.leads(), Some((1, "a".into())));
    ground.open(2);
    let again = follow(&mut tasks, &ground, campaign("b", 2));
    ground.withdraw("b", 2);
    tasks.settle();
    assert_eq!(heard(&again), ["waiting behind 0", "ended WITHDRAWN"]);
}

#[test]
fn who_stands_without_a_session_is_told_so() {
    let ground = Ground::with([1]);
    let elections = ground.elections();
    let refused = run(async move { elections.stand(&campaign("a", 9)).await.unwrap_err() });
    assert!(matches!(refused, Error::Refused(refusal) if refusal.reason == Reason::SessionGone));
}

#[test]
fn an_old_terms_token_changes_nothing_though_the_same_candidate_leads_again() {
    let ground = Ground::with([1]);
    ground.stand("a", 1);
    let old = ground.token();
    assert_eq!(ground.proclaim(old, 1, "first"), Proclaimed::Proclaimed);
    ground.resign(old);
    ground.stand("a", 1);
    let new = ground.token();
    assert!(new > old);
    assert_eq!(ground.proclaim(old, 2, "late"), Proclaimed::NotCurrent);
    assert_eq!(ground.resign(old).outcome(), Resigned::Resigned, "that term did end by its word");
    assert_eq!(ground.depose(old).outcome(), depose_response::Outcome::NotCurrent);
    assert_eq!(ground.leads(), Some((2, "a".into())));
    assert_eq!(ground.history()[0].value, "first");
}

#[test]
fn a_resignation_whose_answer_was_lost_is_known_again_and_not_done_twice() {
    for fault in [Fault::ReplyLost, Fault::RequestLost] {
        let ground = Ground::with([1, 2, 3]);
        for (id, session) in [("a", 1), ("b", 2), ("c", 3)] {
            ground.stand(id, session);
        }
        let token = ground.token();
        // The read goes through, the step is hit.
        ground.store.on_txn(1, fault);
        assert_eq!(ground.resign(token).outcome(), Resigned::Resigned, "{fault:?}");
        assert_eq!(ground.leads(), Some((2, "b".into())));
        assert_eq!(ground.resign(token).outcome(), Resigned::Resigned);
        assert_eq!(ground.leads(), Some((2, "b".into())), "{fault:?}");
        audit(&ground.store);
    }
}

#[test]
fn a_proclamation_counts_once_and_in_its_order() {
    let ground = Ground::with([1]);
    ground.stand("a", 1);
    let token = ground.token();
    assert_eq!(ground.proclaim(token, 2, "two"), Proclaimed::Proclaimed);
    assert_eq!(ground.proclaim(token, 2, "two"), Proclaimed::Superseded);
    assert_eq!(ground.proclaim(token, 1, "one"), Proclaimed::Superseded);
    ground.store.on_txn(1, Fault::ReplyLost);
    assert_eq!(ground.proclaim(token, 3, "three"), Proclaimed::Proclaimed);
    let term = ground.leader().term.unwrap();
    assert_eq!((term.value.as_str(), term.seq, term.token), ("three", 3, token));
    assert_eq!(words(&ground.observed(1)), ["1 a starts"]);
}

#[test]
fn what_is_proclaimed_behind_the_loss_of_the_session_is_not_said() {
    let ground = Ground::with([1]);
    ground.stand("a", 1);
    let token = ground.token();
    ground.store.on_txn(1, Fault::Expires(1));
    assert_eq!(ground.proclaim(token, 1, "late"), Proclaimed::NotCurrent);
    ground.help();
    assert_eq!(ground.history()[0].value, "");
}

#[test]
fn who_withdraws_leaves_nothing_behind() {
    let ground = Ground::with([1, 2]);
    ground.stand("a", 1);
    ground.stand("b", 2);
    assert_eq!(ground.withdraw("b", 2), Withdrew::Withdrawn);
    assert_eq!(ground.withdraw("b", 2), Withdrew::NotStanding);
    assert_eq!(ground.withdraw("a", 1), Withdrew::Resigned);
    assert_eq!(ground.leads(), None);
    assert!(ground.store.keys(b"/_tenure/election/db%2Fmain/candidate").is_empty());
}

#[test]
fn two_processes_of_one_id_are_two_candidates() {
    let ground = Ground::with([1, 2]);
    ground.stand("a", 1);
    assert_eq!(ground.stand("a", 2).outcome(), Stood::Queued);
    ground.store.expire(1);
    ground.help();
    let term = ground.leader().term.unwrap();
    assert_eq!((term.epoch, term.leader.unwrap().session_id), (2, 2));
}

#[test]
fn a_vacancy_is_told_and_every_term_once() {
    let ground = Ground::with([1, 2]);
    let mut tasks = Tasks::default();
    let told = Arc::new(Mutex::new(Vec::new()));
    let (seen, elections) = (told.clone(), ground.elections());
    tasks.start(async move {
        let request = ElectionObserveRequest { name: NAME.into(), from_epoch: 1 };
        let mut observation = elections.observe(&request).await.unwrap();
        loop {
            let (_, event) = observation.next().await.unwrap();
            seen.lock().unwrap().push(event);
        }
    });
    tasks.settle();
    ground.stand("a", 1);
    let token = ground.token();
    ground.proclaim(token, 1, "x");
    ground.resign(token);
    tasks.settle();
    ground.stand("b", 2);
    ground.stand("a", 1);
    ground.store.expire(2);
    tasks.settle();
    // Nobody has put that end on record yet, and it is told all the same.
    let first = ["0 vacant", "1 a starts", "1 says x", "1 a RESIGNED", "1 vacant", "2 b starts"];
    let lost = ["2 b SESSION_EXPIRED", "2 vacant"];
    assert_eq!(words(&told.lock().unwrap()), [&first[..], &lost[..]].concat());
    ground.help();
    ground.resign(ground.token());
    tasks.settle();
    let last = ["3 a starts", "3 a RESIGNED", "3 vacant"];
    assert_eq!(words(&told.lock().unwrap()), [&first[..], &lost[..], &last[..]].concat());
    // Who comes later reads the same in the records.
    let replayed =
        ["1 a starts", "1 a RESIGNED", "1 vacant", "2 b starts", "2 b SESSION_EXPIRED", "2 vacant"];
    assert_eq!(words(&ground.observed(1)), [&replayed[..], &last[..]].concat());
    assert_eq!(words(&ground.observed(3)), last);
    assert_eq!(words(&ground.observed(0)), ["3 vacant"]);
}

/// What an observer is told who is away between its reading and its watching, while this happens and is compacted away.
fn told_to_one_who_was_away(ground: &Ground, from_epoch: i64, meanwhile: impl Fn()) -> Vec<String> {
    let mut tasks = Tasks::default();
    let told = Arc::new(Mutex::new(Vec::new()));
    let seen = told.clone();
    let elections = Elections::new(Slow(ground.store.clone()), Root::server());
    let observer = tasks.start(async move {
        let request = ElectionObserveRequest { name: NAME.into(), from_epoch };
        let mut observation = elections.observe(&request).await.unwrap();
        loop {
            let (_, event) = observation.next().await.unwrap();
            seen.lock().unwrap().push(event);
        }
    });
    // It asks for the present, then for the past, then for what comes.
    for _ in 0..3 {
        tasks.step(&observer);
    }
    meanwhile();
    ground.store.compact(ground.store.revision());
    tasks.settle();
    words(&told.lock().unwrap())
}

#[test]
fn an_observer_that_was_away_is_told_all_or_a_gap() {
    let ground = Ground::with([1]);
    ground.policy(ElectionPolicy { history_terms: 3, ..Default::default() });
    ground.stand("a", 1);
    let turns = |times| {
        for _ in 0..times {
            ground.resign(ground.token());
            ground.stand("a", 1);
        }
    };
    let told = told_to_one_who_was_away(&ground, 1, || turns(2));
    let all =
        ["1 a starts", "1 a RESIGNED", "1 vacant", "2 a starts", "2 a RESIGNED", "2 vacant", "3 a starts"];
    assert_eq!(told, all);
    // Away for longer than the records reach: the end of the term that it saw is missing as well.
    let told = told_to_one_who_was_away(&ground, 0, || turns(6));
    assert_eq!(told[..4], ["3 a starts", "gap 3-5", "6 a starts", "6 a RESIGNED"]);
    assert_eq!(told.last().unwrap(), "9 a starts");
    assert_eq!(ground.history().len(), 4, "three that are over, and the one under way");
    assert_eq!(words(&ground.observed(1))[..2], ["gap 1-5", "6 a starts"]);
}

#[test]
fn a_step_is_one_change_to_an_observer_and_nothing_is_read_again() {
    let ground = Ground::with([1, 2]);
    ground.stand("a", 1);
    let mut tasks = Tasks::default();
    for _ in 0..10 {
        let elections = ground.elections();
        tasks.start(async move {
            let request = ElectionObserveRequest { name: NAME.into(), from_epoch: 0 };
            let mut observation = elections.observe(&request).await.unwrap();
            loop {
                observation.next().await.unwrap();
            }
        });
    }
    tasks.settle();
    let token = ground.token();
    let changes = |tasks: &mut Tasks| {
        let before = ground.store.calls();
        tasks.settle();
        let after = ground.store.calls();
        assert_eq!((before.txns, before.ranges, before.watches), (after.txns, after.ranges, after.watches));
        after.changes - before.changes
    };
    ground.stand("b", 2);
    assert_eq!(changes(&mut tasks), 0, "who stands is no news to observers");
    ground.rank("b", 2, 1, 5);
    assert_eq!(changes(&mut tasks), 0);
    ground.resign_to(token, "b");
    assert_eq!(changes(&mut tasks), 10, "one change each");
    ground.store.expire(2);
    assert_eq!(changes(&mut tasks), 10);
}

#[test]
fn nobody_waits_once_the_leaders_lease_is_gone() {
    let ground = Ground::with([1, 2]);
    ground.stand("a", 1);
    ground.pass(15, &[2]);
    // All start anew; the first to ask leads, without having watched a lease run out.
    assert_eq!(ground.stand("b", 2).outcome(), Stood::Leading);
    assert_eq!(ground.leads(), Some((2, "b".into())));
}

#[test]
fn greater_priority_goes_first_then_greater_rank_then_who_stood_earlier() {
    let ground = Ground::with(1..=6);
    ground.stand("leader", 1);
    ground.stand("early", 2);
    ground.stand("late", 3);
    ground.stand_as(CampaignRequest { rank: 7, ..campaign("ahead", 4) });
    ground.stand_as(CampaignRequest { priority: 1, ..campaign("preferred", 5) });
    ground.stand_as(CampaignRequest { priority: 9, ineligible: true, ..campaign("watcher", 6) });
    assert_eq!(ground.rank("late", 3, 1, 8).outcome(), Updated::Updated);
    assert_eq!(ground.rank("late", 3, 1, 0).outcome(), Updated::Superseded);
    let mut order = Vec::new();
    while let Some((_, id)) = ground.leads() {
        order.push(id);
        ground.resign(ground.token());
    }
    assert_eq!(order, ["leader", "preferred", "late", "ahead", "early"]);
    assert_eq!(ground.leader().pause(), Pause::NoCandidate);
    let elections = ground.elections();
    let request = UpdateCandidateRequest {
        name: NAME.into(),
        session_id: 6,
        candidate_id: "watcher".into(),
        seq: 1,
        ineligible: Some(false),
        ..Default::default()
    };
    run(async move { elections.update_candidate(&request).await.unwrap() });
    assert_eq!(ground.leads(), Some((6, "watcher".into())));
}

#[test]
fn only_who_has_the_labels_that_the_policy_demands_is_elected() {
    let ground = Ground::with([1, 2]);
    let labels = |region: &str| [("region".to_owned(), region.to_owned())].into();
    ground.policy(ElectionPolicy { required_labels: labels("east"), ..Default::default() });
    ground.stand_as(CampaignRequest { labels: labels("west"), ..campaign("far", 1) });
    assert_eq!((ground.leads(), ground.leader().pause()), (None, Pause::NoCandidate));
    ground.stand_as(CampaignRequest { labels: labels("east"), ..campaign("near", 2) });
    assert_eq!(ground.leads(), Some((1, "near".into())));
}

#[test]
fn settling_waits_for_better_candidates_from_the_first_that_stands() {
    let ground = Ground::with([1, 2]);
    ground.policy(ElectionPolicy { settle_s: 5, ..Default::default() });
    ground.pass(30, &[1, 2]);
    ground.stand("boots first", 1);
    assert_eq!((ground.leads(), ground.leader().pause()), (None, Pause::Settle));
    ground.pass(3, &[1, 2]);
    ground.stand_as(CampaignRequest { rank: 1, ..campaign("better", 2) });
    ground.pass(1, &[1, 2]);
    ground.help();
    assert_eq!(ground.leads(), None);
    ground.pass(2, &[1, 2]);
    ground.help();
    assert_eq!(ground.leads(), Some((1, "better".into())));
    // Handing over does not wait: nobody is gone without having said so.
    ground.resign(ground.token());
    assert_eq!(ground.leads(), Some((2, "boots first".into())));
}

#[test]
fn behind_a_lost_leader_nobody_is_elected_before_the_lock_delay_is_over() {
    let ground = Ground::with([1, 2, 3]);
    ground.policy(ElectionPolicy { lock_delay_s: 20, ..Default::default() });
    for (id, session) in [("a", 1), ("b", 2), ("c", 3)] {
        ground.stand(id, session);
    }
    // Who goes by its own word is followed at once.
    ground.resign(ground.token());
    assert_eq!(ground.leads(), Some((2, "b".into())));
    ground.store.expire(2);
    ground.help();
    assert_eq!((ground.leads(), ground.leader().pause()), (None, Pause::LockDelay));
    for _ in 0..19 {
        ground.pass(1, &[3]);
        ground.help();
        assert_eq!(ground.leads(), None);
    }
    ground.pass(2, &[3]);
    ground.help();
    assert_eq!(ground.leads(), Some((3, "c".into())));
    audit(&ground.store);
}

#[test]
fn who_closed_its_session_is_followed_without_delay() {
    let ground = Ground::with([1, 2]);
    ground.policy(ElectionPolicy { lock_delay_s: 20, ..Default::default() });
    ground.stand("a", 1);
    ground.stand("b", 2);
    let store = ground.store.clone();
    run(async move { session::close(&store, &Root::server(), 77, 1, 0).await.unwrap() });
    ground.help();
    assert_eq!(ground.leads(), Some((2, "b".into())));
}

#[test]
fn who_leaves_by_its_keys_is_followed_in_one_revision() {
    let ground = Ground::with([1, 2]);
    ground.stand("a", 1);
    ground.stand("b", 2);
    for kv in ground.store.keys(b"/_tenure/").into_iter().filter(|kv| kv.lease == 1) {
        let store = ground.store.clone();
        run(async move { election::leave(&store, &Root::server(), &kv.key).await.unwrap() });
    }
    assert_eq!(ground.ends()[0], (1, "a".into(), End::Closed));
    assert_eq!(words(&ground.observed(1)), ["1 a starts", "1 a CLOSED", "2 b starts"]);
}

#[test]
fn a_delay_is_not_shortened_by_a_helper_that_died_before_it_was_put_down() {
    let ground = Ground::with([1, 2]);
    ground.policy(ElectionPolicy { lock_delay_s: 20, ..Default::default() });
    ground.stand("a", 1);
    ground.stand("b", 2);
    ground.store.expire(1);
    // The first helper grants the lease, and its txn never arrives.
    ground.store.on_txn(1, Fault::Refused);
    let store = ground.store.clone();
    run(async move { tenure_recipes::election::help(&store, &Root::server(), NAME).await.unwrap_err() });
    ground.pass(15, &[2]);
    ground.help();
    ground.pass(15, &[2]);
    ground.help();
    assert_eq!(ground.leads(), None);
    ground.pass(6, &[2]);
    ground.help();
    assert_eq!(ground.leads(), Some((2, "b".into())));
}

#[test]
fn no_leader_is_preempted_unless_the_policy_says_so_and_not_within_its_tenure() {
    let ground = Ground::with([1, 2]);
    ground.stand("a", 1);
    ground.stand_as(CampaignRequest { priority: 5, ..campaign("better", 2) });
    ground.pass(60, &[1, 2]);
    ground.help();
    assert_eq!(ground.leads(), Some((1, "a".into())), "never by default");

    let ground = Ground::with([1, 2]);
    let preemption = Preemption::Graceful.into();
    ground.policy(ElectionPolicy {
        preemption,
        min_tenure_s: 30,
        preemption_grace_s: 10,
        ..Default::default()
    });
    let mut tasks = Tasks::default();
    let a = follow(&mut tasks, &ground, campaign("a", 1));
    ground.stand_as(CampaignRequest { priority: 5, ..campaign("better", 2) });
    ground.pass(25, &[1, 2]);
    tasks.settle();
    assert_eq!(heard(&a), ["elected 1"]);
    ground.pass(7, &[1, 2]);
    tasks.settle();
    assert_eq!(heard(&a), ["elected 1", "hand over to better"]);
    ground.pass(12, &[1, 2]);
    tasks.settle();
    assert_eq!(heard(&a), ["elected 1", "hand over to better", "ended DEPOSED"]);
    assert_eq!(ground.leads(), Some((2, "better".into())));
    audit(&ground.store);
}

#[test]
fn an_operator_deposes_by_token() {
    let ground = Ground::with([1, 2]);
    ground.stand("a", 1);
    ground.stand("b", 2);
    let token = ground.token();
    let deposed = ground.depose(token);
    assert_eq!(deposed.outcome(), depose_response::Outcome::Deposed);
    assert_eq!(deposed.next.unwrap().leader.unwrap().id, "b");
    assert_eq!(ground.depose(token).outcome(), depose_response::Outcome::Deposed, "the same call again");
    assert_eq!(ground.leads(), Some((2, "b".into())));
    let term = &ground.history()[0];
    assert_eq!((term.end(), term.note.as_str()), (End::Deposed, "a test"));
    assert_eq!(ground.resign(token).outcome(), Resigned::NotCurrent);
}

#[test]
fn elections_are_listed_by_name_with_their_leaders() {
    let ground = Ground::with(1..=3);
    for (name, session) in [("db/a", 1), ("db/b", 2), ("web", 3)] {
        ground.stand_as(CampaignRequest { name: name.into(), ..campaign("x", session) });
    }
    ground.stand_as(CampaignRequest { name: "db/a".into(), ..campaign("y", 3) });
    ground.store.expire(2);
    let list = |prefix: &str, after: &str, limit| {
        let elections = ground.elections();
        let request = ListElectionsRequest { prefix: prefix.into(), after: after.into(), limit };
        run(async move { elections.list(&request).await.unwrap() })
    };
    let told = |page: &ListElectionsResponse| -> Vec<_> {
        page.elections.iter().map(|it| (it.name.clone(), it.vacant, it.candidates)).collect()
    };
    let all = list("", "", 0);
    assert_eq!(told(&all), [("db/a".into(), false, 1), ("db/b".into(), true, 0), ("web".into(), false, 0)]);
    assert_eq!(told(&list("db/", "", 1)), [("db/a".into(), false, 1)]);
    let second = list("db/", "db/a", 1);
    assert_eq!((told(&second), second.more), (vec![("db/b".into(), true, 0)], false));
}

#[test]
fn history_comes_in_pages_from_the_newest() {
    let ground = Ground::with([1]);
    for _ in 0..5 {
        ground.stand("a", 1);
        ground.resign(ground.token());
    }
    ground.stand("a", 1);
    let page = |before_epoch, limit| {
        let elections = ground.elections();
        let request = ElectionHistoryRequest { name: NAME.into(), before_epoch, limit };
        let response = run(async move { elections.history(&request).await.unwrap() });
        (response.terms.iter().map(|term| term.epoch).collect::<Vec<_>>(), response.more)
    };
    assert_eq!(page(0, 3), (vec![6, 5, 4], true));
    assert_eq!(page(4, 3), (vec![3, 2, 1], false));
    assert_eq!(page(0, 1), (vec![6], true));
    assert_eq!(page(1, 3), (vec![], false));
}
