//! A disk in memory that lies as real ones do: what was not synced may vanish, whole or in part, when the power is cut;
//! writes can be short, space can end, a sync can fail, and bits can flip.
//!
//! Public because the tests of other crates and the simulator run on it. It must not know what is stored.
//!
//! Each file has two contents: what programs see, and what would be there after a power cut. A write changes the first;
//! a sync carries it to the second. Names work the same way, per directory.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::disk::{DirLock, Disk, DiskFile};

/// The unit in which a page cache writes back, and so the unit in which unsynced writes get lost.
const PAGE: u64 = 4096;

/// The fake disk. Clones share it; [`FakeDisk::fork`] copies it.
#[derive(Clone, Default)]
pub struct FakeDisk {
    world: Arc<Mutex<World>>,
}

/// What a power cut does to the writes and names that were not synced.
#[derive(Clone, Copy, Debug)]
pub enum Loss {
    /// All of them are lost.
    Everything,
    /// None is lost: the disk was just quick enough.
    Nothing,
    /// The first so many bytes of them arrived, in the order written; names did not.
    After(u64),
    /// Each 4 KiB page of each arrived or did not, and some names did, as the seed has it.
    Pages(u64),
    /// The same with pages of 512 bytes.
    Sectors(u64),
}

#[derive(Clone, Default)]
struct World {
    names: BTreeMap<PathBuf, u64>,
    names_durable: BTreeMap<PathBuf, u64>,
    names_unsynced: Vec<NameChange>,
    nodes: BTreeMap<u64, Node>,
    unsynced: Vec<Write>,
    locks: BTreeSet<PathBuf>,
    next_node: u64,
    /// Counts power cuts: handles from before one are dead.
    life: u64,
    faults: Faults,
    syncs: u64,
}

#[derive(Clone, Default)]
struct Node {
    seen: Vec<u8>,
    durable: Vec<u8>,
}

#[derive(Clone)]
struct Write {
    node: u64,
    offset: u64,
    bytes: Vec<u8>,
}

#[derive(Clone)]
enum NameChange {
    Put(PathBuf, u64),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
}

#[derive(Clone, Default)]
struct Faults {
    /// So many bytes may still be added to files.
    space_left: Option<u64>,
    /// No write takes more bytes than this.
    write_bytes_max: Option<usize>,
    /// So many syncs of files succeed, then one fails.
    syncs_left: Option<u64>,
    /// So many changes succeed, then none does any more: the moment before a power cut.
    changes_left: Option<u64>,
    /// Syncs of files succeed and do nothing.
    lying: bool,
}

impl FakeDisk {
    /// An independent copy, unsynced writes included.
    pub fn fork(&self) -> FakeDisk {
        let mut world = self.world.lock().clone();
        world.locks.clear();
        FakeDisk { world: Arc::new(Mutex::new(world)) }
    }

    /// Cuts the power and turns it on again: open handles die, locks go, faults heal, and of what was not synced remains
    /// what `loss` says.
    pub fn cut_power(&self, loss: Loss) {
        let mut world = self.world.lock();
        let writes = std::mem::take(&mut world.unsynced);
        let names = std::mem::take(&mut world.names_unsynced);
        let mut chance = match loss {
            Loss::Pages(seed) | Loss::Sectors(seed) => Chance(seed),
            _ => Chance(0),
        };
        let names_kept = match loss {
            Loss::Everything | Loss::After(_) => 0,
            Loss::Nothing => names.len(),
            // A journalled directory keeps the order of its changes, so what survives is a prefix.
            Loss::Pages(_) | Loss::Sectors(_) => chance.below(names.len() as u64 + 1) as usize,
        };
        for change in &names[..names_kept] {
            change.apply(&mut world.names_durable);
        }
        let mut left = if let Loss::After(bytes) = loss { bytes } else { u64::MAX };
        for write in writes {
            let page = if matches!(loss, Loss::Sectors(_)) { 512 } else { PAGE };
            let mut from = 0;
            while from < write.bytes.len() {
                let at = write.offset + from as u64;
                let end = write.bytes.len().min(from + (page - at % page) as usize);
                let kept = match loss {
                    Loss::Everything => 0,
                    Loss::Nothing => end - from,
                    Loss::After(_) => left.min((end - from) as u64) as usize,
                    Loss::Pages(_) | Loss::Sectors(_) => (end - from) * chance.below(2) as usize,
                };
                left = left.saturating_sub((end - from) as u64);
                world.node(write.node).arrive(at, &write.bytes[from..from + kept]);
                from = end;
            }
        }
        world.names = world.names_durable.clone();
        for node in world.nodes.values_mut() {
            node.seen.clone_from(&node.durable);
        }
        world.locks.clear();
        world.faults = Faults::default();
        world.life += 1;
    }

