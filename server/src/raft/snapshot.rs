//! Snapshots of the state: a view of the store that costs nothing to take, read while writes go on. Making one durable is
//! what allows the log before it to be purged. One that a leader sends is filled into a store beside the live one, and
//! takes its place in one step once all of it is here.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use openraft::storage::RaftSnapshotBuilder;
use prost::Message;
use tenure_disk::store::{Installer, Sealed, Snapshot as StoreSnapshot};
use tenure_proto::internal;
use tenure_state::{Fatal, Load, Machine, Place, Revision};

use super::codec;
use super::types::{LogId, StoredMembership, TypeConfig};
use super::view::View;
use crate::simulation;

pub type Meta = openraft::type_config::alias::SnapshotMetaOf<TypeConfig>;
pub type Snapshot = openraft::type_config::alias::SnapshotOf<TypeConfig, Data>;

/// Where a snapshot's contents are.
pub enum Data {
    /// In the store of this member, to be read.
    Kept(StoreSnapshot),
    /// Beside the store of this member, to take its place.
    Received(Box<Received>),
}

/// Snapshots that are being sent to followers. While there are any, none is taken here: the next would purge the log that
/// the follower needs after this one, and it would never catch up.
#[derive(Clone, Default)]
pub struct Outgoing(Arc<AtomicUsize>);

/// For as long as one is being sent.
pub struct Sending(Outgoing);

impl Outgoing {
    pub fn begin(&self) -> Sending {
        self.0.fetch_add(1, Ordering::Relaxed);
        Sending(self.clone())
    }

    pub fn any(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Records, about a second's worth.
const LOADED_TOLD_EVERY: u64 = 1_000_000;

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
        Ok(Snapshot { meta: self.meta, snapshot: Data::Kept(self.snapshot.map_err(io::Error::other)?) })
    }
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    type SnapshotData = Data;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let view = self.view.clone();
        // The disk may take tens of milliseconds here, and the runtime has other work.
        simulation::blocking(move || view.store().sync())
            .await
            .map_err(io::Error::other)?
            .map_err(io::Error::other)?;
        let snapshot = self.snapshot.clone().map_err(io::Error::other)?;
        Ok(Snapshot { meta: self.meta.clone(), snapshot: Data::Kept(snapshot) })
    }
}

/// What a snapshot speaks of, by the `Applied` that lies within it.
///
/// # Errors
/// It is nothing that a leader can have sent.
pub fn meta(applied: &internal::Applied) -> io::Result<Meta> {
    let last_log_id = applied.position.as_ref().map(codec::position);
    Ok(Meta { last_log_id, last_membership: codec::stored_membership(applied)? })
}

/// A store and a machine that are being filled from a snapshot. Every method may block for the disk; so does dropping it.
pub struct Filling {
    installer: Installer,
    load: Load,
    applied: Bytes,
}

/// A whole state, durable beside the live one.
pub struct Received {
    sealed: Sealed,
    machine: Machine,
}

impl Filling {
    pub fn begin(view: &View, applied: internal::Applied, record_bytes_max: usize) -> io::Result<Filling> {
        let load = Load::new(record_bytes_max, Revision(applied.revision), Revision(applied.compacted));
        let installer = view.store().begin_install().map_err(io::Error::other)?;
        let applied = internal::Applied { installed: true, ..applied };
        Ok(Filling { installer, load, applied: applied.encode_to_vec().into() })
    }

    pub fn record(&mut self, place: Place, bytes: Bytes) -> io::Result<()> {
        // A copy: the bytes are part of a larger piece, which must not stay in memory for them.
        self.load.record(place, Bytes::copy_from_slice(&bytes)).map_err(io::Error::other)?;
        self.installer.record(place, bytes).map_err(io::Error::other)
    }

    pub fn pair(&mut self, key: Bytes, value: Bytes) -> io::Result<()> {
        self.load.meta(&key, &value).map_err(io::Error::other)?;
        self.installer.meta(key, value).map_err(io::Error::other)
    }

    pub fn finish(self) -> io::Result<Received> {
        let sealed = self.installer.seal(self.applied).map_err(io::Error::other)?;
        Ok(Received { sealed, machine: self.load.finish() })
    }

    fn copy(view: &View, snapshot: &StoreSnapshot, record_bytes_max: usize) -> io::Result<Received> {
        let applied = snapshot.applied().cloned().unwrap_or_default();
        let applied = internal::Applied::decode(applied).map_err(io::Error::other)?;
        let mut filling = Filling::begin(view, applied, record_bytes_max)?;
        for record in snapshot.records() {
            let (place, bytes) = record.map_err(io::Error::other)?;
            filling.record(place, bytes)?;
        }
        for pair in snapshot.meta() {
            let (key, value) = pair.map_err(io::Error::other)?;
            filling.pair(key, value)?;
        }
        filling.finish()
    }
}

/// Replaces the whole state by a snapshot's. Short, but for a small file's sync, when the snapshot was received.
pub fn install(view: &View, data: Data, record_bytes_max: usize) -> io::Result<()> {
    let received = match data {
        Data::Received(received) => *received,
        Data::Kept(snapshot) => Filling::copy(view, &snapshot, record_bytes_max)?,
    };
    // Readers find the machine and the store of the one state or of the other.
    let mut machine = view.machine.write();
    received.sealed.switch().map_err(io::Error::other)?;
    *machine = received.machine;
    Ok(())
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
    for (record, count) in snapshot.records_ahead()?.zip(1_u64..) {
        let (place, bytes) = record?;
        load.record(place, bytes)?;
        if count.is_multiple_of(LOADED_TOLD_EVERY) {
            tracing::info!(records = count, "still loading the store");
        }
    }
    for pair in snapshot.meta() {
        let (key, value) = pair?;
        load.meta(&key, &value)?;
    }
    Ok(load.finish())
}
