//! Two members that applied the log up to the same entry have the same state, to the byte. (That they have the same
//! revisions, the truth sees to while it is gathered.)

use std::collections::BTreeMap;

use futures::FutureExt;
use tenure_state::Revision;
use tenured::node::hash;

use super::{Invariant, Scene, Sight};
use crate::journal::Hash;

/// Between two comparisons, milliseconds.
const OFTEN_MS: u64 = 50;

#[derive(Default)]
pub struct ReplicasAgree {
    /// By index: the state after it, and whose it was.
    states: BTreeMap<u64, (String, usize)>,
    looked: BTreeMap<(usize, u64), u64>,
}

impl Invariant for ReplicasAgree {
    fn law(&self) -> &'static str {
        "replicas agree"
    }

    fn look(&mut self, scene: &Scene<'_>) -> Result<(), String> {
        if scene.now_ms.is_multiple_of(OFTEN_MS) { self.compare(scene) } else { Ok(()) }
    }

    fn conclude(&mut self, scene: &Scene<'_>) -> Result<(), String> {
        self.compare(scene)
    }
}

impl ReplicasAgree {
    fn compare(&mut self, scene: &Scene<'_>) -> Result<(), String> {
        for sight in scene.living() {
            let index = sight.applied();
            if index == 0 || self.looked.insert((sight.member, sight.life), index) == Some(index) {
                continue;
            }
            let state = state(sight)?;
            let (known, whose) = self.states.entry(index).or_insert_with(|| (state.clone(), sight.member));
            if *known != state {
                let (one, other) = (*whose + 1, sight.member + 1);
                return Err(format!(
                    "after entry {index} member {one} has {known}, member {other} has {state}"
                ));
            }
        }
        Ok(())
    }
}

/// What a member's state comes to: what of history can still be read, and all small state.
fn state(sight: &Sight) -> Result<String, String> {
    let history = hash::history(sight.desk.view.clone(), Revision(0)).now_or_never();
    let history = history.ok_or("a hash was not done in place")?.map_err(|error| format!("{error:?}"))?;
    let mut small = Hash::default();
    for (key, value) in sight.desk.view.store().meta(b"").map_err(|fatal| fatal.0)? {
        if *key != *b"applied" {
            small.fold(&key);
            small.fold(&value);
        }
    }
    let (at, compacted) = (history.at, history.compacted);
    Ok(format!("history {:08x} to {at} from {compacted}, small state {:016x}", history.hash, small.0))
}
