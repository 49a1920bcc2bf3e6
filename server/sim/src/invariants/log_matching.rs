//! Two logs that have the same entry somewhere have the same entries before it; and what one member applied, no other
//! member's log contradicts where that one has applied it too.

use std::collections::BTreeMap;

use tenure_disk::wal::{LogId, Wal};

use super::{Invariant, Scene, Sight};

/// Between two comparisons of whole logs, milliseconds.
const OFTEN_MS: u64 = 100;

#[derive(Default)]
pub struct LogMatching {
    /// By index: what was applied there.
    applied: BTreeMap<u64, LogId>,
    /// How far each life was looked at.
    looked: BTreeMap<(usize, u64), u64>,
}

impl Invariant for LogMatching {
    fn law(&self) -> &'static str {
        "logs match"
    }

    fn look(&mut self, scene: &Scene<'_>) -> Result<(), String> {
        for sight in scene.living() {
            self.compare_applied(sight)?;
        }
        if !scene.now_ms.is_multiple_of(OFTEN_MS) {
            return Ok(());
        }
        let living: Vec<&Sight> = scene.living().collect();
        for (at, one) in living.iter().enumerate() {
            for other in &living[at + 1..] {
                compare(&one.wal, &other.wal)
                    .map_err(|what| format!("members {} and {}: {what}", one.member + 1, other.member + 1))?;
            }
        }
        Ok(())
    }
}

impl LogMatching {
    fn compare_applied(&mut self, sight: &Sight) -> Result<(), String> {
        let upto = sight.applied();
        let looked = self.looked.entry((sight.member, sight.life)).or_insert(0);
        let from = std::mem::replace(looked, upto.max(*looked)) + 1;
        for index in from..=upto {
            // What is purged was compared when it was applied.
            let Some(id) = sight.wal.id(index) else { continue };
            let known = *self.applied.entry(index).or_insert(id);
            if known != id {
                let member = sight.member + 1;
                return Err(format!(
                    "entry {index} was applied as {known:?}, and as {id:?} by member {member}"
                ));
            }
        }
        Ok(())
    }
}

fn compare(one: &Wal, other: &Wal) -> Result<(), String> {
    let span = |wal: &Wal| {
        let state = wal.state();
        (state.last_purged.map_or(0, |id| id.index), state.last.map_or(0, |id| id.index))
    };
    let ((one_first, one_last), (other_first, other_last)) = (span(one), span(other));
    let mut met = None;
    for index in (one_first.max(other_first)..=one_last.min(other_last)).rev() {
        let (Some(id), Some(other_id)) = (one.id(index), other.id(index)) else { continue };
        match (met, id == other_id) {
            (None, true) => met = Some(index),
            (Some(met), false) => {
                return Err(format!("the same entry at {met}, but {id:?} and {other_id:?} before it"));
            }
            (None, false) | (Some(_), true) => {}
        }
    }
    Ok(())
}
