//! The other members: where each is, the connections to it, and what every call between members carries so that none is
//! taken for another's; and the door at which the others call. It knows addresses and metadata, not what is said over the
//! connections.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::sync::watch;
use tonic::codegen::Service;
use tonic::codegen::http::Uri;
use tonic::metadata::{Ascii, MetadataMap, MetadataValue};
use tonic::service::InterceptorLayer;
pub use tonic::service::Routes;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Code, Request, Status};

use crate::config::Url;
use crate::gathered::Gathered;
use crate::ids::{ClusterId, MemberId};
use crate::net::{Door, Net, Wire};
use crate::traffic::{Counted, Share, Traffic};

const CLUSTER: &str = "tenure-cluster";
const FROM: &str = "tenure-from";
const TO: &str = "tenure-to";
/// On the refusal of a caller that was removed from the cluster: that caller.
const REMOVED: &str = "tenure-removed";

/// Flow-control window of the connection that entries travel on, and of its stream, bytes: what a follower that stopped
/// reading can make the leader hold for it.
const ENTRIES_WINDOW: u32 = 8 << 20;
/// The same of the other connections.
const WINDOW: u32 = 1 << 20;
/// Entries come in messages of up to 2 MiB; few large frames carry them with less work than many small ones.
const FRAME_BYTES_MAX: u32 = 1 << 20;
/// Between two tries to accept a connection after one has failed, and how many of them (a minute's) one warning stands for.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
const FAILURES_PER_WARNING: u32 = 600;

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
    /// With whom how much was exchanged, ever.
    traffic: Mutex<BTreeMap<u64, Arc<Traffic>>>,
    /// Members that once were: they are told so when they call.
    removed: Mutex<BTreeSet<u64>>,
    /// Whether this member itself was removed.
    left: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Entry {
    peer_urls: Vec<String>,
    channels: BTreeMap<Lane, Channel>,
}

impl Peers {
    /// `patience`: one election timeout.
    pub fn new(cluster: ClusterId, own: MemberId, net: Arc<dyn Net>, patience: Duration) -> Peers {
        Peers {
            book: Arc::new(Book {
                cluster,
                own,
                net,
                patience,
                entries: Mutex::default(),
                traffic: Mutex::default(),
                removed: Mutex::default(),
                left: watch::Sender::new(false),
            }),
        }
    }

    pub fn cluster(&self) -> ClusterId {
        self.book.cluster
    }

    pub fn own(&self) -> MemberId {
        self.book.own
    }

    /// How long a peer may stay silent, or take to answer a call: one election timeout.
    pub fn patience(&self) -> Duration {
        self.book.patience
    }

    /// Where a member is, by what the log says. New addresses give new connections.
    pub fn learn(&self, member: u64, peer_urls: &[String]) {
        let mut entries = self.book.entries.lock();
        let entry = entries.entry(member).or_default();
        if entry.peer_urls != peer_urls {
            *entry = Entry { peer_urls: peer_urls.to_vec(), channels: BTreeMap::new() };
        }
    }

    /// What was exchanged with each member, over connections that either side made.
    pub fn traffic(&self) -> Vec<(u64, Arc<Traffic>)> {
        self.book.traffic.lock().iter().map(|(member, traffic)| (*member, traffic.clone())).collect()
    }

    fn traffic_with(&self, member: u64) -> Arc<Traffic> {
        self.book.traffic.lock().entry(member).or_default().clone()
    }

    /// Whose connection it is that a call came over. A stranger's stays nobody's.
    fn recognise(&self, call: Request<()>) -> Result<Request<()>, Status> {
        if let Some(share) = call.extensions().get::<Arc<Share>>()
            && let Ok(caller) = self.caller_or_leaver(call.metadata())
        {
            share.belongs_to(&self.traffic_with(caller.0));
        }
        Ok(call)
    }

    /// Forgets all but these; calls that are under way to the others go on.
    pub fn retain(&self, members: impl Fn(u64) -> bool) {
        self.book.entries.lock().retain(|member, _| members(*member));
    }

    /// Members that were removed and whose calls are refused; should this one be among them, it has left.
    pub fn shun(&self, removed: impl Iterator<Item = u64>) {
        let removed: BTreeSet<u64> = removed.collect();
        if removed.contains(&self.book.own.0) {
            self.leave();
        }
        *self.book.removed.lock() = removed;
    }

    /// Takes note of what a refusal says: perhaps that this member was removed.
    pub fn heed(&self, refusal: &Status) {
        if id(refusal.metadata(), REMOVED) == Some(self.book.own.0) {
            self.leave();
        }
    }

    /// This member was removed from the cluster.
    pub fn leave(&self) {
        self.book.left.send_if_modified(|left| !std::mem::replace(left, true));
    }

