//! etcd's Cluster service: who the members are, and changes of that.

use tenure_grpc::etcdserverpb::cluster_server::Cluster;
use tenure_proto::etcdserverpb::*;
use tenure_state::Revision;
use tonic::{Request, Response, Status};

use super::header::Headers;
use super::{caller, status};
use crate::node::{Members, ReadIndex};

pub struct ClusterService {
    pub headers: Headers,
    pub members: Members,
    pub read_index: ReadIndex,
}

impl ClusterService {
    /// etcd leaves the revision of these headers at 0.
    fn header(&self) -> Option<ResponseHeader> {
        Some(self.headers.at(Revision(0)))
    }
}

#[tonic::async_trait]
impl Cluster for ClusterService {
    async fn member_list(
        &self,
        request: Request<MemberListRequest>,
    ) -> Result<Response<MemberListResponse>, Status> {
        caller::admit(request.metadata(), &self.headers)?;
        if request.into_inner().linearizable {
            self.read_index.confirm().await.map_err(|error| status::of(error.into()))?;
        }
        let members = listed(&self.members.list());
        Ok(Response::new(MemberListResponse { header: self.header(), members }))
    }

    async fn member_add(
        &self,
        request: Request<MemberAddRequest>,
    ) -> Result<Response<MemberAddResponse>, Status> {
        caller::admit(request.metadata(), &self.headers)?;
        let MemberAddRequest { peer_urls, is_learner } = request.into_inner();
        let (added, members) = self.members.add(&peer_urls, is_learner).await.map_err(status::of)?;
        let (member, members) = (Some(member(&added)), listed(&members));
        Ok(Response::new(MemberAddResponse { header: self.header(), member, members }))
    }

    async fn member_remove(
        &self,
        request: Request<MemberRemoveRequest>,
    ) -> Result<Response<MemberRemoveResponse>, Status> {
        caller::admit(request.metadata(), &self.headers)?;
        let members = self.members.remove(request.into_inner().id).await.map_err(status::of)?;
        Ok(Response::new(MemberRemoveResponse { header: self.header(), members: listed(&members) }))
    }

    async fn member_update(
        &self,
        request: Request<MemberUpdateRequest>,
    ) -> Result<Response<MemberUpdateResponse>, Status> {
        caller::admit(request.metadata(), &self.headers)?;
        let MemberUpdateRequest { id, peer_urls } = request.into_inner();
        let members = self.members.update(id, &peer_urls).await.map_err(status::of)?;
        Ok(Response::new(MemberUpdateResponse { header: self.header(), members: listed(&members) }))
    }

    async fn member_promote(
        &self,
        request: Request<MemberPromoteRequest>,
    ) -> Result<Response<MemberPromoteResponse>, Status> {
        caller::admit(request.metadata(), &self.headers)?;
        let members = self.members.promote(request.into_inner().id).await.map_err(status::of)?;
        Ok(Response::new(MemberPromoteResponse { header: self.header(), members: listed(&members) }))
    }
}

fn listed(members: &[tenure_state::Member]) -> Vec<Member> {
    members.iter().map(member).collect()
}

fn member(member: &tenure_state::Member) -> Member {
    Member {
        id: member.id,
        name: member.name.clone(),
        peer_urls: member.peer_urls.clone(),
        client_urls: member.client_urls.clone(),
        is_learner: member.is_learner,
    }
}
