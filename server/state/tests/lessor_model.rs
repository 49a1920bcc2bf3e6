//! The lessor against two models, under random histories. *Naive*: every lease a deadline, one leader. *Cluster*: what
//! clients were promised, over changes of leader, with proposals that are lost, late, repeated and out of order, members that
//! are told of renewals late or never, and old leaders that do not know yet that they are.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proptest::prelude::*;
use tenure_state::{Effect, Lasting, Lease, LeaseId, Lessor, Millis, Pace, Recollection, Renewal, Standing};

const PACE: Pace =
    Pace { expiries_per_second: 1_000, spread_ms_max: 10_000, checkpoint_interval_ms: Some(7_000) };
const MEMBERS: usize = 3;

#[derive(Clone, Debug)]
enum Step {
    WaitMs(u64),
    /// A lease, and its TTL in seconds.
    Grant(i64, i64),
    Revoke(i64),
    /// A renewal arrives. It is answered once its proof of leadership has come and a majority was told, which is any time later.
    Ask(i64),
    Prove(usize),
    /// A member is to be told of it.
    Tell(usize, usize),
    Answer(usize),
    /// The next thing that was said to this member arrives.
    Deliver(usize),
    /// A member gives its vote to the leader, if it has not yet.
    Vote(usize),
    /// A member is asked what it knows.
    Recall(usize),
    Recalled,
    /// The leader teaches a member, knowing how that stood then or now.
    Teach(usize, bool),
    MembersChanged,
    /// At most so many leases in one proposal.
    ProposeExpired(usize),
    ProposeCheckpoints,
    Apply(usize),
    /// The proposer is told that its proposal failed; it may still be applied later.
    Fail(usize),
    /// The proposal is truly lost.
    Lose(usize),
    /// After a pause of so many milliseconds this member leads, by its own vote and the next member's or the one's after that; it
    /// may take up the count before it has followed all effects.
    ChangeLeader(u64, usize, bool, usize),
    /// A member that was behind follows what was applied.
    CatchUp(usize),
    /// A member that does not lead is sent the whole state.
    Restore(usize),
    /// A member that does not lead is started again, with the state it had come to.
    Crash(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let id = 1..4i64;
    prop_oneof![
        5 => (0..6_000u64).prop_map(Step::WaitMs),
        3 => (id.clone(), 1..30i64).prop_map(|(id, ttl_s)| Step::Grant(id, ttl_s)),
        1 => id.clone().prop_map(Step::Revoke),
        8 => id.prop_map(Step::Ask),
        6 => (0..3usize).prop_map(Step::Prove),
        10 => (0..3usize, 0..MEMBERS).prop_map(|(which, member)| Step::Tell(which, member)),
        8 => (0..3usize).prop_map(Step::Answer),
        12 => (0..MEMBERS).prop_map(Step::Deliver),
        3 => (0..MEMBERS).prop_map(Step::Vote),
        4 => (0..MEMBERS).prop_map(Step::Recall),
        4 => Just(Step::Recalled),
        4 => (0..MEMBERS, any::<bool>()).prop_map(|(member, stale)| Step::Teach(member, stale)),
        1 => Just(Step::MembersChanged),
        3 => (1..4usize).prop_map(Step::ProposeExpired),
        3 => Just(Step::ProposeCheckpoints),
        4 => (0..3usize).prop_map(Step::Apply),
        1 => (0..3usize).prop_map(Step::Fail),
        1 => (0..3usize).prop_map(Step::Lose),
        2 => (0..5_000u64, 0..MEMBERS, any::<bool>(), 1..MEMBERS)
            .prop_map(|(ms, to, late, voter)| Step::ChangeLeader(ms, to, late, voter)),
        2 => (0..MEMBERS).prop_map(Step::CatchUp),
        1 => (0..MEMBERS).prop_map(Step::Restore),
        1 => (0..MEMBERS).prop_map(Step::Crash),
    ]
}

#[derive(Clone, Debug)]
enum Proposal {
    Expire { term: u64, leases: Vec<(LeaseId, u64)> },
    Checkpoint { term: u64, id: LeaseId, epoch: u64, remaining_s: i64 },
}

/// What each member has of leases beside the log.
struct Member {
    lessor: Lessor,
    /// Its clock starts elsewhere.
    clock_offset: u64,
    /// Applied and not yet followed here.
    behind: Vec<Effect>,
    /// The state that it has come to, and the index.
    remembered: BTreeMap<LeaseId, Lease>,
    followed: u64,
    /// The term of the leader that has its vote.
    vote: u64,
    /// What was said to it and has not arrived yet, and in which term, in this order.
    lane: VecDeque<(u64, Said)>,
    /// How it stood when it was last asked.
    standing: Standing,
}

#[derive(Clone, Debug)]
enum Said {
    /// Of the question of this number.
    Renewal(u64, LeaseId),
    Lesson(u64, u64, Vec<Lasting>),
}

/// A renewal that waits for its proof, and for enough members to be told.
struct Question {
    number: u64,
    lease: LeaseId,
    /// Which of the leases that had this id, one after the other.
    birth: u64,
    asked: u64,
    /// Who was asked, and as the leader of which term.
    leader: usize,
    term: u64,
    proven: bool,
    told: BTreeSet<usize>,
}

/// A cluster with one leader at a time, and old ones that have not noticed. `now` is the time that all live in.
struct Cluster {
    now: u64,
    members: Vec<Member>,
    leader: usize,
    term: u64,
    index: u64,
    remembered: BTreeMap<LeaseId, Lease>,
    in_flight: Vec<Proposal>,
    questions: Vec<Question>,
    number: u64,
    /// What others told the leader that they know, by its clock.
    answers: BTreeMap<usize, Vec<(LeaseId, Millis)>>,
    /// How many leases had each id.
    births: BTreeMap<LeaseId, u64>,
    /// When the last lease of each id ran out.
    ended: BTreeMap<LeaseId, u64>,
    /// Until when each client may count on its lease.
    promised: BTreeMap<LeaseId, u64>,
    /// Renewals answered with "leaving": these leases must not be renewed under this leader.
    leaving: BTreeSet<LeaseId>,
}

impl Cluster {
    fn new() -> Cluster {
        let member = |number: usize| Member {
            lessor: Lessor::new(PACE),
            clock_offset: number as u64 * 12_345,
            behind: Vec::new(),
            remembered: BTreeMap::new(),
            followed: 0,
            vote: 1,
            lane: VecDeque::new(),
            standing: Standing::default(),
        };
        let mut members: Vec<_> = (0..MEMBERS).map(member).collect();
        members[0].lessor.promote(1, 0, Millis(0), [], 1_000);
        Cluster {
            now: 0,
            members,
            leader: 0,
            term: 1,
            index: 0,
            remembered: BTreeMap::new(),
            in_flight: Vec::new(),
            questions: Vec::new(),
            number: 0,
            answers: BTreeMap::new(),
            births: BTreeMap::new(),
            ended: BTreeMap::new(),
            promised: BTreeMap::new(),
            leaving: BTreeSet::new(),
        }
    }

