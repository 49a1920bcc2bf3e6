//! What an operator sets for a lock. It counts for acquisitions that begin later; the number of permits also for those who wait.

use tenure_proto::tenure::v1::{LockMode, LockPolicy};

use super::keys::Keys;
use super::plan::Plan;
use super::reading::{Fresh, Reads, policy_of};
use super::step::{Ran, Step};
use super::{TRIES_MAX, crowded, wish};
use crate::check;
use crate::key::Root;
use crate::primitives::{Failure, Primitives};
use crate::refusal::Error;

/// What is set, and as of which revision; all zeroes if nothing was.
pub async fn policy<P: Primitives>(
    primitives: &P,
    root: &Root,
    name: &str,
) -> Result<(LockPolicy, i64), Error> {
    check::name("lock", name)?;
    let mut found = Reads::default().key(Keys::new(root, name).policy()).run(primitives, Fresh::Now).await?;
    Ok((policy_of(found.take_one().as_ref())?, found.revision))
}

/// Sets it, in this revision. All zeroes take it away.
pub async fn set_policy<P: Primitives>(
    primitives: &P,
    root: &Root,
    name: &str,
    policy: &LockPolicy,
) -> Result<i64, Error> {
    check::name("lock", name)?;
    wish::policy(policy)?;
    for _ in 0..TRIES_MAX {
        let mut plan = Plan::new(primitives, root, 0);
        let record = plan.look(name, Fresh::Now).await?;
        if policy.capacity > 0 && record.capacity > 0 {
            record.capacity = policy.capacity;
        }
        // With more permits, some who wait may have their turn now.
        if record.mode() == LockMode::Permits {
            plan.promote(name).await?;
        }
        write(plan.step(), root, name, policy);
        match plan.finish().run(primitives).await {
            Ok(Ran::Done(revision)) => return Ok(revision),
            Ok(Ran::Overtaken | Ran::Unknown) | Err(Failure::LeaseUnknown) => {}
            Err(failure) => return Err(failure.into()),
        }
    }
    Err(crowded(name).into())
}

fn write(step: &mut Step, root: &Root, name: &str, policy: &LockPolicy) {
    let key = Keys::new(root, name).policy();
    if *policy == LockPolicy::default() {
        step.delete(key);
    } else {
        step.put(key, policy, 0);
    }
}
