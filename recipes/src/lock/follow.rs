//! Following one acquisition: every turn it takes from here on, and how it ends. What was missed is not told again, what is now is.

use tenure_proto::mvccpb::Event;
use tenure_proto::mvccpb::event::EventType;
use tenure_proto::tenure::v1::lock_event::{End, Ended, ReleaseRequested};
use tenure_proto::tenure::v1::{LockBroken, LockGrant, LockHolding, LockSpec, ended};

use super::acquire::{Claim, Ticket, claim, grants_of};
use super::keys::{Keys, Owner};
use super::plan::Held;
use super::reading::{Fresh, Reads, decode};
use crate::check;
use crate::key::Root;
use crate::primitives::{Changes, Failure, Primitives};
use crate::refusal::Error;
use crate::session;

/// A turn of an acquisition.
#[derive(Clone, Debug, PartialEq)]
pub enum Turn {
    Queued(Ticket),
    Granted(LockGrant),
    ReleaseRequested(ReleaseRequested),
    /// The last.
    Ended(Ended),
}

pub struct Following<P: Primitives> {
    primitives: P,
    root: Root,
    spec: [LockSpec; 1],
    owner: Owner,
    state: State<P>,
}

enum State<P: Primitives> {
    /// As it is told next.
    Look(Fresh),
    Waiting {
        number: String,
        changes: P::Changes,
    },
    Holding {
        held: Held,
        changes: P::Changes,
    },
    Over,
}

pub fn follow<P: Primitives>(
    primitives: &P,
    root: &Root,
    name: &str,
    owner: &Owner,
) -> Result<Following<P>, Error> {
    check::name("lock", name)?;
    owner.check()?;
    let spec = [LockSpec { name: name.to_owned(), ..LockSpec::default() }];
    let (primitives, root, owner) = (primitives.clone(), root.clone(), owner.clone());
    Ok(Following { primitives, root, spec, owner, state: State::Look(Fresh::Now) })
}

impl<P: Primitives> Following<P> {
    /// The next turn, and the revision as of which it holds; None behind the last. Safe to drop and to call again.
    pub async fn next(&mut self) -> Result<Option<(Turn, i64)>, Failure> {
        loop {
            let change = match &mut self.state {
                State::Over => return Ok(None),
                State::Look(fresh) => {
                    let fresh = *fresh;
                    if let Some(turn) = self.look(fresh, None).await? {
                        return Ok(Some(turn));
                    }
                    continue;
                }
                State::Waiting { changes, .. } | State::Holding { changes, .. } => changes.next().await,
            };
            let change = match change {
                Ok(change) => change,
                Err(Failure::Compacted { .. }) => {
                    self.state = State::Look(Fresh::Now);
                    continue;
                }
                Err(failure) => return Err(failure),
            };
            for event in &change.events {
                if let Some(word) = self.word(event)? {
                    return Ok(Some((Turn::ReleaseRequested(word), change.revision)));
                }
                let gone = event.r#type() == EventType::Delete;
                let before = gone
                    .then(|| std::mem::replace(&mut self.state, State::Look(Fresh::Since(change.revision))));
                if let Some(before) = before
                    && let Some(turn) = self.look(Fresh::Since(change.revision), Some(before)).await?
                {
                    return Ok(Some(turn));
                }
            }
        }
    }

    /// Somebody's wish, if that is what was written to the holder key.
    fn word(&mut self, event: &Event) -> Result<Option<ReleaseRequested>, Failure> {
        let (State::Holding { held, .. }, Some(kv), EventType::Put) =
            (&mut self.state, &event.kv, event.r#type())
        else {
            return Ok(None);
        };
        let holding: LockHolding = decode(kv)?;
        let before = std::mem::replace(&mut held.holding, holding).release_requested;
        Ok(held.holding.release_requested.clone().filter(|word| before.as_ref() != Some(word)))
    }

    /// What it is now. `before`: what it was until now.
    async fn look(&mut self, fresh: Fresh, before: Option<State<P>>) -> Result<Option<(Turn, i64)>, Failure> {
        let (claimed, revision) = claim(&self.primitives, &self.root, &self.owner, &self.spec, fresh).await?;
        let keys = Keys::new(&self.root, &self.spec[0].name);
        let turn = match claimed {
            Claim::Held(held) => {
                let grant = grants_of(&self.root, &self.spec, &held).remove(0);
                let held = held
                    .into_iter()
                    .next()
                    .ok_or_else(|| Failure::Invalid("a grant without a holder".into()))?;
                let key = keys.holder(&held.owner, held.upgraded);
                let changes = self.primitives.watch(key, Vec::new(), revision + 1).await?;
                self.state = State::Holding { held, changes };
                Turn::Granted(grant)
            }
            Claim::Waiting(ticket) => {
                let key = keys.queued(&ticket.number, &self.owner);
                let changes = self.primitives.watch(key, Vec::new(), revision + 1).await?;
                let same = matches!(&before, Some(State::Waiting { number, .. }) if *number == ticket.number);
                self.state = State::Waiting { number: ticket.number.clone(), changes };
                if same {
                    return Ok(None);
                }
                Turn::Queued(ticket)
            }
            Claim::Nothing | Claim::Mixed => {
                let ended = self.end(before, Fresh::Since(revision)).await?;
                self.state = State::Over;
                Turn::Ended(ended)
            }
        };
        Ok(Some((turn, revision)))
    }

    /// How what was there until now came to its end.
    async fn end(&self, before: Option<State<P>>, fresh: Fresh) -> Result<Ended, Failure> {
        let token = match before {
            None | Some(State::Look(_) | State::Over) => 0,
            Some(State::Waiting { .. }) => 0,
            Some(State::Holding { ref held, .. }) => held.token,
        };
        let how = |how: End| Ended { how: how.into(), token, ..Ended::default() };
        let key = Keys::new(&self.root, &self.spec[0].name).broken(&self.owner);
        let mut found = Reads::default().key(key).run(&self.primitives, fresh).await?;
        if let Some(kv) = found.take_one() {
            let broken: LockBroken = decode(&kv)?;
            if broken.token == token || before.is_none() {
                let LockBroken { token, reason, by, .. } = broken;
                return Ok(Ended { how: End::Broken.into(), token, reason, by });
            }
        }
        if let Some(ended) = session::ended(&self.primitives, &self.root, self.owner.session).await? {
            let closed = ended.how() == ended::How::Closed;
            let end = how(if closed { End::Closed } else { End::Killed });
            return Ok(Ended { reason: ended.reason, by: ended.by, ..end });
        }
        if self.primitives.time_to_live(self.owner.session).await?.is_none() {
            return Ok(how(End::Expired));
        }
        Ok(how(if before.is_some() { End::Released } else { End::Nothing }))
    }
}
