//! The promise of recovery: exactly what was acknowledged, or a refusal. Cut anywhere, flip anything.

use tenure_disk::{Disk, Loss};

use super::*;

/// A disk whose last batch was written and never synced, and what had been acknowledged before that.
struct Interrupted {
    disk: FakeDisk,
    acknowledged: Content,
    complete: Content,
}

/// Does `before`, then interrupts `last` between its write and its sync. Segments are not prepared ahead at that moment if
/// `last` begins one, so preparing takes the first changes; `changes` says how many succeed.
fn interrupt(disk: FakeDisk, changes: u64, last: impl Fn(&Wal)) -> Interrupted {
    let wal = open(&disk);
    let acknowledged = content(&wal);
    let whole = disk.fork();
    last(&open(&whole));
    let complete = content(&open(&whole));
    disk.die_after(changes);
    last(&wal);
    assert!(wal.stopped().is_some(), "the last batch was interrupted");
    assert!(disk.unsynced_bytes() > 0, "and something of it was written");
    Interrupted { disk, acknowledged, complete }
}

impl Interrupted {
    /// After this loss the log holds what was acknowledged, or the whole batch too, and works on.
    fn check(&self, loss: Loss) -> bool {
        let disk = self.disk.fork();
        disk.cut_power(loss);
        self.check_remains(&disk, &format!("{loss:?}"))
    }

    fn check_remains(&self, disk: &FakeDisk, case: &str) -> bool {
        let wal = try_open(disk).unwrap_or_else(|error| panic!("{case}: {error}"));
        let found = content(&wal);
        let all = found == self.complete;
        assert!(all || found == self.acknowledged, "{case}: {found:?}");
        // The log goes on, and what is left of the torn batch never comes back.
        let next = found.last.map_or(1, |last| last.index + 1);
        append(&wal, 90, next..next + 1, 30).unwrap_or_else(|error| panic!("{case}: {error}"));
        let grown = content(&wal);
        disk.cut_power(Loss::Everything);
        let wal = try_open(disk).unwrap_or_else(|error| panic!("{case}, again: {error}"));
        assert_eq!(content(&wal), grown, "{case}");
        all
    }
}

/// A log with a few segments, some of them recycled, so that new sectors lie over old ones.
fn worn(entries: u64) -> FakeDisk {
    let disk = FakeDisk::default();
    let wal = open(&disk);
    for index in 1..=entries {
        append(&wal, 1, index..index + 1, 150 + index as usize * 7 % 400).unwrap();
        if index % 8 == 0 {
            wal.purge(id(1, index - 4));
        }
    }
    wal.close();
    disk
}

/// New and worn disks, filled so that a batch of some sectors fits into the segment in use, or opens the next one.
fn disks() -> Vec<FakeDisk> {
    [0, 1, 100, 101, 102, 103, 104].map(worn).into()
}

/// A batch cut at every byte, over zeros and over what an earlier life of the file left, within a segment and opening one.
#[test]
fn cut_at_every_byte_the_acknowledged_prefix_remains() {
    let mut opening = std::collections::BTreeSet::new();
    for disk in disks() {
        let wal = open(&disk);
        let next = wal.state().last.map_or(1, |last| last.index + 1);
        drop(wal);
        let interrupted = interrupt(disk, 1, |wal| {
            let _ = append(wal, 4, next..next + 2, 600);
        });
        let bytes = interrupted.disk.unsynced_bytes();
        let whole: Vec<u64> = (0..=bytes).filter(|cut| interrupted.check(Loss::After(*cut))).collect();
        assert_eq!(whole, [bytes], "only a whole batch is one");
        (0..100).for_each(|seed| {
            interrupted.check(Loss::Sectors(seed));
        });
        let disk = interrupted.disk.fork();
        disk.cut_power(Loss::After(bytes - 1));
        opening.extend(open(&disk).recovery().torn.clone().map(|torn| torn.offset == 512));
    }
    assert_eq!(opening.len(), 2, "some batches opened a segment, some did not");
}

