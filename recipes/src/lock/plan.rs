//! One transition of one lock, or of several that hang together by somebody who wants them all: who leaves, and who is granted the
//! lock in the same revision because of that.
//!
//! ```text
//!   state ── line ──► [ 5 ][ 7 ]······[ 12 ][ 12 ]·····►     the queue: numbers are the revisions at which each looked
//!            (4)       first                                  before it queued up, so they rise in the order of asking
//! ```
//!
//! What makes it safe whatever happens between look and txn:
//! - who changes the record of a lock compares that it is the one that was seen;
//! - who takes somebody out of the queue compares that nobody stands before, from the line on;
//! - who queues up compares that the line has not passed its place, and that there is something to wait for;
//! - who leaves somebody waiting at the head compares that it still stands there: else its end, seen to while the lock was taken, and a
//!   release that still saw it would together leave the next waiting for ever. It also moves the line up to there: else one who looked
//!   long before could still step in front, and would have its turn without anybody to see to it;
//! - if that is because of another lock, it also compares what it waits for there. So the last of those locks to become free is the one
//!   that grants them all.

use std::collections::{BTreeMap, BTreeSet};

use tenure_proto::tenure::v1::{
    LockHolderId, LockHolding, LockMark, LockMode, LockQueued, LockRecord, LockSpec,
};

use super::keys::{Keys, Owner};
use super::reading::{Entry, Fresh, Seen, first};
use super::step::Step;
use super::wish::admits;
use crate::key::Root;
use crate::primitives::{Failure, Primitives};

/// Those of a queue that are granted in one txn at the most: what more could be is left to the next.
const GRANTS_MAX: usize = 16;
/// Conditions or changes of one txn; etcd's own limit is 128.
const SIZE_MAX: usize = 96;

pub struct Plan<'a, P> {
    primitives: &'a P,
    root: &'a Root,
    locks: BTreeMap<String, Work>,
    step: Step,
    /// When, for people to read; 0 if nobody can say.
    unix_ms: i64,
}

/// One lock under change.
struct Work {
    seen: Seen,
    record: LockRecord,
    /// The queue's first, as far as they were looked at.
    first: Vec<Entry>,
    /// There are more behind those.
    rest: bool,
    /// How many of them have left the queue by this transition, from the front.
    passed: usize,
    /// Who gives up its place.
    leaving: Option<Owner>,
    /// Whose turn it is, and who cannot be granted what it waits for.
    blocked: Option<Entry>,
    looked: Fresh,
}

/// A grant of a lock, as its keys say it.
#[derive(Clone, Debug, PartialEq)]
pub struct Held {
    pub owner: Owner,
    pub upgraded: bool,
    pub token: i64,
    pub holding: LockHolding,
}

