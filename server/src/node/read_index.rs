//! Proof of leadership for reads and renewals, wherever the leader is. One round is under way at a time; whoever arrives
//! meanwhile shares the next, which begins after all of them arrived. (Raft dissertation, 6.4.) The leader's rounds serve
//! the other members' as well, so that a quorum is asked no more often when there are more members.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};

use super::forwarding::ReadIndexes;
use crate::clock::Clock;
use crate::raft::{Consensus, Leadership, Unavailable};

/// How long to wait after a round failed, unless the leader changes before.
const PAUSE: Duration = Duration::from_millis(50);

#[derive(Clone)]
pub struct ReadIndex {
    consensus: Consensus,
    clock: Arc<dyn Clock>,
    leadership: watch::Receiver<Leadership>,
    applied: watch::Receiver<u64>,
    /// How long a reader waits at the most.
    timeout: Duration,
    /// How long the leader may take for one round.
    patience: Duration,
    rounds: Arc<Mutex<Rounds>>,
}

struct Rounds {
    readers: Vec<Reader>,
    /// Members that asked this one as their leader.
    members: Vec<oneshot::Sender<Result<u64, Unavailable>>>,
    under_way: bool,
    /// For when the leader is elsewhere. The round under way has it.
    elsewhere: Option<ReadIndexes>,
}

type Reader = oneshot::Sender<Result<(), Unavailable>>;

/// Readers that joined the same round, and how long they wait for another one if it fails.
struct Party {
    /// Milliseconds of the clock.
    until: u64,
    readers: Vec<Reader>,
}

impl ReadIndex {
    /// `patience`: one election timeout.
    pub fn new(
        consensus: Consensus,
        elsewhere: ReadIndexes,
        clock: Arc<dyn Clock>,
        timeout: Duration,
        patience: Duration,
    ) -> ReadIndex {
        let rounds =
            Rounds { readers: Vec::new(), members: Vec::new(), under_way: false, elsewhere: Some(elsewhere) };
        let (leadership, applied) = (consensus.leadership(), consensus.applied());
        let rounds = Arc::new(Mutex::new(rounds));
        ReadIndex { consensus, clock, leadership, applied, timeout, patience, rounds }
    }

    /// Returns once a proof that began after this call is there, and all that was committed by then is applied here.
    /// Waits for a leader if there is none.
    pub async fn confirm(&self) -> Result<(), Unavailable> {
        let (tell, told) = oneshot::channel();
        self.join(|rounds| rounds.readers.push(tell));
        told.await.unwrap_or(Err(Unavailable::Stopped))
    }

    /// For another member: proof that this one leads, begun after this call, and the index up to which the other must have
    /// applied. Fails at once if this member does not lead.
    pub async fn index_here(&self) -> Result<u64, Unavailable> {
        let (tell, told) = oneshot::channel();
        self.join(|rounds| rounds.members.push(tell));
        told.await.unwrap_or(Err(Unavailable::Stopped))
    }

    /// Returns once it is proven, by a proof that began after this call, that this very member leads, and all that was
    /// committed by then is applied here. Fails at once if it does not lead.
    pub async fn confirm_here(&self) -> Result<(), Unavailable> {
        let index = self.index_here().await?;
        let mut applied = self.applied.clone();
        let reached = tokio::time::timeout(self.timeout, applied.wait_for(|at| *at >= index)).await;
        match reached {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(Unavailable::Stopped),
            Err(_) => Err(Unavailable::TimedOut),
        }
    }

    fn join(&self, add: impl FnOnce(&mut Rounds)) {
        let first = {
            let mut rounds = self.rounds.lock();
            add(&mut rounds);
            !std::mem::replace(&mut rounds.under_way, true)
        };
        if first {
            tokio::spawn(self.clone().run());
        }
    }

    async fn run(mut self) {
        let mut parties = VecDeque::new();
        let Some(mut elsewhere) = self.rounds.lock().elsewhere.take() else { return };
        loop {
            let (readers, members) = {
                let mut rounds = self.rounds.lock();
                rounds.under_way =
                    !(parties.is_empty() && rounds.readers.is_empty() && rounds.members.is_empty());
                if !rounds.under_way {
                    rounds.elsewhere = Some(elsewhere);
                    return;
                }
                (std::mem::take(&mut rounds.readers), std::mem::take(&mut rounds.members))
            };
            if !readers.is_empty() {
                parties.push_back(Party {
                    until: self.clock.now_ms() + self.timeout.as_millis() as u64,
                    readers,
                });
            }
            let now = *self.leadership.borrow_and_update();
            let outcome = self.round(now, &mut elsewhere).await;
            let for_members = if now.here { outcome } else { Err(Unavailable::NoLeader) };
            for tell in members {
                // A member that went away does not need to know; nor does a reader, below.
                let _ = tell.send(for_members);
            }
            match outcome {
                Ok(index) => self.release(index, std::mem::take(&mut parties)),
                Err(unavailable) => self.retry(unavailable, &mut parties).await,
            }
        }
    }

    async fn round(&self, now: Leadership, elsewhere: &mut ReadIndexes) -> Result<u64, Unavailable> {
        let asked = async {
            match now.mandate() {
                None => Err(Unavailable::NoLeader),
                Some(mandate) if mandate.member == elsewhere.own() => self.consensus.read_index().await,
                Some(mandate) => {
                    let mut leadership = self.leadership.clone();
                    tokio::select! {
                        biased;
                        // Who was asked leads no more.
                        _ = leadership.wait_for(|other| other.mandate() != Some(mandate)) => Err(Unavailable::LeaderChanged),
                        answer = elsewhere.ask(mandate) => answer,
                    }
                }
            }
        };
        tokio::time::timeout(self.patience, asked).await.unwrap_or(Err(Unavailable::TimedOut))
    }

    /// Lets readers go on once this member has applied up to where they may read.
    fn release(&self, index: u64, parties: VecDeque<Party>) {
        let Some(oldest) = parties.front() else { return };
        if *self.applied.borrow() >= index {
            return tell(parties, Ok(()));
        }
        let left = Duration::from_millis(oldest.until.saturating_sub(self.clock.now_ms()));
        let mut applied = self.applied.clone();
        tokio::spawn(async move {
            let outcome = match tokio::time::timeout(left, applied.wait_for(|at| *at >= index)).await {
                Ok(Ok(_)) => Ok(()),
                Ok(Err(_)) => Err(Unavailable::Stopped),
                Err(_) => Err(Unavailable::TimedOut),
            };
            tell(parties, outcome);
        });
    }

    /// Waits a moment, or for another leader, if there is somebody left to try again for.
    async fn retry(&mut self, unavailable: Unavailable, parties: &mut VecDeque<Party>) {
        let stopped = unavailable == Unavailable::Stopped;
        let now = self.clock.now_ms();
        while let Some(party) = parties.pop_front_if(|party| stopped || party.until <= now) {
            let failure = if stopped { Unavailable::Stopped } else { Unavailable::TimedOut };
            tell([party], Err(failure));
        }
        if let Some(first) = parties.front() {
            let pause = PAUSE.min(Duration::from_millis(first.until - now));
            // Without news there is the next try; but nobody will tell any more when this member is stopping.
            if let Ok(Err(_)) = tokio::time::timeout(pause, self.leadership.changed()).await {
                tell(std::mem::take(parties), Err(Unavailable::Stopped));
            }
        }
    }
}

fn tell(parties: impl IntoIterator<Item = Party>, outcome: Result<(), Unavailable>) {
    for tell in parties.into_iter().flat_map(|party| party.readers) {
        // A reader that went away does not need to know.
        let _ = tell.send(outcome);
    }
}
