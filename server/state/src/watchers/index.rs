//! Who watches a key. Watchers of the same interval form a group, so that a change looks intervals up, not watchers.
//! Knows nothing of where a watcher stands.

use std::collections::BTreeMap;

use super::slab::Slab;
use crate::change::{Change, Event};
use crate::interval::{Interval, prefix_end};
use crate::revision::Revision;

/// All watchers of one interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Group(u32);

/// Which kinds of events: puts, deletions, both or neither.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kinds {
    pub puts: bool,
    pub deletes: bool,
}

impl Kinds {
    pub fn of(event: &Event) -> Kinds {
        Kinds { puts: !event.place.tombstone, deletes: event.place.tombstone }
    }

    pub fn any_of(self, other: Kinds) -> bool {
        (self.puts && other.puts) || (self.deletes && other.deletes)
    }
}

#[derive(Debug, Default)]
pub(super) struct Index {
    groups: Slab<Members>,
    keys: BTreeMap<Box<[u8]>, Group>,
    prefixes: BTreeMap<Box<[u8]>, Group>,
    /// How many watched prefixes have this length: only these lengths of a key are looked up.
    prefix_lengths: BTreeMap<usize, usize>,
    /// Ranges that are neither a key nor a prefix; rare, so each is compared with each event.
    others: BTreeMap<Interval, Group>,
    concerned: Vec<(Group, Kinds)>,
}

#[derive(Debug)]
struct Members {
    interval: Interval,
    watchers: Vec<u32>,
    /// The last revision that concerned it, and its place in `concerned` then.
    seen: (Revision, usize),
}

impl Index {
    /// Adds a watcher; the second value is its seat in the group.
    pub fn add(&mut self, interval: &Interval, watcher: u32) -> (Group, u32) {
        let group = match self.find(interval) {
            Some(group) => group,
            None => self.found(interval),
        };
        let members = self.groups.get_mut(group.0).expect("a found group is there");
        members.watchers.push(watcher);
        let seat = u32::try_from(members.watchers.len() - 1).expect("watchers are numbered by 32 bits");
        (group, seat)
    }

    /// Takes out the watcher at `seat`; another may have to move there, and is given.
    pub fn remove(&mut self, group: Group, seat: u32) -> Option<u32> {
        let members = self.groups.get_mut(group.0).expect("a watcher's group is there");
        members.watchers.swap_remove(seat as usize);
        if members.watchers.is_empty() {
            self.dissolve(group);
            return None;
        }
        members.watchers.get(seat as usize).copied()
    }

    pub fn interval(&self, group: Group) -> &Interval {
        &self.groups.get(group.0).expect("a watcher's group is there").interval
    }

    /// Whom a change concerns.
    pub fn concerned(&mut self, change: &Change) -> Concerned<'_> {
        self.concerned.clear();
        for event in &change.events {
            let key: &[u8] = &event.key;
            let mut touched = Touched {
                groups: &mut self.groups,
                concerned: &mut self.concerned,
                revision: change.revision,
                kinds: Kinds::of(event),
            };
            if let Some(group) = self.keys.get(key) {
                touched.add(*group);
            }
            for length in self.prefix_lengths.range(..=key.len()).map(|(length, _)| *length) {
                if let Some(group) = self.prefixes.get(&key[..length]) {
                    touched.add(*group);
                }
            }
            for (interval, group) in &self.others {
                if interval.contains(key) {
                    touched.add(*group);
                }
            }
        }
        Concerned { groups: &self.groups, list: &self.concerned }
    }

    fn find(&self, interval: &Interval) -> Option<Group> {
        match shape(interval) {
            Shape::Key(key) => self.keys.get(key),
            Shape::Prefix(prefix) => self.prefixes.get(prefix),
            Shape::Other => self.others.get(interval),
        }
        .copied()
    }

    fn found(&mut self, interval: &Interval) -> Group {
        let members = Members { interval: interval.clone(), watchers: Vec::new(), seen: (Revision(0), 0) };
        let group = Group(self.groups.insert_with(|_| members));
        match shape(interval) {
            Shape::Key(key) => {
                self.keys.insert(key.into(), group);
            }
            Shape::Prefix(prefix) => {
                self.prefixes.insert(prefix.into(), group);
                *self.prefix_lengths.entry(prefix.len()).or_default() += 1;
            }
            Shape::Other => {
                self.others.insert(interval.clone(), group);
            }
        }
        group
    }

    fn dissolve(&mut self, group: Group) {
        let members = self.groups.remove(group.0).expect("a watcher's group is there");
        match shape(&members.interval) {
            Shape::Key(key) => {
                self.keys.remove(key);
            }
            Shape::Prefix(prefix) => {
                self.prefixes.remove(prefix);
                let of_length = self.prefix_lengths.get_mut(&prefix.len()).expect("counted when found");
                *of_length -= 1;
                if *of_length == 0 {
                    self.prefix_lengths.remove(&prefix.len());
                }
            }
            Shape::Other => {
                self.others.remove(&members.interval);
            }
        }
    }
}

/// The groups that a change concerns, each once, with the kinds of the events that do.
pub(super) struct Concerned<'a> {
    groups: &'a Slab<Members>,
    list: &'a [(Group, Kinds)],
}

impl Concerned<'_> {
    /// Each watcher concerned, once, with the kinds of events that lie in its interval.
    pub fn watchers(&self) -> impl Iterator<Item = (u32, Kinds)> {
        self.list.iter().flat_map(|(group, kinds)| {
            let members = self.groups.get(group.0).expect("a concerned group is there");
            members.watchers.iter().map(|watcher| (*watcher, *kinds))
        })
    }
}

/// Collects the groups that one event concerns.
struct Touched<'a> {
    groups: &'a mut Slab<Members>,
    concerned: &'a mut Vec<(Group, Kinds)>,
    revision: Revision,
    kinds: Kinds,
}

impl Touched<'_> {
    fn add(&mut self, group: Group) {
        let members = self.groups.get_mut(group.0).expect("a watched interval has a group");
        if members.seen.0 == self.revision {
            let kinds = &mut self.concerned[members.seen.1].1;
            kinds.puts |= self.kinds.puts;
            kinds.deletes |= self.kinds.deletes;
        } else {
            members.seen = (self.revision, self.concerned.len());
            self.concerned.push((group, self.kinds));
        }
    }
}

enum Shape<'a> {
    Key(&'a [u8]),
    Prefix(&'a [u8]),
    Other,
}

fn shape(interval: &Interval) -> Shape<'_> {
    match interval {
        Interval::Key(key) => Shape::Key(key),
        Interval::Range(start, end) if !start.is_empty() && **end == *prefix_end(start) => {
            Shape::Prefix(start)
        }
        Interval::Range(..) | Interval::From(_) => Shape::Other,
    }
}
