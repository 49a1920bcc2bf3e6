//! What was acknowledged happened, at the revision that was named, once; what was refused did not; and nothing happened that
//! nobody asked for.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{Invariant, Scene};
use crate::journal::{Ask, Exchange, Told};

pub struct AcknowledgedKept;

impl Invariant for AcknowledgedKept {
    fn law(&self) -> &'static str {
        "what was acknowledged is kept"
    }

    fn conclude(&mut self, scene: &Scene<'_>) -> Result<(), String> {
        let mut put: BTreeMap<Bytes, Vec<i64>> = BTreeMap::new();
        for (at, happened) in scene.truth.revisions() {
            for event in happened.events.iter().filter(|event| !event.place.tombstone) {
                put.entry(event.kv.value.clone()).or_default().push(at);
            }
        }
        scene.journal.read(0, |exchanges| {
            exchanges.iter().try_for_each(|exchange| check(scene, &mut put, exchange))
        })?;
        match put.first_key_value() {
            None => Ok(()),
            Some((value, at)) => Err(format!("{value:?} was put at {at:?}, and nobody asked for it")),
        }
    }
}

fn check(scene: &Scene<'_>, put: &mut BTreeMap<Bytes, Vec<i64>>, exchange: &Exchange) -> Result<(), String> {
    let told = exchange.told.as_ref().map(|(_, told)| told);
    match &exchange.ask {
        Ask::Put { value, .. } | Ask::Swap { value, .. } => {
            let happened = put.remove(value).unwrap_or_default();
            let right = match told {
                Some(Told::Put { at } | Told::Swapped { at, done: true, .. }) => happened == [*at],
                Some(Told::Refused(_) | Told::Swapped { done: false, .. }) => happened.is_empty(),
                _ => happened.len() <= 1,
            };
            if right { Ok(()) } else { Err(format!("{exchange}; it happened at {happened:?}")) }
        }
        Ask::Delete { key } => {
            let Some(Told::Deleted { at, count: 1 }) = told else { return Ok(()) };
            let deleted = scene.truth.at(*at).is_some_and(|happened| {
                happened.events.iter().any(|event| event.place.tombstone && event.kv.key == *key)
            });
            if deleted { Ok(()) } else { Err(format!("{exchange}; it did not happen")) }
        }
        _ => Ok(()),
    }
}
