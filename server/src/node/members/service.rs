//! What other members, and members-to-be, ask of this one about the membership; and the words of both sides.

use tenure_grpc::internal::joining_client::JoiningClient;
use tenure_grpc::internal::joining_server::{Joining, JoiningServer};
use tenure_grpc::internal::reconfiguration_server::{Reconfiguration, ReconfigurationServer};
use tenure_proto::internal::membership_outcome::Refusal;
use tenure_proto::internal::{
    ClusterDescription, DescribeRequest, MembershipChange, MembershipOutcome, StoredMember,
};
use tenure_state::Member;
use tonic::{Request, Response, Status};

use super::{Following, Made, Members, Refused};
use crate::ids::MemberId;
use crate::node::error::Error;
use crate::peers::{Lane, Peers};
use crate::raft::Unavailable;

/// Changes that other members pass on to this one, for as long as it leads.
pub fn reconfiguration(members: Members) -> ReconfigurationServer<impl Reconfiguration> {
    ReconfigurationServer::new(ChangeService { members })
}

/// What members-to-be ask.
pub fn joining(members: Members) -> JoiningServer<impl Joining> {
    JoiningServer::new(DescribeService { members })
}

struct ChangeService {
    members: Members,
}

#[tonic::async_trait]
impl Reconfiguration for ChangeService {
    async fn change(
        &self,
        request: Request<MembershipChange>,
    ) -> Result<Response<MembershipOutcome>, Status> {
        self.members.following.peers.caller(request.metadata())?;
        let making = self.members.make(request.get_ref());
        let made = tokio::time::timeout(self.members.terms.timeout, making).await;
        outcome(made.unwrap_or(Err(Unavailable::TimedOut.into()))).map(Response::new)
    }
}

struct DescribeService {
    members: Members,
}

#[tonic::async_trait]
impl Joining for DescribeService {
    async fn describe(&self, _: Request<DescribeRequest>) -> Result<Response<ClusterDescription>, Status> {
        let Members { following: Following { view, peers, .. }, consensus, terms, .. } = &self.members;
        // Read before the members, so that it never promises more than they hold.
        let applied = consensus.progress().applied;
        let machine = view.machine();
        Ok(Response::new(ClusterDescription {
            cluster: peers.cluster().0,
            token: terms.token.clone(),
            members: machine.members().iter().map(stored).collect(),
            removed: machine.members().removed().collect(),
            applied,
        }))
    }
}

/// Whether that member knows this one to be removed.
pub async fn says_removed(peers: &Peers, asked: u64, own: MemberId) -> bool {
    let Some(channel) = peers.channel(asked, Lane::Forwarding) else { return false };
    let answer = JoiningClient::new(channel).describe(DescribeRequest {}).await;
    answer.is_ok_and(|answer| {
        let described = answer.into_inner();
        described.cluster == peers.cluster().0 && described.removed.contains(&own.0)
    })
}

/// The leader's words. An outcome that is not known is an error of the call.
fn outcome(made: Result<Made, Error>) -> Result<MembershipOutcome, Status> {
    let refused = |refusal: Refusal| MembershipOutcome { refusal: refusal as i32, ..Default::default() };
    match made {
        Ok((applied, members)) => {
            let members = members.iter().map(stored).collect();
            Ok(MembershipOutcome { refusal: Refusal::None as i32, applied, members })
        }
        Err(Error::Membership(why)) => Ok(refused(said(why))),
        Err(Error::Unavailable(Unavailable::NoLeader)) => Ok(refused(Refusal::NotLeader)),
        Err(error) => Err(Status::unavailable(format!("tenure: the change has no outcome yet: {error:?}"))),
    }
}

/// What the leader's words mean.
pub fn made(outcome: MembershipOutcome) -> Result<Made, Error> {
    let refused = match outcome.refusal() {
        Refusal::None => {
            return Ok((outcome.applied, outcome.members.into_iter().map(read).collect()));
        }
        Refusal::NotLeader => return Err(Unavailable::NoLeader.into()),
        Refusal::IdExists => Refused::IdExists,
        Refusal::PeerUrlsExist => Refused::PeerUrlsExist,
        Refusal::MemberNotFound => Refused::NotFound,
        Refusal::NotEnoughStarted => Refused::NotEnoughStarted,
        Refusal::Unhealthy => Refused::Unhealthy,
        Refusal::TooManyLearners => Refused::TooManyLearners,
        Refusal::NotALearner => Refused::NotALearner,
        Refusal::LearnerNotReady => Refused::LearnerNotReady,
        Refusal::BadPeerUrls => Refused::BadPeerUrls,
    };
    Err(refused.into())
}

fn said(refused: Refused) -> Refusal {
    match refused {
        Refused::IdExists => Refusal::IdExists,
        Refused::PeerUrlsExist => Refusal::PeerUrlsExist,
        Refused::NotFound => Refusal::MemberNotFound,
        Refused::NotEnoughStarted => Refusal::NotEnoughStarted,
        Refused::Unhealthy => Refusal::Unhealthy,
        Refused::TooManyLearners => Refusal::TooManyLearners,
        Refused::NotALearner => Refusal::NotALearner,
        Refused::LearnerNotReady => Refusal::LearnerNotReady,
        Refused::BadPeerUrls => Refusal::BadPeerUrls,
    }
}

fn stored(member: &Member) -> StoredMember {
    let Member { id, name, peer_urls, client_urls, is_learner } = member.clone();
    StoredMember { id, name, client_urls, peer_urls, is_learner }
}

fn read(stored: StoredMember) -> Member {
    let StoredMember { id, name, client_urls, peer_urls, is_learner } = stored;
    Member { id, name, peer_urls, client_urls, is_learner }
}
