//! Any server as the peer of a golden script, over gRPC.

use std::collections::BTreeMap;
use std::time::Duration;

use tenure_grpc::etcdserverpb::kv_client::KvClient;
use tenure_grpc::etcdserverpb::lease_client::LeaseClient;
use tenure_grpc::etcdserverpb::maintenance_client::MaintenanceClient;
use tenure_grpc::etcdserverpb::watch_client::WatchClient;
use tenure_proto::etcdserverpb::{
    AlarmRequest, AlarmResponse, CompactionRequest, CompactionResponse, DeleteRangeRequest,
    DeleteRangeResponse, LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest,
    LeaseKeepAliveResponse, LeaseLeasesRequest, LeaseLeasesResponse, LeaseRevokeRequest, LeaseRevokeResponse,
    LeaseTimeToLiveRequest, LeaseTimeToLiveResponse, PutRequest, PutResponse, RangeRequest, RangeResponse,
    TxnRequest, TxnResponse, WatchRequest, WatchResponse,
};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Response, Status};

use crate::script::{Answer, Peer};

/// How long a watch may take to say what is waited for.
const WATCH_BOUND: Duration = Duration::from_secs(5);
/// How long nothing must come before it is believed that nothing comes. etcd looks for what it owes its slow watchers
/// ten times a second.
const SILENCE: Duration = Duration::from_millis(200);
/// The same once what was waited for has come: what is too much shows at the end of the script at the latest.
const BREATH: Duration = Duration::from_millis(5);

pub struct Remote {
    runtime: Handle,
    channel: Channel,
    streams: BTreeMap<String, Stream>,
}

struct Stream {
    requests: mpsc::UnboundedSender<WatchRequest>,
    responses: mpsc::UnboundedReceiver<Result<WatchResponse, Status>>,
}

impl Remote {
    pub async fn connect(endpoint: String, bound: Duration) -> Remote {
        let endpoint = Endpoint::from_shared(endpoint).expect("the harness gives a URL").timeout(bound);
        let channel = endpoint.connect().await.expect("the server said that it serves");
        Remote { runtime: Handle::current(), channel, streams: BTreeMap::new() }
    }

    fn kv(&self) -> KvClient<Channel> {
        KvClient::new(self.channel.clone())
    }

    fn lease(&self) -> LeaseClient<Channel> {
        LeaseClient::new(self.channel.clone())
    }

    fn open(&self) -> Stream {
        let (requests, asked) = mpsc::unbounded_channel();
        let (said, responses) = mpsc::unbounded_channel();
        let mut client = WatchClient::new(self.channel.clone());
        self.runtime.spawn(async move {
            // etcd answers the call itself only with its first response.
            let mut stream = match client.watch(UnboundedReceiverStream::new(asked)).await {
                Ok(response) => response.into_inner(),
                Err(status) => return drop(said.send(Err(status))),
            };
            while let Some(response) = stream.message().await.transpose() {
                let ended = response.is_err();
                if said.send(response).is_err() || ended {
                    return;
                }
            }
        });
        Stream { requests, responses }
    }
}

impl Peer for Remote {
    fn range(&mut self, request: RangeRequest) -> Answer<RangeResponse> {
        answer(self.runtime.block_on(self.kv().range(request)))
    }

    fn put(&mut self, request: PutRequest) -> Answer<PutResponse> {
        answer(self.runtime.block_on(self.kv().put(request)))
    }

    fn delete_range(&mut self, request: DeleteRangeRequest) -> Answer<DeleteRangeResponse> {
        answer(self.runtime.block_on(self.kv().delete_range(request)))
    }

    fn txn(&mut self, request: TxnRequest) -> Answer<TxnResponse> {
        answer(self.runtime.block_on(self.kv().txn(request)))
    }

    fn compact(&mut self, request: CompactionRequest) -> Answer<CompactionResponse> {
        answer(self.runtime.block_on(self.kv().compact(request)))
    }

    fn alarm(&mut self, request: AlarmRequest) -> Answer<AlarmResponse> {
        let mut client = MaintenanceClient::new(self.channel.clone());
        answer(self.runtime.block_on(client.alarm(request)))
    }

    fn lease_grant(&mut self, request: LeaseGrantRequest) -> Answer<LeaseGrantResponse> {
        answer(self.runtime.block_on(self.lease().lease_grant(request)))
    }

    fn lease_revoke(&mut self, request: LeaseRevokeRequest) -> Answer<LeaseRevokeResponse> {
        answer(self.runtime.block_on(self.lease().lease_revoke(request)))
    }

    fn keep_alive(&mut self, id: i64) -> Answer<LeaseKeepAliveResponse> {
        let once = tokio_stream::once(LeaseKeepAliveRequest { id });
        let mut client = self.lease();
        self.runtime.block_on(async {
            let mut stream = answer(client.lease_keep_alive(once).await)?;
            let response = stream.message().await.map_err(text)?;
            response.ok_or_else(|| "the stream ended without an answer".to_string())
        })
    }

    fn time_to_live(&mut self, request: LeaseTimeToLiveRequest) -> Answer<LeaseTimeToLiveResponse> {
        answer(self.runtime.block_on(self.lease().lease_time_to_live(request)))
    }

    fn leases(&mut self) -> Answer<LeaseLeasesResponse> {
        answer(self.runtime.block_on(self.lease().lease_leases(LeaseLeasesRequest {})))
    }

    fn send(&mut self, stream: &str, request: WatchRequest) {
        if !self.streams.contains_key(stream) {
            self.streams.insert(stream.to_string(), self.open());
        }
        self.streams[stream].requests.send(request).expect("the stream is open");
    }

    fn receive(&mut self, stream: &str, count: usize) -> Vec<WatchResponse> {
        let Some(stream) = self.streams.get_mut(stream) else { return Vec::new() };
        let mut received = Vec::new();
        self.runtime.block_on(async {
            loop {
                let bound = match count {
                    0 => SILENCE,
                    _ if received.len() < count => WATCH_BOUND,
                    _ => BREATH,
                };
                match tokio::time::timeout(bound, stream.responses.recv()).await {
                    Ok(Some(Ok(response))) => received.push(response),
                    Ok(Some(Err(status))) => panic!("the watch stream ended: {status}"),
                    Ok(None) | Err(_) => return,
                }
            }
        });
        received
    }

    fn advance(&mut self, _ms: u64) {
        unreachable!("scripts that turn the clock are left out")
    }

    fn restart(&mut self) -> Result<(), String> {
        unreachable!("scripts that restart are left out")
    }

    fn change_leader(&mut self) {
        unreachable!("scripts that change the leader are left out")
    }

    fn tick_progress(&mut self) {
        unreachable!("scripts that tick are left out")
    }

    fn sweep(&mut self, _keys: usize) {
        unreachable!("scripts that sweep are left out")
    }
}

fn answer<T>(result: Result<Response<T>, Status>) -> Answer<T> {
    result.map(Response::into_inner).map_err(text)
}

fn text(status: Status) -> String {
    let text = status.message();
    text.strip_prefix("etcdserver: ").unwrap_or(text).to_string()
}
