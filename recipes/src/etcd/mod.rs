//! etcd's own recipes, key for key as its clients keep them, so that those which run a recipe themselves (Go's `concurrency`, jetcd,
//! `etcdctl lock` and `elect`) and those which ask a server's Lock and Election services stand in one line. Outside of [`crate::Root`]:
//! the names are the clients', and so are the keys.
//!
//! What differs from etcd's server is not seen on the wire: who waits is told as soon as his own key is gone, never that he holds what
//! he lost while waiting; observers miss no leader.

pub mod election;
pub mod line;
pub mod lock;
