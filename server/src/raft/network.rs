//! How this member speaks to the others: the consensus library's calls, over gRPC. Entries go down one long stream for each
//! follower, as many messages under way as its connection takes; heartbeats and ballots have a connection of their own.
//! The other side is `network/service.rs`.
//!
//! What a peer that does not read can make this member hold is bounded by its connection's window and one message. A
//! peer that says nothing any more is given up by the connection itself (`peers.rs`), which ends its streams.

mod exchange;
mod message;
mod pieces;
mod service;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{self, AbortHandle, BoxStream};
use futures::{Stream, StreamExt};
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{
    Backoff, NetBackoff, NetSnapshot, NetStreamAppend, NetTransferLeader, NetVote, RPCOption,
    RaftNetworkFactory,
};
use openraft::raft::{
    AppendEntriesRequest, SnapshotResponse, StreamAppendResult, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use tenure_disk::store::Snapshot as StoreSnapshot;
use tenure_grpc::internal::replication_client::ReplicationClient;
use tenure_proto::internal::SnapshotPiece;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

pub use service::{Service, Taker};

use super::snapshot::{Data, Outgoing, Snapshot};
use super::types::{Peer, TypeConfig, Vote};
use crate::background::Background;
use crate::ids::MemberId;
use crate::metrics::{self, Meters, Stopwatch};
use crate::peers::{Lane, Peers};
use exchange::Exchange;
use pieces::Cutter;

/// The first pause after a peer could not be reached; each further one is twice as long, up to one election timeout.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// So many heartbeats in a row without an answer are worth a line in the log.
const MISSED_MAX: u32 = 5;
/// Rests between two pieces of a snapshot, as many times as long as the last one took.
const RESTS: u32 = 6;
/// The longest rest between two pieces of a snapshot.
const REST_MAX: Duration = Duration::from_millis(100);
/// Pieces of a snapshot that are read ahead.
const PIECES_MAX: usize = 2;
/// How long a follower may take for one piece of a snapshot: its disk may be busy with the last one.
const STALL: Duration = Duration::from_secs(60);

/// Makes connections to peers.
pub struct Network {
    peers: Peers,
    outgoing: Outgoing,
    meters: Arc<Meters>,
}

impl Network {
    pub fn new(peers: Peers, outgoing: Outgoing, meters: Arc<Meters>) -> Network {
        Network { peers, outgoing, meters }
    }

    fn connection(&self, target: u64, node: &Peer, purpose: Purpose) -> Connection {
        self.peers.learn(target, &node.peer_urls);
        Connection {
            peers: self.peers.clone(),
            target,
            purpose,
            heartbeats: None,
            missed: 0,
            outgoing: self.outgoing.clone(),
            meter: self.meters.peers.of(target),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Entries,
    Heartbeats,
}

/// One peer, for one purpose.
pub struct Connection {
    peers: Peers,
    target: u64,
    purpose: Purpose,
    /// The stream of heartbeats, while it works.
    heartbeats: Option<Exchange>,
    /// Heartbeats without an answer since the last one with.
    missed: u32,
    outgoing: Outgoing,
    meter: metrics::Peer,
}

impl Connection {
    fn client(&self, lane: Lane) -> Result<ReplicationClient<Channel>, Unreachable<TypeConfig>> {
        let channel = self
            .peers
            .channel(self.target, lane)
            .ok_or_else(|| self.unreachable("its address is not known"))?;
        Ok(ReplicationClient::new(channel))
    }

    fn unreachable(&self, why: impl std::fmt::Display) -> Unreachable<TypeConfig> {
        Unreachable::from_string(format!("member {:x} cannot be reached: {why}", self.target))
    }

    /// The peer, or what lies between, said no.
    fn refused(&self, status: &tonic::Status) -> Unreachable<TypeConfig> {
        self.peers.heed(status);
        self.unreachable(status.message())
    }

    /// One call with an answer.
    async fn ask<T, R>(
        &self,
        message: T,
        option: &RPCOption,
        call: impl AsyncFnOnce(
            ReplicationClient<Channel>,
            tonic::Request<T>,
        ) -> Result<tonic::Response<R>, tonic::Status>,
    ) -> Result<R, RPCError<TypeConfig>> {
        let asked = call(self.client(Lane::Control)?, self.peers.address(self.target, message));
        match tokio::time::timeout(option.hard_ttl(), asked).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(self.refused(&status).into()),
            Err(_) => Err(self.unreachable("it does not answer in time").into()),
        }
    }

    async fn replicate<S>(&self, mut input: S) -> Result<Answers<'static>, RPCError<TypeConfig>>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + Unpin + 'static,
    {
        // The library has its pauses after a failure in its stream: to connect before they are over would be to have none.
        let Some(first) = input.next().await else { return Ok(stream::empty().boxed()) };
        // The library shares a place between this stream and the one that follows it, so when the answers are dropped,
        // the requests must end, even if the connection still holds them.
        let (input, end) = stream::abortable(stream::iter([first]).chain(input));
        let end = EndOnDrop(end);
        let requests = self.peers.address(self.target, input.map(message::append_request));
        let mut client = self.client(Lane::Entries)?;
        let begun = tokio::time::timeout(self.peers.patience(), client.append(requests));
        let answers = match begun.await {
            Ok(Ok(answers)) => answers.into_inner(),
            Ok(Err(status)) => return Err(self.refused(&status).into()),
            Err(_) => return Err(self.unreachable("it does not answer in time").into()),
        };
        let target = self.target;
        let answers = answers.map(move |answer| {
            let _requests = &end;
            let answer = answer.map_err(|status| lost(target, status.message()))?;
            message::take_append_response(answer).map_err(|error| lost(target, error))
        });
        Ok(answers.boxed())
    }

    async fn beat<S>(
        &mut self,
        mut input: S,
        option: &RPCOption,
    ) -> Result<Answers<'static>, RPCError<TypeConfig>>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + Unpin + 'static,
    {
        let Some(request) = input.next().await else { return Ok(stream::empty().boxed()) };
        let request = message::append_request(request);
        let since = Stopwatch::start();
        // Left out of its place while it is used: whatever ends this call early also ends the stream.
        let kept = self.heartbeats.take();
        let asked = async {
            if let Some(mut exchange) = kept
                && let Ok(answer) = exchange.ask(request.clone()).await
            {
                return Ok((exchange, answer));
            }
            let client = self.client(Lane::Control)?;
            let opened = Exchange::open(client, &self.peers, self.target).await;
            let mut exchange = opened.map_err(|status| self.refused(&status))?;
            let answer = exchange.ask(request).await.map_err(|status| self.refused(&status))?;
            Ok::<_, Unreachable<TypeConfig>>((exchange, answer))
        };
        let (exchange, answer) = tokio::time::timeout(option.soft_ttl(), asked)
            .await
            .map_err(|_| self.unreachable("it does not answer in time"))??;
        let answer = message::take_append_response(answer).map_err(|error| self.unreachable(error))?;
        self.meter.answered(since.read());
        // After a refusal the peer ends the stream.
        self.heartbeats = answer.is_ok().then_some(exchange);
        Ok(stream::iter([Ok(answer)]).boxed())
    }
}

impl Connection {
    /// Says it in the log when heartbeats stop being answered, and when they are again; not each time.
    fn note(&mut self, failure: Option<&RPCError<TypeConfig>>) {
        match failure {
            None => {
                if std::mem::take(&mut self.missed) >= MISSED_MAX {
                    tracing::info!(member = %MemberId(self.target), "the member answers again");
                }
            }
            Some(why) => {
                self.meter.silent();
                self.missed = self.missed.saturating_add(1);
                if self.missed == MISSED_MAX {
                    tracing::warn!(member = %MemberId(self.target), %why, "lost the connection to a member");
                }
            }
        }
    }
}

/// A stream that worked and broke.
fn lost(target: u64, why: impl std::fmt::Display) -> RPCError<TypeConfig> {
    Unreachable::from_string(format!("the stream of entries to member {target:x} ended: {why}")).into()
}

type Answers<'s> = BoxStream<'s, Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>>>;

struct EndOnDrop(AbortHandle);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Connection;

    async fn new_client(&mut self, target: u64, node: &Peer) -> Connection {
        self.connection(target, node, Purpose::Entries)
    }

    async fn new_heartbeat_client(&mut self, target: u64, node: &Peer) -> Connection {
        self.connection(target, node, Purpose::Heartbeats)
    }
}

impl NetStreamAppend<TypeConfig> for Connection {
    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<'s, Result<Answers<'s>, RPCError<TypeConfig>>>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + Unpin + 'static,
    {
        Box::pin(async move {
            match self.purpose {
                Purpose::Entries => self.replicate(input).await,
                Purpose::Heartbeats => {
                    let answers = self.beat(input, &option).await;
                    self.note(answers.as_ref().err());
                    answers
                }
            }
        })
    }
}

impl NetVote<TypeConfig> for Connection {
    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.ballot(&request, false, &option).await
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.ballot(&request, true, &option).await
    }
}