    fn clock(&self) -> Millis {
        self.clock_of(self.leader)
    }

    fn clock_of(&self, member: usize) -> Millis {
        Millis(self.now + self.members[member].clock_offset)
    }

    fn lessor(&mut self) -> &mut Lessor {
        &mut self.members[self.leader].lessor
    }

    /// The leader follows at once, the others some time.
    fn emit(&mut self, effect: Effect) {
        self.members.iter_mut().for_each(|member| member.behind.push(effect.clone()));
        self.catch_up(self.leader);
    }

    fn catch_up(&mut self, member: usize) {
        let clock = self.clock_of(member);
        let Member { lessor, behind, remembered, followed, .. } = &mut self.members[member];
        behind.drain(..).for_each(|effect| lessor.follow(&effect, clock));
        (*remembered, *followed) = (self.remembered.clone(), self.index);
    }

    fn restore(&mut self, member: usize) {
        let clock = self.clock_of(member);
        let leases = self.remembered.iter().map(|(id, lease)| (*id, lease));
        self.members[member].behind.clear();
        self.members[member].lessor.restored(clock, leases);
        (self.members[member].remembered, self.members[member].followed) =
            (self.remembered.clone(), self.index);
    }

    fn crash(&mut self, member: usize) {
        let clock = self.clock_of(member);
        let Member { lessor, remembered, lane, standing, .. } = &mut self.members[member];
        lane.clear();
        *standing = Standing::default();
        lessor.demote();
        lessor.restored(clock, remembered.iter().map(|(id, lease)| (*id, lease)));
        self.questions.retain(|question| question.leader != member);
    }

