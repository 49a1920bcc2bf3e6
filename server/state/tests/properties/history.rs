//! The store answers as the naive one does, now and at every revision that is not compacted; its events tell the way from
//! each revision to the next.

use bytes::Bytes;
use proptest::prelude::*;
use tenure_proto::etcdserverpb::{AlarmType, RangeRequest};
use tenure_proto::internal::Command;
use tenure_proto::internal::command::Wish;
use tenure_proto::mvccpb::KeyValue;
use tenure_state::solo::Memory;
use tenure_state::{Applied, Effect, LeaseId, Machine, Position, Previous, Records, Refusal, Response};

use crate::commands;
use crate::naive::{Keys, Naive};

/// Commands name this term, the one before it or the one after it.
const TERM: u64 = 2;

struct Both {
    machine: Machine,
    memory: Memory,
    naive: Naive,
    index: u64,
}

impl Both {
    fn new() -> Both {
        let (machine, memory) = (Machine::new(300), Memory::default());
        Both { machine, memory, naive: Naive::default(), index: 0 }
    }

    fn apply(&mut self, command: &Command) -> Result<(), TestCaseError> {
        self.index += 1;
        let command = &self.aimed(command);
        let checkpointed = self.expect_checkpoints(command);
        let expected = self.expect(command);
        let at = Position { term: TERM, index: self.index };
        let applied = self.machine.apply(at, command, &self.memory).unwrap();
        prop_assert_eq!(&applied.answer, &expected);
        prop_assert_eq!(applied.revision.0, self.naive.revision());
        self.check_events(&applied)?;
        if let Some(checkpointed) = checkpointed {
            prop_assert_eq!(&applied.effects, &checkpointed);
        }
        if expected.is_err() {
            prop_assert!(applied.effects.is_empty() && applied.writes.is_empty());
        }
        self.memory.take(applied.writes);
        self.check_leases()
    }

    /// Every other expiry and checkpoint names the epoch that the lease really has.
    fn aimed(&self, command: &Command) -> Command {
        let aim = |id: i64, epoch: &mut u64| {
            let lease = self.machine.leases().get(LeaseId(id)).filter(|_| epoch.is_multiple_of(2));
            *epoch = lease.map_or(*epoch, |lease| lease.epoch);
        };
        let mut command = command.clone();
        match &mut command.wish {
            Some(Wish::LeaseExpire(expire)) => {
                expire.leases.iter_mut().for_each(|lease| aim(lease.id, &mut lease.epoch));
            }
            Some(Wish::LeaseCheckpoint(checkpoint)) => {
                checkpoint.leases.iter_mut().for_each(|lease| aim(lease.id, &mut lease.epoch));
            }
            _ => {}
        }
        command
    }

    /// The effects of a checkpoint that is looked at: each lease at its epoch, which is another from then on.
    fn expect_checkpoints(&self, command: &Command) -> Option<Vec<Effect>> {
        let Some(Wish::LeaseCheckpoint(checkpoint)) = &command.wish else { return None };
        let mut noted = Vec::new();
        let heard = checkpoint.term == TERM && self.naive.holds(&command.guards);
        for lease in checkpoint.leases.iter().filter(|_| heard) {
            let id = LeaseId(lease.id);
            let known = self.machine.leases().get(id).is_some_and(|it| it.epoch == lease.epoch);
            let again = noted.iter().any(|(noted, _)| *noted == id);
            if known && !again {
                noted.push((id, lease.remaining_ttl));
            }
        }
        let epoch = self.index;
        let effect = |(id, remaining_s)| Effect::LeaseCheckpointed { id, remaining_s, epoch };
        Some(noted.into_iter().map(effect).collect())
    }

    /// What the naive store says to the command.
    fn expect(&mut self, command: &Command) -> Result<Response, Refusal> {
        let naive = &mut self.naive;
        if !naive.holds(&command.guards) {
            return Err(Refusal::GuardFailed);
        }
        match command.wish.as_ref().unwrap() {
            Wish::Put(put) => naive.put(put).map(Response::Put),
            Wish::DeleteRange(delete) => Ok(Response::DeleteRange(naive.delete(delete))),
            Wish::Txn(txn) => naive.txn(txn).map(Response::Txn),
            Wish::Compact(compact) => {
                naive.compact(compact.revision).map(|()| Response::Compacted { physical: compact.physical })
            }
            Wish::LeaseGrant(grant) if grant.id == 0 => Err(Refusal::LeaseNotFound),
            Wish::LeaseGrant(grant) if !naive.leases.insert(grant.id) => Err(Refusal::LeaseExists),
            Wish::LeaseGrant(grant) => Ok(Response::LeaseGranted { id: grant.id, ttl_s: grant.ttl }),
            Wish::LeaseRevoke(revoke) if !naive.leases.contains(&revoke.id) => Err(Refusal::LeaseNotFound),
            Wish::LeaseRevoke(revoke) => {
                naive.end_leases(&[revoke.id]);
                Ok(Response::LeaseRevoked)
            }
            Wish::LeaseExpire(expire) => {
                let epoch_of = |id| self.machine.leases().get(LeaseId(id)).map(|lease| lease.epoch);
                let stale = |id, epoch| expire.term != TERM || epoch_of(id) != Some(epoch);
                let mut ended: Vec<i64> = Vec::new();
                for lease in &expire.leases {
                    if !stale(lease.id, lease.epoch) && !ended.contains(&lease.id) {
                        ended.push(lease.id);
                    }
                }
                naive.end_leases(&ended);
                Ok(Response::LeasesExpired { removed: ended.len() })
            }
            Wish::LeaseCheckpoint(_) => Ok(Response::LeasesCheckpointed),
            // No alarm is raised in these tests and no member is known.
            Wish::Alarm(_) => Ok(Response::Alarm(Vec::new())),
            Wish::MemberPublish(_) => Err(Refusal::MemberNotFound),
        }
    }

