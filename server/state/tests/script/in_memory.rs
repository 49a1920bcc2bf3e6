//! `Solo` as the peer of a script.

use std::collections::BTreeMap;

use tenure_proto::etcdserverpb::{
    AlarmRequest, AlarmResponse, CompactionRequest, CompactionResponse, DeleteRangeRequest,
    DeleteRangeResponse, LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest,
    LeaseKeepAliveResponse, LeaseLeasesResponse, LeaseRevokeRequest, LeaseRevokeResponse,
    LeaseTimeToLiveRequest, LeaseTimeToLiveResponse, PutRequest, PutResponse, RangeRequest, RangeResponse,
    TxnRequest, TxnResponse, WatchRequest, WatchResponse,
};
use tenure_state::solo::{Settings, Solo};
use tenure_state::{Refusal, StreamId};

use super::{Answer, Peer};

pub struct InMemory {
    pub solo: Solo,
    streams: BTreeMap<String, StreamId>,
}

impl InMemory {
    pub fn new(record_bytes_max: usize) -> InMemory {
        let solo = Solo::new(Settings { record_bytes_max, ..Settings::default() });
        InMemory { solo, streams: BTreeMap::new() }
    }
}

impl Peer for InMemory {
    fn range(&mut self, request: RangeRequest) -> Answer<RangeResponse> {
        self.solo.range(&request).map_err(text)
    }

    fn put(&mut self, request: PutRequest) -> Answer<PutResponse> {
        self.solo.put(&request).map_err(text)
    }

    fn delete_range(&mut self, request: DeleteRangeRequest) -> Answer<DeleteRangeResponse> {
        self.solo.delete_range(&request).map_err(text)
    }

    fn txn(&mut self, request: TxnRequest) -> Answer<TxnResponse> {
        self.solo.txn(&request).map_err(text)
    }

    fn compact(&mut self, request: CompactionRequest) -> Answer<CompactionResponse> {
        self.solo.compact(&request).map_err(text)
    }

    fn alarm(&mut self, request: AlarmRequest) -> Answer<AlarmResponse> {
        self.solo.alarm(&request).map_err(text)
    }

    fn lease_grant(&mut self, request: LeaseGrantRequest) -> Answer<LeaseGrantResponse> {
        self.solo.lease_grant(&request).map_err(text)
    }

    fn lease_revoke(&mut self, request: LeaseRevokeRequest) -> Answer<LeaseRevokeResponse> {
        self.solo.lease_revoke(&request).map_err(text)
    }

    fn keep_alive(&mut self, id: i64) -> Answer<LeaseKeepAliveResponse> {
        Ok(self.solo.lease_keep_alive(&LeaseKeepAliveRequest { id }))
    }

    fn time_to_live(&mut self, request: LeaseTimeToLiveRequest) -> Answer<LeaseTimeToLiveResponse> {
        Ok(self.solo.lease_time_to_live(&request))
    }

    fn leases(&mut self) -> Answer<LeaseLeasesResponse> {
        Ok(self.solo.leases())
    }

    fn send(&mut self, stream: &str, request: WatchRequest) {
        let id = *self.streams.entry(stream.to_string()).or_insert_with(|| self.solo.open_stream());
        self.solo.watch(id, &request);
    }

    fn receive(&mut self, stream: &str, _count: usize) -> Vec<WatchResponse> {
        self.streams.get(stream).map(|id| self.solo.pull(*id)).unwrap_or_default()
    }

    fn advance(&mut self, ms: u64) {
        self.solo.advance(ms);
    }

    fn restart(&mut self) -> Result<(), String> {
        let mut before = self.solo.machine().clone();
        // Whoever starts again sweeps.
        before.sweep(None, usize::MAX);
        self.solo = Solo::restore(*self.solo.settings(), self.solo.memory().clone(), self.solo.now());
        self.streams.clear();
        let after = self.solo.machine();
        if before == *after { Ok(()) } else { Err(format!("{before:#?}\nbecame\n{after:#?}")) }
    }

    fn change_leader(&mut self) {
        self.solo.change_leader();
    }

    fn tick_progress(&mut self) {
        self.solo.tick_progress();
    }

    fn sweep(&mut self, keys: usize) {
        let mut after = self.solo.sweep(None, keys);
        while after.is_some() {
            after = self.solo.sweep(after.as_ref(), keys);
        }
    }
}

/// etcd's words, without `etcdserver: `.
fn text(refusal: Refusal) -> String {
    let text = match refusal {
        Refusal::KeyNotProvided => "key is not provided",
        Refusal::KeyNotFound => "key not found",
        Refusal::ValueProvided => "value is provided",
        Refusal::LeaseProvided => "lease is provided",
        Refusal::TooManyOperations => "too many operations in txn request",
        Refusal::DuplicateKey => "duplicate key given in txn request",
        Refusal::InvalidSortOption => "invalid sort option",
        Refusal::Compacted => "mvcc: required revision has been compacted",
        Refusal::FutureRevision => "mvcc: required revision is a future revision",
        Refusal::LeaseNotFound => "requested lease not found",
        Refusal::LeaseExists => "lease already exists",
        Refusal::LeaseTtlTooLarge => "too large lease TTL",
        Refusal::NoSpace => "mvcc: database space exceeded",
        Refusal::Corrupt => "corrupt cluster",
        Refusal::MemberNotFound => "member not found",
        // Ours alone: etcd has no such thing to say.
        Refusal::GuardFailed | Refusal::UnknownCommand => return format!("{refusal:?}"),
    };
    text.to_string()
}
