//! What the recipes' tests run on: a whole server in memory ([`store::Store`], a `Primitives`) that misbehaves where it is told to,
//! and [`tasks::Tasks`], which runs clients by hand, so that a test decides who goes on and when. No thread, clock or chance.
//!
//! ```ignore
//! let store = Store::default();
//! let mut tasks = Tasks::default();
//! let waiter = tasks.start(wait_for_lock(store.clone()));
//! tasks.settle();                              // everybody goes on until all wait
//! assert_eq!(waiter.result(), None);
//! store.on_txn(0, Fault::ReplyLost);           // the next txn is done, its caller hears `Unknown`
//! store.advance(10_000);                       // milliseconds; leases that fall due end on the way
//! tasks.settle();
//! ```

// Each test program uses its part of this.
#![allow(dead_code, unused_imports)]

pub mod conformance;
pub mod explore;
pub mod store;
pub mod tasks;

pub use store::{Calls, Fault, Store};
pub use tasks::{Started, Tasks, run};
