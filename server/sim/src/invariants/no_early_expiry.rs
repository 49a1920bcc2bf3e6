//! No lease ends before its time as its holder counts it: from when he asked for the lease, or for the renewal that was
//! acknowledged, for as long as he was told. Unless he asked for its end.

use std::collections::BTreeMap;

use super::{Invariant, Scene};
use crate::journal::{Ask, Exchange, Told};
use crate::truth::{State, Truth};

pub struct NoEarlyExpiry;

/// When each lease's keys went, with the place of that moment among all events: the first member to apply it counts.
pub fn ends(truth: &Truth) -> BTreeMap<i64, crate::journal::Moment> {
    let (mut state, mut ends) = (State::new(), BTreeMap::new());
    for (_, happened) in truth.revisions() {
        for event in happened.events.iter().filter(|event| event.place.tombstone) {
            if let Some(held) = state.get(&event.kv.key).filter(|held| held.lease != 0) {
                ends.entry(held.lease).or_insert(happened.seen);
            }
        }
        happened.apply(&mut state);
    }
    ends
}

impl Invariant for NoEarlyExpiry {
    fn law(&self) -> &'static str {
        "no lease ends early"
    }

    fn conclude(&mut self, scene: &Scene<'_>) -> Result<(), String> {
        let ends = ends(scene.truth);
        scene.journal.read(0, |exchanges| {
            let revoked = |lease: i64| exchanges.iter().any(|exchange| exchange.ask == Ask::Revoke { lease });
            for exchange in exchanges {
                let Some((lease, ttl_s)) = promised(exchange) else { continue };
                let Some(end) = ends.get(&lease).filter(|end| **end > exchange.asked) else { continue };
                let due_ms = exchange.asked.ms + ttl_s.unsigned_abs() * 1_000;
                if end.ms < due_ms && !revoked(lease) {
                    return Err(format!("{exchange}; but it ended at {} ms, before {due_ms} ms", end.ms));
                }
            }
            Ok(())
        })
    }
}

/// The lease, and for how many seconds its holder may count on it.
pub fn promised(exchange: &Exchange) -> Option<(i64, i64)> {
    match (&exchange.ask, &exchange.told.as_ref()?.1) {
        (Ask::Grant { .. }, Told::Granted { lease, ttl_s, .. }) => Some((*lease, *ttl_s)),
        (Ask::Renew { lease }, Told::Renewed { ttl_s }) if *ttl_s > 0 => Some((*lease, *ttl_s)),
        _ => None,
    }
}
