//! The replicated state machine: the only way in for a change is [`Machine::apply`]. The same entries give the same
//! state, answers and writes on every member, and no bytes that a client can shape make it fail.

use tenure_proto::etcdserverpb::alarm_request::AlarmAction;
use tenure_proto::etcdserverpb::{
    AlarmRequest, AlarmType, PutRequest, RangeRequest, RangeResponse, TxnRequest,
};
use tenure_proto::internal::command::Wish;
use tenure_proto::internal::{Command, LeaseCheckpoint, LeaseExpire, MemberPublish};

use crate::alarm::Alarms;
use crate::answer::{Applied, Refusal, Response};
use crate::change::{Effect, Key, LeaseId, Previous, Write};
use crate::draft::Draft;
use crate::index::Index;
use crate::lease::Leases;
use crate::member::{Member, Members};
use crate::records::{Fatal, Records};
use crate::revision::{Place, Revision};
use crate::scan::{Scan, Step};
use crate::txn;

/// Where in the Raft log a command stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    pub term: u64,
    pub index: u64,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Machine {
    revision: Revision,
    /// Reads below this revision are refused. 0 before the first compaction.
    compacted: Revision,
    index: Index,
    pub(crate) leases: Leases,
    alarms: Alarms,
    members: Members,
}

impl Machine {
    /// An empty store. `record_bytes_max` bounds the newest records that are kept in memory.
    pub fn new(record_bytes_max: usize) -> Machine {
        Machine {
            revision: Revision::EMPTY,
            compacted: Revision(0),
            index: Index::new(record_bytes_max),
            leases: Leases::default(),
            alarms: Alarms::default(),
            members: Members::default(),
        }
    }

    /// Carries out one committed command. A refusal changes nothing.
    pub fn apply(
        &mut self,
        at: Position,
        command: &Command,
        records: &dyn Records,
    ) -> Result<Applied, Fatal> {
        if !command.guards.is_empty() && !txn::holds(self, &command.guards, records)? {
            return Ok(self.refused(Refusal::GuardFailed));
        }
        let Some(wish) = &command.wish else { return Ok(self.refused(Refusal::UnknownCommand)) };
        if let Err(refusal) = self.alarms.permit(wish) {
            return Ok(self.refused(refusal));
        }
        match wish {
            Wish::Put(put) => self.put(put, records),
            Wish::DeleteRange(delete) => {
                self.change(records, |draft| draft.delete_range(delete).map(Response::DeleteRange))
            }
            Wish::Txn(txn) => self.txn(txn, records),
            Wish::Compact(request) => Ok(self.compact(Revision(request.revision), request.physical)),
            Wish::LeaseGrant(grant) => Ok(self.grant(LeaseId(grant.id), grant.ttl, at.index)),
            Wish::LeaseRevoke(revoke) => self.revoke(LeaseId(revoke.id), records),
            Wish::LeaseExpire(expire) => self.expire(at, expire, records),
            Wish::LeaseCheckpoint(checkpoint) => Ok(self.checkpoint(at, checkpoint)),
            Wish::Alarm(request) => Ok(self.alarm(request)),
            Wish::MemberPublish(publish) => Ok(self.publish(publish)),
        }
    }

    /// The membership that the log decided; names and client addresses of members that stay are kept.
    pub fn set_members(&mut self, members: Vec<Member>) -> Vec<Write> {
        self.members.replace(members)
    }

    /// Reads keys at once; [`Scan`] is the same in steps.
    pub fn range(
        &self,
        request: &RangeRequest,
        records: &dyn Records,
    ) -> Result<Result<RangeResponse, Refusal>, Fatal> {
        let mut scan = match Scan::new(request, self) {
            Ok(scan) => scan,
            Err(refusal) => return Ok(Err(refusal)),
        };
        match scan.step(self, records, usize::MAX)? {
            Step::Overtaken => Ok(Err(Refusal::Compacted)),
            Step::Done | Step::More => Ok(Ok(scan.finish())),
        }
    }

