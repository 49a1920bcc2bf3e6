//! A server just good enough to be measured: keys, leases and watchers in memory, in this process. It counts what it is asked,
//! and can be told to misbehave, so that tests see whether the bench notices.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use tenure_grpc::etcdserverpb::kv_server::{Kv, KvServer};
use tenure_grpc::etcdserverpb::lease_server::{Lease, LeaseServer};
use tenure_grpc::etcdserverpb::maintenance_server::{Maintenance, MaintenanceServer};
use tenure_grpc::etcdserverpb::watch_server::{Watch, WatchServer};
use tenure_proto::etcdserverpb::compare::TargetUnion;
use tenure_proto::etcdserverpb::watch_request::RequestUnion;
use tenure_proto::etcdserverpb::*;
use tenure_proto::mvccpb::event::EventType;
use tenure_proto::mvccpb::{Event, KeyValue};
use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::time::{Instant, sleep_until};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming, async_trait};

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// How the server misbehaves.
#[derive(Clone, Copy, Default)]
pub struct Faults {
    /// Refuses every n-th put.
    pub refuse_put_every: Option<u64>,
    /// Does not deliver every n-th event.
    pub lose_event_every: Option<u64>,
    /// Answers renewals as if the lease were gone.
    pub forget_leases: bool,
    /// Removes leases in half their time.
    pub hasty: bool,
}

/// Clones are the same server.
#[derive(Clone, Default)]
pub struct Server {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
pub struct State {
    faults: Faults,
    revision: i64,
    keys: BTreeMap<Bytes, KeyValue>,
    watchers: Vec<Watcher>,
    pub puts: u64,
    pub events: u64,
    grants: i64,
    revokes: i64,
    pub renewals: u64,
    /// Time to live and end of each lease.
    ends: BTreeMap<i64, (Duration, Instant)>,
    /// What changed anything.
    entries: u64,
    /// The number among the members of a cluster that is none: each member is alone, and all say that member 0 leads.
    pub member: u64,
}

struct Watcher {
    key: Bytes,
    range_end: Bytes,
    watch_id: i64,
    out: UnboundedSender<Result<WatchResponse, Status>>,
}

impl Server {
    /// Serves on a free port until the runtime ends; returns the address.
    pub async fn start(faults: Faults) -> (Self, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = Self::default();
        server.state().faults = faults;
        tokio::spawn(server.clone().serve(listener));
        (server, address)
    }

    pub async fn serve(self, listener: TcpListener) {
        tonic::transport::Server::builder()
            .add_service(KvServer::new(self.clone()))
            .add_service(LeaseServer::new(self.clone()))
            .add_service(WatchServer::new(self.clone()))
            .add_service(MaintenanceServer::new(self))
            .serve_with_incoming(TcpIncoming::from(listener))
            .await
            .unwrap();
    }

