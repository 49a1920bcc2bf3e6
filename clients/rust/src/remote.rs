//! A cluster as recipes see it. They find out for themselves what became of a write whose answer was lost, so here nothing of
//! unknown outcome is sent twice.

use tenure_grpc::etcdserverpb::kv_client::KvClient;
use tenure_proto::etcdserverpb::{RangeRequest, RangeResponse, TxnRequest, TxnResponse};
use tenure_recipes::{Change, Changes, Failure, Primitives, TimeLeft};
use tonic::transport::Channel;

use crate::client::{Client, Repeat};
use crate::error::Error;
use crate::lease::Leases;
use crate::watch::{Watch, Watching};

/// A cluster as recipes see it.
#[derive(Clone)]
pub struct Remote {
    client: Client,
}

impl Remote {
    pub fn new(client: Client) -> Remote {
        Remote { client }
    }

    /// Up to where: a range is refused without saying it, a watch says it.
    async fn compacted(&self, key: Vec<u8>, revision: i64) -> Failure {
        let asked = async { Changes::next(&mut self.watch(key, Vec::new(), revision).await?).await };
        match tokio::time::timeout(self.client.options().attempt_timeout, asked).await {
            Ok(Err(failure @ Failure::Compacted { .. })) => failure,
            // A member that has not heard of it yet: it is gone up to there at the least.
            Ok(_) | Err(_) => Failure::Compacted { at: revision + 1 },
        }
    }

    fn leases(&self) -> Leases {
        Leases::new(self.client.clone())
    }
}

impl Primitives for Remote {
    type Changes = Watch;

    async fn txn(&self, txn: TxnRequest) -> Result<TxnResponse, Failure> {
        let ask = |channel, request| async move { kv(channel).txn(request).await };
        Ok(self.client.call(Repeat::IfNotDone, txn, ask).await?)
    }

    async fn range(&self, range: RangeRequest) -> Result<RangeResponse, Failure> {
        let ask = |channel, request| async move { kv(channel).range(request).await };
        let (key, revision) = (range.key.clone(), range.revision);
        match self.client.call(Repeat::Harmless, range, ask).await {
            Err(Error::Compacted { .. }) => Err(self.compacted(key.to_vec(), revision).await),
            answer => answer.map_err(read),
        }
    }

    async fn watch(&self, key: Vec<u8>, range_end: Vec<u8>, from: i64) -> Result<Watch, Failure> {
        if from == 0 {
            return Err(Failure::Invalid("a watch must say from which revision it begins".into()));
        }
        Ok(Watching::new(self.client.clone(), key).to(range_end).from(from).await?)
    }

    async fn grant(&self, lease: i64, ttl_s: i64) -> Result<i64, Failure> {
        Ok(self.leases().grant_once(Repeat::IfNotDone, lease, ttl_s).await?)
    }

    async fn keep_alive(&self, lease: i64) -> Result<Option<i64>, Failure> {
        self.leases().keep_alive(lease).await.map_err(read)
    }

    async fn revoke(&self, lease: i64) -> Result<bool, Failure> {
        Ok(self.leases().revoke_as(Repeat::IfNotDone, lease).await?)
    }

    async fn time_to_live(&self, lease: i64) -> Result<Option<TimeLeft>, Failure> {
        let left = self.leases().time_to_live(lease).await.map_err(read)?;
        Ok(left.map(|left| TimeLeft { remaining_s: left.remaining_s, granted_s: left.granted_s }))
    }
}

impl Changes for Watch {
    async fn next(&mut self) -> Result<Change, Failure> {
        Ok(Watch::next(self).await?)
    }
}

/// Nothing can have been done by what only asks.
fn read(error: Error) -> Failure {
    match error {
        Error::Unknown(text) => Failure::Unavailable(text),
        error => error.into(),
    }
}

fn kv(channel: Channel) -> KvClient<Channel> {
    KvClient::new(channel).max_decoding_message_size(usize::MAX)
}
