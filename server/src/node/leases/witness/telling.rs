//! The leader's voice: of renewals that wait to be acknowledged it tells all voters, and those go on once a majority has noted them.
//! One round is under way at a time; whoever arrives meanwhile shares the next. A voter that is slow or away misses rounds, which
//! does no harm: a majority knows. One that has lost its knowledge is taught in between.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use parking_lot::Mutex;
use tenure_grpc::internal::witness_client::WitnessClient;
use tenure_grpc::internal::witness_server::WitnessServer;
use tenure_proto::internal::{Lesson, WitnessRequest, WitnessResponse};
use tenure_state::{LeaseId, Millis};
use tokio::sync::Notify;
use tokio::time::MissedTickBehavior;
use tonic::Status;

use super::super::Counting;
use super::{LEASES_AT_ONCE, Service, to_wire};
use crate::ids::MemberId;
use crate::node::forwarding::asking::{Asking, questions};
use crate::node::forwarding::renewals::{Gathered, Renewals};
use crate::peers::{Lane, Peers};
use crate::raft::{Consensus, Mandate, Unavailable};

/// Before a voter that failed to answer is spoken to again.
const PAUSE: Duration = Duration::from_millis(100);
/// Looks in an election timeout at whether all voters know enough, and whether a round takes too long.
const LOOKS: u32 = 2;

/// Where renewals are handed in. Cloning shares it.
#[derive(Clone)]
pub struct Telling {
    counting: Arc<Counting>,
    consensus: Consensus,
    peers: Peers,
    gathered: Arc<Mutex<Gathered<()>>>,
    come: Arc<Notify>,
}

impl Telling {
    pub fn new(counting: Arc<Counting>, consensus: Consensus, peers: Peers) -> Telling {
        Telling { counting, consensus, peers, gathered: Arc::default(), come: Arc::default() }
    }

    /// Returns once a majority of the voters has noted, after this call, that these leases may last their TTL from then. Fails
    /// if this member does not lead, or not surely any more.
    pub async fn tell(&self, ids: &[LeaseId]) -> Result<(), Unavailable> {
        let own = self.note_here(ids.iter().copied())?;
        if self.consensus.voters() == [own.member] {
            return Ok(());
        }
        let told = self.gathered.lock().add(ids);
        self.come.notify_one();
        told.await.unwrap_or(Err(Unavailable::Stopped))
    }

    /// This member is one of the voters itself. Gives the leadership that is being counted for.
    fn note_here(&self, ids: impl IntoIterator<Item = LeaseId>) -> Result<Mandate, Unavailable> {
        let mut lessor = self.counting.lessor.lock();
        let term = lessor.term().ok_or(Unavailable::LeaderChanged)?;
        let own = Mandate { term, member: self.peers.own().0 };
        if self.consensus.vote() != own {
            return Err(Unavailable::LeaderChanged);
        }
        lessor.told(ids, self.counting.now());
        Ok(own)
    }

    /// The other side, of this same member.
    pub fn service(&self) -> WitnessServer<Service> {
        Service::server(self.counting.clone(), self.consensus.clone(), self.peers.clone())
    }

    /// The task that speaks.
    pub async fn run(self) {
        let mut looks = tokio::time::interval(self.peers.patience() / LOOKS);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let come = self.come.clone();
        let mut voice = Voice {
            telling: self,
            leader: Mandate::default(),
            voters: Vec::new(),
            idle: BTreeMap::new(),
            spoken_to: BTreeSet::new(),
            answers: FuturesUnordered::new(),
            round: None,
            rounds: 0,
        };
        loop {
            tokio::select! {
                biased;
                Some((listener, round, heard)) = voice.answers.next() => voice.listen(listener, round, heard),
                () = come.notified() => {}
                _ = looks.tick() => voice.look(),
            }
            voice.begin();
        }
    }
}

/// The task's state.
struct Voice {
    telling: Telling,
    /// As of the last round or look.
    leader: Mandate,
    voters: Vec<u64>,
    /// Voters that can be spoken to.
    idle: BTreeMap<u64, Listener>,
    /// Voters that have not answered yet.
    spoken_to: BTreeSet<u64>,
    /// Each with the number of the round whose renewals the question was about, if it was about any.
    answers: FuturesUnordered<BoxFuture<'static, (Listener, Option<u64>, Heard)>>,
    round: Option<Round>,
    /// How many there were.
    rounds: u64,
}

type Heard = Result<WitnessResponse, Status>;

struct Round {
    waiting: Vec<Renewals<()>>,
    renewed: Vec<i64>,
    /// Other voters that are being told of it, or were.
    told: BTreeSet<u64>,
    /// How many voters have noted it.
    noted: usize,
    until: Millis,
}