    fn ask(&mut self, lease: LeaseId) {
        self.number += 1;
        let (number, asked, leader, term) = (self.number, self.now, self.leader, self.term);
        let clock = self.clock();
        self.lessor().told([lease], clock);
        let told = BTreeSet::from([leader]);
        let birth = self.births.get(&lease).copied().unwrap_or_default();
        self.questions.push(Question { number, lease, birth, asked, leader, term, proven: false, told });
    }

    /// Whoever is told must not have given his vote to a later leader.
    fn deliver(&mut self, member: usize) {
        let clock = self.clock_of(member);
        let Some((term, said)) = self.members[member].lane.pop_front() else { return };
        if self.members[member].vote != term {
            return;
        }
        match said {
            Said::Renewal(number, lease) => {
                self.members[member].lessor.told([lease], clock);
                let question = self.questions.iter_mut().find(|question| question.number == number);
                question.into_iter().for_each(|question| _ = question.told.insert(member));
            }
            Said::Lesson(resets, applied, lesson) => {
                self.members[member].lessor.learn(resets, applied, &lesson, true, clock);
            }
        }
    }

    fn teach(&mut self, member: usize, stale: bool) {
        let clock = self.clock();
        let now = self.members[member].lessor.standing();
        let known = std::mem::replace(&mut self.members[member].standing, now);
        let resets = if stale { known.resets } else { now.resets };
        let Some(lesson) = self.lessor().lesson(None, 10, clock) else { return };
        let said = (self.term, Said::Lesson(resets, self.members[self.leader].followed, lesson));
        self.members[member].lane.push_back(said);
    }

    fn recall(&mut self, member: usize) {
        if member == self.leader || self.members[member].vote != self.term {
            return;
        }
        self.catch_up(member);
        let known = self.members[member].lessor.recite(None, 10, self.clock_of(member));
        let clock = self.clock();
        let known = known.iter().map(|it| (it.id, clock.plus(it.left_ms))).collect();
        self.answers.entry(member).or_insert(known);
    }

    fn take(&mut self, which: usize) -> Option<Proposal> {
        (which < self.in_flight.len()).then(|| self.in_flight.remove(which))
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::WaitMs(ms) => self.now += ms,
            Step::Grant(id, ttl_s) => self.grant(LeaseId(id), ttl_s),
            Step::Revoke(id) => {
                if self.remembered.contains_key(&LeaseId(id)) {
                    self.forget(LeaseId(id));
                }
            }
            Step::ProposeExpired(most) => self.propose_expired(most),
            Step::ProposeCheckpoints => {
                let clock = self.clock();
                for it in self.lessor().checkpoints_due(clock, 10) {
                    let (id, epoch, remaining_s) = (it.id, it.epoch, it.remaining_s);
                    self.in_flight.push(Proposal::Checkpoint { term: self.term, id, epoch, remaining_s });
                }
            }
            Step::Apply(which) => {
                if let Some(proposal) = self.take(which) {
                    self.apply(proposal);
                }
            }
            Step::Fail(which) => {
                if let Some(Proposal::Expire { leases, .. }) = self.in_flight.get(which) {
                    let clock = self.clock();
                    self.members[self.leader].lessor.expiry_failed(leases.iter().map(|(id, _)| *id), clock);
                }
            }
            Step::Lose(which) => {
                if let Some(Proposal::Expire { leases, .. }) = self.take(which) {
                    let clock = self.clock();
                    self.members[self.leader].lessor.expiry_failed(leases.iter().map(|(id, _)| *id), clock);
                }
            }
            Step::ChangeLeader(pause_ms, to, late, voter) => self.change_leader(pause_ms, to, late, voter),
            Step::CatchUp(member) => self.catch_up(member),
            Step::Restore(member) if member != self.leader => self.restore(member),
            Step::Crash(member) if member != self.leader => self.crash(member),
            Step::Restore(_) | Step::Crash(_) => {}
            of_renewals => self.renewal_step(of_renewals),
        }
    }

