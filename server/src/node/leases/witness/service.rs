//! A voter's side: notes what the leader says, and tells a new one what it knows.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;

use futures::{Stream, StreamExt, stream};
use parking_lot::{Mutex, MutexGuard};
use tenure_grpc::internal::witness_server::{Witness, WitnessServer};
use tenure_proto::internal::{RecallRequest, RecallResponse, WitnessRequest, WitnessResponse};
use tenure_state::{LeaseId, Lessor};
use tonic::{Request, Response, Status, Streaming};

use super::super::Counting;
use super::{LEASES_AT_ONCE, from_wire, to_wire};
use crate::peers::Peers;
use crate::raft::{Consensus, Mandate};

/// Cloning shares it.
#[derive(Clone)]
pub struct Service {
    counting: Arc<Counting>,
    consensus: Consensus,
    peers: Peers,
    /// How many streams each caller has begun. What an earlier one brings may be older than what is known already.
    streams: Arc<Mutex<BTreeMap<u64, u64>>>,
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Service {
    pub fn server(counting: Arc<Counting>, consensus: Consensus, peers: Peers) -> WitnessServer<Service> {
        WitnessServer::new(Service { counting, consensus, peers, streams: Arc::default() })
    }

    /// The lessor, if this member's vote is with that leadership; it stays so while the lessor is held, as far as anyone learns
    /// what is in it.
    fn with(&self, leader: Mandate) -> Result<MutexGuard<'_, Lessor>, Status> {
        let lessor = self.counting.lessor.lock();
        let vote = self.consensus.vote();
        if vote == leader {
            return Ok(lessor);
        }
        let text = format!(
            "tenure: the vote of this member is with {:x} in term {}, not with {:x} in term {}",
            vote.member, vote.term, leader.member, leader.term
        );
        Err(Status::failed_precondition(text))
    }

    fn note(&self, caller: u64, stream: u64, said: &WitnessRequest) -> Result<WitnessResponse, Status> {
        let mut lessor = self.with(Mandate { term: said.term, member: caller })?;
        if self.streams.lock().get(&caller) != Some(&stream) {
            return Err(Status::aborted("tenure: a later stream of the leader took over"));
        }
        let now = self.counting.now();
        lessor.told(said.renewed.iter().copied().map(LeaseId), now);
        if let Some(lesson) = &said.lesson {
            let leases: Vec<_> = lesson.leases.iter().map(from_wire).collect();
            lessor.learn(lesson.resets, lesson.applied, &leases, lesson.last, now);
        }
        let (standing, applied) = (lessor.standing(), *self.consensus.applied().borrow());
        Ok(WitnessResponse { resets: standing.resets, complete: standing.complete, applied })
    }

    fn recite(&self, leader: Mandate, after: Option<LeaseId>) -> Result<RecallResponse, Status> {
        let known = self.with(leader)?.recite(after, LEASES_AT_ONCE, self.counting.now());
        Ok(RecallResponse { leases: known.iter().map(to_wire).collect() })
    }
}

#[tonic::async_trait]
impl Witness for Service {
    type TellStream = Answers<WitnessResponse>;

    async fn tell(
        &self,
        request: Request<Streaming<WitnessRequest>>,
    ) -> Result<Response<Self::TellStream>, Status> {
        let caller = self.peers.caller(request.metadata())?.0;
        let stream = {
            // With the lessor held, so that nothing of an earlier stream is noted after this.
            let _lessor = self.counting.lessor.lock();
            let mut streams = self.streams.lock();
            let begun = streams.entry(caller).or_default();
            *begun += 1;
            *begun
        };
        let service = self.clone();
        let answers = request.into_inner().map(move |said| service.note(caller, stream, &said?));
        Ok(Response::new(Box::pin(answers)))
    }

    type RecallStream = Answers<RecallResponse>;

    async fn recall(&self, request: Request<RecallRequest>) -> Result<Response<Self::RecallStream>, Status> {
        let member = self.peers.caller(request.metadata())?.0;
        let RecallRequest { term, applied: index } = request.into_inner();
        let leader = Mandate { term, member };
        drop(self.with(leader)?);
        let mut applied = self.consensus.applied();
        let reached = tokio::time::timeout(self.peers.patience(), applied.wait_for(|at| *at >= index)).await;
        if !matches!(reached, Ok(Ok(_))) {
            return Err(Status::unavailable(format!(
                "tenure: this member has not applied up to {index} yet"
            )));
        }
        let service = self.clone();
        // Where to go on; None at the end.
        let parts = stream::unfold(Some(None), move |next| {
            let part = next.map(|after: Option<LeaseId>| service.recite(leader, after));
            let next = match &part {
                Some(Ok(part)) => part.leases.last().map(|last| Some(LeaseId(last.id))),
                Some(Err(_)) | None => None,
            };
            async move { part.map(|part| (part, next)) }
        });
        Ok(Response::new(Box::pin(parts)))
    }
}
