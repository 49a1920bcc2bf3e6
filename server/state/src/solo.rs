//! The whole server in memory: machine, records, lessor, watchers and a clock turned by hand, in one value. Golden scripts and the
//! recipes' tests run on it, so it takes the client's requests as the API does: checked first, then applied, the answer
//! with its header. It knows nothing of Raft but terms and indexes, which it counts itself, and nothing of the wire but
//! the messages.
//!
//! Whatever becomes fatal here is a bug, since records in memory do not fail: it panics.

use tenure_proto::etcdserverpb::{
    AlarmRequest, AlarmResponse, CompactionRequest, CompactionResponse, DeleteRangeRequest,
    DeleteRangeResponse, LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest,
    LeaseKeepAliveResponse, LeaseLeasesResponse, LeaseRevokeRequest, LeaseRevokeResponse, LeaseStatus,
    LeaseTimeToLiveRequest, LeaseTimeToLiveResponse, PutRequest, PutResponse, RangeRequest, RangeResponse,
    ResponseHeader, TxnRequest, TxnResponse, WatchRequest, WatchResponse,
};
use tenure_proto::internal::command::Wish;
use tenure_proto::internal::{
    Command, ExpiredLease, LeaseCheckpoint, LeaseExpire, LeaseGrant, LeaseRemaining, LeaseRevoke,
};

use crate::answer::{Applied, Refusal, Response};
use crate::change::{Key, LeaseId};
use crate::check;
use crate::lessor::{Lessor, Millis, Pace, Recollection, Renewal};
use crate::machine::{Machine, Position};
use crate::revision::Revision;
use crate::txn;
use crate::watchers::{Limits, StreamId};

mod memory;
mod streams;

pub use memory::Memory;

use streams::Streams;

/// What a real server takes from its flags.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Bytes of newest records kept beside the index; with 0 every read goes to [`Memory`].
    pub record_bytes_max: usize,
    /// Compares, and operations of a branch, of one txn.
    pub operations_max: usize,
    /// A shorter time to live is raised to this, seconds.
    pub ttl_min_s: i64,
    /// What each lease is given on top at a change of leader, milliseconds.
    pub election_timeout_ms: u64,
    pub pace: Pace,
    pub watch: Limits,
}

impl Default for Settings {
    /// etcd's.
    fn default() -> Settings {
        Settings {
            record_bytes_max: usize::MAX,
            operations_max: 128,
            ttl_min_s: 2,
            election_timeout_ms: 1_000,
            pace: Pace::default(),
            watch: Limits::default(),
        }
    }
}

/// A server of one member that always leads.
#[derive(Debug)]
pub struct Solo {
    settings: Settings,
    machine: Machine,
    memory: Memory,
    lessor: Lessor,
    streams: Streams,
    position: Position,
    now: Millis,
    leases_chosen: i64,
}

impl Default for Solo {
    fn default() -> Solo {
        Solo::new(Settings::default())
    }
}

impl Solo {
    pub fn new(settings: Settings) -> Solo {
        Solo::start(settings, Machine::new(settings.record_bytes_max), Memory::default())
    }

    /// Starts again from what a server had stored, as after a crash: time went on where it stood, in a later term.
    pub fn restore(settings: Settings, memory: Memory, now: Millis) -> Solo {
        let mut memory = memory;
        let mut machine = memory.load(settings.record_bytes_max).expect("what was stored loads");
        memory.take(machine.sweep(None, usize::MAX).0);
        let mut solo = Solo::start(settings, machine, memory);
        solo.now = now;
        solo.lessor.restored(now, solo.machine.leases().iter());
        solo.change_leader();
        solo
    }

    fn start(settings: Settings, machine: Machine, memory: Memory) -> Solo {
        let position = memory.applied();
        let mut solo = Solo {
            settings,
            streams: Streams::new(settings.watch, &machine),
            machine,
            memory,
            lessor: Lessor::new(settings.pace),
            position,
            now: Millis(0),
            leases_chosen: 0,
        };
        solo.change_leader();
        solo
    }

    /// Applies one command as the next entry of the log.
    pub fn apply(&mut self, command: &Command) -> Applied {
        self.position.index += 1;
        let applied = self.machine.apply(self.position, command, &self.memory).expect("memory does not fail");
        self.memory.take(applied.writes.iter().cloned());
        self.memory.set_applied(self.position, self.machine.revision(), self.machine.compacted());
        for effect in &applied.effects {
            self.lessor.follow(effect, self.now);
            self.streams.follow(effect);
        }
        applied
    }

