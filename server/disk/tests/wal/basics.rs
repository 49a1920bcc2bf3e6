//! What the log does when nothing goes wrong.

use std::sync::mpsc::channel;

use tenure_disk::wal::LogState;
use tenure_disk::{Files, Loss};

use super::*;

/// Entries, the vote, a truncation and a purge are there again after a restart.
#[test]
fn a_reopened_log_holds_what_it_held() {
    let disk = FakeDisk::default();
    let wal = open(&disk);
    assert_eq!(wal.state(), LogState::default());
    save_vote(&wal, 1).unwrap();
    append(&wal, 1, 1..9, 40).unwrap();
    wal.truncate_after(Some(6));
    save_vote(&wal, 2).unwrap();
    append(&wal, 2, 7..12, 700).unwrap();
    wal.purge(id(1, 3));
    let before = content(&wal);
    assert_eq!((before.vote, before.purged, before.last), (Some(vote(2)), Some(id(1, 3)), Some(id(2, 11))));
    let ids: Vec<_> = before.entries.iter().map(|(id, _)| (id.term, id.index)).collect();
    assert_eq!(ids, [(1, 4), (1, 5), (1, 6), (2, 7), (2, 8), (2, 9), (2, 10), (2, 11)]);
    assert!(before.entries.iter().all(|(id, payload)| (*id, payload.clone()) == entry(*id, payload.len())));
    wal.close();
    let wal = open(&disk);
    assert_eq!(content(&wal), before);
    append(&wal, 3, 12..13, 1).unwrap();
    drop(wal);
    assert_eq!(open(&disk).state().last, Some(id(3, 12)));
}

/// Reading is by range and by bytes: at least one entry, whether in memory or not, and never past the bound.
#[test]
fn a_read_keeps_to_its_bounds() {
    let disk = FakeDisk::default();
    let wal = open(&disk);
    for index in 1..40 {
        append(&wal, 1, index..index + 1, 100).unwrap();
    }
    let read = |range: std::ops::Range<u64>, bytes_max| {
        wal.read(range, bytes_max).unwrap().iter().map(|(id, _)| id.index).collect::<Vec<_>>()
    };
    for start in 1..40 {
        assert_eq!(read(start..start + 1, 0), [start], "one entry, whatever the bound");
        for count in 1..4 {
            let expected: Vec<_> = (start..40).take(count as usize).collect();
            let some = read(start..u64::MAX, count * 100 + 99);
            assert!(!some.is_empty() && expected.starts_with(&some), "{some:?} of {expected:?}");
            assert_eq!(read(start..start + count, u64::MAX), expected);
        }
    }
    assert_eq!(read(0..3, u64::MAX), [1, 2]);
    assert!(read(40..50, u64::MAX).is_empty() && read(7..7, u64::MAX).is_empty());
}

