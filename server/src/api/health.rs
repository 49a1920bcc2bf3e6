//! gRPC's health service: the server as a whole, under the empty name, as etcd answers it.

use std::pin::Pin;

use futures::{Stream, StreamExt, stream};
use tenure_grpc::health::health_server::Health;
use tenure_proto::health::health_check_response::ServingStatus;
use tenure_proto::health::{HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse};
use tokio::sync::watch::Receiver;
use tonic::{Request, Response, Status};

pub struct HealthService {
    pub stopping: Receiver<bool>,
}

impl HealthService {
    fn check_of(&self, service: &str) -> Result<HealthCheckResponse, Status> {
        match service {
            "" if *self.stopping.borrow() => Ok(answer(ServingStatus::NotServing)),
            "" => Ok(answer(ServingStatus::Serving)),
            _ => Err(Status::not_found("unknown service")),
        }
    }
}

fn answer(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status as i32 }
}

#[tonic::async_trait]
impl Health for HealthService {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        self.check_of(&request.into_inner().service).map(Response::new)
    }

    async fn list(&self, _: Request<HealthListRequest>) -> Result<Response<HealthListResponse>, Status> {
        let statuses = [(String::new(), self.check_of("")?)].into_iter().collect();
        Ok(Response::new(HealthListResponse { statuses }))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    /// Says how it is and stays open until this member stops, which it says before it ends.
    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let (now, then) = match self.check_of(&request.into_inner().service) {
            Ok(now) => (now, ServingStatus::NotServing),
            Err(_) => (answer(ServingStatus::ServiceUnknown), ServingStatus::ServiceUnknown),
        };
        let mut stopping = self.stopping.clone();
        let end = async move {
            // An error means the same: the one who would tell is gone.
            let _ = stopping.wait_for(|stop| *stop).await;
            Ok(answer(then))
        };
        Ok(Response::new(Box::pin(stream::iter([Ok(now)]).chain(stream::once(end)))))
    }
}
