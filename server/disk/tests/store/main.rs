//! The store as its owner sees it, one file per concern, in one test program because each would link the database anew.

#![allow(clippy::unwrap_used)]

mod crash;
mod damage;
mod fixture;
mod install;
mod memory;
mod model;
mod reading;
mod writing;