    pub fn range(&self, request: &RangeRequest) -> Result<RangeResponse, Refusal> {
        check::range(request)?;
        let response = self.machine.range(request, &self.memory).expect("memory does not fail")?;
        Ok(RangeResponse { header: self.header(), ..response })
    }

    pub fn put(&mut self, request: &PutRequest) -> Result<PutResponse, Refusal> {
        check::put(request)?;
        match self.wish(Wish::Put(request.clone()))? {
            Response::Put(response) => Ok(PutResponse { header: self.header(), ..response }),
            other => answered_amiss(&other),
        }
    }

    pub fn delete_range(&mut self, request: &DeleteRangeRequest) -> Result<DeleteRangeResponse, Refusal> {
        check::delete_range(request)?;
        match self.wish(Wish::DeleteRange(request.clone()))? {
            Response::DeleteRange(response) => Ok(DeleteRangeResponse { header: self.header(), ..response }),
            other => answered_amiss(&other),
        }
    }

    pub fn txn(&mut self, request: &TxnRequest) -> Result<TxnResponse, Refusal> {
        check::txn(request, self.settings.operations_max)?;
        if txn::is_read_only(request) {
            let response = txn::read(&self.machine, request, &self.memory).expect("memory does not fail")?;
            return Ok(TxnResponse { header: self.header(), ..response });
        }
        match self.wish(Wish::Txn(request.clone()))? {
            Response::Txn(response) => Ok(TxnResponse { header: self.header(), ..response }),
            other => answered_amiss(&other),
        }
    }

    pub fn compact(&mut self, request: &CompactionRequest) -> Result<CompactionResponse, Refusal> {
        match self.wish(Wish::Compact(*request))? {
            Response::Compacted { .. } => Ok(CompactionResponse { header: self.header() }),
            other => answered_amiss(&other),
        }
    }

    pub fn lease_grant(&mut self, request: &LeaseGrantRequest) -> Result<LeaseGrantResponse, Refusal> {
        let id = if request.id == 0 { self.choose_lease() } else { request.id };
        let ttl = request.ttl.max(self.settings.ttl_min_s);
        match self.wish(Wish::LeaseGrant(LeaseGrant { id, ttl }))? {
            Response::LeaseGranted { id, ttl_s } => {
                Ok(LeaseGrantResponse { header: self.header(), id, ttl: ttl_s, error: String::new() })
            }
            other => answered_amiss(&other),
        }
    }

    pub fn lease_revoke(&mut self, request: &LeaseRevokeRequest) -> Result<LeaseRevokeResponse, Refusal> {
        match self.wish(Wish::LeaseRevoke(LeaseRevoke { id: request.id }))? {
            Response::LeaseRevoked => Ok(LeaseRevokeResponse { header: self.header() }),
            other => answered_amiss(&other),
        }
    }

    /// A TTL of 0 says that there is no such lease.
    pub fn lease_keep_alive(&mut self, request: &LeaseKeepAliveRequest) -> LeaseKeepAliveResponse {
        let header = self.header();
        let id = LeaseId(request.id);
        self.lessor.told([id], self.now);
        let ttl = loop {
            match self.lessor.renew(id, self.now, self.now) {
                Renewal::Renewed { ttl_s } => break ttl_s,
                Renewal::Unknown => break 0,
                // Time stands still here, and its end was due.
                Renewal::Leaving => {
                    let _refused_while_corrupt = self.expire();
                    break 0;
                }
                Renewal::ForgetCheckpoint { epoch, ttl_s } => {
                    self.checkpoint(vec![LeaseRemaining { id: id.0, epoch, remaining_ttl: ttl_s }]);
                }
                Renewal::NotLeader => unreachable!("one member always leads"),
            }
        };
        LeaseKeepAliveResponse { header, id: request.id, ttl }
    }

    /// A TTL of -1 says that there is no such lease.
    pub fn lease_time_to_live(&self, request: &LeaseTimeToLiveRequest) -> LeaseTimeToLiveResponse {
        let id = LeaseId(request.id);
        let mut response =
            LeaseTimeToLiveResponse { header: self.header(), id: id.0, ttl: -1, ..Default::default() };
        if let Some(remaining) = self.lessor.remaining(id, self.now) {
            response.ttl = remaining.remaining_s;
            response.granted_ttl = remaining.granted_s;
        }
        if let Some(lease) = self.machine.leases().get(id).filter(|_| request.keys) {
            response.keys = lease.keys.iter().map(|key| key.to_vec().into()).collect();
        }
        response
    }

    /// All leases, the one that ends first at the front.
    pub fn leases(&self) -> LeaseLeasesResponse {
        let ids = self.lessor.ids_by_deadline().expect("one member always leads");
        let leases = ids.into_iter().map(|id| LeaseStatus { id: id.0 }).collect();
        LeaseLeasesResponse { header: self.header(), leases }
    }

