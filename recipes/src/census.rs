//! How much there is of what recipes keep, counted over their keys, and what the change of one key says happened: for figures that
//! operators look at. Names only tell here where one thing ends and the next begins; no figure carries one, since there may be any number.

use std::collections::BTreeSet;

use bytes::Bytes;
use prost::Message;
use tenure_proto::tenure::v1::{Health, InstanceRecord};

use crate::key::Root;

/// What there is at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Census {
    pub sessions: u64,
    pub locks: Locks,
    pub elections: Elections,
    pub registry: Instances,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Locks {
    /// Locks that somebody holds or waits for, or that are in the delay behind a holder.
    pub known: u64,
    pub holders: u64,
    pub waiters: u64,
    /// Locks that somebody waits for.
    pub contended: u64,
    pub longest_queue: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Elections {
    pub known: u64,
    /// Elections that have a leader now.
    pub led: u64,
    pub candidates: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Instances {
    pub services: u64,
    /// Services whose instances are not taken for lost, since so many were lost at once.
    pub protected: u64,
    /// By [`State`], in the order of [`State::ALL`].
    pub instances: [u64; State::ALL.len()],
}

/// The state of an instance: the first of these that is true of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Lost,
    /// Not heard of, and not taken for lost.
    Stale,
    Maintenance,
    Draining,
    Critical,
    Warning,
    Starting,
    Passing,
}

impl State {
    pub const ALL: [State; 8] = [
        State::Lost,
        State::Stale,
        State::Maintenance,
        State::Draining,
        State::Critical,
        State::Warning,
        State::Starting,
        State::Passing,
    ];

    pub fn word(self) -> &'static str {
        match self {
            State::Lost => "lost",
            State::Stale => "stale",
            State::Maintenance => "maintenance",
            State::Draining => "draining",
            State::Critical => "critical",
            State::Warning => "warning",
            State::Starting => "starting",
            State::Passing => "passing",
        }
    }

    fn of(record: &InstanceRecord, alive: bool) -> State {
        match record.health() {
            _ if record.lost => State::Lost,
            _ if !alive => State::Stale,
            _ if record.maintenance => State::Maintenance,
            _ if record.drain.is_some() => State::Draining,
            Health::Critical | Health::Lost => State::Critical,
            Health::Warning => State::Warning,
            Health::Starting => State::Starting,
            Health::Passing | Health::Unspecified => State::Passing,
        }
    }
}

/// A census being taken: is given all keys below the root, in their order.
pub struct Taking {
    root: Root,
    so_far: Census,
    /// The lock whose queue was seen last, and how long that is.
    queue: (String, u64),
    /// The service seen last, and its instances that have a sign of life: those come before the records.
    service: String,
    alive: BTreeSet<String>,
}

impl Taking {
    pub fn new(root: Root) -> Taking {
        let (queue, service, alive) = ((String::new(), 0), String::new(), BTreeSet::new());
        Taking { root, so_far: Census::default(), queue, service, alive }
    }

    /// The next key. `value` is asked for the few whose value matters; a value that cannot be had counts as an empty one.
    pub fn take(&mut self, key: &[u8], value: impl FnOnce() -> Option<Bytes>) {
        let Some(segments) = self.root.segments(key) else { return };
        let words: Vec<&str> = segments.iter().map(String::as_str).collect();
        let so_far = &mut self.so_far;
        match words[..] {
            ["session", _] => so_far.sessions += 1,
            ["lock", _, "state"] => so_far.locks.known += 1,
            ["lock", _, "holder" | "upgraded", ..] => so_far.locks.holders += 1,
            ["lock", name, "queue", ..] => self.waiter(name),
            ["election", _, "term", "now"] => so_far.elections.known += 1,
            ["election", _, "term", "leader", _] => so_far.elections.led += 1,
            ["election", _, "candidate", ..] => so_far.elections.candidates += 1,
            ["services", _] => so_far.registry.services += 1,
            ["registry", _, "protection"] => so_far.registry.protected += 1,
            ["registry", service, "alive", id] => {
                self.enter(service);
                self.alive.insert(id.to_owned());
            }
            ["registry", service, "instance", id] => {
                self.enter(service);
                let record = value().and_then(|value| InstanceRecord::decode(value).ok()).unwrap_or_default();
                let state = State::of(&record, self.alive.contains(id));
                self.so_far.registry.instances[state as usize] += 1;
            }
            _ => {}
        }
    }

    pub fn finish(self) -> Census {
        self.so_far
    }

    fn waiter(&mut self, name: &str) {
        let locks = &mut self.so_far.locks;
        if self.queue.0 != name {
            self.queue = (name.to_owned(), 0);
            locks.contended += 1;
        }
        self.queue.1 += 1;
        locks.waiters += 1;
        locks.longest_queue = locks.longest_queue.max(self.queue.1);
    }

    fn enter(&mut self, service: &str) {
        if self.service != service {
            self.service = service.to_owned();
            self.alive.clear();
        }
    }
}

/// What happened, as one key tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    SessionOpened,
    SessionEnded,
    LockGranted,
    LockEnded,
    LockQueued,
    LeaderElected,
    LeaderEnded,
    InstanceRegistered,
    InstanceLost,
    InstanceRemoved,
}