    /// From now on files may grow by so many bytes in all, then the disk is full.
    pub fn limit_space(&self, bytes: Option<u64>) {
        self.world.lock().faults.space_left = bytes;
    }

    /// From now on no write takes more than so many bytes at once.
    pub fn limit_writes(&self, bytes: Option<usize>) {
        self.world.lock().faults.write_bytes_max = bytes;
    }

    /// After `good` more, one sync of a file fails, once. As on Linux the pages then count as clean: still readable, never
    /// written, and the next sync says nothing about them.
    pub fn fail_sync_after(&self, good: u64) {
        self.world.lock().faults.syncs_left = Some(good);
    }

    /// After `good` more changes (writes, syncs, names) every change fails, until the power is cut or the disk healed.
    pub fn die_after(&self, good: u64) {
        self.world.lock().faults.changes_left = Some(good);
    }

    /// From now on a sync of a file says that all is well and does nothing, as drives with a cache of their own have done.
    pub fn lie(&self) {
        self.world.lock().faults.lying = true;
    }

    /// Ends all faults and limits, and leaves what they did.
    pub fn heal(&self) {
        self.world.lock().faults = Faults::default();
    }

    /// Flips one bit of what is stored, seen and durable: bit 0 is the lowest of the first byte.
    pub fn flip(&self, path: &Path, bit: u64) {
        let mut world = self.world.lock();
        let node = world.at(path);
        for content in [&mut node.seen, &mut node.durable] {
            if let Some(byte) = content.get_mut((bit / 8) as usize) {
                *byte ^= 1 << (bit % 8);
            }
        }
    }

    /// Writes over what is stored, seen and durable, as a fault of the medium would.
    pub fn overwrite(&self, path: &Path, offset: u64, bytes: &[u8]) {
        let mut world = self.world.lock();
        let node = world.at(path);
        node.arrive(offset, bytes);
        node.see(offset, bytes);
    }

    /// Cuts a file to `bytes`, seen and durable.
    pub fn shorten(&self, path: &Path, bytes: u64) {
        let mut world = self.world.lock();
        let node = world.at(path);
        node.seen.truncate(bytes as usize);
        node.durable.truncate(bytes as usize);
    }

    /// The contents of a file, as programs see them.
    pub fn contents(&self, path: &Path) -> Vec<u8> {
        self.world.lock().at(path).seen.clone()
    }

    /// Every file there is, by name.
    pub fn paths(&self) -> Vec<PathBuf> {
        self.world.lock().names.keys().cloned().collect()
    }

    /// How many bytes were written and not synced.
    pub fn unsynced_bytes(&self) -> u64 {
        self.world.lock().unsynced.iter().map(|write| write.bytes.len() as u64).sum()
    }

    /// How often a file was synced.
    pub fn syncs(&self) -> u64 {
        self.world.lock().syncs
    }
}

impl World {
    fn node(&mut self, node: u64) -> &mut Node {
        self.nodes.entry(node).or_default()
    }

    /// The node behind a name; a test that names a file that is not there is wrong.
    fn at(&mut self, path: &Path) -> &mut Node {
        let node = *self.names.get(path).expect("the test names a file that exists");
        self.node(node)
    }

