//! etcd's Maintenance service.

use std::pin::Pin;
use std::sync::Arc;

use futures::{Stream, StreamExt};
use prost::Message;
use tenure_disk::store::Snapshot;
use tenure_grpc::etcdserverpb::maintenance_server::Maintenance;
use tenure_proto::etcdserverpb::alarm_request::AlarmAction;
use tenure_proto::etcdserverpb::*;
use tenure_proto::internal::command::Wish;
use tenure_proto::internal::{Applied, Author, BackupHead, Command};
use tenure_state::{Fatal, Response as Outcome, Revision};
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status};

use super::header::Headers;
use super::{caller, status};
use crate::clock::Clock;
use crate::config::ETCD_COMPATIBILITY_VERSION;
use crate::node::{DatabaseSize, Error, Members, Quota, View, Writer, hash};
use crate::raft::Consensus;

/// Pieces of a snapshot that wait for a slow receiver.
const SNAPSHOT_PIECES: usize = 8;

pub struct MaintenanceService {
    pub headers: Headers,
    pub view: Arc<View>,
    pub consensus: Consensus,
    pub writer: Writer,
    pub quota: Quota,
    pub clock: Arc<dyn Clock>,
    pub members: Members,
    /// Reads of the whole store at once; more wait.
    pub whole_reads: Arc<Semaphore>,
}

#[tonic::async_trait]
impl Maintenance for MaintenanceService {
    async fn alarm(&self, request: Request<AlarmRequest>) -> Result<Response<AlarmResponse>, Status> {
        caller::admit(request.metadata(), &self.headers)?;
        let request = request.into_inner();
        if request.action() == AlarmAction::Get {
            let machine = self.view.machine();
            let alarms = machine.alarms().list(request.member_id, request.alarm());
            return Ok(Response::new(AlarmResponse {
                header: Some(self.headers.at(machine.revision())),
                alarms,
            }));
        }
        let wish = Some(Wish::Alarm(request));
        let command = Command { author: Some(Author::default()), wish, ..Command::default() };
        let written = self.writer.write(command).await.map_err(status::of)?;
        let header = Some(self.headers.at(written.revision));
        match written.response {
            Outcome::Alarm(alarms) => Ok(Response::new(AlarmResponse { header, alarms })),
            other => {
                Err(Status::internal(format!("tenure: the cluster answered another question: {other:?}")))
            }
        }
    }

    async fn status(&self, request: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        caller::admit_to_learner(request.metadata(), &self.headers)?;
        let (progress, leadership) = (self.consensus.progress(), self.headers.leadership());
        let machine = self.view.machine();
        let size = DatabaseSize::of(&machine);
        let alarms = machine.alarms().list(0, AlarmType::None);
        let mut errors: Vec<String> = alarms.iter().map(alarm_text).collect();
        if leadership.lost {
            errors.push("etcdserver: no leader".into());
        }
        Ok(Response::new(StatusResponse {
            header: Some(self.headers.at(machine.revision())),
            version: ETCD_COMPATIBILITY_VERSION.into(),
            db_size: signed(size.total),
            db_size_in_use: signed(size.in_use),
            db_size_quota: self.quota.bytes_max().map_or(0, signed),
            leader: leadership.leader.filter(|_| !leadership.lost).unwrap_or(0),
            raft_index: progress.committed,
            raft_term: leadership.term,
            raft_applied_index: progress.applied,
            errors,
            is_learner: machine
                .members()
                .get(self.headers.member_id())
                .is_some_and(|member| member.is_learner),
            storage_version: "3.6.0".into(),
            downgrade_info: Some(DowngradeInfo::default()),
        }))
    }

    /// Has the store give back space in the background, and returns at once: nothing stops for it.
    async fn defragment(
        &self,
        request: Request<DefragmentRequest>,
    ) -> Result<Response<DefragmentResponse>, Status> {
        caller::admit(request.metadata(), &self.headers)?;
        let begun = self.view.store().compact_disk();
        begun.map_err(|error| {
            Status::internal(format!("tenure: the store could not be compacted: {error}"))
        })?;
        Ok(Response::new(DefragmentResponse { header: None }))
    }

    async fn hash(&self, request: Request<HashRequest>) -> Result<Response<HashResponse>, Status> {
        caller::admit(request.metadata(), &self.headers)?;
        let _turn = self.whole_reads.acquire().await;
        let hash = hash::history(self.view.clone(), Revision(0)).await.map_err(status::of)?;
        Ok(Response::new(HashResponse { header: Some(self.headers.at(hash.current)), hash: hash.hash }))
    }

