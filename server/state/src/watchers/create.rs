//! Making a watcher: what may be asked for, and what is refused.

use std::collections::VecDeque;
use std::fmt;

use tenure_proto::etcdserverpb::WatchCreateRequest;
use tenure_proto::etcdserverpb::watch_create_request::FilterType;

use super::index::Kinds;
use super::watcher::{State, Watcher, Wishes};
use super::{StreamId, WatchId, Watchers};
use crate::interval::Interval;
use crate::revision::Revision;

/// What a client asks to watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchSpec {
    /// The id it wants; 0 leaves the choice to the server.
    pub watch_id: WatchId,
    pub interval: Interval,
    /// The first revision it wants to hear of; 0: whatever comes next. May lie in the future.
    pub start: Revision,
    /// Report progress now and then when nothing happens.
    pub progress_notify: bool,
    pub no_put: bool,
    pub no_delete: bool,
    /// With each event, what it replaced.
    pub prev_kv: bool,
    /// Large responses may come in pieces.
    pub fragment: bool,
}

impl WatchSpec {
    /// Every change in `interval` from `start` on, and nothing special.
    pub fn new(interval: Interval, start: Revision) -> WatchSpec {
        WatchSpec {
            watch_id: WatchId(0),
            interval,
            start,
            progress_notify: false,
            no_put: false,
            no_delete: false,
            prev_kv: false,
            fragment: false,
        }
    }
}

impl From<&WatchCreateRequest> for WatchSpec {
    /// An empty key means the smallest there is.
    fn from(request: &WatchCreateRequest) -> WatchSpec {
        let key: &[u8] = if request.key.is_empty() { &[0] } else { &request.key };
        let filtered = |filter| request.filters.contains(&i32::from(filter));
        WatchSpec {
            watch_id: WatchId(request.watch_id),
            interval: Interval::new(key, &request.range_end),
            start: Revision(request.start_revision),
            progress_notify: request.progress_notify,
            no_put: filtered(FilterType::Noput),
            no_delete: filtered(FilterType::Nodelete),
            prev_kv: request.prev_kv,
            fragment: request.fragment,
        }
    }
}

/// A watcher was made: the client is told before anything else of it is pulled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Created {
    pub watch_id: WatchId,
    /// For the header: with no start given, the watcher hears of everything after this.
    pub revision: Revision,
}

/// Why no watcher was made. Displays as the `cancel_reason` that clients know; the watch id to answer with is
/// [`WatchId::ALL`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CreateError {
    NegativeStart,
    EmptyRange,
    DuplicateId,
    TooMany { most: usize },
}

impl fmt::Display for CreateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CreateError::NegativeStart => {
                f.write_str("etcdserver: mvcc: required revision has been compacted")
            }
            CreateError::EmptyRange => f.write_str("mvcc: watcher range is empty"),
            CreateError::DuplicateId => f.write_str("mvcc: duplicate watch ID provided on the WatchStream"),
            CreateError::TooMany { most } => {
                write!(f, "this member already serves {most} watchers: watch through another member")
            }
        }
    }
}

impl std::error::Error for CreateError {}

impl Watchers {
    /// Makes a watcher on an open stream. Pull the stream afterwards: what it asked for may lie in the past.
    pub fn create(&mut self, id: StreamId, spec: &WatchSpec) -> Result<Created, CreateError> {
        let (most, used) = (self.limits.watchers, self.watchers.len());
        let stream = self.stream(id).expect("the caller opened this stream and has not closed it");
        if spec.start.0 < 0 {
            return Err(CreateError::NegativeStart);
        }
        if spec.interval.is_empty() {
            return Err(CreateError::EmptyRange);
        }
        if spec.watch_id == WatchId::ALL
            || stream.watchers.contains_key(&spec.watch_id) && spec.watch_id.0 != 0
        {
            return Err(CreateError::DuplicateId);
        }
        if used >= most {
            return Err(CreateError::TooMany { most });
        }
        let watch_id = match spec.watch_id {
            WatchId(0) => stream.choose_id(),
            wanted => wanted,
        };

        let slot = self.insert(id, watch_id, spec);
        let watcher = self.watchers.get_mut(slot).expect("it was just made");
        let stream = self.streams.get_mut(id.slot).expect("it was just seen");
        stream.watchers.insert(watch_id, slot);
        if watcher.state != State::Synced {
            stream.queue(slot, watcher);
        }
        Ok(Created { watch_id, revision: self.current })
    }

    fn insert(&mut self, id: StreamId, watch_id: WatchId, spec: &WatchSpec) -> u32 {
        let state = match spec.start {
            Revision(0) => State::Synced,
            start if start > self.current => State::Synced,
            start if start < self.compacted => State::Overtaken,
            _ => State::Behind,
        };
        let wishes = Wishes {
            kinds: Kinds { puts: !spec.no_put, deletes: !spec.no_delete },
            prev_kv: spec.prev_kv,
            fragment: spec.fragment,
            progress_notify: spec.progress_notify,
        };
        let (index, current) = (&mut self.index, self.current);
        self.watchers.insert_with(|slot| {
            let (group, seat) = index.add(&spec.interval, slot);
            Watcher {
                stream: id.slot,
                id: watch_id,
                group,
                seat,
                start: spec.start,
                cursor: if spec.start == Revision(0) { current.next() } else { spec.start },
                pending: VecDeque::new(),
                state,
                asked: 0,
                wishes,
                queued: false,
                quiet: true,
                progress_due: false,
            }
        })
    }
}

impl super::Stream {
    fn choose_id(&mut self) -> WatchId {
        while self.watchers.contains_key(&WatchId(self.next_id)) {
            self.next_id += 1;
        }
        self.next_id += 1;
        WatchId(self.next_id - 1)
    }
}
