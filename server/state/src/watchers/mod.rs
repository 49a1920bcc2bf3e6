//! What each member shows its clients: which watcher is told which change, in what order. Node-local; it follows the
//! changes of applied commands and knows neither connections nor the store. Nothing is pushed: a change only notes at
//! the watchers concerned that there is something, and says which streams to wake. Each stream then pulls at its own pace,
//! so that a client that reads slowly holds up nobody and costs no more than a short list of numbers.
//!
//! ```text
//!  publish(change)                     one stream's task
//!     │                                   │  create, cancel, progress_request
//!     ├─> Ring: the last changes          │
//!     └─> Index: who is concerned?        v
//!            └─> watcher.pending  <── pull(stream) ──> Events | Canceled | Progress | Idle
//!                                          └─> NeedHistory ── store ──> history(…)
//! ```
//!
//! **No gap, no duplicate.** A watcher's *cursor* is the first revision that it may still have to be told: everything
//! below that concerns it was handed over by `pull`, nothing from it on was. It only rises, and it rises exactly by what
//! is handed over (or looked at and found of no concern). A watcher is in one of these states:
//!
//! - *Synced*: `pending` lists every revision from the cursor up to now that concerns it. `publish` keeps this true by
//!   adding each new one; `pull` takes the front, looks its change up in the ring and sets the cursor behind it.
//! - *Behind*: nothing is known of what lies between the cursor and now; `publish` passes it over, since the scan will
//!   come to that change anyway. `pull` looks at every change from the cursor on in the ring; when it reaches the newest,
//!   the list "all that concerns it from the cursor on" is empty and true: synced.
//! - *Reading*: behind, and the cursor is older than the ring. The shell reads the store from the cursor up to just
//!   before the ring and hands that in; the cursor moves behind what was read, and it is behind again.
//! - *Overtaken*: it asked for what was compacted before; it has only its cancellation to come.
//! - *Ended*: canceled by a compaction; remembered until its client cancels it too.
//!
//! Synced becomes behind when `pending` is full or its front has left the ring: the cursor is then that front. Each
//! step happens within one call on the only copy of this state, so no change can slip in between. What is handed over
//! is a whole revision, since ring, history and pending speak of nothing smaller.
//!
//! **Order.** Everything for a stream comes out of `pull`, events, cancellations and progress alike, and the watchers of
//! a stream take turns. Progress says "all up to here was sent", so it waits in line behind what it speaks of.
//!
//! **Cost.** A change costs a lookup per key, one per distinct length of watched prefix, and a comparison per odd range;
//! after that only the watchers concerned, each some ten nanoseconds. An idle watcher of a key of its own costs about
//! 280 bytes and twice its key, a stream about 300 bytes (measured with 100,000 of them).

mod create;
mod delivery;
mod index;
mod progress;
mod pull;
mod ring;
mod slab;
mod watcher;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::change::Change;
use crate::revision::Revision;

use index::{Group, Index};
use ring::Ring;
use slab::Slab;
use watcher::{State, Watcher};

pub use create::{CreateError, Created, WatchSpec};
pub use delivery::{Delivery, Piece};
pub use pull::{HistoryRequest, Pull};

/// What a client calls a watcher; unique within its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WatchId(pub i64);

impl WatchId {
    /// Speaks of all watchers of a stream, and stands where none could be made. Never a watcher's own.
    pub const ALL: WatchId = WatchId(-1);
}

/// One client's stream of watchers. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId {
    slot: u32,
    opened: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The ring: changes kept in memory for watchers that are a little behind.
    pub ring_changes: usize,
    pub ring_bytes: usize,
    /// Revisions a watcher may have waiting before it counts as slow and is served by scanning.
    pub pending: usize,
    /// The most that one response to a watcher that catches up holds, always at least one revision. etcd's number.
    pub batch_revisions: usize,
    pub batch_bytes: usize,
    /// Events of the ring that one `pull` looks at before it lets others go on.
    pub looks: usize,
    /// Responses to those who accept fragments are split at this size.
    pub fragment_bytes: usize,
    /// Watchers on this member; more are refused.
    pub watchers: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            ring_changes: 10_000,
            ring_bytes: 16 << 20,
            pending: 64,
            batch_revisions: 1_000,
            batch_bytes: 1 << 20,
            looks: 4_096,
            fragment_bytes: 3 << 19,
            watchers: 4_000_000,
        }
    }
}

