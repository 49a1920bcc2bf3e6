//! `tenure.v1.Registry`.

use std::pin::Pin;
use std::time::Duration;

use futures::{StreamExt, stream};
use tenure_grpc::tenure_v1::registry_server::Registry;
use tenure_proto::etcdserverpb::ResponseHeader;
use tenure_proto::tenure::v1::watch_instances_response::{Bookmark, Event, Reset, SnapshotEnd, SnapshotPart};
use tenure_proto::tenure::v1::*;
use tenure_recipes::registry::{Delta, Follow, Registry as Recipe, Told};
use tenure_state::Revision;
use tokio::sync::watch;
use tokio::time::{Sleep, sleep};
use tonic::{Request, Response, Status, Streaming};

use super::header::Headers;
use super::{caller, reason};
use crate::node::{Here, registry};

/// Between two words to a follower to whom nothing is to be said.
const BOOKMARK: Duration = Duration::from_secs(10);

#[derive(Clone)]
pub struct RegistryService {
    headers: Headers,
    here: Here,
    registry: Recipe<Here>,
    stopping: watch::Receiver<bool>,
}

/// Asks the recipe, and gives its answer the header of whoever answers.
macro_rules! ask {
    ($service:ident, $request:ident, $verb:ident) => {{
        caller::admit($request.metadata(), &$service.headers)?;
        let mut answer = $service.registry.$verb($request.into_inner()).await.map_err(reason::of)?;
        answer.header = $service.header(answer.header);
        Ok(Response::new(answer))
    }};
}

#[tonic::async_trait]
impl Registry for RegistryService {
    async fn register(
        &self,
        request: Request<RegisterRequest>,
    ) -> Result<Response<RegisterResponse>, Status> {
        ask!(self, request, register)
    }

    type HeartbeatStream = caller::Answers<HeartbeatResponse>;

    /// Messages are answered one after the other; a client that has many instances sends them in few messages, or on several streams.
    async fn heartbeat(
        &self,
        request: Request<Streaming<HeartbeatRequest>>,
    ) -> Result<Response<Self::HeartbeatStream>, Status> {
        caller::admit(request.metadata(), &self.headers)?;
        let demands_leader = caller::requires_leader(request.metadata());
        let beating = Some((self.clone(), request.into_inner()));
        let answers = stream::unfold(beating, |beating| async move {
            let (service, mut requests) = beating?;
            let answer = match requests.next().await? {
                Ok(request) => service.beats(request).await,
                Err(status) => Err(status),
            };
            // A message that cannot be answered ends the stream, so that the next answer is not taken for its own.
            let goes_on = answer.is_ok().then_some((service, requests));
            Some((answer, goes_on))
        });
        let answers = caller::until_stopped(&self.stopping, reason::stopping(), answers);
        Ok(Response::new(caller::while_led(demands_leader, &self.headers, answers)))
    }

    async fn beat(&self, request: Request<HeartbeatRequest>) -> Result<Response<HeartbeatResponse>, Status> {
        caller::admit(request.metadata(), &self.headers)?;
        self.beats(request.into_inner()).await.map(Response::new)
    }

    async fn deregister(
        &self,
        request: Request<DeregisterRequest>,
    ) -> Result<Response<DeregisterResponse>, Status> {
        ask!(self, request, deregister)
    }

    async fn set_instance(
        &self,
        request: Request<SetInstanceRequest>,
    ) -> Result<Response<SetInstanceResponse>, Status> {
        ask!(self, request, set_instance)
    }

    async fn lookup(&self, request: Request<LookupRequest>) -> Result<Response<LookupResponse>, Status> {
        ask!(self, request, lookup)
    }

    type WatchStream = caller::Answers<WatchInstancesResponse>;

    async fn watch(
        &self,
        request: Request<WatchInstancesRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        caller::admit(request.metadata(), &self.headers)?;
        let demands_leader = caller::requires_leader(request.metadata());
        let coalesce = Duration::from_millis(u64::from(request.get_ref().coalesce_ms));
        let follow = self.registry.follow(request.into_inner()).map_err(reason::of)?;
        let telling = Telling {
            service: self.clone(),
            follow,
            coalesce,
            kept: None,
            bookmark: Box::pin(sleep(BOOKMARK)),
        };
        let answers = stream::unfold(Some(telling), |telling| async move {
            let mut telling = telling?;
            let answer = telling.next().await;
            let goes_on = answer.is_ok().then_some(telling);
            Some((answer, goes_on))
        });
        Ok(Response::new(caller::while_led(demands_leader, &self.headers, answers)))
    }

