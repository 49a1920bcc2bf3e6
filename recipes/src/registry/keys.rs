//! Where the registry's keys lie. The layout is a public contract; `recipes/README.md` tells it to those who watch raw keys.
//!
//! ```text
//! services/<service>                       its policy; there as long as it has a policy or an instance
//! registry/<service>/instance/<id>         InstanceRecord; when lost, on the lease that removes it
//! registry/<service>/alive/<id>            empty, on the lease that heartbeats renew
//! registry/<service>/tombstone/<id>        Tombstone, on a lease of one TTL
//! registry/<service>/loss/<id>             empty, on a lease of one window: it was lost so lately
//! registry/<service>/draining/<id>         empty; without its timer, the deadline is over
//! registry/<service>/drain-timer/<id>      empty, on a lease until the deadline
//! registry/<service>/protection            Protection; without its timer, it is to end
//! registry/<service>/protection-timer      empty, on a lease until protection must end
//! registry/<service>/withdrawals           empty, written with each withdrawal that leaves others to serve
//! registry/<service>/projecting            empty; a change of the projections has not come to all instances
//! ```

use crate::key::Root;

const REGISTRY: &str = "registry";
const SERVICES: &str = "services";

/// First key, and the key behind the last.
pub type Range = (Vec<u8>, Vec<u8>);

/// What a key of one instance is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Instance,
    Alive,
    Tombstone,
    Loss,
    Draining,
    DrainTimer,
}

impl Kind {
    const ALL: [Kind; 6] =
        [Kind::Instance, Kind::Alive, Kind::Tombstone, Kind::Loss, Kind::Draining, Kind::DrainTimer];

    fn segment(self) -> &'static str {
        match self {
            Kind::Instance => "instance",
            Kind::Alive => "alive",
            Kind::Tombstone => "tombstone",
            Kind::Loss => "loss",
            Kind::Draining => "draining",
            Kind::DrainTimer => "drain-timer",
        }
    }
}

/// What a key of a whole service is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Whole {
    Protection,
    ProtectionTimer,
    Withdrawals,
    Projecting,
}

impl Whole {
    const ALL: [Whole; 4] =
        [Whole::Protection, Whole::ProtectionTimer, Whole::Withdrawals, Whole::Projecting];

    fn segment(self) -> &'static str {
        match self {
            Whole::Protection => "protection",
            Whole::ProtectionTimer => "protection-timer",
            Whole::Withdrawals => "withdrawals",
            Whole::Projecting => "projecting",
        }
    }
}

/// What a key below `registry/` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    One { service: String, kind: Kind, id: String },
    Service { service: String, whole: Whole },
}

#[derive(Clone, Debug)]
pub struct Keys(Root);

impl Keys {
    pub fn new(root: Root) -> Keys {
        Keys(root)
    }

    pub fn root(&self) -> &Root {
        &self.0
    }

    pub fn one(&self, kind: Kind, service: &str, id: &str) -> Vec<u8> {
        self.0.key(&[REGISTRY, service, kind.segment(), id])
    }

    pub fn whole(&self, whole: Whole, service: &str) -> Vec<u8> {
        self.0.key(&[REGISTRY, service, whole.segment()])
    }

    pub fn policy(&self, service: &str) -> Vec<u8> {
        self.0.key(&[SERVICES, service])
    }

    /// Everything about a service but its policy.
    pub fn service(&self, service: &str) -> Range {
        self.0.below(&[REGISTRY, service])
    }

    pub fn instances(&self, service: &str) -> Range {
        self.0.below(&[REGISTRY, service, Kind::Instance.segment()])
    }

    /// Everything about all services whose names begin with `prefix`.
    pub fn services(&self, prefix: &str) -> Range {
        self.0.starting(&[REGISTRY], prefix)
    }

    pub fn policies(&self, prefix: &str) -> Range {
        self.0.starting(&[SERVICES], prefix)
    }

    /// The service whose policy has this key.
    pub fn policy_of(&self, key: &[u8]) -> Option<String> {
        match <[String; 2]>::try_from(self.0.segments(key)?) {
            Ok([first, service]) if first == SERVICES => Some(service),
            _ => None,
        }
    }

    /// None for keys of others.
    pub fn place(&self, key: &[u8]) -> Option<Place> {
        let mut segments = self.0.segments(key)?.into_iter();
        if segments.next()? != REGISTRY {
            return None;
        }
        let (service, what, id) = (segments.next()?, segments.next()?, segments.next());
        if segments.next().is_some() {
            return None;
        }
        match id {
            Some(id) => {
                let kind = Kind::ALL.into_iter().find(|kind| kind.segment() == what)?;
                Some(Place::One { service, kind, id })
            }
            None => {
                let whole = Whole::ALL.into_iter().find(|whole| whole.segment() == what)?;
                Some(Place::Service { service, whole })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn each_key_says_what_it_is_and_lies_where_it_is_looked_for() {
        let keys = Keys::new(Root::server());
        for service in ["web", "a/b", "100%", "ä"] {
            let (from, to) = keys.service(service);
            for kind in Kind::ALL {
                let key = keys.one(kind, service, "x/1");
                assert!(from <= key && key < to);
                let place = Place::One { service: service.to_owned(), kind, id: "x/1".to_owned() };
                assert_eq!(keys.place(&key), Some(place));
            }
            for whole in Whole::ALL {
                let key = keys.whole(whole, service);
                assert!(from <= key && key < to);
                assert_eq!(keys.place(&key), Some(Place::Service { service: service.to_owned(), whole }));
            }
            assert_eq!(keys.policy_of(&keys.policy(service)).as_deref(), Some(service));
            let beginning: String = service.chars().take(2).collect();
            let (from, to) = keys.services(&beginning);
            assert!((from..to).contains(&keys.whole(Whole::Protection, service)));
        }
        let (from, to) = keys.services("web");
        assert!(!(from..to).contains(&keys.whole(Whole::Protection, "we")));
        assert_eq!(keys.place(&keys.policy("web")), None);
        assert_eq!(keys.place(b"/_tenure/lock/a"), None);
    }
}