    fn renewal_step(&mut self, step: Step) {
        match step {
            Step::Ask(id) => self.ask(LeaseId(id)),
            Step::Prove(which) => {
                let term = self.term;
                let question = self.questions.get_mut(which).filter(|question| question.term == term);
                question.into_iter().for_each(|question| question.proven = true);
            }
            Step::Tell(which, member) => {
                if let Some(question) = self.questions.get(which).filter(|question| question.leader != member)
                {
                    let said = (question.term, Said::Renewal(question.number, question.lease));
                    self.members[member].lane.push_back(said);
                }
            }
            Step::Answer(which) => {
                let question = self.questions.get(which);
                if question.is_some_and(|question| question.proven && question.told.len() > MEMBERS / 2) {
                    let question = self.questions.remove(which);
                    self.renew(&question);
                }
            }
            Step::Deliver(member) => self.deliver(member),
            Step::Vote(member) => self.members[member].vote = self.term,
            Step::Recall(member) => self.recall(member),
            Step::Recalled => {
                if !self.answers.is_empty() {
                    let (term, clock) = (self.term, self.clock());
                    let others = self.answers.values().cloned().collect();
                    let said = Recollection { others, majority: MEMBERS / 2 + 1 };
                    self.lessor().recall(term, &said, None, 10, clock);
                }
            }
            Step::Teach(member, stale) => self.teach(member, stale),
            Step::MembersChanged => self.emit(Effect::MembersChanged { voters: true }),
            _ => unreachable!("the other steps are taken elsewhere"),
        }
    }

    fn grant(&mut self, id: LeaseId, ttl_s: i64) {
        if self.remembered.contains_key(&id) {
            return;
        }
        self.index += 1;
        let lease = Lease { ttl_s, epoch: self.index, remaining_s: 0, keys: BTreeSet::new() };
        self.remembered.insert(id, lease);
        *self.births.entry(id).or_default() += 1;
        self.ended.remove(&id);
        self.promised.insert(id, self.now + ttl_s as u64 * 1_000);
        self.emit(Effect::LeaseGranted { id, ttl_s, epoch: self.index });
    }

    /// By whoever was asked, even if another leads by now: the proof of before still counts.
    fn renew(&mut self, question: &Question) {
        let Question { lease: id, asked, leader, .. } = *question;
        let asked_at = Millis(asked + self.members[leader].clock_offset);
        let clock = self.clock_of(leader);
        let mut answer = self.members[leader].lessor.renew(id, asked_at, clock);
        let leads = (leader, question.term) == (self.leader, self.term);
        if let Renewal::ForgetCheckpoint { epoch, ttl_s } = answer
            && leads
        {
            self.apply(Proposal::Checkpoint { term: self.term, id, epoch, remaining_s: ttl_s });
            answer = self.members[leader].lessor.renew(id, asked_at, clock);
        }
        match answer {
            Renewal::Renewed { ttl_s } => {
                assert!(!leads || !self.leaving.contains(&id), "renewed although its removal was decided");
                let until = asked + ttl_s as u64 * 1_000;
                // An old leader may not know yet that the lease is gone; which of several of one id it means cannot be told.
                let same = leads || self.births.get(&id) == Some(&question.birth);
                if let Some(ended) =
                    self.ended.get(&id).filter(|_| same && !self.remembered.contains_key(&id))
                {
                    assert!(until <= *ended, "said to last until {until}, and was removed at {ended}");
                } else if same {
                    let promised = self.promised.get_mut(&id).unwrap();
                    *promised = (*promised).max(until);
                }
            }
            Renewal::Leaving if leads => {
                assert!(self.promised[&id] <= self.now, "said to be leaving before its time");
                self.leaving.insert(id);
            }
            Renewal::Unknown if leads => assert!(!self.remembered.contains_key(&id)),
            _ if leads => panic!("{answer:?} once forgotten"),
            _ => {}
        }
    }

