//! The world of one seed: members, network, clients, faults and witness, moved on together a millisecond at a time by one
//! thread. Everything that is left to chance follows from the seed, so a seed is a life that can be lived again.
//!
//! ```text
//!   begin ─── all members serve ─── faults, clients at work ─── all is mended ─── clients at work ─── rest ─── verdict
//! ```

use std::fmt;

use tenured::ids::Dice;
use tenured::simulation;

use crate::clients::{Client, Holding, LEASED, PLAIN, Trade};
use crate::faults::Faults;
use crate::invariants::{self, Invariant, Scene, Sight};
use crate::journal::{Journal, Told};
use crate::member::{Charter, Member};
use crate::network::Network;
use crate::time;
use crate::truth::Truth;
use crate::watching::Watching;

/// Until the members of a new cluster serve.
const BEGIN_MS: u64 = 10_000;
/// Until all members serve and agree again once all is mended.
const HEAL_MS: u64 = 15_000;
/// Clients go on for so long after that.
const AFTER_MS: u64 = 1_500;
/// Until all that is under way has ended and leases that nobody renews are gone: more than the longest of a holder's.
const REST_MS: u64 = 15_000;
const WORKERS: usize = 4;
const HOLDERS: usize = 3;

/// What is to be lived.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub members: usize,
    /// How long things go wrong.
    pub trouble_ms: u64,
    pub planted: Option<Planted>,
    /// Hears the story on the way: the time, and what happened.
    pub tell: Option<fn(u64, &str)>,
}

impl Plan {
    /// What lives it again.
    pub fn again(&self) -> String {
        let Plan { seed, members, trouble_ms, .. } = self;
        format!(
            "cargo sim --seeds 1 --from {seed} --members {members} --trouble {} --tell",
            trouble_ms / 1_000
        )
    }
}

/// A bug put in on purpose, to see it found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    /// Disks say that a write is synced when it is not.
    LyingDisks,
    /// A watcher is not told of an event.
    LostEvent,
    /// Reads that are to be linearizable are answered from what is at hand.
    LocalReads,
    /// One member's clock goes much faster than the others'.
    RacingClock,
}

/// A life that was lived to its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lived {
    /// The same for the same seed and program.
    pub hash: u64,
    pub faults: usize,
    pub exchanges: usize,
    pub answered: usize,
    pub revisions: i64,
    pub leaders: usize,
    /// Leases left alone over a change of leader, of which it was judged when they ended.
    pub left_alone: usize,
    pub ms: u64,
}

/// What did not hold.
#[derive(Clone, Debug, PartialEq)]
pub struct Broken {
    pub law: &'static str,
    pub what: String,
    pub at_ms: u64,
    pub hash: u64,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} (at {} ms)", self.law, self.what, self.at_ms)
    }
}

/// Lives a seed.
pub fn live(plan: &Plan) -> Result<Lived, Broken> {
    simulation::begin(plan.seed);
    time::stand_at(0);
    World::new(plan).run()
}

struct World {
    plan: Plan,
    now_ms: u64,
    dice: Dice,
    network: Network,
    members: Vec<Member>,
    clients: Vec<Client>,
    watchers: Vec<Watching>,
    faults: Faults,
    faults_done: usize,
    journal: Journal,
    truth: Truth,
    sights: Vec<Option<Sight>>,
    invariants: Vec<Box<dyn Invariant>>,
}

