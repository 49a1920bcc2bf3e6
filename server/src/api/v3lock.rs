//! etcd's Lock service.

use tenure_grpc::v3lockpb::lock_server::Lock;
use tenure_proto::v3lockpb::{LockRequest, LockResponse, UnlockRequest, UnlockResponse};
use tenure_recipes::etcd::{line, line::Turn, lock};
use tenure_state::Revision;
use tonic::{Request, Response, Status};

use super::header::Headers;
use super::waiting::Standing;
use super::{caller, reserved, status};
use crate::node::Here;

pub struct LockService {
    pub headers: Headers,
    pub here: Here,
}

#[tonic::async_trait]
impl Lock for LockService {
    async fn lock(&self, request: Request<LockRequest>) -> Result<Response<LockResponse>, Status> {
        caller::admit(request.metadata(), &self.headers)?;
        let LockRequest { name, lease } = request.into_inner();
        reserved::check(&line::keys(&name).0)?;
        let standing =
            Standing::take(&self.here, name, lease, Default::default()).await.map_err(status::of_recipe)?;
        match standing.wait().await.map_err(status::of_recipe)? {
            Turn::Front { revision } => {
                let key = standing.place.key.clone();
                standing.keep();
                let header = Some(self.headers.at(Revision(revision)));
                Ok(Response::new(LockResponse { header, key }))
            }
            Turn::Gone => Err(Status::unknown("mutex: session is expired")),
        }
    }

    async fn unlock(&self, request: Request<UnlockRequest>) -> Result<Response<UnlockResponse>, Status> {
        caller::admit(request.metadata(), &self.headers)?;
        let key = request.into_inner().key;
        if key.is_empty() {
            return Err(Status::unknown("etcdserver: key is not provided"));
        }
        reserved::check(&key)?;
        let revision = lock::unlock(&self.here, key).await.map_err(status::of_recipe)?;
        Ok(Response::new(UnlockResponse { header: Some(self.headers.at(Revision(revision))) }))
    }
}
