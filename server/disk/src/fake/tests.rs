//! The fake disk lies as it is asked to, and in no other way.

#![allow(clippy::unwrap_used)]
use super::*;

fn file(disk: &FakeDisk) -> Arc<dyn DiskFile> {
    disk.create(Path::new("/d/f")).unwrap()
}

/// Only what was synced, name and content, is sure to be there after a power cut.
#[test]
fn a_power_cut_leaves_what_was_synced() {
    let disk = FakeDisk::default();
    let f = file(&disk);
    f.write_all_at(b"kept", 0).unwrap();
    f.sync_data().unwrap();
    f.write_all_at(b"LOST", 2).unwrap();
    let nameless = disk.fork();
    nameless.cut_power(Loss::Everything);
    assert!(nameless.paths().is_empty());
    disk.sync_dir(Path::new("/d")).unwrap();
    disk.cut_power(Loss::After(1));
    assert_eq!(disk.contents(Path::new("/d/f")), b"keLt");
    assert!(f.size().is_err(), "handles from before the cut are dead");
}

/// After a failed sync the bytes are still seen and never durable, whatever the next sync says.
#[test]
fn a_failed_sync_is_never_made_good() {
    let disk = FakeDisk::default();
    let f = file(&disk);
    disk.sync_dir(Path::new("/d")).unwrap();
    f.write_all_at(b"x", 0).unwrap();
    disk.fail_sync_after(0);
    assert!(f.sync_data().is_err());
    f.sync_data().unwrap();
    assert_eq!(disk.contents(Path::new("/d/f")), b"x");
    disk.cut_power(Loss::Nothing);
    assert_eq!(disk.contents(Path::new("/d/f")), b"");
}
#[test]
fn a_lying_disk_keeps_nothing() {
    let disk = FakeDisk::default();
    let f = file(&disk);
    disk.sync_dir(Path::new("/d")).unwrap();
    disk.lie();
    f.write_all_at(b"x", 0).unwrap();
    f.sync_data().unwrap();
    disk.cut_power(Loss::Everything);
    assert_eq!(disk.contents(Path::new("/d/f")), b"");
}
