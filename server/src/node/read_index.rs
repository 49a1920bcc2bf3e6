//! Proof of leadership for reads and renewals. One round is under way at a time; whoever arrives meanwhile shares the
//! next, which begins after all of them arrived. (Raft dissertation, 6.4.)

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::raft::{Consensus, Unavailable};

#[derive(Clone)]
pub struct ReadIndex {
    consensus: Consensus,
    timeout: Duration,
    rounds: Arc<Mutex<Rounds>>,
}

#[derive(Default)]
struct Rounds {
    waiting: Vec<oneshot::Sender<Result<(), Unavailable>>>,
    under_way: bool,
}

impl ReadIndex {
    pub fn new(consensus: Consensus, timeout: Duration) -> ReadIndex {
        ReadIndex { consensus, timeout, rounds: Arc::default() }
    }

    /// Returns once a proof that began after this call is there, and all that was committed by then is applied here.
    pub async fn confirm(&self) -> Result<(), Unavailable> {
        let (tell, told) = oneshot::channel();
        let first = {
            let mut rounds = self.rounds.lock();
            rounds.waiting.push(tell);
            !std::mem::replace(&mut rounds.under_way, true)
        };
        if first {
            tokio::spawn(self.clone().run());
        }
        told.await.unwrap_or(Err(Unavailable::Stopped))
    }

    async fn run(self) {
        loop {
            let waiting = {
                let mut rounds = self.rounds.lock();
                rounds.under_way = !rounds.waiting.is_empty();
                std::mem::take(&mut rounds.waiting)
            };
            if waiting.is_empty() {
                return;
            }
            let round = tokio::time::timeout(self.timeout, self.consensus.confirm()).await;
            let outcome = round.unwrap_or(Err(Unavailable::TimedOut));
            for tell in waiting {
                // A reader that went away does not need to know.
                let _ = tell.send(outcome);
            }
        }
    }
}