/// The same, with the file ending where the batch was cut.
#[test]
fn a_file_cut_short_within_the_last_batch_loses_only_that() {
    for disk in disks() {
        let wal = open(&disk);
        let next = wal.state().last.map_or(1, |last| last.index + 1);
        drop(wal);
        let interrupted = interrupt(disk, 1, |wal| {
            let _ = append(wal, 4, next..next + 2, 600);
        });
        let written = interrupted.disk.fork();
        let before = segment_files(&written);
        let old: Vec<_> = {
            let lost = interrupted.disk.fork();
            lost.cut_power(Loss::Everything);
            before.iter().map(|path| lost.contents(path)).collect()
        };
        written.cut_power(Loss::Nothing);
        let (path, old) = before.iter().zip(old).find(|(path, old)| written.contents(path) != *old).unwrap();
        let new = written.contents(path);
        let first = old.iter().zip(&new).position(|(a, b)| a != b).unwrap();
        let last = old.iter().zip(&new).rposition(|(a, b)| a != b).unwrap();
        for cut in first / 512 * 512..=last {
            let disk = written.fork();
            disk.shorten(path, cut as u64);
            assert!(!interrupted.check_remains(&disk, &format!("cut at {cut}")));
        }
    }
}

/// A short batch, then a long one that opens a segment, interrupted at every step: whatever pages and sectors arrived of
/// what was under way, what was acknowledged is there.
#[test]
fn lost_pages_of_the_last_batch_lose_only_that() {
    let mut interrupted_writes = 0;
    for start in [worn(0), worn(100)] {
        let wal = open(&start);
        let next = wal.state().last.map_or(1, |last| last.index + 1);
        drop(wal);
        for changes in 0.. {
            let disk = start.fork();
            let wal = open(&disk);
            disk.die_after(changes);
            let mut possible = vec![content(&wal)];
            for (indexes, size) in [(next..next + 1, 10), (next + 1..next + 2, 40_000)] {
                let done = append(&wal, 4, indexes, size).is_ok();
                if done {
                    possible.clear();
                }
                possible.push(content(&wal));
            }
            interrupted_writes += u32::from(disk.unsynced_bytes() > 40_000);
            for seed in 0..100 {
                let loss = if seed % 2 == 0 { Loss::Pages(seed) } else { Loss::Sectors(seed) };
                let disk = disk.fork();
                disk.cut_power(loss);
                let wal = try_open(&disk).unwrap();
                assert!(possible.contains(&content(&wal)), "{loss:?} after {changes} changes");
                // What is left of a torn batch stays apart from what is written afterwards.
                let next = wal.state().last.map_or(1, |last| last.index + 1);
                append(&wal, 5, next..next + 1, 10).unwrap();
                let grown = content(&wal);
                assert_eq!(content(&try_open(&disk).unwrap()), grown, "{loss:?} after {changes} changes");
            }
            if wal.stopped().is_none() {
                break;
            }
        }
    }
    assert_eq!(
        interrupted_writes, 2,
        "each time the long batch was interrupted between its write and its sync"
    );
}

/// A log in which everything occurs: segments, several records in a batch, votes, truncations, a purge, a committed hint.
fn varied() -> (FakeDisk, Content) {
    let disk = FakeDisk::default();
    let wal = open(&disk);
    append(&wal, 1, 1..3, 300).unwrap();
    // What a callback asks for is queued behind it, and so written as one batch.
    let inner = wal.clone();
    wal.save_vote(vote(2), move |_| {
        inner.append(vec![entry(id(2, 3), 20), entry(id(2, 4), 20)], |_| {});
        inner.truncate_after(Some(3));
        inner.save_vote(vote(3), |_| {});
        inner.append(vec![entry(id(3, 4), 20), entry(id(3, 5), 900)], |_| {});
        inner.save_committed(Some(id(3, 4)));
        inner.purge(id(1, 1));
    });
    append(&wal, 3, 6..8, 500).unwrap();
    let before = content(&wal);
    assert_eq!(before.entries.len(), 6);
    wal.close();
    assert!(segment_files(&disk).len() >= 2);
    (disk, before)
}

