//! Renewals that wait for one answer which many share: of clients whose leader is elsewhere, and of a leader that tells its voters.
//! Knows nothing of how they are asked.

use tenure_state::LeaseId;
use tokio::sync::oneshot;

use crate::raft::Unavailable;

/// In one question, about.
const AT_ONCE: usize = 32_768;

/// Of one client's stream, or of one member's clients. Whoever went away does not need to know the outcome.
pub struct Renewals<T> {
    pub ids: Vec<LeaseId>,
    told: oneshot::Sender<Result<T, Unavailable>>,
}

impl<T> Renewals<T> {
    pub fn tell(self, outcome: Result<T, Unavailable>) {
        let _ = self.told.send(outcome);
    }
}

/// All that arrived since the last question was asked.
pub struct Gathered<T>(Vec<Renewals<T>>);

impl<T> Default for Gathered<T> {
    fn default() -> Gathered<T> {
        Gathered(Vec::new())
    }
}

impl<T> Gathered<T> {
    /// Gives where the outcome will be told.
    pub fn add(&mut self, ids: &[LeaseId]) -> oneshot::Receiver<Result<T, Unavailable>> {
        let (told, outcome) = oneshot::channel();
        self.0.push(Renewals { ids: ids.to_vec(), told });
        outcome
    }

    /// For another question, after one that did not count.
    pub fn add_again(&mut self, renewals: Vec<Renewals<T>>) {
        self.0.extend(renewals);
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What goes into the next question; the rest waits for the one after.
    pub fn take(&mut self) -> Vec<Renewals<T>> {
        let mut ids = 0;
        let full = self.0.iter().position(|renewals| {
            ids += renewals.ids.len();
            ids >= AT_ONCE
        });
        match full {
            Some(last) => self.0.drain(..=last).collect(),
            None => std::mem::take(&mut self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_has_a_bound_and_leaves_the_rest_for_the_next() {
        let mut gathered = Gathered::<()>::default();
        for count in [1, AT_ONCE, 1] {
            gathered.add(&vec![LeaseId(7); count]);
        }
        assert_eq!(gathered.take().len(), 2);
        assert_eq!(gathered.take().len(), 1);
        assert!(gathered.is_empty() && gathered.take().is_empty());
    }
}