/// Entries that leave a gap, overlap, or come in disorder are refused, and change nothing.
#[test]
fn entries_must_follow_on() {
    let disk = FakeDisk::default();
    let wal = open(&disk);
    append(&wal, 1, 5..8, 10).unwrap();
    let before = content(&wal);
    for wrong in [vec![9], vec![7], vec![8, 10], vec![8, 8]] {
        let entries = wrong.into_iter().map(|index| entry(id(1, index), 1)).collect();
        let error = outcome(|done| wal.append(entries, done)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{error}");
    }
    assert_eq!(content(&wal), before);
    append(&wal, 1, 8..9, 10).unwrap();
}

/// The committed hint costs no sync; it is written with what comes next, or on closing.
#[test]
fn the_committed_hint_rides_along() {
    let disk = FakeDisk::default();
    let wal = open(&disk);
    append(&wal, 1, 1..4, 10).unwrap();
    let syncs = disk.syncs();
    wal.save_committed(Some(id(1, 2)));
    assert_eq!((disk.syncs(), wal.committed()), (syncs, Some(id(1, 2))));
    append(&wal, 1, 4..5, 10).unwrap();
    let copy = disk.fork();
    copy.cut_power(Loss::Everything);
    assert_eq!(open(&copy).committed(), Some(id(1, 2)));
    wal.save_committed(Some(id(1, 3)));
    wal.close();
    assert_eq!(open(&disk).committed(), Some(id(1, 3)));
}

/// An entry that is not on disk yet stays in memory, also when one of its index, since truncated, is on disk.
#[test]
fn a_replaced_entry_can_be_read_before_it_is_written() {
    let disk = FakeDisk::default();
    let options = WalOptions { batch_bytes_max: 1000, tail_bytes_max: 100, ..small() };
    let wal = Wal::open(Arc::new(disk), Path::new(DIR), options).unwrap();
    let inner = wal.clone();
    let read = Arc::new(Mutex::new(Vec::new()));
    let hear = read.clone();
    wal.append(Vec::new(), move |_| {
        // Batches close in the middle of this: some of it is on disk when the vote is.
        inner.append((1..5).map(|index| entry(id(1, index), 900)).collect(), |_| {});
        let reader = inner.clone();
        inner.save_vote(vote(1), move |_| *hear.lock() = reader.read(0..9, u64::MAX).unwrap());
        inner.truncate_after(Some(1));
        inner.append((2..5).map(|index| entry(id(2, index), 900)).collect(), |_| {});
    });
    let expected: Vec<_> = [id(1, 1), id(2, 2), id(2, 3), id(2, 4)].map(|id| entry(id, 900)).into();
    assert_eq!(*read.lock(), expected);
    assert_eq!(wal.read(0..9, u64::MAX).unwrap(), expected);
}

/// On real files with real threads: callbacks come in order, everything is there again, and reading behind the tail works.
#[test]
fn threads_and_files() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("member/log");
    let options = WalOptions {
        segment_bytes: 64 << 10,
        first_segment_bytes: 8 << 10,
        tail_bytes_max: 4 << 10,
        ..WalOptions::default()
    };
    let wal = Wal::open(Arc::new(Files), &dir, options.clone()).unwrap();
    let (done, finished) = channel();
    for index in 1..=2000 {
        let tell = done.clone();
        wal.append(vec![entry(id(1, index), 200)], move |outcome| tell.send((index, outcome)).unwrap());
        assert_eq!(wal.read(index..index + 1, 0).unwrap(), [entry(id(1, index), 200)], "readable at once");
        if index % 500 == 0 {
            let tell = done.clone();
            wal.save_vote(vote(index), move |outcome| tell.send((0, outcome)).unwrap());
            wal.purge(id(1, index - 400));
        }
    }
    drop(done);
    let order: Vec<u64> = finished.iter().map(|(index, outcome)| outcome.map(|()| index).unwrap()).collect();
    let indexes: Vec<u64> = order.into_iter().filter(|index| *index > 0).collect();
    assert_eq!(indexes, (1..=2000).collect::<Vec<_>>());
    let before = content(&wal);
    assert_eq!(before.entries.len(), 400);
    wal.clone().close();
    assert_eq!(append_threaded(&wal), io::ErrorKind::BrokenPipe);
    drop(wal);
    let wal = Wal::open(Arc::new(Files), &dir, options).unwrap();
    assert_eq!(content(&wal), before);
    assert_eq!(wal.vote(), Some(vote(2000)));
    assert_eq!(wal.recovery().torn, None);
}

fn append_threaded(wal: &Wal) -> io::ErrorKind {
    outcome(|done| wal.append(vec![entry(id(1, 2001), 1)], done)).unwrap_err().kind()
}

/// Whoever reads while others append, purge and recycle gets entries that were appended, in order, or nothing.
#[test]
fn readers_meet_purging_and_recycling() {
    let disk = FakeDisk::default();
    let options = WalOptions { workers: Workers::Threads, spares_max: 2, ..small() };
    let wal = Wal::open(Arc::new(disk.clone()), Path::new(DIR), options).unwrap();
    std::thread::scope(|scope| {
        let appending = scope.spawn(|| {
            for index in 1..3000 {
                let (done, waited) = channel();
                wal.append(vec![entry(id(1, index), 300)], move |outcome| done.send(outcome).unwrap());
                waited.recv().unwrap().unwrap();
                wal.purge(id(1, index.saturating_sub(30)));
            }
        });
        let mut reads = 0;
        while !appending.is_finished() || reads == 0 {
            let state = wal.state();
            let first = state.last_purged.map_or(1, |id| id.index + 1);
            let entries = wal.read(first..u64::MAX, u64::MAX).unwrap();
            assert!(entries.windows(2).all(|pair| pair[0].0.index + 1 == pair[1].0.index));
            for (id, payload) in entries {
                assert_eq!((id, payload), entry(id, 300));
                reads += 1;
            }
        }
    });
    wal.close();
    assert!(segment_files(&disk).len() < 20, "purged files go");
}
