//! What these tests share: clients of a few words, and what must hold of a lock's keys at every revision.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message;
use tenure_proto::mvccpb::KeyValue;
use tenure_proto::mvccpb::event::EventType;
use tenure_proto::tenure::v1::{LockGrant, LockHolding, LockMode, LockQueued, LockRecord, LockSpec};
use tenure_recipes::lock::keys::{Part, part};
use tenure_recipes::lock::wish::admits;
use tenure_recipes::lock::{self, Acquired, Owner, Ticket, Waited, Wish};
use tenure_recipes::{Changes, Error, Failure, Primitives, Root};

use crate::support::{Started, Store, Tasks, run};

/// A server, and clients that are run by hand.
#[derive(Default)]
pub struct Ground {
    pub store: Store,
    pub tasks: Tasks,
}

/// What the clock says when a lock is looked after.
pub const NOW: i64 = 7;

pub fn root() -> Root {
    Root::server()
}

pub fn owner(session: i64, id: &str) -> Owner {
    Owner { session, id: id.into() }
}

pub fn exclusive(name: &str) -> LockSpec {
    LockSpec { name: name.into(), ..LockSpec::default() }
}

pub fn shared(name: &str) -> LockSpec {
    LockSpec { mode: LockMode::Shared.into(), ..exclusive(name) }
}

pub fn permits(name: &str, permits: u32, capacity: u32) -> LockSpec {
    LockSpec { mode: LockMode::Permits.into(), permits, capacity, ..exclusive(name) }
}

pub fn wish(session: i64, id: &str, locks: &[LockSpec]) -> Wish {
    Wish { locks: locks.to_vec(), owner: owner(session, id), ..Wish::default() }
}

impl Ground {
    /// With sessions of these ids, each of 10 s.
    pub fn with_sessions(sessions: &[i64]) -> Ground {
        let ground = Ground::default();
        for session in sessions.iter().copied() {
            ground.run(move |store| async move { store.grant(session, 10).await.unwrap() });
        }
        ground
    }

    pub fn run<T: 'static, F: Future<Output = T> + 'static>(&self, act: impl FnOnce(Store) -> F) -> T {
        run(act(self.store.clone()))
    }

    /// Somebody who looks after locks when sessions end, as the server's steward does.
    pub fn steward(&mut self) {
        let store = self.store.clone();
        let from = store.revision() + 1;
        self.tasks.start(async move {
            let (key, end) = root().below(&["lock"]);
            let mut changes = store.watch(key, end, from).await.unwrap();
            while let Ok(change) = changes.next().await {
                let deleted = change.events.iter().filter(|event| event.r#type() == EventType::Delete);
                let names = deleted.filter_map(|event| part(&root(), &event.kv.as_ref()?.key));
                let names: BTreeSet<String> = names.map(|(name, _)| name).collect();
                for name in names {
                    lock::help(&store, &root(), &name, NOW).await.unwrap();
                }
            }
        });
    }

    pub fn acquire(&self, wish: Wish) -> Result<Acquired, Error> {
        self.run(|store| async move { lock::acquire(&store, &root(), wish, true).await })
    }

    pub fn try_acquire(&self, wish: Wish) -> Result<Acquired, Error> {
        self.run(|store| async move { lock::acquire(&store, &root(), wish, false).await })
    }

    /// The grant, of one that need not wait.
    pub fn hold(&self, wish: Wish) -> LockGrant {
        match self.acquire(wish).unwrap() {
            Acquired::Granted { mut grants, .. } => grants.remove(0),
            other => panic!("not granted: {other:?}"),
        }
    }

    /// The place, of one that must wait.
    pub fn queue(&self, wish: Wish) -> Ticket {
        match self.acquire(wish).unwrap() {
            Acquired::Queued(ticket) => ticket,
            other => panic!("not queued: {other:?}"),
        }
    }

    pub fn wait(&mut self, ticket: &Ticket) -> Started<Result<Waited, Failure>> {
        let (store, ticket) = (self.store.clone(), ticket.clone());
        self.tasks.start(async move { lock::wait(&store, &root(), &ticket).await })
    }

    /// Acquires, however long that takes.
    pub fn start(&mut self, wish: Wish) -> Started<Vec<LockGrant>> {
        let store = self.store.clone();
        self.tasks.start(async move {
            match lock::acquire(&store, &root(), wish, true).await.unwrap() {
                Acquired::Granted { grants, .. } => grants,
                Acquired::Queued(ticket) => match lock::wait(&store, &root(), &ticket).await.unwrap() {
                    Waited::Granted { grants, .. } => grants,
                    Waited::Gone { .. } => Vec::new(),
                },
                Acquired::Busy { .. } => panic!("it was to wait"),
            }
        })
    }

    /// Whether the token was a holder's.
    pub fn release(&self, name: &str, token: i64) -> bool {
        let name = name.to_owned();
        let released =
            self.run(|store| async move { lock::release(&store, &root(), &name, token, None, 0).await });
        released.unwrap().is_some()
    }

    pub fn leave(&self, name: &str, session: i64, id: &str) -> bool {
        let (name, owner) = (name.to_owned(), owner(session, id));
        self.run(|store| async move { lock::leave(&store, &root(), &[name], &owner, 0).await.unwrap() })
    }

    pub fn help(&self, name: &str) {
        let name = name.to_owned();
        self.run(|store| async move { lock::help(&store, &root(), &name, NOW).await.unwrap() });
    }

    pub fn picture(&self, name: &str) -> Picture {
        Picture::of(self.store.keys(&root().below(&["lock", name]).0), name)
    }

    /// Nothing is left of any lock.
    pub fn is_clean(&self) -> bool {
        self.store.keys(&root().below(&["lock"]).0).is_empty()
    }
}

/// A lock as its keys say it.
#[derive(Clone, Debug, Default)]
pub struct Picture {
    pub record: Option<LockRecord>,
    /// With its token.
    pub holders: Vec<(Owner, LockHolding, i64)>,
    pub marks: BTreeSet<Owner>,
    /// In the order of the queue.
    pub waiters: Vec<(Owner, LockQueued)>,
    pub places: BTreeSet<Owner>,
    pub delayed: bool,
}

impl Picture {
    /// Of whatever keys there are.
    pub fn of(keys: impl IntoIterator<Item = KeyValue>, name: &str) -> Picture {
        let mut picture = Picture::default();
        for kv in keys {
            let Some((_, part)) = part(&root(), &kv.key).filter(|(of, _)| of == name) else { continue };
            match part {
                Part::State => picture.record = Some(LockRecord::decode(kv.value).unwrap()),
                Part::Holder { owner, .. } => {
                    picture.holders.push((owner, LockHolding::decode(kv.value).unwrap(), kv.create_revision));
                }
                Part::Mark(owner) => {
                    picture.marks.insert(owner);
                }
                Part::Queued { owner, .. } => {
                    picture.waiters.push((owner, LockQueued::decode(kv.value).unwrap()));
                }
                Part::Place(owner) => {
                    picture.places.insert(owner);
                }
                Part::Delay => picture.delayed = true,
                Part::Broken(_) | Part::Policy => {}
            }
        }
        picture
    }

