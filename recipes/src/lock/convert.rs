//! Changing the mode of a grant: down at once, up only if nobody else holds the lock, so that two who share it and want more cannot
//! wait for each other.

use tenure_proto::tenure::v1::{LockGrant, LockHolding, LockMode, LockSpec};

use super::acquire::grant_of;
use super::keys::{Keys, Owner};
use super::leave::{find, find_by_token};
use super::plan::{Held, Plan};
use super::reading::{Fresh, Seen};
use super::step::{Ran, Step};
use super::{TRIES_MAX, crowded, help};
use crate::check;
use crate::key::Root;
use crate::primitives::{Failure, Primitives};
use crate::refusal::{Error, Reason, Refusal};

#[derive(Clone, Debug, PartialEq)]
pub enum Converted {
    /// Held in the mode that was asked for.
    Granted { grant: LockGrant, revision: i64 },
    /// Others hold it too; it is held as before.
    Busy { grant: LockGrant, revision: i64 },
    /// The grant has ended.
    NotCurrent { revision: i64 },
}

/// From exclusive to shared the token stays; from shared to exclusive it is a new one. Safe to repeat.
pub async fn convert<P: Primitives>(
    primitives: &P,
    root: &Root,
    name: &str,
    token: i64,
    mode: LockMode,
    owner: Option<&Owner>,
    unix_ms: i64,
) -> Result<Converted, Error> {
    check::name("lock", name)?;
    if mode == LockMode::Permits {
        return Err(
            Refusal::new(Reason::WrongMode, "a grant becomes EXCLUSIVE or SHARED, never PERMITS").into()
        );
    }
    let mut fresh = Fresh::Any;
    for _ in 0..TRIES_MAX {
        let (seen, revision) = Seen::read(primitives, &Keys::new(root, name), fresh).await?;
        let Some(held) = held(primitives, root, name, token, owner, &seen, Fresh::Since(revision)).await?
        else {
            if fresh == Fresh::Now {
                return Ok(Converted::NotCurrent { revision });
            }
            fresh = Fresh::Now;
            continue;
        };
        let grant = |token, upgraded, mode: LockMode| {
            let spec = LockSpec { name: name.to_owned(), mode: mode.into(), ..LockSpec::default() };
            grant_of(root, &held.owner, &spec, upgraded, token)
        };
        let as_it_is = grant(held.token, held.upgraded, held.holding.mode());
        if held.holding.mode() == LockMode::Permits {
            let text = format!("token {token} of {name:?} stands for permits, which have no other mode");
            return Err(Refusal::new(Reason::WrongMode, text).into());
        }
        // What is there already, or is not to be had, must be so at a moment after the call.
        let same = held.holding.mode() == mode;
        if same || mode == LockMode::Exclusive && seen.record.holders > 1 {
            if fresh != Fresh::Now {
                fresh = Fresh::Now;
                continue;
            }
            let (grant, busy) = (as_it_is, !same);
            return Ok(if busy {
                Converted::Busy { grant, revision }
            } else {
                Converted::Granted { grant, revision }
            });
        }
        let (step, more) =
            plan(primitives, root, name, seen, &held, mode, unix_ms, Fresh::Since(revision)).await?;
        fresh = Fresh::Now;
        match step.run(primitives).await {
            Ok(Ran::Done(revision)) => {
                if more {
                    help(primitives, root, name, unix_ms).await?;
                }
                let up = mode == LockMode::Exclusive;
                let token = if up { revision } else { held.token };
                return Ok(Converted::Granted { grant: grant(token, held.upgraded != up, mode), revision });
            }
            Ok(Ran::Overtaken | Ran::Unknown) | Err(Failure::LeaseUnknown) => {}
            Err(failure) => return Err(failure.into()),
        }
    }
    Err(crowded(name).into())
}

/// The holder of this token, or of the one that it was upgraded to.
async fn held<P: Primitives>(
    primitives: &P,
    root: &Root,
    name: &str,
    token: i64,
    owner: Option<&Owner>,
    seen: &Seen,
    fresh: Fresh,
) -> Result<Option<Held>, Failure> {
    let exclusive =
        seen.record.exclusive.as_ref().map(|id| Owner { session: id.session, id: id.owner.clone() });
    let owner = exclusive.as_ref().or(owner);
    let same = find_by_token(primitives, root, name, token, owner, fresh).await?;
    if same.is_some() || exclusive.is_none() {
        return Ok(same);
    }
    Ok(find(primitives, root, name, owner, fresh, |held| held.holding.converted_from == token).await?.pop())
}

#[expect(clippy::too_many_arguments, reason = "what a transition depends on, at its only call")]
async fn plan<P: Primitives>(
    primitives: &P,
    root: &Root,
    name: &str,
    seen: Seen,
    held: &Held,
    mode: LockMode,
    unix_ms: i64,
    fresh: Fresh,
) -> Result<(Step, bool), Failure> {
    let mut plan = Plan::new(primitives, root, unix_ms);
    plan.take_in(name, seen, fresh).await?;
    if mode == LockMode::Exclusive {
        let spec = LockSpec { name: name.to_owned(), mode: mode.into(), ..LockSpec::default() };
        let terms =
            LockHolding { converted_from: held.token, release_requested: None, ..held.holding.clone() };
        plan.release(name, held);
        plan.hold(name, &held.owner, &spec, &terms, !held.upgraded);
        return Ok((plan.finish(), false));
    }
    let holding = LockHolding { mode: mode.into(), ..held.holding.clone() };
    let key = Keys::new(root, name).holder(&held.owner, held.upgraded);
    plan.step().created(key.clone(), held.token);
    plan.step().rewrite(key, &holding);
    plan.forget(name, &held.owner, LockMode::Exclusive, 0);
    plan.count_in(name, &held.owner, &holding, 0, held.upgraded);
    plan.promote(name).await?;
    let more = plan.record(name).more;
    Ok((plan.finish(), more))
}