    fn propose_expired(&mut self, most: usize) {
        let clock = self.clock();
        let leases = self.lessor().expired(clock, most);
        assert!(leases.len() <= most);
        for (id, epoch) in &leases {
            assert_eq!(self.remembered[id].epoch, *epoch);
            self.leaving.insert(*id);
        }
        if !leases.is_empty() {
            self.in_flight.push(Proposal::Expire { term: self.term, leases });
        }
    }

    /// What the machine does with such entries.
    fn apply(&mut self, proposal: Proposal) {
        self.index += 1;
        match proposal {
            Proposal::Expire { term, leases } => {
                for (id, epoch) in leases {
                    if term == self.term && self.remembered.get(&id).is_some_and(|it| it.epoch == epoch) {
                        assert!(self.promised[&id] <= self.now, "removed before its time");
                        self.ended.insert(id, self.now);
                        self.forget(id);
                    } else {
                        self.emit(Effect::ExpiryDropped { id });
                    }
                }
            }
            Proposal::Checkpoint { term, id, epoch, remaining_s } => {
                let index = self.index;
                let Some(it) = self.remembered.get_mut(&id).filter(|it| it.epoch == epoch) else { return };
                if term == self.term {
                    (it.remaining_s, it.epoch) = (remaining_s, index);
                    self.emit(Effect::LeaseCheckpointed { id, remaining_s, epoch: index });
                }
            }
        }
    }

    fn forget(&mut self, id: LeaseId) {
        self.remembered.remove(&id);
        self.leaving.remove(&id);
        self.emit(Effect::LeaseGone { id });
    }

    fn change_leader(&mut self, pause_ms: u64, to: usize, late: bool, voter: usize) {
        self.now += pause_ms;
        self.term += 1;
        self.leaving.clear();
        self.answers.clear();
        // Whoever led before goes on counting until it hears of this; what it proposes is in vain.
        self.leader = to;
        self.questions.retain(|question| question.leader != to);
        self.members[to].vote = self.term;
        self.members[(to + voter) % MEMBERS].vote = self.term;
        if !late {
            self.catch_up(to);
        }
        let (clock, followed) = (self.clock(), self.members[to].followed);
        let leases = self.remembered.iter().map(|(id, lease)| (*id, lease));
        self.members[to].lessor.promote(self.term, followed, clock, leases, 1_000);
        self.catch_up(to);
    }

    /// Time passes and nothing is lost any more: every lease must come to its end.
    fn settle(&mut self) {
        for _ in 0..3 {
            self.now += 60_000;
            let (clock, ids) = (self.clock(), self.remembered.keys().copied().collect::<Vec<_>>());
            self.lessor().expiry_failed(ids, clock);
            self.propose_expired(100);
            while let Some(proposal) = self.take(0) {
                self.apply(proposal);
            }
        }
        assert!(self.remembered.is_empty() && self.lessor().is_empty(), "{:?}", self.remembered);
    }
}

/// Every lease a deadline; None while its removal is being decided.
#[derive(Default)]
struct Naive {
    leases: BTreeMap<LeaseId, NaiveLease>,
}

struct NaiveLease {
    ttl_ms: u64,
    deadline: u64,
    due: Option<u64>,
    leaving: bool,
}