impl World {
    fn new(plan: &Plan) -> World {
        let mut dice = Dice::seeded(plan.seed);
        let mut more = || Dice::seeded(dice.number());
        let network = Network::new(plan.members, more());
        let charter = Charter::new(plan.members);
        let mut chance = more();
        let members: Vec<Member> = (0..plan.members)
            .map(|index| {
                // Within what a lease's grace makes up for: one part in two hundred.
                let rate_ppm = match (index, plan.planted) {
                    (0, Some(Planted::RacingClock)) => 1_600_000,
                    _ => 995_000 + chance.below(10_001),
                };
                let member = Member::new(index, charter.clone(), &network, rate_ppm);
                if plan.planted == Some(Planted::LyingDisks) {
                    member.disk.lie();
                }
                member
            })
            .collect();
        let trusts = plan.planted == Some(Planted::LocalReads);
        let trades = std::iter::repeat_n(Trade::Worker, WORKERS)
            .chain(std::iter::repeat_n(Trade::Holder(Holding::default()), HOLDERS))
            .chain([Trade::Compactor]);
        let clients =
            trades.enumerate().map(|(number, trade)| Client::new(number, trade, more(), trusts)).collect();
        let loses = plan.planted == Some(Planted::LostEvent);
        let watchers = [PLAIN, LEASED, PLAIN].map(|prefix| Watching::new(prefix, more(), loses)).into();
        let faults = Faults::new(more());
        World {
            plan: plan.clone(),
            now_ms: 0,
            sights: members.iter().map(|_| None).collect(),
            dice,
            network,
            members,
            clients,
            watchers,
            faults,
            faults_done: 0,
            journal: Journal::default(),
            truth: Truth::default(),
            invariants: invariants::all(),
        }
    }

    fn run(mut self) -> Result<Lived, Broken> {
        for index in 0..self.members.len() {
            let dice = Dice::seeded(self.dice.number());
            self.members[index].start(0, dice);
        }
        self.until("begins to serve", BEGIN_MS, false, World::all_serve)?;
        let trouble_ends_ms = self.now_ms + self.plan.trouble_ms;
        while self.now_ms < trouble_ends_ms {
            let done = self.faults.tick(self.now_ms, &mut self.members, &self.network);
            if let Some(fault) = done {
                self.faults_done += 1;
                self.say(&fault.to_string());
            }
            self.tick(true)?;
        }
        self.say("all is mended");
        self.faults.end(self.now_ms, &mut self.members, &self.network);
        self.until("serves again", HEAL_MS, true, World::all_serve)?;
        let after_ms = self.now_ms + AFTER_MS;
        while self.now_ms < after_ms {
            self.tick(true)?;
        }
        self.say("clients rest");
        self.until("comes to rest", REST_MS, false, World::at_rest)?;
        self.verdict()
    }

    /// Goes on until something is so, which it must be within a bound.
    fn until(
        &mut self,
        what: &'static str,
        ms: u64,
        busy: bool,
        so: impl Fn(&World) -> Result<(), String>,
    ) -> Result<(), Broken> {
        let end_ms = self.now_ms + ms;
        loop {
            self.faults.restart(self.now_ms, &mut self.members);
            match so(self) {
                Ok(()) => return Ok(()),
                Err(why) if self.now_ms >= end_ms => {
                    return Err(self.broken("the cluster serves", format!("it never {what}: {why}")));
                }
                Err(_) => self.tick(busy)?,
            }
        }
    }

    fn tick(&mut self, busy: bool) -> Result<(), Broken> {
        self.now_ms += 1;
        time::stand_at(self.now_ms);
        self.journal.tick(self.now_ms);
        self.network.tick(self.now_ms);
        for client in &mut self.clients {
            client.tick(self.now_ms, &self.members, &self.journal, !busy);
        }
        for watcher in &mut self.watchers {
            watcher.tick(self.now_ms, &self.members);
        }
        for member in &mut self.members {
            member.step(self.now_ms);
        }
        self.look()
    }

    /// The witness looks at everybody.
    fn look(&mut self) -> Result<(), Broken> {
        for (member, sight) in self.members.iter().zip(&mut self.sights) {
            Sight::refresh(sight, member);
        }
        for member in &self.members {
            if let Some(Err(why)) = member.ended() {
                let what = format!("member {} stopped by itself: {why}", member.index + 1);
                return Err(self.broken("a member lives", what));
            }
        }
        let now = self.journal.moment();
        for sight in self.sights.iter().flatten() {
            let stopping = self.members[sight.member].stopping();
            if let Some(why) = sight.desk.consensus.failure().filter(|_| !stopping) {
                let what = format!("member {} failed: {why}", sight.member + 1);
                return Err(self.broken("a member lives", what));
            }
            let looked = self.truth.look(sight.member, sight.life, &sight.desk, now);
            if let Err(what) = looked {
                return Err(self.broken("replicas agree", what));
            }
        }
        self.judge(now.ms, |invariant, scene| invariant.look(scene))
    }

