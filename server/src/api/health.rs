//! gRPC's health service: the server as a whole, under the empty name, as etcd answers it.

use std::pin::Pin;

use futures::{Stream, StreamExt, stream};
use tenure_grpc::health::health_server::Health;
use tenure_proto::health::health_check_response::ServingStatus;
use tenure_proto::health::{HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse};
use tonic::{Request, Response, Status};

pub struct HealthService;

fn check(service: &str) -> Result<HealthCheckResponse, Status> {
    match service {
        "" => Ok(HealthCheckResponse { status: ServingStatus::Serving as i32 }),
        _ => Err(Status::not_found("unknown service")),
    }
}

#[tonic::async_trait]
impl Health for HealthService {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        check(&request.into_inner().service).map(Response::new)
    }

    async fn list(&self, _: Request<HealthListRequest>) -> Result<Response<HealthListResponse>, Status> {
        let statuses = [(String::new(), check("")?)].into_iter().collect();
        Ok(Response::new(HealthListResponse { statuses }))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    /// Says how it is and stays open: while this member answers at all, that does not change.
    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let unknown = HealthCheckResponse { status: ServingStatus::ServiceUnknown as i32 };
        let now = check(&request.into_inner().service).unwrap_or(unknown);
        Ok(Response::new(Box::pin(stream::iter([Ok(now)]).chain(stream::pending()))))
    }
}