    /// The events lead from the keys before to the keys after, and say what stood there before.
    fn check_events(&self, applied: &Applied) -> Result<(), TestCaseError> {
        let changes: Vec<_> = applied
            .effects
            .iter()
            .filter_map(|effect| if let Effect::Changed(it) = effect { Some(it) } else { None })
            .collect();
        let Some(change) = changes.first() else { return Ok(()) };
        prop_assert_eq!(changes.len(), 1);
        prop_assert_eq!(change.revision, applied.revision);
        let before = self.naive.keys_at(applied.revision.0 - 1);
        let mut keys: Keys = before.clone();
        for event in &change.events {
            let key = Bytes::copy_from_slice(&event.key);
            let previous = match &event.previous {
                Previous::Nothing => None,
                Previous::Record(record) => Some(record.clone()),
                Previous::At(place) => Some(self.memory.record(*place).unwrap().unwrap()),
            };
            let previous: Option<KeyValue> = previous.map(|record| prost::Message::decode(record).unwrap());
            let begins = !event.place.tombstone && event.key_value().version == 1;
            prop_assert_eq!(previous.as_ref(), before.get(&key).filter(|_| !begins));
            if event.place.tombstone {
                prop_assert!(keys.remove(&key).is_some());
            } else {
                keys.insert(key, event.key_value());
            }
        }
        prop_assert_eq!(&keys, self.naive.now());
        Ok(())
    }

    fn check_leases(&self) -> Result<(), TestCaseError> {
        let ids: Vec<i64> = self.machine.leases().iter().map(|(id, _)| id.0).collect();
        prop_assert_eq!(ids, self.naive.leases.iter().copied().collect::<Vec<_>>());
        for (id, lease) in self.machine.leases().iter() {
            let held = self.naive.now().values().filter(|kv| kv.lease == id.0);
            let held: Vec<&[u8]> = held.map(|kv| &kv.key[..]).collect();
            prop_assert_eq!(lease.keys.iter().map(|key| &key[..]).collect::<Vec<_>>(), held);
        }
        Ok(())
    }

    /// Every revision that is not compacted reads as it was.
    fn check_history(&self) -> Result<(), TestCaseError> {
        let everything = Bytes::from_static(&[0]);
        for revision in self.naive.compacted.max(1)..=self.naive.revision() {
            let request = RangeRequest {
                key: everything.clone(),
                range_end: everything.clone(),
                revision,
                ..Default::default()
            };
            let read = self.machine.range(&request, &self.memory).unwrap().unwrap();
            let expected: Vec<KeyValue> = self.naive.keys_at(revision).values().cloned().collect();
            prop_assert_eq!(read.kvs, expected, "at revision {}", revision);
        }
        prop_assert_eq!(self.machine.index().live_keys(), self.naive.now().len());
        prop_assert!(!self.machine.alarms().is_raised(AlarmType::Nospace));
        Ok(())
    }
}

/// Alarms forbid what the naive store knows nothing of.
fn commands() -> impl Strategy<Value = Command> {
    commands::well_formed().prop_filter("no alarms", |command| !matches!(command.wish, Some(Wish::Alarm(_))))
}

proptest! {
    #[test]
    fn the_store_answers_as_the_naive_one(
        steps in prop::collection::vec((commands(), prop::option::weighted(0.3, 1..4usize)), 1..60),
        ranges in prop::collection::vec(commands::ranges(), 0..20),
    ) {
        let mut both = Both::new();
        let mut after = None;
        for (command, sweep) in &steps {
            both.apply(command)?;
            if let Some(keys) = sweep {
                let (writes, next) = both.machine.sweep(after.as_ref(), *keys);
                both.memory.take(writes);
                after = next;
            }
        }
        both.check_history()?;
        for range in &ranges {
            let read = both.machine.range(range, &both.memory).unwrap();
            prop_assert_eq!(read, both.naive.range(range), "{:?}", range);
        }
    }
}
