//! The messages of the wire: etcd's v3 API, and what Tenure's members write to their log and say to each other.
//! Floor 0: everybody imports this, and it imports nothing of ours. It knows neither gRPC (that is `tenure-grpc`)
//! nor JSON nor meaning.
//!
//! ```text
//! proto/
//!   etcd/       the client API. Package, message and field names and numbers are etcd's, because they are the
//!               wire; each RPC carries its HTTP path as a `google.api.http` rule. One file per service;
//!               header, kv and auth.proto are what they share, rpc.proto imports all of etcdserverpb;
//!               health.proto is gRPC's own.
//!   tenure/v1/  Tenure's own services. One file per service; guard.proto is what they share.
//!   internal/   Tenure's log entries, snapshots and peer protocol. Ours to change.
//!   google/api/ the least of the HTTP annotations that the above need.
//!   sources.rs  which of these files are compiled; build.rs and grpc/build.rs generate from them, without
//!               protoc.
//!   src/        this crate: generated messages, and [`DESCRIPTORS`].
//!   grpc/       the crate `tenure-grpc`: servers and clients, over the messages of this crate.
//!   tests/      compares etcd/ with other people's builds of the same API, kept as tables in tests/peer/.
//! ```
//!
//! How names become Rust: `bytes` fields are [`bytes::Bytes`], maps are `BTreeMap`, `ID` is `id`, `grantedTTL` is
//! `granted_ttl`, `peerURLs` is `peer_urls`, `HashKVRequest` is `HashKvRequest`, `Permission.Type` is
//! `permission::Type`.

/// All files compiled here and those they import, as an encoded `google.protobuf.FileDescriptorSet`: with the
/// options, so also the HTTP rules, and without comments.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

macro_rules! generated {
    ($package:literal) => {
        include!(concat!(env!("OUT_DIR"), "/", $package, ".rs"));
    };
}

/// Stored pairs and the events that change them.
pub mod mvccpb {
    generated!("mvccpb");
}

/// Users, roles and permissions.
pub mod authpb {
    generated!("authpb");
}

/// Requests and responses of the services KV, Watch, Lease, Cluster, Maintenance and Auth.
pub mod etcdserverpb {
    generated!("etcdserverpb");
}

/// The Lock service's messages.
pub mod v3lockpb {
    generated!("v3lockpb");
}

/// The Election service's messages.
pub mod v3electionpb {
    generated!("v3electionpb");
}

/// gRPC's health service (`grpc.health.v1`).
pub mod health {
    generated!("grpc.health.v1");
}

/// Packages of Tenure's own, at the depth from which generated code reaches for the others.
pub mod tenure {
    /// Log, snapshots and peers (`tenure.internal`).
    pub mod internal {
        generated!("tenure.internal");
    }

    /// Tenure's own services: sessions, locks, elections, registry (`tenure.v1`).
    pub mod v1 {
        generated!("tenure.v1");
    }
}

pub use tenure::internal;
