//! etcd's Watch service. A stream has no task of its own: it is polled by its connection, so that a client that does not
//! read is not worked for.

use futures::{StreamExt, stream};
use prost::Message;
use tenure_grpc::etcdserverpb::watch_server::Watch;
use tenure_proto::etcdserverpb::watch_request::RequestUnion;
use tenure_proto::etcdserverpb::{WatchRequest, WatchResponse};
use tenure_proto::mvccpb::event::EventType;
use tenure_proto::mvccpb::{self, KeyValue};
use tenure_state::{Delivery, Event, Fatal, Revision, WatchId, WatchSpec};
use tonic::{Request, Response, Status, Streaming};

use super::header::Headers;
use super::{caller, status};
use crate::metrics::Counter;
use crate::node::{Error, Next, Node, WatchStream, Watches};

pub struct WatchService {
    headers: Headers,
    watches: Watches,
    /// Of events.
    delivered: Counter,
}

impl WatchService {
    pub fn new(headers: Headers, node: &Node) -> WatchService {
        let delivered = node.meters.changes.delivered.clone();
        WatchService { headers, watches: node.watches.clone(), delivered }
    }
}

#[tonic::async_trait]
impl Watch for WatchService {
    type WatchStream = caller::Answers<WatchResponse>;

    async fn watch(
        &self,
        request: Request<Streaming<WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        caller::admit(request.metadata(), &self.headers)?;
        let demands_leader = caller::requires_leader(request.metadata());
        let conversation = Conversation {
            requests: Some(request.into_inner()),
            stream: self.watches.open(),
            headers: self.headers.clone(),
            delivered: self.delivered.clone(),
        };
        let responses = stream::unfold(Some(conversation), |conversation| async move {
            let mut conversation = conversation?;
            match conversation.next().await {
                Some(Ok(response)) => Some((Ok(response), Some(conversation))),
                Some(Err(status)) => Some((Err(status), None)),
                None => None,
            }
        });
        Ok(Response::new(caller::while_led(demands_leader, &self.headers, responses)))
    }
}

/// What a client asks and is told on one stream.
struct Conversation {
    /// None once the client said that it asks no more; it may go on listening.
    requests: Option<Streaming<WatchRequest>>,
    stream: WatchStream,
    headers: Headers,
    delivered: Counter,
}

impl Conversation {
    /// The next response; None when the conversation is over.
    async fn next(&mut self) -> Option<Result<WatchResponse, Status>> {
        loop {
            let asked = async {
                match &mut self.requests {
                    Some(requests) => requests.next().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                asked = asked => match asked {
                    Some(Ok(request)) => if let Some(response) = self.take(request) {
                        return Some(Ok(response));
                    },
                    // The client is gone, or what it sent cannot be read.
                    Some(Err(status)) => return Some(Err(status)),
                    None => self.requests = None,
                },
                next = self.stream.next() => return self.tell(next),
            }
        }
    }

    /// Takes one request; most are answered at once.
    fn take(&mut self, request: WatchRequest) -> Option<WatchResponse> {
        match request.request_union? {
            RequestUnion::CreateRequest(create) => {
                let spec = WatchSpec::from(&create);
                Some(match self.stream.create(&spec) {
                    Ok(created) => WatchResponse {
                        header: Some(self.headers.at(created.revision)),
                        watch_id: created.watch_id.0,
                        created: true,
                        ..WatchResponse::default()
                    },
                    Err(error) => WatchResponse {
                        header: Some(self.headers.at(self.stream.watches().current())),
                        watch_id: WatchId::ALL.0,
                        created: true,
                        canceled: true,
                        cancel_reason: error.to_string(),
                        ..WatchResponse::default()
                    },
                })
            }
            RequestUnion::CancelRequest(cancel) => {
                self.stream.cancel(WatchId(cancel.watch_id)).then(|| WatchResponse {
                    header: Some(self.headers.at(self.stream.watches().current())),
                    watch_id: cancel.watch_id,
                    canceled: true,
                    ..WatchResponse::default()
                })
            }
            RequestUnion::ProgressRequest(_) => {
                self.stream.request_progress();
                None
            }
        }
    }

    fn tell(&self, next: Result<Next, Fatal>) -> Option<Result<WatchResponse, Status>> {
        let told = next.and_then(|next| match next {
            Next::Events(delivery) => self.events(&delivery).map(Some),
            Next::Canceled { watch_id, compact_revision } => Ok(Some(WatchResponse {
                header: Some(self.headers.at(Revision(0))),
                watch_id: watch_id.0,
                canceled: true,
                compact_revision: compact_revision.0,
                ..WatchResponse::default()
            })),
            Next::Progress { watch_id, revision } => Ok(Some(WatchResponse {
                header: Some(self.headers.at(revision)),
                watch_id: watch_id.0,
                ..WatchResponse::default()
            })),
            Next::Stopping => Ok(None),
        });
        match told {
            Ok(Some(response)) => Some(Ok(response)),
            Ok(None) => Some(Err(status::stopped())),
            Err(fatal) => Some(Err(status::of(Error::Fatal(fatal)))),
        }
    }

    fn events(&self, delivery: &Delivery) -> Result<WatchResponse, Fatal> {
        let events = delivery.events().map(|event| self.event(event, delivery.prev_kv));
        let events = events.collect::<Result<Vec<_>, Fatal>>()?;
        self.delivered.increment(events.len() as u64);
        Ok(WatchResponse {
            header: Some(self.headers.at(delivery.header_revision)),
            watch_id: delivery.watch_id.0,
            fragment: delivery.fragment,
            events,
            ..WatchResponse::default()
        })
    }

    fn event(&self, event: &Event, with_previous: bool) -> Result<mvccpb::Event, Fatal> {
        let r#type = if event.place.tombstone { EventType::Delete } else { EventType::Put };
        let previous = if with_previous { self.stream.watches().previous(event)? } else { None };
        let previous = previous.map(KeyValue::decode).transpose();
        let prev_kv = previous.map_err(|error| Fatal(format!("a record does not decode: {error}")))?;
        Ok(mvccpb::Event { r#type: r#type as i32, kv: Some(event.key_value()), prev_kv })
    }
}
