//! The other members: where each is, the connections to it, and what every call between members carries so that none is
//! taken for another's. It knows addresses and metadata, not what is said over the connections.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tonic::codegen::Service;
use tonic::codegen::http::Uri;
use tonic::metadata::{Ascii, MetadataMap, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

use crate::config::Url;
use crate::ids::{ClusterId, MemberId};
use crate::net::{Net, Wire};

const CLUSTER: &str = "tenure-cluster";
const FROM: &str = "tenure-from";
const TO: &str = "tenure-to";

/// Flow-control window of the connection that entries travel on, and of its stream, bytes: what a follower that stopped
/// reading can make the leader hold for it.
const ENTRIES_WINDOW: u32 = 8 << 20;
/// The same of the other connections.
const WINDOW: u32 = 1 << 20;

/// What a connection is for. Each purpose has one of its own, so that a long snapshot or a stuck stream of entries does not
/// hold up a heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// The stream of entries.
    Entries,
    /// Heartbeats and elections.
    Control,
    Snapshot,
    /// What followers pass on to the leader.
    Forwarding,
}

/// The members as far as they are known here, and the connections to them. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Peers {
    book: Arc<Book>,
}

#[derive(Debug)]
struct Book {
    cluster: ClusterId,
    own: MemberId,
    net: Arc<dyn Net>,
    /// How long a peer may stay silent, or take to answer a call, before the connection is given up.
    patience: Duration,
    entries: Mutex<BTreeMap<u64, Entry>>,
}

#[derive(Debug, Default)]
struct Entry {
    peer_urls: Vec<String>,
    channels: BTreeMap<Lane, Channel>,
}

impl Peers {
    /// `patience`: one election timeout.
    pub fn new(cluster: ClusterId, own: MemberId, net: Arc<dyn Net>, patience: Duration) -> Peers {
        Peers { book: Arc::new(Book { cluster, own, net, patience, entries: Mutex::default() }) }
    }

    pub fn cluster(&self) -> ClusterId {
        self.book.cluster
    }

    pub fn own(&self) -> MemberId {
        self.book.own
    }

    /// Where a member is, by what the log says. New addresses give new connections.
    pub fn learn(&self, member: u64, peer_urls: &[String]) {
        let mut entries = self.book.entries.lock();
        let entry = entries.entry(member).or_default();
        if entry.peer_urls != peer_urls {
            *entry = Entry { peer_urls: peer_urls.to_vec(), channels: BTreeMap::new() };
        }
    }

    /// Forgets all but these; calls that are under way to the others go on.
    pub fn retain(&self, members: impl Fn(u64) -> bool) {
        self.book.entries.lock().retain(|member, _| members(*member));
    }

    /// A connection to a member, made when it is first used and made anew after it broke. None: nobody said where that
    /// member is.
    pub fn channel(&self, member: u64, lane: Lane) -> Option<Channel> {
        let mut entries = self.book.entries.lock();
        let entry = entries.get_mut(&member)?;
        if let Some(channel) = entry.channels.get(&lane) {
            return Some(channel.clone());
        }
        let Book { net, patience, .. } = &*self.book;
        let urls = Arc::new(entry.peer_urls.clone());
        let window = if lane == Lane::Entries { ENTRIES_WINDOW } else { WINDOW };
        let channel = connect(Dialer { net: net.clone(), urls, patience: *patience }, window);
        entry.channels.insert(lane, channel.clone());
        Some(channel)
    }

    /// Says who calls, and whom.
    pub fn address<T>(&self, target: u64, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let metadata = request.metadata_mut();
        metadata.insert(CLUSTER, hexadecimal(self.book.cluster.0));
        metadata.insert(FROM, hexadecimal(self.book.own.0));
        metadata.insert(TO, hexadecimal(target));
        request
    }