impl<'a, P: Primitives> Plan<'a, P> {
    pub fn new(primitives: &'a P, root: &'a Root, unix_ms: i64) -> Plan<'a, P> {
        Plan { primitives, root, locks: BTreeMap::new(), step: Step::default(), unix_ms }
    }

    pub fn step(&mut self) -> &mut Step {
        &mut self.step
    }

    /// Looks at a lock and its queue.
    pub async fn look(&mut self, name: &str, fresh: Fresh) -> Result<&mut LockRecord, Failure> {
        let (seen, revision) = Seen::read(self.primitives, &Keys::new(self.root, name), fresh).await?;
        self.take_in(name, seen, Fresh::Since(revision)).await
    }

    /// The same, where the record is known already.
    pub async fn take_in(
        &mut self,
        name: &str,
        seen: Seen,
        fresh: Fresh,
    ) -> Result<&mut LockRecord, Failure> {
        // Most often the first is granted the lock alone, and all one must know of the second is whether there is one.
        let (first, rest) = self.read_first(name, &seen.record.line, 1, fresh).await?;
        let record = seen.record.clone();
        let work = Work { seen, record, first, rest, passed: 0, leaving: None, blocked: None, looked: fresh };
        self.locks.insert(name.to_owned(), work);
        Ok(self.record(name))
    }

    pub fn record(&mut self, name: &str) -> &mut LockRecord {
        &mut self.work(name).record
    }

    /// Whether nobody waits, as far as was seen.
    pub fn nobody_waits(&mut self, name: &str) -> bool {
        let work = self.work(name);
        work.first.is_empty() && !work.rest
    }

    /// The first in the queue, as it was seen.
    pub fn head(&mut self, name: &str) -> Option<Entry> {
        self.work(name).first.first().cloned()
    }

    /// Ends a grant, by its token.
    pub fn release(&mut self, name: &str, held: &Held) {
        let keys = Keys::new(self.root, name);
        let holder = keys.holder(&held.owner, held.upgraded);
        self.step.created(holder.clone(), held.token);
        self.step.delete(holder);
        self.forget(name, &held.owner, held.holding.mode(), held.holding.permits);
    }

    /// Takes a holder out of the record, whose key is gone or goes.
    pub fn forget(&mut self, name: &str, owner: &Owner, mode: LockMode, permits: u32) {
        if mode != LockMode::Exclusive {
            self.step.delete(Keys::new(self.root, name).mark(owner));
        }
        let record = self.record(name);
        record.holders = record.holders.saturating_sub(1);
        if mode == LockMode::Permits {
            record.permits_used = record.permits_used.saturating_sub(permits);
        }
        if mode == LockMode::Exclusive {
            (record.exclusive, record.delay_s) = (None, 0);
        }
        if record.holders == 0 {
            (record.mode, record.permits_used) = (LockMode::Exclusive.into(), 0);
        }
    }

    /// Writes a new holder.
    pub fn hold(&mut self, name: &str, owner: &Owner, spec: &LockSpec, terms: &LockHolding, upgraded: bool) {
        let keys = Keys::new(self.root, name);
        let holding = LockHolding { mode: spec.mode, permits: spec.permits, ..terms.clone() };
        self.step.put(keys.holder(owner, upgraded), &holding, owner.session);
        self.count_in(name, owner, &holding, spec.capacity, upgraded);
    }

    /// Puts a holder into the record.
    pub fn count_in(
        &mut self,
        name: &str,
        owner: &Owner,
        holding: &LockHolding,
        capacity: u32,
        upgraded: bool,
    ) {
        if holding.mode() != LockMode::Exclusive {
            let mark = LockMark { permits: holding.permits, delay_s: holding.delay_s, upgraded };
            self.step.put(Keys::new(self.root, name).mark(owner), &mark, 0);
        }
        let record = self.record(name);
        record.holders += 1;
        record.mode = holding.mode;
        match holding.mode() {
            LockMode::Exclusive => {
                let (session, owner) = (owner.session, owner.id.clone());
                record.exclusive = Some(LockHolderId { session, owner, upgraded });
                record.delay_s = holding.delay_s;
            }
            LockMode::Shared => {}
            LockMode::Permits => {
                record.capacity = if record.capacity > 0 { record.capacity } else { capacity };
                record.permits_used += holding.permits;
            }
        }
    }

    /// Who waits gives up its place. It must be among those that were looked at, or stand behind the one that is `before` it.
    pub fn leave(&mut self, name: &str, entry: &Entry) {
        self.take_out(name, entry);
        self.work(name).leaving = Some(entry.owner.clone());
    }

    /// That somebody stands before the one that leaves, so that nobody's turn comes by it.
    pub fn stands(&mut self, entry: &Entry) {
        self.step.created(entry.key.clone(), entry.created);
    }

    /// Grants the lock to those whose turn it is now, and with it all else that they wait for.
    pub async fn promote(&mut self, name: &str) -> Result<(), Failure> {
        let mut due = BTreeSet::from([name.to_owned()]);
        while let Some(name) = due.pop_first() {
            self.record(&name).more = false;
            self.work(&name).blocked = None;
            while let Some(entry) = self.next(&name).await? {
                if self.work(&name).leaving.as_ref() == Some(&entry.owner) {
                    self.pass(&name);
                    continue;
                }
                let names: Vec<String> = entry.queued.locks.iter().map(|spec| spec.name.clone()).collect();
                if self.step.size() + 6 * names.len() > SIZE_MAX {
                    self.record(&name).more = true;
                    break;
                }
                if !self.may_be_granted(&name, &entry).await? {
                    self.stands(&entry);
                    self.work(&name).blocked = Some(entry);
                    break;
                }
                for (spec, name) in entry.queued.locks.iter().zip(&names) {
                    self.grant(name, &entry, spec);
                }
                due.extend(names.into_iter().filter(|other| *other != name));
            }
        }
        Ok(())
    }

    /// Puts together what is compared and written of all locks that changed.
    pub fn finish(mut self) -> Step {
        for (name, work) in std::mem::take(&mut self.locks) {
            self.finish_one(&name, work);
        }
        self.step
    }

    fn finish_one(&mut self, name: &str, work: Work) {
        let Work { seen, mut record, first, rest, passed, blocked, .. } = work;
        let keys = Keys::new(self.root, name);
        let nobody = passed == first.len() && !rest && !seen.record.line.is_empty();
        // While somebody has the lock for himself the line stays, though nobody waits any more: who queues up at this moment need
        // not look again. Otherwise it must go: there, who looked before this would wait for what is to be had.
        let emptied = nobody && record.exclusive.is_none();
        // Who is granted the lock past the queue must have found nobody in it.
        let past = nobody && passed == 0 && seen.record.exclusive.is_none();
        match passed.checked_sub(1).map(|last| &first[last]) {
            _ if emptied => record.line.clear(),
            Some(last) => record.line.clone_from(&last.number),
            None => {}
        }
        if let Some(head) = &blocked {
            record.line.clone_from(&head.number);
        }
        if record == seen.record {
            return;
        }
        let (passed, head) = (&first[..passed], blocked.as_ref());
        self.nobody_between(&keys, &seen.record.line, passed, head, emptied || past);
        self.step.unchanged(keys.state(), seen.written);
        let idle = record.holders == 0 && record.line.is_empty() && record.delay_lease == 0;
        match (idle, seen.written) {
            (true, 0) => {}
            (true, _) => self.step.delete(keys.state()),
            (false, _) => self.step.put(keys.state(), &record, 0),
        }
    }

    /// That those who leave the queue are its first, and the head is who comes behind them; if the queue must be empty then, that there
    /// is nobody else.
    fn nobody_between(
        &mut self,
        keys: &Keys<'_>,
        line: &str,
        passed: &[Entry],
        head: Option<&Entry>,
        empty: bool,
    ) {
        if line.is_empty() {
            return;
        }
        let (mut from, end) = keys.queue_from(line);
        for entry in passed.iter().chain(head) {
            self.step.empty(from, entry.key.clone());
            from = [&entry.key[..], &[0]].concat();
        }
        if empty {
            self.step.empty(from, end);
        }
    }

    /// Whether all that the first in this lock's queue waits for is to be had. If not because of another lock, that is compared.
    async fn may_be_granted(&mut self, name: &str, entry: &Entry) -> Result<bool, Failure> {
        for spec in &entry.queued.locks {
            if spec.name != name && !self.locks.contains_key(&spec.name) {
                let fresh = self.work(name).looked;
                self.look(&spec.name, fresh).await?;
            }
            let turn = match self.next(&spec.name).await? {
                Some(first) if first.owner != entry.owner || first.number != entry.number => {
                    if spec.name != name {
                        self.stands(&first);
                    }
                    return Ok(false);
                }
                Some(_) => admits(&self.work(&spec.name).record, spec),
                // That lock is taken; or it has left that queue since, and then whoever took it out of there takes it out of here.
                None => false,
            };
            if !turn {
                if spec.name != name {
                    let (key, written) =
                        (Keys::new(self.root, &spec.name).state(), self.work(&spec.name).seen.written);
                    self.step.unchanged(key, written);
                }
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn grant(&mut self, name: &str, entry: &Entry, spec: &LockSpec) {
        let index = self.work(name).passed;
        // In each lock's queue it has a key of its own.
        let own = self.work(name).first[index].clone();
        debug_assert!(own.owner == entry.owner, "only who is first is granted a lock");
        self.take_out(name, &own);
        self.pass(name);
        let LockQueued { delay_s, labels, .. } = entry.queued.clone();
        let terms = LockHolding { delay_s, labels, since_unix_ms: self.unix_ms, ..LockHolding::default() };
        self.hold(name, &entry.owner, spec, &terms, false);
    }

    fn take_out(&mut self, name: &str, entry: &Entry) {
        self.step.created(entry.key.clone(), entry.created);
        self.step.delete(entry.key.clone());
        self.step.delete(Keys::new(self.root, name).place(&entry.owner));
    }

    fn pass(&mut self, name: &str) {
        self.work(name).passed += 1;
    }

    /// The first in the queue whom this transition has not taken out of it; None also if nobody's turn can come anyway.
    async fn next(&mut self, name: &str) -> Result<Option<Entry>, Failure> {
        let work = self.work(name);
        let taken = work.record.holders > 0 && work.record.mode() == LockMode::Exclusive;
        if taken || work.record.delay_lease != 0 {
            return Ok(None);
        }
        if work.passed == work.first.len() && work.rest {
            if work.first.len() > GRANTS_MAX {
                work.record.more = true;
                return Ok(None);
            }
            let (line, looked) = (work.seen.record.line.clone(), work.looked);
            let passed = work.first.clone();
            let (first, rest) = self.read_first(name, &line, GRANTS_MAX + 1, looked).await?;
            let work = self.work(name);
            // Who has come before those since is told by what is compared.
            if first.len() < passed.len() || first[..passed.len()] != passed {
                return Ok(None);
            }
            (work.first, work.rest) = (first, rest);
        }
        let work = self.work(name);
        Ok(work.first.get(work.passed).cloned())
    }

    async fn read_first(
        &self,
        name: &str,
        line: &str,
        limit: usize,
        fresh: Fresh,
    ) -> Result<(Vec<Entry>, bool), Failure> {
        let mut entries = first(self.primitives, self.root, name, line, limit as i64 + 1, fresh).await?;
        let rest = entries.len() > limit;
        entries.truncate(limit);
        Ok((entries, rest))
    }

    fn work(&mut self, name: &str) -> &mut Work {
        self.locks.get_mut(name).expect("a lock is looked at before it is changed")
    }
}
