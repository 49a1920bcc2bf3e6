//! etcd's Cluster service, as far as a cluster of one needs it: who the members are.

use std::sync::Arc;

use tenure_grpc::etcdserverpb::cluster_server::Cluster;
use tenure_proto::etcdserverpb::*;
use tenure_state::Revision;
use tonic::{Request, Response, Status};

use super::header::Headers;
use super::{caller, status};
use crate::node::{ReadIndex, View};

pub struct ClusterService {
    pub headers: Headers,
    pub view: Arc<View>,
    pub read_index: ReadIndex,
}

/// The answer to what changes the membership.
fn not_yet() -> Status {
    Status::unimplemented(
        "tenure: this version runs clusters of one member; membership cannot be changed yet",
    )
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
        let members = self.view.machine().members().iter().map(member).collect();
        // etcd leaves the revision of this header at 0.
        Ok(Response::new(MemberListResponse { header: Some(self.headers.at(Revision(0))), members }))
    }

    async fn member_add(&self, _: Request<MemberAddRequest>) -> Result<Response<MemberAddResponse>, Status> {
        Err(not_yet())
    }

    async fn member_remove(
        &self,
        _: Request<MemberRemoveRequest>,
    ) -> Result<Response<MemberRemoveResponse>, Status> {
        Err(not_yet())
    }

    async fn member_update(
        &self,
        _: Request<MemberUpdateRequest>,
    ) -> Result<Response<MemberUpdateResponse>, Status> {
        Err(not_yet())
    }

    async fn member_promote(
        &self,
        _: Request<MemberPromoteRequest>,
    ) -> Result<Response<MemberPromoteResponse>, Status> {
        Err(not_yet())
    }
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
