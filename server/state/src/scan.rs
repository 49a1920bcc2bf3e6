//! Reading a range of keys at one revision, in steps, so that a long read holds nobody up: each step looks at a bounded
//! number of keys, and the revision that the first step saw holds for all.

use std::cmp::Ordering;

use bytes::Bytes;
use prost::Message;
use tenure_proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use tenure_proto::etcdserverpb::{RangeRequest, RangeResponse};
use tenure_proto::mvccpb::KeyValue;

use crate::answer::Refusal;
use crate::change::Key;
use crate::index::History;
use crate::interval::Interval;
use crate::machine::Machine;
use crate::records::{Fatal, Records};
use crate::revision::{Place, Revision};

/// A range read under way.
pub struct Scan<'a> {
    request: &'a RangeRequest,
    interval: Interval,
    at: Revision,
    /// Records to take at the most; later ones are only counted.
    take: usize,
    best: Option<Best>,
    last: Option<Key>,
    taken: Vec<KeyValue>,
    count: i64,
    /// Records that this step had to read from the store.
    fetched: usize,
}

/// Records that one step fetches from the store at the most, whatever the number of keys: each may wait for the disk.
const FETCHES_AT_ONCE: usize = 32;

/// An order by revisions with a limit: only the first so many are kept, in their order.
#[derive(Clone, Copy, Debug)]
struct Best {
    /// One more than asked, to know whether there is more.
    most: usize,
    by_creation: bool,
    descending: bool,
}

impl Best {
    fn of(request: &RangeRequest) -> Option<Best> {
        let by_creation = match request.sort_target() {
            SortTarget::Create => true,
            SortTarget::Mod => false,
            SortTarget::Key | SortTarget::Version | SortTarget::Value => return None,
        };
        let descending = match request.sort_order() {
            SortOrder::None => return None,
            SortOrder::Ascend => false,
            SortOrder::Descend => true,
        };
        let limit = usize::try_from(request.limit).ok().filter(|limit| *limit > 0)?;
        Some(Best { most: limit.saturating_add(1), by_creation, descending })
    }

    /// The less, the earlier in the answer.
    fn rank(self, modified: i64, created: i64) -> i64 {
        let revision = if self.by_creation { created } else { modified };
        if self.descending { -revision } else { revision }
    }
}

/// How a step ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    More,
    Done,
    /// A compaction went past the revision that is being read.
    Overtaken,
}

