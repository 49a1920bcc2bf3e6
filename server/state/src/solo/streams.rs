//! Watch streams of a server in memory: what each was told, made into the messages of the wire. A stream is pulled only
//! when someone looks, so a test decides how slow its client is. It knows nothing of who looks.

use std::collections::BTreeMap;
use std::sync::Arc;

use prost::Message;
use tenure_proto::etcdserverpb::watch_request::RequestUnion;
use tenure_proto::etcdserverpb::{ResponseHeader, WatchRequest, WatchResponse};
use tenure_proto::mvccpb::event::EventType;
use tenure_proto::mvccpb::{self, KeyValue};

use super::Memory;
use crate::change::{Change, Effect, Event, Previous};
use crate::machine::Machine;
use crate::records::Records;
use crate::revision::{Place, Revision};
use crate::watchers::{Delivery, HistoryRequest, Limits, Pull, StreamId, WatchId, WatchSpec, Watchers};

#[derive(Debug)]
pub struct Streams {
    watchers: Watchers,
    /// Answers to requests, which come before whatever is pulled later.
    answers: BTreeMap<StreamId, Vec<WatchResponse>>,
}

impl Streams {
    pub fn new(limits: Limits, machine: &Machine) -> Streams {
        let watchers = Watchers::new(limits, machine.revision(), machine.compacted());
        Streams { watchers, answers: BTreeMap::new() }
    }

    pub fn follow(&mut self, effect: &Effect) {
        match effect {
            Effect::Changed(change) => {
                self.watchers.publish(change.clone());
            }
            Effect::Compacted { revision, .. } => self.watchers.compacted(*revision),
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

    pub fn open(&mut self) -> StreamId {
        let id = self.watchers.open_stream();
        self.answers.insert(id, Vec::new());
        id
    }

    pub fn close(&mut self, id: StreamId) {
        self.watchers.close_stream(id);
        self.answers.remove(&id);
    }

    /// Takes what a client says on its stream.
    pub fn take(&mut self, id: StreamId, request: &WatchRequest) {
        let current = self.watchers.current();
        let answer = match &request.request_union {
            None => None,
            Some(RequestUnion::CreateRequest(create)) => {
                Some(match self.watchers.create(id, &WatchSpec::from(create)) {
                    Ok(created) => {
                        WatchResponse { created: true, ..response(created.watch_id, created.revision) }
                    }
                    Err(error) => WatchResponse {
                        created: true,
                        canceled: true,
                        cancel_reason: error.to_string(),
                        ..response(WatchId::ALL, current)
                    },
                })
            }
            Some(RequestUnion::CancelRequest(cancel)) => {
                let watch_id = WatchId(cancel.watch_id);
                let known = self.watchers.cancel(id, watch_id);
                known.then(|| WatchResponse { canceled: true, ..response(watch_id, current) })
            }
            Some(RequestUnion::ProgressRequest(_)) => {
                self.watchers.progress_request(id);
                None
            }
        };
        self.answers.entry(id).or_default().extend(answer);
    }

    /// Time to report progress to whoever asked for that and was told nothing of late.
    pub fn tick_progress(&mut self) {
        for id in self.answers.keys() {
            self.watchers.tick_progress(*id);
        }
    }

    /// Everything there is to say on this stream now.
    pub fn pull(&mut self, id: StreamId, machine: &Machine, memory: &Memory) -> Vec<WatchResponse> {
        let mut said = self.answers.get_mut(&id).map(std::mem::take).unwrap_or_default();
        loop {
            match self.watchers.pull(id) {
                Pull::Events(delivery) => said.push(events(&delivery, machine, memory)),
                Pull::Canceled { watch_id, compact_revision } => said.push(WatchResponse {
                    canceled: true,
                    compact_revision: compact_revision.0,
                    ..response(watch_id, Revision(0))
                }),
                Pull::Progress { watch_id, header_revision } => {
                    said.push(response(watch_id, header_revision));
                }
                Pull::NeedHistory(request) => self.read_history(&request, machine, memory),
                Pull::Again => {}
                Pull::Idle => return said,
            }
        }
    }

    fn read_history(&mut self, request: &HistoryRequest, machine: &Machine, memory: &Memory) {
        let mut changes: Vec<Arc<Change>> = Vec::new();
        let records: Vec<(Place, &bytes::Bytes)> = memory
            .records()
            .filter(|(place, _)| (request.from..=request.upto).contains(&place.revision()))
            .collect();
        for revision in records.chunk_by(|(a, _), (b, _)| a.main == b.main) {
            let events: Vec<Event> = revision
                .iter()
                .map(|(place, record)| past_event(*place, record, machine))
                .filter(|event| request.interval.contains(&event.key))
                .collect();
            if !events.is_empty() {
                let revision = revision[0].0.revision();
                changes.push(Arc::new(Change { revision, events: events.into_boxed_slice() }));
            }
        }
        self.watchers.history(request, request.upto, &changes);
    }
}

fn past_event(place: Place, record: &bytes::Bytes, machine: &Machine) -> Event {
    let kv = decode(record);
    let begins = !place.tombstone && kv.version == 1;
    let previous = machine.previous(&kv.key, place.main, begins);
    Event { place, key: (&kv.key[..]).into(), record: record.clone(), previous }
}

fn events(delivery: &Delivery, machine: &Machine, memory: &Memory) -> WatchResponse {
    let event = |event: &Event| mvccpb::Event {
        r#type: if event.place.tombstone { EventType::Delete } else { EventType::Put } as i32,
        kv: Some(event.key_value()),
        prev_kv: if delivery.prev_kv { previous(event, machine, memory) } else { None },
    };
    WatchResponse {
        fragment: delivery.fragment,
        events: delivery.events().map(event).collect(),
        ..response(delivery.watch_id, delivery.header_revision)
    }
}

/// What the event replaced; None if nothing, or if the revision before the event was compacted away.
fn previous(event: &Event, machine: &Machine, memory: &Memory) -> Option<KeyValue> {
    if event.place.revision() <= machine.compacted() {
        return None;
    }
    let record = match &event.previous {
        Previous::Nothing => None,
        Previous::Record(record) => Some(record.clone()),
        Previous::At(place) => memory.record(*place).expect("memory does not fail"),
    };
    record.map(|record| decode(&record))
}

fn decode(record: &bytes::Bytes) -> KeyValue {
    KeyValue::decode(record.clone()).expect("the machine encoded this record")
}

fn response(watch_id: WatchId, revision: Revision) -> WatchResponse {
    let header = Some(ResponseHeader { revision: revision.0, ..Default::default() });
    WatchResponse { header, watch_id: watch_id.0, ..Default::default() }
}
