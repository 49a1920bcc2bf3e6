//! Golden scripts: what the core says to clients, one file an idea, on a server in memory. The language is told in
//! `script/mod.rs`; `UPDATE_GOLDENFILES=1 cargo test -p tenure-state --test golden` writes the answers anew, to be read
//! before they are believed. The server's oracle test asks a real etcd the same.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use tenure_proto::etcdserverpb::{
    AlarmRequest, AlarmResponse, CompactionRequest, CompactionResponse, DeleteRangeRequest,
    DeleteRangeResponse, LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest,
    LeaseKeepAliveResponse, LeaseLeasesResponse, LeaseRevokeRequest, LeaseRevokeResponse,
    LeaseTimeToLiveRequest, LeaseTimeToLiveResponse, PutRequest, PutResponse, RangeRequest, RangeResponse,
    TxnRequest, TxnResponse, WatchRequest, WatchResponse,
};
use tenure_state::Refusal;
use tenure_state::solo::{Settings, Solo};

mod script;

use script::{Answer, Peer, Script, scripts};

struct InMemory(Solo);

impl InMemory {
    fn new(record_bytes_max: usize) -> InMemory {
        InMemory(Solo::new(Settings { record_bytes_max, ..Settings::default() }))
    }
}

impl Peer for InMemory {
    fn range(&mut self, request: RangeRequest) -> Answer<RangeResponse> {
        self.0.range(&request).map_err(text)
    }

    fn put(&mut self, request: PutRequest) -> Answer<PutResponse> {
        self.0.put(&request).map_err(text)
    }

    fn delete_range(&mut self, request: DeleteRangeRequest) -> Answer<DeleteRangeResponse> {
        self.0.delete_range(&request).map_err(text)
    }

    fn txn(&mut self, request: TxnRequest) -> Answer<TxnResponse> {
        self.0.txn(&request).map_err(text)
    }

    fn compact(&mut self, request: CompactionRequest) -> Answer<CompactionResponse> {
        self.0.compact(&request).map_err(text)
    }

    fn alarm(&mut self, request: AlarmRequest) -> Answer<AlarmResponse> {
        self.0.alarm(&request).map_err(text)
    }

    fn lease_grant(&mut self, request: LeaseGrantRequest) -> Answer<LeaseGrantResponse> {
        self.0.lease_grant(&request).map_err(text)
    }

    fn lease_revoke(&mut self, request: LeaseRevokeRequest) -> Answer<LeaseRevokeResponse> {
        self.0.lease_revoke(&request).map_err(text)
    }

    fn keep_alive(&mut self, id: i64) -> Answer<LeaseKeepAliveResponse> {
        Ok(self.0.lease_keep_alive(&LeaseKeepAliveRequest { id }))
    }

    fn time_to_live(&mut self, request: LeaseTimeToLiveRequest) -> Answer<LeaseTimeToLiveResponse> {
        Ok(self.0.lease_time_to_live(&request))
    }

    fn leases(&mut self) -> Answer<LeaseLeasesResponse> {
        Ok(self.0.leases())
    }

    fn send(&mut self, _stream: &str, _request: WatchRequest) {
        unimplemented!()
    }

    fn receive(&mut self, _stream: &str, _count: usize) -> Vec<WatchResponse> {
        Vec::new()
    }

    fn advance(&mut self, ms: u64) {
        self.0.advance(ms);
    }

    fn restart(&mut self) -> Result<(), String> {
        let mut before = self.0.machine().clone();
        // Whoever starts again sweeps.
        before.sweep(None, usize::MAX);
        self.0 = Solo::restore(*self.0.settings(), self.0.memory().clone(), self.0.now());
        let after = self.0.machine();
        if before == *after { Ok(()) } else { Err(format!("{before:#?}\nbecame\n{after:#?}")) }
    }

    fn change_leader(&mut self) {
        self.0.change_leader();
    }

    fn sweep(&mut self, keys: usize) {
        let mut after = self.0.sweep(None, keys);
        while after.is_some() {
            after = self.0.sweep(after.as_ref(), keys);
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
        Refusal::WatchRangeEmpty => "mvcc: watcher range is empty",
        Refusal::WatchIdDuplicate => "mvcc: duplicate watch ID provided on the WatchStream",
        // Ours alone: etcd has no such thing to say.
        Refusal::GuardFailed | Refusal::UnknownCommand => return format!("{refusal:?}"),
    };
    text.to_string()
}

#[test]
fn every_script_says_what_it_said() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts");
    let mut wrong = Vec::new();
    let scripts = scripts(&root);
    assert!(scripts.len() > 150, "only {} scripts in {}", scripts.len(), root.display());
    for (name, _) in &scripts {
        let run = || goldenscript::run(&mut Script::new(InMemory::new(usize::MAX)), root.join(name));
        match std::panic::catch_unwind(run) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => wrong.push(format!("{name}: {error}")),
            Err(_) => wrong.push(format!("{name}: see above")),
        }
    }
    assert!(wrong.is_empty(), "{} scripts differ:\n{}", wrong.len(), wrong.join("\n"));
}

/// Which records happen to lie in memory is nobody's business.
#[test]
fn every_script_says_the_same_when_all_records_are_read_from_the_store() {
    for (name, golden) in scripts(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts")) {
        let said = goldenscript::generate(&mut Script::new(InMemory::new(0)), &golden).unwrap();
        assert_eq!(said, golden, "{name}");
    }
}
