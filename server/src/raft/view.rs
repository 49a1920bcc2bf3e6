//! The state as it stands after the last applied entry: the machine in memory and the store beneath it. Apply is the
//! only writer; everybody else reads.

use parking_lot::{RwLock, RwLockReadGuard};
use tenure_disk::store::Store;
use tenure_state::{Fatal, Key, Machine};

/// Shared by the room that applies and by those that read. The lock is held for one bounded step at a time, never across
/// an await.
pub struct View {
    pub(super) machine: RwLock<Machine>,
    store: Store,
}

impl View {
    pub fn new(machine: Machine, store: Store) -> View {
        View { machine: RwLock::new(machine), store }
    }

    pub fn machine(&self) -> RwLockReadGuard<'_, Machine> {
        self.machine.read()
    }

    pub fn store(&self) -> &Store {
        &self.store
    }

    /// One slice of the walk that removes what compaction made unreadable; `after` is where the last one ended. Gives
    /// how many records went, and where to go on, None at the end. Waits when the store is behind.
    pub async fn sweep(&self, after: Option<Key>, keys_max: usize) -> Result<(usize, Option<Key>), Fatal> {
        self.store.room().await?;
        let mut machine = self.machine.write();
        let (writes, last) = machine.sweep(after.as_ref(), keys_max);
        let dropped = writes.len();
        if let (false, Some(applied)) = (writes.is_empty(), self.store.applied()) {
            // Apply is kept out by the lock, so the store's newest mark still speaks of this very state.
            self.store.write(writes, applied)?;
        }
        Ok((dropped, last))
    }
}
