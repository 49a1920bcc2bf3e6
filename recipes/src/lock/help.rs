//! Helping: what is due at a lock because a session ended or a delay is over, done by whoever sees it first. Nobody who waited need be
//! there. Whoever comes second finds nothing to do.

use std::collections::BTreeMap;

use tenure_proto::tenure::v1::{LockMark, LockMode, LockRecord, ended};

use super::keys::{Keys, Owner, Part, part};
use super::plan::Plan;
use super::reading::{Fresh, Reads, Seen, decode};
use super::step::{Ran, Step};
use super::{TRIES_MAX, crowded};
use crate::key::Root;
use crate::primitives::{Failure, Primitives};
use crate::session;

/// Ids of leases that hold delays: this, and the revision that the delay follows. They are the same whoever helps, so that two
/// helpers make one lease.
const DELAY_LEASES: i64 = 0x6c6f_636b << 32;

/// A holder whose key is gone, though it did not release.
struct Lost {
    owner: Owner,
    mark: LockMark,
    mode: LockMode,
}

/// Does at one lock what is due there. Safe to call at any time. `unix_ms` is when a grant began that comes of it, for people to read.
pub async fn help<P: Primitives>(
    primitives: &P,
    root: &Root,
    name: &str,
    unix_ms: i64,
) -> Result<(), Failure> {
    look_after(primitives, root, name, unix_ms).await.map(|_| ())
}

/// The same; whether anything was done.
pub(super) async fn look_after<P: Primitives>(
    primitives: &P,
    root: &Root,
    name: &str,
    unix_ms: i64,
) -> Result<bool, Failure> {
    let (mut fresh, mut helped) = (Fresh::Any, false);
    for _ in 0..TRIES_MAX {
        let (seen, revision) = Seen::read(primitives, &Keys::new(root, name), fresh).await?;
        if seen.written == 0 {
            return Ok(helped);
        }
        let step = due(primitives, root, name, unix_ms, seen, Fresh::Since(revision)).await?;
        if step.changes_nothing() {
            return Ok(helped);
        }
        helped = true;
        // Also behind what was done there may be more to do.
        fresh = match step.run(primitives).await {
            Ok(Ran::Done(revision)) => Fresh::Since(revision),
            Ok(Ran::Overtaken | Ran::Unknown) => Fresh::Now,
            // A session that waited ended this moment: its places go with it.
            Err(Failure::LeaseUnknown) => Fresh::Now,
            Err(failure) => return Err(failure),
        };
    }
    Err(crowded(name))
}

/// Whether a lock may be kept by a holder that is gone, by a delay that is over, or by nothing but its queue; found out without
/// looking at everybody.
pub(super) async fn overdue<P: Primitives>(
    primitives: &P,
    root: &Root,
    name: &str,
    record: &LockRecord,
    fresh: Fresh,
) -> Result<bool, Failure> {
    let keys = Keys::new(root, name);
    let key = match &record.exclusive {
        Some(id) => keys.holder(&Owner { session: id.session, id: id.owner.clone() }, id.upgraded),
        None if record.delay_lease != 0 => keys.delay(),
        None => return Ok(record.more || record.holders == 0),
    };
    let mut found = Reads::default().key(key).run(primitives, fresh).await?;
    Ok(found.take_one().is_none())
}

async fn due<P: Primitives>(
    primitives: &P,
    root: &Root,
    name: &str,
    unix_ms: i64,
    seen: Seen,
    fresh: Fresh,
) -> Result<Step, Failure> {
    let keys = Keys::new(root, name);
    let lost = lost(primitives, root, name, &seen.record, fresh).await?;
    let mut delay_s = 0;
    for one in lost.iter().filter(|one| one.mark.delay_s > 0) {
        let ended = session::ended(primitives, root, one.owner.session).await?;
        // Who closes its session lets go.
        if ended.is_none_or(|ended| ended.how() != ended::How::Closed) {
            delay_s = delay_s.max(one.mark.delay_s);
        }
    }
    let mut plan = Plan::new(primitives, root, unix_ms);
    let record = plan.take_in(name, seen.clone(), fresh).await?.clone();
    if record.delay_lease != 0 && over(primitives, &keys, fresh).await? {
        plan.step().absent(keys.delay());
        plan.record(name).delay_lease = 0;
    }
    for one in &lost {
        plan.step().absent(keys.holder(&one.owner, one.mark.upgraded));
        plan.forget(name, &one.owner, one.mode, one.mark.permits);
    }
    if delay_s > 0 {
        begin_delay(primitives, &mut plan, name, &keys, delay_s, seen.written).await?;
    }
    plan.promote(name).await?;
    Ok(plan.finish())
}

/// Keeps the lock from everybody for so long from now on. `cause` is the revision that the delay follows.
pub(super) async fn begin_delay<P: Primitives>(
    primitives: &P,
    plan: &mut Plan<'_, P>,
    name: &str,
    keys: &Keys<'_>,
    delay_s: i64,
    cause: i64,
) -> Result<(), Failure> {
    let lease = DELAY_LEASES ^ cause;
    match primitives.grant(lease, delay_s).await {
        Ok(_) | Err(Failure::Unknown(_)) => {}
        // Another helper's, who did not come further or is as far as this one: a delay may be longer, never shorter.
        Err(Failure::LeaseExists) => {
            primitives.keep_alive(lease).await?;
        }
        Err(failure) => return Err(failure),
    }
    plan.step().put(keys.delay(), &LockMark { delay_s, ..LockMark::default() }, lease);
    plan.record(name).delay_lease = lease;
    Ok(())
}

async fn over<P: Primitives>(primitives: &P, keys: &Keys<'_>, fresh: Fresh) -> Result<bool, Failure> {
    let mut found = Reads::default().key(keys.delay()).run(primitives, fresh).await?;
    Ok(found.take_one().is_none())
}

/// Holders that are in the record and whose keys are gone.
async fn lost<P: Primitives>(
    primitives: &P,
    root: &Root,
    name: &str,
    record: &LockRecord,
    fresh: Fresh,
) -> Result<Vec<Lost>, Failure> {
    if record.holders == 0 {
        return Ok(Vec::new());
    }
    if let Some(id) = &record.exclusive {
        if !overdue(primitives, root, name, record, fresh).await? {
            return Ok(Vec::new());
        }
        let owner = Owner { session: id.session, id: id.owner.clone() };
        let mark = LockMark { permits: 0, delay_s: record.delay_s, upgraded: id.upgraded };
        return Ok(vec![Lost { owner, mark, mode: LockMode::Exclusive }]);
    }
    /// Of a mass loss, so many at a time: each is a condition and a change of one txn.
    const AT_ONCE: usize = 30;
    let keys = Keys::new(root, name);
    let reads =
        Reads::default().range(keys.marks(), 0).range(keys.holders(false), 0).range(keys.holders(true), 0);
    let mut found = reads.run(primitives, fresh).await?;
    let mut marks: BTreeMap<Owner, LockMark> = BTreeMap::new();
    for kv in found.take() {
        if let Some((_, Part::Mark(owner))) = part(root, &kv.key) {
            marks.insert(owner, decode(&kv)?);
        }
    }
    for kv in found.take().into_iter().chain(found.take()) {
        if let Some((_, Part::Holder { owner, .. })) = part(root, &kv.key) {
            marks.remove(&owner);
        }
    }
    let lost = marks.into_iter().map(|(owner, mark)| Lost { owner, mark, mode: record.mode() });
    Ok(lost.take(AT_ONCE).collect())
}
