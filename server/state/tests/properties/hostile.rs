//! No bytes that can stand in the log, and no request, may panic a replica or make it give up: a command is granted or
//! refused, and what is stored afterwards loads again as the same state.

use proptest::prelude::*;
use prost::Message;
use tenure_proto::etcdserverpb::request_op::Request;
use tenure_proto::etcdserverpb::watch_request::RequestUnion;
use tenure_proto::etcdserverpb::{RequestOp, TxnRequest, WatchCreateRequest, WatchRequest};
use tenure_proto::internal::Command;
use tenure_proto::internal::command::Wish;
use tenure_state::solo::{Settings, Solo};
use tenure_state::{Scan, Step, check, txn};

use crate::commands;

/// Applies a command and lets everything that follows happen; a panic is the failure.
fn survive(solo: &mut Solo, command: &Command) {
    solo.apply(command);
    solo.advance(1_000);
    let stored = solo.memory().load(usize::MAX).unwrap();
    let mut swept = stored.clone();
    swept.sweep(None, usize::MAX);
    assert_eq!(stored.revision(), solo.revision());
    assert_eq!(stored.leases(), solo.machine().leases());
    assert_eq!(stored.alarms(), solo.machine().alarms());
    assert_eq!(swept.index().live_keys(), solo.machine().index().live_keys());
    assert_eq!(swept.index().live_bytes(), solo.machine().index().live_bytes());
}

/// What the API does with a txn before anything is proposed, and with a read.
fn ask(solo: &Solo, command: &Command) {
    let Some(Wish::Txn(request)) = &command.wish else { return };
    let _ = check::txn(request, 128);
    if txn::is_read_only(request) {
        let at_once = txn::read(solo.machine(), request, solo.memory()).unwrap();
        let in_steps = txn::Reads::new(solo.machine(), request, solo.memory()).unwrap().map(|mut reads| {
            while reads.step(solo.machine(), solo.memory(), 1).unwrap() == Step::More {}
            reads.finish()
        });
        assert_eq!(at_once, in_steps);
    }
    for op in request.success.iter().chain(&request.failure) {
        let Some(Request::RequestRange(range)) = &op.request else { continue };
        let _ = check::range(range);
        let at_once = solo.machine().range(range, solo.memory()).unwrap();
        let Ok(mut scan) = Scan::new(range, solo.machine()) else {
            assert!(at_once.is_err());
            continue;
        };
        while scan.step(solo.machine(), solo.memory(), 1).unwrap() != Step::Done {}
        assert_eq!(at_once.unwrap(), scan.finish(), "in steps and at once");
    }
}

fn watch_everything(solo: &mut Solo) -> tenure_state::StreamId {
    let stream = solo.open_stream();
    let create = WatchCreateRequest {
        range_end: vec![0].into(),
        start_revision: 1,
        prev_kv: true,
        ..Default::default()
    };
    solo.watch(stream, &WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) });
    stream
}

fn server(record_bytes_max: usize) -> Solo {
    Solo::new(Settings { record_bytes_max, ..Settings::default() })
}

proptest! {
    #[test]
    fn no_command_harms(commands in prop::collection::vec(commands::hostile(), 1..40), budget in 0..400usize) {
        let mut solo = server(budget);
        let stream = watch_everything(&mut solo);
        for command in &commands {
            ask(&solo, command);
            survive(&mut solo, command);
            solo.pull(stream);
        }
        let swept = solo.sweep(None, usize::MAX);
        prop_assert!(swept.is_none());
    }

    #[test]
    fn no_bytes_harm(entries in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 1..20)) {
        let mut solo = server(0);
        for bytes in &entries {
            if let Ok(command) = Command::decode(&bytes[..]) {
                survive(&mut solo, &command);
            }
        }
    }

    /// Commands with some bytes changed decode more often than noise.
    #[test]
    fn no_damaged_command_harms(
        commands in prop::collection::vec((commands::hostile(), any::<prop::sample::Index>(), any::<u8>()), 1..40),
    ) {
        let mut solo = server(100);
        for (command, place, byte) in &commands {
            let mut bytes = command.encode_to_vec();
            if !bytes.is_empty() {
                let place = place.index(bytes.len());
                bytes[place] = *byte;
            }
            if let Ok(command) = Command::decode(&bytes[..]) {
                survive(&mut solo, &command);
            }
        }
    }
}

/// What passes the check can be read back as part of a log entry.
#[test]
fn the_deepest_txn_that_is_let_through_can_be_read_from_the_log() {
    let mut txn = TxnRequest::default();
    while check::txn(&txn, 128).is_ok() {
        let command = Command { wish: Some(Wish::Txn(txn.clone())), ..Default::default() };
        Command::decode(&command.encode_to_vec()[..]).unwrap();
        survive(&mut server(0), &command);
        txn = TxnRequest {
            success: vec![RequestOp { request: Some(Request::RequestTxn(txn)) }],
            ..TxnRequest::default()
        };
    }
}

/// A hundred thousand puts and deletes in one request are checked in a moment; each pair compared would take minutes.
#[test]
fn a_broad_txn_is_checked_in_reasonable_time() {
    let key = |n: u32| bytes::Bytes::from(n.to_be_bytes().to_vec());
    let leaves = |txns: u32, operation: &dyn Fn(u32) -> Request| {
        let nested = (0..txns).map(|txn| {
            let operations = (0..100).map(|n| RequestOp { request: Some(operation(txn * 100 + n)) });
            let nested = TxnRequest { success: operations.collect(), ..Default::default() };
            RequestOp { request: Some(Request::RequestTxn(nested)) }
        });
        let txn = TxnRequest { success: nested.collect(), ..Default::default() };
        RequestOp { request: Some(Request::RequestTxn(txn)) }
    };
    let delete = |n: u32| {
        Request::RequestDeleteRange(tenure_proto::etcdserverpb::DeleteRangeRequest {
            key: key(2 * n),
            range_end: key(2 * n + 1),
            prev_kv: false,
        })
    };
    let put = |n: u32| {
        Request::RequestPut(tenure_proto::etcdserverpb::PutRequest {
            key: key(2 * n + 1),
            ..Default::default()
        })
    };
    // Wider than the limit on operations allows, which is not what is looked at here.
    let txn = TxnRequest { success: vec![leaves(1_000, &delete), leaves(1_000, &put)], ..Default::default() };
    assert_eq!(check::txn(&txn, usize::MAX), Ok(()));
}
