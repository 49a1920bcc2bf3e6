//! Who can answer a script: the requests of a client, and time turned by hand where that is possible.

use tenure_proto::etcdserverpb::{
    AlarmRequest, AlarmResponse, CompactionRequest, CompactionResponse, DeleteRangeRequest,
    DeleteRangeResponse, LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveResponse, LeaseLeasesResponse,
    LeaseRevokeRequest, LeaseRevokeResponse, LeaseTimeToLiveRequest, LeaseTimeToLiveResponse, PutRequest,
    PutResponse, RangeRequest, RangeResponse, TxnRequest, TxnResponse, WatchRequest, WatchResponse,
};

/// A refusal is the error's text as etcd sends it, without the leading `etcdserver: `.
pub type Answer<T> = Result<T, String>;

pub trait Peer {
    fn range(&mut self, request: RangeRequest) -> Answer<RangeResponse>;
    fn put(&mut self, request: PutRequest) -> Answer<PutResponse>;
    fn delete_range(&mut self, request: DeleteRangeRequest) -> Answer<DeleteRangeResponse>;
    fn txn(&mut self, request: TxnRequest) -> Answer<TxnResponse>;
    fn compact(&mut self, request: CompactionRequest) -> Answer<CompactionResponse>;
    fn alarm(&mut self, request: AlarmRequest) -> Answer<AlarmResponse>;
    fn lease_grant(&mut self, request: LeaseGrantRequest) -> Answer<LeaseGrantResponse>;
    fn lease_revoke(&mut self, request: LeaseRevokeRequest) -> Answer<LeaseRevokeResponse>;
    fn keep_alive(&mut self, id: i64) -> Answer<LeaseKeepAliveResponse>;
    fn time_to_live(&mut self, request: LeaseTimeToLiveRequest) -> Answer<LeaseTimeToLiveResponse>;
    fn leases(&mut self) -> Answer<LeaseLeasesResponse>;

    /// Sends on the watch stream of this name, which begins with the first request.
    fn send(&mut self, stream: &str, request: WatchRequest);

    /// Waits until the stream has said `count` things, and takes whatever it said by then.
    fn receive(&mut self, stream: &str, count: usize) -> Vec<WatchResponse>;

    fn advance(&mut self, ms: u64);
    /// Starts again from what is stored; fails if that is not the state there was.
    fn restart(&mut self) -> Result<(), String>;
    fn change_leader(&mut self);
    /// The time to report progress to idle watchers has come.
    fn tick_progress(&mut self);
    /// Sweeps everything, so many keys at a time.
    fn sweep(&mut self, keys: usize);
}
