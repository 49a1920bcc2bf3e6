//! A client that watches through all the kills: it resumes behind the last revision it saw, and checks on the way what can be
//! checked without knowing the history: order, and that a revision comes whole.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tenure_grpc::etcdserverpb::watch_client::WatchClient;
use tenure_proto::etcdserverpb::{
    WatchCreateRequest, WatchRequest, WatchResponse, watch_request::RequestUnion,
};
use tenure_proto::mvccpb::Event;
use tokio::task::JoinHandle;
use tokio_stream::StreamExt;
use tonic::Streaming;

use crate::BOUND;
use crate::model::covers;

/// A revision and its events, with the pairs as they were before.
pub type Change = (i64, Vec<Event>);

pub struct Watcher {
    from: &'static [u8],
    to: &'static [u8],
    seen: Arc<Mutex<Seen>>,
    following: Option<JoinHandle<()>>,
}

struct Seen {
    next: i64,
    changes: Vec<Change>,
}

impl Watcher {
    pub fn new(from: &'static [u8], to: &'static [u8]) -> Watcher {
        let seen = Seen { next: 1, changes: Vec::new() };
        Watcher { from, to, seen: Arc::new(Mutex::new(seen)), following: None }
    }

    /// Resumes, unless it is following already.
    pub async fn follow(&mut self, endpoint: &str) {
        if self.following.is_some() {
            return;
        }
        let start = self.seen.lock().unwrap_or_else(PoisonError::into_inner).next;
        let stream = open(endpoint, self.from, self.to, start).await;
        self.following = Some(tokio::spawn(follow(stream, self.seen.clone())));
    }

    /// Waits until it has noticed that its server is gone.
    pub async fn lost(&mut self) {
        if let Some(following) = self.following.take() {
            let ended = tokio::time::timeout(BOUND, following).await.expect("a watch outlived its server");
            ended.expect("a watch found a fault; see above");
        }
    }

    /// What it has been told since it was asked last; it must be exactly its part of this history.
    pub async fn must_have_seen(&mut self, history: &[Change]) {
        let told: Vec<Change> = history.iter().filter_map(|change| self.part(change)).collect();
        let last = told.last().map_or(0, |(revision, _)| *revision);
        let deadline = tokio::time::Instant::now() + BOUND;
        while self.seen.lock().unwrap_or_else(PoisonError::into_inner).next <= last {
            let following = self.following.as_ref().expect("it follows while it is asked");
            assert!(!following.is_finished(), "the watch of {:?} ended by itself", self.from.escape_ascii());
            assert!(tokio::time::Instant::now() < deadline, "the watch never came to revision {last}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let seen = std::mem::take(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner).changes);
        for (seen, told) in seen.iter().zip(&told) {
            assert_eq!(seen, told, "a watch was told something else than what happened");
        }
        assert_eq!(seen.len(), told.len(), "a watch was told of more or fewer revisions than there were");
    }

    fn part(&self, (revision, events): &Change) -> Option<Change> {
        let mine =
            |event: &&Event| event.kv.as_ref().is_some_and(|pair| covers(self.from, self.to, &pair.key));
        let events: Vec<Event> = events.iter().filter(mine).cloned().collect();
        (!events.is_empty()).then_some((*revision, events))
    }
}

/// A watch from `start` on, with the pairs as they were before; its first response has been taken off.
pub async fn open(endpoint: &str, from: &[u8], to: &[u8], start: i64) -> Streaming<WatchResponse> {
    let create = WatchCreateRequest {
        key: from.to_vec().into(),
        range_end: to.to_vec().into(),
        start_revision: start,
        prev_kv: true,
        ..Default::default()
    };
    let request = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    let mut client = WatchClient::connect(endpoint.to_owned()).await.expect("the server is ready");
    client = client.max_decoding_message_size(usize::MAX);
    // The sending side stays open: its end would be the watch's end.
    let requests = tokio_stream::once(request).chain(tokio_stream::pending());
    let mut stream = client.watch(requests).await.expect("the server is ready").into_inner();
    let first = stream.message().await.expect("the server is ready").expect("a watch is created first");
    assert!(first.created && !first.canceled, "not created: {first:?}");
    stream
}

/// The revisions of one response. Each must be whole in it and above `last`, the highest seen before.
pub fn changes(response: WatchResponse, mut last: i64) -> Vec<Change> {
    assert!(!response.canceled, "the watch was cancelled: {response:?}");
    let mut changes: Vec<Change> = Vec::new();
    let asserted = response.header.as_ref().map_or(0, |header| header.revision);
    for event in response.events {
        let revision = event.kv.as_ref().expect("every event has its pair").mod_revision;
        match changes.last_mut() {
            Some((current, events)) if *current == revision => events.push(event),
            _ => {
                assert!(revision > last, "revision {revision} came after {last}");
                assert!(revision <= asserted, "revision {revision} came under a header of {asserted}");
                last = revision;
                changes.push((revision, vec![event]));
            }
        }
    }
    changes
}

async fn follow(mut stream: Streaming<WatchResponse>, seen: Arc<Mutex<Seen>>) {
    while let Ok(Some(response)) = stream.message().await {
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        let changes = changes(response, seen.next - 1);
        if let Some((last, _)) = changes.last() {
            seen.next = last + 1;
        }
        seen.changes.extend(changes);
    }
}
