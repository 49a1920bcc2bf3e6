//! What the leader asks of this member for its audit.

use std::sync::Arc;

use tenure_grpc::internal::audit_server::{Audit, AuditServer};
use tenure_proto::internal::{HistorySumRequest, HistorySumResponse};
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status};

use super::sum::{self, Window};
use crate::peers::Peers;
use crate::raft::View;

/// Sums up this member's history for another.
pub struct Service {
    view: Arc<View>,
    peers: Peers,
    /// One at a time: each reads as much as there is.
    turn: Semaphore,
}

impl Service {
    pub fn new(view: Arc<View>, peers: Peers) -> AuditServer<Service> {
        AuditServer::new(Service { view, peers, turn: Semaphore::new(1) })
    }
}

#[tonic::async_trait]
impl Audit for Service {
    async fn sum_history(
        &self,
        request: Request<HistorySumRequest>,
    ) -> Result<Response<HistorySumResponse>, Status> {
        self.peers.caller(request.metadata())?;
        let window = Window::from_request(request.into_inner());
        let _turn = self.turn.acquire().await;
        let outcome = sum::of(&self.view, window).await;
        let outcome =
            outcome.map_err(|fatal| Status::internal(format!("tenure: cannot sum up history: {fatal}")))?;
        Ok(Response::new(outcome.response()))
    }
}