    async fn hash_kv(&self, request: Request<HashKvRequest>) -> Result<Response<HashKvResponse>, Status> {
        caller::admit(request.metadata(), &self.headers)?;
        let revision = Revision(request.into_inner().revision.max(0));
        let _turn = self.whole_reads.acquire().await;
        let hash = hash::history(self.view.clone(), revision).await.map_err(status::of)?;
        Ok(Response::new(HashKvResponse {
            header: Some(self.headers.at(hash.current)),
            hash: hash.hash,
            // etcd says -1 for a store that was never compacted.
            compact_revision: if hash.compacted.0 == 0 { -1 } else { hash.compacted.0 },
            hash_revision: hash.at.0,
        }))
    }

    type SnapshotStream = Pin<Box<dyn Stream<Item = Result<SnapshotResponse, Status>> + Send>>;

    async fn snapshot(
        &self,
        request: Request<SnapshotRequest>,
    ) -> Result<Response<Self::SnapshotStream>, Status> {
        caller::admit_to_learner(request.metadata(), &self.headers)?;
        let turn = self.whole_reads.clone().acquire_owned().await;
        let store = self.view.store();
        store.settled().await.map_err(|fatal| status::of(fatal.into()))?;
        let snapshot = store.snapshot().map_err(|fatal| status::of(fatal.into()))?;
        let total = self.view.machine().index().record_bytes();
        let head = self.backup_head(&snapshot).map_err(status::of)?;
        let (pieces, received) = mpsc::channel(SNAPSHOT_PIECES);
        let write = move || {
            let _turn = turn;
            let send = |piece| pieces.blocking_send(Ok(piece)).is_ok();
            if let Err(fatal) = tenure_disk::backup::write(&snapshot, &head, send) {
                // A receiver that went away does not need to know.
                let _ = pieces.blocking_send(Err(status::of(fatal.into())));
            }
        };
        tenure_disk::background::start("snapshot-save", write).map_err(|error| {
            Status::unavailable(format!("tenure: no thread for a backup: {error}; raise the limit of tasks"))
        })?;
        let mut sent = 0u64;
        let stream = ReceiverStream::new(received).map(move |piece| {
            piece.map(|blob: bytes::Bytes| {
                sent += blob.len() as u64;
                let version = ETCD_COMPATIBILITY_VERSION.into();
                SnapshotResponse { header: None, remaining_bytes: total.saturating_sub(sent), blob, version }
            })
        });
        Ok(Response::new(Box::pin(stream)))
    }

    async fn move_leader(
        &self,
        request: Request<MoveLeaderRequest>,
    ) -> Result<Response<MoveLeaderResponse>, Status> {
        caller::admit(request.metadata(), &self.headers)?;
        self.members.move_lead(request.into_inner().target_id).await.map_err(status::of)?;
        Ok(Response::new(MoveLeaderResponse { header: None }))
    }

    async fn downgrade(
        &self,
        request: Request<DowngradeRequest>,
    ) -> Result<Response<DowngradeResponse>, Status> {
        caller::admit(request.metadata(), &self.headers)?;
        let text = "tenure: there is no older storage format to go back to; to return to another version, restore a backup";
        Err(Status::new(Code::Unimplemented, text))
    }
}

impl MaintenanceService {
    /// Whose state it is, how far it had come, and when.
    fn backup_head(&self, snapshot: &Snapshot) -> Result<Vec<u8>, Error> {
        let applied = snapshot.applied().map(|bytes| Applied::decode(bytes.clone())).transpose();
        let applied =
            applied.map_err(|error| Fatal(format!("the store's applied index does not decode: {error}")))?;
        let member = self.headers.member_id();
        let machine = self.view.machine();
        let head = BackupHead {
            applied,
            cluster: self.headers.cluster_id(),
            member,
            member_name: machine.members().get(member).map(|member| member.name.clone()).unwrap_or_default(),
            taken_unix_seconds: self.clock.unix_seconds(),
            version: env!("CARGO_PKG_VERSION").into(),
        };
        Ok(head.encode_to_vec())
    }
}

/// As etcd prints an alarm among a member's errors, with the space behind it.
fn alarm_text(alarm: &AlarmMember) -> String {
    format!("memberID:{} alarm:{} ", alarm.member_id, alarm.alarm().as_str_name())
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