    fn change(&mut self) -> io::Result<()> {
        match &mut self.faults.changes_left {
            Some(0) => Err(io::Error::other("the power is about to go")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn rename(&mut self, change: NameChange) -> io::Result<()> {
        self.change()?;
        change.apply(&mut self.names);
        self.names_unsynced.push(change);
        Ok(())
    }

    fn known(&self, path: &Path) -> io::Result<u64> {
        self.names.get(path).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Node {
    fn see(&mut self, offset: u64, bytes: &[u8]) {
        place(&mut self.seen, offset, bytes);
    }

    fn arrive(&mut self, offset: u64, bytes: &[u8]) {
        place(&mut self.durable, offset, bytes);
    }
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<PathBuf, u64>) {
        match self {
            NameChange::Put(path, node) => {
                names.insert(path.clone(), *node);
            }
            NameChange::Rename(from, to) => {
                if let Some(node) = names.remove(from) {
                    names.insert(to.clone(), node);
                }
            }
            NameChange::Remove(path) => {
                names.remove(path);
            }
        }
    }

    fn dir(&self) -> Option<&Path> {
        match self {
            NameChange::Put(path, _) | NameChange::Rename(_, path) | NameChange::Remove(path) => {
                path.parent()
            }
        }
    }
}

impl Disk for FakeDisk {
    fn create_dir(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let world = self.world.lock();
        let inside = world.names.keys().filter(|path| path.parent() == Some(dir));
        Ok(inside.filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned())).collect())
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let world = self.world.lock();
        let node = world.known(path)?;
        Ok(Arc::new(FakeFile { disk: self.clone(), node, life: world.life }))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut world = self.world.lock();
        let node = world.next_node;
        world.rename(NameChange::Put(path.to_owned(), node))?;
        world.next_node += 1;
        world.nodes.insert(node, Node::default());
        Ok(Arc::new(FakeFile { disk: self.clone(), node, life: world.life }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut world = self.world.lock();
        world.known(from)?;
        world.rename(NameChange::Rename(from.to_owned(), to.to_owned()))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut world = self.world.lock();
        world.known(path)?;
        world.rename(NameChange::Remove(path.to_owned()))
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut world = self.world.lock();
        world.change()?;
        let (synced, rest) = std::mem::take(&mut world.names_unsynced)
            .into_iter()
            .partition(|change| change.dir() == Some(dir));
        world.names_unsynced = rest;
        let synced: Vec<NameChange> = synced;
        for change in synced {
            change.apply(&mut world.names_durable);
        }
        Ok(())
    }

    fn lock(&self, dir: &Path) -> io::Result<DirLock> {
        let mut world = self.world.lock();
        if !world.locks.insert(dir.to_owned()) {
            return Err(DirLock::busy(dir));
        }
        Ok(DirLock::new(FakeLock { disk: self.clone(), dir: dir.to_owned(), life: world.life }))
    }
}

struct FakeFile {
    disk: FakeDisk,
    node: u64,
    life: u64,
}

impl FakeFile {
    fn with<T>(&self, call: impl FnOnce(&mut World) -> io::Result<T>) -> io::Result<T> {
        let mut world = self.disk.world.lock();
        if world.life != self.life {
            return Err(io::Error::other("the power was cut since this file was opened"));
        }
        call(&mut world)
    }
}

impl DiskFile for FakeFile {
    fn size(&self) -> io::Result<u64> {
        self.with(|world| Ok(world.node(self.node).seen.len() as u64))
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.with(|world| {
            let seen = &world.node(self.node).seen;
            let from = seen.len().min(offset as usize);
            let count = buffer.len().min(seen.len() - from);
            buffer[..count].copy_from_slice(&seen[from..from + count]);
            Ok(count)
        })
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.with(|world| {
            world.change()?;
            let count = bytes.len().min(world.faults.write_bytes_max.unwrap_or(usize::MAX));
            let size = world.node(self.node).seen.len() as u64;
            let growth = (offset + count as u64).saturating_sub(size);
            if let Some(left) = &mut world.faults.space_left {
                if growth > *left {
                    return Err(io::ErrorKind::StorageFull.into());
                }
                *left -= growth;
            }
            world.node(self.node).see(offset, &bytes[..count]);
            world.unsynced.push(Write { node: self.node, offset, bytes: bytes[..count].to_vec() });
            Ok(count)
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.with(|world| {
            world.change()?;
            world.syncs += 1;
            if world.faults.lying {
                return Ok(());
            }
            let (mine, rest): (Vec<Write>, Vec<Write>) =
                std::mem::take(&mut world.unsynced).into_iter().partition(|write| write.node == self.node);
            world.unsynced = rest;
            match &mut world.faults.syncs_left {
                Some(0) => {
                    world.faults.syncs_left = None;
                    return Err(io::Error::other("the disk could not write the pages back"));
                }
                Some(left) => *left -= 1,
                None => {}
            }
            for write in mine {
                world.node(self.node).arrive(write.offset, &write.bytes);
            }
            Ok(())
        })
    }
}

struct FakeLock {
    disk: FakeDisk,
    dir: PathBuf,
    life: u64,
}

impl Drop for FakeLock {
    fn drop(&mut self) {
        let mut world = self.disk.world.lock();
        if world.life == self.life {
            world.locks.remove(&self.dir);
        }
    }
}

/// A small generator (splitmix64): the same seed, the same losses.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % bound
    }
}

fn place(content: &mut Vec<u8>, offset: u64, bytes: &[u8]) {
    if bytes.is_empty() {
        return;
    }
    let (from, end) = (offset as usize, offset as usize + bytes.len());
    if content.len() < end {
        content.resize(end, 0);
    }
    content[from..end].copy_from_slice(bytes);
}

#[cfg(test)]
mod tests;