    /// Goes on with removing what compaction made unreadable: looks at `keys_max` keys behind `after`. Gives the writes
    /// for the store and where to go on, None at the end. Safe at any time; a read never notices.
    pub fn sweep(&mut self, after: Option<&Key>, keys_max: usize) -> (Vec<Write>, Option<Key>) {
        let (dropped, last) = self.index.sweep(self.compacted, after, keys_max);
        (dropped.into_iter().map(|at| Write::DropRecord { at }).collect(), last)
    }

    /// Whether history from the compaction floor on still speaks of this record; what it does not may lie there unswept.
    pub fn keeps(&self, key: &[u8], place: Place) -> bool {
        self.index.keeps(key, place, self.compacted)
    }

    /// What stood at the key before the revision `main`, for whoever is told of a change in it. A change that begins the
    /// key's life replaced nothing, even if an earlier one of the same revision ended another life: etcd's rule.
    pub fn previous(&self, key: &[u8], main: i64, begins: bool) -> Previous {
        let before = self.index.get(key).filter(|_| !begins);
        before.and_then(|history| history.at(Revision(main - 1))).map_or(Previous::Nothing, Previous::At)
    }

    pub fn revision(&self) -> Revision {
        self.revision
    }

    pub fn compacted(&self) -> Revision {
        self.compacted
    }

    pub fn index(&self) -> &Index {
        &self.index
    }

    pub fn leases(&self) -> &Leases {
        &self.leases
    }

    pub fn alarms(&self) -> &Alarms {
        &self.alarms
    }

    pub fn members(&self) -> &Members {
        &self.members
    }

    pub(crate) fn index_mut(&mut self) -> &mut Index {
        &mut self.index
    }

    pub(crate) fn advance(&mut self, revision: Revision) {
        self.revision = revision;
    }

    pub(crate) fn restore_floor(&mut self, revision: Revision, compacted: Revision) {
        self.revision = self.revision.max(revision).max(compacted);
        self.compacted = self.compacted.max(compacted);
    }

    pub(crate) fn restore_parts(&mut self) -> (&mut Index, &mut Leases, &mut Alarms, &mut Members) {
        (&mut self.index, &mut self.leases, &mut self.alarms, &mut self.members)
    }

    /// The lease that a put names must exist.
    pub(crate) fn check_lease(&self, put: &PutRequest) -> Result<(), Refusal> {
        let named = put.lease != 0 && !put.ignore_lease;
        if named && self.leases.get(LeaseId(put.lease)).is_none() {
            return Err(Refusal::LeaseNotFound);
        }
        Ok(())
    }

    /// A key of which something is to be kept must exist.
    pub(crate) fn check_kept(&self, put: &PutRequest) -> Result<(), Refusal> {
        let keeps = put.ignore_value || put.ignore_lease;
        if keeps && self.index.get(&put.key).and_then(|history| history.live()).is_none() {
            return Err(Refusal::KeyNotFound);
        }
        Ok(())
    }

    fn put(&mut self, put: &PutRequest, records: &dyn Records) -> Result<Applied, Fatal> {
        match self.check_lease(put).and(self.check_kept(put)) {
            Ok(()) => self.change(records, |draft| draft.put(put).map(Response::Put)),
            Err(refusal) => Ok(self.refused(refusal)),
        }
    }

    fn txn(&mut self, txn: &TxnRequest, records: &dyn Records) -> Result<Applied, Fatal> {
        match txn::plan(self, txn, records)? {
            Ok(path) => {
                self.change(records, |draft| txn::run(draft, txn, &mut path.into_iter()).map(Response::Txn))
            }
            Err(refusal) => Ok(self.refused(refusal)),
        }
    }