/// For metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WatchStats {
    pub streams: usize,
    pub watchers: usize,
    /// Watchers that are served by scanning, since they fell behind or began in the past.
    pub slow: usize,
    /// Revisions that wait to be pulled by watchers that are not slow.
    pub pending: usize,
    /// Revisions between the newest and the first that some watcher was not told of yet, at the most.
    pub lag: u64,
}

/// All watchers of this member.
#[derive(Debug)]
pub struct Watchers {
    limits: Limits,
    current: Revision,
    compacted: Revision,
    ring: Ring,
    index: Index,
    watchers: Slab<Watcher>,
    streams: Slab<Stream>,
    /// Streams opened ever: makes each [`StreamId`] unlike any before it.
    opened: u64,
    /// Requests for history made ever.
    asked: u64,
    woken: Vec<StreamId>,
}

#[derive(Debug)]
struct Stream {
    id: StreamId,
    watchers: BTreeMap<WatchId, u32>,
    /// The id that the next watcher gets whose client leaves the choice to us. Never goes back, so that a late message
    /// of a canceled watcher cannot be taken for another's.
    next_id: i64,
    /// Who has something to say, in turn.
    turns: VecDeque<Turn>,
    /// What the last turn said and did not fit into one response, or came from history.
    outbox: VecDeque<Delivery>,
    /// It was told to pull and has not come to the end yet.
    awake: bool,
    /// Watchers that wait for history.
    reading: u32,
    /// Requests for progress to answer, once everything up to `progress_from` is handed over.
    progress_owed: u32,
    progress_from: Revision,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    Watcher(u32),
    Progress,
}

impl Watchers {
    /// Begins at the store's revision as of now: changes after it come by [`Watchers::publish`].
    pub fn new(limits: Limits, current: Revision, compacted: Revision) -> Watchers {
        Watchers {
            limits,
            current,
            compacted,
            ring: Ring::new(current.next(), limits.ring_changes, limits.ring_bytes),
            index: Index::default(),
            watchers: Slab::default(),
            streams: Slab::default(),
            opened: 0,
            asked: 0,
            woken: Vec::new(),
        }
    }

    pub fn current(&self) -> Revision {
        self.current
    }

    pub fn open_stream(&mut self) -> StreamId {
        self.opened += 1;
        let opened = self.opened;
        let slot = self.streams.insert_with(|slot| Stream::new(StreamId { slot, opened }));
        StreamId { slot, opened }
    }

    /// Forgets the stream and its watchers. Closing twice does nothing.
    pub fn close_stream(&mut self, id: StreamId) {
        if self.stream(id).is_none() {
            return;
        }
        let stream = self.streams.remove(id.slot).expect("it was just seen");
        for slot in stream.watchers.into_values() {
            self.forget(slot);
        }
    }

    /// Ends a watcher: nothing of it is pulled any more. True if there was one, and its client is to be told.
    pub fn cancel(&mut self, id: StreamId, watch_id: WatchId) -> bool {
        let Some(stream) = self.stream(id) else { return false };
        let Some(slot) = stream.watchers.remove(&watch_id) else { return false };
        stream.outbox.retain(|delivery| delivery.watch_id != watch_id);
        let watcher = self.forget(slot);
        let stream = self.streams.get_mut(id.slot).expect("it was just seen");
        if watcher.queued {
            stream.turns.retain(|turn| *turn != Turn::Watcher(slot));
        }
        if watcher.state == State::Reading {
            stream.reading -= 1;
        }
        true
    }

