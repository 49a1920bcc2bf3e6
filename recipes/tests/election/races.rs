//! Every interleaving of a few clients, call by call, with a bound on how often one is interrupted, and with the end of any session at any
//! point: each run is audited revision by revision.

use tenure_proto::tenure::v1::transfer_event::Phase;
use tenure_proto::tenure::v1::{CampaignRequest, ElectionResignRequest, TransferEvent, WithdrawRequest};
use tenure_recipes::Root;
use tenure_recipes::election::{Elections, help};

use crate::ground::{Ground, NAME, audit, campaign, transfer};
use crate::slow::Slow;
use crate::support::{Started, Tasks};

/// One run: which clients there are, and how it is told that they have ended.
struct Run {
    ground: Ground,
    tasks: Tasks,
    clients: Vec<Started<Vec<TransferEvent>>>,
}

/// The choices of one run, and how many there were at each point.
#[derive(Default)]
struct Choices {
    made: Vec<usize>,
    of: Vec<usize>,
    at: usize,
}

impl Choices {
    fn choose(&mut self, of: usize) -> usize {
        if self.at == self.made.len() {
            self.made.push(0);
            self.of.push(of);
        }
        self.at += 1;
        assert_eq!(self.of[self.at - 1], of, "a run repeats up to the choice that is new");
        self.made[self.at - 1]
    }

    /// The next run, if there is one: the last choice that was not the last of its kind is another one.
    fn next(&mut self) -> bool {
        self.at = 0;
        while let (Some(made), Some(of)) = (self.made.pop(), self.of.pop()) {
            if made + 1 < of {
                self.made.push(made + 1);
                self.of.push(of);
                return true;
            }
        }
        false
    }
}

/// All runs in which clients are interrupted, or sessions end, at most `interruptions` times in all. How many there were.
fn explore(
    interruptions: usize,
    sessions: &[i64],
    begin: impl Fn() -> Run,
    judge: impl Fn(&Ground, Vec<Vec<TransferEvent>>),
) -> usize {
    let mut choices = Choices::default();
    let mut runs = 0;
    loop {
        let mut run = begin();
        let mut left = interruptions;
        let mut alive = sessions.to_vec();
        let mut current = 0;
        while let Some(running) = unfinished(&run, current) {
            let others: Vec<usize> =
                (0..run.clients.len()).filter(|at| *at != running && !run.clients[*at].is_done()).collect();
            let options = if left == 0 { 1 } else { 1 + others.len() + alive.len() };
            let choice = choices.choose(options);
            left -= usize::from(choice > 0);
            current = running;
            if choice > others.len() {
                run.ground.store.expire(alive.remove(choice - 1 - others.len()));
                continue;
            }
            if choice > 0 {
                current = others[choice - 1];
            }
            run.tasks.step(&run.clients[current]);
        }
        // What the steward does once all is quiet.
        run.ground.help();
        audit(&run.ground.store);
        let response = run.ground.leader();
        assert!(!response.vacant || response.candidates.is_empty(), "somebody waits and nobody leads");
        judge(&run.ground, run.clients.iter().map(|client| client.result().unwrap_or_default()).collect());
        runs += 1;
        if !choices.next() {
            return runs;
        }
    }
}

fn unfinished(run: &Run, current: usize) -> Option<usize> {
    let count = run.clients.len();
    (current..count).chain(0..current).find(|at| !run.clients[*at].is_done())
}

async fn stand(elections: Elections<Slow>, request: CampaignRequest) -> Vec<TransferEvent> {
    // Without a session there is nothing to stand with.
    let _ = elections.stand(&request).await;
    Vec::new()
}

fn preferred(id: &str, session: i64) -> CampaignRequest {
    CampaignRequest { priority: 1, ..campaign(id, session) }
}

async fn stand_and_resign(elections: Elections<Slow>, id: &'static str, session: i64) -> Vec<TransferEvent> {
    if let Ok(stood) = elections.stand(&preferred(id, session)).await
        && let Some(guard) = stood.guard
    {
        let request = ElectionResignRequest {
            name: NAME.into(),
            token: guard.token,
            stand_again: true,
            ..Default::default()
        };
        elections.resign(&request).await.unwrap();
    }
    Vec::new()
}

