//! Elections held against a reference so plain that it can be read at one sight: random calls, each with an answer lost or a request
//! refused somewhere on its way and then repeated, and sessions that end. After each the two must agree.

use proptest::prelude::*;
use tenure_proto::tenure::v1::election_term::End;
use tenure_proto::tenure::v1::*;
use tenure_recipes::election::Elections;
use tenure_recipes::{Error, Failure};

use crate::ground::{Ground, NAME, audit, campaign, transfer};
use crate::support::{Fault, Store, run};

const CLIENTS: usize = 4;

#[derive(Clone, Debug)]
enum Deed {
    Stand {
        who: usize,
        priority: i32,
        rank: i64,
    },
    Rank {
        who: usize,
        rank: i64,
    },
    Withdraw {
        who: usize,
    },
    Proclaim,
    Resign {
        to: Option<usize>,
        again: bool,
    },
    Depose,
    Transfer {
        to: usize,
        force: bool,
    },
    /// A session ends; its client opens another one.
    Lose {
        who: usize,
    },
    /// Long enough for everything that is on a timer.
    Wait,
}

fn deeds() -> impl Strategy<Value = Deed> {
    let who = 0..CLIENTS;
    prop_oneof![
        4 => (who.clone(), 0..3, 0..3i64).prop_map(|(who, priority, rank)| Deed::Stand { who, priority, rank }),
        1 => (who.clone(), 0..4i64).prop_map(|(who, rank)| Deed::Rank { who, rank }),
        1 => who.clone().prop_map(|who| Deed::Withdraw { who }),
        1 => Just(Deed::Proclaim),
        2 => (proptest::option::of(who.clone()), any::<bool>()).prop_map(|(to, again)| Deed::Resign { to, again }),
        1 => Just(Deed::Depose),
        2 => (who.clone(), any::<bool>()).prop_map(|(to, force)| Deed::Transfer { to, force }),
        1 => who.prop_map(|who| Deed::Lose { who }),
        1 => Just(Deed::Wait),
    ]
}

fn faults() -> impl Strategy<Value = Option<(usize, Fault)>> {
    let kinds = prop_oneof![Just(Fault::ReplyLost), Just(Fault::RequestLost), Just(Fault::Refused)];
    proptest::option::of((0..4usize, kinds))
}

#[derive(Clone, Debug, PartialEq)]
struct Standing {
    who: usize,
    priority: i32,
    rank: i64,
    since: usize,
}

#[derive(Default)]
struct Reference {
    lock_delay: bool,
    queue: Vec<Standing>,
    leader: Option<Standing>,
    ends: Vec<(usize, End)>,
    epoch: usize,
    delayed: bool,
    handover: Option<(usize, bool)>,
    /// The session that was to be handed over to ended: whoever stands by that name again is another.
    target_ended: bool,
    stood: usize,
    proclaimed: i64,
}

impl Reference {
    fn best(&self) -> Option<usize> {
        let order = |it: &&Standing| (-it.priority, -it.rank, it.since);
        self.queue.iter().min_by_key(order).map(|it| it.who)
    }

    fn waits(&self, who: usize) -> bool {
        self.queue.iter().any(|it| it.who == who)
    }

    fn target(&self) -> Option<usize> {
        self.handover.map(|(to, _)| to).filter(|to| self.waits(*to) && !self.target_ended)
    }

    fn enqueue(&mut self, who: usize, priority: i32, rank: i64) {
        self.stood += 1;
        self.queue.push(Standing { who, priority, rank, since: self.stood });
    }

    fn elect(&mut self, who: usize) {
        let at = self.queue.iter().position(|it| it.who == who).unwrap();
        self.leader = Some(self.queue.remove(at));
        self.epoch += 1;
        self.handover = None;
        self.proclaimed = 0;
    }

    fn end(&mut self, end: End) -> Standing {
        let leader = self.leader.take().unwrap();
        self.ends.push((leader.who, end));
        leader
    }

