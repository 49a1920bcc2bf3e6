//! The way to a scene once more, on the whole server in memory: it must say that the same keys are there, or what was found out on the
//! shelf would be true of the shelf only.

use std::collections::BTreeSet;

use tenure_proto::mvccpb::KeyValue;
use tenure_recipes::Primitives;

use super::client::Ask;
use super::print::FIRST_REVISION;
use super::scene::Scene;
use super::shelf::TTL_S;
use super::story::Deed;
use crate::support::{Store, run};

pub fn replay(scene: &Scene) {
    let store = Store::at(FIRST_REVISION);
    for deed in scene.story.deeds() {
        match deed {
            Deed::Prepared(ask) => repeat(&store, ask),
            Deed::Asked(_, client) => client.asks().into_iter().for_each(|ask| repeat(&store, ask.clone())),
            Deed::Ended(lease) => store.expire(lease),
        }
    }
    let plain = |kvs: Vec<KeyValue>| -> Vec<KeyValue> {
        kvs.into_iter().map(|kv| KeyValue { version: 0, ..kv }).collect()
    };
    assert_eq!(plain(store.keys(b"")), scene.store.keys(), "the server has other keys");
    assert_eq!(store.revision(), scene.store.revision(), "the server has another revision");
    let leases = store.with(|solo| solo.leases()).leases.into_iter().map(|lease| lease.id);
    assert_eq!(
        leases.collect::<BTreeSet<i64>>(),
        scene.store.leases().collect(),
        "the server has other leases"
    );
}

/// What it is answered shows in what is there in the end.
fn repeat(store: &Store, ask: Ask) {
    let store = store.clone();
    run(async move {
        match ask {
            Ask::Txn(txn) => drop(store.txn(txn).await),
            Ask::Grant(lease) => drop(store.grant(lease, TTL_S).await),
            Ask::Revoke(lease) => drop(store.revoke(lease).await),
            Ask::Range(_) | Ask::KeepAlive(_) | Ask::TimeToLive(_) | Ask::Next { .. } | Ask::Bell => {}
        }
    });
}