impl Deed {
    pub const ALL: [Deed; 10] = [
        Deed::SessionOpened,
        Deed::SessionEnded,
        Deed::LockGranted,
        Deed::LockEnded,
        Deed::LockQueued,
        Deed::LeaderElected,
        Deed::LeaderEnded,
        Deed::InstanceRegistered,
        Deed::InstanceLost,
        Deed::InstanceRemoved,
    ];

    /// What it says that a key came to be, or went; a key that only got another value says nothing. Quick: it is asked about every
    /// change there is.
    pub fn told_by(root: &Root, key: &[u8], came: bool) -> Option<Deed> {
        let mut words = key.strip_prefix(root.as_bytes())?.split(|byte| *byte == b'/');
        let (kind, _name) = (words.next()?, words.next()?);
        let deeds = match (kind, words.next(), words.next()) {
            (b"session", None, None) => (Deed::SessionOpened, Some(Deed::SessionEnded)),
            (b"lock", Some(b"holder" | b"upgraded"), Some(_)) => (Deed::LockGranted, Some(Deed::LockEnded)),
            (b"lock", Some(b"queue"), Some(_)) => (Deed::LockQueued, None),
            (b"election", Some(b"term"), Some(b"leader")) => (Deed::LeaderElected, Some(Deed::LeaderEnded)),
            (b"registry", Some(b"instance"), Some(_)) => {
                (Deed::InstanceRegistered, Some(Deed::InstanceRemoved))
            }
            (b"registry", Some(b"loss"), Some(_)) => (Deed::InstanceLost, None),
            _ => return None,
        };
        if came { Some(deeds.0) } else { deeds.1 }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::lock::keys::{Keys, Owner, hexadecimal};

    fn taken(keys: &[(Vec<u8>, Bytes)]) -> Census {
        let mut keys = keys.to_vec();
        keys.sort();
        let mut taking = Taking::new(Root::server());
        for (key, value) in keys {
            taking.take(&key, || Some(value));
        }
        taking.finish()
    }

    #[test]
    fn queues_are_told_apart() {
        let root = Root::server();
        let owner = |session| Owner { session, id: "x".into() };
        let mut keys = Vec::new();
        for (name, waiters) in [("a", 2), ("b/c", 0), ("d", 5)] {
            let lock = Keys::new(&root, name);
            keys.push((lock.state(), Bytes::new()));
            keys.push((lock.holder(&owner(1), false), Bytes::new()));
            keys.extend((0..waiters).map(|at| (lock.queued(&hexadecimal(at), &owner(at + 2)), Bytes::new())));
        }
        let locks = Locks { known: 3, holders: 3, waiters: 7, contended: 2, longest_queue: 5 };
        assert_eq!(taken(&keys).locks, locks);
    }

    #[test]
    fn an_instance_without_a_sign_of_life_is_stale() {
        let root = Root::server();
        let passing = InstanceRecord { health: Health::Passing as i32, ..Default::default() };
        let lost = InstanceRecord { lost: true, ..passing.clone() };
        let away = InstanceRecord { maintenance: true, ..passing.clone() };
        let mut keys = vec![(root.key(&["services", "web"]), Bytes::new())];
        for (id, record, alive) in [
            ("1", &passing, true),
            ("2", &passing, false),
            ("3", &lost, false),
            ("4", &away, true),
            ("5", &passing, true),
        ] {
            keys.push((root.key(&["registry", "web", "instance", id]), record.encode_to_vec().into()));
            if alive {
                keys.push((root.key(&["registry", "web", "alive", id]), Bytes::new()));
            }
        }
        // Another service's sign of life is no sign of this one's.
        keys.push((root.key(&["registry", "a", "alive", "2"]), Bytes::new()));
        let registry = taken(&keys).registry;
        let count = |state: State| registry.instances[state as usize];
        assert_eq!((registry.services, count(State::Passing), count(State::Stale)), (1, 2, 1));
        assert_eq!((count(State::Lost), count(State::Maintenance)), (1, 1));
    }

    #[test]
    fn a_key_tells_what_happened() {
        let root = Root::server();
        let told = |segments: &[&str], came| Deed::told_by(&root, &root.key(segments), came);
        let lock = Keys::new(&root, "a/b");
        let owner = Owner { session: 1, id: "x".into() };
        assert_eq!(Deed::told_by(&root, &lock.holder(&owner, false), true), Some(Deed::LockGranted));
        assert_eq!(Deed::told_by(&root, &lock.queued("1", &owner), true), Some(Deed::LockQueued));
        assert_eq!(Deed::told_by(&root, &lock.state(), true), None);
        assert_eq!(told(&["election", "a", "term", "leader", "7"], false), Some(Deed::LeaderEnded));
        assert_eq!(told(&["registry", "web", "loss", "1"], true), Some(Deed::InstanceLost));
        assert_eq!(told(&["registry", "web", "loss", "1"], false), None);
        assert_eq!(Deed::told_by(&root, b"/elsewhere/lock", true), None);
        for (place, state) in State::ALL.into_iter().enumerate() {
            assert_eq!(state as usize, place);
        }
        for (place, deed) in Deed::ALL.into_iter().enumerate() {
            assert_eq!(deed as usize, place);
        }
    }
}
