//! What the other members ask of this one. Each caller says who it is and whom it means, and is refused if that is not
//! us; bytes that make no sense end the call with an error and change nothing.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use openraft::raft::{AppendEntriesRequest, StreamAppendResult};
use parking_lot::Mutex;
use tenure_grpc::internal::replication_server::{Replication, ReplicationServer};
use tenure_proto::internal::{
    AppendRequest, AppendResponse, BallotRequest, BallotResponse, SnapshotPiece, SnapshotReceipt,
    TransferRequest, TransferResponse,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::{Request, Response, Status, Streaming};

use super::message;
use crate::ids::MemberId;
use crate::peers::Peers;
use crate::raft::Raft;
use crate::raft::types::TypeConfig;

/// Most bytes of one leader's entries that wait for this member's disk; what is more waits in the connection.
const UNWRITTEN_BYTES_MAX: u32 = 8 << 20;
/// A message carries entries of 2 MiB, or a single one of whatever size the log takes.
const MESSAGE_BYTES_MAX: usize = tenure_disk::wal::PAYLOAD_BYTES_MAX + (1 << 20);

/// Answers the other members' calls.
#[derive(Clone)]
pub struct Service {
    raft: Raft,
    peers: Peers,
}

impl Service {
    pub fn new(raft: Raft, peers: Peers) -> ReplicationServer<Service> {
        ReplicationServer::new(Service { raft, peers }).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    fn stopped<E: std::fmt::Display>(&self, error: E) -> Status {
        Status::unavailable(format!("member {} takes no part any more: {error}", self.peers.own()))
    }
}

#[tonic::async_trait]
impl Replication for Service {
    type AppendStream = BoxStream<'static, Result<AppendResponse, Status>>;

    async fn append(
        &self,
        request: Request<Streaming<AppendRequest>>,
    ) -> Result<Response<Self::AppendStream>, Status> {
        let caller = self.peers.caller(request.metadata())?;
        let waiting = Arc::new(Waiting::default());
        let input = incoming(request.into_inner(), caller, waiting.clone());
        let service = self.clone();
        let last = waiting.clone();
        let answers = self
            .raft
            .stream_append(input)
            .map(move |outcome| {
                waiting.let_go();
                let outcome: StreamAppendResult<TypeConfig> =
                    outcome.map_err(|fatal| service.stopped(fatal))?;
                Ok(message::append_response(&outcome))
            })
            .chain(futures::stream::iter([()]).filter_map(move |()| {
                let spoiled = last.spoiled.lock().take();
                async { spoiled.map(Err) }
            }));
        Ok(Response::new(answers.boxed()))
    }

    async fn ballot(&self, request: Request<BallotRequest>) -> Result<Response<BallotResponse>, Status> {
        let caller = self.peers.caller(request.metadata())?;
        let message = request.into_inner();
        let pre = message.pre;
        let request = message::take_ballot_request(message).map_err(spoiled)?;
        own_vote(request.vote.leader_id.node_id, caller)?;
        let response = if pre { self.raft.pre_vote(request).await } else { self.raft.vote(request).await };
        let response = response.map_err(|error| self.stopped(error))?;
        Ok(Response::new(message::ballot_response(&response)))
    }

    async fn install(
        &self,
        request: Request<Streaming<SnapshotPiece>>,
    ) -> Result<Response<SnapshotReceipt>, Status> {
        self.peers.caller(request.metadata())?;
        Err(Status::unimplemented("snapshots are not taken yet"))
    }

    async fn transfer(
        &self,
        request: Request<TransferRequest>,
    ) -> Result<Response<TransferResponse>, Status> {
        let caller = self.peers.caller(request.metadata())?;
        let request = message::take_transfer_request(request.into_inner()).map_err(spoiled)?;
        own_vote(request.from_leader().leader_id.node_id, caller)?;
        let response =
            self.raft.handle_transfer_leader(request).await.map_err(|error| self.stopped(error))?;
        Ok(Response::new(message::transfer_response(&response)))
    }
}

/// What lies between a stream's requests and their answers.
struct Waiting {
    room: Arc<Semaphore>,
    /// For each request that has no answer yet, its share of the room.
    held: Mutex<VecDeque<Option<OwnedSemaphorePermit>>>,
    /// Why no more requests are taken.
    spoiled: Mutex<Option<Status>>,
}

impl Default for Waiting {
    fn default() -> Waiting {
        let room = Arc::new(Semaphore::new(UNWRITTEN_BYTES_MAX as usize));
        Waiting { room, held: Mutex::default(), spoiled: Mutex::default() }
    }
}

impl Waiting {
    async fn hold(&self, bytes: usize) {
        let share = u32::try_from(bytes).unwrap_or(u32::MAX).min(UNWRITTEN_BYTES_MAX);
        let permit = if share == 0 { None } else { self.room.clone().acquire_many_owned(share).await.ok() };
        self.held.lock().push_back(permit);
    }

    fn let_go(&self) {
        self.held.lock().pop_front();
    }
}

/// The requests of a stream, until it ends or makes no sense any more.
fn incoming(
    requests: Streaming<AppendRequest>,
    caller: MemberId,
    waiting: Arc<Waiting>,
) -> impl Stream<Item = AppendEntriesRequest<TypeConfig>> + Send {
    futures::stream::unfold((requests, waiting), move |(mut requests, waiting)| async move {
        let taken = match requests.message().await {
            Ok(Some(message)) => take(message, caller),
            Ok(None) => return None,
            Err(status) => Err(status),
        };
        match taken {
            Ok((request, bytes)) => {
                waiting.hold(bytes).await;
                Some((request, (requests, waiting)))
            }
            Err(status) => {
                *waiting.spoiled.lock() = Some(status);
                None
            }
        }
    })
}

fn take(
    message: AppendRequest,
    caller: MemberId,
) -> Result<(AppendEntriesRequest<TypeConfig>, usize), Status> {
    let bytes = message.runs.iter().flat_map(|run| &run.payloads).map(bytes::Bytes::len).sum();
    let request = message::take_append_request(message).map_err(spoiled)?;
    own_vote(request.vote.leader_id.node_id, caller)?;
    Ok((request, bytes))
}

/// Nobody speaks with another's vote.
fn own_vote(voted: u64, caller: MemberId) -> Result<(), Status> {
    if voted == caller.0 {
        return Ok(());
    }
    Err(Status::invalid_argument(format!("tenure: member {caller} calls with the vote of member {voted:x}")))
}

fn spoiled(error: io::Error) -> Status {
    Status::invalid_argument(format!("tenure: {error}"))
}