impl Naive {
    fn due(&self, now: u64) -> BTreeSet<LeaseId> {
        let due = |it: &NaiveLease| it.due.is_some_and(|due| due <= now);
        self.leases.iter().filter(|(_, it)| due(it)).map(|(id, _)| *id).collect()
    }
}

fn run_naive(steps: Vec<Step>) {
    let mut lessor = Lessor::new(Pace { checkpoint_interval_ms: None, ..PACE });
    lessor.promote(1, 0, Millis(0), [], 0);
    let mut naive = Naive::default();
    let mut now = 0;
    let mut all_asked = Vec::new();
    for step in steps {
        match step {
            Step::WaitMs(ms) => now += ms,
            Step::Grant(id, ttl_s) => {
                let (id, ttl_ms) = (LeaseId(id), ttl_s as u64 * 1_000);
                let deadline = now + ttl_ms;
                lessor.follow(&Effect::LeaseGranted { id, ttl_s, epoch: 1 }, Millis(now));
                naive.leases.insert(id, NaiveLease { ttl_ms, deadline, due: Some(deadline), leaving: false });
            }
            Step::Revoke(id) => {
                lessor.follow(&Effect::LeaseGone { id: LeaseId(id) }, Millis(now));
                naive.leases.remove(&LeaseId(id));
            }
            Step::Ask(id) => all_asked.push((LeaseId(id), now)),
            Step::Answer(which) => {
                if which >= all_asked.len() {
                    continue;
                }
                let (id, asked) = all_asked.remove(which);
                let answer = lessor.renew(id, Millis(asked), Millis(now));
                let Some(it) = naive.leases.get_mut(&id) else {
                    assert_eq!(answer, Renewal::Unknown);
                    continue;
                };
                it.leaving |= it.deadline <= asked;
                if it.leaving {
                    assert_eq!(answer, Renewal::Leaving);
                } else {
                    assert_eq!(answer, Renewal::Renewed { ttl_s: it.ttl_ms as i64 / 1_000 });
                    it.deadline = it.deadline.max(now + it.ttl_ms);
                    it.due = Some(it.deadline);
                }
            }
            Step::ProposeExpired(_) | Step::ProposeCheckpoints | Step::Apply(_) => {
                let handed_out: Vec<_> =
                    lessor.expired(Millis(now), 100).into_iter().map(|(id, _)| id).collect();
                assert_eq!(handed_out.iter().copied().collect::<BTreeSet<_>>(), naive.due(now));
                for id in handed_out {
                    let it = naive.leases.get_mut(&id).unwrap();
                    (it.leaving, it.due) = (true, None);
                }
            }
            Step::Fail(which) | Step::Lose(which) => {
                let id = LeaseId(which as i64);
                lessor.expiry_failed([id], Millis(now));
                if let Some(it) = naive.leases.get_mut(&id).filter(|it| it.leaving && it.due.is_none()) {
                    it.due = Some(now);
                }
            }
            _ => {}
        }
        assert_eq!(lessor.len(), naive.leases.len());
        assert_eq!(lessor.next_due().map(|due| due.0), naive.leases.values().filter_map(|it| it.due).min());
        let mut order: Vec<_> = naive.leases.iter().map(|(id, it)| (it.deadline, *id)).collect();
        order.sort();
        assert_eq!(lessor.ids_by_deadline().unwrap(), order.iter().map(|(_, id)| *id).collect::<Vec<_>>());
        for (id, it) in &naive.leases {
            let left = lessor.remaining(*id, Millis(now)).unwrap().remaining_s;
            assert_eq!(left as u64, it.deadline.saturating_sub(now) / 1_000);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn one_leader_counts_as_the_naive_model_does(steps in prop::collection::vec(step(), 1..150)) {
        run_naive(steps);
    }

    #[test]
    fn no_lease_ends_before_what_its_client_was_told_whoever_leads(
        steps in prop::collection::vec(step(), 1..200),
    ) {
        let mut cluster = Cluster::new();
        for step in steps {
            cluster.step(step);
        }
        cluster.settle();
    }
}
