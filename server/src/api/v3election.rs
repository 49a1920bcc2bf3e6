//! etcd's Election service.

use futures::stream;
use tenure_grpc::v3electionpb::election_server::Election;
use tenure_proto::v3electionpb::*;
use tenure_recipes::etcd::election::{self, Observer};
use tenure_recipes::etcd::line::{self, Turn};
use tenure_state::Revision;
use tonic::{Request, Response, Status};

use super::header::Headers;
use super::waiting::Standing;
use super::{caller, reserved, status};
use crate::node::Here;

pub struct ElectionService {
    pub headers: Headers,
    pub here: Here,
}

#[tonic::async_trait]
impl Election for ElectionService {
    async fn campaign(
        &self,
        request: Request<CampaignRequest>,
    ) -> Result<Response<CampaignResponse>, Status> {
        caller::admit(request.metadata(), &self.headers)?;
        let CampaignRequest { name, lease, value } = request.into_inner();
        reserved::check(&line::keys(&name).0)?;
        let standing = Standing::take(&self.here, name.clone(), lease, value.clone()).await;
        let standing = standing.map_err(status::of_recipe)?;
        let (key, rev) = (standing.place.key.clone(), standing.place.create_revision);
        if standing.place.value != value {
            let proclaimed = election::proclaim(&self.here, &key, rev, value).await;
            proclaimed.map_err(status::of_recipe)?.ok_or_else(not_leader)?;
        }
        match standing.wait().await.map_err(status::of_recipe)? {
            Turn::Front { .. } => {
                let leader = LeaderKey { name, key, rev, lease: standing.lease };
                // etcd's header is that of the candidacy's beginning.
                let header = Some(self.headers.at(Revision(standing.place.revision)));
                standing.keep();
                Ok(Response::new(CampaignResponse { header, leader: Some(leader) }))
            }
            Turn::Gone => Err(not_leader()),
        }
    }

    async fn proclaim(
        &self,
        request: Request<ProclaimRequest>,
    ) -> Result<Response<ProclaimResponse>, Status> {
        caller::admit(request.metadata(), &self.headers)?;
        let ProclaimRequest { leader, value } = request.into_inner();
        let LeaderKey { key, rev, .. } = leader.ok_or_else(no_leader_key)?;
        reserved::check(&key)?;
        let proclaimed = election::proclaim(&self.here, &key, rev, value).await;
        let revision = proclaimed.map_err(status::of_recipe)?.ok_or_else(not_leader)?;
        Ok(Response::new(ProclaimResponse { header: Some(self.headers.at(Revision(revision))) }))
    }

    async fn leader(&self, request: Request<LeaderRequest>) -> Result<Response<LeaderResponse>, Status> {
        caller::admit(request.metadata(), &self.headers)?;
        let name = request.into_inner().name;
        let (kv, revision) = election::leader(&self.here, &name).await.map_err(status::of_recipe)?;
        let kv = kv.ok_or_else(|| Status::unknown("election: no leader"))?;
        Ok(Response::new(LeaderResponse { header: Some(self.headers.at(Revision(revision))), kv: Some(kv) }))
    }

    type ObserveStream = caller::Answers<LeaderResponse>;

    async fn observe(
        &self,
        request: Request<LeaderRequest>,
    ) -> Result<Response<Self::ObserveStream>, Status> {
        caller::admit(request.metadata(), &self.headers)?;
        let demands_leader = caller::requires_leader(request.metadata());
        let observer = Observer::begin(self.here.clone(), request.into_inner().name).await;
        let observer = observer.map_err(status::of_recipe)?;
        let headers = self.headers.clone();
        let seen = stream::unfold(Some(observer), move |observer| {
            let headers = headers.clone();
            async move {
                let mut observer = observer?;
                match observer.next().await {
                    Ok((kv, revision)) => {
                        let header = Some(headers.at(Revision(revision)));
                        Some((Ok(LeaderResponse { header, kv: Some(kv) }), Some(observer)))
                    }
                    Err(failure) => Some((Err(status::of_recipe(failure)), None)),
                }
            }
        });
        Ok(Response::new(caller::while_led(demands_leader, &self.headers, seen)))
    }

    async fn resign(&self, request: Request<ResignRequest>) -> Result<Response<ResignResponse>, Status> {
        caller::admit(request.metadata(), &self.headers)?;
        let LeaderKey { key, rev, .. } = request.into_inner().leader.ok_or_else(no_leader_key)?;
        reserved::check(&key)?;
        let revision = election::resign(&self.here, &key, rev).await.map_err(status::of_recipe)?;
        Ok(Response::new(ResignResponse { header: Some(self.headers.at(Revision(revision))) }))
    }
}

fn not_leader() -> Status {
    Status::unknown("election: not leader")
}

fn no_leader_key() -> Status {
    Status::unknown("\"leader\" field must be provided")
}