impl Voice {
    /// Begins rounds as long as renewals wait for one and none is under way.
    fn begin(&mut self) {
        while self.round.is_none() {
            let waiting = self.telling.gathered.lock().take();
            if waiting.is_empty() {
                return;
            }
            let ids = || waiting.iter().flat_map(|renewals| renewals.ids.iter().copied());
            let leader = match self.telling.note_here(ids()) {
                Ok(leader) => leader,
                Err(unavailable) => {
                    settle(waiting, Err(unavailable));
                    continue;
                }
            };
            let renewed: Vec<i64> = ids().map(|id| id.0).collect();
            self.rounds += 1;
            self.find_voters(leader);
            let noted = usize::from(self.voters.contains(&leader.member));
            let patience_ms = self.telling.peers.patience().as_millis() as u64;
            let until = self.telling.counting.now().plus(patience_ms);
            self.round = Some(Round { waiting, renewed, told: BTreeSet::new(), noted, until });
            self.speak();
            self.settle_if_noted();
        }
    }

    /// Now and then: gives up a round that takes too long, and finds out which voters know too little.
    fn look(&mut self) {
        let now = self.telling.counting.now();
        if let Some(round) = self.round.take_if(|round| round.until <= now) {
            settle(round.waiting, Err(Unavailable::TimedOut));
        }
        // Without a count there is nothing to teach.
        let Ok(leader) = self.telling.note_here([]) else { return };
        self.learn_here(leader);
        if self.round.is_none() && self.telling.counting.lessor.lock().has_recalled() {
            self.find_voters(leader);
            self.speak();
        }
    }

    fn find_voters(&mut self, leader: Mandate) {
        self.leader = leader;
        self.voters = self.telling.consensus.voters();
        let voters = &self.voters;
        self.idle.retain(|member, listener| voters.contains(member) && listener.leader == leader);
        for member in voters.iter().filter(|member| **member != leader.member) {
            if !self.spoken_to.contains(member) {
                self.idle.entry(*member).or_insert_with(|| Listener::new(*member, leader));
            }
        }
    }

    /// To all that can be spoken to: of the round under way, or only to hear how they stand.
    fn speak(&mut self) {
        for (_, listener) in std::mem::take(&mut self.idle) {
            if let Some(listener) = self.tell(listener) {
                self.say(listener, Vec::new(), None);
            }
        }
    }

    /// Tells it of the round under way; gives it back if there is none, or it was told.
    fn tell(&mut self, listener: Listener) -> Option<Listener> {
        if let Some(round) = &mut self.round
            && self.voters.contains(&listener.member)
            && round.told.insert(listener.member)
        {
            let (renewed, round) = (round.renewed.clone(), self.rounds);
            self.say(listener, renewed, Some(round));
            return None;
        }
        Some(listener)
    }

    fn say(&mut self, mut listener: Listener, renewed: Vec<i64>, round: Option<u64>) {
        let lesson = listener.next_lesson(&self.telling);
        let said = WitnessRequest { term: listener.leader.term, renewed, lesson };
        self.spoken_to.insert(listener.member);
        let peers = self.telling.peers.clone();
        self.answers.push(Box::pin(async move {
            let heard = listener.ask(&peers, said).await;
            if heard.is_err() {
                tokio::time::sleep(PAUSE).await;
            }
            (listener, round, heard)
        }));
    }

    fn listen(&mut self, mut listener: Listener, round: Option<u64>, heard: Heard) {
        let member = listener.member;
        self.spoken_to.remove(&member);
        let of_this_round = round == Some(self.rounds);
        match heard {
            Ok(answer) => {
                listener.heard(&answer, *self.telling.consensus.applied().borrow());
                if of_this_round && let Some(round) = &mut self.round {
                    round.noted += 1;
                }
                self.settle_if_noted();
            }
            Err(status) => {
                tracing::debug!(member = %MemberId(member), %status, "a voter was not told of renewals");
                listener = Listener::new(member, self.leader);
                if of_this_round && let Some(round) = &mut self.round {
                    round.told.remove(&member);
                }
            }
        }
        if listener.leader != self.leader {
            listener = Listener::new(member, self.leader);
        }
        let Some(listener) = self.tell(listener) else { return };
        let waits = !self.telling.gathered.lock().is_empty();
        let goes = matches!(listener.lesson, Progress::Goes { .. });
        if goes && !waits && self.telling.counting.lessor.lock().has_recalled() {
            self.say(listener, Vec::new(), None);
        } else {
            self.idle.insert(member, listener);
        }
    }

