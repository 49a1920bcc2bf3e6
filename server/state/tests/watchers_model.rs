//! The hub against a naive model, under random histories: changes of several keys, watchers that begin anywhere and want
//! some of it, streams that pull when they please, compactions and snapshots, with a ring and lists so small that all
//! ways of delivery are taken. Each watcher must be told exactly what the model says: ordered, unique, complete, whole
//! revisions at a time; and a stream that was not woken must have nothing to pull.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use prost::Message;
use tenure_proto::mvccpb::KeyValue;
use tenure_state::{
    Change, Delivery, Event, HistoryRequest, Interval, Limits, Place, Previous, Pull, Revision, StreamId,
    WatchId, WatchSpec, Watchers, prefix_end,
};

const KEYS: [&str; 6] = ["a", "aa", "ab", "b", "ba", "c"];

#[derive(Clone, Debug)]
enum Step {
    /// Keys by number, and whether each is deleted.
    Happen(BTreeMap<usize, bool>),
    Open,
    /// On a stream: what to watch, and from where, as a distance from now.
    Create(usize, WatchSpec, Option<i64>),
    Cancel(usize, i64),
    Close(usize),
    /// A stream pulls so many times at most.
    Pull(usize, usize),
    /// The oldest request for history is answered, so many revisions of it at most.
    Answer(i64),
    /// At a distance from now.
    Compact(i64),
    /// Several changes come at once by a snapshot.
    Restore(Vec<BTreeMap<usize, bool>>),
    Request(usize),
    Tick(usize),
}

fn ops() -> impl Strategy<Value = BTreeMap<usize, bool>> {
    prop::collection::btree_map(0..KEYS.len(), any::<bool>(), 1..4)
}

fn interval() -> impl Strategy<Value = Interval> {
    let key = prop::sample::select(&KEYS[..]);
    prop_oneof![
        3 => key.clone().prop_map(|key| Interval::new(key.as_bytes(), b"")),
        2 => key.clone().prop_map(|key| Interval::new(key.as_bytes(), &prefix_end(key.as_bytes()))),
        1 => (key.clone(), key.clone()).prop_filter_map("an empty range", |(start, end)| {
            (start < end).then(|| Interval::new(start.as_bytes(), end.as_bytes()))
        }),
        1 => key.prop_map(|key| Interval::new(key.as_bytes(), b"\0")),
    ]
}

