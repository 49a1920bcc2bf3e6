//! Which changes are a reason to look at a service, for those who help. Most are not: what registers, beats and deregisters in good
//! order leaves nothing to do.

use std::collections::{BTreeMap, BTreeSet};

use super::Registry;
use super::keys::{Keys, Kind, Place, Whole};
use super::transition::{Transition, read_these};
use crate::key::Root;
use crate::primitives::{Failure, Primitives};

/// What may have become due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Look {
    /// An instance went: the last one takes the service with it.
    Emptied,
    /// An instance was heard of: if all are, protection has no reason any more.
    Recovered,
    /// A sign of life or a timer ended, or the projections are to be others.
    Ended,
}

impl Look {
    /// What can be said before anything is read: this look finds nothing to do unless there are keys (true), or are none (false), that
    /// begin so.
    pub fn needs(self, root: &Root, service: &str) -> Option<(Vec<u8>, bool)> {
        let keys = Keys::new(root.clone());
        match self {
            Look::Emptied => Some((keys.instances(service).0, false)),
            Look::Recovered => Some((keys.whole(Whole::Protection, service), true)),
            Look::Ended => None,
        }
    }
}

/// What became of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    Put,
    Deleted,
}

/// The services at which one revision is a reason to look: its keys, each with whether it was put or deleted.
pub fn concerned<'a>(
    root: &Root,
    events: impl IntoIterator<Item = (&'a [u8], Deed)>,
) -> BTreeMap<String, BTreeSet<Look>> {
    let keys = Keys::new(root.clone());
    let mut looks: BTreeMap<String, BTreeSet<Look>> = BTreeMap::new();
    let mut gone = BTreeSet::new();
    let mut silent = Vec::new();
    for (key, deed) in events {
        match (keys.place(key), deed) {
            (Some(Place::One { kind: Kind::Alive, service, .. }), Deed::Put) => {
                looks.entry(service).or_default().insert(Look::Recovered);
            }
            (Some(Place::One { kind: Kind::Instance, service, id }), Deed::Deleted) => {
                looks.entry(service.clone()).or_default().insert(Look::Emptied);
                gone.insert((service, id));
            }
            (Some(Place::One { kind: Kind::Alive | Kind::DrainTimer, service, id }), Deed::Deleted) => {
                silent.push((service, id));
            }
            (Some(Place::Service { whole: Whole::ProtectionTimer, service }), Deed::Deleted)
            | (Some(Place::Service { whole: Whole::Projecting, service }), Deed::Put) => {
                looks.entry(service).or_default().insert(Look::Ended);
            }
            (Some(_), _) | (None, _) => {}
        }
    }
    for (service, _) in silent.into_iter().filter(|name| !gone.contains(name)) {
        looks.entry(service).or_default().insert(Look::Ended);
    }
    looks
}

impl<P: Primitives> Registry<P> {
    /// Does what a change made due at one service; as [`Registry::help`], but looks no further than it must.
    pub async fn help_with(&self, service: &str, look: Look) -> Result<(), Failure> {
        match look {
            Look::Ended => self.help(service).await,
            Look::Emptied => self.forget_if_empty(service).await,
            Look::Recovered => {
                let protection = self.keys.whole(Whole::Protection, service);
                match read_these(&self.primitives, [&protection]).await? {
                    (_, [Some(_)]) => self.help(service).await,
                    (_, [None]) => Ok(()),
                }
            }
        }
    }

    /// A service of which nothing is known but its name is not listed any more.
    pub(super) async fn forget_if_empty(&self, service: &str) -> Result<(), Failure> {
        let policy = self.keys.policy(service);
        let (_, [there]) = read_these(&self.primitives, [&policy]).await?;
        if let Some(kv) = there.filter(|kv| kv.value.is_empty()) {
            let forget = Transition::default()
                .unchanged(&policy, Some(&kv))
                .none_in(&self.keys.instances(service))
                .delete(&policy)
                .delete(&self.keys.whole(Whole::Withdrawals, service))
                .delete(&self.keys.whole(Whole::Projecting, service))
                .delete(&self.keys.whole(Whole::Protection, service))
                .delete(&self.keys.whole(Whole::ProtectionTimer, service));
            let _not_if_somebody_came = forget.attempt(&self.primitives).await?;
        }
        Ok(())
    }
}
