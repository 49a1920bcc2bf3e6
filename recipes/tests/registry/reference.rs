//! The registry as one would write it without a store: a map, and times at which things end. Slow, simple, and what it says is right.

use std::collections::BTreeMap;

use tenure_proto::tenure::v1::drain::End;
use tenure_proto::tenure::v1::set_instance_request::Change;
use tenure_proto::tenure::v1::{
    Drain, Health, Instance, RegisterRequest, Registration, deregister_response, heartbeat_result,
    register_response, set_instance_response,
};

/// Of all instances here, as the policy says, seconds.
pub const TTL_S: u64 = 6;
pub const DEREGISTER_AFTER_S: u64 = 20;
pub const WINDOW_S: u64 = 8;
pub const MAX_PROTECT_S: u64 = 25;
pub const MIN_AVAILABLE: usize = 2;
const MAX_LOSS_PERCENT: usize = 40;
const PROTECT_MIN: usize = 3;

#[derive(Default)]
pub struct Reference {
    now_ms: u64,
    instances: BTreeMap<String, Entry>,
    /// The incarnation, and until when.
    tombstones: BTreeMap<String, (i64, u64)>,
    /// Until when protection lasts at the longest.
    protected: Option<u64>,
}

struct Entry {
    registration: Registration,
    health: Health,
    /// Until when it counts as alive. Over: stale or lost.
    alive_until: u64,
    /// Since it was taken for lost: until when it stays, and until when that counts as lately.
    lost: Option<Lost>,
    drain: Option<Drain>,
    drain_until: u64,
    maintenance: bool,
    weight: Option<u32>,
}

struct Lost {
    stays_until: u64,
    lately_until: u64,
}

impl Entry {
    fn routable(&self) -> bool {
        let serves = self.lost.is_none() && matches!(self.health, Health::Passing | Health::Warning);
        serves && self.drain.is_none() && !self.maintenance
    }
}

impl Reference {
    pub fn pass(&mut self, ms: u64) {
        self.now_ms += ms;
        let now = self.now_ms;
        self.tombstones.retain(|_, (_, until)| *until > now);
        self.instances.retain(|_, entry| entry.lost.as_ref().is_none_or(|lost| lost.stays_until > now));
        self.settle();
    }

    pub fn register(&mut self, request: &RegisterRequest) -> register_response::Outcome {
        use register_response::Outcome::{AlreadyRegistered, Deregistered, Registered, Superseded};
        let wish = request.registration.clone().unwrap();
        if self.tombstones.get(&wish.id).is_some_and(|(incarnation, _)| *incarnation >= wish.incarnation) {
            return Deregistered;
        }
        let now = self.now_ms;
        let before = self.instances.remove(&wish.id);
        let mut entry = Entry {
            health: Health::Passing,
            alive_until: now + TTL_S * 1_000,
            lost: None,
            drain: None,
            drain_until: 0,
            maintenance: before.as_ref().is_some_and(|before| before.maintenance),
            weight: before.as_ref().and_then(|before| before.weight),
            registration: wish.clone(),
        };
        if request.health() != Health::Unspecified {
            entry.health = request.health();
        }
        let mut outcome = Registered;
        if let Some(mut before) = before {
            let there = &before.registration;
            let alive = before.alive_until > now;
            if (wish.incarnation, wish.sequence) < (there.incarnation, there.sequence) {
                (entry, outcome) = (before, Superseded);
            } else if wish.incarnation > there.incarnation && alive && !request.takeover {
                (entry, outcome) = (before, AlreadyRegistered);
            } else if wish == *there && alive {
                before.alive_until = entry.alive_until;
                entry = before;
            } else if wish.incarnation == there.incarnation {
                if request.health() == Health::Unspecified {
                    entry.health = before.health;
                }
                entry.drain = before.drain;
                entry.drain_until = before.drain_until;
            }
        }
        self.instances.insert(wish.id, entry);
        self.settle();
        outcome
    }

    pub fn beat(&mut self, id: &str, incarnation: i64, health: Health) -> heartbeat_result::Outcome {
        let outcome = match self.instances.get_mut(id) {
            Some(entry) if entry.registration.incarnation == incarnation => {
                entry.alive_until = self.now_ms + TTL_S * 1_000;
                entry.lost = None;
                if health != Health::Unspecified {
                    entry.health = health;
                }
                heartbeat_result::Outcome::Alive
            }
            Some(entry) if entry.registration.incarnation > incarnation => {
                heartbeat_result::Outcome::Superseded
            }
            Some(_) | None => heartbeat_result::Outcome::NotRegistered,
        };
        self.settle();
        outcome
    }

    pub fn deregister(&mut self, id: &str, incarnation: i64) -> deregister_response::Outcome {
        let there = self.instances.get(id).map(|entry| entry.registration.incarnation);
        if there.is_some_and(|there| incarnation != 0 && there > incarnation) {
            return deregister_response::Outcome::Superseded;
        }
        self.instances.remove(id);
        let buried = self.tombstones.get(id).map_or(0, |(incarnation, _)| *incarnation);
        let latest = there.unwrap_or(0).max(incarnation).max(buried);
        if there.is_some() || incarnation > buried {
            self.tombstones.insert(id.to_owned(), (latest, self.now_ms + TTL_S * 1_000));
        }
        self.settle();
        deregister_response::Outcome::Deregistered
    }

