//! One watcher: what it wants, how far it is, and what waits for it. Knows nothing of other watchers.

use std::collections::VecDeque;

use super::WatchId;
use super::index::{Group, Kinds};
use crate::change::Event;
use crate::revision::Revision;

/// The invariant of each state is told at the head of this folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Synced,
    Behind,
    Reading,
    /// What it asked for was compacted away: to be canceled on its turn.
    Overtaken,
    Ended,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wishes {
    pub kinds: Kinds,
    pub prev_kv: bool,
    pub fragment: bool,
    pub progress_notify: bool,
}

#[derive(Debug)]
pub(super) struct Watcher {
    pub stream: u32,
    pub id: WatchId,
    pub group: Group,
    /// Its place in its group's list.
    pub seat: u32,
    /// The revision it asked for; 0: from the moment of its creation.
    pub start: Revision,
    pub cursor: Revision,
    /// When synced: revisions of concern from the cursor on, rising.
    pub pending: VecDeque<Revision>,
    pub state: State,
    /// When reading: the number of the request that it waits for.
    pub asked: u64,
    pub wishes: Wishes,
    /// It is in its stream's line.
    pub queued: bool,
    /// No event was sent since the last tick for progress.
    pub quiet: bool,
    /// The tick asked it to report, on its turn.
    pub progress_due: bool,
}

/// Room for this many pending revisions is kept once they are delivered; more is given back, so that a burst does not
/// leave every watcher large.
const PENDING_KEPT: usize = 8;

impl Watcher {
    /// Notes a change that happened; false when it is of no concern, or will be found by the scan.
    pub fn note(&mut self, revision: Revision, kinds: Kinds, pending_max: usize) -> bool {
        if self.state != State::Synced || revision < self.cursor || !self.wishes.kinds.any_of(kinds) {
            return false;
        }
        if self.pending.len() >= pending_max {
            self.fall_behind(revision);
        } else {
            self.pending.push_back(revision);
        }
        true
    }

    /// A synced watcher forgets what was pending: it will scan. `untold` is the first revision that it was not told of.
    pub fn fall_behind(&mut self, untold: Revision) {
        if self.state == State::Synced {
            self.cursor = self.cursor.max(self.pending.front().copied().unwrap_or(untold));
            self.pending = VecDeque::new();
            self.state = State::Behind;
        }
    }

    /// The first pending revision is being handed over.
    pub fn take_pending(&mut self) -> Option<Revision> {
        let revision = self.pending.pop_front()?;
        self.cursor = revision.next();
        if self.pending.is_empty() && self.pending.capacity() > PENDING_KEPT {
            self.pending = VecDeque::new();
        }
        Some(revision)
    }

    pub fn wants(&self, event: &Event) -> bool {
        self.wishes.kinds.any_of(Kinds::of(event))
    }

    /// It has been told everything up to some revision, and nothing it waits for was lost from the ring, whose first
    /// revision is given.
    pub fn is_synced(&self, ring_first: Revision) -> bool {
        self.state == State::Synced && self.pending.front().is_none_or(|front| *front >= ring_first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hundred_thousand_idle_watchers_fit() {
        assert!(size_of::<Option<Watcher>>() <= 96, "{}", size_of::<Option<Watcher>>());
    }
}