/// Any one bit flipped anywhere in the log: everything is there, or nothing starts. Never less, never something else.
#[test]
fn any_flipped_bit_is_harmless_or_refused() {
    let (disk, before) = varied();
    let (mut refused, mut harmless) = (0, 0);
    for path in segment_files(&disk) {
        // And a little into what was not written yet.
        for bit in 0..(written_bytes(&disk, &path) + 40) * 8 {
            disk.flip(&path, bit);
            let copy = disk.fork();
            match try_open(&copy) {
                Ok(wal) => {
                    assert_eq!(content(&wal), before, "{} bit {bit}", path.display());
                    harmless += 1;
                }
                Err(error) => {
                    assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
                    assert!(error.to_string().contains(&*path.to_string_lossy()), "{error}");
                    refused += 1;
                }
            }
            disk.flip(&path, bit);
        }
    }
    assert!(refused > 40_000 && harmless > 80, "{refused} refused, {harmless} harmless");
}

/// The same in files that were recycled, over and between what their earlier lives left.
#[test]
fn flipped_bits_in_recycled_files_are_harmless_or_refused() {
    let disk = worn(100);
    let before = content(&open(&disk));
    let mut refused = 0;
    for path in segment_files(&disk) {
        for bit in (0..disk.contents(&path).len() as u64 * 8).step_by(11) {
            disk.flip(&path, bit);
            match try_open(&disk.fork()) {
                Ok(wal) => assert_eq!(content(&wal), before, "{} bit {bit}", path.display()),
                Err(_) => refused += 1,
            }
            disk.flip(&path, bit);
        }
    }
    assert!(refused > 500, "{refused} refused");
}

/// Worse than a flipped bit: sectors of an acknowledged batch that are garbage, or zeros, with later batches behind.
#[test]
fn garbage_and_lost_sectors_among_acknowledged_batches_are_refused() {
    let disk = FakeDisk::default();
    let options = WalOptions { segment_bytes: 64 << 10, first_segment_bytes: 64 << 10, ..small() };
    let reopen = |disk: &FakeDisk| Wal::open(Arc::new(disk.clone()), Path::new(DIR), options.clone());
    let wal = reopen(&disk).unwrap();
    for index in 1..20 {
        append(&wal, 1, index..index + 1, if index % 3 == 0 { 1200 } else { 10 }).unwrap();
    }
    append(&wal, 1, 20..21, 10).unwrap();
    drop(wal);
    let path = &segment_files(&disk)[0];
    let last = written_bytes(&disk, path) / 512 - 1;
    for sector in 0..last {
        let garbage = disk.fork();
        garbage.overwrite(path, sector * 512, &[0xA7; 511]);
        let error = reopen(&garbage).err().unwrap().to_string();
        assert!(error.contains(&format!("damaged at byte {}", sector * 512)), "{error}");
        assert!(error.contains("remove it from the cluster"), "{error}");
        let zeros = disk.fork();
        zeros.overwrite(path, sector * 512, &[0; 512]);
        assert!(reopen(&zeros).is_err(), "sector {sector}");
        // What would prove that there was a later batch is damaged too.
        zeros.overwrite(path, (sector + 1) * 512, &[0xA7; 511].repeat(4)[..511]);
        assert!(reopen(&zeros).is_err(), "sector {sector} and the next");
    }
    let lost = disk.fork();
    lost.overwrite(path, (last - 1) * 512, &[0; 512]);
    lost.flip(path, last * 4096 + 77);
    assert!(reopen(&lost).is_err(), "a damaged sector may be of any batch");
}

/// A segment that is gone, or is another log's, is noticed.
#[test]
fn a_missing_or_foreign_segment_is_refused() {
    let disk = FakeDisk::default();
    let wal = open(&disk);
    for index in 1..40 {
        append(&wal, 1, index..index + 1, 400).unwrap();
    }
    wal.close();
    let files = segment_files(&disk);
    assert!(files.len() > 4);
    for path in &files[..files.len() - 2] {
        let copy = disk.fork();
        copy.remove(path).unwrap();
        let error = try_open(&copy).err().unwrap();
        assert!(error.to_string().contains("missing"), "{error}");
    }

    let other = FakeDisk::default();
    let wal = open(&other);
    for index in 1..40 {
        append(&wal, 2, index..index + 1, 400).unwrap();
    }
    wal.close();
    let copy = disk.fork();
    copy.overwrite(&files[1], 0, &other.contents(&files[1]));
    assert!(try_open(&copy).is_err());
    let moved = disk.fork();
    moved.overwrite(&files[1], 0, &disk.contents(&files[2]));
    assert!(try_open(&moved).is_err());
}
