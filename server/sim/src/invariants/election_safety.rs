//! Leaders follow one another: along the log, what each leader wrote stands together, in the order of their terms. Within one
//! term the consensus library lets a member of a higher id take over from one of a lower, so that a leader is named by both;
//! but nothing that a leader wrote is applied after what its successor wrote.

use std::collections::{BTreeMap, BTreeSet};

use super::{Invariant, Scene};

#[derive(Default)]
pub struct ElectionSafety {
    /// Who wrote the entry, by index.
    writers: BTreeMap<u64, (u64, u64)>,
    /// How far each life was looked at.
    looked: BTreeMap<(usize, u64), u64>,
    led: BTreeSet<(u64, usize)>,
}

impl Invariant for ElectionSafety {
    fn law(&self) -> &'static str {
        "leaders follow one another"
    }

    fn look(&mut self, scene: &Scene<'_>) -> Result<(), String> {
        for sight in scene.living() {
            let leadership = *sight.desk.consensus.leadership().borrow();
            if leadership.here {
                self.led.insert((leadership.term, sight.member));
            }
            let upto = sight.applied();
            let looked = self.looked.entry((sight.member, sight.life)).or_insert(0);
            let from = std::mem::replace(looked, upto.max(*looked)) + 1;
            for index in from..=upto {
                let Some(id) = sight.wal.id(index) else { continue };
                self.place(index, (id.term, id.node))?;
            }
        }
        Ok(())
    }

    fn leaders(&self) -> usize {
        self.led.len()
    }
}

impl ElectionSafety {
    fn place(&mut self, index: u64, writer: (u64, u64)) -> Result<(), String> {
        let before = self.writers.range(..index).next_back().map(|(index, writer)| (*index, *writer));
        let after = self.writers.range(index + 1..).next().map(|(index, writer)| (*index, *writer));
        self.writers.insert(index, writer);
        let ordered = before.is_none_or(|(_, before)| before <= writer)
            && after.is_none_or(|(_, after)| writer <= after);
        if ordered {
            return Ok(());
        }
        Err(format!("entry {index} is of leader {writer:x?}, between {before:x?} and {after:x?}"))
    }
}
