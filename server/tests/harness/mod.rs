//! What the process-level tests stand on: real servers on loopback, the real etcd programs, and waiting by condition.
//! It knows processes, ports and files; it must not know what any test claims.

// Each test file is a program of its own and takes from here only what it needs.
#![allow(dead_code, unused_imports, clippy::unwrap_used)]

mod cluster;
mod http;
mod peers;
mod program;
mod server;
mod wait;

pub use cluster::Cluster;
pub use http::get;
pub use peers::{Etcd, NEW, OLD};
pub use program::{Finished, Program};
pub use server::{Launch, Server};
pub use wait::{Deadline, eventually};

/// The seed of a randomised test: `TENURE_SEED` to repeat a run, otherwise a new one. Print it before using it.
pub fn seed() -> u64 {
    match std::env::var("TENURE_SEED") {
        Ok(text) => text.parse().expect("TENURE_SEED must be a whole number"),
        Err(_) => rand::random(),
    }
}

/// Whether the long form of a test was asked for.
pub fn long() -> bool {
    std::env::var_os("TENURE_LONG").is_some()
}
