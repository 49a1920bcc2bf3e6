//! What the other members ask of this one. Each caller says who it is and whom it means, and is refused if that is not
//! us; bytes that make no sense end the call with an error and change nothing.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use openraft::async_runtime::watch::WatchReceiver;
use openraft::raft::{AppendEntriesRequest, StreamAppendResult};
use openraft::vote::RaftLeaderId;
use parking_lot::Mutex;
use tenure_grpc::internal::replication_server::{Replication, ReplicationServer};
use tenure_proto::internal::{
    AppendRequest, AppendResponse, BallotRequest, BallotResponse, SnapshotPiece, SnapshotReceipt,
    TransferRequest, TransferResponse, snapshot_piece::Piece,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::{Code, Request, Response, Status, Streaming};

use super::message;
use super::pieces::{Joined, Joiner, malformed};
use crate::background::Background;
use crate::ids::MemberId;
use crate::peers::Peers;
use crate::raft::snapshot::{self, Data, Filling, Meta, Received, Snapshot};
use crate::raft::types::{CommittedLeaderId, TypeConfig, Vote};
use crate::raft::{Raft, View};

/// Most bytes of one leader's entries that wait for this member's disk; what is more waits in the connection.
const UNWRITTEN_BYTES_MAX: u32 = 8 << 20;
/// A message carries entries of 2 MiB, or a single one of whatever size the log takes.
const MESSAGE_BYTES_MAX: usize = tenure_disk::wal::PAYLOAD_BYTES_MAX + (1 << 20);

/// Answers the other members' calls.
#[derive(Clone)]
pub struct Service {
    raft: Raft,
    peers: Peers,
    taker: Taker,
}

/// What it needs to take a snapshot.
#[derive(Clone)]
pub struct Taker {
    pub view: Arc<View>,
    pub record_bytes_max: usize,
}

impl Service {
    pub fn new(raft: Raft, peers: Peers, taker: Taker) -> ReplicationServer<Service> {
        ReplicationServer::new(Service { raft, peers, taker }).max_decoding_message_size(MESSAGE_BYTES_MAX)
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
        let caller = self.peers.caller(request.metadata())?;
        let (service, pieces) = (self.clone(), request.into_inner());
        // A task, so that a caller who breaks off does not leave it to this connection to clear up.
        let taken = tokio::spawn(async move { service.take_snapshot(pieces, caller).await });
        let vote = taken.await.map_err(|error| self.stopped(error))??;
        Ok(Response::new(SnapshotReceipt { vote: Some(message::paper(&vote)) }))
    }

    async fn transfer(
        &self,
        request: Request<TransferRequest>,
    ) -> Result<Response<TransferResponse>, Status> {
        let caller = self.peers.caller_or_leaver(request.metadata())?;
        let request = message::take_transfer_request(request.into_inner()).map_err(spoiled)?;
        own_vote(request.from_leader().leader_id.node_id, caller)?;
        let response =
            self.raft.handle_transfer_leader(request).await.map_err(|error| self.stopped(error))?;
        Ok(Response::new(message::transfer_response(&response)))
    }
}

impl Service {
    async fn take_snapshot(
        &self,
        mut pieces: Streaming<SnapshotPiece>,
        caller: MemberId,
    ) -> Result<Vote, Status> {
        let Some(SnapshotPiece { piece: Some(Piece::Head(head)) }) = pieces.message().await? else {
            return Err(spoiled(malformed("it begins without a head")));
        };
        let vote = message::leaders_vote(head.vote).map_err(spoiled)?;
        own_vote(vote.leader_id.node_id, caller)?;
        let applied = head.applied.unwrap_or_default();
        let meta = snapshot::meta(&applied).map_err(spoiled)?;
        if let Some(later) = self.judge(&vote, &meta)? {
            return Ok(later);
        }
        tracing::info!(from = %caller, index = meta.last_log_id.map_or(0, |id| id.index), "a snapshot is coming");
        let Taker { view, record_bytes_max } = self.taker.clone();
        let background = Background::start("snapshot-take").map_err(failed)?;
        let begun = work(&background, move || Filling::begin(&view, applied, record_bytes_max)).await?;
        let received = join(pieces, Joiner::new(begun), &background).await?;
        // Much may have happened meanwhile.
        if let Some(later) = self.judge(&vote, &meta)? {
            return Ok(later);
        }
        let snapshot = Snapshot { meta, snapshot: Data::Received(received) };
        let response = self.raft.install_full_snapshot(vote, snapshot).await;
        Ok(response.map_err(|fatal| self.stopped(fatal))?.vote)
    }

    /// A later vote than the sender's, if there is one: then it does not lead any more.
    ///
    /// # Errors
    /// No leader of ours can have sent such a snapshot; the library would not survive it.
    fn judge(&self, vote: &Vote, meta: &Meta) -> Result<Option<Vote>, Status> {
        let metrics = self.raft.metrics().borrow_watched().clone();
        let rank = |vote: &Vote| (vote.leader_id, vote.committed);
        if rank(&metrics.vote) > rank(vote) {
            return Ok(Some(metrics.vote));
        }
        let Some(last) = meta.last_log_id else { return Err(spoiled(malformed("it holds nothing"))) };
        let beyond =
            *last.committed_leader_id() > CommittedLeaderId::new(vote.leader_id.term, vote.leader_id.node_id);
        let against = metrics
            .local_committed
            .is_some_and(|committed| last > committed && last.index <= committed.index);
        if beyond || against {
            return Err(spoiled(malformed("it contradicts the log here")));
        }
        Ok(None)
    }
}

/// Takes the pieces until they are a whole.
async fn join(
    mut pieces: Streaming<SnapshotPiece>,
    mut joiner: Box<Joiner>,
    background: &Background,
) -> Result<Box<Received>, Status> {
    loop {
        let piece = match pieces.message().await {
            Ok(Some(piece)) => piece,
            broken => {
                work(background, move || {
                    drop(joiner);
                    Ok(())
                })
                .await?;
                return Err(broken.err().unwrap_or_else(|| spoiled(malformed("it ends too early"))));
            }
        };
        match work(background, move || joiner.take(piece)).await? {
            Joined::More(more) => joiner = more,
            Joined::Whole(received) => return Ok(received),
        }
    }
}

/// What of a snapshot waits for the disk.
async fn work<T: Send + 'static>(
    background: &Background,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, Status> {
    background.work(work).await.map_err(io::Error::other).flatten().map_err(failed)
}

fn failed(error: io::Error) -> Status {
    let code =
        if error.kind() == io::ErrorKind::InvalidData { Code::InvalidArgument } else { Code::Unavailable };
    Status::new(code, format!("tenure: {error}"))
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
