//! etcd's Lease service.

use futures::StreamExt;
use tenure_grpc::etcdserverpb::lease_server::Lease;
use tenure_proto::etcdserverpb::*;
use tenure_state::LeaseId;
use tokio::sync::watch;
use tonic::{Request, Response, Status, Streaming};

use super::header::Headers;
use super::{caller, status};
use crate::node::{Leases, Quota, View};

/// Keepalives of one stream that share one proof of leadership, when that many have arrived.
const RENEWALS_AT_ONCE: usize = 256;
/// What a lease counts for against the quota, bytes: etcd's figure.
const LEASE_BYTES: usize = 64;

pub struct LeaseService {
    pub headers: Headers,
    pub leases: Leases,
    pub quota: Quota,
    pub view: std::sync::Arc<View>,
    pub stopping: watch::Receiver<bool>,
}

#[tonic::async_trait]
impl Lease for LeaseService {
    async fn lease_grant(
        &self,
        request: Request<LeaseGrantRequest>,
    ) -> Result<Response<LeaseGrantResponse>, Status> {
        caller::admit(request.metadata(), &self.headers)?;
        let LeaseGrantRequest { ttl, id } = request.into_inner();
        self.quota.admit(LEASE_BYTES).await.map_err(status::of)?;
        let (id, ttl, revision) = self.leases.grant(id, ttl).await.map_err(status::of)?;
        let header = Some(self.headers.at(revision));
        Ok(Response::new(LeaseGrantResponse { header, id: id.0, ttl, error: String::new() }))
    }

    async fn lease_revoke(
        &self,
        request: Request<LeaseRevokeRequest>,
    ) -> Result<Response<LeaseRevokeResponse>, Status> {
        caller::admit(request.metadata(), &self.headers)?;
        let revision = self.leases.revoke(LeaseId(request.into_inner().id)).await.map_err(status::of)?;
        Ok(Response::new(LeaseRevokeResponse { header: Some(self.headers.at(revision)) }))
    }

    type LeaseKeepAliveStream = caller::Answers<LeaseKeepAliveResponse>;

    /// Answers come in the order of the questions. All that have arrived when a proof of leadership begins share it.
    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<LeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        caller::admit(request.metadata(), &self.headers)?;
        let demands_leader = caller::requires_leader(request.metadata());
        let (leases, headers, view) = (self.leases.clone(), self.headers.clone(), self.view.clone());
        let renewals = request.into_inner().ready_chunks(RENEWALS_AT_ONCE).then(move |chunk| {
            let (leases, headers, view) = (leases.clone(), headers.clone(), view.clone());
            async move { futures::stream::iter(renew(&leases, &headers, &view, chunk).await) }
        });
        let mut stopping = self.stopping.clone();
        // An error means the same: the one who would tell is gone.
        let stop = async move { drop(stopping.wait_for(|stop| *stop).await) };
        let answers = renewals.flatten().take_until(Box::pin(stop));
        Ok(Response::new(caller::while_led(demands_leader, &self.headers, answers)))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<LeaseTimeToLiveRequest>,
    ) -> Result<Response<LeaseTimeToLiveResponse>, Status> {
        caller::admit(request.metadata(), &self.headers)?;
        let LeaseTimeToLiveRequest { id, keys } = request.into_inner();
        let (left, revision) = self.leases.time_to_live(LeaseId(id), keys).await.map_err(status::of)?;
        let header = Some(self.headers.at(revision));
        let response = match left {
            Some(left) => LeaseTimeToLiveResponse {
                header,
                id,
                ttl: left.remaining_s,
                granted_ttl: left.granted_s,
                keys: left.keys,
            },
            None => LeaseTimeToLiveResponse { header, id, ttl: -1, ..Default::default() },
        };
        Ok(Response::new(response))
    }

    async fn lease_leases(
        &self,
        request: Request<LeaseLeasesRequest>,
    ) -> Result<Response<LeaseLeasesResponse>, Status> {
        caller::admit(request.metadata(), &self.headers)?;
        let (ids, revision) = self.leases.list().await.map_err(status::of)?;
        let leases = ids.into_iter().map(|id| LeaseStatus { id: id.0 }).collect();
        Ok(Response::new(LeaseLeasesResponse { header: Some(self.headers.at(revision)), leases }))
    }
}

async fn renew(
    leases: &Leases,
    headers: &Headers,
    view: &View,
    chunk: Vec<Result<LeaseKeepAliveRequest, Status>>,
) -> Vec<Result<LeaseKeepAliveResponse, Status>> {
    // The header speaks of the time before the renewal, as etcd's does.
    let header = headers.at(view.machine().revision());
    let mut broken = None;
    let mut ids = Vec::with_capacity(chunk.len());
    for request in chunk {
        match request {
            Ok(request) => ids.push(LeaseId(request.id)),
            Err(status) => broken = Some(status),
        }
    }
    let mut answers = Vec::with_capacity(ids.len() + 1);
    match leases.renew(&ids).await {
        Ok(ttls) => answers.extend(
            ids.iter()
                .zip(ttls)
                .map(|(id, ttl)| Ok(LeaseKeepAliveResponse { header: Some(header), id: id.0, ttl })),
        ),
        Err(error) => return vec![Err(status::of(error))],
    }
    answers.extend(broken.map(Err));
    answers
}