    async fn list_services(
        &self,
        request: Request<ListServicesRequest>,
    ) -> Result<Response<ListServicesResponse>, Status> {
        ask!(self, request, list_services)
    }

    async fn set_service_policy(
        &self,
        request: Request<SetServicePolicyRequest>,
    ) -> Result<Response<SetServicePolicyResponse>, Status> {
        ask!(self, request, set_policy)
    }

    async fn end_protection(
        &self,
        request: Request<EndProtectionRequest>,
    ) -> Result<Response<EndProtectionResponse>, Status> {
        ask!(self, request, end_protection)
    }
}

impl RegistryService {
    pub fn new(headers: Headers, here: Here, stopping: watch::Receiver<bool>) -> RegistryService {
        let registry = registry::at(here.clone());
        RegistryService { headers, here, registry, stopping }
    }

    /// That of the recipe, which knows at which revision its answer holds, with the name of who answers.
    fn header(&self, of: Option<ResponseHeader>) -> Option<ResponseHeader> {
        Some(self.headers.at(Revision(of.map_or(0, |header| header.revision))))
    }

    async fn beats(&self, request: HeartbeatRequest) -> Result<HeartbeatResponse, Status> {
        // The header speaks of the time before the renewal, as that of a lease's keepalive does.
        let header = Some(self.headers.at(self.here.revision()));
        let results = self.registry.heartbeat(&request.heartbeats).await.map_err(reason::of)?;
        Ok(HeartbeatResponse { header, results })
    }
}

/// What one follower is told.
struct Telling {
    service: RegistryService,
    follow: Follow<Here>,
    /// How long changes are kept for others to join them.
    coalesce: Duration,
    /// Changes that are being kept, and until when.
    kept: Option<(Delta, Pin<Box<Sleep>>)>,
    /// Until the next bookmark.
    bookmark: Pin<Box<Sleep>>,
}

impl Telling {
    async fn next(&mut self) -> Result<WatchInstancesResponse, Status> {
        loop {
            let told = if self.follow.is_current() {
                let until = self.kept.as_mut().map_or(&mut self.bookmark, |(_, until)| until);
                tokio::select! {
                    biased;
                    () = until => return Ok(self.in_time()),
                    told = self.follow.next() => told,
                }
            } else {
                self.follow.next().await
            };
            match told.map_err(reason::failed)? {
                Told::Part(instances) => {
                    return Ok(self.say(self.follow.told(), Event::SnapshotPart(SnapshotPart { instances })));
                }
                Told::End(revision) => {
                    return Ok(self.say(revision, Event::SnapshotEnd(SnapshotEnd { revision })));
                }
                Told::Resumed(revision) => {
                    return Ok(self.say(revision, Event::Bookmark(Bookmark { revision })));
                }
                Told::Delta(delta) if self.coalesce.is_zero() => return Ok(self.changed(delta)),
                Told::Delta(delta) => match &mut self.kept {
                    Some((kept, _)) => kept.join(delta),
                    None => self.kept = Some((delta, Box::pin(sleep(self.coalesce)))),
                },
                Told::Reset(compact_revision) => {
                    // The snapshot that follows has them.
                    self.kept = None;
                    return Ok(self.say(self.follow.told(), Event::Reset(Reset { compact_revision })));
                }
            }
        }
    }

    /// What is to be said because the time has come for it.
    fn in_time(&mut self) -> WatchInstancesResponse {
        if let Some((delta, _)) = self.kept.take() {
            return self.changed(delta);
        }
        let revision = self.follow.told();
        self.follow.ask_told();
        self.say(revision, Event::Bookmark(Bookmark { revision }))
    }

    fn changed(&mut self, delta: Delta) -> WatchInstancesResponse {
        self.say(delta.revision, Event::Delta(delta.into_response()))
    }

    fn say(&mut self, revision: i64, event: Event) -> WatchInstancesResponse {
        self.bookmark = Box::pin(sleep(BOOKMARK));
        let header = Some(self.service.headers.at(Revision(revision)));
        WatchInstancesResponse { header, event: Some(event) }
    }
}
