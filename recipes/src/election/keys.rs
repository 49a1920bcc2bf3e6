//! Where an election's keys lie, and back from a key to what it is. The layout is public: recipes/README.md tells it.

use crate::key::Root;

/// The keys of one election.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    root: Root,
    name: String,
}

/// What a key of an election is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// The last term, whether it runs or has ended.
    Now,
    /// The holder key of a term: there as long as its leader leads, on the leader's session.
    Leader(i64),
    /// A term that has ended.
    Past(i64),
    /// One who waits, on its session.
    Candidate {
        id: String,
        session: i64,
    },
    /// The switchover under way.
    Handover,
    /// A switchover that is over.
    Transfer(String),
    Timer(Timer),
    /// Says behind which epoch the time to settle has begun.
    Settling,
}

/// Keys on leases of their own: there until their time is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// After a leader that was lost nobody is elected.
    Delay,
    /// After a vacancy better candidates are waited for.
    Settle,
    /// The leader is not preempted.
    Tenure,
    /// The leader has time to hand over.
    Deadline,
}

impl Timer {
    pub(super) const ALL: [Timer; 4] = [Timer::Delay, Timer::Settle, Timer::Tenure, Timer::Deadline];

    pub(super) fn word(self) -> &'static str {
        match self {
            Timer::Delay => "delay",
            Timer::Settle => "settle",
            Timer::Tenure => "tenure",
            Timer::Deadline => "deadline",
        }
    }
}

impl Keys {
    pub(super) fn new(root: Root, name: &str) -> Keys {
        Keys { root, name: name.to_owned() }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The rules. Beside the other keys, so that one range gives all elections by name.
    pub(super) fn policy(&self) -> Vec<u8> {
        self.root.key(&["elections", &self.name])
    }

    pub(super) fn now(&self) -> Vec<u8> {
        self.at(&["term", "now"])
    }

    pub(super) fn leader(&self, epoch: i64) -> Vec<u8> {
        self.at(&["term", "leader", &number(epoch)])
    }

    pub(super) fn past(&self, epoch: i64) -> Vec<u8> {
        self.at(&["term", "past", &number(epoch)])
    }

    pub(super) fn candidate(&self, id: &str, session: i64) -> Vec<u8> {
        self.at(&["candidate", id, &format!("{session:016x}")])
    }

    pub(super) fn handover(&self) -> Vec<u8> {
        self.at(&["handover"])
    }

    pub(super) fn transfer(&self, id: &str) -> Vec<u8> {
        self.at(&["transfer", id])
    }

    pub(super) fn timer(&self, timer: Timer) -> Vec<u8> {
        self.at(&["timer", timer.word()])
    }

    pub(super) fn settling(&self) -> Vec<u8> {
        self.at(&["settling"])
    }

    pub(super) fn all(&self) -> (Vec<u8>, Vec<u8>) {
        self.below(&[])
    }

    /// What observers look at: no candidate comes or goes here.
    pub(super) fn terms(&self) -> (Vec<u8>, Vec<u8>) {
        self.below(&["term"])
    }

    pub(super) fn leaders(&self) -> (Vec<u8>, Vec<u8>) {
        self.below(&["term", "leader"])
    }

    pub(super) fn pasts(&self) -> (Vec<u8>, Vec<u8>) {
        self.below(&["term", "past"])
    }

    pub(super) fn candidates(&self) -> (Vec<u8>, Vec<u8>) {
        self.below(&["candidate"])
    }

    pub(super) fn transfers(&self) -> (Vec<u8>, Vec<u8>) {
        self.below(&["transfer"])
    }

    pub(super) fn timers(&self) -> (Vec<u8>, Vec<u8>) {
        self.below(&["timer"])
    }

    pub(super) fn place(&self, key: &[u8]) -> Option<Place> {
        let segments = self.root.segments(key)?;
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        let ["election", name, rest @ ..] = &segments[..] else { return None };
        if *name != self.name {
            return None;
        }
        Some(match rest {
            ["term", "now"] => Place::Now,
            ["term", "leader", epoch] => Place::Leader(epoch.parse().ok()?),
            ["term", "past", epoch] => Place::Past(epoch.parse().ok()?),
            ["candidate", id, session] => {
                Place::Candidate { id: (*id).to_owned(), session: session_of(session)? }
            }
            ["handover"] => Place::Handover,
            ["transfer", id] => Place::Transfer((*id).to_owned()),
            ["timer", word] => Place::Timer(Timer::ALL.into_iter().find(|timer| timer.word() == *word)?),
            ["settling"] => Place::Settling,
            _ => return None,
        })
    }

    fn at(&self, rest: &[&str]) -> Vec<u8> {
        let mut segments = vec!["election", &self.name];
        segments.extend(rest);
        self.root.key(&segments)
    }

    fn below(&self, rest: &[&str]) -> (Vec<u8>, Vec<u8>) {
        let mut segments = vec!["election", &self.name];
        segments.extend(rest);
        self.root.below(&segments)
    }
}

/// As wide as any epoch, so that keys lie in the order of the numbers.
fn number(epoch: i64) -> String {
    format!("{epoch:019}")
}

fn session_of(segment: &str) -> Option<i64> {
    Some(u64::from_str_radix(segment, 16).ok()?.cast_signed())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn every_key_is_known_again() {
        let keys = Keys::new(Root::server(), "db/main");
        let candidate = Place::Candidate { id: "n/1".into(), session: -7 };
        for (key, place) in [
            (keys.now(), Place::Now),
            (keys.leader(12), Place::Leader(12)),
            (keys.past(3), Place::Past(3)),
            (keys.candidate("n/1", -7), candidate),
            (keys.handover(), Place::Handover),
            (keys.transfer("t"), Place::Transfer("t".into())),
            (keys.timer(Timer::Deadline), Place::Timer(Timer::Deadline)),
            (keys.settling(), Place::Settling),
        ] {
            assert_eq!(keys.place(&key), Some(place));
            let (from, to) = keys.all();
            assert!((from..to).contains(&key));
        }
        assert_eq!(keys.place(&Keys::new(Root::server(), "db").now()), None);
        assert_eq!(keys.place(&keys.policy()), None);
    }
}
