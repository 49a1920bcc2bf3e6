//! Many locks at a glance: in pages, or as a picture that follows every change. The picture is a pure fold of keys and events, so that
//! it can be held against what an inspection says.

use std::collections::{BTreeMap, BTreeSet};

use tenure_proto::etcdserverpb::RangeRequest;
use tenure_proto::mvccpb::KeyValue;
use tenure_proto::mvccpb::event::EventType;
use tenure_proto::tenure::v1::{LockHolder, LockRecord, LockSummary};

use super::inspect::{SUMMARY_HOLDERS_MAX, brief, holder, summary};
use super::keys::{KIND, Owner, Part, part};
use super::reading::{Fresh, Reads, decode};
use crate::key::Root;
use crate::primitives::{Change, Failure, Primitives};

/// Locks of one page.
pub const PAGE_MAX: i64 = 1_000;
const PAGE: i64 = 100;
/// Keys read at once while a picture is begun.
const KEYS_AT_ONCE: i64 = 1_000;

/// All locks below a root, or those of some names, as keys and events have told so far.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Overview {
    locks: BTreeMap<String, Lock>,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Lock {
    record: Option<LockRecord>,
    holders: BTreeMap<(Owner, bool), LockHolder>,
    waiters: BTreeSet<Vec<u8>>,
}

/// Locks whose names begin with `prefix`, behind `after`, and whether there are more.
pub async fn list<P: Primitives>(
    primitives: &P,
    root: &Root,
    prefix: &str,
    after: &str,
    limit: i64,
) -> Result<(Vec<LockSummary>, bool, i64), Failure> {
    let limit = if limit <= 0 { PAGE } else { limit.min(PAGE_MAX) } as usize;
    let (_, end) = root.below(&[KIND]);
    let begin = root.key(&[KIND, prefix]);
    let mut from = if after.is_empty() { begin } else { begin.max(root.below(&[KIND, after]).1) };
    let (mut locks, mut revision, mut fresh) = (Vec::new(), 0, Fresh::Now);
    loop {
        let mut found = Reads::default().range((from, end.clone()), 1).run(primitives, fresh).await?;
        (revision, fresh) = (revision.max(found.revision), Fresh::Since(found.revision));
        let next = found
            .take_one()
            .and_then(|kv| root.segments(&kv.key))
            .and_then(|segments| segments.into_iter().nth(1));
        let Some(name) = next.filter(|name| name.starts_with(prefix)) else {
            return Ok((locks, false, revision));
        };
        let lock = summary(primitives, root, &name).await?;
        from = root.below(&[KIND, &name]).1;
        // Of one that only has a policy there is nothing to see.
        if lock.holder_count == 0 && lock.waiter_count == 0 && lock.delay.is_none() {
            continue;
        }
        if locks.len() == limit {
            return Ok((locks, true, revision));
        }
        locks.push(lock);
    }
}

impl Overview {
    /// Begins a picture of all that lies in a range of keys. Gives the revision that it shows.
    pub async fn begin<P: Primitives>(
        primitives: &P,
        root: &Root,
        (from, to): (Vec<u8>, Vec<u8>),
    ) -> Result<(Overview, i64), Failure> {
        let mut overview = Overview::default();
        let (mut key, mut revision) = (from, 0);
        loop {
            let range = RangeRequest {
                key: key.clone().into(),
                range_end: to.clone().into(),
                limit: KEYS_AT_ONCE,
                revision,
                ..RangeRequest::default()
            };
            let answer = primitives.range(range).await?;
            if revision == 0 {
                revision = answer.header.map_or(0, |header| header.revision);
            }
            for kv in &answer.kvs {
                overview.put(root, kv)?;
            }
            let Some(last) = answer.kvs.last().filter(|_| answer.more) else {
                return Ok((overview, revision));
            };
            key = [&last.key[..], &[0]].concat();
        }
    }

    /// Takes in what one revision did; gives the names of the locks that look otherwise now.
    pub fn follow(&mut self, root: &Root, change: &Change) -> Result<BTreeSet<String>, Failure> {
        let mut names = BTreeSet::new();
        for event in &change.events {
            let Some(kv) = &event.kv else { continue };
            names.extend(match event.r#type() {
                EventType::Put => self.put(root, kv)?,
                EventType::Delete => self.delete(root, &kv.key),
            });
        }
        Ok(names)
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.locks.keys().map(String::as_str)
    }

    /// A lock as it is now; one that nobody has to do with is free.
    pub fn summary(&self, name: &str) -> LockSummary {
        let Some(lock) = self.locks.get(name) else { return brief(name, &LockRecord::default()) };
        let mut summary = brief(name, lock.record.as_ref().unwrap_or(&LockRecord::default()));
        summary.waiter_count = lock.waiters.len() as i64;
        let mut holders: Vec<&LockHolder> = lock.holders.values().collect();
        holders.sort_by_key(|holder| holder.token);
        summary.holders = holders.into_iter().take(SUMMARY_HOLDERS_MAX).cloned().collect();
        summary
    }

    fn put(&mut self, root: &Root, kv: &KeyValue) -> Result<Option<String>, Failure> {
        let Some((name, part)) = part(root, &kv.key) else { return Ok(None) };
        let shows = matches!(part, Part::State | Part::Holder { .. } | Part::Queued { .. });
        if !shows {
            return Ok(None);
        }
        let lock = self.locks.entry(name.clone()).or_default();
        match part {
            Part::State => lock.record = Some(decode(kv)?),
            Part::Holder { owner, upgraded } => {
                lock.holders.insert((owner, upgraded), holder(root, kv)?);
            }
            Part::Queued { .. } => {
                lock.waiters.insert(kv.key.to_vec());
            }
            Part::Mark(_) | Part::Place(_) | Part::Broken(_) | Part::Delay | Part::Policy => {}
        }
        Ok(Some(name))
    }

    fn delete(&mut self, root: &Root, key: &[u8]) -> Option<String> {
        let (name, part) = part(root, key)?;
        let lock = self.locks.get_mut(&name)?;
        match part {
            Part::State => lock.record = None,
            Part::Holder { owner, upgraded } => {
                lock.holders.remove(&(owner, upgraded));
            }
            Part::Queued { .. } => {
                lock.waiters.remove(key);
            }
            Part::Mark(_) | Part::Place(_) | Part::Broken(_) | Part::Delay | Part::Policy => return None,
        }
        if *lock == Lock::default() {
            self.locks.remove(&name);
        }
        Some(name)
    }
}
