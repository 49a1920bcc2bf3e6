//! Members that applied the same entries are the same: they gave the same answers and effects, and made the same writes,
//! whatever they keep in memory, whenever they sweep, and however often they started again on the way.

use proptest::prelude::*;
use tenure_proto::internal::Command;
use tenure_state::solo::Memory;
use tenure_state::{Applied, Change, Effect, Event, Machine, Member, Position, Previous, Records, Revision};

use crate::commands;

/// What a member does between two entries, of its own accord.
#[derive(Clone, Debug)]
enum Chore {
    Nothing,
    Sweep { keys: usize },
    Restart,
}

fn chore() -> impl Strategy<Value = Chore> {
    prop_oneof![
        4 => Just(Chore::Nothing),
        2 => (1..4usize).prop_map(|keys| Chore::Sweep { keys }),
        1 => Just(Chore::Restart),
    ]
}

struct Replica {
    machine: Machine,
    memory: Memory,
    record_bytes_max: usize,
}

impl Replica {
    fn new(record_bytes_max: usize) -> Replica {
        let mut machine = Machine::new(record_bytes_max);
        let mut memory = Memory::default();
        let member = |id| Member { id, peer_urls: vec![format!("http://{id}")], ..Member::default() };
        memory.take(machine.set_members(vec![member(1), member(2)]));
        Replica { machine, memory, record_bytes_max }
    }

    fn apply(&mut self, at: Position, command: &Command) -> Applied {
        let mut applied = self.machine.apply(at, command, &self.memory).unwrap();
        for effect in &mut applied.effects {
            self.look_up(effect);
        }
        self.memory.take(applied.writes.iter().cloned());
        self.memory.set_applied(at, self.machine.revision(), self.machine.compacted());
        applied
    }

    /// What an event replaced is at hand on one member and must be read on another, but it is the same.
    fn look_up(&self, effect: &mut Effect) {
        let Effect::Changed(change) = effect else { return };
        let event = |event: &Event| {
            let previous = match &event.previous {
                Previous::At(place) => Previous::Record(self.memory.record(*place).unwrap().unwrap()),
                at_hand => at_hand.clone(),
            };
            Event { previous, ..event.clone() }
        };
        let events = change.events.iter().map(event).collect();
        *change = Change { revision: change.revision, events }.into();
    }

    fn chore(&mut self, chore: &Chore) {
        match chore {
            Chore::Nothing => {}
            Chore::Sweep { keys } => {
                self.memory.take(self.machine.sweep(None, *keys).0);
            }
            Chore::Restart => self.machine = self.memory.load(self.record_bytes_max).unwrap(),
        }
    }

    fn sweep_all(&mut self) {
        let mut after = None;
        loop {
            let (writes, next) = self.machine.sweep(after.as_ref(), 2);
            self.memory.take(writes);
            match next {
                Some(next) => after = Some(next),
                None => return,
            }
        }
    }
}

proptest! {
    #[test]
    fn twins_stay_twins(
        entries in prop::collection::vec(
            (prop_oneof![4 => commands::well_formed().boxed(), 1 => commands::hostile().boxed()],
             prop::bool::weighted(0.1), chore(), chore()),
            1..60),
        budget in 0..600usize,
    ) {
        let mut all_in_memory = Replica::new(usize::MAX);
        let mut nothing_in_memory = Replica::new(0);
        let mut some_in_memory = Replica::new(budget);
        let mut at = Position { term: 1, index: 0 };

        for (command, new_term, one, other) in &entries {
            at = Position { term: at.term + u64::from(*new_term), index: at.index + 1 };
            let applied = all_in_memory.apply(at, command);
            prop_assert_eq!(&applied, &nothing_in_memory.apply(at, command));
            prop_assert_eq!(&applied, &some_in_memory.apply(at, command));
            nothing_in_memory.chore(one);
            some_in_memory.chore(other);
        }

        for replica in [&mut all_in_memory, &mut nothing_in_memory, &mut some_in_memory] {
            replica.sweep_all();
        }
        prop_assert_eq!(&all_in_memory.memory, &nothing_in_memory.memory);
        prop_assert_eq!(&all_in_memory.memory, &some_in_memory.memory);
        prop_assert_eq!(&all_in_memory.memory.load(usize::MAX).unwrap(), &all_in_memory.machine);
    }

    /// A record that the machine no longer speaks of is one that the sweep has dropped or will drop.
    #[test]
    fn what_is_kept_is_what_the_sweep_leaves(entries in prop::collection::vec(commands::well_formed(), 1..60)) {
        let mut replica = Replica::new(0);
        for (index, command) in (1..).zip(&entries) {
            replica.apply(Position { term: 1, index }, command);
        }
        let kept = |replica: &Replica| {
            let decode = |record: &bytes::Bytes| -> bytes::Bytes {
                let kv: tenure_proto::mvccpb::KeyValue = prost::Message::decode(record.clone()).unwrap();
                kv.key
            };
            let kept = replica.memory.records().filter(|(place, record)| {
                replica.machine.keeps(&decode(record), *place)
            });
            kept.map(|(place, _)| place).collect::<Vec<_>>()
        };
        let expected = kept(&replica);
        replica.sweep_all();
        let left: Vec<_> = replica.memory.records().map(|(place, _)| place).collect();
        prop_assert_eq!(&expected, &left);
        prop_assert_eq!(expected, kept(&replica));
        prop_assert!(replica.machine.revision() >= Revision::EMPTY);
    }
}
