//! `tenure.v1.Locks`.

mod standing;
mod streams;

use std::time::Duration;

use tenure_grpc::tenure_v1::locks_server::Locks;
use tenure_proto::etcdserverpb::ResponseHeader;
use tenure_proto::tenure::v1::acquire_lock_response::Outcome as AcquireOutcome;
use tenure_proto::tenure::v1::convert_lock_response::Outcome as ConvertOutcome;
use tenure_proto::tenure::v1::lock_event::ReleaseRequested;
use tenure_proto::tenure::v1::release_lock_response::Outcome as ReleaseOutcome;
use tenure_proto::tenure::v1::*;
use tenure_recipes::Root;
use tenure_recipes::lock::{self, Owner, Waited, Wish};
use tenure_state::Revision;
use tonic::{Request, Response, Status};

use super::header::Headers;
use super::{caller, reason};
use crate::node::Here;
use standing::{Outcome, Standing};

pub struct LocksService {
    pub headers: Headers,
    pub here: Here,
    root: Root,
}

#[tonic::async_trait]
impl Locks for LocksService {
    type FollowStream = caller::Answers<LockEvent>;
    type WatchStream = caller::Answers<WatchLocksResponse>;
    type TokenFloorStream = caller::Answers<LockTokenFloorResponse>;

    async fn acquire(
        &self,
        request: Request<AcquireLockRequest>,
    ) -> Result<Response<AcquireLockResponse>, Status> {
        caller::admit(request.metadata(), &self.headers)?;
        let request = request.into_inner();
        let order: Vec<String> = request.locks.iter().map(|spec| spec.name.clone()).collect();
        let (wait, keep_place) = (wait(request.wait_ms)?, request.keep_place);
        let wish = Wish {
            locks: request.locks,
            owner: Owner { session: request.session_id, id: request.owner_id },
            delay_s: request.delay_s,
            labels: request.labels,
            unix_ms: self.here.unix_ms(),
        };
        let mut standing = Standing::new(&self.here, wish, wait != Some(Duration::ZERO));
        let outcome = standing.acquire(wait).await.map_err(reason::of)?;
        let answer = match outcome {
            Outcome::Granted { grants, revision } => self.granted(&order, grants, revision),
            Outcome::Busy { obstacle, revision } => {
                let obstacle = Some(self.summary(&obstacle).await?);
                let header = self.header_at(revision);
                AcquireLockResponse {
                    header,
                    outcome: AcquireOutcome::Busy.into(),
                    obstacle,
                    ..Default::default()
                }
            }
            Outcome::TimedOut { ticket } if keep_place => {
                standing.keep();
                let name = &ticket.locks[0].name;
                let ahead = lock::ahead(&self.here, &self.root, name, &ticket.number)
                    .await
                    .map_err(reason::failed)?;
                let (header, obstacle) = (self.header(), Some(self.summary(name).await?));
                AcquireLockResponse {
                    header,
                    outcome: AcquireOutcome::Queued.into(),
                    obstacle,
                    ahead,
                    ..Default::default()
                }
            }
            Outcome::TimedOut { ticket } => match standing.give_up().await.map_err(reason::failed)? {
                Waited::Granted { grants, revision } => self.granted(&order, grants, revision),
                Waited::Gone { revision } => {
                    let obstacle = Some(self.summary(&ticket.locks[0].name).await?);
                    let header = self.header_at(revision);
                    AcquireLockResponse {
                        header,
                        outcome: AcquireOutcome::TimedOut.into(),
                        obstacle,
                        ..Default::default()
                    }
                }
            },
        };
        Ok(Response::new(answer))
    }

    async fn follow(
        &self,
        request: Request<FollowLockRequest>,
    ) -> Result<Response<Self::FollowStream>, Status> {
        caller::admit(request.metadata(), &self.headers)?;
        let FollowLockRequest { name, session_id, owner_id } = request.into_inner();
        let owner = Owner { session: session_id, id: owner_id };
        let following = lock::follow(&self.here, &self.root, &name, &owner).map_err(reason::of)?;
        Ok(Response::new(streams::follow(self.headers.clone(), self.here.clone(), name, following)))
    }

