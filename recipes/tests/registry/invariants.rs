//! What must hold of the registry's keys at every revision, read off the raw keys.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message;
use tenure_proto::mvccpb::KeyValue;
use tenure_proto::tenure::v1::projection::Into;
use tenure_proto::tenure::v1::{Endpoint, Health, InstanceRecord, Projection, Tombstone};

use super::support::Store;

pub fn check(store: &Store, seed: u64) {
    projections(store, seed);

    let mut instances: BTreeMap<String, (InstanceRecord, KeyValue)> = BTreeMap::new();
    let mut of: BTreeMap<String, BTreeMap<String, KeyValue>> = BTreeMap::new();
    for kv in store.keys(b"/_tenure/registry/") {
        let key = String::from_utf8(kv.key.to_vec()).unwrap();
        let segments: Vec<&str> = key.split('/').collect();
        let (kind, id) = (segments[4], segments.get(5).copied().unwrap_or_default());
        if kind == "instance" {
            let record = InstanceRecord::decode(kv.value.clone()).unwrap();
            instances.insert(id.to_owned(), (record, kv));
        } else {
            of.entry(kind.to_owned()).or_default().insert(id.to_owned(), kv);
        }
    }
    let none = BTreeMap::new();
    let keys = |kind: &str| of.get(kind).unwrap_or(&none);
    let timers: BTreeSet<&str> =
        ["alive", "tombstone", "loss", "drain-timer", "protection-timer"].into_iter().collect();
    for (kind, keys) in &of {
        for (id, kv) in keys {
            assert_eq!(kv.lease != 0, timers.contains(kind.as_str()), "seed {seed}: lease of {kind} {id}");
        }
    }
    for (id, (record, kv)) in &instances {
        assert_eq!(record.lost, kv.lease != 0, "seed {seed}: {id} stays if and only if it is not lost");
        if let Some(alive) = keys("alive").get(id) {
            assert!(!record.lost, "seed {seed}: {id} is lost and alive");
            assert_eq!(alive.lease, record.lease, "seed {seed}: {id} lives on another lease than it says");
        }
        if let Some(tombstone) = keys("tombstone").get(id) {
            let buried = Tombstone::decode(tombstone.value.clone()).unwrap().incarnation;
            let incarnation = record.registration.as_ref().unwrap().incarnation;
            assert!(incarnation > buried, "seed {seed}: {id} came back from the dead");
        }
        let to_end = record.drain.as_ref().is_some_and(|drain| !drain.over);
        assert!(!to_end || keys("draining").contains_key(id), "seed {seed}: {id} drains for ever");
    }
    for id in keys("alive").keys() {
        assert!(instances.contains_key(id), "seed {seed}: {id} is alive and not there");
    }
}

/// What is outside the registry's keys is what its records are to show, and nothing else.
fn projections(store: &Store, seed: u64) {
    let mut should = BTreeMap::new();
    for kv in store.keys(b"/_tenure/registry/") {
        if !String::from_utf8(kv.key.to_vec()).unwrap().contains("/instance/") {
            continue;
        }
        let record = InstanceRecord::decode(kv.value).unwrap();
        let serves = matches!(record.health(), Health::Passing | Health::Warning) && !record.lost;
        if serves && record.drain.is_none() && !record.maintenance {
            should.extend(record.projections.iter().filter_map(|projection| pair(projection, &record)));
        }
    }
    let mut is = BTreeMap::new();
    for kv in store.keys(b"").into_iter().filter(|kv| !kv.key.starts_with(b"/_tenure/")) {
        assert_eq!(kv.lease, 0, "seed {seed}: {kv:?}");
        is.insert(String::from_utf8(kv.key.to_vec()).unwrap(), String::from_utf8(kv.value.to_vec()).unwrap());
    }
    assert_eq!(is, should, "seed {seed}");
}

/// For ids that are labels, and hosts that need no brackets.
fn pair(projection: &Projection, record: &InstanceRecord) -> Option<(String, String)> {
    let of = record.registration.as_ref().unwrap();
    let name = &projection.endpoint;
    let chosen = of.endpoints.iter().find(|endpoint| name.is_empty() || endpoint.name == *name);
    let Endpoint { host, port, .. } = chosen?;
    let weight = record.weight.or(of.weight).unwrap_or(100).max(1);
    Some(match projection.into.as_ref().unwrap() {
        Into::Naming(into) => {
            (format!("{}/{}", into.target, of.id), format!(r#"{{"Op":0,"Addr":"{host}:{port}"}}"#))
        }
        Into::Skydns(into) => {
            let mut labels: Vec<&str> = into.domain.split('.').collect();
            labels.reverse();
            let value =
                format!(r#"{{"host":"{host}","port":{port},"weight":{weight},"ttl":{}}}"#, into.ttl_s);
            (format!("/skydns/{}/{}", labels.join("/"), of.id), value)
        }
    })
}

/// Every record is shown by what the service's policy says: so it is when nobody has anything left to do.
pub fn all_are_projected_as(store: &Store, projections: &[Projection], seed: u64) {
    for kv in store.keys(b"/_tenure/registry/") {
        let key = String::from_utf8(kv.key.to_vec()).unwrap();
        assert!(!key.ends_with("/projecting"), "seed {seed}: {key} is left");
        if key.contains("/instance/") {
            let record = InstanceRecord::decode(kv.value).unwrap();
            assert_eq!(record.projections, projections, "seed {seed}: {key}");
        }
    }
}
