//! What watchers are shown, one test a sentence: etcd's rules for a watch stream, and the hub's own.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use tenure_proto::etcdserverpb::WatchCreateRequest;
use tenure_proto::mvccpb::KeyValue;
use tenure_state::{
    Change, CreateError, Created, Delivery, Event, HistoryRequest, Interval, Limits, Place, Previous, Pull,
    Revision, StreamId, WatchId, WatchSpec, WatchStats, Watchers, prefix_end,
};

const SMALL: Limits = Limits {
    ring_changes: 4,
    ring_bytes: 1 << 20,
    pending: 3,
    batch_revisions: 1_000,
    batch_bytes: 1 << 20,
    looks: 1_000,
    fragment_bytes: 200,
    watchers: 100,
};

enum Op {
    Put(&'static str),
    PutSized(&'static str, usize),
    Delete(&'static str),
}
use Op::{Delete, Put, PutSized};

fn change(revision: i64, ops: &[Op]) -> Arc<Change> {
    let event = |(sub, op): (usize, &Op)| {
        let (key, bytes, tombstone) = match op {
            Put(key) => (*key, 1, false),
            PutSized(key, bytes) => (*key, *bytes, false),
            Delete(key) => (*key, 0, true),
        };
        let value = Bytes::from(vec![b'v'; bytes]);
        let kv = KeyValue { key: Bytes::from(key), mod_revision: revision, value, ..KeyValue::default() };
        Event {
            place: Place { main: revision, sub: sub as u32, tombstone },
            key: key.as_bytes().into(),
            record: kv.encode_to_vec().into(),
            previous: Previous::Nothing,
        }
    };
    let events = ops.iter().enumerate().map(event).collect();
    Arc::new(Change { revision: Revision(revision), events })
}

/// A hub whose store stands at revision 1, and all that happened to it.
struct Hub {
    hub: Watchers,
    history: Vec<Arc<Change>>,
}

impl Hub {
    fn new(limits: Limits) -> Hub {
        Hub { hub: Watchers::new(limits, Revision(1), Revision(0)), history: Vec::new() }
    }

    fn happen(&mut self, ops: &[Op]) -> Vec<StreamId> {
        let change = change(self.hub.current().0 + 1, ops);
        self.history.push(change.clone());
        self.hub.publish(change).to_vec()
    }

    fn happen_often(&mut self, key: &'static str, times: usize) {
        for _ in 0..times {
            self.happen(&[Put(key)]);
        }
    }

    /// Opens a stream with one watcher.
    fn watch(&mut self, spec: WatchSpec) -> StreamId {
        let stream = self.hub.open_stream();
        self.hub.create(stream, &spec).unwrap();
        stream
    }

    fn pull(&mut self, stream: StreamId) -> String {
        show(self.hub.pull(stream))
    }

    /// Pulls a request for history, and gives it with what `show` makes of it.
    fn pull_request(&mut self, stream: StreamId) -> (HistoryRequest, String) {
        let said = self.hub.pull(stream);
        let Pull::NeedHistory(request) = said.clone() else { panic!("{said:?} is no request for history") };
        (request, show(said))
    }

    /// Pulls to the end, answering requests for history.
    fn drain(&mut self, stream: StreamId) -> Vec<String> {
        let mut said = Vec::new();
        loop {
            match self.hub.pull(stream) {
                Pull::Idle => return said,
                Pull::Again => {}
                Pull::NeedHistory(request) => self.hub.history(&request, request.upto, &self.history),
                other => said.push(show(other)),
            }
        }
    }
}

/// `id@header: revision+key revision-key …`, `~` after the header for a fragment.
fn show(pull: Pull) -> String {
    let event = |event: &Event| {
        let sign = if event.place.tombstone { '-' } else { '+' };
        format!(" {}{sign}{}", event.place.main, String::from_utf8_lossy(&event.key))
    };
    match pull {
        Pull::Events(Delivery { watch_id, header_revision, fragment, pieces, .. }) => {
            let more = if fragment { "~" } else { "" };
            let events: String = pieces.iter().flat_map(|piece| piece.events()).map(event).collect();
            format!("{}@{header_revision}{more}:{events}", watch_id.0)
        }
        Pull::Canceled { watch_id, compact_revision } => {
            format!("{} canceled, compacted {compact_revision}", watch_id.0)
        }
        Pull::Progress { watch_id, header_revision } => format!("{}@{header_revision}", watch_id.0),
        Pull::NeedHistory(it) => format!("{} needs {}..={}", it.watch_id.0, it.from, it.upto),
        Pull::Again => "again".into(),
        Pull::Idle => "idle".into(),
    }
}

fn key(key: &str) -> WatchSpec {
    WatchSpec::new(Interval::new(key.as_bytes(), b""), Revision(0))
}

fn prefix(prefix: &str) -> WatchSpec {
    WatchSpec::new(Interval::new(prefix.as_bytes(), &prefix_end(prefix.as_bytes())), Revision(0))
}

fn everything() -> WatchSpec {
    WatchSpec::new(Interval::new(b"\0", b"\0"), Revision(0))
}

fn from(start: i64, spec: WatchSpec) -> WatchSpec {
    WatchSpec { start: Revision(start), ..spec }
}

fn with_id(watch_id: i64, spec: WatchSpec) -> WatchSpec {
    WatchSpec { watch_id: WatchId(watch_id), ..spec }
}

// Creation.

#[test]
fn an_empty_key_means_the_smallest_key() {
    let request = WatchCreateRequest::default();
    assert_eq!(WatchSpec::from(&request).interval, Interval::Key(Box::new([0])));
    let request = WatchCreateRequest { range_end: Bytes::from_static(b"\0"), ..request };
    assert_eq!(WatchSpec::from(&request).interval, Interval::From(Box::new([0])));
}

#[test]
fn a_request_says_all_that_a_watcher_wants() {
    let request = WatchCreateRequest {
        key: Bytes::from_static(b"a"),
        range_end: Bytes::from_static(b"b"),
        start_revision: 7,
        progress_notify: true,
        filters: vec![1, 0, 9],
        prev_kv: true,
        watch_id: 5,
        fragment: true,
    };
    let spec = WatchSpec {
        watch_id: WatchId(5),
        interval: Interval::new(b"a", b"b"),
        start: Revision(7),
        progress_notify: true,
        no_put: true,
        no_delete: true,
        prev_kv: true,
        fragment: true,
    };
    assert_eq!(WatchSpec::from(&request), spec);
}

#[test]
fn without_a_start_a_watcher_hears_of_what_comes_after_the_created_revision() {
    let mut hub = Hub::new(SMALL);
    hub.happen(&[Put("a")]);
    let stream = hub.hub.open_stream();
    let created = Created { watch_id: WatchId(0), revision: Revision(2) };
    assert_eq!(hub.hub.create(stream, &key("a")), Ok(created));
    assert_eq!(hub.pull(stream), "idle");
    hub.happen(&[Put("a")]);
    assert_eq!(hub.drain(stream), ["0@3: 3+a"]);
}

#[test]
fn a_start_in_the_past_is_inclusive() {
    let mut hub = Hub::new(SMALL);
    hub.happen_often("a", 3);
    let stream = hub.watch(from(3, key("a")));
    assert_eq!(hub.drain(stream), ["0@4: 3+a 4+a"]);
}

#[test]
fn a_negative_start_is_refused_as_compacted() {
    let mut hub = Hub::new(SMALL);
    let stream = hub.hub.open_stream();
    // Before the range is looked at.
    let spec = WatchSpec::new(Interval::new(b"b", b"a"), Revision(-1));
    let error = hub.hub.create(stream, &spec).unwrap_err();
    assert_eq!(error, CreateError::NegativeStart);
    assert_eq!(error.to_string(), "etcdserver: mvcc: required revision has been compacted");
}

#[test]
fn an_empty_range_is_refused() {
    let mut hub = Hub::new(SMALL);
    let stream = hub.hub.open_stream();
    for end in [b"a", b"b"] {
        let spec = WatchSpec::new(Interval::new(b"b", end), Revision(0));
        let error = hub.hub.create(stream, &spec).unwrap_err();
        assert_eq!(error.to_string(), "mvcc: watcher range is empty");
    }
}

#[test]
fn an_id_that_is_taken_is_refused_and_minus_one_always_is() {
    let mut hub = Hub::new(SMALL);
    let stream = hub.watch(with_id(7, key("a")));
    for id in [7, -1] {
        let error = hub.hub.create(stream, &with_id(id, key("b"))).unwrap_err();
        assert_eq!(error.to_string(), "mvcc: duplicate watch ID provided on the WatchStream");
    }
    let other = hub.hub.open_stream();
    assert!(hub.hub.create(other, &with_id(7, key("a"))).is_ok(), "ids are a stream's own");
}

#[test]
fn ids_count_from_zero_pass_over_those_taken_and_never_come_again() {
    let mut hub = Hub::new(SMALL);
    let stream = hub.hub.open_stream();
    let mut create = |spec| hub.hub.create(stream, &spec).unwrap().watch_id.0;
    assert_eq!(create(with_id(1, key("a"))), 1);
    assert_eq!(create(with_id(-5, key("a"))), -5);
    assert_eq!([(); 3].map(|()| create(key("a"))), [0, 2, 3]);
    assert!(hub.hub.cancel(stream, WatchId(3)));
    assert_eq!(hub.hub.create(stream, &key("a")).unwrap().watch_id, WatchId(4));
}

#[test]
fn a_start_in_the_future_waits_until_then() {
    let mut hub = Hub::new(SMALL);
    let stream = hub.watch(from(4, key("a")));
    assert_eq!(hub.happen(&[Put("a")]), []);
    assert_eq!(hub.happen(&[Put("a")]), []);
    assert_eq!(hub.drain(stream), Vec::<String>::new());
    assert_eq!(hub.happen(&[Put("a")]), [stream]);
    assert_eq!(hub.drain(stream), ["0@4: 4+a"]);
}

#[test]
fn a_start_below_the_compacted_revision_is_created_and_then_canceled() {
    let mut hub = Hub::new(SMALL);
    hub.happen_often("a", 3);
    hub.hub.compacted(Revision(3));
    let stream = hub.hub.open_stream();
    assert!(hub.hub.create(stream, &from(2, key("a"))).is_ok());
    // The ring still holds it, but the client is told what every other member would tell it.
    assert_eq!(hub.drain(stream), ["0 canceled, compacted 3"]);
    hub.happen(&[Put("a")]);
    assert_eq!(hub.drain(stream), Vec::<String>::new());

    hub.hub.create(stream, &from(3, key("a"))).unwrap();
    assert_eq!(hub.drain(stream), ["1@5: 3+a 4+a 5+a"], "at the compacted revision all is there");
}

#[test]
fn more_watchers_than_the_limit_are_refused() {
    let mut hub = Hub::new(Limits { watchers: 1, ..SMALL });
    let stream = hub.watch(key("a"));
    let error = hub.hub.create(stream, &key("a")).unwrap_err();
    assert_eq!(error, CreateError::TooMany { most: 1 });
    hub.hub.cancel(stream, WatchId(0));
    assert!(hub.hub.create(stream, &key("a")).is_ok());
}

// Cancellation.

#[test]
fn a_cancel_of_an_unknown_id_is_met_with_silence() {
    let mut hub = Hub::new(SMALL);
    let stream = hub.watch(key("a"));
    assert!(!hub.hub.cancel(stream, WatchId(9)));
    assert!(hub.hub.cancel(stream, WatchId(0)));
    assert!(!hub.hub.cancel(stream, WatchId(0)));
}

#[test]
fn after_a_cancel_no_event_of_that_id_follows() {
    let mut hub = Hub::new(SMALL);
    let fragment = WatchSpec { fragment: true, ..prefix("a") };
    let stream = hub.watch(fragment);
    hub.hub.create(stream, &key("a1")).unwrap();
    hub.happen(&[PutSized("a1", 150), PutSized("a2", 150)]);
    hub.happen(&[Put("a1")]);
    assert_eq!(hub.pull(stream), "1@2: 2+a1");
    assert_eq!(hub.pull(stream), "0@2~: 2+a1");
    assert!(hub.hub.cancel(stream, WatchId(0)), "with the rest of a response on its way");
    assert_eq!(hub.drain(stream), ["1@3: 3+a1"]);
}

#[test]
fn a_watcher_that_a_compaction_ended_is_known_until_its_client_cancels_it() {
    let mut hub = Hub::new(SMALL);
    hub.happen_often("a", 3);
    hub.hub.compacted(Revision(3));
    let stream = hub.watch(from(2, with_id(5, key("a"))));
    assert_eq!(hub.drain(stream), ["5 canceled, compacted 3"]);
    assert_eq!(hub.hub.create(stream, &with_id(5, key("a"))), Err(CreateError::DuplicateId));
    assert!(hub.hub.cancel(stream, WatchId(5)));
    assert_eq!(hub.hub.stats(), WatchStats { streams: 1, ..WatchStats::default() });
}

#[test]
fn closing_a_stream_forgets_its_watchers_and_is_final() {
    let mut hub = Hub::new(SMALL);
    let stream = hub.watch(key("a"));
    hub.hub.create(stream, &from(1, prefix("a"))).unwrap();
    hub.happen(&[Put("a")]);
    hub.hub.close_stream(stream);
    hub.hub.close_stream(stream);
    assert_eq!(hub.hub.stats(), WatchStats::default());
    let other = hub.watch(key("a"));
    assert_ne!(other, stream);
    assert_eq!(hub.happen(&[Put("a")]), [other]);
    assert_eq!(hub.pull(stream), "idle");
    assert!(!hub.hub.cancel(stream, WatchId(0)));
    hub.hub.close_stream(stream);
    assert_eq!(hub.drain(other), ["0@3: 3+a"]);
}

// Delivery.

#[test]
fn a_live_change_comes_under_its_own_revision_however_late_it_is_pulled() {
    let mut hub = Hub::new(SMALL);
    let stream = hub.watch(prefix("a"));
    hub.happen_often("a", 2);
    hub.happen(&[Put("b")]);
    assert_eq!(hub.drain(stream), ["0@2: 2+a", "0@3: 3+a"]);
}

#[test]
fn all_events_of_a_revision_come_together_in_their_order() {
    let mut hub = Hub::new(SMALL);
    let stream = hub.watch(prefix("a"));
    hub.happen(&[Put("a2"), Put("b"), Delete("a1"), PutSized("a3", 10_000)]);
    assert_eq!(hub.drain(stream), ["0@2: 2+a2 2-a1 2+a3"]);
}

#[test]
fn catching_up_comes_in_batches_under_the_newest_revision() {
    let limits = Limits { batch_revisions: 3, ring_changes: 100, ..SMALL };
    let mut hub = Hub::new(limits);
    hub.happen_often("a", 4);
    hub.happen(&[Put("b")]);
    hub.happen(&[Put("a")]);
    let stream = hub.watch(from(1, key("a")));
    assert_eq!(hub.drain(stream), ["0@7: 2+a 3+a 4+a", "0@7: 5+a 7+a"]);
    hub.happen(&[Put("a")]);
    assert_eq!(hub.drain(stream), ["0@8: 8+a"], "then live");
}

#[test]
fn a_batch_ends_where_it_grows_too_large_but_holds_whole_revisions() {
    let limits = Limits { batch_bytes: 250, ring_changes: 100, ..SMALL };
    let mut hub = Hub::new(limits);
    for _ in 0..3 {
        hub.happen(&[PutSized("a1", 100), PutSized("a2", 100)]);
    }
    let stream = hub.watch(from(1, prefix("a")));
    assert_eq!(hub.drain(stream), ["0@4: 2+a1 2+a2", "0@4: 3+a1 3+a2", "0@4: 4+a1 4+a2"]);
}

#[test]
fn filtered_events_are_left_out_and_a_change_of_nothing_else_makes_no_response() {
    let mut hub = Hub::new(SMALL);
    let no_put = hub.watch(WatchSpec { no_put: true, ..prefix("a") });
    let no_delete = hub.watch(WatchSpec { no_delete: true, ..prefix("a") });
    assert_eq!(hub.happen(&[Put("a1")]), [no_delete]);
    assert_eq!(hub.happen(&[Delete("a1")]), [no_put]);
    hub.happen(&[Put("a1"), Delete("a2"), Put("a3")]);
    assert_eq!(hub.drain(no_put), ["0@3: 3-a1", "0@4: 4-a2"]);
    assert_eq!(hub.drain(no_delete), ["0@2: 2+a1", "0@4: 4+a1 4+a3"]);

    let late = hub.watch(from(1, WatchSpec { no_put: true, ..prefix("a") }));
    assert_eq!(hub.drain(late), ["0@4: 3-a1 4-a2"], "when catching up as well");
}

#[test]
fn a_large_response_is_split_only_for_those_who_accept_fragments() {
    let mut hub = Hub::new(SMALL);
    let whole = hub.watch(prefix("a"));
    let split = hub.watch(WatchSpec { fragment: true, ..prefix("a") });
    hub.happen(&[PutSized("a1", 90), PutSized("a2", 20), PutSized("a3", 90), PutSized("a4", 500)]);
    hub.happen(&[PutSized("a5", 500)]);
    assert_eq!(hub.drain(whole), ["0@2: 2+a1 2+a2 2+a3 2+a4", "0@3: 3+a5"]);
    let pieces = ["0@2~: 2+a1 2+a2", "0@2~: 2+a3", "0@2: 2+a4", "0@3: 3+a5"];
    assert_eq!(hub.drain(split), pieces, "an event is never split");
}

#[test]
fn fragments_of_one_response_follow_each_other_at_once() {
    let mut hub = Hub::new(SMALL);
    let stream = hub.watch(WatchSpec { fragment: true, ..prefix("a") });
    hub.hub.create(stream, &prefix("a1")).unwrap();
    hub.happen(&[PutSized("a1", 150), PutSized("a2", 150)]);
    assert_eq!(hub.drain(stream), ["0@2~: 2+a1", "0@2: 2+a2", "1@2: 2+a1"]);
}

#[test]
fn a_delivery_says_whether_replaced_values_are_wanted() {
    let mut hub = Hub::new(SMALL);
    let stream = hub.watch(WatchSpec { prev_kv: true, ..key("a") });
    hub.happen(&[Put("a")]);
    let Pull::Events(delivery) = hub.hub.pull(stream) else { panic!("an event was pending") };
    assert!(delivery.prev_kv);
    assert_eq!(delivery.events().count(), 1);
    assert_eq!(delivery.pieces[0].revision(), Revision(2));
}

#[test]
fn each_kind_of_interval_hears_of_its_keys_and_no_others() {
    let mut hub = Hub::new(Limits { pending: 100, ring_changes: 100, ..SMALL });
    let range = |start: &[u8], end: &[u8]| WatchSpec::new(Interval::new(start, end), Revision(0));
    let specs = [key("ab"), prefix("a"), prefix("ab"), range(b"aa", b"ac"), range(b"b", b"\0"), everything()];
    let streams = specs.map(|spec| hub.watch(spec));
    for key in ["a", "aa", "ab", "abc", "ac", "b", "c"] {
        hub.happen(&[Put(key)]);
    }
    let mut heard = |stream| {
        let said = hub.drain(stream);
        said.iter().map(|said| said.split('+').nth(1).unwrap().to_owned()).collect::<Vec<_>>().join(" ")
    };
    let heard = streams.map(&mut heard);
    assert_eq!(heard, ["ab", "a aa ab abc ac", "ab abc", "aa ab abc", "b c", "a aa ab abc ac b c"]);
}

#[test]
fn watchers_of_one_stream_take_turns() {
    let mut hub = Hub::new(SMALL);
    let stream = hub.watch(key("a"));
    hub.hub.create(stream, &everything()).unwrap();
    hub.happen_often("a", 3);
    let said = hub.drain(stream);
    assert_eq!(said, ["0@2: 2+a", "1@2: 2+a", "0@3: 3+a", "1@3: 3+a", "0@4: 4+a", "1@4: 4+a"]);
}

// Waking.

#[test]
fn only_streams_concerned_are_woken_and_each_once_until_it_pulled_to_the_end() {
    let mut hub = Hub::new(SMALL);
    let both = hub.watch(key("a"));
    hub.hub.create(both, &prefix("a")).unwrap();
    let other = hub.watch(key("b"));
    assert_eq!(hub.happen(&[Put("a")]), [both]);
    assert_eq!(hub.happen(&[Put("a"), Put("b")]), [other]);
    hub.pull(both);
    assert_eq!(hub.happen(&[Put("a")]), [], "it has not pulled to the end");
    hub.drain(both);
    assert_eq!(hub.happen(&[Put("a")]), [both]);
    assert_eq!(hub.happen(&[Put("c")]), []);
}

// Falling behind.

#[test]
fn a_watcher_with_too_much_pending_is_served_from_the_ring() {
    let mut hub = Hub::new(Limits { ring_changes: 100, ..SMALL });
    let stream = hub.watch(key("a"));
    hub.happen(&[Put("b")]);
    hub.happen_often("a", 5);
    assert_eq!(hub.hub.stats(), WatchStats { streams: 1, watchers: 1, slow: 1, pending: 0, lag: 5 });
    assert_eq!(hub.drain(stream), ["0@7: 3+a 4+a 5+a 6+a 7+a"]);
    assert_eq!(hub.hub.stats().slow, 0);
    hub.happen(&[Put("a")]);
    assert_eq!((hub.hub.stats().pending, hub.hub.stats().lag), (1, 1));
    assert_eq!(hub.drain(stream), ["0@8: 8+a"]);
}

#[test]
fn a_watcher_whose_next_change_left_the_ring_is_served_from_history() {
    let mut hub = Hub::new(SMALL);
    let stream = hub.watch(key("a"));
    hub.happen(&[Put("a")]);
    hub.happen_often("b", 6);
    let (request, said) = hub.pull_request(stream);
    assert_eq!(said, "0 needs 2..=4");
    assert_eq!(hub.pull(stream), "idle", "until history is there");
    hub.hub.history(&request, Revision(4), &hub.history);
    assert_eq!(hub.drain(stream), ["0@8: 2+a"]);
    hub.happen(&[Put("a")]);
    assert_eq!(hub.drain(stream), ["0@9: 9+a"]);
}

#[test]
fn history_may_come_in_parts_while_more_happens() {
    let mut hub = Hub::new(SMALL);
    hub.happen_often("a", 8);
    let stream = hub.watch(from(2, key("a")));
    let (request, said) = hub.pull_request(stream);
    assert_eq!(said, "0 needs 2..=5");
    hub.hub.history(&request, Revision(3), &hub.history);
    hub.happen_often("a", 3);
    assert_eq!(hub.pull(stream), "0@9: 2+a 3+a", "under the newest revision as of then");
    let (request, said) = hub.pull_request(stream);
    assert_eq!(said, "0 needs 4..=8");
    hub.hub.history(&request, Revision(8), &hub.history);
    assert_eq!(hub.drain(stream), ["0@12: 4+a 5+a 6+a 7+a 8+a", "0@12: 9+a 10+a 11+a 12+a"]);
}

#[test]
fn history_that_comes_too_late_is_dropped() {
    let mut hub = Hub::new(SMALL);
    hub.happen_often("a", 8);
    let stream = hub.watch(from(2, with_id(5, key("a"))));
    let (first, said) = hub.pull_request(stream);
    assert_eq!(said, "5 needs 2..=5");
    hub.hub.cancel(stream, WatchId(5));
    hub.hub.history(&first, first.upto, &hub.history);
    assert_eq!(hub.pull(stream), "idle");
    // A watcher of the same name, from the same revision on, may want something else.
    hub.hub.create(stream, &from(2, with_id(5, prefix("a")))).unwrap();
    let (second, said) = hub.pull_request(stream);
    assert_eq!(said, "5 needs 2..=5");
    hub.hub.history(&first, first.upto, &hub.history);
    assert_eq!(hub.pull(stream), "idle");
    hub.hub.close_stream(stream);
    hub.hub.history(&second, second.upto, &hub.history);
    assert_eq!(hub.pull(stream), "idle");
}

#[test]
fn one_watcher_that_waits_for_history_holds_up_no_other() {
    let mut hub = Hub::new(SMALL);
    hub.happen_often("a", 8);
    let stream = hub.watch(from(2, key("a")));
    hub.hub.create(stream, &key("a")).unwrap();
    assert_eq!(hub.pull(stream), "0 needs 2..=5");
    assert_eq!(hub.happen(&[Put("a")]), [stream]);
    assert_eq!(hub.pull(stream), "1@10: 10+a");
    assert_eq!(hub.pull(stream), "idle");
}

#[test]
fn a_watcher_that_needs_what_was_compacted_is_canceled_and_one_that_does_not_is_not() {
    let mut hub = Hub::new(SMALL);
    let slow = hub.watch(key("a"));
    let idle = hub.watch(key("c"));
    hub.happen_often("a", 8);
    hub.hub.compacted(Revision(5));
    assert_eq!(hub.drain(slow), ["0 canceled, compacted 5"]);
    hub.happen(&[Put("c")]);
    assert_eq!(hub.drain(idle), ["0@10: 10+c"]);
}

#[test]
fn a_slow_watcher_loses_nothing_to_a_compaction_while_the_ring_holds_it() {
    let mut hub = Hub::new(Limits { ring_changes: 100, ..SMALL });
    let slow = hub.watch(key("a"));
    hub.happen_often("a", 5);
    hub.hub.compacted(Revision(5));
    assert_eq!(hub.drain(slow), ["0@6: 2+a 3+a 4+a 5+a 6+a"]);
}

#[test]
fn a_compaction_found_while_reading_history_cancels() {
    let mut hub = Hub::new(SMALL);
    hub.happen_often("a", 8);
    let stream = hub.watch(from(2, key("a")));
    let (request, said) = hub.pull_request(stream);
    assert_eq!(said, "0 needs 2..=5");
    hub.hub.history_compacted(&request, Revision(4));
    assert_eq!(hub.drain(stream), ["0 canceled, compacted 4"]);
}

#[test]
fn a_restored_snapshot_sends_all_watchers_to_history() {
    let mut hub = Hub::new(SMALL);
    let late = hub.watch(key("a"));
    let idle = hub.watch(key("b"));
    let future = hub.watch(from(9, key("a")));
    hub.happen(&[Put("a")]);
    for revision in 3..=6 {
        hub.history.push(change(revision, &[Put("a"), Put("b")]));
    }
    assert_eq!(hub.hub.restored(Revision(6), Revision(0)), [idle], "the other was woken before");
    assert_eq!(hub.drain(late), ["0@6: 2+a 3+a 4+a 5+a 6+a"]);
    assert_eq!(hub.drain(idle), ["0@6: 3+b 4+b 5+b 6+b"]);
    for _ in 7..=9 {
        hub.happen(&[Put("a")]);
    }
    assert_eq!(hub.drain(future), ["0@9: 9+a"]);
}

#[test]
fn one_pull_looks_at_a_bounded_number_of_events() {
    let mut hub = Hub::new(Limits { ring_changes: 100, looks: 5, ..SMALL });
    hub.happen_often("b", 7);
    hub.happen(&[Put("a")]);
    let stream = hub.watch(from(1, key("a")));
    // Revision 1 is before the first change: nothing is there to read, and the store says so.
    let (request, said) = hub.pull_request(stream);
    assert_eq!(said, "0 needs 1..=1");
    hub.hub.history(&request, Revision(1), &[]);
    assert_eq!(hub.pull(stream), "again");
    assert_eq!(hub.pull(stream), "0@9: 9+a");
    assert_eq!(hub.pull(stream), "idle");
}

// Progress.

#[test]
fn a_request_for_progress_is_answered_for_all_watchers_at_once() {
    let mut hub = Hub::new(SMALL);
    let stream = hub.watch(key("a"));
    hub.hub.create(stream, &key("b")).unwrap();
    hub.happen(&[Put("c")]);
    assert!(hub.hub.progress_request(stream));
    assert_eq!(hub.drain(stream), ["-1@2"]);
    assert!(hub.hub.progress_request(stream));
    assert!(hub.hub.progress_request(stream));
    assert_eq!(hub.drain(stream), ["-1@2", "-1@2"], "each request has its answer");
}

#[test]
fn progress_comes_after_the_events_it_speaks_of() {
    let mut hub = Hub::new(SMALL);
    let stream = hub.watch(key("a"));
    hub.hub.create(stream, &everything()).unwrap();
    hub.happen_often("a", 2);
    assert!(hub.hub.progress_request(stream));
    assert_eq!(hub.pull(stream), "0@2: 2+a");
    hub.happen(&[Put("a")]);
    let said = hub.drain(stream);
    let progress = said.iter().position(|said| said.starts_with("-1")).unwrap();
    assert_eq!(said[progress], "-1@3");
    for event in ["0@3: 3+a", "1@2: 2+a", "1@3: 3+a"] {
        assert!(said[..progress].contains(&event.to_owned()), "{said:?}");
    }
}

#[test]
fn progress_is_not_promised_while_a_watcher_is_behind() {
    let mut hub = Hub::new(SMALL);
    hub.happen_often("a", 8);
    let stream = hub.watch(key("a"));
    hub.hub.create(stream, &from(2, key("a"))).unwrap();
    assert!(!hub.hub.progress_request(stream));
    let (request, said) = hub.pull_request(stream);
    assert_eq!(said, "1 needs 2..=5");
    assert!(!hub.hub.progress_request(stream));
    hub.hub.history(&request, Revision(5), &hub.history);
    assert!(!hub.hub.progress_request(stream));
    assert_eq!(hub.drain(stream), ["1@9: 2+a 3+a 4+a 5+a", "1@9: 6+a 7+a 8+a 9+a"]);
    assert!(hub.hub.progress_request(stream));
    assert_eq!(hub.drain(stream), ["-1@9"]);
}

#[test]
fn progress_that_was_promised_waits_for_a_watcher_that_falls_behind() {
    let mut hub = Hub::new(SMALL);
    let stream = hub.watch(key("a"));
    hub.happen_often("a", 2);
    assert!(hub.hub.progress_request(stream));
    hub.happen_often("a", 6);
    let (request, said) = hub.pull_request(stream);
    assert_eq!(said, "0 needs 2..=5");
    assert_eq!(hub.pull(stream), "idle");
    hub.hub.history(&request, Revision(5), &hub.history);
    assert_eq!(hub.drain(stream), ["0@9: 2+a 3+a 4+a 5+a", "0@9: 6+a 7+a 8+a 9+a", "-1@9"]);
}

#[test]
fn a_stream_without_watchers_is_not_told_its_progress() {
    let mut hub = Hub::new(SMALL);
    let stream = hub.hub.open_stream();
    assert!(!hub.hub.progress_request(stream));
    assert_eq!(hub.drain(stream), Vec::<String>::new());
}

#[test]
fn a_watcher_that_begins_in_the_future_has_no_progress_yet() {
    let mut hub = Hub::new(SMALL);
    let stream = hub.watch(from(2, WatchSpec { progress_notify: true, ..key("a") }));
    assert!(!hub.hub.progress_request(stream));
    assert!(!hub.hub.tick_progress(stream));
    hub.happen(&[Put("b")]);
    assert!(hub.hub.tick_progress(stream));
    assert!(hub.hub.progress_request(stream));
    assert_eq!(hub.drain(stream), ["0@2", "-1@2"]);
}

#[test]
fn a_tick_reports_for_those_who_asked_and_heard_nothing_since_the_last() {
    let mut hub = Hub::new(SMALL);
    let notify = |spec| WatchSpec { progress_notify: true, ..spec };
    let stream = hub.watch(notify(key("a")));
    hub.hub.create(stream, &notify(key("b"))).unwrap();
    hub.hub.create(stream, &key("c")).unwrap();
    hub.happen(&[Put("a")]);
    hub.drain(stream);
    assert!(hub.hub.tick_progress(stream));
    assert_eq!(hub.drain(stream), ["1@2"]);
    assert!(hub.hub.tick_progress(stream));
    assert_eq!(hub.drain(stream), ["0@2", "1@2"]);
}

#[test]
fn events_that_wait_are_report_enough() {
    let mut hub = Hub::new(SMALL);
    let stream = hub.watch(WatchSpec { progress_notify: true, ..key("a") });
    hub.happen(&[Put("a")]);
    assert!(hub.hub.tick_progress(stream));
    assert_eq!(hub.drain(stream), ["0@2: 2+a"]);
}

#[test]
fn a_watcher_that_is_behind_reports_no_progress() {
    let mut hub = Hub::new(SMALL);
    hub.happen_often("b", 3);
    let stream = hub.watch(from(2, WatchSpec { progress_notify: true, ..key("a") }));
    assert!(!hub.hub.tick_progress(stream));
    assert_eq!(hub.drain(stream), Vec::<String>::new());
    assert!(hub.hub.tick_progress(stream));
    assert_eq!(hub.drain(stream), ["0@4"]);
}
