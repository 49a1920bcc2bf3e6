//! What is durable on one member: the Raft log (`wal`), on a seam to the file system (`disk`), and the state it leads to
//! (`store`).
//!
//! Why a crate: these files decide whether an acknowledged write survives, so they are kept apart from everything that
//! changes more often, and are tested to the byte on a disk that lies (`fake`). It knows nothing of consensus or of the
//! network: the log's payloads are opaque bytes.

pub mod background;
pub mod backup;
pub mod disk;
pub mod fake;
pub mod store;
pub mod wal;

pub use disk::{DirLock, Disk, DiskFile, Files};
pub use fake::{FakeDisk, Loss};