    /// Takes in the next change and gives the streams to wake: each that has something to pull and was not told since it
    /// last pulled to the end ([`Pull::Idle`]).
    pub fn publish(&mut self, change: Arc<Change>) -> &[StreamId] {
        let revision = change.revision;
        assert_eq!(revision, self.current.next(), "changes come in order, none left out");
        self.current = revision;
        self.woken.clear();
        for (slot, kinds) in self.index.concerned(&change).watchers() {
            let watcher = self.watchers.get_mut(slot).expect("the index names only live watchers");
            if !watcher.note(revision, kinds, self.limits.pending) || watcher.queued {
                continue;
            }
            let stream = self.streams.get_mut(watcher.stream).expect("a watcher has a stream");
            stream.queue(slot, watcher);
            if stream.wake() {
                self.woken.push(stream.id);
            }
        }
        self.ring.push(change);
        &self.woken
    }

    /// History below `revision` is gone from the store. Whoever needs it is told when its turn comes.
    pub fn compacted(&mut self, revision: Revision) {
        self.compacted = self.compacted.max(revision);
    }

    /// A snapshot took the store forward to `current` at one bound: what lies between is in the store only. Gives the
    /// streams to wake, as [`Watchers::publish`] does.
    pub fn restored(&mut self, current: Revision, compacted: Revision) -> &[StreamId] {
        assert!(current >= self.current, "a restored store is not older than what was applied");
        let told_from = self.current.next();
        self.current = current;
        self.compacted(compacted);
        self.ring.restart(current.next());
        self.woken.clear();
        for (slot, watcher) in self.watchers.iter_mut() {
            if watcher.state != State::Synced || watcher.cursor > current {
                continue;
            }
            watcher.fall_behind(told_from);
            let stream = self.streams.get_mut(watcher.stream).expect("a watcher has a stream");
            stream.queue(slot, watcher);
            if stream.wake() {
                self.woken.push(stream.id);
            }
        }
        &self.woken
    }

    /// Looks at every watcher: for a scrape now and then.
    pub fn stats(&self) -> WatchStats {
        let mut stats = WatchStats { streams: self.streams.len(), ..WatchStats::default() };
        for watcher in self.watchers.iter() {
            stats.watchers += 1;
            stats.pending += watcher.pending.len();
            let slow = !matches!(watcher.state, State::Synced | State::Ended);
            stats.slow += usize::from(slow);
            let untold = if slow { Some(&watcher.cursor) } else { watcher.pending.front() };
            stats.lag =
                stats.lag.max(untold.map_or(0, |untold| (self.current.0 + 1 - untold.0).max(0) as u64));
        }
        stats
    }

    fn stream(&mut self, id: StreamId) -> Option<&mut Stream> {
        self.streams.get_mut(id.slot).filter(|stream| stream.id == id)
    }

    /// Takes a watcher out of everything but its stream.
    fn forget(&mut self, slot: u32) -> Watcher {
        let watcher = self.watchers.remove(slot).expect("a stream names only its live watchers");
        if watcher.state != State::Ended {
            self.leave_index(watcher.group, watcher.seat);
        }
        watcher
    }

    fn leave_index(&mut self, group: Group, seat: u32) {
        if let Some(moved) = self.index.remove(group, seat) {
            self.watchers.get_mut(moved).expect("the index names only live watchers").seat = seat;
        }
    }
}

impl Stream {
    fn new(id: StreamId) -> Stream {
        Stream {
            id,
            watchers: BTreeMap::new(),
            next_id: 0,
            turns: VecDeque::new(),
            outbox: VecDeque::new(),
            awake: false,
            reading: 0,
            progress_owed: 0,
            progress_from: Revision(0),
        }
    }

    /// Gives the watcher a turn, if it does not wait for one already.
    fn queue(&mut self, slot: u32, watcher: &mut Watcher) {
        if !watcher.queued {
            watcher.queued = true;
            self.turns.push_back(Turn::Watcher(slot));
        }
    }

    /// True if it must be woken: it has come to the end of what there was.
    fn wake(&mut self) -> bool {
        !std::mem::replace(&mut self.awake, true)
    }
}
