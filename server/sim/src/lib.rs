//! A simulated cluster: the server's own code, every member on a runtime, a network, a clock and a disk that this crate
//! moves on, by one thread (a second one reads a store ahead when a member starts, and is waited for), from one seed. What libraries
//! take from the machine, its time (`time.rs`) and the order in which tasks are dropped, decides nothing. What goes
//! wrong is drawn from the seed, what must hold is checked all along, and a seed that breaks a law breaks it again.
//!
//! Why not a library for it: those at hand drop segments where TCP would send them again, give all hosts one pace of time,
//! and are more than what is needed here, which is `network.rs`.
//!
//! Nothing here may be known to the server: it sees a `Net`, a `Clock`, a disk and a store as it always does.

mod clients;
mod errand;
mod faults;
mod invariants;
mod journal;
mod member;
mod network;
mod time;
mod truth;
mod watching;
mod world;

pub use world::{Broken, Lived, Plan, Planted, live};