    fn judge(
        &mut self,
        now_ms: u64,
        judge: impl Fn(&mut dyn Invariant, &Scene<'_>) -> Result<(), String>,
    ) -> Result<(), Broken> {
        let scene = Scene {
            now_ms,
            sights: &self.sights,
            truth: &self.truth,
            journal: &self.journal,
            watchers: &self.watchers,
        };
        for invariant in &mut self.invariants {
            let verdict = judge(&mut **invariant, &scene);
            if let Err(what) = verdict {
                let (at_ms, hash) = (self.now_ms, self.journal.hash());
                return Err(Broken { law: invariant.law(), what, at_ms, hash });
            }
        }
        Ok(())
    }

    fn all_serve(&self) -> Result<(), String> {
        for member in &self.members {
            if !member.serving() {
                let state = member.desk().map(|desk| {
                    let leadership = *desk.consensus.leadership().borrow();
                    format!("{leadership:?}, {:?}", desk.consensus.progress())
                });
                return Err(format!("member {} does not serve: {state:?}", member.index + 1));
            }
        }
        let answered = |client: usize| {
            let last = |exchange: &&crate::journal::Exchange| exchange.client == client;
            self.journal.read(0, |all| all.iter().rev().find(last).map(|exchange| exchange.told.clone()))
        };
        for client in 0..self.clients.len() {
            if let Some(Some((_, Told::Unknown(why)))) = answered(client) {
                return Err(format!("client {client} was told {why}"));
            }
        }
        Ok(())
    }

    fn at_rest(&self) -> Result<(), String> {
        if let Some(busy) = self.clients.iter().position(|client| !client.idle()) {
            return Err(format!("client {busy} still waits"));
        }
        let last = self.truth.last();
        for sight in self.sights.iter().flatten() {
            let machine = sight.desk.view.machine();
            if machine.revision().0 != last {
                return Err(format!(
                    "member {} is at {}, not at {last}",
                    sight.member + 1,
                    machine.revision()
                ));
            }
            if !machine.leases().is_empty() {
                return Err(format!("member {} has {} leases", sight.member + 1, machine.leases().len()));
            }
        }
        let applied: Vec<u64> = self.sights.iter().flatten().map(Sight::applied).collect();
        if applied.len() != self.members.len() || applied.iter().any(|index| *index != applied[0]) {
            return Err(format!("members applied up to {applied:?}"));
        }
        let behind = self.watchers.iter().position(|watcher| watcher.reached() < last);
        behind.map_or(Ok(()), |watcher| {
            Err(format!("watcher {watcher} has heard up to {}, not {last}", self.watchers[watcher].reached()))
        })
    }

    fn verdict(mut self) -> Result<Lived, Broken> {
        self.judge(self.now_ms, |invariant, scene| invariant.conclude(scene))?;
        let leaders = self.invariants.iter().map(|invariant| invariant.leaders()).sum();
        let left_alone = self.invariants.iter().map(|invariant| invariant.judged()).sum();
        let answered = |told: &Told| !matches!(told, Told::Unknown(_) | Told::Refused(_));
        let answered = self.journal.read(0, |all| {
            all.iter()
                .filter(|exchange| exchange.told.as_ref().is_some_and(|(_, told)| answered(told)))
                .count()
        });
        self.journal.note(&format!("{:?}", self.truth.revisions().map(|(at, _)| at).collect::<Vec<_>>()));
        Ok(Lived {
            hash: self.journal.hash(),
            faults: self.faults_done,
            exchanges: self.journal.len(),
            answered,
            revisions: self.truth.last(),
            leaders,
            left_alone,
            ms: self.now_ms,
        })
    }

    fn broken(&self, law: &'static str, what: String) -> Broken {
        Broken { law, what, at_ms: self.now_ms, hash: self.journal.hash() }
    }

    fn say(&self, what: &str) {
        self.journal.note(what);
        if let Some(tell) = self.plan.tell {
            tell(self.now_ms, what);
        }
    }
}