    fn settle(&mut self) {
        if self.leader.is_some() {
            self.handover = self.handover.filter(|(to, _)| self.queue.iter().any(|it| it.who == *to));
        } else if !self.delayed {
            match self.target().or(self.best()) {
                Some(who) => self.elect(who),
                None => self.handover = None,
            }
        }
    }

    fn take(&mut self, deed: &Deed) {
        let leads = self.leader.as_ref().map(|leader| leader.who);
        match *deed {
            Deed::Stand { who, priority, rank } if leads != Some(who) && !self.waits(who) => {
                self.enqueue(who, priority, rank);
            }
            Deed::Rank { who, rank } => {
                for it in self.queue.iter_mut().filter(|it| it.who == who) {
                    it.rank = rank;
                }
            }
            Deed::Withdraw { who } if leads == Some(who) => self.resign(None, false),
            Deed::Withdraw { who } => self.queue.retain(|it| it.who != who),
            Deed::Proclaim if leads.is_some() => self.proclaimed += 1,
            Deed::Resign { to, again } if leads.is_some() => self.resign(to, again),
            Deed::Depose if leads.is_some() => self.depose(),
            Deed::Transfer { to, force }
                if leads.is_some_and(|leader| leader != to) && self.waits(to) && self.handover.is_none() =>
            {
                (self.handover, self.target_ended) = (Some((to, force)), false);
            }
            Deed::Lose { who } => {
                self.target_ended |= self.handover.is_some_and(|(to, _)| to == who);
                self.queue.retain(|it| it.who != who);
                if leads == Some(who) {
                    self.end(End::SessionExpired);
                    self.delayed = self.lock_delay;
                }
            }
            Deed::Wait if self.delayed => self.delayed = false,
            // At its deadline a switchover is over, one way or the other.
            Deed::Wait if leads.is_some() => {
                let handover = self.handover.take();
                if handover.is_some_and(|(_, force)| force) {
                    self.handover = handover;
                    self.depose();
                }
            }
            _ => {}
        }
        self.settle();
    }

    fn resign(&mut self, to: Option<usize>, again: bool) {
        let by_name = to.is_some() || self.handover.is_some();
        let chosen = match to {
            Some(to) => Some(to).filter(|to| self.waits(*to)),
            None if by_name => self.target(),
            None => self.best(),
        };
        if by_name && chosen.is_none() {
            return;
        }
        let leader = self.end(if by_name { End::Transferred } else { End::Resigned });
        if let Some(who) = chosen {
            self.elect(who);
        }
        if again {
            self.enqueue(leader.who, leader.priority, leader.rank);
        }
    }

    fn depose(&mut self) {
        self.end(End::Deposed);
        self.delayed = self.lock_delay;
    }
}

/// What the clients do, and again if they get no answer.
struct Clients {
    ground: Ground,
    sessions: [i64; CLIENTS],
    /// Numbers for what must be another one each time.
    used: i64,
}

/// Twenty answers are not lost in a row.
fn insist<T: 'static>(mut call: impl AsyncFnMut() -> Result<T, Error> + 'static) -> T {
    run(async move {
        for _ in 0..20 {
            match call().await {
                Ok(answer) => return answer,
                Err(Error::Failed(Failure::Unknown(_) | Failure::Unavailable(_))) => {}
                Err(error) => panic!("{error}"),
            }
        }
        panic!("no answer")
    })
}

impl Clients {
    fn elections(&self) -> Elections<Store> {
        self.ground.elections()
    }

    fn token(&self) -> Option<i64> {
        let response = self.ground.leader();
        response.term.filter(|_| !response.vacant).map(|term| term.token)
    }

