//! The registry on this member, and what the steward does for it: losses are noted, drains and protections end, though nobody asks.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::future::BoxFuture;
use tenure_recipes::registry::{Deed, Look, Registry, Supply, concerned as concerned_services};
use tenure_recipes::{Failure, Root};
use tenure_state::Event;

use super::primitives::Here;
use super::steward::{self, Recipe};

pub const RECIPE: Recipe = Recipe { kind: "registry", concerned, standing, help };

/// The words for what is to be looked at, each before the name of the service.
const LOOKS: [(char, Look); 3] = [('-', Look::Emptied), ('+', Look::Recovered), ('!', Look::Ended)];

pub fn at(here: Here) -> Registry<Here> {
    let (leases, calendar) = (here.clone(), here.clone());
    let supply = Supply {
        lease: Arc::new(move || leases.unused_lease()),
        unix_ms: Arc::new(move || calendar.unix_ms()),
    };
    Registry::new(here, Root::server(), supply)
}

fn concerned(here: &Here, events: &[&Event]) -> BTreeSet<String> {
    let deeds = events.iter().map(|event| {
        let deed = if event.place.tombstone { Deed::Deleted } else { Deed::Put };
        (&event.key[..], deed)
    });
    let root = Root::server();
    let worth_it = |service: &str, look: Look| match look.needs(&root, service) {
        Some((prefix, there)) => here.has_keys_below(&prefix) == there,
        None => true,
    };
    let mut words = BTreeSet::new();
    for (service, looks) in concerned_services(&root, deeds) {
        let said = LOOKS.iter().filter(|(_, look)| looks.contains(look) && worth_it(&service, *look));
        words.extend(said.map(|(word, _)| format!("{word}{service}")));
    }
    words
}

/// What may have become due while nobody led is seen at the service as a whole.
fn standing(key: &[u8]) -> Option<String> {
    steward::name(key).map(|service| format!("!{service}"))
}

fn help(here: Here, word: String) -> BoxFuture<'static, Result<(), Failure>> {
    Box::pin(async move {
        let mut letters = word.chars();
        let said = letters.next();
        let look = LOOKS.iter().find(|(word, _)| Some(*word) == said).map_or(Look::Ended, |(_, look)| *look);
        at(here).help_with(letters.as_str(), look).await
    })
}
