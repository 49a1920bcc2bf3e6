//! `Primitives` over a server in memory, with faults where a test wants them and a count of what was asked.

use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Poll, Waker};

use tenure_proto::etcdserverpb::watch_request::RequestUnion;
use tenure_proto::etcdserverpb::{
    CompactionRequest, LeaseGrantRequest, LeaseKeepAliveRequest, LeaseRevokeRequest, LeaseTimeToLiveRequest,
    RangeRequest, RangeResponse, TxnRequest, TxnResponse, WatchCreateRequest, WatchRequest, WatchResponse,
};
use tenure_proto::mvccpb::KeyValue;
use tenure_recipes::{Change, Changes, Failure, Primitives, TimeLeft};
use tenure_state::solo::{Memory, Settings, Solo};
use tenure_state::{Millis, Position, Refusal, Revision, StreamId};

/// A server in memory. Clones are the same server.
#[derive(Clone, Default)]
pub struct Store(Arc<Mutex<World>>);

/// What goes wrong with one txn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is done, and the caller hears `Unknown`.
    ReplyLost,
    /// It is not done, and the caller hears `Unknown`.
    RequestLost,
    /// It is not done, and the caller hears `Unavailable`.
    Refused,
    /// This lease ends just before it; the caller hears the truth.
    Expires(i64),
    /// This lease ends just behind it; the caller hears what was true before.
    ExpiresAfter(i64),
}

/// How often the server was asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Calls {
    pub txns: usize,
    pub ranges: usize,
    pub watches: usize,
    /// Changes that were told to watchers.
    pub changes: usize,
    /// Keys that ranges gave back.
    pub keys: usize,
}

#[derive(Default)]
struct World {
    solo: Solo,
    calls: Calls,
    faults: BTreeMap<usize, Fault>,
    wakers: BTreeMap<StreamId, Waker>,
}

/// A watch on a server in memory. What happens is kept for it until it is asked.
pub struct Watching {
    world: Arc<Mutex<World>>,
    stream: StreamId,
    ready: VecDeque<Change>,
    ended: Option<Failure>,
}

impl Store {
    /// Empty, and as if so many revisions had been.
    pub fn at(revision: i64) -> Store {
        let mut memory = Memory::default();
        memory.set_applied(Position { term: 1, index: 1 }, Revision(revision), Revision(0));
        let solo = Solo::restore(Settings::default(), memory, Millis(0));
        Store(Arc::new(Mutex::new(World { solo, ..World::default() })))
    }

    /// `fault` befalls the txn before which `behind` others still go through, counted from now.
    pub fn on_txn(&self, behind: usize, fault: Fault) {
        let mut world = self.world();
        let number = world.calls.txns + behind;
        world.faults.insert(number, fault);
    }

    /// Faults that befell nobody are forgotten.
    pub fn no_faults(&self) {
        self.world().faults.clear();
    }

    pub fn calls(&self) -> Calls {
        self.world().calls
    }

    /// Turns the clock on. Leases that fall due end on the way.
    pub fn advance(&self, ms: u64) {
        self.world().change(|solo| solo.advance(ms));
    }

    /// A new leader begins: leases start with what the log remembers of them.
    pub fn change_leader(&self) {
        self.world().change(Solo::change_leader);
    }

    /// The end of a lease, as by the clock.
    pub fn expire(&self, lease: i64) {
        self.world().change(|solo| {
            let _gone_already = solo.lease_revoke(&LeaseRevokeRequest { id: lease });
        });
    }

    pub fn compact(&self, revision: i64) {
        self.world().change(|solo| {
            solo.compact(&CompactionRequest { revision, physical: false }).expect("compacts");
        });
    }

    pub fn revision(&self) -> i64 {
        self.world().solo.revision().0
    }

    /// All keys with this prefix; all there are, if it is empty.
    pub fn keys(&self, prefix: &[u8]) -> Vec<KeyValue> {
        let all = RangeRequest { key: vec![0].into(), range_end: vec![0].into(), ..Default::default() };
        let mut kvs = self.world().solo.range(&all).expect("reads").kvs;
        kvs.retain(|kv| kv.key.starts_with(prefix));
        kvs
    }

    /// A look at, or a hand on, the server itself; watchers are told.
    pub fn with<T>(&self, act: impl FnOnce(&mut Solo) -> T) -> T {
        self.world().change(act)
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap()
    }
}

impl World {
    fn change<T>(&mut self, act: impl FnOnce(&mut Solo) -> T) -> T {
        let before = self.solo.revision();
        let result = act(&mut self.solo);
        if self.solo.revision() != before || self.solo.machine().compacted().0 > 0 {
            std::mem::take(&mut self.wakers).into_values().for_each(Waker::wake);
        }
        result
    }

