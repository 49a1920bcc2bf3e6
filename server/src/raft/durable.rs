//! How far this member's own log is durable, and its vote. A quorum commits an entry without asking whether it is on this
//! member's disk yet, so apply asks: were the store to keep what an entry led to and a crash then take the entry, the log
//! would end before the state. It knows indexes and completions, not files.

use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

use super::types::Mandate;

/// The log's side: notes what is written and hears when it is durable. Cloning shares it.
#[derive(Clone)]
pub struct Ledger {
    truncations: Arc<Mutex<u64>>,
    reached: watch::Sender<Reached>,
    vote: Arc<Mutex<Mandate>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reached {
    /// All entries up to this index.
    Index(u64),
    /// What is not durable now will not be in this process.
    Broken,
}

/// The side of those who ask.
#[derive(Clone)]
pub struct Durable {
    reached: watch::Receiver<Reached>,
    vote: Arc<Mutex<Mandate>>,
}

impl Ledger {
    /// `last`: index of the last entry that was found when the log was opened; `vote`: what was found there, too.
    pub fn new(last: u64, vote: Mandate) -> Ledger {
        let reached = watch::Sender::new(Reached::Index(last));
        Ledger { truncations: Arc::default(), reached, vote: Arc::new(Mutex::new(vote)) }
    }

    pub fn durable(&self) -> Durable {
        Durable { reached: self.reached.subscribe(), vote: self.vote.clone() }
    }

    /// This vote is on the disk.
    pub fn voted(&self, vote: Mandate) {
        let mut last = self.vote.lock();
        *last = vote.max(*last);
    }

    /// Entries up to `last` are handed to the disk; the answer is to be called with what became of them, in the order in
    /// which they were handed over.
    pub fn appended(&self, last: u64) -> impl FnOnce(bool) + Send + 'static {
        let ledger = self.clone();
        let since = *self.truncations.lock();
        move |written| {
            let truncations = ledger.truncations.lock();
            // After a truncation this index may be another entry's, which a later completion will speak for.
            if written && *truncations != since {
                return;
            }
            ledger.reached.send_if_modified(|reached| {
                let next = match *reached {
                    Reached::Index(index) if written => Reached::Index(index.max(last)),
                    Reached::Index(_) | Reached::Broken => Reached::Broken,
                };
                std::mem::replace(reached, next) != next
            });
        }
    }

    /// The entries after `last` are gone.
    pub fn truncated(&self, last: u64) {
        let mut truncations = self.truncations.lock();
        *truncations += 1;
        self.reached.send_if_modified(|reached| match reached {
            Reached::Index(index) if *index > last => {
                *index = last;
                true
            }
            Reached::Index(_) | Reached::Broken => false,
        });
    }
}

impl Durable {
    /// Whom this member has given its vote last, or followed without having been asked for it. Never an earlier one after this, even
    /// if it is started anew.
    pub fn vote(&self) -> Mandate {
        *self.vote.lock()
    }

    /// Returns once all entries up to `index` survive a crash.
    ///
    /// # Errors
    /// The log broke: they may not.
    pub async fn wait(&mut self, index: u64) -> io::Result<()> {
        let reached = self.reached.wait_for(|reached| match reached {
            Reached::Index(durable) => *durable >= index,
            Reached::Broken => true,
        });
        match reached.await.map(|reached| *reached) {
            Ok(Reached::Index(_)) => Ok(()),
            Ok(Reached::Broken) | Err(_) => {
                Err(io::Error::other(format!("the log broke before its entry {index} was durable")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn is_durable(durable: &Durable, index: u64) -> Option<bool> {
        durable.clone().wait(index).now_or_never().map(|waited| waited.is_ok())
    }

    #[test]
    fn an_entry_is_durable_once_its_write_or_a_later_one_is() {
        let ledger = Ledger::new(3, Mandate::default());
        let durable = ledger.durable();
        let (first, second) = (ledger.appended(5), ledger.appended(6));
        assert_eq!((is_durable(&durable, 3), is_durable(&durable, 4)), (Some(true), None));
        first(true);
        assert_eq!((is_durable(&durable, 5), is_durable(&durable, 6)), (Some(true), None));
        second(true);
        assert_eq!(is_durable(&durable, 6), Some(true));
    }

    #[test]
    fn what_was_written_before_a_truncation_says_nothing_of_what_came_after_it() {
        let ledger = Ledger::new(3, Mandate::default());
        let durable = ledger.durable();
        let old = ledger.appended(9);
        ledger.truncated(4);
        let new = ledger.appended(8);
        old(true);
        assert_eq!(is_durable(&durable, 5), None);
        new(true);
        assert_eq!((is_durable(&durable, 8), is_durable(&durable, 9)), (Some(true), None));
        ledger.truncated(6);
        assert_eq!((is_durable(&durable, 6), is_durable(&durable, 7)), (Some(true), None));
    }

    #[test]
    fn a_broken_log_ends_the_wait_for_good() {
        let ledger = Ledger::new(3, Mandate::default());
        let durable = ledger.durable();
        let (failed, late) = (ledger.appended(4), ledger.appended(5));
        failed(false);
        late(true);
        assert_eq!(is_durable(&durable, 4), Some(false));
        drop(ledger);
    }
}
