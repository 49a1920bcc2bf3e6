//! The words of the wire: who is calling, whether what they ask is well-formed, a question to the node, and the answer
//! with its header or its status. Each service holds only the handles it needs and knows nothing of Raft or of files.

mod auth;
mod caller;
mod cluster;
mod elections;
mod header;
mod health;
mod kv;
mod lease;
mod locks;
mod maintenance;
mod measured;
mod reason;
mod reflection;
mod registry;
mod reserved;
mod sessions;
mod status;
mod v3election;
mod v3lock;
mod waiting;
mod watch;
mod wording;

use tenure_grpc::etcdserverpb::auth_server::AuthServer;
use tenure_grpc::etcdserverpb::cluster_server::ClusterServer;
use tenure_grpc::etcdserverpb::kv_server::KvServer;
use tenure_grpc::etcdserverpb::lease_server::LeaseServer;
use tenure_grpc::etcdserverpb::maintenance_server::MaintenanceServer;
use tenure_grpc::etcdserverpb::watch_server::WatchServer;
use tenure_grpc::health::health_server::HealthServer;
use tenure_grpc::tenure_v1::elections_server::ElectionsServer;
use tenure_grpc::tenure_v1::locks_server::LocksServer;
use tenure_grpc::tenure_v1::registry_server::RegistryServer;
use tenure_grpc::tenure_v1::sessions_server::SessionsServer;
use tenure_grpc::v3electionpb::election_server::ElectionServer;
use tenure_grpc::v3lockpb::lock_server::LockServer;
use tokio::sync::watch::Receiver;
use tonic::service::Routes;

use crate::ids::{ClusterId, MemberId};
use crate::node::Node;
use header::Headers;
pub use measured::MeasuredLayer;
pub use wording::WordingLayer;

/// What a message may exceed `--max-request-bytes` by before it is refused unread: etcd's allowance.
const MESSAGE_OVERHEAD: usize = 512 << 10;

/// Snapshots and hashes under way at once: each holds a thread for as long as its client takes.
const WHOLE_READS_MAX: usize = 4;

/// Bounds that the services check before anything is proposed.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub request_bytes_max: usize,
    pub txn_operations_max: usize,
}

impl Limits {
    /// The largest message that is read at all.
    pub fn message_bytes_max(self) -> usize {
        self.request_bytes_max + MESSAGE_OVERHEAD
    }

    /// To put around the routes, so that the library's refusals are in etcd's words.
    pub fn wording(self) -> WordingLayer {
        WordingLayer { message_bytes_max: self.message_bytes_max() }
    }
}

/// All services of the client port. Streams that would never end by themselves end when `stopping` says so.
pub fn routes(
    node: &Node,
    cluster: ClusterId,
    member: MemberId,
    limits: Limits,
    stopping: &Receiver<bool>,
) -> Routes {
    let headers = Headers::new(cluster.0, member.0, node.consensus.leadership(), node.members.learning());
    let message_bytes_max = limits.message_bytes_max();
    let kv = kv::KvService {
        headers: headers.clone(),
        reader: node.reader.clone(),
        writer: node.writer.clone(),
        quota: node.quota.clone(),
        sweeper: node.sweeper.clone(),
        txn_operations_max: limits.txn_operations_max,
    };
    let lease = lease::LeaseService {
        headers: headers.clone(),
        leases: node.leases.clone(),
        quota: node.quota.clone(),
        view: node.view.clone(),
        stopping: stopping.clone(),
    };
    let cluster = cluster::ClusterService {
        headers: headers.clone(),
        members: node.members.clone(),
        read_index: node.read_index.clone(),
    };
    let maintenance = maintenance::MaintenanceService {
        headers: headers.clone(),
        view: node.view.clone(),
        consensus: node.consensus.clone(),
        writer: node.writer.clone(),
        quota: node.quota.clone(),
        clock: node.clock.clone(),
        members: node.members.clone(),
        whole_reads: std::sync::Arc::new(tokio::sync::Semaphore::new(WHOLE_READS_MAX)),
    };
    let watch = watch::WatchService::new(headers.clone(), node);
    let sessions =
        sessions::SessionService { headers: headers.clone(), here: node.here(), stopping: stopping.clone() };
    let elections = elections::ElectionsService::new(headers.clone(), node.here());
    let locks = locks::LocksService::new(headers.clone(), node.here());
    let v3lock = v3lock::LockService { headers: headers.clone(), here: node.here() };
    let v3election = v3election::ElectionService { headers: headers.clone(), here: node.here() };
    let registry = registry::RegistryService::new(headers.clone(), node.here(), stopping.clone());
    let auth = auth::AuthService { headers, view: node.view.clone() };
    macro_rules! sized {
        ($server:ident, $service:expr) => {
            $server::new($service)
                .max_decoding_message_size(message_bytes_max)
                .max_encoding_message_size(usize::MAX)
        };
    }
    introspection(stopping)
        .add_service(sized!(KvServer, kv))
        .add_service(sized!(WatchServer, watch))
        .add_service(sized!(LeaseServer, lease))
        .add_service(sized!(ClusterServer, cluster))
        .add_service(sized!(MaintenanceServer, maintenance))
        .add_service(sized!(AuthServer, auth))
        .add_service(sized!(LockServer, v3lock))
        .add_service(sized!(ElectionServer, v3election))
        .add_service(sized!(SessionsServer, sessions))
        .add_service(sized!(ElectionsServer, elections))
        .add_service(sized!(RegistryServer, registry))
        .add_service(sized!(LocksServer, locks))
}

/// What programs ask of a server before they know it.
fn introspection(stopping: &Receiver<bool>) -> Routes {
    Routes::new(HealthServer::new(health::HealthService { stopping: stopping.clone() }))
        .add_service(reflection::current())
        .add_service(reflection::former())
}
