//! A watch that outlives its connections: it goes on behind the last revision it was told, at whichever member answers, so that
//! it misses nothing and repeats nothing; or it says that what it needs was compacted.

use std::collections::VecDeque;
use std::future::IntoFuture;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{self, StreamExt};
use tenure_grpc::etcdserverpb::watch_client::WatchClient;
use tenure_proto::etcdserverpb::watch_request::RequestUnion;
use tenure_proto::etcdserverpb::{WatchCreateRequest, WatchRequest, WatchResponse};
use tenure_proto::mvccpb::Event;
use tenure_recipes::Change;
use tonic::metadata::MetadataValue;
use tonic::{Request, Streaming};

use crate::backoff::Backoff;
use crate::client::Client;
use crate::error::{Error, Fault};
use crate::key::{self, end_of_prefix};
use crate::pool::Turn;

/// A watch that is being put together; awaited, it is there.
#[derive(Clone)]
#[must_use = "nothing is watched before it is awaited"]
pub struct Watching {
    client: Client,
    create: WatchCreateRequest,
}

impl Watching {
    pub(crate) fn new(client: Client, key: impl AsRef<[u8]>) -> Watching {
        let create = WatchCreateRequest {
            key: key::bytes(key),
            // A revision larger than a message comes in parts, and an idle watch is not left behind by compactions.
            fragment: true,
            progress_notify: true,
            ..WatchCreateRequest::default()
        };
        Watching { client, create }
    }

    /// All keys that begin with the one given; all there are, if it is empty.
    pub fn prefix(mut self) -> Watching {
        self.create.range_end = end_of_prefix(&self.create.key);
        if self.create.key.is_empty() {
            self.create.key = Bytes::from_static(&[0]);
        }
        self
    }

    /// All keys from the one given up to this one, which is not among them.
    pub fn to(mut self, end: impl AsRef<[u8]>) -> Watching {
        self.create.range_end = key::bytes(end);
        self
    }

    /// From that revision on, which may be past; else from now on.
    pub fn from(mut self, revision: i64) -> Watching {
        self.create.start_revision = revision;
        self
    }

    /// Events say what was before.
    pub fn with_previous(mut self) -> Watching {
        self.create.prev_kv = true;
        self
    }
}

impl IntoFuture for Watching {
    type Output = Result<Watch, Error>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let mut watch = Watch {
                client: self.client,
                create: self.create,
                conversation: None,
                gathered: Vec::new(),
                ready: VecDeque::new(),
                ended: None,
                backoff: Backoff::default(),
            };
            // Where there is a revision to begin from, nothing is missed however late it begins.
            if watch.create.start_revision == 0 {
                watch.begin().await?;
            }
            Ok(watch)
        })
    }
}

/// What happens to the watched keys, one revision at a time, in order and without gap.
///
/// ```no_run
/// # async fn example(client: tenure_client::Client) -> Result<(), tenure_client::Error> {
/// let found = client.kv().get("jobs/").prefix().await?;
/// let mut watch = client.watch("jobs/").prefix().from(found.revision + 1).await?;
/// loop {
///     let change = watch.next().await?;
///     for event in change.events {
///         println!("{}: {:?}", change.revision, event);
///     }
/// }
/// # }
/// ```
pub struct Watch {
    client: Client,
    /// With the next revision to be told, once there is one.
    create: WatchCreateRequest,
    conversation: Option<(Turn, Streaming<WatchResponse>)>,
    /// Parts of what has not come whole.
    gathered: Vec<Event>,
    ready: VecDeque<Change>,
    ended: Option<Error>,
    backoff: Backoff,
}

impl Watch {
    /// The next revision that changed a watched key. Waits for members to come back as long as it takes. Nothing is lost when
    /// this is dropped before it is done. After an error it gives the same error for ever.
    pub async fn next(&mut self) -> Result<Change, Error> {
        loop {
            if let Some(change) = self.ready.pop_front() {
                return Ok(change);
            }
            if let Some(error) = &self.ended {
                return Err(error.clone());
            }
            self.hear().await;
        }
    }

    /// Returns once the server has said from which revision it watches.
    async fn begin(&mut self) -> Result<(), Error> {
        while self.create.start_revision == 0 {
            if let Some(error) = &self.ended {
                return Err(error.clone());
            }
            if self.conversation.is_none() {
                self.conversation = Some(self.open().await?);
            }
            self.hear().await;
        }
        Ok(())
    }

    async fn hear(&mut self) {
        let Some((turn, conversation)) = &mut self.conversation else {
            match self.open().await {
                Ok(conversation) => self.conversation = Some(conversation),
                Err(Error::Unavailable(_) | Error::Unknown(_)) => {
                    tokio::time::sleep(self.backoff.pause()).await;
                }
                Err(error) => self.ended = Some(error),
            }
            return;
        };
        let fault = match conversation.message().await {
            Ok(Some(response)) => return self.take(response),
            Ok(None) => Fault::Lost("the member ended the watch".into()),
            Err(status) => Fault::of(&status),
        };
        match fault {
            Fault::Answered(error) => self.ended = Some(error),
            Fault::NotDone(_) | Fault::Lost(_) => self.client.leave(*turn),
        }
        // Half a revision is worth nothing; it is told again.
        self.gathered.clear();
        self.conversation = None;
    }

    async fn open(&self) -> Result<(Turn, Streaming<WatchResponse>), Error> {
        self.client
            .open(|channel| {
                let create = RequestUnion::CreateRequest(self.create.clone());
                let create = WatchRequest { request_union: Some(create) };
                // The stream of questions stays open: its end would be the end of the answers.
                let mut request = Request::new(stream::iter([create]).chain(stream::pending()));
                request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
                let mut client = WatchClient::new(channel).max_decoding_message_size(usize::MAX);
                async move { client.watch(request).await }
            })
            .await
    }

    fn take(&mut self, response: WatchResponse) {
        let revision = response.header.map_or(0, |header| header.revision);
        if response.canceled {
            self.ended = Some(match response.compact_revision {
                0 => Error::refused(format!("the watch was refused: {}", response.cancel_reason)),
                at => Error::Compacted { at },
            });
            return;
        }
        self.backoff = Backoff::default();
        let next = &mut self.create.start_revision;
        if response.created {
            if *next == 0 {
                *next = revision + 1;
            }
            return;
        }
        let (whole, progress) = (!response.fragment, response.events.is_empty());
        self.gathered.extend(response.events);
        if !whole {
            return;
        }
        for event in self.gathered.drain(..) {
            let at = event.kv.as_ref().map_or(0, |kv| kv.mod_revision);
            match self.ready.back_mut() {
                Some(change) if change.revision == at => change.events.push(event),
                _ if at >= *next => self.ready.push_back(Change { revision: at, events: vec![event] }),
                _ => {}
            }
        }
        *next = match self.ready.back() {
            Some(last) => (*next).max(last.revision + 1),
            // All up to here was told.
            None if progress => (*next).max(revision + 1),
            None => *next,
        };
    }
}
