//! Random commands, put to a server and to the core in memory: they must say the same, line by line. Left out is what
//! is known to differ (`scripts/differences.md`), and what the machine does of its own accord.

use std::path::Path;

use bytes::Bytes;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use tenure_proto::etcdserverpb::compare::TargetUnion;
use tenure_proto::etcdserverpb::request_op::Request;
use tenure_proto::etcdserverpb::watch_create_request::FilterType;
use tenure_proto::etcdserverpb::watch_request::RequestUnion;
use tenure_proto::etcdserverpb::{
    DeleteRangeRequest, LeaseGrantRequest, LeaseRevokeRequest, PutRequest, RangeRequest, TxnRequest,
    WatchCreateRequest, WatchRequest, WatchResponse,
};
use tenure_proto::internal::command::Wish;
use tenure_proto::mvccpb::Event;
use tenure_state::check;

use crate::commands;
use crate::harness::{Launch, NEW, long, seed};
use crate::remote::Remote;
use crate::script::{InMemory, Peer, show};
use crate::{ANSWER_BOUND, at_once, start};

const SERVERS: u64 = 6;
/// No lease runs out while the test lasts.
const TTL_S: i64 = 3_600;
/// Commands name revisions up to 40. They are moved along, so that they mean the last ones.
const REVISIONS: i64 = 36;

#[test]
fn etcd_says_what_the_core_says_to_random_commands() {
    compare_with(&NEW.server());
}

#[test]
fn our_server_says_what_the_core_says_to_random_commands() {
    compare_with(&Launch::program_under_test());
}

fn compare_with(program: &Path) {
    let seed = seed();
    let seeds: Vec<u64> = (0..SERVERS).map(|n| seed.wrapping_add(n)).collect();
    let commands = if long() { 3_000 } else { 400 };
    let differences = at_once(&seeds, |runtime, seed| {
        let server = start(program);
        let remote = runtime.block_on(Remote::connect(server.endpoint(), ANSWER_BOUND));
        Conversation::new(remote).first_difference(*seed, commands)
    });
    for (seed, difference) in differences {
        assert!(difference.is_none(), "repeat with TENURE_SEED={seed}: {}", difference.unwrap());
    }
}

struct Conversation {
    core: InMemory,
    server: Remote,
    revision: i64,
    compacted: i64,
}

impl Conversation {
    fn new(server: Remote) -> Conversation {
        Conversation { core: InMemory::new(1_000), server, revision: 1, compacted: 0 }
    }

    fn first_difference(mut self, seed: u64, commands_max: usize) -> Option<String> {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
        let mut chance = TestRunner::new_with_rng(Config::default(), rng);
        let (commands, ranges) = (commands::well_formed(), commands::ranges());

        for (_, create) in live() {
            let difference = self.watch(create);
            if difference.is_some() {
                return difference;
            }
        }
        let mut asked = 0;
        while asked < commands_max {
            let behind = (self.revision - REVISIONS).max(0);
            let command = commands.new_tree(&mut chance).unwrap().current();
            let Some(wish) = command.wish.and_then(|wish| askable(wish, behind)) else { continue };
            asked += 1;
            let difference = self.ask(&wish);
            if difference.is_some() {
                return difference;
            }
            let mut range = ranges.new_tree(&mut chance).unwrap().current();
            aim_range(&mut range, behind);
            let difference = self.both("a read", &range, |peer| show::get(&peer.range(range.clone())));
            if difference.is_some() {
                return difference;
            }
        }
        let from = self.compacted + 1;
        let difference = self.both("history", &from, |peer| history(peer, from));
        difference.or_else(|| self.lived())
    }

    fn watch(&mut self, create: WatchCreateRequest) -> Option<String> {
        let stream = format!("{create:?}");
        self.both("a watch", &create, |peer| {
            peer.send(
                &stream,
                WatchRequest { request_union: Some(RequestUnion::CreateRequest(create.clone())) },
            );
            show::watch(&peer.receive(&stream, 1), 1)
        })
    }

    /// What watchers were told that were there all the time.
    fn lived(&mut self) -> Option<String> {
        // A last put and a last deletion, so that each watcher has something to wait for.
        let (key, range_end) = (Bytes::from_static(b"b"), Bytes::new());
        let put = PutRequest { key: key.clone(), ..Default::default() };
        let delete = DeleteRangeRequest { key, range_end, prev_kv: false };
        let ended = self.ask(&Wish::Put(put)).or_else(|| self.ask(&Wish::DeleteRange(delete)));
        let last = self.revision;
        ended.or_else(|| {
            live().into_iter().find_map(|(before_last, create)| {
                let stream = format!("{create:?}");
                self.both("live", &create, |peer| events_up_to(peer, &stream, last - before_last))
            })
        })
    }

    fn ask(&mut self, wish: &Wish) -> Option<String> {
        let difference = self.both("a command", wish, |peer| match wish.clone() {
            Wish::Put(put) => show::put(&peer.put(put)),
            Wish::DeleteRange(delete) => show::del(&peer.delete_range(delete)),
            Wish::Txn(txn) => show::txn(&peer.txn(txn)),
            Wish::Compact(compact) => show::compact(&peer.compact(compact)),
            Wish::LeaseGrant(grant) => {
                show::grant(&peer.lease_grant(LeaseGrantRequest { id: grant.id, ttl: grant.ttl }), false)
            }
            Wish::LeaseRevoke(revoke) => {
                show::revoke(&peer.lease_revoke(LeaseRevokeRequest { id: revoke.id }))
            }
            Wish::LeaseExpire(_) | Wish::LeaseCheckpoint(_) | Wish::Alarm(_) | Wish::MemberPublish(_) => {
                unreachable!("not askable")
            }
        });
        self.revision = self.core.solo.revision().0;
        self.compacted = self.core.solo.machine().compacted().0;
        difference
    }

