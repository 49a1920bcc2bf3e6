//! tonic servers and clients of the services in `proto/`, over the messages of `tenure-proto`. A crate of its own
//! so that the pure crates, which need the messages, cannot reach tonic. Generated; it knows nothing of what a
//! service does.
//!
//! Service `KV` of package `etcdserverpb` is `etcdserverpb::kv_server::{Kv, KvServer}` and
//! `etcdserverpb::kv_client::KvClient`.

macro_rules! services {
    ($(#[$about:meta])* $module:ident, $package:literal) => {
        $(#[$about])*
        // What the generator writes is not ours to tidy.
        #[allow(clippy::all, clippy::unwrap_used, rustdoc::all)]
        pub mod $module {
            include!(concat!(env!("OUT_DIR"), "/", $package, ".rs"));
        }
    };
}

services!(
    /// KV, Watch, Lease, Cluster, Maintenance, Auth.
    etcdserverpb,
    "etcdserverpb"
);
services!(
    /// Lock.
    v3lockpb,
    "v3lockpb"
);
services!(
    /// Election.
    v3electionpb,
    "v3electionpb"
);
services!(
    /// gRPC's Health (`grpc.health.v1`).
    health,
    "grpc.health.v1"
);
services!(
    /// What members say to each other (`tenure.internal`).
    internal,
    "tenure.internal"
);
services!(
    /// Tenure's own: sessions, locks, elections, the registry (`tenure.v1`).
    tenure_v1,
    "tenure.v1"
);