fn spec() -> impl Strategy<Value = WatchSpec> {
    (interval(), prop::sample::select(vec![0, 0, 0, 1, 2]), any::<[bool; 4]>(), any::<[bool; 2]>()).prop_map(
        |(interval, watch_id, [no_put, no_delete, fragment, progress_notify], [rarely, too])| WatchSpec {
            watch_id: WatchId(watch_id),
            no_put: no_put && rarely,
            no_delete: no_delete && too,
            fragment,
            progress_notify,
            ..WatchSpec::new(interval, Revision(0))
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    let stream = 0..3usize;
    let start = prop_oneof![2 => Just(None), 5 => (-20..1i64).prop_map(Some), 1 => (1..5i64).prop_map(Some)];
    prop_oneof![
        12 => ops().prop_map(Step::Happen),
        2 => Just(Step::Open),
        4 => (stream.clone(), spec(), start).prop_map(|(stream, spec, start)| Step::Create(stream, spec, start)),
        1 => (stream.clone(), -1..5i64).prop_map(|(stream, id)| Step::Cancel(stream, id)),
        1 => stream.clone().prop_map(Step::Close),
        8 => (stream.clone(), 1..6usize).prop_map(|(stream, times)| Step::Pull(stream, times)),
        5 => (1..8i64).prop_map(Step::Answer),
        1 => (-12..1i64).prop_map(Step::Compact),
        1 => prop::collection::vec(ops(), 0..6).prop_map(Step::Restore),
        1 => stream.clone().prop_map(Step::Request),
        1 => stream.prop_map(Step::Tick),
    ]
}

fn limits() -> impl Strategy<Value = Limits> {
    (1..8usize, 1..4usize, 1..5usize, 1..6usize, 40..200usize).prop_map(
        |(ring_changes, pending, batch_revisions, looks, fragment_bytes)| Limits {
            ring_changes,
            ring_bytes: 1 << 20,
            pending,
            batch_revisions,
            batch_bytes: 400,
            looks,
            fragment_bytes,
            watchers: 1_000,
        },
    )
}

/// What one watcher should be told.
#[derive(Debug)]
struct Expectation {
    spec: WatchSpec,
    /// Everything of concern below this was told.
    next: Revision,
    /// Events of the response whose fragments are coming.
    partial: Vec<Place>,
    ended: bool,
}

struct World {
    hub: Watchers,
    history: Vec<Arc<Change>>,
    compacted: Revision,
    streams: Vec<StreamId>,
    expected: BTreeMap<(StreamId, WatchId), Expectation>,
    questions: Vec<HistoryRequest>,
    /// Streams that must pull: they were woken, or spoken of.
    due: BTreeSet<StreamId>,
    /// Answers to requests for progress that were promised.
    requests: BTreeMap<StreamId, u32>,
}

impl World {
    fn new(limits: Limits) -> World {
        World {
            hub: Watchers::new(limits, Revision(1), Revision(0)),
            history: Vec::new(),
            compacted: Revision(0),
            streams: Vec::new(),
            expected: BTreeMap::new(),
            questions: Vec::new(),
            due: BTreeSet::new(),
            requests: BTreeMap::new(),
        }
    }

    fn now(&self) -> Revision {
        Revision(1 + self.history.len() as i64)
    }

    fn record(&mut self, ops: BTreeMap<usize, bool>) -> Arc<Change> {
        let revision = self.now().next();
        let event = |(sub, (key, tombstone)): (usize, (usize, bool))| {
            let key = KEYS[key];
            let kv = KeyValue { key: Bytes::from(key), mod_revision: revision.0, ..KeyValue::default() };
            Event {
                place: Place { main: revision.0, sub: sub as u32, tombstone },
                key: key.as_bytes().into(),
                record: kv.encode_to_vec().into(),
                previous: Previous::Nothing,
            }
        };
        let change = Arc::new(Change { revision, events: ops.into_iter().enumerate().map(event).collect() });
        self.history.push(change.clone());
        change
    }

    fn step(&mut self, step: Step) {
        let picked = |streams: &[StreamId], number: usize| streams.get(number).copied();
        match step {
            Step::Happen(ops) => {
                let change = self.record(ops);
                let woken = self.hub.publish(change).to_vec();
                self.wake(woken);
            }
            Step::Open if self.streams.len() < 3 => self.streams.push(self.hub.open_stream()),
            Step::Open => {}
            Step::Create(number, spec, start) => {
                if let Some(stream) = picked(&self.streams, number) {
                    self.create(stream, spec, start);
                }
            }
            Step::Cancel(number, id) => {
                let Some(stream) = picked(&self.streams, number) else { return };
                let known = self.expected.remove(&(stream, WatchId(id))).is_some();
                assert_eq!(self.hub.cancel(stream, WatchId(id)), known);
                self.due.insert(stream);
            }
            Step::Close(number) => {
                let Some(stream) = picked(&self.streams, number) else { return };
                self.streams.remove(number);
                self.hub.close_stream(stream);
                self.expected.retain(|(of, _), _| *of != stream);
                self.due.remove(&stream);
                self.requests.remove(&stream);
            }
            Step::Pull(number, times) => {
                let Some(stream) = picked(&self.streams, number) else { return };
                for _ in 0..times {
                    self.pull(stream);
                }
            }
            Step::Answer(most) => self.answer(most),
            Step::Compact(distance) => {
                let revision = Revision(self.now().0 + distance);
                if revision > self.compacted {
                    self.compacted = revision;
                    self.hub.compacted(revision);
                }
            }
            Step::Restore(changes) => {
                for ops in changes {
                    self.record(ops);
                }
                let woken = self.hub.restored(self.now(), self.compacted).to_vec();
                self.wake(woken);
            }
            Step::Request(number) => {
                let Some(stream) = picked(&self.streams, number) else { return };
                if self.hub.progress_request(stream) {
                    *self.requests.entry(stream).or_default() += 1;
                    self.due.insert(stream);
                }
            }
            Step::Tick(number) => {
                let Some(stream) = picked(&self.streams, number) else { return };
                if self.hub.tick_progress(stream) {
                    self.due.insert(stream);
                }
            }
        }
    }

    fn wake(&mut self, woken: Vec<StreamId>) {
        let once: BTreeSet<_> = woken.iter().collect();
        assert_eq!(once.len(), woken.len(), "woken twice by one change");
        self.due.extend(woken);
    }

    fn create(&mut self, stream: StreamId, mut spec: WatchSpec, start: Option<i64>) {
        let now = self.now();
        spec.start = Revision(start.map_or(0, |distance| now.0 + distance));
        let taken = spec.watch_id.0 != 0 && self.expected.contains_key(&(stream, spec.watch_id));
        let created = self.hub.create(stream, &spec);
        if spec.start.0 < 0 || taken {
            assert!(created.is_err());
            return;
        }
        let created = created.unwrap();
        assert_eq!(created.revision, now);
        let next = if spec.start.0 == 0 { now.next() } else { spec.start };
        let expectation = Expectation { spec, next, partial: Vec::new(), ended: false };
        assert!(self.expected.insert((stream, created.watch_id), expectation).is_none());
        self.due.insert(stream);
    }

    /// True unless it came to the end.
    fn pull(&mut self, stream: StreamId) -> bool {
        let now = self.now();
        let said = self.hub.pull(stream);
        if said != Pull::Idle {
            assert!(self.due.contains(&stream), "{said:?} for a stream that was not woken");
        }
        match said {
            Pull::Idle => {
                self.due.remove(&stream);
                return false;
            }
            Pull::Again => {}
            Pull::Events(delivery) => self.deliver(stream, &delivery),
            Pull::Canceled { watch_id, compact_revision } => {
                assert_eq!(compact_revision, self.compacted);
                let it = self.expected.get_mut(&(stream, watch_id)).unwrap();
                assert!(it.next < self.compacted && !it.ended);
                it.ended = true;
            }
            Pull::Progress { watch_id: WatchId::ALL, header_revision } => {
                assert!(header_revision <= now);
                let owed = self.requests.get_mut(&stream).unwrap();
                *owed = owed.checked_sub(1).unwrap();
                for ((of, _), it) in &mut self.expected {
                    if *of == stream && !it.ended {
                        it.told_up_to(&self.history, header_revision);
                    }
                }
            }
            Pull::Progress { watch_id, header_revision } => {
                assert_eq!(header_revision, now);
                let it = self.expected.get_mut(&(stream, watch_id)).unwrap();
                assert!(it.spec.progress_notify);
                it.told_up_to(&self.history, header_revision);
            }
            Pull::NeedHistory(request) => {
                assert!(request.from <= request.upto && request.upto <= now);
                self.questions.push(request);
            }
        }
        true
    }

    fn deliver(&mut self, stream: StreamId, delivery: &Delivery) {
        let it = self.expected.get_mut(&(stream, delivery.watch_id)).expect("it was not canceled");
        assert!(!it.ended);
        it.partial.extend(delivery.events().map(|event| event.place));
        if delivery.fragment {
            assert!(it.spec.fragment);
            return;
        }
        let told = std::mem::take(&mut it.partial);
        let last = told.last().expect("no response is empty").revision();
        assert_eq!(told, it.wanted(&self.history, last), "all up to {last}, and nothing else");
        assert!(last <= delivery.header_revision && delivery.header_revision <= self.hub.current());
        it.next = last.next();
    }

    fn answer(&mut self, most: i64) {
        if self.questions.is_empty() {
            return;
        }
        let request = self.questions.remove(0);
        let from = request.from;
        // It may be closed meanwhile: then the answer must go nowhere.
        if self.streams.contains(&request.stream) {
            self.due.insert(request.stream);
        }
        if from < self.compacted {
            self.hub.history_compacted(&request, self.compacted);
            return;
        }
        let upto = Revision(request.upto.0.min(from.0 + most - 1));
        let of_interval = |change: &&Arc<Change>| {
            change.revision >= from && change.events.iter().any(|event| request.interval.contains(&event.key))
        };
        let changes: Vec<_> = self.history.iter().filter(of_interval).cloned().collect();
        self.hub.history(&request, upto, &changes);
    }

    /// Whoever is due pulls to the end: then everyone must have been told everything.
    fn settle(&mut self) {
        loop {
            while let Some(stream) = self.due.first().copied() {
                assert!((0..100_000).any(|_| !self.pull(stream)), "a stream never comes to the end");
            }
            if self.questions.is_empty() {
                break;
            }
            self.answer(5);
        }
        let now = self.now();
        for it in self.expected.values_mut().filter(|it| !it.ended) {
            it.told_up_to(&self.history, now);
        }
        assert!(self.requests.values().all(|owed| *owed == 0), "all promised progress was told");
        assert_eq!((self.hub.stats().slow, self.hub.stats().pending), (0, 0));
        for stream in self.streams.clone() {
            assert!(!self.pull(stream), "nothing is left for a stream that was not woken");
        }
    }
}

impl Expectation {
    /// What is still to be told, up to a revision.
    fn wanted(&self, history: &[Arc<Change>], upto: Revision) -> Vec<Place> {
        let changes = history.iter().filter(|it| self.next <= it.revision && it.revision <= upto);
        let wanted = |event: &&Event| {
            let filtered = if event.place.tombstone { self.spec.no_delete } else { self.spec.no_put };
            !filtered && self.spec.interval.contains(&event.key)
        };
        changes.flat_map(|it| it.events.iter()).filter(wanted).map(|event| event.place).collect()
    }

    fn told_up_to(&mut self, history: &[Arc<Change>], upto: Revision) {
        assert!(self.partial.is_empty());
        assert_eq!(self.wanted(history, upto), [], "was not told although it is said to be up to {upto}");
        self.next = self.next.max(upto.next());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_500))]

    #[test]
    fn each_watcher_is_told_exactly_what_it_asked_for(
        limits in limits(),
        steps in prop::collection::vec(step(), 1..200),
    ) {
        let mut world = World::new(limits);
        for step in steps {
            world.step(step);
        }
        world.settle();
    }
}