    pub fn holder_ids(&self) -> Vec<&str> {
        self.holders.iter().map(|(owner, ..)| &*owner.id).collect()
    }

    /// What must hold at every revision. `settled`: no session's end is waiting to be looked after.
    pub fn check(&self, name: &str, settled: bool) {
        let said = || format!("{name}: {self:#?}");
        let modes: BTreeSet<i32> = self.holders.iter().map(|(_, holding, _)| holding.mode).collect();
        assert!(modes.len() <= 1, "two modes at once: {}", said());
        let exclusive = modes.contains(&LockMode::Exclusive.into());
        assert!(!exclusive || self.holders.len() == 1, "two exclusive holders: {}", said());
        let record = self.record.clone().unwrap_or_default();
        if modes.contains(&LockMode::Permits.into()) {
            let used: u32 = self.holders.iter().map(|(_, holding, _)| holding.permits).sum();
            assert!(used <= record.capacity, "more permits than there are: {}", said());
        }
        let owners: BTreeMap<&Owner, usize> = self
            .waiters
            .iter()
            .map(|(owner, _)| owner)
            .chain(self.holders.iter().map(|(owner, ..)| owner))
            .fold(BTreeMap::new(), |mut counts, owner| {
                *counts.entry(owner).or_default() += 1;
                counts
            });
        assert!(owners.values().all(|count| *count == 1), "somebody is there twice: {}", said());
        assert_eq!(self.waiters.len(), self.places.len(), "places and queue differ: {}", said());
        if self.record.is_none() {
            let nobody = self.holders.is_empty() && self.waiters.is_empty() && self.marks.is_empty();
            assert!(nobody, "held or waited for without a state: {}", said());
        }
        if settled {
            let counted = record.holders as usize;
            assert_eq!(counted, self.holders.len(), "holders are miscounted: {}", said());
            assert_eq!(record.delay_lease != 0, self.delayed, "{}", said());
            if let Some((_, first)) = self.waiters.first()
                && let [only] = &first.locks[..]
            {
                assert!(!record.line.is_empty(), "a queue without a line: {}", said());
                assert!(record.more || !admits(&record, only), "somebody waits for nothing: {}", said());
            }
            let idle = self.holders.is_empty() && self.waiters.is_empty() && !self.delayed;
            assert!(!idle || self.record.is_none(), "an idle lock leaves its state behind: {}", said());
        }
    }
}
