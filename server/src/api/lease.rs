//! etcd's Lease service.

use futures::future::BoxFuture;
use futures::stream::{self, FuturesUnordered, ReadyChunks, StreamExt};
use tenure_grpc::etcdserverpb::lease_server::Lease;
use tenure_proto::etcdserverpb::*;
use tenure_state::LeaseId;
use tokio::sync::watch;
use tonic::{Request, Response, Status, Streaming};

use super::header::Headers;
use super::{caller, status};
use crate::node::{Leases, Quota, Renewed, View};

/// Keepalives of one stream that share one proof of leadership, when that many have arrived.
const RENEWALS_AT_ONCE: usize = 256;
/// Parts of a stream that wait for something at once; until there are fewer, no more is read of it.
const SLOW_AT_ONCE: usize = 64;
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

    /// All that have arrived when a proof of leadership begins share it. What can be answered is answered in the order of the
    /// questions; a lease that has to wait for something does not hold up the others.
    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<LeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        caller::admit(request.metadata(), &self.headers)?;
        let demands_leader = caller::requires_leader(request.metadata());
        let renewing = Renewing {
            questions: Some(request.into_inner().ready_chunks(RENEWALS_AT_ONCE)),
            slow: FuturesUnordered::new(),
            asker: Asker {
                leases: self.leases.clone(),
                headers: self.headers.clone(),
                view: self.view.clone(),
            },
        };
        let answers = stream::unfold(renewing, |mut renewing| async move {
            let answers = renewing.next().await?;
            Some((stream::iter(answers), renewing))
        });
        let answers = caller::until_stopped(&self.stopping, status::stopped(), answers.flatten());
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

/// What a client is answered on one stream of keepalives.
struct Renewing {
    /// None once there will be no more.
    questions: Option<ReadyChunks<Streaming<LeaseKeepAliveRequest>>>,
    slow: FuturesUnordered<BoxFuture<'static, Answers>>,
    asker: Asker,
}

type Answers = Vec<Result<LeaseKeepAliveResponse, Status>>;

impl Renewing {
    /// None when there is nothing left to answer.
    async fn next(&mut self) -> Option<Answers> {
        loop {
            if self.questions.is_none() && self.slow.is_empty() {
                return None;
            }
            let full = self.slow.len() >= SLOW_AT_ONCE;
            let asked = async {
                match &mut self.questions {
                    Some(questions) if !full => questions.next().await,
                    _ => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                Some(answers) = self.slow.next() => return Some(answers),
                asked = asked => match asked {
                    Some(asked) => return Some(self.answer(asked).await),
                    None => self.questions = None,
                },
            }
        }
    }

    async fn answer(&mut self, asked: Vec<Result<LeaseKeepAliveRequest, Status>>) -> Answers {
        // The header speaks of the time before the renewal, as etcd's does.
        let header = self.asker.headers.at(self.asker.view.machine().revision());
        let mut broken = None;
        let mut ids = Vec::with_capacity(asked.len());
        for request in asked {
            match request {
                Ok(request) => ids.push(LeaseId(request.id)),
                Err(status) => broken = Some(status),
            }
        }
        let Renewed { known, slow } = match self.asker.leases.renew(&ids).await {
            Ok(renewed) => renewed,
            Err(error) => return vec![Err(status::of_renewal(error))],
        };
        if !slow.is_empty() {
            self.slow.push(Box::pin(self.asker.clone().answer_slowly(header, slow)));
        }
        let mut answers: Answers = known.into_iter().map(|(id, ttl)| Ok(answer(header, id, ttl))).collect();
        answers.extend(broken.map(Err));
        answers
    }
}

#[derive(Clone)]
struct Asker {
    leases: Leases,
    headers: Headers,
    view: std::sync::Arc<View>,
}

impl Asker {
    async fn answer_slowly(self, header: ResponseHeader, ids: Vec<LeaseId>) -> Answers {
        match self.leases.renew_patiently(&ids).await {
            Ok(ttls) => ids.into_iter().zip(ttls).map(|(id, ttl)| Ok(answer(header, id, ttl))).collect(),
            Err(error) => vec![Err(status::of_renewal(error))],
        }
    }
}

fn answer(header: ResponseHeader, id: LeaseId, ttl: i64) -> LeaseKeepAliveResponse {
    LeaseKeepAliveResponse { header: Some(header), id: id.0, ttl }
}
