//! `tenure.v1.Elections`.

use std::time::Duration;

use futures::stream;
use tenure_grpc::tenure_v1::elections_server::Elections;
use tenure_proto::etcdserverpb::ResponseHeader;
use tenure_proto::tenure::v1::campaign_event::{self, Event as Told};
use tenure_proto::tenure::v1::election_event::{self, Event};
use tenure_proto::tenure::v1::transfer_event::Phase;
use tenure_proto::tenure::v1::*;
use tenure_recipes::election::{self, Campaign, Following, Observation};
use tenure_recipes::{Error, Failure, Root};
use tenure_state::Revision;
use tokio::sync::oneshot;
use tonic::{Request, Response, Status};

use super::header::Headers;
use super::{caller, reason};
use crate::node::Here;

/// Between two events of a stream, so that a quiet one is told from a dead one.
const PROGRESS: Duration = Duration::from_secs(10);
/// Tries to withdraw a candidate whose caller is gone, and the pause between them: for as long as a cluster may be without a leader.
/// After that the candidate ends with its session.
const TRIES: usize = 120;
const PAUSE: Duration = Duration::from_millis(500);

pub struct ElectionsService {
    headers: Headers,
    elections: election::Elections<Here>,
}

impl ElectionsService {
    pub fn new(headers: Headers, here: Here) -> ElectionsService {
        ElectionsService { headers, elections: election::Elections::new(here, Root::server()) }
    }

    fn header(&self, header: Option<ResponseHeader>) -> Option<ResponseHeader> {
        header.map(|header| self.headers.at(Revision(header.revision)))
    }
}

#[tonic::async_trait]
impl Elections for ElectionsService {
    async fn stand(&self, request: Request<CampaignRequest>) -> Result<Response<StandResponse>, Status> {
        caller::admit(request.metadata(), &self.headers)?;
        let answer = self.elections.stand(request.get_ref()).await.map_err(reason::of)?;
        Ok(Response::new(StandResponse { header: self.header(answer.header), ..answer }))
    }

    async fn update_candidate(
        &self,
        request: Request<UpdateCandidateRequest>,
    ) -> Result<Response<UpdateCandidateResponse>, Status> {
        caller::admit(request.metadata(), &self.headers)?;
        let answer = self.elections.update_candidate(request.get_ref()).await.map_err(reason::of)?;
        Ok(Response::new(UpdateCandidateResponse { header: self.header(answer.header), ..answer }))
    }

    async fn proclaim(
        &self,
        request: Request<ElectionProclaimRequest>,
    ) -> Result<Response<ElectionProclaimResponse>, Status> {
        caller::admit(request.metadata(), &self.headers)?;
        let answer = self.elections.proclaim(request.get_ref()).await.map_err(reason::of)?;
        Ok(Response::new(ElectionProclaimResponse { header: self.header(answer.header), ..answer }))
    }

    async fn resign(
        &self,
        request: Request<ElectionResignRequest>,
    ) -> Result<Response<ElectionResignResponse>, Status> {
        caller::admit(request.metadata(), &self.headers)?;
        let answer = self.elections.resign(request.get_ref()).await.map_err(reason::of)?;
        Ok(Response::new(ElectionResignResponse { header: self.header(answer.header), ..answer }))
    }

    async fn withdraw(
        &self,
        request: Request<WithdrawRequest>,
    ) -> Result<Response<WithdrawResponse>, Status> {
        caller::admit(request.metadata(), &self.headers)?;
        let answer = self.elections.withdraw(request.get_ref()).await.map_err(reason::of)?;
        Ok(Response::new(WithdrawResponse { header: self.header(answer.header), ..answer }))
    }

    async fn leader(
        &self,
        request: Request<ElectionLeaderRequest>,
    ) -> Result<Response<ElectionLeaderResponse>, Status> {
        caller::admit(request.metadata(), &self.headers)?;
        let answer = self.elections.leader(request.get_ref()).await.map_err(reason::of)?;
        Ok(Response::new(ElectionLeaderResponse { header: self.header(answer.header), ..answer }))
    }

