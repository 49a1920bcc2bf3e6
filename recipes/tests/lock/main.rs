//! Locks on a server in memory: what each call does, the failures that others have had (recipes/README.md names these tests), random
//! and exhaustive interleavings.

#![allow(clippy::unwrap_used)]

mod acquiring;
mod exhaustive;
mod failures;
mod ground;
mod looking;
mod model;
#[path = "../support/mod.rs"]
mod support;
