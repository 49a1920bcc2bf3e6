//! Leaving: the end of a grant by its token, and of a place in the queue. Who comes next is granted the lock in the same revision.

use tenure_proto::tenure::v1::{LockBroken, LockHolding, LockMode, LockSpec};

use super::acquire::{Claim, Ticket, claim, grants_of};
use super::help::begin_delay;
use super::keys::{Keys, Owner, Part, part};
use super::plan::{Held, Plan};
use super::reading::{Entry, Fresh, Reads, Seen, decode};
use super::step::{Ran, Step};
use super::wait::Waited;
use super::{TRIES_MAX, crowded, help};
use crate::check;
use crate::key::Root;
use crate::primitives::{Failure, Primitives};
use crate::refusal::Error;

/// Why somebody else ends a grant.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Broke {
    pub reason: String,
    pub by: String,
    /// Grant the lock to the next at once, though its holder may not know yet that it has lost it.
    pub skip_delay: bool,
    /// For people to read.
    pub unix_ms: i64,
}

/// Ends the grant of this token and no other: the revision, or None if it has ended before. `owner` says who is meant of those who
/// share the lock, and spares a search among many.
pub async fn release<P: Primitives>(
    primitives: &P,
    root: &Root,
    name: &str,
    token: i64,
    owner: Option<&Owner>,
    unix_ms: i64,
) -> Result<Option<i64>, Error> {
    check::name("lock", name)?;
    let call = Call { primitives, root, name, token, owner, unix_ms };
    call.end(None).await
}

/// The same to somebody else's grant.
pub async fn break_grant<P: Primitives>(
    primitives: &P,
    root: &Root,
    name: &str,
    token: i64,
    owner: Option<&Owner>,
    broke: &Broke,
) -> Result<Option<i64>, Error> {
    check::name("lock", name)?;
    check::note(&broke.reason)?;
    check::optional_id("breaker's", &broke.by)?;
    let call = Call { primitives, root, name, token, owner, unix_ms: broke.unix_ms };
    call.end(Some(broke)).await
}

/// Ends an acquisition in whichever state it is. Whether there was anything to end.
pub async fn leave<P: Primitives>(
    primitives: &P,
    root: &Root,
    names: &[String],
    owner: &Owner,
    unix_ms: i64,
) -> Result<bool, Error> {
    owner.check()?;
    names.iter().try_for_each(|name| check::name("lock", name))?;
    let mut left = false;
    for name in names {
        let spec = [LockSpec { name: name.clone(), ..LockSpec::default() }];
        for attempt in 0..TRIES_MAX {
            match claim(primitives, root, owner, &spec, Fresh::Now).await?.0 {
                Claim::Nothing | Claim::Mixed => break,
                Claim::Held(held) => {
                    let token = held.first().map_or(0, |held| held.token);
                    release(primitives, root, name, token, Some(owner), unix_ms).await?;
                }
                Claim::Waiting(ticket) => give_up(primitives, root, &ticket, attempt, unix_ms).await?,
            }
            left = true;
        }
    }
    Ok(left)
}

/// Gives up a place in the queue, of a caller who is gone. What was granted meanwhile stays: the caller may be back, by another call.
pub async fn abandon<P: Primitives>(
    primitives: &P,
    root: &Root,
    ticket: &Ticket,
    unix_ms: i64,
) -> Result<Waited, Failure> {
    for attempt in 0..TRIES_MAX {
        let (claimed, revision) = claim(primitives, root, &ticket.owner, &ticket.locks, Fresh::Now).await?;
        match claimed {
            Claim::Waiting(now) if now.number == ticket.number => {
                give_up(primitives, root, &now, attempt, unix_ms).await?;
            }
            Claim::Held(held) => {
                return Ok(Waited::Granted { grants: grants_of(root, &ticket.locks, &held), revision });
            }
            Claim::Nothing | Claim::Waiting(_) | Claim::Mixed => return Ok(Waited::Gone { revision }),
        }
    }
    Err(crowded(&ticket.locks[0].name))
}

struct Call<'a, P> {
    primitives: &'a P,
    root: &'a Root,
    name: &'a str,
    token: i64,
    owner: Option<&'a Owner>,
    unix_ms: i64,
}