impl<'a> Scan<'a> {
    /// `request` was checked to be well-formed. A revision of 0 or below reads the latest.
    pub fn new(request: &'a RangeRequest, machine: &Machine) -> Result<Scan<'a>, Refusal> {
        let current = machine.revision();
        let at = if request.revision > 0 { Revision(request.revision) } else { current };
        if at > current {
            return Err(Refusal::FutureRevision);
        }
        if at < machine.compacted() {
            return Err(Refusal::Compacted);
        }
        Ok(Scan::at(request, at))
    }

    /// The read at a revision known to be there.
    pub(crate) fn at(request: &'a RangeRequest, at: Revision) -> Scan<'a> {
        let whole = request.sort_order() != SortOrder::None || filters(request);
        let limit = usize::try_from(request.limit).unwrap_or(0);
        let take = match (request.count_only, whole || limit == 0) {
            (true, _) => 0,
            (false, true) => usize::MAX,
            // One more than asked, to know whether there is more.
            (false, false) => limit.saturating_add(1),
        };
        let interval = Interval::new(&request.key, &request.range_end);
        let best = Best::of(request);
        Scan { request, interval, at, take, best, last: None, taken: Vec::new(), count: 0, fetched: 0 }
    }

    /// Looks at `keys_max` more keys.
    pub fn step(&mut self, machine: &Machine, records: &dyn Records, keys_max: usize) -> Result<Step, Fatal> {
        if self.at < machine.compacted() {
            return Ok(Step::Overtaken);
        }
        if let Interval::Key(key) = &self.interval {
            if let Some(history) = machine.index().get(key) {
                self.visit(history, records)?;
            }
            return Ok(Step::Done);
        }
        let last = self.last.take();
        let interval = self.interval.clone();
        self.fetched = 0;
        for (walked, (key, history)) in machine.index().range_after(&interval, last.as_ref()).enumerate() {
            self.visit(history, records)?;
            let fetched_enough = self.fetched >= FETCHES_AT_ONCE && keys_max < usize::MAX;
            if walked + 1 >= keys_max || fetched_enough {
                self.last = Some(key.clone());
                return Ok(Step::More);
            }
        }
        Ok(Step::Done)
    }

    fn visit(&mut self, history: &History, records: &dyn Records) -> Result<(), Fatal> {
        let Some(place) = history.at(self.at) else { return Ok(()) };
        self.count += 1;
        if self.taken.len() >= self.take {
            return Ok(());
        }
        let newest = history.newest();
        let is_newest = newest.place() == place;
        // A line of waiters is asked for its first and its last again and again: most of it is passed over unread.
        if is_newest && !self.wants(newest.main, newest.create) {
            return Ok(());
        }
        let record = match &newest.record {
            Some(record) if is_newest => record.clone(),
            _ => {
                self.fetched += 1;
                must_have(records, place)?
            }
        };
        let kv = decode(record)?;
        match self.best {
            Some(best) if self.wants(kv.mod_revision, kv.create_revision) => {
                let own = best.rank(kv.mod_revision, kv.create_revision);
                let at =
                    self.taken.partition_point(|kv| best.rank(kv.mod_revision, kv.create_revision) <= own);
                self.taken.insert(at, kv);
                self.taken.truncate(best.most);
            }
            Some(_) => {}
            None => self.taken.push(kv),
        }
        Ok(())
    }

    /// Whether a record with these revisions can be part of the answer, as far as it is known by now.
    fn wants(&self, modified: i64, created: i64) -> bool {
        let surpassed = |best: Best| {
            let last = self.taken.last().filter(|_| self.taken.len() >= best.most);
            last.is_some_and(|kv| {
                best.rank(modified, created) >= best.rank(kv.mod_revision, kv.create_revision)
            })
        };
        passes(self.request, modified, created) && !self.best.is_some_and(surpassed)
    }

    /// The answer, once a step said `Done`. Its header is the caller's to fill.
    pub fn finish(self) -> RangeResponse {
        let Scan { request, mut taken, count, .. } = self;
        if filters(request) {
            taken.retain(|kv| passes(request, kv.mod_revision, kv.create_revision));
        }
        sort(request, &mut taken);
        let limit = usize::try_from(request.limit).unwrap_or(0);
        let more = limit > 0 && taken.len() > limit;
        if more {
            taken.truncate(limit);
        }
        if request.keys_only {
            taken.iter_mut().for_each(|kv| kv.value = Bytes::new());
        }
        RangeResponse { header: None, kvs: taken, more, count }
    }
}

/// A record that the index speaks of must be there.
pub(crate) fn must_have(records: &dyn Records, place: Place) -> Result<Bytes, Fatal> {
    records.record(place)?.ok_or_else(|| {
        Fatal(format!(
            "the store has no record of revision {}.{}, which the index names",
            place.main, place.sub
        ))
    })
}

pub(crate) fn decode(record: Bytes) -> Result<KeyValue, Fatal> {
    KeyValue::decode(record).map_err(|error| Fatal(format!("a record in the store does not decode: {error}")))
}

fn filters(request: &RangeRequest) -> bool {
    request.min_mod_revision != 0
        || request.max_mod_revision != 0
        || request.min_create_revision != 0
        || request.max_create_revision != 0
}

fn passes(request: &RangeRequest, modified: i64, created: i64) -> bool {
    let within = |value: i64, min: i64, max: i64| (min == 0 || value >= min) && (max == 0 || value <= max);
    within(modified, request.min_mod_revision, request.max_mod_revision)
        && within(created, request.min_create_revision, request.max_create_revision)
}

/// A sort target without an order sorts ascending, but of what was already cut to the limit: etcd's way. Equals stay in
/// the order of keys, in both directions.
fn sort(request: &RangeRequest, taken: &mut [KeyValue]) {
    let (order, target) = (request.sort_order(), request.sort_target());
    if order == SortOrder::None && target == SortTarget::Key {
        return;
    }
    let ascending: fn(&KeyValue, &KeyValue) -> Ordering = match target {
        SortTarget::Key => |a, b| a.key.cmp(&b.key),
        SortTarget::Version => |a, b| a.version.cmp(&b.version),
        SortTarget::Create => |a, b| a.create_revision.cmp(&b.create_revision),
        SortTarget::Mod => |a, b| a.mod_revision.cmp(&b.mod_revision),
        SortTarget::Value => |a, b| a.value.cmp(&b.value),
    };
    match order {
        SortOrder::Descend => taken.sort_by(|a, b| ascending(b, a)),
        SortOrder::None | SortOrder::Ascend => taken.sort_by(ascending),
    }
}
