//! One response's worth of events, by reference: the changes are shared by all who are told of them.

use std::sync::Arc;

use super::watcher::Watcher;
use super::{Limits, WatchId};
use crate::change::{Change, Event, Previous};
use crate::interval::Interval;
use crate::revision::Revision;

/// Events for one watcher, in order; of each revision all that it wants, unless `fragment` says that the rest follows.
#[derive(Clone, Debug, PartialEq)]
pub struct Delivery {
    pub watch_id: WatchId,
    pub header_revision: Revision,
    /// The watcher wants to know what each event replaced.
    pub prev_kv: bool,
    /// More of the same response follows at once.
    pub fragment: bool,
    pub pieces: Vec<Piece>,
}

impl Delivery {
    pub fn events(&self) -> impl Iterator<Item = &Event> {
        self.pieces.iter().flat_map(Piece::events)
    }
}

/// Those events of a change that one watcher wants. Never none.
#[derive(Clone, Debug, PartialEq)]
pub struct Piece {
    change: Arc<Change>,
    picked: Picked,
}

/// Places in the change's list of events, rising.
#[derive(Clone, Debug, PartialEq)]
enum Picked {
    All,
    Some(Box<[u32]>),
}

impl Piece {
    /// What of a change concerns a watcher; None if nothing does.
    pub(super) fn pick(change: &Arc<Change>, interval: &Interval, watcher: &Watcher) -> Option<Piece> {
        let wanted = |event: &Event| watcher.wants(event) && interval.contains(&event.key);
        let picked = match &*change.events {
            [event] => wanted(event).then_some(Picked::All)?,
            events => {
                let places = |(place, event)| wanted(event).then_some(place);
                let some: Box<[u32]> = (0..).zip(events).filter_map(places).collect();
                match some.len() {
                    0 => return None,
                    all if all == events.len() => Picked::All,
                    _ => Picked::Some(some),
                }
            }
        };
        Some(Piece { change: change.clone(), picked })
    }

    pub fn revision(&self) -> Revision {
        self.change.revision
    }

    pub fn events(&self) -> impl Iterator<Item = &Event> {
        self.places().map(|place| &self.change.events[place as usize])
    }

    /// Roughly what this will take on the wire.
    fn wire_size(&self, prev_kv: bool) -> usize {
        self.events().map(|event| wire_size(event, prev_kv)).sum()
    }

    /// Takes these places for a piece of its own; None if there are none.
    fn only(&self, places: &mut Vec<u32>) -> Option<Piece> {
        let some: Box<[u32]> = std::mem::take(places).into();
        (!some.is_empty()).then(|| Piece { change: self.change.clone(), picked: Picked::Some(some) })
    }

    fn places(&self) -> impl Iterator<Item = u32> {
        let (all, some): (u32, &[u32]) = match &self.picked {
            Picked::All => (self.change.events.len() as u32, &[]),
            Picked::Some(some) => (0, some),
        };
        (0..all).chain(some.iter().copied())
    }
}

/// An event's record, what it replaced where that is asked for, and the bytes that name them. What was replaced and is
/// not at hand is taken to be as large as what replaced it.
fn wire_size(event: &Event, prev_kv: bool) -> usize {
    const NAMES: usize = 24;
    let record = if event.place.tombstone { event.key.len() } else { event.record.len() };
    let previous = match &event.previous {
        Previous::Record(previous) => previous.len(),
        Previous::At(_) => event.record.len(),
        Previous::Nothing => 0,
    };
    NAMES + record + if prev_kv { previous } else { 0 }
}

/// Revisions to hand over in one response.
pub(super) struct Batch {
    pub pieces: Vec<Piece>,
    bytes: usize,
    revisions_max: usize,
    bytes_max: usize,
}

impl Batch {
    pub fn new(limits: &Limits) -> Batch {
        let (revisions_max, bytes_max) = (limits.batch_revisions, limits.batch_bytes);
        Batch { pieces: Vec::new(), bytes: 0, revisions_max, bytes_max }
    }

    pub fn is_full(&self) -> bool {
        self.pieces.len() >= self.revisions_max || self.bytes >= self.bytes_max
    }

    /// Takes in what of a change concerns the watcher.
    pub fn look(&mut self, change: &Arc<Change>, interval: &Interval, watcher: &Watcher) {
        let Some(piece) = Piece::pick(change, interval, watcher) else { return };
        self.bytes += piece.wire_size(watcher.wishes.prev_kv);
        self.pieces.push(piece);
    }
}

/// The response that holds these pieces; if it is too large and may be split, its fragments. An event is never split.
pub(super) fn responses(
    watcher: &Watcher,
    header_revision: Revision,
    pieces: Vec<Piece>,
    fragment_bytes: usize,
) -> Vec<Delivery> {
    let prev_kv = watcher.wishes.prev_kv;
    let response =
        |fragment, pieces| Delivery { watch_id: watcher.id, header_revision, prev_kv, fragment, pieces };
    let size = || pieces.iter().map(|piece| piece.wire_size(prev_kv)).sum::<usize>();
    if !watcher.wishes.fragment || size() < fragment_bytes {
        return vec![response(false, pieces)];
    }

    let (mut responses, mut filled, mut room) = (Vec::new(), Vec::new(), fragment_bytes);
    for piece in &pieces {
        let mut places = Vec::new();
        for place in piece.places() {
            let size = wire_size(&piece.change.events[place as usize], prev_kv);
            if size >= room && !(filled.is_empty() && places.is_empty()) {
                filled.extend(piece.only(&mut places));
                responses.push(response(true, std::mem::take(&mut filled)));
                room = fragment_bytes;
            }
            places.push(place);
            room = room.saturating_sub(size);
        }
        filled.extend(piece.only(&mut places));
    }
    responses.push(response(false, filled));
    responses
}