    async fn release(
        &self,
        request: Request<ReleaseLockRequest>,
    ) -> Result<Response<ReleaseLockResponse>, Status> {
        caller::admit(request.metadata(), &self.headers)?;
        let ReleaseLockRequest { name, token, session_id, owner_id } = request.into_inner();
        let owner = owner(session_id, owner_id);
        let unix_ms = self.here.unix_ms();
        let released = lock::release(&self.here, &self.root, &name, token, owner.as_ref(), unix_ms).await;
        let (outcome, header) = match released.map_err(reason::of)? {
            Some(revision) => (ReleaseOutcome::Released, self.header_at(revision)),
            None => (ReleaseOutcome::NotCurrent, self.header()),
        };
        Ok(Response::new(ReleaseLockResponse { header, outcome: outcome.into() }))
    }

    async fn leave(&self, request: Request<LeaveLockRequest>) -> Result<Response<LeaveLockResponse>, Status> {
        caller::admit(request.metadata(), &self.headers)?;
        let LeaveLockRequest { names, session_id, owner_id } = request.into_inner();
        let owner = Owner { session: session_id, id: owner_id };
        let left = lock::leave(&self.here, &self.root, &names, &owner, self.here.unix_ms()).await;
        Ok(Response::new(LeaveLockResponse { left: left.map_err(reason::of)?, header: self.header() }))
    }

    async fn convert(
        &self,
        request: Request<ConvertLockRequest>,
    ) -> Result<Response<ConvertLockResponse>, Status> {
        caller::admit(request.metadata(), &self.headers)?;
        let ConvertLockRequest { name, token, mode, session_id, owner_id } = request.into_inner();
        let mode =
            LockMode::try_from(mode).map_err(|_| reason::invalid(format!("{mode} is no mode of a lock")))?;
        let (owner, unix_ms) = (owner(session_id, owner_id), self.here.unix_ms());
        let converted =
            lock::convert(&self.here, &self.root, &name, token, mode, owner.as_ref(), unix_ms).await;
        let (outcome, grant, revision) = match converted.map_err(reason::of)? {
            lock::Converted::Granted { grant, revision } => (ConvertOutcome::Granted, Some(grant), revision),
            lock::Converted::Busy { grant, revision } => (ConvertOutcome::Busy, Some(grant), revision),
            lock::Converted::NotCurrent { revision } => (ConvertOutcome::NotCurrent, None, revision),
        };
        Ok(Response::new(ConvertLockResponse {
            header: self.header_at(revision),
            outcome: outcome.into(),
            grant,
        }))
    }

    async fn inspect(
        &self,
        request: Request<InspectLockRequest>,
    ) -> Result<Response<InspectLockResponse>, Status> {
        caller::admit(request.metadata(), &self.headers)?;
        let InspectLockRequest { name, limit } = request.into_inner();
        let inspected = lock::inspect(&self.here, &self.root, &name, limit).await.map_err(reason::of)?;
        let lock::Inspected { lock, holders, waiters, policy, revision } = inspected;
        let header = self.header_at(revision);
        let (lock, policy) = (Some(lock), Some(policy));
        Ok(Response::new(InspectLockResponse { header, lock, holders, waiters, policy }))
    }

    async fn list(&self, request: Request<ListLocksRequest>) -> Result<Response<ListLocksResponse>, Status> {
        caller::admit(request.metadata(), &self.headers)?;
        let ListLocksRequest { prefix, after, limit } = request.into_inner();
        let listed = lock::list(&self.here, &self.root, &prefix, &after, limit).await;
        let (locks, more, revision) = listed.map_err(reason::failed)?;
        Ok(Response::new(ListLocksResponse { header: self.header_at(revision), locks, more }))
    }

    async fn watch(
        &self,
        request: Request<WatchLocksRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        caller::admit(request.metadata(), &self.headers)?;
        let watching = lock::watch(&self.here, &self.root, &request.get_ref().name, request.get_ref().prefix);
        Ok(Response::new(streams::watch(self.headers.clone(), watching.map_err(reason::of)?)))
    }

    async fn check_token(
        &self,
        request: Request<CheckLockTokenRequest>,
    ) -> Result<Response<CheckLockTokenResponse>, Status> {
        caller::admit(request.metadata(), &self.headers)?;
        let CheckLockTokenRequest { name, token, session_id, owner_id } = request.into_inner();
        let owner = owner(session_id, owner_id);
        let checked = lock::check(&self.here, &self.root, &name, token, owner.as_ref()).await;
        let lock::Checked { current, floor, revision } = checked.map_err(reason::of)?;
        Ok(Response::new(CheckLockTokenResponse { header: self.header_at(revision), current, floor }))
    }

