//! Tenure's server as a library: the binary in `main.rs` only wires these rooms together.

pub mod clock;
pub mod config;
pub mod ids;
pub mod logging;