    /// Whether it was, and a way to wait for it.
    pub fn left(&self) -> watch::Receiver<bool> {
        self.book.left.subscribe()
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
        let traffic = Some(self.traffic_with(member));
        let channel = connect(Dialer { net: net.clone(), urls, patience: *patience, traffic }, window);
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

    /// Who calls; an error if the call was meant for another cluster or member, or comes from one that was removed.
    pub fn caller(&self, metadata: &MetadataMap) -> Result<MemberId, Status> {
        let caller = self.caller_or_leaver(metadata)?;
        if self.book.removed.lock().contains(&caller.0) {
            let text = format!("tenure: member {caller} was removed from the cluster");
            let mut refusal = Status::new(Code::PermissionDenied, text);
            refusal.metadata_mut().insert(REMOVED, hexadecimal(caller.0));
            return Err(refusal);
        }
        Ok(caller)
    }

    /// The same for what a leader does last of all when it has removed itself: to hand over the lead.
    pub fn caller_or_leaver(&self, metadata: &MetadataMap) -> Result<MemberId, Status> {
        let field = |name| {
            id(metadata, name).ok_or_else(|| {
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

fn id(metadata: &MetadataMap, name: &str) -> Option<u64> {
    u64::from_str_radix(metadata.get(name)?.to_str().ok()?, 16).ok()
}

fn hexadecimal(id: u64) -> MetadataValue<Ascii> {
    MetadataValue::try_from(format!("{id:x}")).expect("hexadecimal digits are visible letters")
}

/// A connection to whoever listens there, for a member that does not know its cluster yet.
pub fn connect_to_stranger(net: Arc<dyn Net>, peer_urls: &[String], patience: Duration) -> Channel {
    connect(Dialer { net, urls: Arc::new(peer_urls.to_vec()), patience, traffic: None }, WINDOW)
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
    /// None: with a stranger, whose does not count.
    traffic: Option<Arc<Traffic>>,
}

impl Service<Uri> for Dialer {
    type Response = TokioIo<Gathered<Counted<Box<dyn Wire>>>>;
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
    async fn dial(self) -> io::Result<TokioIo<Gathered<Counted<Box<dyn Wire>>>>> {
        let mut failure = io::Error::new(io::ErrorKind::NotFound, "the member has no peer URL");
        let patience = self.patience / u32::try_from(self.urls.len().max(1)).unwrap_or(u32::MAX);
        for url in self.urls.iter() {
            let dialled = async {
                let url = Url::peer(url).map_err(|why| io::Error::new(io::ErrorKind::InvalidInput, why))?;
                self.net.dial(url.host().to_owned(), url.port()).await
            };
            match tokio::time::timeout(patience, dialled).await {
                Ok(Ok(wire)) => {
                    let share = self.traffic.map_or_else(Share::default, Share::of);
                    return Ok(TokioIo::new(Gathered::new(Counted::new(wire, share))));
                }
                Ok(Err(error)) => failure = error,
                Err(_) => failure = io::Error::new(io::ErrorKind::TimedOut, format!("{url} does not answer")),
            }
        }
        Err(failure)
    }
}

/// Answers the callers at a door until `stopping` is ready.
///
/// # Errors
/// The door itself failed; a caller who breaks off is none.
pub async fn serve(
    door: Box<dyn Door>,
    routes: Routes,
    peers: Peers,
    stopping: impl Future<Output = ()>,
) -> Result<(), tonic::transport::Error> {
    let callers = futures::stream::unfold((door, 0), |(mut door, mut failures)| async move {
        let caller = admit(&mut *door, &mut failures).await;
        let counted = Counted::new(caller, Share::default());
        Some((Ok::<_, io::Error>(Gathered::new(counted)), (door, failures)))
    });
    let patience = peers.patience();
    Server::builder()
        .initial_connection_window_size(ENTRIES_WINDOW)
        .initial_stream_window_size(ENTRIES_WINDOW)
        .max_frame_size(FRAME_BYTES_MAX)
        .http2_keepalive_interval(Some(patience))
        .http2_keepalive_timeout(Some(patience))
        .layer(InterceptorLayer::new(move |call| peers.recognise(call)))
        .add_routes(routes)
        .serve_with_incoming_shutdown(callers, stopping)
        .await
}

/// The next caller. When none can be let in (most likely for want of file descriptors) the callers wait in the kernel's queue.
async fn admit(door: &mut dyn Door, failures: &mut u32) -> Box<dyn Wire> {
    loop {
        match door.accept().await {
            Ok(caller) => return caller,
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
                ) => {}
            Err(error) => {
                if failures.is_multiple_of(FAILURES_PER_WARNING) {
                    tracing::warn!(
                        "cannot accept a peer's connection: {error}; raise the limit of open files (ulimit -n)"
                    );
                }
                *failures = failures.wrapping_add(1);
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Tcp;

    fn peers(cluster: u64, own: u64) -> Peers {
        Peers::new(ClusterId(cluster), MemberId(own), Arc::new(Tcp::default()), Duration::from_secs(1))
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
    fn a_member_that_was_removed_is_told_so_and_heeds_it() {
        let (here, gone, other) = (peers(0xc, 1), peers(0xc, 2), peers(0xc, 3));
        here.shun([2].into_iter());
        let refusal = here.caller(gone.address(1, ()).metadata()).expect_err("it was removed");
        other.heed(&refusal);
        other.heed(&Status::permission_denied("of another kind"));
        assert!(!*other.left().borrow());
        assert!(here.caller_or_leaver(gone.address(1, ()).metadata()).is_ok());
        gone.heed(&refusal);
        assert!(*gone.left().borrow());
        assert!(here.caller(other.address(1, ()).metadata()).is_ok());
        here.shun([1, 2].into_iter());
        assert!(*here.left().borrow());
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
