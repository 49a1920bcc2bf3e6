//! The clients. Each does one thing after another, of every kind and on keys it shares with the others, until its server
//! is gone, and writes down what it was told.

use std::sync::Arc;

use prost::bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tenure_grpc::etcdserverpb::{kv_client::KvClient, lease_client::LeaseClient};
use tenure_proto::etcdserverpb::{
    DeleteRangeRequest, LeaseGrantRequest, LeaseRevokeRequest, RangeRequest, ResponseHeader,
};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Response, Status};

use crate::journal::{Journal, Read};
use crate::model::{self, Write};

/// Few enough that clients meet on them.
const SHARED_KEYS: u32 = 60;
const OWN_KEYS: u32 = 20;
const LEASES_HELD: usize = 12;

pub struct Worker {
    number: usize,
    chance: StdRng,
    /// Makes every value unlike all others, so that a revision tells whose it is.
    writes: u64,
    leases: Vec<i64>,
}

/// The server is gone: what was asked last is unknown.
struct Gone;

struct Desk {
    kv: KvClient<Channel>,
    lease: LeaseClient<Channel>,
    journal: Arc<Journal>,
}

impl Worker {
    pub fn new(number: usize, seed: u64) -> Worker {
        Worker { number, chance: StdRng::seed_from_u64(seed), writes: 0, leases: Vec::new() }
    }

    pub async fn work(mut self, endpoint: String, journal: Arc<Journal>) -> Worker {
        let endpoint = Endpoint::from_shared(endpoint).expect("our own endpoint");
        // The kill may come before the first request.
        if let Ok(channel) = endpoint.connect().await {
            let mut desk =
                Desk { kv: KvClient::new(channel.clone()), lease: LeaseClient::new(channel), journal };
            while self.one(&mut desk).await.is_ok() {}
        }
        self
    }

    async fn one(&mut self, desk: &mut Desk) -> Result<(), Gone> {
        match self.chance.random_range(0..100) {
            0..40 => {
                let write = self.put();
                desk.put(write).await
            }
            40..50 => desk.delete(self.shared_key(), Bytes::new()).await,
            50..55 => {
                let mine = self.number;
                desk.delete(format!("own/{mine}/").into(), format!("own/{mine}0").into()).await
            }
            55..75 => self.txn(desk).await,
            75..85 => desk.read(self.shared_key()).await.map(drop),
            85..95 => self.grant(desk).await,
            _ => self.revoke(desk).await,
        }
    }

    fn shared_key(&mut self) -> Bytes {
        format!("shared/{:02}", self.chance.random_range(0..SHARED_KEYS)).into()
    }

    fn own_key(&mut self) -> Bytes {
        format!("own/{}/{:02}", self.number, self.chance.random_range(0..OWN_KEYS)).into()
    }

    fn value(&mut self) -> Bytes {
        self.writes += 1;
        let mark = format!("{}:{}", self.number, self.writes);
        let size = if self.chance.random_bool(0.01) { self.chance.random_range(0..500_000) } else { 0 };
        (mark + &".".repeat(size)).into()
    }

    /// None, or one that this worker holds.
    fn some_lease(&mut self) -> i64 {
        match self.leases.len() {
            0 => 0,
            held if self.chance.random_bool(0.5) => self.leases[self.chance.random_range(0..held)],
            _ => 0,
        }
    }

    fn put(&mut self) -> Write {
        let key = if self.chance.random_bool(0.5) { self.shared_key() } else { self.own_key() };
        Write::Put { key, value: self.value(), lease: self.some_lease() }
    }

    /// Several keys at once, behind a guard that others may have broken meanwhile.
    async fn txn(&mut self, desk: &mut Desk) -> Result<(), Gone> {
        let key = self.shared_key();
        let unchanged_since = desk.read(key.clone()).await?;
        let pairs = self.chance.random_range(1..5);
        let first = self.chance.random_range(0..OWN_KEYS);
        let mut then = vec![Write::Put { key: key.clone(), value: self.value(), lease: self.some_lease() }];
        for next in 0..pairs {
            let own = format!("own/{}/{:02}", self.number, (first + next) % OWN_KEYS).into();
            then.push(Write::Put { key: own, value: self.value(), lease: self.some_lease() });
        }
        let gone = format!("own/{}/{:02}", self.number, (first + pairs) % OWN_KEYS).into();
        then.push(Write::Delete { from: gone, to: Bytes::new() });
        let otherwise = vec![Write::Put { key: "shared/lost".into(), value: self.value(), lease: 0 }];
        desk.txn(Write::Txn { key, unchanged_since, then, otherwise }).await
    }

