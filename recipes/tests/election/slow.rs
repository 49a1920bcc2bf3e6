//! A store on which clients take turns, call by call, so that a test can say who goes on and who is away.

use std::future::poll_fn;
use std::task::Poll;

use tenure_proto::etcdserverpb::{RangeRequest, RangeResponse, TxnRequest, TxnResponse};
use tenure_recipes::{Failure, Primitives, TimeLeft};

use crate::support::Store;

/// A store whose every call lets others go first.
#[derive(Clone)]
pub struct Slow(pub Store);

async fn others_first() {
    let mut waited = false;
    poll_fn(move |context| {
        if std::mem::replace(&mut waited, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

impl Primitives for Slow {
    type Changes = <Store as Primitives>::Changes;

    async fn txn(&self, txn: TxnRequest) -> Result<TxnResponse, Failure> {
        others_first().await;
        self.0.txn(txn).await
    }

    async fn range(&self, range: RangeRequest) -> Result<RangeResponse, Failure> {
        others_first().await;
        self.0.range(range).await
    }

    async fn watch(&self, key: Vec<u8>, range_end: Vec<u8>, from: i64) -> Result<Self::Changes, Failure> {
        others_first().await;
        self.0.watch(key, range_end, from).await
    }

    async fn grant(&self, lease: i64, ttl_s: i64) -> Result<i64, Failure> {
        others_first().await;
        self.0.grant(lease, ttl_s).await
    }

    async fn keep_alive(&self, lease: i64) -> Result<Option<i64>, Failure> {
        others_first().await;
        self.0.keep_alive(lease).await
    }

    async fn revoke(&self, lease: i64) -> Result<bool, Failure> {
        others_first().await;
        self.0.revoke(lease).await
    }

    async fn time_to_live(&self, lease: i64) -> Result<Option<TimeLeft>, Failure> {
        others_first().await;
        self.0.time_to_live(lease).await
    }
}
