//! Snapshots of the state: a view of the store that costs nothing to take, read while writes go on. Making one durable
//! is what allows the log before it to be purged.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use openraft::storage::RaftSnapshotBuilder;
use prost::Message;
use tenure_disk::store::Snapshot as StoreSnapshot;
use tenure_proto::internal;
use tenure_state::{Fatal, Load, Machine, Revision};

use super::types::{LogId, StoredMembership, TypeConfig};
use super::view::View;

pub type Meta = openraft::type_config::alias::SnapshotMetaOf<TypeConfig>;
pub type Snapshot = openraft::type_config::alias::SnapshotOf<TypeConfig, StoreSnapshot>;

pub struct SnapshotBuilder {
    view: Arc<View>,
    meta: Meta,
    /// An error is kept until somebody can be told.
    snapshot: Result<StoreSnapshot, Fatal>,
}

impl SnapshotBuilder {
    pub fn new(view: &Arc<View>, applied: Option<LogId>, membership: StoredMembership) -> SnapshotBuilder {
        let meta = Meta { last_log_id: applied, last_membership: membership };
        SnapshotBuilder { view: view.clone(), meta, snapshot: view.store().snapshot() }
    }

    /// The snapshot as it is: for a peer, which needs it whole, not durable here.
    pub fn current(self) -> io::Result<Snapshot> {
        Ok(Snapshot { meta: self.meta, snapshot: self.snapshot.map_err(io::Error::other)? })
    }
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    type SnapshotData = StoreSnapshot;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let view = self.view.clone();
        // The disk may take tens of milliseconds here, and the runtime has other work.
        tokio::task::spawn_blocking(move || view.store().sync())
            .await
            .map_err(io::Error::other)?
            .map_err(io::Error::other)?;
        let snapshot = self.snapshot.clone().map_err(io::Error::other)?;
        Ok(Snapshot { meta: self.meta.clone(), snapshot })
    }
}

/// Replaces the whole state by a snapshot's.
pub fn install(
    view: &View,
    meta: &Meta,
    snapshot: StoreSnapshot,
    record_bytes_max: usize,
) -> io::Result<Machine> {
    let applied = snapshot.applied().cloned().unwrap_or_default();
    let floor = internal::Applied::decode(applied.clone()).map_err(io::Error::other)?;
    let mut load = Load::new(record_bytes_max, Revision(floor.revision), Revision(floor.compacted));
    let mut installer = view.store().begin_install().map_err(io::Error::other)?;
    for record in snapshot.records() {
        let (place, bytes) = record.map_err(io::Error::other)?;
        load.record(place, Bytes::copy_from_slice(&bytes)).map_err(io::Error::other)?;
        installer.record(place, bytes).map_err(io::Error::other)?;
    }
    for pair in snapshot.meta() {
        let (key, value) = pair.map_err(io::Error::other)?;
        load.meta(&key, &value).map_err(io::Error::other)?;
        installer.meta(key, value).map_err(io::Error::other)?;
    }
    debug_assert_eq!(floor.position.as_ref().map(super::codec::position), meta.last_log_id);
    installer.finish(applied).map_err(io::Error::other)?;
    Ok(load.finish())
}

/// Rebuilds the machine from what the store holds, at start.
pub fn load(store: &tenure_disk::store::Store, record_bytes_max: usize) -> Result<Machine, Fatal> {
    let floor = match store.applied() {
        Some(bytes) => internal::Applied::decode(bytes)
            .map_err(|error| Fatal(format!("the store's applied index does not decode: {error}")))?,
        None => return Ok(Machine::new(record_bytes_max)),
    };
    let mut load = Load::new(record_bytes_max, Revision(floor.revision), Revision(floor.compacted));
    let snapshot = store.snapshot()?;
    for record in snapshot.records() {
        let (place, bytes) = record?;
        // A copy: the bytes are part of a whole block, which must not stay in memory for them.
        load.record(place, Bytes::copy_from_slice(&bytes))?;
    }
    for pair in snapshot.meta() {
        let (key, value) = pair?;
        load.meta(&key, &value)?;
    }
    Ok(load.finish())
}