impl Connection {
    async fn ballot(
        &self,
        request: &VoteRequest<TypeConfig>,
        pre: bool,
        option: &RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let message = message::ballot_request(request, pre);
        let response =
            self.ask(message, option, async |mut client, request| client.ballot(request).await).await?;
        message::take_ballot_response(response).map_err(|error| self.unreachable(error).into())
    }
}

impl NetTransferLeader<TypeConfig> for Connection {
    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        let message = message::transfer_request(&request);
        let response =
            self.ask(message, &option, async |mut client, request| client.transfer(request).await).await?;
        message::take_transfer_response(response, &request).map_err(|error| self.unreachable(error).into())
    }
}

impl NetBackoff<TypeConfig> for Connection {
    fn backoff(&self) -> Option<Backoff> {
        let longest = self.peers.patience().max(PAUSE_MIN);
        let pauses = std::iter::successors(Some(PAUSE_MIN), move |pause| Some((*pause * 2).min(longest)));
        Some(Backoff::new(pauses))
    }
}

impl NetSnapshot<TypeConfig> for Connection {
    type SnapshotData = Data;

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let Data::Kept(kept) = snapshot.snapshot else {
            return Err(self.unreachable("a snapshot that was received cannot be passed on").into());
        };
        let _sending = self.outgoing.begin();
        tokio::select! {
            biased;
            closed = cancel => Err(closed.into()),
            sent = self.send(vote, kept, option.soft_ttl()) => Ok(sent?),
        }
    }
}

