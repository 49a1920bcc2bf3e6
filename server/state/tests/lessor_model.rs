//! The lessor against two models, under random histories. *Naive*: every lease a deadline, one leader. *Cluster*: what
//! clients were promised, over changes of leader, with proposals that are lost, late, repeated and out of order.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use tenure_state::{Effect, Lease, LeaseId, Lessor, Millis, Pace, Renewal};

const PACE: Pace =
    Pace { expiries_per_second: 1_000, spread_ms_max: 10_000, checkpoint_interval_ms: Some(7_000) };
const MEMBERS: usize = 3;

#[derive(Clone, Debug)]
enum Step {
    WaitMs(u64),
    /// A lease, and its TTL in seconds.
    Grant(i64, i64),
    Revoke(i64),
    /// A renewal arrives. It is answered when its proof of leadership has come, which is any time later.
    Ask(i64),
    Answer(usize),
    /// At most so many leases in one proposal.
    ProposeExpired(usize),
    ProposeCheckpoints,
    Apply(usize),
    /// The proposer is told that its proposal failed; it may still be applied later.
    Fail(usize),
    /// The proposal is truly lost.
    Lose(usize),
    /// After a pause of so many milliseconds this member leads; it may take up the count before it has followed all effects.
    ChangeLeader(u64, usize, bool),
    /// A member that was behind follows what was applied.
    CatchUp(usize),
    /// A member that does not lead is started again, or is sent the whole state.
    Restore(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let id = 1..4i64;
    prop_oneof![
        5 => (0..6_000u64).prop_map(Step::WaitMs),
        3 => (id.clone(), 1..30i64).prop_map(|(id, ttl_s)| Step::Grant(id, ttl_s)),
        1 => id.clone().prop_map(Step::Revoke),
        6 => id.prop_map(Step::Ask),
        6 => (0..2usize).prop_map(Step::Answer),
        3 => (1..4usize).prop_map(Step::ProposeExpired),
        3 => Just(Step::ProposeCheckpoints),
        4 => (0..3usize).prop_map(Step::Apply),
        1 => (0..3usize).prop_map(Step::Fail),
        1 => (0..3usize).prop_map(Step::Lose),
        2 => (0..5_000u64, 0..MEMBERS, any::<bool>()).prop_map(|(ms, to, late)| Step::ChangeLeader(ms, to, late)),
        2 => (0..MEMBERS).prop_map(Step::CatchUp),
        1 => (0..MEMBERS).prop_map(Step::Restore),
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
}

/// A cluster with one leader at a time. `now` is the time that all live in.
struct Cluster {
    now: u64,
    members: Vec<Member>,
    leader: usize,
    term: u64,
    index: u64,
    remembered: BTreeMap<LeaseId, Lease>,
    in_flight: Vec<Proposal>,
    /// Renewals that wait for the proof: the lease, and when it was asked for.
    asked: Vec<(LeaseId, u64)>,
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
        };
        let mut members: Vec<_> = (0..MEMBERS).map(member).collect();
        members[0].lessor.promote(1, Millis(0), [], 1_000);
        Cluster {
            now: 0,
            members,
            leader: 0,
            term: 1,
            index: 0,
            remembered: BTreeMap::new(),
            in_flight: Vec::new(),
            asked: Vec::new(),
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
        let Member { lessor, behind, .. } = &mut self.members[member];
        behind.drain(..).for_each(|effect| lessor.follow(&effect, clock));
    }

    fn restore(&mut self, member: usize) {
        let clock = self.clock_of(member);
        self.members[member].behind.clear();
        self.members[member].lessor.restored(self.index, clock);
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
            Step::Ask(id) => self.asked.push((LeaseId(id), self.now)),
            Step::Answer(which) => {
                if which < self.asked.len() {
                    let (id, asked) = self.asked.remove(which);
                    self.renew(id, asked);
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
            Step::ChangeLeader(pause_ms, to, late) => self.change_leader(pause_ms, to, late),
            Step::CatchUp(member) => self.catch_up(member),
            Step::Restore(member) if member != self.leader => self.restore(member),
            Step::Restore(_) => {}
        }
    }

    fn grant(&mut self, id: LeaseId, ttl_s: i64) {
        if self.remembered.contains_key(&id) {
            return;
        }
        self.index += 1;
        let lease = Lease { ttl_s, epoch: self.index, remaining_s: 0, keys: BTreeSet::new() };
        self.remembered.insert(id, lease);
        self.promised.insert(id, self.now + ttl_s as u64 * 1_000);
        self.emit(Effect::LeaseGranted { id, ttl_s, epoch: self.index });
    }

    fn renew(&mut self, id: LeaseId, asked: u64) {
        let asked_at = Millis(asked + self.members[self.leader].clock_offset);
        let clock = self.clock();
        let mut answer = self.lessor().renew(id, asked_at, clock);
        if let Renewal::ForgetCheckpoint { epoch, ttl_s } = answer {
            self.apply(Proposal::Checkpoint { term: self.term, id, epoch, remaining_s: ttl_s });
            answer = self.lessor().renew(id, asked_at, clock);
        }
        match answer {
            Renewal::Renewed { ttl_s } => {
                assert!(!self.leaving.contains(&id), "renewed although its removal was decided");
                let until = asked + ttl_s as u64 * 1_000;
                let promised = self.promised.get_mut(&id).unwrap();
                *promised = (*promised).max(until);
            }
            Renewal::Leaving => {
                assert!(self.promised[&id] <= self.now, "said to be leaving before its time");
                self.leaving.insert(id);
            }
            Renewal::Unknown => assert!(!self.remembered.contains_key(&id)),
            Renewal::ForgetCheckpoint { .. } | Renewal::NotLeader => panic!("{answer:?} once forgotten"),
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

    fn change_leader(&mut self, pause_ms: u64, to: usize, late: bool) {
        self.now += pause_ms;
        self.term += 1;
        self.leaving.clear();
        self.asked.clear();
        self.lessor().demote();
        self.leader = to;
        if !late {
            self.catch_up(to);
        }
        let clock = self.clock();
        let leases = self.remembered.iter().map(|(id, lease)| (*id, lease));
        self.members[to].lessor.promote(self.term, clock, leases, 1_000);
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
    lessor.promote(1, Millis(0), [], 0);
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
            Step::ChangeLeader(..) | Step::CatchUp(_) | Step::Restore(_) => {}
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
