//! How a service stands, read off its keys alone: which are there, and which have a lease, says who is alive, lost or draining.

use std::collections::{BTreeMap, BTreeSet};

use tenure_proto::mvccpb::KeyValue;

use super::Registry;
use super::keys::{Kind, Place, Whole};
use super::loss::Standing;
use super::transition::Freshness;
use crate::primitives::{Failure, Primitives};

#[derive(Debug, Default)]
pub struct Survey {
    /// Whether the record is on a lease that will remove it, by id.
    instances: BTreeMap<String, bool>,
    alive: BTreeSet<String>,
    losses: BTreeSet<String>,
    draining: BTreeSet<String>,
    drain_timers: BTreeSet<String>,
    pub protection: Option<KeyValue>,
    pub protection_timer: bool,
    pub projecting: Option<KeyValue>,
}

impl Survey {
    /// Not heard of, and not taken for lost.
    pub fn unheard(&self) -> Vec<String> {
        let unheard = self.instances.iter().filter(|(id, lost)| !**lost && !self.alive.contains(*id));
        unheard.map(|(id, _)| id.clone()).collect()
    }

    /// Taken for lost within the last window.
    pub fn lost_lately(&self) -> Vec<String> {
        let lost = self.instances.iter().filter(|(id, lost)| **lost && self.losses.contains(*id));
        lost.map(|(id, _)| id.clone()).collect()
    }

    /// Draining past their deadline.
    pub fn drained(&self) -> Vec<String> {
        self.draining.difference(&self.drain_timers).cloned().collect()
    }

    pub fn standing(&self) -> Standing {
        let lost = self.instances.values().filter(|lost| **lost).count();
        let lost_lately = self.lost_lately().len();
        Standing {
            instances: self.instances.len(),
            lost_before: lost - lost_lately,
            lost_lately,
            unheard: self.unheard().len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.instances.is_empty()
    }

    fn take(&mut self, place: Place, kv: KeyValue) {
        match place {
            Place::One { kind: Kind::Instance, id, .. } => {
                self.instances.insert(id, kv.lease != 0);
            }
            Place::One { kind: Kind::Alive, id, .. } => {
                self.alive.insert(id);
            }
            Place::One { kind: Kind::Loss, id, .. } => {
                self.losses.insert(id);
            }
            Place::One { kind: Kind::Draining, id, .. } => {
                self.draining.insert(id);
            }
            Place::One { kind: Kind::DrainTimer, id, .. } => {
                self.drain_timers.insert(id);
            }
            Place::Service { whole: Whole::Protection, .. } => self.protection = Some(kv),
            Place::Service { whole: Whole::ProtectionTimer, .. } => self.protection_timer = true,
            Place::Service { whole: Whole::Projecting, .. } => self.projecting = Some(kv),
            Place::One { kind: Kind::Tombstone, .. } | Place::Service { whole: Whole::Withdrawals, .. } => {}
        }
    }
}

impl<P: Primitives> Registry<P> {
    pub(super) async fn survey(&self, service: &str) -> Result<Survey, Failure> {
        let mut survey = Survey::default();
        let range = self.keys.service(service);
        let take = |kv: KeyValue| {
            if let Some(place) = self.keys.place(&kv.key) {
                survey.take(place, kv);
            }
        };
        match self.each(&range, 0, Freshness::Newest, true, take).await {
            Ok(_) => Ok(survey),
            Err(Failure::Compacted { .. }) => {
                Err(Failure::Unavailable("a compaction overtook a look at a service; look again".to_owned()))
            }
            Err(failure) => Err(failure),
        }
    }
}