impl Connection {
    /// `patience`: how long the peer may take for it once it has all of it.
    async fn send(
        &self,
        vote: Vote,
        snapshot: StoreSnapshot,
        patience: Duration,
    ) -> Result<SnapshotResponse<TypeConfig>, Unreachable<TypeConfig>> {
        let cutter =
            Cutter::new(&snapshot, message::paper(&vote)).map_err(|error| self.unreachable(error))?;
        let background = Background::start("snapshot-send").map_err(|error| self.unreachable(error))?;
        let (pieces, sent) = mpsc::channel(PIECES_MAX);
        let mut client = self.client(Lane::Snapshot)?;
        let mut call = pin!(client.install(self.peers.address(self.target, ReceiverStream::new(sent))));
        let early = tokio::select! {
            biased;
            answer = &mut call => Some(answer),
            fed = feed(cutter, pieces, background) => {
                fed.map_err(|error| self.unreachable(error))?;
                None
            }
        };
        let answer = match early {
            Some(answer) => answer,
            None => tokio::time::timeout(patience, call)
                .await
                .map_err(|_| self.unreachable("it takes too long with a snapshot"))?,
        };
        let receipt = answer.map_err(|status| self.refused(&status))?.into_inner();
        let vote = message::vote(receipt.vote).map_err(|error| self.unreachable(error))?;
        Ok(SnapshotResponse::new(vote))
    }
}

/// Reads piece by piece, behind everybody else, and rests after each; both take longer the more others have to do, so
/// a member that was away takes little from those that serve.
async fn feed(
    mut cutter: Cutter,
    pieces: mpsc::Sender<SnapshotPiece>,
    background: Background,
) -> io::Result<()> {
    loop {
        let began = Instant::now();
        let read = background.work(move || {
            let piece = cutter.piece();
            (cutter, piece)
        });
        let (read, piece) = read.await.map_err(io::Error::other)?;
        let Some(piece) = piece? else { return Ok(()) };
        cutter = read;
        match tokio::time::timeout(STALL, pieces.send(piece)).await {
            Ok(Ok(())) => {}
            // The call has ended, and knows why.
            Ok(Err(_)) => return Ok(()),
            Err(_) => return Err(io::Error::other("it has stopped taking a snapshot's pieces")),
        }
        tokio::time::sleep((began.elapsed() * RESTS).min(REST_MAX)).await;
    }
}