    async fn history(
        &self,
        request: Request<ElectionHistoryRequest>,
    ) -> Result<Response<ElectionHistoryResponse>, Status> {
        caller::admit(request.metadata(), &self.headers)?;
        let answer = self.elections.history(request.get_ref()).await.map_err(reason::of)?;
        Ok(Response::new(ElectionHistoryResponse { header: self.header(answer.header), ..answer }))
    }

    async fn depose(&self, request: Request<DeposeRequest>) -> Result<Response<DeposeResponse>, Status> {
        caller::admit(request.metadata(), &self.headers)?;
        let answer = self.elections.depose(request.get_ref()).await.map_err(reason::of)?;
        Ok(Response::new(DeposeResponse { header: self.header(answer.header), ..answer }))
    }

    async fn policy(
        &self,
        request: Request<ElectionPolicyRequest>,
    ) -> Result<Response<ElectionPolicyResponse>, Status> {
        caller::admit(request.metadata(), &self.headers)?;
        let answer = self.elections.policy(request.get_ref()).await.map_err(reason::of)?;
        Ok(Response::new(ElectionPolicyResponse { header: self.header(answer.header), ..answer }))
    }

    async fn list(
        &self,
        request: Request<ListElectionsRequest>,
    ) -> Result<Response<ListElectionsResponse>, Status> {
        caller::admit(request.metadata(), &self.headers)?;
        let answer = self.elections.list(request.get_ref()).await.map_err(reason::of)?;
        Ok(Response::new(ListElectionsResponse { header: self.header(answer.header), ..answer }))
    }

    type CampaignStream = caller::Answers<CampaignEvent>;

    async fn campaign(
        &self,
        request: Request<CampaignRequest>,
    ) -> Result<Response<Self::CampaignStream>, Status> {
        caller::admit(request.metadata(), &self.headers)?;
        let demands_leader = caller::requires_leader(request.metadata());
        let request = request.into_inner();
        let candidacy = match request.withdraw_on_disconnect {
            true => Candidacy::begin_apart(self.elections.clone(), request).await,
            false => Candidacy::begin(&self.elections, &request).await,
        };
        let candidacy = candidacy.map_err(reason::of)?;
        let headers = self.headers.clone();
        let told = stream::unfold(Some(candidacy), move |candidacy| {
            let headers = headers.clone();
            async move {
                let mut candidacy = candidacy?;
                match candidacy.next().await {
                    Ok(Some((revision, event))) => {
                        let header = Some(headers.at(Revision(revision)));
                        Some((Ok(CampaignEvent { header, event: Some(event) }), Some(candidacy)))
                    }
                    Ok(None) => None,
                    Err(failure) => Some((Err(reason::of(failure)), None)),
                }
            }
        });
        Ok(Response::new(caller::while_led(demands_leader, &self.headers, told)))
    }

    type ObserveStream = caller::Answers<ElectionEvent>;

    async fn observe(
        &self,
        request: Request<ElectionObserveRequest>,
    ) -> Result<Response<Self::ObserveStream>, Status> {
        caller::admit(request.metadata(), &self.headers)?;
        let demands_leader = caller::requires_leader(request.metadata());
        let observation = self.elections.observe(request.get_ref()).await.map_err(reason::of)?;
        let headers = self.headers.clone();
        let seen = stream::unfold(Some(observation), move |observation| {
            let headers = headers.clone();
            async move {
                let mut observation = observation?;
                match seen(&mut observation).await {
                    Ok((revision, event)) => {
                        let header = Some(headers.at(Revision(revision)));
                        Some((Ok(ElectionEvent { header, event: Some(event) }), Some(observation)))
                    }
                    Err(error) => Some((Err(reason::of(error)), None)),
                }
            }
        });
        Ok(Response::new(caller::while_led(demands_leader, &self.headers, seen)))
    }

    type TransferStream = caller::Answers<TransferEvent>;

