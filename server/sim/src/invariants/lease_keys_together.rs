//! When a lease ends, all its keys go in one revision; no key outlives its lease, and none goes without it.

use bytes::Bytes;
use tenure_state::{Interval, prefix_end};

use super::{Invariant, Scene, Sight};
use crate::clients::LEASED;
use crate::journal::Held;
use crate::truth::State;

/// Between two looks at members, milliseconds.
const OFTEN_MS: u64 = 50;

#[derive(Default)]
pub struct LeaseKeysTogether {
    /// As of the revision looked at last.
    state: State,
    looked: i64,
}

impl Invariant for LeaseKeysTogether {
    fn law(&self) -> &'static str {
        "a lease's keys go with it, together"
    }

    fn look(&mut self, scene: &Scene<'_>) -> Result<(), String> {
        if scene.now_ms.is_multiple_of(OFTEN_MS) {
            self.follow(scene)?;
            scene.living().try_for_each(leases_are_there)?;
        }
        Ok(())
    }

    fn conclude(&mut self, scene: &Scene<'_>) -> Result<(), String> {
        self.follow(scene)
    }
}

impl LeaseKeysTogether {
    fn follow(&mut self, scene: &Scene<'_>) -> Result<(), String> {
        while let Some(happened) = scene.truth.at(self.looked.max(1) + 1) {
            self.looked = self.looked.max(1) + 1;
            let gone: Vec<&Bytes> = happened
                .events
                .iter()
                .filter(|event| event.place.tombstone && event.kv.key.starts_with(LEASED))
                .map(|event| &event.kv.key)
                .collect();
            let ended: Vec<i64> = gone.iter().filter_map(|key| Some(self.state.get(*key)?.lease)).collect();
            let left = |(key, held): &(&Bytes, &Held)| ended.contains(&held.lease) && !gone.contains(key);
            if let Some((key, held)) = self.state.iter().find(left) {
                let at = self.looked;
                return Err(format!(
                    "{key:?} of lease {:x} stayed when others of it went at {at}",
                    held.lease
                ));
            }
            happened.apply(&mut self.state);
        }
        Ok(())
    }
}

fn leases_are_there(sight: &Sight) -> Result<(), String> {
    let machine = sight.desk.view.machine();
    let keys = machine.leases().iter().flat_map(|(_, lease)| &lease.keys);
    let attached = keys.filter(|key| key.starts_with(LEASED)).count();
    let leased = Interval::new(LEASED, &prefix_end(LEASED));
    let all = machine.index().range(&leased).filter(|(_, history)| history.live().is_some()).count();
    if attached == all {
        return Ok(());
    }
    Err(format!("member {} has {all} keys of leases, of which its leases know {attached}", sight.member + 1))
}