    pub fn set(&mut self, id: &str, change: &Change, force: bool) -> set_instance_response::Outcome {
        let others = self.instances.iter().filter(|(other, entry)| *other != id && entry.routable()).count();
        let now = self.now_ms;
        let Some(entry) = self.instances.get_mut(id) else {
            return set_instance_response::Outcome::NotRegistered;
        };
        let takes_out = matches!(change, Change::Drain(_) | Change::Maintenance(true));
        if takes_out && entry.routable() && !force && others < MIN_AVAILABLE {
            return set_instance_response::Outcome::MinAvailable;
        }
        match change {
            Change::Drain(wanted) => {
                if entry.drain.as_ref() != Some(wanted) {
                    entry.drain = Some(wanted.clone());
                    entry.drain_until = now + wanted.deadline_s as u64 * 1_000;
                }
            }
            Change::Undrain(_) => entry.drain = None,
            Change::Maintenance(on) => entry.maintenance = *on,
            Change::Weight(weight) => entry.weight = Some(*weight).filter(|weight| *weight <= 65_535),
        }
        set_instance_response::Outcome::Set
    }

    pub fn end_protection(&mut self) -> bool {
        let was = self.protected.is_some();
        self.protected = self.protected.map(|_| 0);
        self.settle();
        was
    }

    pub fn is_protected(&self) -> bool {
        self.protected.is_some()
    }

    /// What follows from the time, at once.
    fn settle(&mut self) {
        self.end_drains();
        let now = self.now_ms;
        if self.protected.is_some_and(|until| until <= now) {
            self.protected = None;
            for entry in self.instances.values_mut().filter(|entry| is_unheard(entry, now)) {
                entry.lost = Some(Lost { stays_until: now + DEREGISTER_AFTER_S * 1_000, lately_until: 0 });
            }
        }
        let unheard = self.instances.values().filter(|entry| is_unheard(entry, now)).count();
        let lately = self.instances.values().filter(|entry| is_lost_lately(entry, now)).count();
        let lost = self.instances.values().filter(|entry| entry.lost.is_some()).count();
        let of = self.instances.len() - (lost - lately);
        let mass = unheard + lately >= PROTECT_MIN && (unheard + lately) * 100 > of * MAX_LOSS_PERCENT;
        if self.protected.is_none() && unheard > 0 && mass {
            self.protected = Some(now + MAX_PROTECT_S * 1_000);
        }
        for entry in self.instances.values_mut() {
            if self.protected.is_some() && is_lost_lately(entry, now) {
                entry.lost = None;
            } else if self.protected.is_none() && is_unheard(entry, now) {
                let (stays, lately) = (DEREGISTER_AFTER_S * 1_000, WINDOW_S * 1_000);
                entry.lost = Some(Lost { stays_until: now + stays, lately_until: now + lately });
            }
        }
        if self.protected.is_some() && !self.instances.values().any(|entry| is_unheard(entry, now)) {
            self.protected = None;
        }
    }

    fn end_drains(&mut self) {
        let now = self.now_ms;
        let mut gone = Vec::new();
        for (id, entry) in &mut self.instances {
            let due = entry.drain.as_ref().filter(|drain| !drain.over && entry.drain_until <= now).cloned();
            match due.map(|drain| (drain.end(), drain)) {
                Some((End::StayOut, drain)) => entry.drain = Some(Drain { over: true, ..drain }),
                Some((End::Return, _)) => entry.drain = None,
                Some((End::Deregister, _)) => gone.push((id.clone(), entry.registration.incarnation)),
                None => {}
            }
        }
        for (id, incarnation) in gone {
            self.instances.remove(&id);
            self.tombstones.insert(id, (incarnation, now + TTL_S * 1_000));
        }
    }

    /// As consumers see it, without what the store alone knows.
    pub fn instances(&self) -> BTreeMap<String, Instance> {
        let seen = self.instances.iter().map(|(id, entry)| {
            let health = if entry.lost.is_some() { Health::Lost } else { entry.health };
            let instance = Instance {
                registration: Some(entry.registration.clone()),
                health: health.into(),
                drain: entry.drain.clone(),
                maintenance: entry.maintenance,
                stale: is_unheard(entry, self.now_ms),
                weight: entry.weight.or(entry.registration.weight).unwrap_or(100),
                routable: entry.routable(),
                ..Instance::default()
            };
            (id.clone(), instance)
        });
        seen.collect()
    }
}

fn is_unheard(entry: &Entry, now: u64) -> bool {
    entry.lost.is_none() && entry.alive_until <= now
}

fn is_lost_lately(entry: &Entry, now: u64) -> bool {
    entry.lost.as_ref().is_some_and(|lost| lost.lately_until > now)
}
