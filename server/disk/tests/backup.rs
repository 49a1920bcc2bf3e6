//! A backup reads back as what it was made of, and a damaged one never does: every bit may flip and every byte may be the
//! last, and the reader says where it noticed.

#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tenure_disk::backup::{self, Item, ReadError, Reader, Whole};
use tenure_disk::store::{Store, StoreOptions};
use tenure_state::{Place, Write};

const HEAD: &[u8] = b"said by whoever wrote it";
const MAGIC: &[u8] = b"TENURE BACKUP 1\n";

fn place(main: i64) -> Place {
    Place { main, sub: 0, tombstone: main % 5 == 0 }
}

/// A backup of a store with so many records of so many bytes, and the items in it.
fn written(records: i64, record_bytes: usize) -> (Vec<u8>, Vec<Item>) {
    let dir = TempDir::new().unwrap();
    let store = Store::open(dir.path(), StoreOptions::default()).unwrap();
    let mut items = Vec::new();
    for main in 2..2 + records {
        let bytes = Bytes::from(vec![main as u8; record_bytes]);
        items.push(Item::Record(place(main), bytes.clone()));
        store.write(vec![Write::Record { at: place(main), bytes }], Bytes::from_static(b"1")).unwrap();
    }
    for (key, value) in [("la", "lease"), ("ma", ""), ("mb", "member")] {
        let (key, value) = (Bytes::from_static(key.as_bytes()), Bytes::from_static(value.as_bytes()));
        items.push(Item::Meta(key.clone(), value.clone()));
        store.write(vec![Write::Meta { key, value: Some(value) }], Bytes::from_static(b"2")).unwrap();
    }
    store.settled().wait().unwrap();
    let mut file = Vec::new();
    let send = |piece: Bytes| {
        file.extend_from_slice(&piece);
        true
    };
    backup::write(&store.snapshot().unwrap(), HEAD, send).unwrap();
    (file, items)
}

fn read(file: &[u8]) -> Result<(Bytes, Vec<Item>, Whole), ReadError> {
    let mut reader = Reader::open(file)?;
    let items = reader.by_ref().collect::<Result<Vec<_>, _>>()?;
    Ok((reader.head().clone(), items, reader.whole().expect("no error, so it was whole").clone()))
}

/// A file of these frames, sealed as the writer seals it.
fn sealed(frames: &[Frame<'_>]) -> Vec<u8> {
    let mut file = MAGIC.to_vec();
    for (kind, body) in frames {
        file.extend_from_slice(&(body.len() as u32).to_be_bytes());
        file.push(*kind);
        file.extend_from_slice(body);
    }
    file.resize(file.len().next_multiple_of(512), 0);
    let digest = Sha256::digest(&file);
    file.extend_from_slice(&digest);
    file
}

/// A frame's kind and body.
type Frame<'a> = (u8, &'a [u8]);

fn refusal(file: &[u8]) -> String {
    read(file).expect_err("it must be refused").to_string()
}

#[test]
fn reads_back_what_was_written() {
    for (records, record_bytes) in [(0, 0), (1, 0), (9, 10), (40, 30_000), (2, 3 << 20)] {
        let (file, items) = written(records, record_bytes);
        let (head, found, whole) = read(&file).unwrap();
        assert_eq!((head.as_ref(), found), (HEAD, items));
        assert_eq!((whole.records, whole.pairs, whole.size), (records as u64, 3, file.len() as u64));
        assert_eq!(whole.sha256, file[file.len() - 32..]);
        assert_eq!(file.len() % 512, 32, "etcdctl looks at the size");
    }
}

#[test]
fn every_flipped_bit_is_noticed() {
    let (mut file, _) = written(9, 10);
    for at in 0..file.len() {
        for bit in [1, 1 << 7] {
            file[at] ^= bit;
            match read(&file) {
                Err(ReadError::Foreign) => {
                    assert!(at < MAGIC.len(), "byte {at} does not say whose file it is")
                }
                Err(ReadError::Damaged { offset, .. }) => {
                    assert!(offset <= file.len() as u64, "byte {at}: {offset} lies outside")
                }
                other => panic!("byte {at} was flipped and nobody noticed: {other:?}"),
            }
            file[at] ^= bit;
        }
    }
    read(&file).unwrap();
}

#[test]
fn every_cut_is_noticed() {
    let (file, _) = written(9, 10);
    for length in 0..file.len() {
        match read(&file[..length]) {
            Err(ReadError::Foreign) => assert!(length < MAGIC.len()),
            Err(ReadError::Damaged { offset, .. }) => {
                assert_eq!(offset, length as u64, "it knows where it ended")
            }
            other => panic!("cut at {length} and nobody noticed: {other:?}"),
        }
    }
}

/// What a sum cannot notice, because whoever wrote it summed up nonsense.
#[test]
fn sealed_nonsense_is_refused_with_its_reason() {
    let record = |main: i64| [&place(main).encode()[..], &1u32.to_be_bytes(), b"x"].concat();
    let end = |records: u64, pairs: u64| [records.to_be_bytes(), pairs.to_be_bytes()].concat();
    let (three, two) = (record(3), record(2));
    let long = [&place(2).encode()[..], &9u32.to_be_bytes(), b"x"].concat();
    let pair = |key: &[u8]| [&(key.len() as u32).to_be_bytes()[..], key, &0u32.to_be_bytes()].concat();
    let cases: [(&[Frame<'_>], &str); 11] = [
        (&[(2, &two), (4, &end(1, 0))], "there is no head"),
        (&[(1, b""), (4, &end(1, 0))], "0 records and 0 pairs were read"),
        (&[(1, b""), (2, &three), (2, &two), (4, &end(2, 0))], "does not follow the one before"),
        (&[(1, b""), (2, &two), (2, &two), (4, &end(2, 0))], "does not follow the one before"),
        (&[(1, b""), (3, &pair(b"b")), (3, &pair(b"a")), (4, &end(0, 2))], "does not follow the one before"),
        (&[(1, b""), (3, &pair(b"applied")), (4, &end(0, 1))], "does not follow the one before"),
        (&[(1, b""), (3, &pair(b"a")), (2, &two), (4, &end(1, 1))], "out of turn"),
        (&[(1, b""), (1, b"again"), (4, &end(0, 0))], "out of turn"),
        (&[(1, b""), (9, b"?"), (4, &end(0, 0))], "kind 9, which is none"),
        (&[(1, b""), (2, &long), (4, &end(1, 0))], "9 bytes are said to be left in a frame that has 1 more"),
        (&[(1, b""), (2, b""), (4, &end(0, 0))], "an empty frame"),
    ];
    for (frames, reason) in cases {
        let text = refusal(&sealed(frames));
        assert!(text.contains(reason), "{text}, not {reason}");
    }
    let good = sealed(&[(1, b""), (2, &two), (4, &end(1, 0))]);
    read(&good).unwrap();
    assert!(refusal(&[&good[..], b"!"].concat()).contains("more after its end"));
}

/// A length is a promise; memory is taken only for what is there.
#[test]
fn promised_bytes_are_not_believed() {
    let file = [MAGIC, &u32::MAX.to_be_bytes(), &[1]].concat();
    assert!(refusal(&file).contains("more than there can be"));
    let file = [MAGIC, &(200u32 << 20).to_be_bytes(), &[1]].concat();
    assert!(refusal(&file).contains("it ends within a frame"));
}

#[test]
fn anothers_file_is_said_to_be_that() {
    assert!(refusal(b"").contains("does not begin as a backup of Tenure's"));
    assert!(refusal(&[0; 4096]).contains("does not begin as a backup of Tenure's"));
}
