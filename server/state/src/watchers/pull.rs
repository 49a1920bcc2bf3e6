//! What a stream is told next. Watchers take turns; each turn hands over one response, or moves the cursor over changes
//! of no concern.

use std::sync::Arc;

use super::delivery::{Batch, Delivery, Piece, responses};
use super::watcher::State;
use super::{StreamId, Turn, WatchId, Watchers};
use crate::change::Change;
use crate::interval::Interval;
use crate::revision::Revision;

/// The next thing for a stream.
#[derive(Clone, Debug, PartialEq)]
pub enum Pull {
    Events(Delivery),
    /// What the watcher still needed was compacted away: its client is told so, with header revision 0 and no reason,
    /// and may begin again at `compact_revision`.
    Canceled {
        watch_id: WatchId,
        compact_revision: Revision,
    },
    /// All up to `header_revision` was handed over: of one watcher, or of all ([`WatchId::ALL`]).
    Progress {
        watch_id: WatchId,
        header_revision: Revision,
    },
    /// Read the store and call [`Watchers::history`] or [`Watchers::history_compacted`]. The stream's other watchers
    /// can be pulled meanwhile.
    NeedHistory(HistoryRequest),
    /// There is more to look at: let others run, then pull again.
    Again,
    /// Nothing until the stream is woken.
    Idle,
}

/// What a watcher needs from the store: every change in `interval` from `from` up to and with `upto`.
#[derive(Clone, Debug, PartialEq)]
pub struct HistoryRequest {
    pub stream: StreamId,
    pub watch_id: WatchId,
    pub interval: Interval,
    pub from: Revision,
    pub upto: Revision,
    /// Tells it from every other: by the time of the answer, a watcher of the same name may want something else.
    number: u64,
}

impl Watchers {
    /// The next thing for this stream; [`Pull::Idle`] if it is closed. Pull until `Idle` after being woken and after
    /// each call that speaks of the stream (create, cancel, history, progress); then wait to be woken.
    pub fn pull(&mut self, id: StreamId) -> Pull {
        let mut looks = self.limits.looks;
        loop {
            let Some(stream) = self.stream(id) else { return Pull::Idle };
            if let Some(delivery) = stream.outbox.pop_front() {
                return Pull::Events(delivery);
            }
            let said = match stream.turns.pop_front() {
                None => {
                    stream.awake = false;
                    return Pull::Idle;
                }
                Some(Turn::Progress) => self.progress_turn(id),
                Some(Turn::Watcher(slot)) => self.turn(slot, &mut looks),
            };
            match said {
                Some(said) => return said,
                None if looks == 0 => return Pull::Again,
                None => looks -= 1,
            }
        }
    }

    /// What the store holds of what was asked for: every change in its interval from `from` up to and with `upto`, in
    /// order; others and events outside the interval may be among them. `upto` may be nearer than was asked for: read
    /// about one batch at a time. An answer that comes too late (canceled since, or closed) is dropped.
    pub fn history(&mut self, request: &HistoryRequest, upto: Revision, changes: &[Arc<Change>]) {
        let Some(slot) = self.take_reader(request) else { return };
        let watcher = self.watchers.get_mut(slot).expect("it was just found");
        watcher.cursor = watcher.cursor.max(upto.next());
        let asked = request.from..=upto;
        let mut batches = vec![Batch::new(&self.limits)];
        for change in changes.iter().filter(|change| asked.contains(&change.revision)) {
            if batches.last().is_none_or(Batch::is_full) {
                batches.push(Batch::new(&self.limits));
            }
            let batch = batches.last_mut().expect("one was pushed");
            batch.look(change, &request.interval, watcher);
        }
        for batch in batches {
            self.put_out(slot, self.current, batch.pieces);
        }
    }

    /// The store no longer has what was asked for: it was compacted at `compacted`.
    pub fn history_compacted(&mut self, request: &HistoryRequest, compacted: Revision) {
        self.compacted(compacted);
        self.take_reader(request);
    }

    /// The watcher that waits for this, if it still does: it is behind again and has its turn.
    fn take_reader(&mut self, request: &HistoryRequest) -> Option<u32> {
        let stream = self.streams.get_mut(request.stream.slot).filter(|it| it.id == request.stream)?;
        let slot = *stream.watchers.get(&request.watch_id)?;
        let watcher = self.watchers.get_mut(slot).expect("a stream names only its live watchers");
        if watcher.state != State::Reading || watcher.asked != request.number {
            return None;
        }
        watcher.state = State::Behind;
        stream.reading -= 1;
        stream.queue(slot, watcher);
        Some(slot)
    }

