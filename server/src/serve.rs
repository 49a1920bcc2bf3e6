//! From a configuration to a member that serves, and from a signal to one that has stopped: the wiring, and nothing else.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustix::mm::{MlockAllFlags, mlockall};
use tenure_disk::Files;
use tenure_disk::store::{Store, StoreEvent, StoreOptions};
use tenure_disk::wal::{self, Wal, WalOptions};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tonic::service::Routes;
use tonic::transport::Server;

use crate::authority::Mended;
use crate::clock::{Clock, SystemClock};
use crate::config::{AutoCompaction, Config, Listen, ListenUrl};
use crate::data_dir::{DataDir, Identity, Origin};
use crate::gateway::{GatewayLayer, Pages, PagesAloneLayer};
use crate::gathered::Gathered;
use crate::ids::{Dice, MemberId};
use crate::metrics::{Disk, Grpc, Meters, Registry};
use crate::net::{Door, Net, Tcp, listener};
use crate::node::{Node, Pace, Retention, Rules, Settings};
use crate::peers::{self, Peers};
use crate::scrape::Scrape;
use crate::supervisor::Supervisor;
use crate::traffic::{Counted, Share, Traffic};
use crate::{api, data_dir, joining};

/// How long requests under way may take to end once the member is told to stop.
const DRAIN: Duration = Duration::from_secs(5);
/// Between two tries to accept a connection after one has failed, and how many of them (a minute's) one warning stands for.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
const FAILURES_PER_WARNING: u32 = 600;
/// Newest log entries kept in memory, bytes: what is about to be applied, and what a follower a moment behind needs.
const LOG_TAIL_BYTES: u64 = 16 << 20;
/// Flow-control windows of a client's connection and of one stream, bytes. The HTTP/2 library takes many small frames that
/// nobody read yet for an attack, and allows for half the connection's window of them: a client that renews 100,000 leases
/// in one burst needs this much.
const CONNECTION_WINDOW: u32 = 64 << 20;
const STREAM_WINDOW: u32 = 2 << 20;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Config(#[from] crate::config::Error),
    #[error(transparent)]
    DataDir(#[from] data_dir::Error),
    #[error("{0}")]
    Log(#[from] tenure_disk::wal::OpenError),
    #[error("{0}")]
    Store(#[from] tenure_disk::store::OpenError),
    #[error("cannot listen on {address}: {source}; is another server running there? choose another --{flag}")]
    Listen { address: SocketAddr, flag: &'static str, source: std::io::Error },
    #[error(transparent)]
    Joining(#[from] joining::Error),
    #[error("{0}")]
    Node(#[from] crate::node::StartError),
    #[error(
        "cannot lock memory as --memory-mlock asks: {0}; allow it (LimitMEMLOCK=infinity in the unit, or ulimit -l), or leave the flag out"
    )]
    MemoryLock(rustix::io::Errno),
    #[error("cannot wait for signals: {0}")]
    Signals(std::io::Error),
    #[error(
        "member {0} was removed from the cluster, and its id never returns; to have it back, add it anew (etcdctl member add) and \
         start it with an empty --data-dir and --initial-cluster-state=existing"
    )]
    Removed(MemberId),
    #[error("this member had to stop: {0}")]
    Failed(String),
}

/// Serves until SIGTERM or SIGINT; returns once all is in good order on disk. The supervisor hears when it begins and ends.
pub async fn run(config: Config, supervisor: &Supervisor) -> Result<(), Error> {
    if config.memory_locked {
        mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE).map_err(Error::MemoryLock)?;
    }
    let disk = Arc::new(Files);
    let net: Arc<dyn Net> = Arc::new(Tcp { ports_shared: config.listen.ports_shared });
    let data_dir = DataDir::open(&*disk, &config.data_dir)?;
    let (identity, new) = identity(&config, &data_dir, &net).await?;
    let listeners = listen(&config.listen, &config.listen.client, "listen-client-urls")?;
    let metrics_listeners = listen(&config.listen, &config.listen.metrics, "listen-metrics-urls")?;
    let doors = doors(&*net, &config.listen.peer).await?;
    if new {
        data_dir.claim(&*disk, &identity)?;
    }
    let registry = Arc::new(Registry::default());
    let meters = Arc::new(Meters::new(&registry, config.warning_apply_duration));
    let node = start(&config, disk, &data_dir, &identity, net, meters).await?;

    let (stop, stopping) = watch::channel(false);
    let mut peer_servers = tokio::task::JoinSet::new();
    for door in doors {
        let stopping = stopped(stopping.clone());
        peer_servers.spawn(peers::serve(door, node.peer_routes(), node.peers.clone(), stopping));
    }
    let clients = Arc::new(Traffic::default());
    let scrape = Scrape::new(&node, (identity.cluster, identity.member), registry.clone(), clients.clone());
    let pages = Arc::new(Pages::new(&node, scrape, &registry));
    let mut servers = Servers::new();
    // Before this member serves clients: that it does not must be seen.
    serve_pages(&config, &pages, metrics_listeners, &stopping, &mut servers);
    tokio::select! {
        biased;
        ready = node.ready(identity.member) => ready?,
        () = node.members.removed() => {
            peer_servers.shutdown().await;
            node.stop().await;
            return Err(Error::Removed(identity.member));
        }
        signal = signal() => {
            tracing::info!("received {}: stopping before this member served", signal.map_err(Error::Signals)?);
            peer_servers.shutdown().await;
            node.stop().await;
            return Ok(());
        }
    }

    let grpc = Arc::new(Grpc::new(&registry, config.warning_unary_request_duration));
    let front = Front { pages, grpc, clients };
    serve_clients(&config, &node, &identity, front, listeners, &stopping, &mut servers);
    announce(&config, &identity);
    supervisor.ready();

    let ended = tokio::select! {
        told = told_to_stop(&node) => told,
        failure = failure(&node) => Err(Error::Failed(failure)),
        () = node.members.removed() => Err(Error::Removed(identity.member)),
    };
    supervisor.stopping();
    stop.send_replace(true);
    node.watches.stop();
    if tokio::time::timeout(DRAIN, async { while servers.join_next().await.is_some() {} }).await.is_err() {
        tracing::warn!("some requests did not end in {} s; they are cut off", DRAIN.as_secs());
    }
    servers.shutdown().await;
    peer_servers.shutdown().await;
    node.stop().await;
    tracing::info!("stopped");
    ended
}

type Servers = tokio::task::JoinSet<Result<(), tonic::transport::Error>>;

/// What stands before the services.
struct Front {
    pages: Arc<Pages>,
    grpc: Arc<Grpc>,
    clients: Arc<Traffic>,
}

/// A server for each listener where there are only pages.
fn serve_pages(
    config: &Config,
    pages: &Arc<Pages>,
    listeners: Vec<TcpListener>,
    stopping: &watch::Receiver<bool>,
    servers: &mut Servers,
) {
    for listener in listeners {
        let mut server = server(config).layer(PagesAloneLayer::new(pages.clone()));
        let callers = incoming(listener, Arc::default());
        let server = server.add_routes(Routes::default());
        servers.spawn(server.serve_with_incoming_shutdown(callers, stopped(stopping.clone())));
    }
}

/// A server for each listener: gRPC, and the same as JSON.
fn serve_clients(
    config: &Config,
    node: &Node,
    identity: &Identity,
    front: Front,
    listeners: Vec<TcpListener>,
    stopping: &watch::Receiver<bool>,
    servers: &mut Servers,
) {
    let limits = api::Limits {
        request_bytes_max: config.limits.request_bytes_max,
        txn_operations_max: config.limits.txn_ops_max,
    };
    let routes = api::routes(node, identity.cluster, identity.member, limits, stopping);
    let gateway = GatewayLayer::new(config.http.clone(), front.pages, limits.message_bytes_max());
    let measured = api::MeasuredLayer::new(front.grpc);
    for listener in listeners {
        let mut server =
            server(config).layer(gateway.clone()).layer(measured.clone()).layer(limits.wording());
        let callers = incoming(listener, front.clients.clone());
        let server = server.add_routes(routes.clone());
        servers.spawn(server.serve_with_incoming_shutdown(callers, stopped(stopping.clone())));
    }
}

fn listen(how: &Listen, urls: &[ListenUrl], flag: &'static str) -> Result<Vec<TcpListener>, Error> {
    let mut listeners = Vec::new();
    for address in urls.iter().map(ListenUrl::address) {
        let listener = listener(address, how.ports_shared);
        listeners.push(listener.map_err(|source| Error::Listen { address, flag, source })?);
    }
    Ok(listeners)
}

/// Where the other members call.
async fn doors(net: &dyn Net, urls: &[ListenUrl]) -> Result<Vec<Box<dyn Door>>, Error> {
    let mut doors = Vec::new();
    for address in urls.iter().map(ListenUrl::address) {
        let door = net.listen(address).await;
        doors.push(door.map_err(|source| Error::Listen { address, flag: "listen-peer-urls", source })?);
    }
    Ok(doors)
}

async fn stopped(mut stopping: watch::Receiver<bool>) {
    // An error means the same: the one who would tell is gone.
    let _ = stopping.wait_for(|stop| *stop).await;
}

/// Who this member is, and whether its directory has yet to be told.
async fn identity(
    config: &Config,
    data_dir: &DataDir,
    net: &Arc<dyn Net>,
) -> Result<(Identity, bool), Error> {
    if let Some(identity) = data_dir.identity(config.initial_cluster_token())? {
        return Ok((identity, false));
    }
    let patience = config.raft.election_timeout;
    Ok((joining::begin(&config.bootstrap()?, &config.name, net, patience).await?, true))
}

/// Opens what is on disk and starts the node on it.
async fn start(
    config: &Config,
    disk: Arc<Files>,
    data_dir: &DataDir,
    identity: &Identity,
    net: Arc<dyn Net>,
    meters: Arc<Meters>,
) -> Result<Node, Error> {
    let (log_meters, store_meters) = (meters.clone(), meters.clone());
    let log_dir = config.wal_dir.clone().unwrap_or_else(|| data_dir.log_dir());
    let log_options = WalOptions {
        segment_bytes: config.raft.log_segment_bytes,
        tail_bytes_max: LOG_TAIL_BYTES,
        observer: wal::Observer::new(move |event| tell_of_log(event, &log_meters.disk)),
        ..WalOptions::default()
    };
    #[cfg(feature = "planted")]
    let disk = {
        drop(disk);
        crate::planted::disk()
    };
    let wal = Wal::open(disk, &log_dir, log_options)?;
    if let Some(torn) = &wal.recovery().torn {
        tracing::info!(file = %torn.file.display(), offset = torn.offset, bytes = torn.bytes,
            "dropped a write that was cut short before it was acknowledged");
    }
    let store_options = StoreOptions {
        observer: Arc::new(move |event| tell_of_store(event, &store_meters.disk)),
        ..StoreOptions::default()
    };
    let store = Store::open(&data_dir.state_dir(), store_options)?;
    let patience = config.raft.election_timeout;
    if wal.state().last.is_none() && wal.vote().is_none() && store.applied().is_none() {
        joining::check_unused(identity, &net, patience).await?;
    }

    let clock: Arc<dyn Clock> = Arc::new(SystemClock::start());
    let peers = Peers::new(identity.cluster, identity.member, net, patience);
    Ok(Node::start(settings(config, identity, meters), clock, peers, wal, store).await?)
}

fn settings(config: &Config, identity: &Identity, meters: Arc<Meters>) -> Settings {
    Settings {
        member: identity.member,
        token: identity.token.clone(),
        name: config.name.clone(),
        client_urls: config.advertise_client_urls.iter().map(ToString::to_string).collect(),
        founders: match identity.origin {
            Origin::Founded => identity.first_members.clone(),
            Origin::Joined => BTreeMap::new(),
        },
        heartbeat: config.raft.heartbeat_interval,
        election: config.raft.election_timeout,
        snapshot_entries: config.raft.snapshot_count,
        kept_entries: config.raft.snapshot_catchup_entries,
        pre_vote: config.raft.pre_vote,
        membership: Rules {
            strict: config.membership.strict_reconfig_check,
            learners_max: config.membership.learners_max,
        },
        sweep: Pace {
            keys_at_once: config.compaction.batch_limit as usize,
            rest: config.compaction.sleep_interval,
        },
        record_bytes_max: usize::try_from(config.value_cache_bytes).unwrap_or(usize::MAX),
        request_bytes_max: config.limits.request_bytes_max,
        quota_bytes_max: config.limits.quota_bytes,
        retention: match config.compaction.auto {
            AutoCompaction::Off => Retention::Everything,
            AutoCompaction::Periodic(period) => Retention::Time(period),
            AutoCompaction::Revision(kept) => Retention::Revisions(kept),
        },
        watch_progress_interval: config.watch_progress_notify_interval,
        audit_interval: config.corrupt_check_time,
        first_ticket: Dice::from_system().number(),
        meters,
    }
}

/// Says in the log what the write-ahead log's threads have to say, and counts it.
fn tell_of_log(event: wal::WalEvent<'_>, meters: &Disk) {
    match event {
        wal::WalEvent::Trouble(what) => tracing::warn!("the log has trouble: {what}"),
        wal::WalEvent::Broken(what) => tracing::error!("the log is broken, this member stops: {what}"),
        wal::WalEvent::Synced { entries, bytes, write, sync } => {
            meters.log_synced(entries, bytes, write, sync)
        }
        wal::WalEvent::SegmentBegun { .. } | wal::WalEvent::SegmentRemoved { .. } => {}
    }
}

/// Says in the log what the store's thread has to say, and counts it.
fn tell_of_store(event: StoreEvent, meters: &Disk) {
    match event {
        StoreEvent::Stalled { took } => {
            meters.store_stalled();
            tracing::warn!(?took, "the store was behind; the disk is slow or full")
        }
        StoreEvent::Reclaimed { took, before, after } => {
            meters.space_reclaimed(took);
            tracing::info!(?took, before, after, "gave back the disk space of dropped records");
        }
        StoreEvent::ReclaimFailed(why) => tracing::warn!("could not give back disk space: {why}"),
        StoreEvent::Broken(fatal) => tracing::error!("the store is broken, this member stops: {fatal}"),
        StoreEvent::Committed { took, .. } => {
            meters.store_committed(took);
            #[cfg(feature = "planted")]
            crate::planted::dither();
        }
        StoreEvent::Synced { took } => meters.store_synced(took),
    }
}

fn server(config: &Config) -> Server {
    Server::builder()
        .accept_http1(true)
        .tcp_nodelay(true)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .initial_stream_window_size(STREAM_WINDOW)
        .max_concurrent_streams(config.limits.concurrent_streams_max)
        .http2_keepalive_interval(config.keepalive.interval)
        .http2_keepalive_timeout(config.keepalive.timeout)
}

fn incoming(
    listener: TcpListener,
    traffic: Arc<Traffic>,
) -> impl futures::Stream<Item = std::io::Result<Mended<Gathered<Counted<TcpStream>>>>> {
    futures::stream::unfold((listener, 0, traffic), |(listener, mut failures, traffic)| async move {
        let connection = accept(&listener, &mut failures).await;
        // If this fails, the caller is gone or waits a moment longer; neither is a reason to turn it away.
        let _ = connection.set_nodelay(true);
        let counted = Counted::new(connection, Share::of(traffic.clone()));
        Some((Ok(Mended::new(Gathered::new(counted))), (listener, failures, traffic)))
    })
}

/// The next caller. When none can be let in (most likely for want of file descriptors) the callers wait in the kernel's queue.
async fn accept(listener: &TcpListener, failures: &mut u32) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((connection, _)) => return connection,
            Err(error)
                if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset) => {}
            Err(error) => {
                if failures.is_multiple_of(FAILURES_PER_WARNING) {
                    tracing::warn!(
                        "cannot accept connections: {error}; raise the limit of open files (ulimit -n)"
                    );
                }
                *failures = failures.wrapping_add(1);
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Says that the member serves, where, and what to try.
fn announce(config: &Config, identity: &Identity) {
    let urls: Vec<String> = config.listen.client.iter().map(|url| url.url().to_string()).collect();
    tracing::info!(
        name = config.name, member = %identity.member, cluster = %identity.cluster, urls = urls.join(","),
        data_dir = %config.data_dir.display(), "ready to serve client requests"
    );
    tracing::info!("try: etcdctl --endpoints={} put hello world", urls.first().map_or("", String::as_str));
}

/// Returns when this member is told to stop, and has handed over what it led.
async fn told_to_stop(node: &Node) -> Result<(), Error> {
    let name = signal().await.map_err(Error::Signals)?;
    tracing::info!("received {name}: stopping");
    node.members.pass_lead_on().await;
    Ok(())
}

async fn signal() -> std::io::Result<&'static str> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = terminate.recv() => Ok("SIGTERM"),
        _ = interrupt.recv() => Ok("SIGINT"),
    }
}

/// Returns when this member can take no further part: its disk failed.
async fn failure(node: &Node) -> String {
    loop {
        if let Some(failure) = node.consensus.failure() {
            return failure;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
