//! Elections: at each revision at most one leader, and that one has a live session in the same revision. Each term has an epoch (1, 2,
//! 3 ... and never again), a token (the revision at which its holder key was created), one start and one end on record.
//!
//! `State` is what the keys say at one revision, `rules` say what is due or what a wish comes to, as a `Transition`, and that is one
//! txn which compares all that was decided upon; who loses a race reads again. Whatever takes time is a key on a lease. So it does not
//! matter who acts: [`help`] does what is due, for whoever calls it, and nothing if nothing is.
//!
//! Requests and answers are the messages of `tenure.v1`; of an answer's header only the revision is filled in.

mod asked;
mod campaign;
mod candidacy;
mod keys;
mod lookup;
mod observe;
mod rules;
mod state;
mod term;
mod timer;
mod transfer;
mod transition;
mod wellformed;

use tenure_proto::etcdserverpb::ResponseHeader;
use tenure_proto::tenure::v1::{ElectionResignRequest, ElectionTerm, ended};

use crate::key::Root;
use crate::primitives::{Failure, Primitives};
use crate::refusal::Error;
use crate::session;
use keys::{Keys, Place};
use rules::Verdict;
use state::{SessionEnd, State};
use transition::Transition;

pub use campaign::Campaign;
pub use observe::Observation;
pub use transfer::Following;
pub use wellformed::{CANDIDATES_MAX, VALUE_BYTES_MAX};

/// How often a call begins again because others were in its way. Each time somebody else's came through.
const TRIES_MAX: usize = 64;
/// After so many the best candidate need not be chosen among those of the very last revision: they change too fast.
const TRIES_IN_ORDER: usize = 8;
/// How often an answer may be lost in one call.
const UNKNOWN_MAX: usize = 3;

/// All elections below one root.
#[derive(Clone, Debug)]
pub struct Elections<P> {
    primitives: P,
    root: Root,
}

/// Does what is due in an election: fills a vacancy, ends what ran out of time. Safe to call at any time, by anybody.
pub async fn help<P: Primitives>(primitives: &P, root: &Root, name: &str) -> Result<(), Failure> {
    let elections = Elections::new(primitives.clone(), root.clone());
    elections.help(&elections.keys(name)).await.map(|_| ())
}

/// Resigns by a holder key: what a session does for each of its keys before it is closed, so that others need not find out. Does nothing
/// for keys that are no election's, or not a leader's any more.
pub async fn leave<P: Primitives>(primitives: &P, root: &Root, key: &[u8]) -> Result<(), Error> {
    let segments = root.segments(key).unwrap_or_default();
    let ["election", name, ..] = segments.iter().map(String::as_str).collect::<Vec<_>>()[..] else {
        return Ok(());
    };
    let elections = Elections::new(primitives.clone(), root.clone());
    let keys = elections.keys(name);
    let Some(Place::Leader(epoch)) = keys.place(key) else { return Ok(()) };
    let state = elections.read(&keys).await?;
    let Some(term) = state.leading().filter(|term| term.epoch == epoch) else { return Ok(()) };
    let (name, token) = (name.to_owned(), term.token);
    let request = ElectionResignRequest { name, token, closing: true, ..ElectionResignRequest::default() };
    elections.resign(&request).await.map(|_| ())
}

/// What a rule came to.
struct Decided<T> {
    answer: T,
    /// At which the step was taken, or else the answer true.
    revision: i64,
    /// A step was taken.
    done: bool,
    /// The term that began with it.
    next: Option<ElectionTerm>,
}

impl<P: Primitives> Elections<P> {
    pub fn new(primitives: P, root: Root) -> Elections<P> {
        Elections { primitives, root }
    }

    fn keys(&self, name: &str) -> Keys {
        Keys::new(self.root.clone(), name)
    }

    async fn read(&self, keys: &Keys) -> Result<State, Failure> {
        let mut state = State::of(keys, self.primitives.txn(State::read(keys)).await?)?;
        if let Some(leader) = state.lost().and_then(|term| term.leader.as_ref()) {
            let ended = session::ended(&self.primitives, &self.root, leader.session_id).await?;
            state.session_end = ended.map_or_else(SessionEnd::default, |ended| SessionEnd {
                closed: ended.how() == ended::How::Closed,
                note: ended.reason,
            });
        }
        Ok(state)
    }

    /// Until nothing is due. Gives the state in which that is so.
    async fn help(&self, keys: &Keys) -> Result<State, Failure> {
        let mut tries = Tries::default();
        loop {
            let state = self.read(keys).await?;
            let Some(transition) = rules::due(&state) else { return Ok(state) };
            let tried = self.attempt(keys, &state, &transition, &tries).await;
            tries.count(keys, tried)?;
        }
    }

    /// Until the rule has an answer, or its step is done.
    async fn decide<T>(&self, keys: &Keys, rule: impl Fn(&State) -> Verdict<T>) -> Result<Decided<T>, Error> {
        let mut tries = Tries::default();
        loop {
            let state = self.read(keys).await?;
            let (transition, answer) = match rule(&state) {
                Verdict::Say(answer) => {
                    return Ok(Decided { answer, revision: state.revision, done: false, next: None });
                }
                Verdict::Do(transition, answer) => (transition, answer),
            };
            let tried = self.attempt(keys, &state, &transition, &tries).await;
            if let Some(revision) = tries.count(keys, tried)? {
                if transition.start.is_none() || state.policy.preempts {
                    // Who cannot be answered now has done what was wished all the same; the rest is anybody's.
                    let _ = self.help(keys).await;
                }
                let next = transition.next_term(&state).map(|next| ElectionTerm { token: revision, ..next });
                return Ok(Decided { answer, revision, done: true, next });
            }
        }
    }

    /// The revision at which the step was taken; None: the state is not what it was.
    async fn attempt(
        &self,
        keys: &Keys,
        state: &State,
        transition: &Transition,
        tries: &Tries,
    ) -> Result<Option<i64>, Failure> {
        let mut leases = Vec::with_capacity(transition.timers.len());
        for (timer, ttl_s) in &transition.timers {
            let about = transition.about(state);
            leases.push(timer::lease(&self.primitives, keys, *timer, &about, *ttl_s).await?);
        }
        let in_order = tries.lost < TRIES_IN_ORDER;
        let txn = transition.txn(keys, state, &leases, in_order);
        let response = self.primitives.txn(txn).await?;
        Ok(response.succeeded.then(|| asked::revision(&response)))
    }
}

/// How often a call has begun again.
#[derive(Default)]
struct Tries {
    lost: usize,
    unknown: usize,
}

impl Tries {
    /// Passes on what was done; None: read again.
    fn count(&mut self, keys: &Keys, tried: Result<Option<i64>, Failure>) -> Result<Option<i64>, Failure> {
        match tried {
            Ok(Some(revision)) => return Ok(Some(revision)),
            // A lease ran out between its grant and the txn.
            Ok(None) | Err(Failure::LeaseUnknown) => self.lost += 1,
            // Reading again finds out.
            Err(Failure::Unknown(_)) if self.unknown < UNKNOWN_MAX => self.unknown += 1,
            Err(failure) => return Err(failure),
        }
        if self.lost < TRIES_MAX {
            return Ok(None);
        }
        let text = format!("election {:?} changes faster than it can be read; ask again", keys.name());
        Err(Failure::Unavailable(text))
    }
}

fn header(revision: i64) -> Option<ResponseHeader> {
    Some(ResponseHeader { revision, ..ResponseHeader::default() })
}