    async fn grant(&mut self, desk: &mut Desk) -> Result<(), Gone> {
        if self.leases.len() >= LEASES_HELD {
            return self.revoke(desk).await;
        }
        let id = if self.chance.random_bool(0.5) { self.chance.random_range(1..i64::MAX) } else { 0 };
        let lease = desk.grant(id, self.chance.random_range(3_000..9_000)).await?;
        self.leases.push(lease);
        desk.put(Write::Put { key: self.own_key(), value: self.value(), lease }).await
    }

    async fn revoke(&mut self, desk: &mut Desk) -> Result<(), Gone> {
        if self.leases.is_empty() {
            return Ok(());
        }
        let lease = self.leases.swap_remove(self.chance.random_range(0..self.leases.len()));
        desk.revoke(lease).await
    }
}

impl Desk {
    async fn put(&mut self, write: Write) -> Result<(), Gone> {
        let Write::Put { key, value, lease } = &write else { panic!("not a put: {write:?}") };
        let Some(response) = answered(self.kv.put(model::put(key, value, *lease)).await) else {
            self.journal.leave_unanswered(write);
            return Err(Gone);
        };
        self.journal.acknowledge(revision(response.header), write);
        Ok(())
    }

    async fn delete(&mut self, from: Bytes, to: Bytes) -> Result<(), Gone> {
        let request = DeleteRangeRequest { key: from.clone(), range_end: to.clone(), ..Default::default() };
        let write = Write::Delete { from, to };
        let Some(response) = answered(self.kv.delete_range(request).await) else {
            self.journal.leave_unanswered(write);
            return Err(Gone);
        };
        if response.deleted > 0 {
            self.journal.acknowledge(revision(response.header), write);
        }
        Ok(())
    }

    async fn txn(&mut self, write: Write) -> Result<(), Gone> {
        let Write::Txn { key, unchanged_since, then, otherwise } = &write else {
            panic!("not a txn: {write:?}")
        };
        let request = model::txn(key, *unchanged_since, then, otherwise);
        let Some(response) = answered(self.kv.txn(request).await) else {
            self.journal.leave_unanswered(write);
            return Err(Gone);
        };
        self.journal.acknowledge(revision(response.header), write);
        Ok(())
    }

    /// The revision of the key's last change, 0 without the key.
    async fn read(&mut self, key: Bytes) -> Result<i64, Gone> {
        let request = RangeRequest { key: key.clone(), ..Default::default() };
        let response = answered(self.kv.range(request).await).ok_or(Gone)?;
        let pair = response.kvs.into_iter().next();
        let changed = pair.as_ref().map_or(0, |pair| pair.mod_revision);
        self.journal.entries().reads.push(Read { revision: revision(response.header), key, pair });
        Ok(changed)
    }

    async fn grant(&mut self, id: i64, ttl: i64) -> Result<i64, Gone> {
        let Some(response) = answered(self.lease.lease_grant(LeaseGrantRequest { ttl, id }).await) else {
            let mut entries = self.journal.entries();
            if id == 0 {
                entries.granted_perhaps_somehow += 1;
            } else {
                entries.granted_perhaps.insert(id, ttl);
            }
            return Err(Gone);
        };
        assert!(id == 0 || response.id == id, "lease {id} was asked for and {} was granted", response.id);
        let before = self.journal.entries().granted.insert(response.id, response.ttl);
        assert!(before.is_none(), "lease {} was granted twice", response.id);
        Ok(response.id)
    }

    async fn revoke(&mut self, lease: i64) -> Result<(), Gone> {
        let response = answered(self.lease.lease_revoke(LeaseRevokeRequest { id: lease }).await);
        let mut entries = self.journal.entries();
        if response.is_none() {
            entries.revoked_perhaps.push(lease);
            return Err(Gone);
        }
        entries.revoked.push(lease);
        Ok(())
    }
}

fn revision(header: Option<ResponseHeader>) -> i64 {
    header.expect("every answer to these calls has a header").revision
}

/// The answer, or none if there was no telling. A refusal by a living server is a fault: nothing refused is ever asked for here.
fn answered<T>(outcome: Result<Response<T>, Status>) -> Option<T> {
    match outcome {
        Ok(response) => Some(response.into_inner()),
        // A broken connection is any of these, depending on where it broke; so is a server on its way out.
        Err(status)
            if matches!(
                status.code(),
                Code::Unavailable | Code::Unknown | Code::Cancelled | Code::Internal
            ) && !status.message().contains("mvcc") =>
        {
            None
        }
        Err(status) => panic!("refused: {status:?}"),
    }
}