    fn take(&mut self, deed: &Deed, fault: Option<(usize, Fault)>) {
        self.used += 1;
        let token = self.token().unwrap_or(1);
        if let Some((behind, fault)) = fault {
            self.ground.store.on_txn(behind, fault);
        }
        let elections = self.elections();
        let name = || NAME.to_owned();
        match *deed {
            Deed::Stand { who, priority, rank } => {
                let request = CampaignRequest { priority, rank, ..campaign(&id(who), self.sessions[who]) };
                insist(async move || elections.stand(&request).await.map(drop));
            }
            Deed::Rank { who, rank } => {
                let request = UpdateCandidateRequest {
                    name: name(),
                    session_id: self.sessions[who],
                    candidate_id: id(who),
                    seq: self.used,
                    rank: Some(rank),
                    ..Default::default()
                };
                insist(async move || elections.update_candidate(&request).await.map(drop));
            }
            Deed::Withdraw { who } => {
                let (session_id, candidate_id) = (self.sessions[who], id(who));
                let request = WithdrawRequest { name: name(), session_id, candidate_id };
                insist(async move || elections.withdraw(&request).await.map(drop));
            }
            Deed::Proclaim => {
                let value = self.used.to_string();
                let request = ElectionProclaimRequest { name: name(), token, seq: self.used, value };
                insist(async move || elections.proclaim(&request).await.map(drop));
            }
            Deed::Resign { to, again } => {
                let successor_id = to.map(id).unwrap_or_default();
                let request = ElectionResignRequest {
                    name: name(),
                    token,
                    successor_id,
                    stand_again: again,
                    ..Default::default()
                };
                insist(async move || elections.resign(&request).await.map(drop));
            }
            Deed::Depose => {
                let request = DeposeRequest { name: name(), token, ..Default::default() };
                insist(async move || elections.depose(&request).await.map(drop));
            }
            Deed::Transfer { to, force } => {
                let transfer_id = format!("t{}", self.used);
                let request = TransferRequest { force, deadline_s: 5, ..transfer(&transfer_id, &id(to)) };
                insist(async move || elections.transfer(&request).await.map(drop));
            }
            Deed::Lose { who } => {
                self.ground.store.expire(self.sessions[who]);
                self.sessions[who] = 100 + self.used;
                self.ground.open(self.sessions[who]);
            }
            Deed::Wait => self.ground.pass(10, &self.sessions),
        }
        self.ground.store.no_faults();
        self.ground.help();
    }
}

fn id(who: usize) -> String {
    format!("c{who}")
}

fn agree(reference: &Reference, clients: &Clients) {
    let response = clients.ground.leader();
    let leads = response.term.as_ref().filter(|_| !response.vacant);
    let leads = leads.map(|term| (term.epoch, term.leader.as_ref().unwrap().id.clone()));
    let expected = reference.leader.as_ref().map(|leader| (reference.epoch as i64, id(leader.who)));
    assert_eq!(leads, expected);
    let queue: Vec<String> = response.candidates.iter().map(|it| it.id.clone()).collect();
    let mut expected = reference.queue.clone();
    expected.sort_by_key(|it| (-it.priority, -it.rank, it.since));
    assert_eq!(queue, expected.iter().map(|it| id(it.who)).collect::<Vec<_>>());
    let over: Vec<(String, End)> = (clients.ground.ends().into_iter())
        .filter(|(.., end)| *end != End::Running)
        .map(|(_, who, end)| (who, end))
        .collect();
    assert_eq!(over, reference.ends.iter().map(|(who, end)| (id(*who), *end)).collect::<Vec<_>>());
    let handover = response.handover.map(|handover| (handover.to_candidate_id, handover.force));
    assert_eq!(handover, reference.handover.map(|(to, force)| (id(to), force)));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn elections_do_what_the_plain_reference_does_whatever_is_lost_on_the_way(
        lock_delay: bool,
        steps in proptest::collection::vec((deeds(), faults()), 1..40),
    ) {
        let ground = Ground::with(1..=CLIENTS as i64);
        let lock_delay_s = if lock_delay { 3 } else { 0 };
        ground.policy(ElectionPolicy { lock_delay_s, ..Default::default() });
        let mut clients = Clients { ground, sessions: [1, 2, 3, 4], used: 0 };
        let mut reference = Reference { lock_delay, ..Reference::default() };
        for (deed, fault) in &steps {
            clients.take(deed, *fault);
            reference.take(deed);
            agree(&reference, &clients);
        }
        audit(&clients.ground.store);
    }
}