    fn both(
        &mut self,
        what: &str,
        request: &dyn std::fmt::Debug,
        ask: impl Fn(&mut dyn Peer) -> String,
    ) -> Option<String> {
        let (ours, theirs) = (ask(&mut self.core), ask(&mut self.server));
        (ours != theirs).then(|| format!("{what}, {request:?}\n- {ours}\n+ {theirs}"))
    }
}

/// Watchers, and how long before the last revision each has something to be told.
fn live() -> [(i64, WatchCreateRequest); 3] {
    let everything = || WatchCreateRequest { range_end: Bytes::from_static(&[0]), ..Default::default() };
    let some = WatchCreateRequest {
        key: Bytes::from_static(b"ab"),
        range_end: Bytes::from_static(b"c"),
        filters: vec![FilterType::Nodelete as i32],
        ..Default::default()
    };
    let deletions = WatchCreateRequest { filters: vec![FilterType::Noput as i32], ..everything() };
    [(0, everything()), (1, some), (0, deletions)]
}

/// How many of them come at once is the server's choice; which and in what order is not.
fn events_up_to(peer: &mut dyn Peer, stream: &str, last: i64) -> String {
    let mut events = Vec::new();
    while events.last().and_then(|event: &Event| event.kv.as_ref()).is_none_or(|kv| kv.mod_revision < last) {
        let said = peer.receive(stream, 1);
        if said.is_empty() {
            break;
        }
        events.extend(said.into_iter().flat_map(|response| response.events));
    }
    show::watch(&[WatchResponse { events, ..Default::default() }], 1)
}

/// Everything that a watcher of the last changes is told. Behind the floor: there 3.5.1 has lost deletions, and what was
/// replaced.
fn history(peer: &mut dyn Peer, from: i64) -> String {
    let create = WatchCreateRequest {
        range_end: Bytes::from_static(&[0]),
        start_revision: from,
        prev_kv: true,
        ..Default::default()
    };
    peer.send("history", WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) });
    let said = peer.receive("history", 2);
    said.iter().map(|response| show::watch(std::slice::from_ref(response), 1)).collect()
}

/// What a client can ask and both answer alike, moved to the revisions of now.
fn askable(wish: Wish, behind: i64) -> Option<Wish> {
    match wish {
        Wish::Put(_) | Wish::DeleteRange(_) => Some(wish),
        Wish::Txn(mut txn) => {
            aim_txn(&mut txn, behind);
            if deletes(&txn) {
                keep_nothing(&mut txn);
            }
            // Most have duplicates and would be refused at once.
            check::txn(&txn, 128).is_ok().then_some(Wish::Txn(txn))
        }
        Wish::Compact(mut compact) => {
            aim(&mut compact.revision, behind);
            (compact.revision > 0).then_some(Wish::Compact(compact))
        }
        Wish::LeaseGrant(mut grant) => {
            grant.ttl = TTL_S;
            (grant.id != 0).then_some(Wish::LeaseGrant(grant))
        }
        Wish::LeaseRevoke(_) => Some(wish),
        Wish::LeaseExpire(_) | Wish::LeaseCheckpoint(_) | Wish::Alarm(_) | Wish::MemberPublish(_) => None,
    }
}

fn aim_txn(txn: &mut TxnRequest, behind: i64) {
    for compare in &mut txn.compare {
        let operand = &mut compare.target_union;
        if let Some(TargetUnion::CreateRevision(it) | TargetUnion::ModRevision(it)) = operand {
            aim(it, behind);
        }
    }
    for op in txn.success.iter_mut().chain(&mut txn.failure) {
        match &mut op.request {
            Some(Request::RequestRange(range)) => {
                aim_range(range, behind);
                range.revision = range.revision.max(0);
            }
            Some(Request::RequestTxn(nested)) => aim_txn(nested, behind),
            _ => {}
        }
    }
}

fn deletes(txn: &TxnRequest) -> bool {
    txn.success.iter().chain(&txn.failure).any(|op| match &op.request {
        Some(Request::RequestDeleteRange(_)) => true,
        Some(Request::RequestTxn(nested)) => deletes(nested),
        _ => false,
    })
}

/// A put that keeps something of a key which the same txn deletes crashes etcd.
fn keep_nothing(txn: &mut TxnRequest) {
    for op in txn.success.iter_mut().chain(&mut txn.failure) {
        match &mut op.request {
            Some(Request::RequestPut(put)) => (put.ignore_value, put.ignore_lease) = (false, false),
            Some(Request::RequestTxn(nested)) => keep_nothing(nested),
            _ => {}
        }
    }
}

fn aim_range(range: &mut RangeRequest, behind: i64) {
    aim(&mut range.revision, behind);
    aim(&mut range.min_mod_revision, behind);
    aim(&mut range.max_mod_revision, behind);
    aim(&mut range.min_create_revision, behind);
    aim(&mut range.max_create_revision, behind);
    // An unknown number is refused here, and crashes 3.5.1.
    range.sort_order %= 3;
    range.sort_target %= 5;
}

fn aim(revision: &mut i64, behind: i64) {
    if *revision > 0 {
        *revision += behind;
    }
}
