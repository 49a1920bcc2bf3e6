//! Watching: the watchers of this member, behind a lock that is held for one step at a time, and the streams that wait.
//! A change only wakes the streams it concerns; each pulls what it is told, from memory or from the store.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tenure_state::{
    Change, CreateError, Created, Delivery, Effect, Event, Fatal, HistoryRequest, Limits, Previous, Pull,
    Records, Revision, StreamId, WatchId, WatchSpec, WatchStats, Watchers,
};
use tokio::sync::Notify;

use super::history;
use crate::planted::{self, Bug};
use crate::raft::View;

#[derive(Clone)]
pub struct Watches {
    view: Arc<View>,
    hub: Arc<Mutex<Hub>>,
}

struct Hub {
    watchers: Watchers,
    wakers: BTreeMap<StreamId, Arc<Notify>>,
    stopping: bool,
}

impl Hub {
    fn wake(&self, streams: &[StreamId]) {
        for stream in streams {
            if let Some(waker) = self.wakers.get(stream) {
                waker.notify_one();
            }
        }
    }
}

/// What a stream is to send next.
#[derive(Debug)]
pub enum Next {
    Events(Delivery),
    Canceled {
        watch_id: WatchId,
        compact_revision: Revision,
    },
    Progress {
        watch_id: WatchId,
        revision: Revision,
    },
    /// This member is stopping.
    Stopping,
}

impl Watches {
    pub fn new(view: Arc<View>) -> Watches {
        let (current, compacted) = {
            let machine = view.machine();
            (machine.revision(), machine.compacted())
        };
        let watchers = Watchers::new(Limits::default(), current, compacted);
        Watches {
            view,
            hub: Arc::new(Mutex::new(Hub { watchers, wakers: BTreeMap::new(), stopping: false })),
        }
    }

    /// Follows applied commands, in their order.
    pub fn follow(&self, effect: Effect) {
        let hub = &mut *self.hub.lock();
        match effect {
            Effect::Changed(change) => {
                let change = match planted::is(Bug::DropEvents) && change.revision.0 % 100 == 0 {
                    true => Arc::new(Change { revision: change.revision, events: Box::default() }),
                    false => change,
                };
                for stream in hub.watchers.publish(change) {
                    if let Some(waker) = hub.wakers.get(stream) {
                        waker.notify_one();
                    }
                }
            }
            Effect::Compacted { revision, .. } => hub.watchers.compacted(revision),
            Effect::LeaseGranted { .. }
            | Effect::LeaseCheckpointed { .. }
            | Effect::LeaseGone { .. }
            | Effect::ExpiryDropped { .. }
            | Effect::AlarmRaised(_)
            | Effect::AlarmCleared(_)
            | Effect::MemberPublished { .. }
            | Effect::MembersChanged { .. } => {}
        }
    }

    /// The state was replaced by a later one: watchers read what lies between from the store.
    pub fn restored(&self) {
        let (current, compacted) = {
            let machine = self.view.machine();
            (machine.revision(), machine.compacted())
        };
        let hub = &mut *self.hub.lock();
        for stream in hub.watchers.restored(current, compacted) {
            if let Some(waker) = hub.wakers.get(stream) {
                waker.notify_one();
            }
        }
    }

    pub fn open(&self) -> WatchStream {
        let waker = Arc::new(Notify::new());
        let mut hub = self.hub.lock();
        let id = hub.watchers.open_stream();
        hub.wakers.insert(id, waker.clone());
        WatchStream { watches: self.clone(), id, waker }
    }

    /// The task that reports progress to idle watchers that asked for it.
    pub async fn tell_progress(self, interval: Duration) {
        loop {
            tokio::time::sleep(interval).await;
            let hub = &mut *self.hub.lock();
            for (stream, waker) in &hub.wakers {
                if hub.watchers.tick_progress(*stream) {
                    waker.notify_one();
                }
            }
        }
    }

    /// Ends all streams.
    pub fn stop(&self) {
        let mut hub = self.hub.lock();
        hub.stopping = true;
        let all: Vec<StreamId> = hub.wakers.keys().copied().collect();
        hub.wake(&all);
    }

    pub fn stats(&self) -> WatchStats {
        self.hub.lock().watchers.stats()
    }

    /// The revision up to which changes were taken in.
    pub fn current(&self) -> Revision {
        self.hub.lock().watchers.current()
    }

    /// What an event replaced; None when there was nothing, or when the revision before the event was compacted away.
    pub fn previous(&self, event: &Event) -> Result<Option<bytes::Bytes>, Fatal> {
        if event.place.revision() <= self.view.machine().compacted() {
            return Ok(None);
        }
        match &event.previous {
            Previous::Nothing => Ok(None),
            Previous::Record(record) => Ok(Some(record.clone())),
            Previous::At(place) => self.view.store().record(*place),
        }
    }
}

/// One client's stream of watchers; closed when dropped.
pub struct WatchStream {
    watches: Watches,
    id: StreamId,
    waker: Arc<Notify>,
}

impl WatchStream {
    pub fn create(&self, spec: &WatchSpec) -> Result<Created, CreateError> {
        self.watches.hub.lock().watchers.create(self.id, spec)
    }

    /// Whether there was such a watcher.
    pub fn cancel(&self, id: WatchId) -> bool {
        self.watches.hub.lock().watchers.cancel(self.id, id)
    }

    /// Asks that all be told how far they are, once they are that far.
    pub fn request_progress(&self) {
        self.watches.hub.lock().watchers.progress_request(self.id);
    }

    pub fn watches(&self) -> &Watches {
        &self.watches
    }

    /// The next thing to send. Safe to drop and to call again: nothing is lost.
    pub async fn next(&self) -> Result<Next, Fatal> {
        loop {
            let pull = {
                let mut hub = self.watches.hub.lock();
                if hub.stopping {
                    return Ok(Next::Stopping);
                }
                hub.watchers.pull(self.id)
            };
            match pull {
                Pull::Events(delivery) => return Ok(Next::Events(delivery)),
                Pull::Canceled { watch_id, compact_revision } => {
                    return Ok(Next::Canceled { watch_id, compact_revision });
                }
                Pull::Progress { watch_id, header_revision } => {
                    return Ok(Next::Progress { watch_id, revision: header_revision });
                }
                Pull::NeedHistory(request) => {
                    self.read_history(&request)?;
                    tokio::task::yield_now().await;
                }
                Pull::Again => tokio::task::yield_now().await,
                Pull::Idle => self.waker.notified().await,
            }
        }
    }

    fn read_history(&self, request: &HistoryRequest) -> Result<(), Fatal> {
        let view = &self.watches.view;
        let (changes, reached) = history::read(view, &request.interval, request.from, request.upto)?;
        let compacted = view.machine().compacted();
        let mut hub = self.watches.hub.lock();
        if request.from < compacted {
            // What was read may have holes already.
            hub.watchers.history_compacted(request, compacted);
        } else {
            hub.watchers.history(request, reached, &changes);
        }
        Ok(())
    }
}

impl Drop for WatchStream {
    fn drop(&mut self) {
        let mut hub = self.watches.hub.lock();
        hub.watchers.close_stream(self.id);
        hub.wakers.remove(&self.id);
    }
}