    async fn outlive(self, id: i64, mut end: Instant) {
        loop {
            sleep_until(end).await;
            let mut state = self.state();
            match state.ends.get(&id).map(|(_, end)| *end) {
                Some(later) if later > Instant::now() => end = later,
                Some(_) => return state.end(id),
                None => return,
            }
        }
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

impl State {
    fn header(&self) -> Option<ResponseHeader> {
        Some(ResponseHeader { revision: self.revision, ..Default::default() })
    }

    fn put(&mut self, put: PutRequest) {
        self.entries += 1;
        let old = self.keys.get(&put.key);
        let kv = KeyValue {
            create_revision: old.map_or(self.revision, |kv| kv.create_revision),
            version: old.map_or(1, |kv| kv.version + 1),
            mod_revision: self.revision,
            key: put.key.clone(),
            value: put.value,
            lease: put.lease,
        };
        self.keys.insert(put.key, kv.clone());
        self.tell(Event { kv: Some(kv), ..Default::default() });
    }

    /// A lease's end: its keys go with it.
    fn end(&mut self, id: i64) {
        self.entries += 1;
        self.ends.remove(&id);
        let gone: Vec<_> = self.keys.values().filter(|kv| kv.lease == id).cloned().collect();
        for kv in gone {
            self.keys.remove(&kv.key);
            let kv = Some(KeyValue { key: kv.key, ..Default::default() });
            self.tell(Event { r#type: EventType::Delete.into(), kv, ..Default::default() });
        }
    }

    fn tell(&mut self, event: Event) {
        let Some(kv) = &event.kv else { return };
        for n in 0..self.watchers.len() {
            if !inside(&kv.key, &self.watchers[n].key, &self.watchers[n].range_end) {
                continue;
            }
            self.events += 1;
            if self.faults.lose_event_every.is_none_or(|every| !self.events.is_multiple_of(every)) {
                let watch_id = self.watchers[n].watch_id;
                let response = WatchResponse {
                    header: self.header(),
                    watch_id,
                    events: vec![event.clone()],
                    ..Default::default()
                };
                self.watchers[n].out.send(Ok(response)).ok();
            }
        }
    }

    fn range(&self, range: &RangeRequest) -> RangeResponse {
        let found = self.keys.values().filter(|kv| inside(&kv.key, &range.key, &range.range_end));
        let kvs: Vec<_> = found.cloned().collect();
        let count = kvs.len() as i64;
        RangeResponse {
            header: self.header(),
            kvs: if range.count_only { Vec::new() } else { kvs },
            count,
            ..Default::default()
        }
    }

    fn renew(&mut self, id: i64) -> i64 {
        let Some((lasts, end)) = self.ends.get_mut(&id) else { return 0 };
        *end = Instant::now() + if self.faults.hasty { *lasts / 2 } else { *lasts };
        lasts.as_secs() as i64
    }

    pub fn key_count(&self) -> usize {
        self.keys.len()
    }

    /// Granted and revoked.
    pub fn leases(&self) -> [i64; 2] {
        [self.grants, self.revokes]
    }

    pub fn version_of_only_key(&self) -> i64 {
        assert_eq!(self.keys.len(), 1);
        self.keys.values().map(|kv| kv.version).sum()
    }

    fn holds(&self, compare: &Compare) -> bool {
        let kv = self.keys.get(&compare.key);
        match compare.target_union {
            Some(TargetUnion::ModRevision(revision)) => kv.map_or(0, |kv| kv.mod_revision) == revision,
            Some(TargetUnion::Version(version)) => kv.map_or(0, |kv| kv.version) == version,
            _ => false,
        }
    }
}

fn inside(key: &Bytes, from: &Bytes, end: &Bytes) -> bool {
    if end.is_empty() { key == from } else { key >= from && key < end }
}

fn not_here<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("not in this server"))
}

#[async_trait]
impl Kv for Server {
    type RangeStreamStream = Answers<RangeStreamResponse>;

    async fn put(&self, request: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        let mut state = self.state();
        state.puts += 1;
        if state.faults.refuse_put_every.is_some_and(|every| state.puts.is_multiple_of(every)) {
            return Err(Status::unavailable("refused as told"));
        }
        state.revision += 1;
        state.put(request.into_inner());
        Ok(Response::new(PutResponse { header: state.header(), ..Default::default() }))
    }

    async fn range(&self, request: Request<RangeRequest>) -> Result<Response<RangeResponse>, Status> {
        Ok(Response::new(self.state().range(request.get_ref())))
    }

    async fn txn(&self, request: Request<TxnRequest>) -> Result<Response<TxnResponse>, Status> {
        let (mut state, txn) = (self.state(), request.into_inner());
        let succeeded = txn.compare.iter().all(|compare| state.holds(compare));
        state.revision += i64::from(succeeded);
        let mut responses = Vec::new();
        for op in if succeeded { txn.success } else { txn.failure } {
            let response = match op.request.unwrap() {
                request_op::Request::RequestPut(put) => {
                    state.put(put);
                    response_op::Response::ResponsePut(PutResponse::default())
                }
                request_op::Request::RequestRange(range) => {
                    response_op::Response::ResponseRange(state.range(&range))
                }
                other => panic!("the bench sends no {other:?}"),
            };
            responses.push(ResponseOp { response: Some(response) });
        }
        Ok(Response::new(TxnResponse { header: state.header(), succeeded, responses }))
    }

    async fn delete_range(
        &self,
        _: Request<DeleteRangeRequest>,
    ) -> Result<Response<DeleteRangeResponse>, Status> {
        not_here()
    }

    async fn compact(&self, _: Request<CompactionRequest>) -> Result<Response<CompactionResponse>, Status> {
        not_here()
    }

    async fn range_stream(
        &self,
        _: Request<RangeRequest>,
    ) -> Result<Response<Self::RangeStreamStream>, Status> {
        not_here()
    }
}

#[async_trait]
impl Lease for Server {
    type LeaseKeepAliveStream = Answers<LeaseKeepAliveResponse>;

    async fn lease_grant(
        &self,
        request: Request<LeaseGrantRequest>,
    ) -> Result<Response<LeaseGrantResponse>, Status> {
        let mut state = self.state();
        state.grants += 1;
        state.entries += 1;
        let (id, ttl) = (state.grants, request.get_ref().ttl);
        let lasts = Duration::from_secs(ttl.unsigned_abs());
        let end = Instant::now() + lasts;
        state.ends.insert(id, (lasts, end));
        tokio::spawn(self.clone().outlive(id, end));
        Ok(Response::new(LeaseGrantResponse { id, ttl, ..Default::default() }))
    }

    async fn lease_revoke(
        &self,
        request: Request<LeaseRevokeRequest>,
    ) -> Result<Response<LeaseRevokeResponse>, Status> {
        let mut state = self.state();
        (state.revokes, state.entries) = (state.revokes + 1, state.entries + 1);
        state.ends.remove(&request.get_ref().id);
        Ok(Response::new(LeaseRevokeResponse::default()))
    }

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<LeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        let server = self.clone();
        let answers = request.into_inner().map(move |renewal| {
            let mut state = server.state();
            state.renewals += 1;
            let id = renewal?.id;
            let ttl = if state.faults.forget_leases { 0 } else { state.renew(id) };
            Ok(LeaseKeepAliveResponse { id, ttl, ..Default::default() })
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn lease_time_to_live(
        &self,
        _: Request<LeaseTimeToLiveRequest>,
    ) -> Result<Response<LeaseTimeToLiveResponse>, Status> {
        Ok(Response::new(LeaseTimeToLiveResponse { ttl: 60, ..Default::default() }))
    }

    async fn lease_leases(
        &self,
        _: Request<LeaseLeasesRequest>,
    ) -> Result<Response<LeaseLeasesResponse>, Status> {
        not_here()
    }
}

#[async_trait]
impl Watch for Server {
    type WatchStream = Answers<WatchResponse>;

    async fn watch(
        &self,
        request: Request<Streaming<WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let ((out, answers), server) = (unbounded_channel(), self.clone());
        let mut requests = request.into_inner();
        tokio::spawn(async move {
            while let Some(Ok(request)) = requests.next().await {
                let Some(RequestUnion::CreateRequest(create)) = request.request_union else { continue };
                let WatchCreateRequest { key, range_end, watch_id, .. } = create;
                out.send(Ok(WatchResponse { watch_id, created: true, ..Default::default() })).ok();
                server.state().watchers.push(Watcher { key, range_end, watch_id, out: out.clone() });
            }
        });
        Ok(Response::new(Box::pin(UnboundedReceiverStream::new(answers))))
    }
}

#[async_trait]
impl Maintenance for Server {
    type SnapshotStream = Answers<SnapshotResponse>;

    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        let (entries, member_id) = {
            let state = self.state();
            (state.entries, state.member + 1)
        };
        let header = Some(ResponseHeader { member_id, ..Default::default() });
        Ok(Response::new(StatusResponse { header, leader: 1, raft_index: entries, ..Default::default() }))
    }

    async fn alarm(&self, _: Request<AlarmRequest>) -> Result<Response<AlarmResponse>, Status> {
        not_here()
    }

    async fn defragment(
        &self,
        _: Request<DefragmentRequest>,
    ) -> Result<Response<DefragmentResponse>, Status> {
        not_here()
    }

    async fn hash(&self, _: Request<HashRequest>) -> Result<Response<HashResponse>, Status> {
        not_here()
    }

    async fn hash_kv(&self, _: Request<HashKvRequest>) -> Result<Response<HashKvResponse>, Status> {
        not_here()
    }

    async fn snapshot(&self, _: Request<SnapshotRequest>) -> Result<Response<Self::SnapshotStream>, Status> {
        not_here()
    }

    async fn move_leader(
        &self,
        _: Request<MoveLeaderRequest>,
    ) -> Result<Response<MoveLeaderResponse>, Status> {
        not_here()
    }

    async fn downgrade(&self, _: Request<DowngradeRequest>) -> Result<Response<DowngradeResponse>, Status> {
        not_here()
    }
}
