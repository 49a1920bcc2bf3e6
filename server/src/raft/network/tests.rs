//! What peers may send and what becomes of it: sense passes unchanged, nonsense is an error; a snapshot takes the place of the
//! state whole or not at all.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use bytes::Bytes;
use openraft::EntryPayload;
use openraft::raft::AppendEntriesRequest;
use prost::Message;
use tenure_disk::Files;
use tenure_disk::store::{Store, StoreOptions};
use tenure_disk::wal::{self, Wal, WalOptions};
use tenure_proto::internal::{
    AppendRequest, Applied, BallotPaper, EntryRun, LogPosition, SnapshotPiece, SnapshotRecords,
    snapshot_piece::Piece,
};
use tenure_proto::mvccpb::KeyValue;
use tenure_state::{Machine, Place, Revision, Write};

use super::message;
use super::pieces::{Cutter, Joined, Joiner};
use crate::ids::{ClusterId, MemberId};
use crate::net::Tcp;
use crate::peers::Peers;
use crate::raft::snapshot::{self, Data, Filling};
use crate::raft::suite::Nobody;
use crate::raft::types::{Proposal, TypeConfig};
use crate::raft::{Consensus, Options, View};

const VOTE: BallotPaper = BallotPaper { term: 7, node: 3, committed: true };

/// A command, as far as anybody looks before it is applied.
fn payload(number: u8) -> Bytes {
    Bytes::copy_from_slice(&[0x12, 1, number])
}

fn request() -> AppendRequest {
    AppendRequest {
        vote: Some(VOTE),
        previous: Some(LogPosition { term: 5, node: 1, index: 10 }),
        runs: vec![
            EntryRun { term: 5, node: 1, first: 11, payloads: vec![payload(11), payload(12)] },
            EntryRun { term: 7, node: 3, first: 13, payloads: vec![payload(13)] },
        ],
        committed: Some(LogPosition { term: 5, node: 1, index: 12 }),
    }
}

#[test]
fn entries_pass_between_members_unchanged_and_uncopied() {
    let sent = request();
    let taken: AppendEntriesRequest<TypeConfig> = message::take_append_request(sent.clone()).unwrap();
    let indexes: Vec<_> =
        taken.entries.iter().map(|entry| (entry.log_id.leader_id.term, entry.log_id.index)).collect();
    assert_eq!(indexes, [(5, 11), (5, 12), (7, 13)]);
    let EntryPayload::Normal(Proposal(first)) = &taken.entries[0].payload else { panic!("a command") };
    assert_eq!(first.as_ptr(), sent.runs[0].payloads[0].as_ptr());
    assert_eq!(message::append_request(taken), sent);
}

#[test]
fn nonsense_from_a_peer_is_an_error() {
    type Spoil = fn(&mut AppendRequest);
    let spoilt: [(&str, Spoil); 9] = [
        ("no vote", |it| it.vote = None),
        ("a vote that nobody granted", |it| it.vote = Some(BallotPaper { committed: false, ..VOTE })),
        ("a gap", |it| it.runs[0].first = 12),
        ("a gap between runs", |it| it.runs[1].first = 14),
        ("an earlier leader after a later one", |it| it.runs[1].term = 4),
        ("entries of a leader to come", |it| it.runs[1].term = 8),
        ("a commit of a leader to come", |it| {
            it.committed = Some(LogPosition { term: 8, node: 3, index: 12 })
        }),
        ("indexes that run over", |it| it.previous = Some(LogPosition { term: 5, node: 1, index: u64::MAX })),
        ("a payload that is none", |it| it.runs[0].payloads[0] = Bytes::from_static(b"\xff\xff")),
    ];
    for (what, spoil) in spoilt {
        let mut request = request();
        spoil(&mut request);
        assert!(message::take_append_request(request).is_err(), "{what}");
    }
}

fn store(dir: &tempfile::TempDir, name: &str) -> Store {
    Store::open(&dir.path().join(name), StoreOptions::default()).unwrap()
}

fn applied(index: u64, revision: i64, installed: bool) -> Applied {
    let position = Some(LogPosition { term: 5, node: 1, index });
    Applied { position, membership_position: position, revision, installed, ..Applied::default() }
}

