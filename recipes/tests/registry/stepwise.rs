//! A store that lets others go first before each call and behind it, so that a test decides in which order all go on; and dice.

use std::future::poll_fn;
use std::task::Poll;

use tenure_proto::etcdserverpb::{RangeRequest, RangeResponse, TxnRequest, TxnResponse};
use tenure_recipes::{Failure, Primitives, TimeLeft};

use super::support::Store;

#[derive(Clone)]
pub struct Stepwise(pub Store);

async fn pause() {
    let mut paused = false;
    poll_fn(|context| {
        context.waker().wake_by_ref();
        let ready = if paused { Poll::Ready(()) } else { Poll::Pending };
        paused = true;
        ready
    })
    .await;
}

impl Primitives for Stepwise {
    type Changes = <Store as Primitives>::Changes;

    async fn txn(&self, txn: TxnRequest) -> Result<TxnResponse, Failure> {
        pause().await;
        let answer = self.0.txn(txn).await;
        pause().await;
        answer
    }

    async fn range(&self, range: RangeRequest) -> Result<RangeResponse, Failure> {
        pause().await;
        self.0.range(range).await
    }

    async fn watch(&self, key: Vec<u8>, range_end: Vec<u8>, from: i64) -> Result<Self::Changes, Failure> {
        pause().await;
        self.0.watch(key, range_end, from).await
    }

    async fn grant(&self, lease: i64, ttl_s: i64) -> Result<i64, Failure> {
        pause().await;
        self.0.grant(lease, ttl_s).await
    }

    async fn keep_alive(&self, lease: i64) -> Result<Option<i64>, Failure> {
        pause().await;
        let answer = self.0.keep_alive(lease).await;
        pause().await;
        answer
    }

    async fn revoke(&self, lease: i64) -> Result<bool, Failure> {
        pause().await;
        self.0.revoke(lease).await
    }

    async fn time_to_live(&self, lease: i64) -> Result<Option<TimeLeft>, Failure> {
        self.0.time_to_live(lease).await
    }
}

/// xorshift: the same throws for the same seed.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }
}
