//! Saying how far a stream is when there is nothing else to say. A promise: whoever is told a revision was handed every
//! event up to it. So it takes its turn behind the events it speaks of, and is not made for a watcher that is behind.

use super::watcher::State;
use super::{Pull, StreamId, Turn, WatchId, Watchers};
use crate::revision::Revision;

impl Watchers {
    /// A client asks how far its stream is. True if it will be told, once what came before is pulled. A stream of which
    /// any watcher is behind, or begins in the future, or that has none, is not answered: the client asks again. (Etcd's
    /// rule; watchers that a compaction ended do not count.)
    pub fn progress_request(&mut self, id: StreamId) -> bool {
        let (current, ring_first) = (self.current, self.ring.first());
        let Some(stream) = self.streams.get_mut(id.slot).filter(|stream| stream.id == id) else {
            return false;
        };
        let mut any = false;
        for slot in stream.watchers.values() {
            let watcher = self.watchers.get(*slot).expect("a stream names only its live watchers");
            match watcher.state {
                State::Ended => continue,
                State::Synced | State::Behind | State::Reading | State::Overtaken => any = true,
            }
            if !watcher.is_synced(ring_first) || watcher.start > current {
                return false;
            }
        }
        if any {
            if stream.progress_owed == 0 {
                stream.turns.push_back(Turn::Progress);
            }
            stream.progress_owed = stream.progress_owed.saturating_add(1);
            stream.progress_from = current;
        }
        any
    }

    /// Time for watchers that asked for it to report their progress: those to whom nothing was sent since the last tick.
    /// True if there is any: pull the stream.
    pub fn tick_progress(&mut self, id: StreamId) -> bool {
        let (current, ring_first) = (self.current, self.ring.first());
        let Some(stream) = self.streams.get_mut(id.slot).filter(|stream| stream.id == id) else {
            return false;
        };
        let slots: Vec<u32> = stream.watchers.values().copied().collect();
        let mut any = false;
        for slot in slots {
            let watcher = self.watchers.get_mut(slot).expect("a stream names only its live watchers");
            let quiet = std::mem::replace(&mut watcher.quiet, true);
            let due = watcher.wishes.progress_notify
                && quiet
                && watcher.is_synced(ring_first)
                && watcher.start <= current;
            if due {
                watcher.progress_due = true;
                stream.queue(slot, watcher);
                any = true;
            }
        }
        any
    }

    /// Answers a request for progress if all that it was made behind is handed over; else it waits for another turn.
    pub(super) fn progress_turn(&mut self, id: StreamId) -> Option<Pull> {
        let ring_first = self.ring.first();
        let stream = self.streams.get_mut(id.slot).expect("it has its turn");
        let mut upto = if stream.reading == 0 { self.current } else { Revision(0) };
        for turn in &stream.turns {
            let Turn::Watcher(slot) = turn else { continue };
            let watcher = self.watchers.get(*slot).expect("only live watchers stand in line");
            let told = match watcher.pending.front() {
                _ if !watcher.is_synced(ring_first) => Revision(0),
                Some(front) => Revision(front.0 - 1),
                None => self.current,
            };
            upto = upto.min(told);
        }
        if upto >= stream.progress_from {
            stream.progress_owed -= 1;
            if stream.progress_owed > 0 {
                stream.turns.push_front(Turn::Progress);
            }
            return Some(Pull::Progress { watch_id: WatchId::ALL, header_revision: upto });
        }
        stream.turns.push_back(Turn::Progress);
        // Nobody else in line: it waits for those who read history.
        (stream.turns.len() == 1).then(|| {
            stream.awake = false;
            Pull::Idle
        })
    }
}