    fn turn(&mut self, slot: u32, looks: &mut usize) -> Option<Pull> {
        let ring_first = self.ring.first();
        let watcher = self.watchers.get_mut(slot).expect("only live watchers stand in line");
        watcher.queued = false;
        if !watcher.is_synced(ring_first) {
            watcher.fall_behind(ring_first);
        }
        match watcher.state {
            State::Synced => self.next_pending(slot),
            State::Behind if watcher.cursor < ring_first => Some(self.ask_history(slot)),
            State::Behind => self.scan_ring(slot, looks),
            State::Overtaken => Some(self.end(slot)),
            State::Reading | State::Ended => None,
        }
    }

    /// Live: one revision, under its own number.
    fn next_pending(&mut self, slot: u32) -> Option<Pull> {
        let watcher = self.watchers.get_mut(slot).expect("it has its turn");
        let Some(revision) = watcher.take_pending() else {
            return std::mem::take(&mut watcher.progress_due)
                .then_some(Pull::Progress { watch_id: watcher.id, header_revision: self.current });
        };
        let change = self.ring.get(revision).expect("the front of a synced watcher is in the ring");
        let piece = Piece::pick(change, self.index.interval(watcher.group), watcher);
        if !watcher.pending.is_empty() {
            let stream = self.streams.get_mut(watcher.stream).expect("a watcher has a stream");
            stream.queue(slot, watcher);
        }
        self.send(slot, revision, piece.into_iter().collect())
    }

    /// Catching up: many revisions, under the number of the newest.
    fn scan_ring(&mut self, slot: u32, looks: &mut usize) -> Option<Pull> {
        let watcher = self.watchers.get_mut(slot).expect("it has its turn");
        let interval = self.index.interval(watcher.group);
        let mut batch = Batch::new(&self.limits);
        while let Some(change) = self.ring.get(watcher.cursor) {
            batch.look(change, interval, watcher);
            watcher.cursor = watcher.cursor.next();
            *looks = looks.saturating_sub(change.events.len());
            // Only now, so that each turn comes one change further.
            if batch.is_full() || *looks == 0 {
                break;
            }
        }
        if watcher.cursor > self.current {
            watcher.state = State::Synced;
        } else {
            let stream = self.streams.get_mut(watcher.stream).expect("a watcher has a stream");
            stream.queue(slot, watcher);
        }
        self.send(slot, self.current, batch.pieces)
    }

    fn ask_history(&mut self, slot: u32) -> Pull {
        let watcher = self.watchers.get_mut(slot).expect("it has its turn");
        if watcher.cursor < self.compacted {
            return self.end(slot);
        }
        self.asked += 1;
        watcher.asked = self.asked;
        watcher.state = State::Reading;
        let stream = self.streams.get_mut(watcher.stream).expect("a watcher has a stream");
        stream.reading += 1;
        Pull::NeedHistory(HistoryRequest {
            stream: stream.id,
            watch_id: watcher.id,
            interval: self.index.interval(watcher.group).clone(),
            from: watcher.cursor,
            upto: Revision(self.ring.first().0 - 1),
            number: self.asked,
        })
    }

    fn end(&mut self, slot: u32) -> Pull {
        let watcher = self.watchers.get_mut(slot).expect("it has its turn");
        watcher.state = State::Ended;
        let (watch_id, group, seat) = (watcher.id, watcher.group, watcher.seat);
        self.leave_index(group, seat);
        Pull::Canceled { watch_id, compact_revision: self.compacted }
    }

    /// Hands events over; what does not fit into one response goes to the outbox. None if there are none.
    fn send(&mut self, slot: u32, header_revision: Revision, pieces: Vec<Piece>) -> Option<Pull> {
        let stream = self.put_out(slot, header_revision, pieces);
        self.streams.get_mut(stream)?.outbox.pop_front().map(Pull::Events)
    }

    fn put_out(&mut self, slot: u32, header_revision: Revision, pieces: Vec<Piece>) -> u32 {
        let watcher = self.watchers.get_mut(slot).expect("it has its turn");
        if !pieces.is_empty() {
            watcher.quiet = false;
            watcher.progress_due = false;
            let stream = self.streams.get_mut(watcher.stream).expect("a watcher has a stream");
            stream.outbox.extend(responses(watcher, header_revision, pieces, self.limits.fragment_bytes));
        }
        watcher.stream
    }
}