    async fn transfer(
        &self,
        request: Request<TransferRequest>,
    ) -> Result<Response<Self::TransferStream>, Status> {
        caller::admit(request.metadata(), &self.headers)?;
        let demands_leader = caller::requires_leader(request.metadata());
        let following = self.elections.transfer(request.get_ref()).await.map_err(reason::of)?;
        let headers = self.headers.clone();
        let told = stream::unfold(Some(following), move |following| {
            let headers = headers.clone();
            async move {
                let mut following = following?;
                match followed(&mut following).await {
                    Ok(Some(event)) => {
                        let header = event.header.map(|header| headers.at(Revision(header.revision)));
                        Some((Ok(TransferEvent { header, ..event }), Some(following)))
                    }
                    Ok(None) => None,
                    Err(error) => Some((Err(reason::of(error)), None)),
                }
            }
        });
        Ok(Response::new(caller::while_led(demands_leader, &self.headers, told)))
    }
}

/// What an observer is told next; after a while, that it is nothing.
async fn seen(observation: &mut Observation<Here>) -> Result<(i64, Event), Error> {
    match tokio::time::timeout(PROGRESS, observation.next()).await {
        Ok(told) => Ok(told?),
        Err(_) => Ok((observation.revision(), Event::Progress(election_event::Progress {}))),
    }
}

async fn followed(following: &mut Following<Here>) -> Result<Option<TransferEvent>, Error> {
    match tokio::time::timeout(PROGRESS, following.next()).await {
        Ok(told) => told,
        Err(_) => {
            let header = Some(ResponseHeader { revision: following.revision(), ..Default::default() });
            let phase = Phase::Progress.into();
            Ok(Some(TransferEvent { header, phase, ..TransferEvent::default() }))
        }
    }
}

/// A candidate whose caller listens.
struct Candidacy {
    campaign: Campaign<Here>,
    _leaving: Option<Leaving>,
}

impl Candidacy {
    async fn begin(
        elections: &election::Elections<Here>,
        request: &CampaignRequest,
    ) -> Result<Candidacy, Error> {
        Ok(Candidacy { campaign: elections.campaign(request).await?, _leaving: None })
    }

    /// Not by the caller's own task: who goes away meanwhile would leave a candidate behind that nobody knows of.
    async fn begin_apart(
        elections: election::Elections<Here>,
        request: CampaignRequest,
    ) -> Result<Candidacy, Error> {
        let (tell, told) = oneshot::channel();
        tokio::spawn(async move {
            let CampaignRequest { name, session_id, candidate_id, .. } = request.clone();
            let request_to_leave = WithdrawRequest { name, session_id, candidate_id };
            let leaving = Leaving { elections: elections.clone(), request: request_to_leave };
            let campaign = elections.campaign(&request).await;
            // Whoever does not hear of it drops the candidacy, and with that withdraws.
            let _ = tell.send(campaign.map(|campaign| Candidacy { campaign, _leaving: Some(leaving) }));
        });
        told.await.unwrap_or_else(|_| {
            Err(Failure::Unavailable("this member is stopping; ask another one".into()).into())
        })
    }

    /// What the candidate is told next; after a while, that it is nothing.
    async fn next(&mut self) -> Result<Option<(i64, Told)>, Error> {
        match tokio::time::timeout(PROGRESS, self.campaign.next()).await {
            Ok(told) => Ok(told?),
            Err(_) => Ok(Some((self.campaign.revision(), Told::Progress(campaign_event::Progress {})))),
        }
    }
}

/// Withdraws the candidate when this is dropped. If it is over anyhow, that does nothing.
struct Leaving {
    elections: election::Elections<Here>,
    request: WithdrawRequest,
}

impl Drop for Leaving {
    fn drop(&mut self) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(leave(self.elections.clone(), self.request.clone()));
    }
}

async fn leave(elections: election::Elections<Here>, request: WithdrawRequest) {
    for _ in 0..TRIES {
        match elections.withdraw(&request).await {
            Ok(_) | Err(Error::Refused(_)) => return,
            Err(Error::Failed(failure)) => {
                tracing::debug!(%failure, "could not withdraw a candidate whose caller is gone");
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}