    /// Runs a command that can no longer be refused, as at most one revision.
    fn change(
        &mut self,
        records: &dyn Records,
        run: impl FnOnce(&mut Draft<'_>) -> Result<Response, Fatal>,
    ) -> Result<Applied, Fatal> {
        let mut draft = Draft::new(self, records);
        let response = run(&mut draft)?;
        let (effects, writes) = draft.finish();
        Ok(Applied { answer: Ok(response), revision: self.revision, effects, writes })
    }

    fn compact(&mut self, revision: Revision, physical: bool) -> Applied {
        if revision <= self.compacted {
            return self.refused(Refusal::Compacted);
        }
        if revision > self.revision {
            return self.refused(Refusal::FutureRevision);
        }
        self.compacted = revision;
        self.granted(
            Response::Compacted { physical },
            vec![Effect::Compacted { revision, physical }],
            Vec::new(),
        )
    }

    fn grant(&mut self, id: LeaseId, ttl_s: i64, epoch: u64) -> Applied {
        match self.leases.grant(id, ttl_s, epoch) {
            Ok(write) => self.granted(
                Response::LeaseGranted { id: id.0, ttl_s },
                vec![Effect::LeaseGranted { id, ttl_s, epoch }],
                vec![write],
            ),
            Err(refusal) => self.refused(refusal),
        }
    }

    fn revoke(&mut self, id: LeaseId, records: &dyn Records) -> Result<Applied, Fatal> {
        if self.leases.get(id).is_none() {
            return Ok(self.refused(Refusal::LeaseNotFound));
        }
        self.change(records, |draft| {
            remove_lease(draft, id);
            Ok(Response::LeaseRevoked)
        })
    }

    /// An expiry holds only in the term of the leader that saw it, and only for the lease it saw: a leader that lost its
    /// office, or a lease granted anew under the same id, makes it void.
    fn expire(
        &mut self,
        at: Position,
        expire: &LeaseExpire,
        records: &dyn Records,
    ) -> Result<Applied, Fatal> {
        let in_office = expire.term == at.term;
        self.change(records, |draft| {
            let mut removed = 0;
            for expired in &expire.leases {
                let id = LeaseId(expired.id);
                let lease = draft.machine.leases.get(id);
                if in_office && lease.is_some_and(|lease| lease.epoch == expired.epoch) {
                    remove_lease(draft, id);
                    removed += 1;
                } else if lease.is_some() {
                    draft.effects.push(Effect::ExpiryDropped { id });
                }
            }
            Ok(Response::LeasesExpired { removed })
        })
    }

    fn checkpoint(&mut self, at: Position, checkpoint: &LeaseCheckpoint) -> Applied {
        let (mut effects, mut writes) = (Vec::new(), Vec::new());
        if checkpoint.term == at.term {
            for lease in &checkpoint.leases {
                let id = LeaseId(lease.id);
                if let Some(write) = self.leases.checkpoint(id, lease.epoch, lease.remaining_ttl, at.index) {
                    writes.push(write);
                    effects.push(Effect::LeaseCheckpointed {
                        id,
                        remaining_s: lease.remaining_ttl,
                        epoch: at.index,
                    });
                }
            }
        }
        self.granted(Response::LeasesCheckpointed, effects, writes)
    }

    fn alarm(&mut self, request: &AlarmRequest) -> Applied {
        let alarm = AlarmType::try_from(request.alarm).unwrap_or(AlarmType::None);
        let (members, effects, writes) = match AlarmAction::try_from(request.action) {
            Ok(AlarmAction::Activate) => self.alarms.raise(request.member_id, alarm),
            Ok(AlarmAction::Deactivate) => self.alarms.clear(request.member_id, alarm),
            Ok(AlarmAction::Get) | Err(_) => {
                (self.alarms.list(request.member_id, alarm), Vec::new(), Vec::new())
            }
        };
        self.granted(Response::Alarm(members), effects, writes)
    }

    fn publish(&mut self, publish: &MemberPublish) -> Applied {
        match self.members.publish(publish) {
            Some(write) => {
                let effects = vec![Effect::MemberPublished { id: publish.id }];
                self.granted(Response::MemberPublished, effects, vec![write])
            }
            None => self.refused(Refusal::MemberNotFound),
        }
    }

    fn granted(&self, response: Response, effects: Vec<Effect>, writes: Vec<Write>) -> Applied {
        Applied { answer: Ok(response), revision: self.revision, effects, writes }
    }

    fn refused(&self, refusal: Refusal) -> Applied {
        Applied { answer: Err(refusal), revision: self.revision, effects: Vec::new(), writes: Vec::new() }
    }
}

/// The lease goes, and its keys with it, in their order.
fn remove_lease(draft: &mut Draft<'_>, id: LeaseId) {
    if let Some((keys, write)) = draft.machine.leases.remove(id) {
        draft.delete_keys(keys);
        draft.effects.push(Effect::LeaseGone { id });
        draft.writes.push(write);
    }
}
