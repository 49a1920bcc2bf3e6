//! Every operation takes effect at one moment between question and answer. Revisions name the order, so it need not be
//! searched for: an answer must be what holds at its revision, and whoever asks after somebody was told of a revision is
//! told of none before it (of a later one if he changed something).
//!
//! That is all there is to it: with these, ordering operations by revision, writes before the reads of theirs, is an order
//! that respects time and in which every answer is right.

use super::{Invariant, Scene};
use crate::journal::{Ask, Exchange, Told};
use crate::truth::State;

pub struct Linearizable;

impl Invariant for Linearizable {
    fn law(&self) -> &'static str {
        "answers are linearizable"
    }

    fn conclude(&mut self, scene: &Scene<'_>) -> Result<(), String> {
        let exchanges = scene.journal.exchanges();
        in_time(&exchanges)?;
        right(scene, &exchanges)
    }
}

/// Serializable reads may be old, and promise nothing to others.
fn counts(exchange: &Exchange) -> bool {
    !matches!(exchange.ask, Ask::Get { serializable: true, .. })
}

fn in_time(exchanges: &[Exchange]) -> Result<(), String> {
    let mut moments = Vec::new();
    for (number, exchange) in exchanges.iter().enumerate().filter(|(_, exchange)| counts(exchange)) {
        if let Some((moment, told)) = &exchange.told
            && let Some(at) = told.at()
        {
            moments.push((exchange.asked, number, None));
            moments.push((*moment, number, Some(at)));
        }
    }
    moments.sort_unstable_by_key(|(moment, ..)| *moment);
    let mut known = 0;
    let mut floors = vec![0; exchanges.len()];
    for (_, number, at) in moments {
        let Some(at) = at else {
            floors[number] = known;
            continue;
        };
        let (exchange, floor) = (&exchanges[number], floors[number]);
        let least = if changed(exchange) { floor + 1 } else { floor };
        if at < least {
            return Err(format!(
                "{exchange}; but somebody had been told of revision {floor} before it was asked"
            ));
        }
        known = known.max(at);
    }
    Ok(())
}

/// Whether it made a revision of its own.
fn changed(exchange: &Exchange) -> bool {
    match exchange.told.as_ref().map(|(_, told)| told) {
        Some(Told::Put { .. } | Told::Swapped { done: true, .. }) => true,
        Some(Told::Deleted { count, .. }) => *count > 0,
        _ => false,
    }
}

/// Whether each answer is what holds at its revision.
fn right(scene: &Scene<'_>, exchanges: &[Exchange]) -> Result<(), String> {
    let mut answers: Vec<(i64, &Exchange, &Told)> = Vec::new();
    for exchange in exchanges {
        if let Some((_, told)) = &exchange.told
            && let Some(at) = told.at()
        {
            answers.push((at, exchange, told));
        }
    }
    answers.sort_by_key(|(at, ..)| *at);
    let (mut before, mut state, mut stands) = (State::new(), State::new(), 1);
    let mut revisions = scene.truth.revisions().peekable();
    for (at, exchange, told) in answers {
        while stands < at {
            let Some((next, happened)) = revisions.next() else {
                return Err(format!("{exchange}; there is no such revision"));
            };
            before.clone_from(&state);
            happened.apply(&mut state);
            stands = next;
        }
        check(exchange, told, &before, &state)?;
    }
    Ok(())
}

fn check(exchange: &Exchange, told: &Told, before: &State, state: &State) -> Result<(), String> {
    let holds = match (&exchange.ask, told) {
        (Ask::Get { key, .. }, Told::Got { held, .. }) => state.get(key) == held.as_ref(),
        (Ask::Swap { key, at, .. }, Told::Swapped { done: true, .. }) => {
            before.get(key).map_or(0, |held| held.at) == *at
        }
        (Ask::Swap { key, at, .. }, Told::Swapped { done: false, held, .. }) => {
            state.get(key) == held.as_ref() && state.get(key).map_or(0, |held| held.at) != *at
        }
        (Ask::Delete { key }, Told::Deleted { count: 0, .. }) => !state.contains_key(key),
        (Ask::Delete { key }, Told::Deleted { .. }) => before.contains_key(key) && !state.contains_key(key),
        _ => true,
    };
    if holds {
        Ok(())
    } else {
        Err(format!("{exchange}; at that revision there was {:?}", key_in(exchange, state)))
    }
}

fn key_in<'a>(exchange: &Exchange, state: &'a State) -> Option<&'a crate::journal::Held> {
    match &exchange.ask {
        Ask::Put { key, .. } | Ask::Get { key, .. } | Ask::Swap { key, .. } | Ask::Delete { key } => {
            state.get(key)
        }
        _ => None,
    }
}
