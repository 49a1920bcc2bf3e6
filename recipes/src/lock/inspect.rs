//! One lock as people and tools want to see it: who holds it, who waits, what it waits for. It decides nothing.

use tenure_proto::etcdserverpb::RangeRequest;
use tenure_proto::mvccpb::KeyValue;
use tenure_proto::tenure::v1::{
    LockDelay, LockHolder, LockHolding, LockPolicy, LockQueued, LockRecord, LockSummary, LockWaiter,
};

use super::keys::{Keys, Owner, Part, part};
use super::reading::{Fresh, Reads, Seen, decode, policy_of};
use crate::check;
use crate::key::Root;
use crate::primitives::{Failure, Primitives};
use crate::refusal::Error;

/// Holders that a summary names.
pub const SUMMARY_HOLDERS_MAX: usize = 16;
/// Holders and waiters that an inspection names at the most.
pub const LIMIT_MAX: i64 = 1_000;
const LIMIT: i64 = 100;

#[derive(Clone, Debug, PartialEq)]
pub struct Inspected {
    /// Without holders, they are beside it.
    pub lock: LockSummary,
    pub holders: Vec<LockHolder>,
    pub waiters: Vec<LockWaiter>,
    pub policy: LockPolicy,
    pub revision: i64,
}

/// Everything about a lock, of holders and waiters `limit` at the most; 0: as many as is usual.
pub async fn inspect<P: Primitives>(
    primitives: &P,
    root: &Root,
    name: &str,
    limit: i64,
) -> Result<Inspected, Error> {
    check::name("lock", name)?;
    let limit = if limit <= 0 { LIMIT } else { limit.min(LIMIT_MAX) };
    let keys = Keys::new(root, name);
    let (seen, revision) = Seen::read(primitives, &keys, Fresh::Now).await?;
    let fresh = Fresh::Since(revision);
    let mut reads = Reads::default().key(keys.policy());
    if !seen.record.line.is_empty() {
        reads = reads.range(keys.queue_from(&seen.record.line), limit);
    }
    let mut found = reads.run(primitives, fresh).await?;
    let policy = policy_of(found.take_one().as_ref())?;
    let waiters = found.take().iter().map(|kv| waiter(root, kv)).collect::<Result<_, _>>()?;
    let mut lock = of_record(primitives, root, name, &seen.record).await?;
    let mut holders = holders(primitives, root, name, &seen.record, limit, fresh).await?;
    for holder in &mut holders {
        if let Some(left) = primitives.time_to_live(holder.session_id).await? {
            (holder.remaining_s, holder.ttl_s) = (left.remaining_s, left.granted_s);
        }
    }
    if let Some(delay) = &mut lock.delay {
        let left = primitives.time_to_live(seen.record.delay_lease).await?;
        delay.remaining_s = left.map_or(0, |left| left.remaining_s);
    }
    Ok(Inspected { lock, holders, waiters, policy, revision })
}

/// The same in short, from what is at hand, as somebody who must wait is told.
pub async fn summary<P: Primitives>(primitives: &P, root: &Root, name: &str) -> Result<LockSummary, Failure> {
    let (seen, revision) = Seen::read(primitives, &Keys::new(root, name), Fresh::Any).await?;
    let mut lock = of_record(primitives, root, name, &seen.record).await?;
    let most = SUMMARY_HOLDERS_MAX as i64;
    lock.holders = holders(primitives, root, name, &seen.record, most, Fresh::Since(revision)).await?;
    Ok(lock)
}

/// How many wait in the queue before this place.
pub async fn ahead<P: Primitives>(
    primitives: &P,
    root: &Root,
    name: &str,
    number: &str,
) -> Result<i64, Failure> {
    let (seen, _) = Seen::read(primitives, &Keys::new(root, name), Fresh::Any).await?;
    let keys = Keys::new(root, name);
    count(primitives, keys.queue_from(&seen.record.line).0, keys.queue_from(number).0).await
}

async fn of_record<P: Primitives>(
    primitives: &P,
    root: &Root,
    name: &str,
    record: &LockRecord,
) -> Result<LockSummary, Failure> {
    let mut lock = brief(name, record);
    if !record.line.is_empty() {
        let (from, to) = Keys::new(root, name).queue_from(&record.line);
        lock.waiter_count = count(primitives, from, to).await?;
    }
    Ok(lock)
}

/// What the record alone says.
pub(super) fn brief(name: &str, record: &LockRecord) -> LockSummary {
    LockSummary {
        name: name.to_owned(),
        mode: record.mode,
        holder_count: record.holders.into(),
        permits_used: record.permits_used,
        capacity: record.capacity,
        delay: (record.delay_lease != 0).then(|| LockDelay { remaining_s: -1, ..LockDelay::default() }),
        ..LockSummary::default()
    }
}

async fn count<P: Primitives>(primitives: &P, from: Vec<u8>, to: Vec<u8>) -> Result<i64, Failure> {
    let (key, range_end) = (from.into(), to.into());
    let range =
        RangeRequest { key, range_end, count_only: true, serializable: true, ..RangeRequest::default() };
    Ok(primitives.range(range).await?.count)
}

async fn holders<P: Primitives>(
    primitives: &P,
    root: &Root,
    name: &str,
    record: &LockRecord,
    limit: i64,
    fresh: Fresh,
) -> Result<Vec<LockHolder>, Failure> {
    let keys = Keys::new(root, name);
    let reads = match &record.exclusive {
        Some(id) => {
            let owner = Owner { session: id.session, id: id.owner.clone() };
            Reads::default().key(keys.holder(&owner, id.upgraded))
        }
        None if record.holders == 0 => return Ok(Vec::new()),
        None => Reads::default().range(keys.holders(false), limit).range(keys.holders(true), limit),
    };
    let mut found = reads.run(primitives, fresh).await?;
    let all = found.take().into_iter().chain(found.take()).take(limit as usize);
    let mut holders = all.map(|kv| holder(root, &kv)).collect::<Result<Vec<_>, _>>()?;
    holders.sort_by_key(|holder| holder.token);
    Ok(holders)
}

/// The holder whose key this is.
pub(super) fn holder(root: &Root, kv: &KeyValue) -> Result<LockHolder, Failure> {
    let holding: LockHolding = decode(kv)?;
    let owner = match part(root, &kv.key) {
        Some((_, Part::Holder { owner, .. })) => owner,
        _ => Owner::default(),
    };
    Ok(LockHolder {
        session_id: owner.session,
        owner_id: owner.id,
        mode: holding.mode,
        permits: holding.permits,
        token: kv.create_revision,
        labels: holding.labels,
        since_unix_ms: holding.since_unix_ms,
        remaining_s: -1,
        ttl_s: -1,
        release_requested: holding.release_requested,
    })
}

fn waiter(root: &Root, kv: &KeyValue) -> Result<LockWaiter, Failure> {
    let LockQueued { locks, labels, since_unix_ms, .. } = decode(kv)?;
    let owner = match part(root, &kv.key) {
        Some((_, Part::Queued { owner, .. })) => owner,
        _ => Owner::default(),
    };
    Ok(LockWaiter { session_id: owner.session, owner_id: owner.id, locks, labels, since_unix_ms })
}
