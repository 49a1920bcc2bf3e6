//! A whole member, in this process and with its log on a disk, is a store as recipes want it: the same suite as on the server in
//! memory.

#![allow(clippy::unwrap_used)]

#[path = "../../recipes/tests/support/conformance.rs"]
mod conformance;

use std::sync::Arc;
use std::time::Duration;

use tenure_disk::Files;
use tenure_disk::store::{Memory, Store, StoreOptions};
use tenure_disk::wal::{Wal, WalOptions};
use tenure_proto::etcdserverpb::CompactionRequest;
use tenure_proto::internal::{Command, command::Wish};
use tenured::clock::SystemClock;
use tenured::ids::{ClusterId, MemberId};
use tenured::metrics::Meters;
use tenured::net::Tcp;
use tenured::node::{Node, Pace, Retention, Rules, Settings};
use tenured::peers::Peers;

const ELECTION: Duration = Duration::from_millis(500);

fn settings(member: MemberId) -> Settings {
    Settings {
        member,
        token: "alone".into(),
        name: "m".into(),
        client_urls: vec!["http://127.0.0.1:1".into()],
        founders: [(member.0, vec!["http://127.0.0.1:2".to_owned()])].into(),
        heartbeat: ELECTION / 10,
        election: ELECTION,
        snapshot_entries: 1_000,
        kept_entries: 100,
        pre_vote: true,
        membership: Rules { strict: true, learners_max: 1 },
        sweep: Pace { keys_at_once: 16, rest: Duration::from_millis(10) },
        record_bytes_max: usize::MAX,
        request_bytes_max: 1 << 20,
        quota_bytes_max: None,
        retention: Retention::Everything,
        watch_progress_interval: Duration::from_secs(2),
        audit_interval: Duration::ZERO,
        first_ticket: 1,
        meters: Meters::unread(),
    }
}

#[tokio::test]
async fn a_member_is_a_store_as_recipes_want_it() {
    let home = tempfile::tempdir().unwrap();
    let member = MemberId(0xa1);
    let wal = Wal::open(Arc::new(Files), &home.path().join("wal"), WalOptions::default()).unwrap();
    let store = Store::in_memory(&Memory::default(), StoreOptions::default());
    let peers = Peers::new(ClusterId::of(&[member]), member, Arc::new(Tcp::default()), ELECTION);
    let clock = Arc::new(SystemClock::start());
    let node = Node::start(settings(member), clock, peers, wal, store).await.unwrap();
    node.ready(member).await.unwrap();
    let writer = node.writer.clone();
    let compact = async |revision| {
        let wish = Wish::Compact(CompactionRequest { revision, physical: false });
        writer.write(Command { wish: Some(wish), ..Command::default() }).await.unwrap();
    };
    conformance::conforms(node.here(), compact).await;
    node.stop().await;
}