    pub fn alarm(&mut self, request: &AlarmRequest) -> Result<AlarmResponse, Refusal> {
        match self.wish(Wish::Alarm(*request))? {
            Response::Alarm(alarms) => Ok(AlarmResponse { header: self.header(), alarms }),
            other => answered_amiss(&other),
        }
    }

    pub fn open_stream(&mut self) -> StreamId {
        self.streams.open()
    }

    pub fn close_stream(&mut self, stream: StreamId) {
        self.streams.close(stream);
    }

    /// Takes what a client says on its watch stream; what it is told in turn, [`Solo::pull`] gives.
    pub fn watch(&mut self, stream: StreamId, request: &WatchRequest) {
        self.streams.take(stream, request);
    }

    /// Everything there is to say on this stream now.
    pub fn pull(&mut self, stream: StreamId) -> Vec<WatchResponse> {
        self.streams.pull(stream, &self.machine, &self.memory)
    }

    /// Time to report progress to the watchers that asked for it when they were made and were told nothing of late.
    pub fn tick_progress(&mut self) {
        self.streams.tick_progress();
    }

    /// Turns the clock on. What falls due on the way happens at its time.
    pub fn advance(&mut self, ms: u64) {
        let end = self.now.plus(ms);
        while let Some(due) = self.lessor.next_due().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            let due = self.lessor.checkpoints_due(self.now, usize::MAX).into_iter();
            let remaining =
                due.map(|it| LeaseRemaining { id: it.id.0, epoch: it.epoch, remaining_ttl: it.remaining_s });
            self.checkpoint(remaining.collect());
            if self.expire().is_err() {
                break;
            }
        }
        self.now = end;
    }

    /// A new term begins, and whoever leads it counts the leases from what is known of them: here one member is a majority.
    pub fn change_leader(&mut self) {
        self.position.term += 1;
        let extension_ms = self.settings.election_timeout_ms;
        let Position { term, index, .. } = self.position;
        self.lessor.promote(term, index, self.now, self.machine.leases().iter(), extension_ms);
        let alone = Recollection { others: Vec::new(), majority: 1 };
        self.lessor.recall(term, &alone, None, usize::MAX, self.now);
    }

    /// Removes what compaction made unreadable, `keys_max` keys behind `after`; gives where to go on.
    pub fn sweep(&mut self, after: Option<&Key>, keys_max: usize) -> Option<Key> {
        let (writes, next) = self.machine.sweep(after, keys_max);
        self.memory.take(writes);
        next
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// What a crash at this moment would leave.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    pub fn now(&self) -> Millis {
        self.now
    }

    pub fn revision(&self) -> Revision {
        self.machine.revision()
    }

    fn header(&self) -> Option<ResponseHeader> {
        let revision = self.machine.revision().0;
        Some(ResponseHeader { revision, raft_term: self.position.term, ..Default::default() })
    }

    fn wish(&mut self, wish: Wish) -> Result<Response, Refusal> {
        self.apply(&Command { wish: Some(wish), ..Default::default() }).answer
    }

    fn choose_lease(&mut self) -> i64 {
        // Far from the small numbers that tests choose.
        const FIRST: i64 = 1 << 40;
        loop {
            self.leases_chosen += 1;
            let id = FIRST + self.leases_chosen;
            if self.machine.leases().get(LeaseId(id)).is_none() {
                return id;
            }
        }
    }

    /// Refused while an alarm forbids it; the leases stay due.
    fn expire(&mut self) -> Result<(), Refusal> {
        let expired = self.lessor.expired(self.now, usize::MAX);
        if expired.is_empty() {
            return Ok(());
        }
        let leases = expired.iter().map(|(id, epoch)| ExpiredLease { id: id.0, epoch: *epoch }).collect();
        let expire = LeaseExpire { term: self.position.term, leases };
        let answer = self.wish(Wish::LeaseExpire(expire));
        if answer.is_err() {
            self.lessor.expiry_failed(expired.into_iter().map(|(id, _)| id), self.now);
        }
        answer.map(|_| ())
    }

    fn checkpoint(&mut self, leases: Vec<LeaseRemaining>) {
        if !leases.is_empty() {
            let checkpoint = LeaseCheckpoint { term: self.position.term, leases };
            self.wish(Wish::LeaseCheckpoint(checkpoint)).expect("a checkpoint is never refused");
        }
    }
}

/// The machine answers each wish with the response of its kind.
fn answered_amiss<T>(response: &Response) -> T {
    panic!("the machine answered another wish: {response:?}")
}
