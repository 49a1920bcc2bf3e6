//! Tenure's server as a library: the binary in `main.rs` only wires these rooms together.

pub mod api;
mod authority;
pub mod background;
pub mod backup;
pub mod checksum;
pub mod clock;
pub mod config;
pub mod data_dir;
mod gateway;
mod gathered;
pub mod ids;
pub mod joining;
pub mod logging;
pub mod metrics;
pub mod net;
pub mod node;
pub mod peers;
mod planted;
pub mod raft;
pub mod restore;
pub mod scrape;
pub mod serve;
pub mod simulation;
pub mod supervisor;
mod traffic;