    async fn token_floor(
        &self,
        request: Request<LockTokenFloorRequest>,
    ) -> Result<Response<Self::TokenFloorStream>, Status> {
        caller::admit(request.metadata(), &self.headers)?;
        let floor = lock::floor(&self.here, &self.root, &request.get_ref().name).map_err(reason::of)?;
        Ok(Response::new(streams::floor(self.headers.clone(), floor)))
    }

    async fn request_release(
        &self,
        request: Request<RequestLockReleaseRequest>,
    ) -> Result<Response<RequestLockReleaseResponse>, Status> {
        caller::admit(request.metadata(), &self.headers)?;
        let RequestLockReleaseRequest { name, token, reason: why, by, session_id, owner_id } =
            request.into_inner();
        let owner = owner(session_id, owner_id);
        let word = ReleaseRequested { reason: why, by };
        let asked = lock::request_release(&self.here, &self.root, &name, token, owner.as_ref(), &word).await;
        let asked = asked.map_err(reason::of)?;
        Ok(Response::new(RequestLockReleaseResponse { header: self.header(), asked }))
    }

    async fn r#break(
        &self,
        request: Request<BreakLockRequest>,
    ) -> Result<Response<BreakLockResponse>, Status> {
        caller::admit(request.metadata(), &self.headers)?;
        let BreakLockRequest { name, token, reason: why, by, skip_delay, session_id, owner_id } =
            request.into_inner();
        let owner = owner(session_id, owner_id);
        tracing::info!(name, token, reason = why, by, "an operator breaks a lock");
        let broke = lock::Broke { reason: why, by, skip_delay, unix_ms: self.here.unix_ms() };
        let broken = lock::break_grant(&self.here, &self.root, &name, token, owner.as_ref(), &broke).await;
        let broken = broken.map_err(reason::of)?.is_some();
        Ok(Response::new(BreakLockResponse { header: self.header(), broken }))
    }

    async fn policy(
        &self,
        request: Request<LockPolicyRequest>,
    ) -> Result<Response<LockPolicyResponse>, Status> {
        caller::admit(request.metadata(), &self.headers)?;
        let LockPolicyRequest { name, set } = request.into_inner();
        if let Some(policy) = &set {
            lock::set_policy(&self.here, &self.root, &name, policy).await.map_err(reason::of)?;
        }
        let (policy, revision) = lock::policy(&self.here, &self.root, &name).await.map_err(reason::of)?;
        Ok(Response::new(LockPolicyResponse { header: self.header_at(revision), policy: Some(policy) }))
    }
}

impl LocksService {
    pub fn new(headers: Headers, here: Here) -> LocksService {
        LocksService { headers, here, root: Root::server() }
    }

    fn granted(&self, order: &[String], mut grants: Vec<LockGrant>, revision: i64) -> AcquireLockResponse {
        grants.sort_by_key(|grant| order.iter().position(|name| *name == grant.name));
        let (header, outcome) = (self.header_at(revision), AcquireOutcome::Granted.into());
        AcquireLockResponse { header, outcome, grants, ..Default::default() }
    }

    async fn summary(&self, name: &str) -> Result<LockSummary, Status> {
        lock::summary(&self.here, &self.root, name).await.map_err(reason::failed)
    }

    fn header(&self) -> Option<ResponseHeader> {
        Some(self.headers.at(self.here.revision()))
    }

    fn header_at(&self, revision: i64) -> Option<ResponseHeader> {
        Some(self.headers.at(Revision(revision)))
    }
}

fn wait(wait_ms: Option<i64>) -> Result<Option<Duration>, Status> {
    let wait_ms = wait_ms.map(u64::try_from).transpose();
    let wait_ms =
        wait_ms.map_err(|_| reason::invalid("wait_ms is less than 0; leave it out to wait without end"))?;
    Ok(wait_ms.map(Duration::from_millis))
}

/// Whom a call names to spare a search; nobody, if it leaves that out.
fn owner(session: i64, id: String) -> Option<Owner> {
    (session != 0 && !id.is_empty()).then_some(Owner { session, id })
}