impl<P: Primitives> Call<'_, P> {
    async fn end(&self, broke: Option<&Broke>) -> Result<Option<i64>, Error> {
        let (mut fresh, mut perhaps) = (Fresh::Any, false);
        for _ in 0..TRIES_MAX {
            let (seen, revision) = Seen::read(self.primitives, &self.keys(), fresh).await?;
            let Some(held) =
                self.find(&seen, fresh == Fresh::Any && broke.is_none(), Fresh::Since(revision)).await?
            else {
                if fresh == Fresh::Any {
                    fresh = Fresh::Now;
                    continue;
                }
                // If an answer was lost, that was most likely what ended it.
                return Ok(perhaps.then_some(revision));
            };
            let (step, more) = self.plan(seen, &held, broke, Fresh::Since(revision)).await?;
            match step.run(self.primitives).await {
                Ok(Ran::Done(revision)) => {
                    if more {
                        help(self.primitives, self.root, self.name, self.unix_ms).await?;
                    }
                    return Ok(Some(revision));
                }
                Ok(Ran::Overtaken) => {}
                Ok(Ran::Unknown) => perhaps = true,
                // Somebody who waited, or whose grant is to be broken, ended this moment.
                Err(Failure::LeaseUnknown) => {}
                Err(failure) => return Err(failure.into()),
            }
            fresh = Fresh::Now;
        }
        Err(crowded(self.name).into())
    }

    /// What is to be done, and whether there is more behind it.
    async fn plan(
        &self,
        seen: Seen,
        held: &Held,
        broke: Option<&Broke>,
        fresh: Fresh,
    ) -> Result<(Step, bool), Failure> {
        let cause = seen.written;
        let mut plan = Plan::new(self.primitives, self.root, self.unix_ms);
        plan.take_in(self.name, seen, fresh).await?;
        plan.release(self.name, held);
        if let Some(broke) = broke {
            let (token, reason, by) = (held.token, broke.reason.clone(), broke.by.clone());
            let broken = LockBroken { token, reason, by, unix_ms: broke.unix_ms };
            plan.step().put(self.keys().broken(&held.owner), &broken, held.owner.session);
            if held.holding.delay_s > 0 && !broke.skip_delay {
                begin_delay(self.primitives, &mut plan, self.name, &self.keys(), held.holding.delay_s, cause)
                    .await?;
            }
        }
        plan.promote(self.name).await?;
        let more = plan.record(self.name).more;
        Ok((plan.finish(), more))
    }

    /// The holder of this token. `trust`: an exclusive holder is taken to be it, which the txn finds out.
    async fn find(&self, seen: &Seen, trust: bool, fresh: Fresh) -> Result<Option<Held>, Failure> {
        let keys = self.keys();
        if let Some(id) = &seen.record.exclusive {
            let owner = Owner { session: id.session, id: id.owner.clone() };
            if self.owner.is_some_and(|meant| *meant != owner) {
                return Ok(None);
            }
            if trust {
                let holding = LockHolding { mode: LockMode::Exclusive.into(), ..LockHolding::default() };
                return Ok(Some(Held { owner, upgraded: id.upgraded, token: self.token, holding }));
            }
            let key = keys.holder(&owner, id.upgraded);
            let mut found = Reads::default().key(key).run(self.primitives, fresh).await?;
            let Some(kv) = found.take_one().filter(|kv| kv.create_revision == self.token) else {
                return Ok(None);
            };
            return Ok(Some(Held { owner, upgraded: id.upgraded, token: self.token, holding: decode(&kv)? }));
        }
        find_by_token(self.primitives, self.root, self.name, self.token, self.owner, fresh).await
    }

    fn keys(&self) -> Keys<'_> {
        Keys::new(self.root, self.name)
    }
}

/// The one holder of a token. Those who came to share a lock in one revision have the same, so it must be said who is meant.
pub(super) async fn find_by_token<P: Primitives>(
    primitives: &P,
    root: &Root,
    name: &str,
    token: i64,
    owner: Option<&Owner>,
    fresh: Fresh,
) -> Result<Option<Held>, Failure> {
    let mut found = find(primitives, root, name, owner, fresh, |held| held.token == token).await?;
    if found.len() > 1 {
        let text = format!(
            "{} hold {name:?} by token {token}; send session and owner id to say who is meant",
            found.len()
        );
        return Err(Failure::Invalid(text));
    }
    Ok(found.pop())
}

/// The holders that are `wanted`: among all, or of those of one owner.
pub(super) async fn find<P: Primitives>(
    primitives: &P,
    root: &Root,
    name: &str,
    owner: Option<&Owner>,
    fresh: Fresh,
    wanted: impl Fn(&Held) -> bool,
) -> Result<Vec<Held>, Failure> {
    let keys = Keys::new(root, name);
    let mut reads = Reads::default();
    for upgraded in [false, true] {
        reads = match owner {
            Some(owner) => reads.key(keys.holder(owner, upgraded)),
            None => reads.range(keys.holders(upgraded), 0),
        };
    }
    let mut found = reads.run(primitives, fresh).await?;
    let mut holders = Vec::new();
    for kv in found.take().into_iter().chain(found.take()) {
        if let Some((_, Part::Holder { owner, upgraded })) = part(root, &kv.key) {
            let held = Held { owner, upgraded, token: kv.create_revision, holding: decode(&kv)? };
            if wanted(&held) {
                holders.push(held);
            }
        }
    }
    Ok(holders)
}

/// Takes somebody out of all the queues it stands in, unless something has changed there: look again, whatever became of it.
async fn give_up<P: Primitives>(
    primitives: &P,
    root: &Root,
    ticket: &Ticket,
    attempt: usize,
    unix_ms: i64,
) -> Result<(), Failure> {
    /// In a queue that moves fast, those before are gone before one can leave in their sight. Then it is left without, and looked after
    /// at once whether that made somebody the first whose turn it is.
    const IN_SIGHT_MAX: usize = 8;
    let fresh = Fresh::Since(ticket.revision);
    let mut plan = Plan::new(primitives, root, unix_ms);
    let mut heads = Vec::new();
    for spec in &ticket.locks {
        plan.look(&spec.name, fresh).await?;
    }
    for spec in &ticket.locks {
        let key = Keys::new(root, &spec.name).queued(&ticket.number, &ticket.owner);
        let mut found = Reads::default().key(key).run(primitives, fresh).await?;
        let Some(kv) = found.take_one() else { return Ok(()) };
        plan.leave(&spec.name, &Entry::of(root, &kv)?);
        match plan.head(&spec.name) {
            Some(head) if head.owner != ticket.owner => {
                if attempt < IN_SIGHT_MAX {
                    plan.stands(&head);
                }
            }
            _ => heads.push(spec.name.clone()),
        }
    }
    for name in &heads {
        plan.promote(name).await?;
    }
    match plan.finish().run(primitives).await {
        Ok(Ran::Done(_)) => {
            for spec in &ticket.locks {
                help(primitives, root, &spec.name, unix_ms).await?;
            }
            Ok(())
        }
        Ok(Ran::Overtaken | Ran::Unknown) | Err(Failure::LeaseUnknown) => Ok(()),
        Err(failure) => Err(failure),
    }
}
