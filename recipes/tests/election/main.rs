//! Elections on a server in memory: what others got wrong (rows E1 to E15 of README.md), each told as a story with its outcome.

#![allow(clippy::unwrap_used)]

mod exhaustive;
mod ground;
mod model;
mod races;
mod slow;
mod stories;
#[path = "../support/mod.rs"]
mod support;
mod switchovers;