    /// Lets renewals go on when a majority has noted them; if others vote by now, they are handed in anew.
    fn settle_if_noted(&mut self) {
        let majority = self.voters.len() / 2 + 1;
        let Some(round) = self.round.take_if(|round| round.noted >= majority) else { return };
        if self.telling.consensus.voters() == self.voters {
            settle(round.waiting, Ok(()));
        } else {
            self.telling.gathered.lock().add_again(round.waiting);
        }
    }

    /// What this member knows as a voter, which is not what it counts as the leader.
    fn learn_here(&self, leader: Mandate) {
        let Telling { counting, consensus, .. } = &self.telling;
        let (mut begun, mut after) = (None, None);
        loop {
            let applied = *consensus.applied().borrow();
            let mut lessor = counting.lessor.lock();
            let (standing, now) = (lessor.standing(), counting.now());
            // Whoever leads after this one may have told it more already.
            let leads = lessor.term() == Some(leader.term) && consensus.vote() == leader;
            if !leads || standing.complete || begun.is_some_and(|resets| resets != standing.resets) {
                return;
            }
            begun = Some(standing.resets);
            let Some(lesson) = lessor.lesson(after, LEASES_AT_ONCE, now) else { return };
            after = lesson.last().map(|last| last.id);
            lessor.learn(standing.resets, applied, &lesson, after.is_none(), now);
        }
    }
}

/// Another voter, as the leader speaks to it.
struct Listener {
    member: u64,
    leader: Mandate,
    asking: Asking<WitnessRequest, WitnessResponse>,
    lesson: Progress,
}

/// How far a voter is with its lesson.
#[derive(Clone, Copy)]
enum Progress {
    /// It needs none, as far as is known.
    None,
    /// For this beginning of its knowledge, once it has applied so far: what it applies later is not older than that.
    Waits { resets: u64, until: u64 },
    /// It goes on behind this lease.
    Goes { resets: u64, after: Option<LeaseId> },
}

impl Listener {
    fn new(member: u64, leader: Mandate) -> Listener {
        Listener { member, leader, asking: Asking::default(), lesson: Progress::None }
    }

    /// The next part of the lesson. What the leader knows now: it must be said before anything that the leader learns later.
    fn next_lesson(&mut self, Telling { counting, consensus, .. }: &Telling) -> Option<Lesson> {
        let Progress::Goes { resets, after } = self.lesson else { return None };
        let applied = *consensus.applied().borrow();
        let leases = counting.lessor.lock().lesson(after, LEASES_AT_ONCE, counting.now())?;
        let last = leases.len() < LEASES_AT_ONCE;
        self.lesson = match leases.last() {
            Some(last_one) if !last => Progress::Goes { resets, after: Some(last_one.id) },
            _ => Progress::None,
        };
        Some(Lesson { resets, leases: leases.iter().map(to_wire).collect(), last, applied })
    }

    async fn ask(&mut self, peers: &Peers, said: WitnessRequest) -> Heard {
        let asked = async {
            let with = Mandate { term: self.leader.term, member: self.member };
            if !self.asking.is_with(with) {
                let unknown = || Status::unavailable("its address is not known");
                let channel = peers.channel(self.member, Lane::Forwarding).ok_or_else(unknown)?;
                let (questions, asked) = questions();
                let request = peers.address(self.member, asked);
                let mut client = WitnessClient::new(channel);
                // Boxed: else the compiler loses itself in the lifetimes.
                let call: BoxFuture<'_, _> = Box::pin(client.tell(request));
                self.asking.begin(with, questions, call.await?.into_inner());
            }
            self.asking.ask(said).await
        };
        let late = |_| Err(Status::deadline_exceeded("it does not answer in time"));
        tokio::time::timeout(peers.patience(), asked).await.unwrap_or_else(late)
    }

    /// `applied`: how far this member, the leader, has come.
    fn heard(&mut self, answer: &WitnessResponse, applied: u64) {
        let of = |resets: u64| resets == answer.resets;
        self.lesson = match self.lesson {
            _ if answer.complete => Progress::None,
            going @ (Progress::Waits { resets, .. } | Progress::Goes { resets, .. }) if of(resets) => going,
            _ => Progress::Waits { resets: answer.resets, until: applied },
        };
        if let Progress::Waits { resets, until } = self.lesson
            && answer.applied >= until
        {
            self.lesson = Progress::Goes { resets, after: None };
        }
    }
}

fn settle(waiting: Vec<Renewals<()>>, outcome: Result<(), Unavailable>) {
    for renewals in waiting {
        renewals.tell(outcome);
    }
}
