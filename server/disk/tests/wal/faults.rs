//! A disk that fails: the log stops, tells everyone, and loses nothing that it had acknowledged.

use tenure_disk::wal::{Observer, WalEvent};
use tenure_disk::{Disk, Loss};

use super::*;

/// When space ends, writes are refused from then on; with space again, all that was acknowledged is there.
#[test]
fn a_full_disk_stops_the_log_and_loses_nothing() {
    let disk = FakeDisk::default();
    let wal = open(&disk);
    disk.limit_space(Some(20 << 10));
    let mut index = 1;
    let error = loop {
        match append(&wal, 1, index..index + 1, 400) {
            Ok(()) => index += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    assert!(error.to_string().contains("could not prepare log segment"), "{error}");
    assert!(index > 20);
    let after = save_vote(&wal, 9).unwrap_err();
    assert_eq!((after.kind(), Some(after.to_string())), (io::ErrorKind::StorageFull, wal.stopped()));
    assert_eq!(wal.vote(), None);
    drop(wal);

    disk.cut_power(Loss::Everything);
    let wal = open(&disk);
    assert_eq!(wal.state().last, Some(id(1, index - 1)));
    append(&wal, 1, index..index + 9, 400).unwrap();
}

/// A log that cannot get a segment to write to does not start, and says what to see to.
#[test]
fn without_space_a_new_log_does_not_start() {
    let disk = FakeDisk::default();
    disk.limit_space(Some(100));
    let error = try_open(&disk).err().unwrap().to_string();
    assert!(error.contains("could not prepare a log segment in /data/log"), "{error}");
    disk.limit_space(None);
    append(&open(&disk), 1, 1..2, 10).unwrap();
}

/// A segment that could not be prepared ahead is no failure yet: with space again it is prepared when needed.
#[test]
fn preparing_ahead_may_fail() {
    let troubles = Arc::new(Mutex::new(Vec::new()));
    let hear = troubles.clone();
    let observer = Observer::new(move |event| {
        if let WalEvent::Trouble(text) = event {
            hear.lock().push(text.to_owned());
        }
    });
    let disk = FakeDisk::default();
    let wal = Wal::open(Arc::new(disk.clone()), Path::new(DIR), WalOptions { observer, ..small() }).unwrap();
    disk.limit_space(Some(1 << 10));
    append(&wal, 1, 1..2, 800).unwrap();
    assert_eq!(troubles.lock().len(), 1, "{troubles:?}");
    disk.limit_space(None);
    append(&wal, 1, 2..20, 800).unwrap();
    assert_eq!(wal.stopped(), None);
}

/// Writes that take only a few bytes at a time are gone on with; one that fails half-way leaves a torn batch.
#[test]
fn short_writes_are_completed() {
    let disk = FakeDisk::default();
    disk.limit_writes(Some(100));
    let wal = open(&disk);
    append(&wal, 1, 1..4, 700).unwrap();
    disk.die_after(10);
    assert!(append(&wal, 1, 4..6, 700).is_err());
    assert!(disk.unsynced_bytes() == 1000);
    disk.heal();
    let wal = open(&disk);
    assert_eq!(wal.state().last, Some(id(1, 3)));
    let torn = wal.recovery().torn.clone().unwrap();
    assert_eq!(torn.bytes, 512, "of two sectors one was whole");
    append(&wal, 2, 4..6, 700).unwrap();
}

/// After a failed sync everyone waiting hears of it, nothing is tried again, and nobody is told of success.
#[test]
fn a_failed_sync_breaks_the_log() {
    let disk = FakeDisk::default();
    let wal = open(&disk);
    append(&wal, 1, 1..2, 10).unwrap();
    let said = Arc::new(Mutex::new(Vec::new()));
    let (inner, failing, hear) = (wal.clone(), disk.clone(), said.clone());
    wal.save_vote(vote(1), move |first| {
        assert!(first.is_ok());
        failing.fail_sync_after(0);
        for index in 2..5 {
            let hear = hear.clone();
            let done = move |outcome: io::Result<()>| hear.lock().push((index, outcome.is_ok()));
            inner.append(vec![entry(id(1, index), 10)], done);
        }
    });
    assert_eq!(*said.lock(), [(2, false), (3, false), (4, false)]);
    let syncs = disk.syncs();
    assert!(append(&wal, 1, 5..6, 10).is_err() && save_vote(&wal, 2).is_err());
    wal.truncate_after(None);
    wal.purge(id(1, 1));
    assert!(wal.stopped().unwrap().contains("restart this member"));
    wal.close();
    assert_eq!(disk.syncs(), syncs, "a failed sync is never repeated");
}

/// What a restart after a failed sync reads may be in the page cache only. Once recovered, it must outlive a power cut.
#[test]
fn what_recovery_finds_after_a_failed_sync_it_makes_durable() {
    for size in [10, 1500, 20_000] {
        let disk = FakeDisk::default();
        let wal = open(&disk);
        append(&wal, 1, 1..2, 10).unwrap();
        disk.fail_sync_after(0);
        assert!(append(&wal, 1, 2..3, size).is_err() || size > 1500);
        drop(wal);
        disk.heal();
        let found = content(&open(&disk));
        disk.cut_power(Loss::Everything);
        assert_eq!(content(&open(&disk)), found, "payload of {size}");
    }
}

/// Files go through all their lives and are then replaced; at every step the log survives a power cut.
#[test]
fn recycled_files_never_give_back_old_entries() {
    let disk = FakeDisk::default();
    let mut wal = open(&disk);
    let mut fresh = 0;
    let mut seen = std::collections::BTreeSet::new();
    for index in 1..1500 {
        append(&wal, index / 100, index..index + 1, (index as usize * 37) % 700).unwrap();
        wal.purge(id(index / 100, index.saturating_sub(3)));
        for path in segment_files(&disk) {
            // The life of the file, from its header.
            fresh += u32::from(seen.insert(path.clone()) && disk.contents(&path)[20 + 20] == 0);
        }
        if index % 7 == 0 {
            let before = content(&wal);
            assert_eq!(before.entries.len(), 3);
            disk.cut_power(Loss::Pages(index));
            wal = open(&disk);
            assert_eq!(content(&wal), before);
        }
        assert!(segment_files(&disk).len() <= 5, "purged files go");
    }
    let (all, fresh) = (seen.len(), fresh as usize);
    assert!(all > 100 && fresh < all, "of {all} segments {fresh} were new files");
}

/// A process that dies at any step of going on to the next segment leaves a log that the next process may rely on, whatever
/// the power does then.
#[test]
fn a_segment_that_was_half_prepared_is_made_durable_before_use() {
    for changes in 0..30 {
        let disk = FakeDisk::default();
        let wal = open(&disk);
        disk.die_after(changes);
        let _ = append(&wal, 1, 1..2, 600);
        drop(wal);
        disk.heal();
        let wal = open(&disk);
        let next = wal.state().last.map_or(1, |last| last.index + 1);
        append(&wal, 1, next..next + 1, 10).unwrap();
        let before = content(&wal);
        disk.cut_power(Loss::Everything);
        assert_eq!(content(&open(&disk)), before, "after {changes} changes");
    }
}

/// Starting again and again, with the first batch of a segment torn each time, does not fill the disk with segments.
#[test]
fn torn_segments_are_removed() {
    let disk = FakeDisk::default();
    for seed in 0..100 {
        let wal = open(&disk);
        disk.die_after(1);
        assert!(append(&wal, 1, 1..2, 3000).is_err());
        drop(wal);
        disk.cut_power(Loss::After(600 + seed));
        assert!(segment_files(&disk).len() <= 2, "{:?}", disk.paths());
    }
    assert!(open(&disk).recovery().torn.is_some());
}

/// One process at a time has the directory.
#[test]
fn the_directory_has_one_holder() {
    let disk = FakeDisk::default();
    let held = disk.lock(Path::new("/data")).unwrap();
    let error = disk.lock(Path::new("/data")).err().unwrap();
    assert!(error.to_string().contains("/data is in use by another process"), "{error}");
    drop(held);
    disk.lock(Path::new("/data")).unwrap();
}
