//! What the keys of services say about their instances, folded: from a snapshot, and then change by change. Pure; whoever has
//! applied the same changes holds the same.

use std::collections::BTreeMap;

use prost::Message;
use tenure_proto::mvccpb::event::EventType;
use tenure_proto::mvccpb::{Event, KeyValue};
use tenure_proto::tenure::v1::watch_instances_response::{self as reply, Removal, removal};
use tenure_proto::tenure::v1::{Instance, InstanceSelector, Protection};

use super::instance::Held;
use super::keys::{Keys, Kind, Place, Whole};
use super::selector::selects;
use crate::primitives::Change;

/// Instances of one or many services as of a revision.
#[derive(Clone, Debug)]
pub struct Mirror {
    keys: Keys,
    services: BTreeMap<String, BTreeMap<String, Known>>,
    protections: BTreeMap<String, Protection>,
}

/// A record and its sign of life; either comes and goes by itself.
#[derive(Clone, Debug, Default, PartialEq)]
struct Known {
    held: Option<Held>,
    alive: bool,
}

impl Known {
    fn instance(&self) -> Option<Instance> {
        self.held.as_ref().map(|held| held.instance(self.alive))
    }
}

/// What became of one instance in one revision.
#[derive(Clone, Debug, PartialEq)]
pub struct Moved {
    pub service: String,
    pub id: String,
    pub before: Option<Instance>,
    pub after: Option<Instance>,
    /// It left a tombstone: somebody removed it.
    pub deregistered: bool,
}

impl Mirror {
    pub(super) fn new(keys: Keys) -> Mirror {
        Mirror { keys, services: BTreeMap::new(), protections: BTreeMap::new() }
    }

    /// Takes in a pair of the snapshot.
    pub fn load(&mut self, kv: KeyValue) {
        self.put(kv);
    }

    /// Takes in what one revision changed; gives the instances that look otherwise than before.
    pub fn apply(&mut self, change: &Change) -> Vec<Moved> {
        let mut touched: BTreeMap<(String, String), (Option<Instance>, bool)> = BTreeMap::new();
        for event in &change.events {
            let Some(kv) = &event.kv else { continue };
            if let Some(Place::One { service, kind, id }) = self.keys.place(&kv.key) {
                let before = || self.instance(&service, &id);
                let name = (service.clone(), id.clone());
                let entry = touched.entry(name).or_insert_with(|| (before(), false));
                entry.1 |= kind == Kind::Tombstone && is_put(event);
            }
            if is_put(event) {
                self.put(kv.clone());
            } else {
                self.delete(&kv.key);
            }
        }
        let moved = touched.into_iter().map(|((service, id), (before, deregistered))| {
            let after = self.instance(&service, &id);
            Moved { service, id, before, after, deregistered }
        });
        moved.filter(|moved| moved.before != moved.after).collect()
    }

    pub fn instance(&self, service: &str, id: &str) -> Option<Instance> {
        self.services.get(service)?.get(id)?.instance()
    }

    /// In order of service and id.
    pub fn instances(&self) -> impl Iterator<Item = Instance> {
        self.services.values().flat_map(BTreeMap::values).filter_map(Known::instance)
    }

    /// The protection of a service, while it has one.
    pub fn protection(&self, service: &str) -> Option<&Protection> {
        self.protections.get(service)
    }

    fn put(&mut self, kv: KeyValue) {
        match self.keys.place(&kv.key) {
            Some(Place::One { service, kind: Kind::Instance, id }) => {
                self.known(service, id).held = Held::decode(kv);
            }
            Some(Place::One { service, kind: Kind::Alive, id }) => self.known(service, id).alive = true,
            Some(Place::Service { service, whole: Whole::Protection }) => {
                let protection = Protection::decode(kv.value).unwrap_or_default();
                self.protections.insert(service, protection);
            }
            Some(Place::One { .. } | Place::Service { .. }) | None => {}
        }
    }

    fn delete(&mut self, key: &[u8]) {
        match self.keys.place(key) {
            Some(Place::One { service, kind: kind @ (Kind::Instance | Kind::Alive), id }) => {
                let known = self.known(service.clone(), id.clone());
                if kind == Kind::Instance {
                    known.held = None;
                } else {
                    known.alive = false;
                }
                if *known == Known::default() {
                    self.forget(&service, &id);
                }
            }
            Some(Place::Service { service, whole: Whole::Protection }) => {
                self.protections.remove(&service);
            }
            Some(Place::One { .. } | Place::Service { .. }) | None => {}
        }
    }

    fn known(&mut self, service: String, id: String) -> &mut Known {
        self.services.entry(service).or_default().entry(id).or_default()
    }

    fn forget(&mut self, service: &str, id: &str) {
        if let Some(instances) = self.services.get_mut(service) {
            instances.remove(id);
            if instances.is_empty() {
                self.services.remove(service);
            }
        }
    }
}

/// What a consumer is told of a revision, or of several: the last word about each instance.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Delta {
    pub revision: i64,
    /// By service and id.
    news: BTreeMap<(String, String), News>,
}

#[derive(Clone, Debug, PartialEq)]
enum News {
    Upsert(Box<Instance>),
    Removal(removal::Reason),
}

impl Delta {
    /// What of these concerns somebody who wants to hear of `selector`.
    pub fn of(revision: i64, moved: Vec<Moved>, selector: &InstanceSelector) -> Delta {
        let wanted = |instance: &Instance| selects(selector, instance);
        let news = moved.into_iter().filter_map(|moved| {
            let was = moved.before.as_ref().is_some_and(wanted);
            let news = match moved.after {
                Some(after) if wanted(&after) => News::Upsert(Box::new(after)),
                Some(_) if was => News::Removal(removal::Reason::NotSelected),
                None if was && moved.deregistered => News::Removal(removal::Reason::Deregistered),
                None if was => News::Removal(removal::Reason::Expired),
                Some(_) | None => return None,
            };
            Some(((moved.service, moved.id), news))
        });
        Delta { revision, news: news.collect() }
    }

    pub fn is_empty(&self) -> bool {
        self.news.is_empty()
    }

    /// What a later revision brought, told with this.
    pub fn join(&mut self, later: Delta) {
        self.revision = later.revision;
        self.news.extend(later.news);
    }

    pub fn into_response(self) -> reply::Delta {
        let mut told = reply::Delta { revision: self.revision, ..reply::Delta::default() };
        for ((service, id), news) in self.news {
            match news {
                News::Upsert(instance) => told.upserts.push(*instance),
                News::Removal(reason) => told.removals.push(Removal { service, id, reason: reason.into() }),
            }
        }
        told
    }
}

fn is_put(event: &Event) -> bool {
    event.r#type() == EventType::Put
}