/// A store that holds keys of the revisions 2 to `last`.
async fn filled(dir: &tempfile::TempDir, last: i64) -> Store {
    let store = store(dir, "source");
    let record = |main| {
        let key = Bytes::from(format!("key {main}"));
        let value = Bytes::from(vec![0; 1000]);
        let record = KeyValue { key, value, create_revision: main, mod_revision: main, version: 1, lease: 0 };
        let at = Place::first_of(Revision(main));
        Write::Record { at, bytes: record.encode_to_vec().into() }
    };
    let applied = applied(500, last, false).encode_to_vec().into();
    store.write((2..=last).map(record).collect(), applied).unwrap();
    store.settled().await.unwrap();
    store
}

fn pieces(source: &Store) -> (Applied, Vec<SnapshotPiece>) {
    let mut cutter = Cutter::new(&source.snapshot().unwrap(), VOTE).unwrap();
    let Some(SnapshotPiece { piece: Some(Piece::Head(head)) }) = cutter.piece().unwrap() else {
        panic!("the head comes first")
    };
    (head.applied.unwrap(), std::iter::from_fn(|| cutter.piece().unwrap()).collect())
}

fn join(view: &View, applied: Applied, pieces: Vec<SnapshotPiece>) -> std::io::Result<bool> {
    let mut joiner = Joiner::new(Filling::begin(view, applied, 1 << 20)?);
    for piece in pieces {
        match joiner.take(piece)? {
            Joined::More(more) => joiner = more,
            Joined::Whole(received) => {
                snapshot::install(view, Data::Received(received), 1 << 20)?;
                return Ok(true);
            }
        }
    }
    Ok(false)
}

#[tokio::test]
async fn a_snapshot_arrives_whole_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let (head, sent) = pieces(&filled(&dir, 2_000).await);
    assert!(sent.len() > 4, "{} pieces are too few to show anything", sent.len());
    let target = View::new(Machine::new(1 << 20), store(&dir, "target"));
    let untouched = |view: &View| view.machine().revision() < Revision(2) && view.store().applied().is_none();

    type Spoil = fn(&mut Vec<SnapshotPiece>);
    let spoilt: [(&str, Spoil); 5] = [
        ("broken off", |it| drop(it.pop())),
        ("a piece is lost", |it| drop(it.remove(1))),
        ("a piece comes twice", |it| it.insert(1, it[0].clone())),
        ("a piece of another version", |it| it[1].piece = None),
        ("a record that was changed on the way", |it| {
            let Some(Piece::Records(SnapshotRecords { records })) = &mut it[0].piece else { panic!() };
            let changed =
                KeyValue { value: "other".into(), ..KeyValue::decode(records[3].bytes.clone()).unwrap() };
            records[3].bytes = changed.encode_to_vec().into();
        }),
    ];
    for (what, spoil) in spoilt {
        let mut pieces = sent.clone();
        spoil(&mut pieces);
        assert!(!join(&target, head.clone(), pieces).is_ok_and(|whole| whole), "{what}");
        assert!(untouched(&target), "{what}");
    }

    assert!(join(&target, head, sent).unwrap());
    assert_eq!(target.machine().revision(), Revision(2_000));
    assert_eq!(target.store().snapshot().unwrap().records().count(), 1_999);
}

/// The state and the log are two files: what a crash between them leaves must not be taken for a loss.
#[tokio::test]
async fn a_crash_between_the_snapshots_install_and_the_logs_purge_is_healed() {
    for installed in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let wal = Wal::open(Arc::new(Files), &dir.path().join("wal"), WalOptions::default()).unwrap();
        let store = store(&dir, "state");
        store.write(Vec::new(), applied(500, 9, installed).encode_to_vec().into()).unwrap();
        let view = Arc::new(View::new(Machine::new(1 << 20), store));
        let started = Consensus::start(options(), wal.clone(), view, Arc::new(Nobody), peers()).await;
        assert_eq!(started.is_ok(), installed);
        if let Ok(consensus) = started {
            assert_eq!(wal.state().last_purged, Some(wal::LogId { term: 5, node: 1, index: 500 }));
            consensus.stop().await;
        }
    }
}

fn peers() -> Peers {
    Peers::new(ClusterId(1), MemberId(2), Arc::new(Tcp::default()), std::time::Duration::from_secs(1))
}

fn options() -> Options {
    Options {
        member: 2,
        heartbeat_ms: 100,
        election_ms: 1_000,
        snapshot_entries: 1_000,
        kept_entries: 100,
        pre_vote: true,
        record_bytes_max: 1 << 20,
        meters: crate::metrics::Meters::unread(),
    }
}
