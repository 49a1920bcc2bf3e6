//! Tokens, for those to whom holders show them: whether one is good, which are stale for ever, and a word to the holder of one.

use tenure_proto::tenure::v1::LockHolding;
use tenure_proto::tenure::v1::lock_event::ReleaseRequested;

use super::keys::{Keys, Owner};
use super::leave::{find, find_by_token};
use super::reading::{Fresh, Reads, Seen, decode};
use super::step::{Ran, Step};
use super::{TRIES_MAX, crowded};
use crate::check as checked;
use crate::key::Root;
use crate::primitives::{Changes, Failure, Primitives};
use crate::refusal::Error;

/// The answer about one token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checked {
    pub current: bool,
    pub floor: i64,
    pub revision: i64,
}

/// Which tokens of one lock are stale for ever, and when there are more of them.
pub struct Floor<P: Primitives> {
    primitives: P,
    root: Root,
    name: String,
    changes: Option<P::Changes>,
    told: i64,
}

/// Whether a token is that of a holder, as of a moment after the call.
pub async fn check<P: Primitives>(
    primitives: &P,
    root: &Root,
    name: &str,
    token: i64,
    owner: Option<&Owner>,
) -> Result<Checked, Error> {
    checked::name("lock", name)?;
    let (floor, revision) = least(primitives, root, name, Fresh::Now).await?;
    let current = token >= floor
        && !find(primitives, root, name, owner, Fresh::Since(revision), |held| held.token == token)
            .await?
            .is_empty();
    Ok(Checked { current, floor, revision })
}

pub fn floor<P: Primitives>(primitives: &P, root: &Root, name: &str) -> Result<Floor<P>, Error> {
    checked::name("lock", name)?;
    let (primitives, root, name) = (primitives.clone(), root.clone(), name.to_owned());
    Ok(Floor { primitives, root, name, changes: None, told: 0 })
}

impl<P: Primitives> Floor<P> {
    /// The floor now, and then each time it has risen, with the revision as of which that holds.
    pub async fn next(&mut self) -> Result<(i64, i64), Failure> {
        loop {
            let fresh = match &mut self.changes {
                None => Fresh::Now,
                Some(changes) => match changes.next().await {
                    Ok(change) => Fresh::Since(change.revision),
                    Err(Failure::Compacted { .. }) => Fresh::Now,
                    Err(failure) => return Err(failure),
                },
            };
            let (floor, revision) = least(&self.primitives, &self.root, &self.name, fresh).await?;
            if fresh == Fresh::Now {
                let state = Keys::new(&self.root, &self.name).state();
                self.changes = Some(self.primitives.watch(state, Vec::new(), revision + 1).await?);
            }
            if floor > self.told {
                self.told = floor;
                return Ok((floor, revision));
            }
        }
    }
}

/// The least token that is or may come to be good. Nobody holds the lock: whoever will has a later revision for a token.
async fn least<P: Primitives>(
    primitives: &P,
    root: &Root,
    name: &str,
    fresh: Fresh,
) -> Result<(i64, i64), Failure> {
    let keys = Keys::new(root, name);
    let (seen, revision) = Seen::read(primitives, &keys, fresh).await?;
    let reads = match &seen.record.exclusive {
        Some(id) => {
            let owner = Owner { session: id.session, id: id.owner.clone() };
            Reads::default().key(keys.holder(&owner, id.upgraded)).key(keys.holder(&owner, !id.upgraded))
        }
        None if seen.record.holders == 0 => return Ok((revision + 1, revision)),
        None => Reads::default().range(keys.holders(false), 0).range(keys.holders(true), 0),
    };
    let mut found = reads.run(primitives, Fresh::Since(revision)).await?;
    let tokens = found.take().into_iter().chain(found.take()).map(|kv| kv.create_revision);
    // What was read later may show a holder less: tokens before this look are stale all the same.
    Ok((tokens.min().unwrap_or(revision + 1), revision))
}

/// Leaves word for a holder that somebody would like it to let go. Whether there is such a holder.
pub async fn request_release<P: Primitives>(
    primitives: &P,
    root: &Root,
    name: &str,
    token: i64,
    owner: Option<&Owner>,
    word: &ReleaseRequested,
) -> Result<bool, Error> {
    checked::name("lock", name)?;
    checked::note(&word.reason)?;
    checked::optional_id("asker's", &word.by)?;
    for _ in 0..TRIES_MAX {
        let found = find_by_token(primitives, root, name, token, owner, Fresh::Now).await?;
        let Some(held) = found else { return Ok(false) };
        let key = Keys::new(root, name).holder(&held.owner, held.upgraded);
        let mut found = Reads::default().key(key.clone()).run(primitives, Fresh::Now).await?;
        let Some(kv) = found.take_one().filter(|kv| kv.create_revision == token) else { continue };
        let holding = LockHolding { release_requested: Some(word.clone()), ..decode(&kv)? };
        let mut step = Step::default();
        // Somebody may be changing the mode.
        step.unchanged(key.clone(), kv.mod_revision);
        step.rewrite(key, &holding);
        if let Ran::Done(_) = step.run(primitives).await? {
            return Ok(true);
        }
    }
    Err(crowded(name).into())
}
