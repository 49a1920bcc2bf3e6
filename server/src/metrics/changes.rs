//! What applied commands did to keys; and, of keys below the recipes' root, what that says happened. Every member counts all of it, since
//! every member applies all of it.

use tenure_recipes::Root;
use tenure_recipes::census::Deed;
use tenure_state::{Change, Previous};

use super::{Counter, Registry};

pub struct Changes {
    root: Root,
    puts: Counter,
    deletions: Counter,
    /// Events that went out to watchers.
    pub delivered: Counter,
    /// In the order of [`Deed::ALL`].
    deeds: [Counter; Deed::ALL.len()],
}

impl Changes {
    pub fn new(registry: &Registry) -> Changes {
        let counter = |name, help| registry.counter((name, help), &[]);
        Changes {
            root: Root::server(),
            puts: counter("etcd_mvcc_put_total", "Keys put, also within transactions."),
            deletions: counter("etcd_mvcc_delete_total", "Keys deleted, also by the end of a lease."),
            delivered: counter("etcd_debugging_mvcc_events_total", "Events sent to watchers of this member."),
            deeds: Deed::ALL.map(|deed| {
                let (name, help) = named(deed);
                counter(name, help)
            }),
        }
    }

    pub fn follow(&self, change: &Change) {
        let mut deletions = 0;
        for event in &change.events {
            let came = !event.place.tombstone;
            deletions += u64::from(!came);
            // Another value of a key that was there says nothing.
            if (!came || event.previous == Previous::Nothing)
                && let Some(deed) = Deed::told_by(&self.root, &event.key, came)
            {
                self.deeds[deed as usize].increment(1);
            }
        }
        let puts = change.events.len() as u64 - deletions;
        if puts > 0 {
            self.puts.increment(puts);
        }
        if deletions > 0 {
            self.deletions.increment(deletions);
        }
    }
}

fn named(deed: Deed) -> (&'static str, &'static str) {
    match deed {
        Deed::SessionOpened => ("tenure_sessions_opened_total", "Sessions opened."),
        Deed::SessionEnded => {
            ("tenure_sessions_ended_total", "Sessions that were closed, killed, or ran out.")
        }
        Deed::LockGranted => ("tenure_lock_grants_total", "Grants of locks, shared ones each."),
        Deed::LockEnded => ("tenure_lock_ends_total", "Grants of locks that ended, by release or otherwise."),
        Deed::LockQueued => ("tenure_lock_queued_total", "Places taken in locks' queues."),
        Deed::LeaderElected => ("tenure_election_terms_total", "Terms of elections begun."),
        Deed::LeaderEnded => ("tenure_election_terms_ended_total", "Terms of elections ended."),
        Deed::InstanceRegistered => {
            ("tenure_registry_registered_total", "Instances registered that were not before.")
        }
        Deed::InstanceLost => ("tenure_registry_lost_total", "Instances taken for lost."),
        Deed::InstanceRemoved => {
            ("tenure_registry_removed_total", "Instances deregistered, or removed after their loss.")
        }
    }
}
