//! Leases as the cluster agrees on them: which exist, for how long they were granted, and the keys that go with each.
//! Nothing here counts time; that is the lessor's, on the leader.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use prost::Message;
use tenure_proto::internal::StoredLease;

use crate::answer::Refusal;
use crate::change::{Key, LeaseId, Write};
use crate::stored;

/// The longest time to live that can be asked for, seconds: etcd's bound.
pub const TTL_MAX_S: i64 = 9_000_000_000;

#[derive(Clone, Debug, PartialEq)]
pub struct Lease {
    pub ttl_s: i64,
    /// Index of the entry that last set its time. An expiry that names another came too late.
    pub epoch: u64,
    /// Seconds left at the last checkpoint; 0 = none was taken.
    pub remaining_s: i64,
    pub keys: BTreeSet<Key>,
}

impl Lease {
    /// The most that the log says it has left, seconds.
    pub fn remembered_s(&self) -> i64 {
        if 0 < self.remaining_s && self.remaining_s < self.ttl_s { self.remaining_s } else { self.ttl_s }
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Leases {
    leases: BTreeMap<LeaseId, Lease>,
}

impl Leases {
    pub fn get(&self, id: LeaseId) -> Option<&Lease> {
        self.leases.get(&id)
    }

    pub fn len(&self) -> usize {
        self.leases.len()
    }

    pub fn is_empty(&self) -> bool {
        self.leases.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = (LeaseId, &Lease)> {
        self.leases.iter().map(|(id, lease)| (*id, lease))
    }

    pub(crate) fn grant(&mut self, id: LeaseId, ttl_s: i64, epoch: u64) -> Result<Write, Refusal> {
        if ttl_s > TTL_MAX_S {
            return Err(Refusal::LeaseTtlTooLarge);
        }
        if id.0 == 0 {
            return Err(Refusal::LeaseNotFound);
        }
        if self.leases.contains_key(&id) {
            return Err(Refusal::LeaseExists);
        }
        let lease = Lease { ttl_s, epoch, remaining_s: 0, keys: BTreeSet::new() };
        let write = write(id, &lease);
        self.leases.insert(id, lease);
        Ok(write)
    }

    pub(crate) fn checkpoint(
        &mut self,
        id: LeaseId,
        epoch: u64,
        remaining_s: i64,
        now: u64,
    ) -> Option<Write> {
        let lease = self.leases.get_mut(&id).filter(|lease| lease.epoch == epoch)?;
        lease.remaining_s = remaining_s.clamp(1, lease.ttl_s.max(1));
        lease.epoch = now;
        Some(write(id, lease))
    }

    /// Takes the lease away; its keys, in order, are the caller's to delete.
    pub(crate) fn remove(&mut self, id: LeaseId) -> Option<(BTreeSet<Key>, Write)> {
        let lease = self.leases.remove(&id)?;
        Some((lease.keys, Write::Meta { key: stored::lease_key(id), value: None }))
    }

    /// Moves a key from one lease to another; 0 is none. A lease that is not there is passed over: it is on its way out.
    pub(crate) fn attach(&mut self, key: &Key, from: LeaseId, to: LeaseId) {
        if from == to {
            return;
        }
        if let Some(lease) = self.leases.get_mut(&from) {
            lease.keys.remove(key);
        }
        if let Some(lease) = self.leases.get_mut(&to) {
            lease.keys.insert(key.clone());
        }
    }

    pub(crate) fn restore(&mut self, stored: StoredLease) {
        let StoredLease { id, ttl, epoch, remaining_ttl } = stored;
        let lease = Lease { ttl_s: ttl, epoch, remaining_s: remaining_ttl, keys: BTreeSet::new() };
        self.leases.insert(LeaseId(id), lease);
    }
}

fn write(id: LeaseId, lease: &Lease) -> Write {
    let stored =
        StoredLease { id: id.0, ttl: lease.ttl_s, epoch: lease.epoch, remaining_ttl: lease.remaining_s };
    Write::Meta { key: stored::lease_key(id), value: Some(Bytes::from(stored.encode_to_vec())) }
}