#[test]
fn whoever_interrupts_whom_there_is_one_leader_and_nobody_waits_in_vain() {
    let begin = || {
        let ground = Ground::with([1, 2, 3]);
        let elections = Elections::new(Slow(ground.store.clone()), Root::server());
        let mut tasks = Tasks::default();
        let clients = vec![
            tasks.start(stand_and_resign(elections.clone(), "a", 1)),
            tasks.start(stand(elections.clone(), campaign("b", 2))),
            tasks.start(stand_and_resign(elections, "c", 3)),
        ];
        Run { ground, tasks, clients }
    };
    let runs = explore(2, &[1, 2, 3], begin, |_, _| {});
    assert!(runs > 500, "{runs}");
}

#[test]
fn whoever_interrupts_a_switchover_no_third_wins_it() {
    let begin = || {
        let ground = Ground::with([1, 2, 3]);
        ground.stand("a", 1);
        ground.stand("b", 2);
        let token = ground.token();
        let slow = Slow(ground.store.clone());
        let elections = Elections::new(slow.clone(), Root::server());
        let mut tasks = Tasks::default();
        let (operator, leader) = (elections.clone(), elections.clone());
        let clients = vec![
            tasks.start(async move {
                let Ok(mut following) = operator.transfer(&transfer("t", "b")).await else {
                    return Vec::new();
                };
                vec![following.next().await.unwrap().unwrap()]
            }),
            tasks.start(async move {
                let request = ElectionResignRequest { name: NAME.into(), token, ..Default::default() };
                leader.resign(&request).await.unwrap();
                Vec::new()
            }),
            tasks.start(stand(elections, campaign("c", 3))),
            tasks.start(async move {
                help(&slow, &Root::server(), NAME).await.unwrap();
                Vec::new()
            }),
        ];
        Run { ground, tasks, clients }
    };
    let judge = |ground: &Ground, told: Vec<Vec<TransferEvent>>| {
        let requested = told[0].iter().any(|event| event.phase() == Phase::Requested);
        let outcome = ground.transfer(transfer("t", "b"));
        if requested && outcome.phase() == Phase::Committed {
            let second = &ground.history()[1];
            assert_eq!((second.epoch, second.leader.as_ref().unwrap().id.as_str()), (2, "b"));
        }
        if requested && ground.leads().is_some_and(|(epoch, id)| epoch == 2 && id == "b") {
            assert_ne!(outcome.phase(), Phase::Aborted, "b leads");
        }
        if requested && ground.leads().is_some_and(|(epoch, id)| epoch == 2 && id == "c") {
            assert_eq!(outcome.phase(), Phase::Aborted, "c may lead only once it is said that b does not");
        }
    };
    let runs = explore(2, &[1, 2, 3], begin, judge);
    assert!(runs > 500, "{runs}");
}

#[test]
fn whoever_withdraws_and_is_told_so_does_not_lead_afterwards() {
    let begin = || {
        let ground = Ground::with([1, 2, 3]);
        ground.stand("a", 1);
        ground.stand("b", 2);
        let token = ground.token();
        let elections = Elections::new(Slow(ground.store.clone()), Root::server());
        let mut tasks = Tasks::default();
        let (leader, leaving) = (elections.clone(), elections.clone());
        let clients = vec![
            tasks.start(async move {
                let request = ElectionResignRequest { name: NAME.into(), token, ..Default::default() };
                leader.resign(&request).await.unwrap();
                Vec::new()
            }),
            tasks.start(async move {
                let request = WithdrawRequest { name: NAME.into(), session_id: 2, candidate_id: "b".into() };
                leaving.withdraw(&request).await.unwrap();
                Vec::new()
            }),
            tasks.start(stand(elections, preferred("c", 3))),
        ];
        Run { ground, tasks, clients }
    };
    let judge = |ground: &Ground, _| assert!(ground.leads().is_none_or(|(_, id)| id != "b"));
    let runs = explore(2, &[1, 2, 3], begin, judge);
    assert!(runs > 500, "{runs}");
}