    fn txn(&mut self, txn: &TxnRequest) -> Result<TxnResponse, Failure> {
        let fault = self.faults.remove(&self.calls.txns);
        self.calls.txns += 1;
        match fault {
            Some(Fault::RequestLost) => return Err(Failure::Unknown("the request was lost".into())),
            Some(Fault::Refused) => return Err(Failure::Unavailable("there is no leader".into())),
            Some(Fault::Expires(lease)) => self.expire(lease),
            Some(Fault::ReplyLost | Fault::ExpiresAfter(_)) | None => {}
        }
        let answer = self.change(|solo| solo.txn(txn)).map_err(|refusal| self.failure(&refusal));
        match fault {
            Some(Fault::ReplyLost) => Err(Failure::Unknown("the answer was lost".into())),
            Some(Fault::ExpiresAfter(lease)) => {
                self.expire(lease);
                answer
            }
            _ => answer,
        }
    }

    fn expire(&mut self, lease: i64) {
        self.change(|solo| {
            let _gone_already = solo.lease_revoke(&LeaseRevokeRequest { id: lease });
        });
    }

    fn failure(&self, refusal: &Refusal) -> Failure {
        match refusal {
            Refusal::Compacted => Failure::Compacted { at: self.solo.machine().compacted().0 },
            Refusal::LeaseNotFound => Failure::LeaseUnknown,
            Refusal::LeaseExists => Failure::LeaseExists,
            Refusal::NoSpace => Failure::Exhausted("there is no space left".into()),
            other => Failure::Invalid(format!("{other:?}")),
        }
    }
}

impl Primitives for Store {
    type Changes = Watching;

    async fn txn(&self, txn: TxnRequest) -> Result<TxnResponse, Failure> {
        self.world().txn(&txn)
    }

    async fn range(&self, range: RangeRequest) -> Result<RangeResponse, Failure> {
        let mut world = self.world();
        world.calls.ranges += 1;
        let answer = world.solo.range(&range).map_err(|refusal| world.failure(&refusal))?;
        world.calls.keys += answer.kvs.len();
        Ok(answer)
    }

    async fn watch(&self, key: Vec<u8>, range_end: Vec<u8>, from: i64) -> Result<Watching, Failure> {
        assert!(from > 0, "a watch begins at a revision");
        let mut world = self.world();
        world.calls.watches += 1;
        let stream = world.solo.open_stream();
        let create = WatchCreateRequest {
            key: key.into(),
            range_end: range_end.into(),
            start_revision: from,
            ..Default::default()
        };
        let request = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        world.solo.watch(stream, &request);
        Ok(Watching { world: self.0.clone(), stream, ready: VecDeque::new(), ended: None })
    }

    async fn grant(&self, lease: i64, ttl_s: i64) -> Result<i64, Failure> {
        let mut world = self.world();
        let request = LeaseGrantRequest { id: lease, ttl: ttl_s };
        let granted = world.change(|solo| solo.lease_grant(&request));
        granted.map(|granted| granted.ttl).map_err(|refusal| world.failure(&refusal))
    }

    async fn keep_alive(&self, lease: i64) -> Result<Option<i64>, Failure> {
        let answer = self.world().change(|solo| solo.lease_keep_alive(&LeaseKeepAliveRequest { id: lease }));
        Ok((answer.ttl > 0).then_some(answer.ttl))
    }

    async fn revoke(&self, lease: i64) -> Result<bool, Failure> {
        let mut world = self.world();
        match world.change(|solo| solo.lease_revoke(&LeaseRevokeRequest { id: lease })) {
            Ok(_) => Ok(true),
            Err(Refusal::LeaseNotFound) => Ok(false),
            Err(refusal) => Err(world.failure(&refusal)),
        }
    }

    async fn time_to_live(&self, lease: i64) -> Result<Option<TimeLeft>, Failure> {
        let request = LeaseTimeToLiveRequest { id: lease, keys: false };
        let answer = self.world().solo.lease_time_to_live(&request);
        let left = TimeLeft { remaining_s: answer.ttl, granted_s: answer.granted_ttl };
        Ok((answer.ttl >= 0).then_some(left))
    }
}

impl Changes for Watching {
    async fn next(&mut self) -> Result<Change, Failure> {
        poll_fn(|context| {
            let shared = self.world.clone();
            let mut world = shared.lock().unwrap();
            for response in world.solo.pull(self.stream) {
                self.take(response);
            }
            if let Some(change) = self.ready.pop_front() {
                world.calls.changes += 1;
                return Poll::Ready(Ok(change));
            }
            if let Some(failure) = &self.ended {
                return Poll::Ready(Err(failure.clone()));
            }
            world.wakers.insert(self.stream, context.waker().clone());
            Poll::Pending
        })
        .await
    }
}

impl Watching {
    fn take(&mut self, response: WatchResponse) {
        if response.canceled {
            self.ended = Some(match response.compact_revision {
                0 => Failure::Invalid(response.cancel_reason),
                at => Failure::Compacted { at },
            });
        }
        for event in response.events {
            let revision = event.kv.as_ref().map_or(0, |kv| kv.mod_revision);
            match self.ready.back_mut() {
                Some(change) if change.revision == revision => change.events.push(event),
                _ => self.ready.push_back(Change { revision, events: vec![event] }),
            }
        }
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        if let Ok(mut world) = self.world.lock() {
            world.solo.close_stream(self.stream);
            world.wakers.remove(&self.stream);
        }
    }
}
