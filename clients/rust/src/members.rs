//! Who belongs to the cluster.

use tenure_grpc::etcdserverpb::cluster_client::ClusterClient;
use tenure_proto::etcdserverpb::{
    Member, MemberAddRequest, MemberListRequest, MemberPromoteRequest, MemberRemoveRequest,
};

use crate::client::{Client, Repeat};
use crate::error::Error;

/// The cluster's members. What changes them is sent once: if its answer is lost, list them to see what became of it.
#[derive(Clone)]
pub struct Members {
    client: Client,
}

impl Members {
    pub(crate) fn new(client: Client) -> Members {
        Members { client }
    }

    pub async fn list(&self) -> Result<Vec<Member>, Error> {
        let ask = |channel, request| async move { ClusterClient::new(channel).member_list(request).await };
        let list = MemberListRequest { linearizable: true };
        Ok(self.client.call(Repeat::Harmless, list, ask).await?.members)
    }

    /// The new member's id, and all there are now.
    pub async fn add(&self, peer_urls: Vec<String>, is_learner: bool) -> Result<(u64, Vec<Member>), Error> {
        let ask = |channel, request| async move { ClusterClient::new(channel).member_add(request).await };
        let add = MemberAddRequest { peer_urls, is_learner };
        let added = self.client.call(Repeat::IfNotDone, add, ask).await?;
        Ok((added.member.map_or(0, |member| member.id), added.members))
    }

    pub async fn remove(&self, id: u64) -> Result<(), Error> {
        let ask = |channel, request| async move { ClusterClient::new(channel).member_remove(request).await };
        self.client.call(Repeat::IfNotDone, MemberRemoveRequest { id }, ask).await.map(|_| ())
    }

    /// Lets a learner vote.
    pub async fn promote(&self, id: u64) -> Result<(), Error> {
        let ask = |channel, request| async move { ClusterClient::new(channel).member_promote(request).await };
        self.client.call(Repeat::IfNotDone, MemberPromoteRequest { id }, ask).await.map(|_| ())
    }
}