    /// Who calls; an error if the call was meant for another cluster or member.
    pub fn caller(&self, metadata: &MetadataMap) -> Result<MemberId, Status> {
        let field = |name| {
            let text = metadata.get(name).and_then(|value| value.to_str().ok());
            text.and_then(|text| u64::from_str_radix(text, 16).ok()).ok_or_else(|| {
                Status::new(
                    Code::InvalidArgument,
                    format!("tenure: `{name}` is missing: this is the port for members; clients use --listen-client-urls"),
                )
            })
        };
        if field(CLUSTER)? != self.book.cluster.0 {
            return Err(Status::new(Code::FailedPrecondition, "etcdserver: cluster ID mismatch"));
        }
        let target = MemberId(field(TO)?);
        if target != self.book.own {
            let text =
                format!("tenure: this is member {}, not {target}: an address is out of date", self.book.own);
            return Err(Status::new(Code::FailedPrecondition, text));
        }
        Ok(MemberId(field(FROM)?))
    }
}

fn hexadecimal(id: u64) -> MetadataValue<Ascii> {
    MetadataValue::try_from(format!("{id:x}")).expect("hexadecimal digits are visible letters")
}

/// A connection to whoever listens there, for a member that does not know its cluster yet.
pub fn connect_to_stranger(net: Arc<dyn Net>, peer_urls: &[String], patience: Duration) -> Channel {
    connect(Dialer { net, urls: Arc::new(peer_urls.to_vec()), patience }, WINDOW)
}

fn connect(dialer: Dialer, window: u32) -> Channel {
    // The URI only fills in the requests' authority; the dialer knows the addresses.
    Endpoint::from_static("http://peer.tenure")
        .connect_timeout(dialer.patience)
        .http2_keep_alive_interval(dialer.patience)
        .keep_alive_timeout(dialer.patience)
        .keep_alive_while_idle(true)
        .initial_connection_window_size(window)
        .initial_stream_window_size(window)
        .connect_with_connector_lazy(dialer)
}

/// Tries a member's addresses in their order.
#[derive(Clone)]
struct Dialer {
    net: Arc<dyn Net>,
    urls: Arc<Vec<String>>,
    patience: Duration,
}

impl Service<Uri> for Dialer {
    type Response = TokioIo<Box<dyn Wire>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, io::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), io::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        Box::pin(self.clone().dial())
    }
}

impl Dialer {
    async fn dial(self) -> io::Result<TokioIo<Box<dyn Wire>>> {
        let mut failure = io::Error::new(io::ErrorKind::NotFound, "the member has no peer URL");
        let patience = self.patience / u32::try_from(self.urls.len().max(1)).unwrap_or(u32::MAX);
        for url in self.urls.iter() {
            let dialled = async {
                let url = Url::peer(url).map_err(|why| io::Error::new(io::ErrorKind::InvalidInput, why))?;
                self.net.dial(url.host().to_owned(), url.port()).await
            };
            match tokio::time::timeout(patience, dialled).await {
                Ok(Ok(wire)) => return Ok(TokioIo::new(wire)),
                Ok(Err(error)) => failure = error,
                Err(_) => failure = io::Error::new(io::ErrorKind::TimedOut, format!("{url} does not answer")),
            }
        }
        Err(failure)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Tcp;

    fn peers(cluster: u64, own: u64) -> Peers {
        Peers::new(ClusterId(cluster), MemberId(own), Arc::new(Tcp), Duration::from_secs(1))
    }

    #[test]
    fn a_call_is_taken_by_the_member_it_is_meant_for_and_by_no_other() {
        let call = peers(0xc, 1).address(2, ());
        assert_eq!(peers(0xc, 2).caller(call.metadata()).ok(), Some(MemberId(1)));
        let stranger = peers(0xd, 2).caller(call.metadata()).expect_err("it is another cluster");
        assert_eq!(stranger.message(), "etcdserver: cluster ID mismatch");
        assert!(peers(0xc, 3).caller(call.metadata()).is_err());
        assert!(peers(0xc, 3).caller(&MetadataMap::new()).is_err());
    }

    #[test]
    fn only_known_members_can_be_called() {
        let peers = peers(0xc, 1);
        assert!(peers.channel(2, Lane::Control).is_none());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let _inside = runtime.expect("a runtime starts").enter();
        peers.learn(2, &["http://127.0.0.1:1".to_owned()]);
        assert!(peers.channel(2, Lane::Control).is_some());
        peers.retain(|member| member != 2);
        assert!(peers.channel(2, Lane::Control).is_none());
    }
}
