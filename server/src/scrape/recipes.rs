//! How many sessions, locks, elections and instances there are, found by a walk over their keys. The walk lets go of the state every few
//! hundred keys, and begins only when a multiple of the time has passed that the last one took: however many keys there are, counting them
//! takes a small part of one processor.

use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use tenure_proto::mvccpb::KeyValue;
use tenure_recipes::Root;
use tenure_recipes::census::{Census, State, Taking};
use tenure_state::{Interval, Key, Place, Records};

use crate::metrics::{Gauge, Registry, Stopwatch};
use crate::node::{Node, View};

/// Keys looked at while the state's lock is held.
const KEYS_AT_ONCE: usize = 512;
/// So many times as long as a walk took, its result is good enough.
const REST: u32 = 30;

pub struct Recipes {
    view: Arc<View>,
    last: Option<Last>,
    gauges: Gauges,
}

#[derive(Clone, Copy)]
struct Last {
    since: Stopwatch,
    took: std::time::Duration,
}

struct Gauges {
    sessions: Gauge,
    locks: [Gauge; 5],
    elections: [Gauge; 3],
    services: [Gauge; 2],
    /// In the order of [`State::ALL`].
    instances: [Gauge; State::ALL.len()],
}

impl Recipes {
    pub fn new(node: &Node, registry: &Registry) -> Recipes {
        Recipes { view: node.view.clone(), last: None, gauges: Gauges::new(registry) }
    }

    pub fn read(&mut self) {
        if self.last.is_some_and(|last| last.since.read() < last.took * REST) {
            return;
        }
        let since = Stopwatch::start();
        self.gauges.show(&census(&self.view));
        self.last = Some(Last { since, took: since.read() });
    }
}

/// A key, and where its record is.
type Found = (Key, Place, Option<Bytes>);

fn census(view: &View) -> Census {
    let root = Root::server();
    let (from, to) = root.below(&[]);
    let interval = Interval::new(&from, &to);
    let mut taking = Taking::new(root);
    let mut after: Option<Key> = None;
    loop {
        let (found, last) = step(view, &interval, after.as_ref());
        for (key, place, record) in found {
            taking.take(&key, || {
                // One that is gone by now is as good as one without a value.
                let record = record.or_else(|| view.store().record(place).ok().flatten())?;
                Some(KeyValue::decode(record).ok()?.value)
            });
        }
        match last {
            Some(last) => after = Some(last),
            None => return taking.finish(),
        }
    }
}

/// Some of the keys that exist, and behind which key there may be more.
fn step(view: &View, interval: &Interval, after: Option<&Key>) -> (Vec<Found>, Option<Key>) {
    let machine = view.machine();
    let (mut found, mut last, mut looked) = (Vec::new(), None, 0);
    for (key, history) in machine.index().range_after(interval, after).take(KEYS_AT_ONCE) {
        looked += 1;
        last = Some(key);
        found.extend(history.live().map(|newest| (key.clone(), newest.place(), newest.record.clone())));
    }
    (found, last.filter(|_| looked == KEYS_AT_ONCE).cloned())
}

impl Gauges {
    fn new(registry: &Registry) -> Gauges {
        let gauge = |name, help| registry.gauge((name, help), &[]);
        let state = |state: State| {
            let help = "Instances, by the first of these words that is true of them: lost, stale, maintenance, draining, \
                        and what they say of their health.";
            registry.gauge(("tenure_registry_instances", help), &[("state", state.word())])
        };
        Gauges {
            sessions: gauge("tenure_sessions", "Sessions that are open."),
            locks: [
                gauge("tenure_locks", "Locks that somebody holds or waits for, or that are in their delay."),
                gauge("tenure_lock_holders", "Grants of locks that last, shared ones each."),
                gauge("tenure_lock_waiters", "Places in locks' queues."),
                gauge("tenure_locks_contended", "Locks that somebody waits for."),
                gauge("tenure_lock_queue_length_max", "Places in the longest queue of a lock."),
            ],
            elections: [
                gauge("tenure_elections", "Elections that ever had a leader."),
                gauge("tenure_elections_led", "Elections that have a leader now."),
                gauge("tenure_election_candidates", "Candidates of all elections."),
            ],
            services: [
                gauge("tenure_registry_services", "Services that have instances or a policy."),
                gauge(
                    "tenure_registry_protected_services",
                    "Services that lost so many instances at once that none is taken for lost.",
                ),
            ],
            instances: State::ALL.map(state),
        }
    }

    fn show(&self, census: &Census) {
        let Census { sessions, locks, elections, registry } = census;
        let locks = [locks.known, locks.holders, locks.waiters, locks.contended, locks.longest_queue];
        let elections = [elections.known, elections.led, elections.candidates];
        let services = [registry.services, registry.protected];
        self.sessions.set(*sessions as f64);
        let rows: [(&[Gauge], &[u64]); 4] = [
            (&self.locks, &locks),
            (&self.elections, &elections),
            (&self.services, &services),
            (&self.instances, &registry.instances),
        ];
        for (gauges, values) in rows {
            for (gauge, value) in gauges.iter().zip(values) {
                gauge.set(*value as f64);
            }
        }
    }
}
