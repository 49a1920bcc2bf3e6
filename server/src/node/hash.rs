//! Hashes of history, by which members, and etcd's own tools, compare what they hold.

use std::ops::ControlFlow;
use std::sync::Arc;

use tenure_state::{Fatal, Place, Refusal, Revision};

use super::error::Error;
use crate::checksum::{self, Checksum};
use crate::raft::View;
use crate::simulation;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryHash {
    pub hash: u32,
    pub at: Revision,
    pub compacted: Revision,
    /// The store's revision when the hash was asked for.
    pub current: Revision,
}

/// CRC-32C over all records up to `revision` (0 = the latest) that a read can still need, in etcd's layout, so that
/// the number is the one etcd gives for the same history. Reads the whole store; runs beside everything else.
pub async fn history(view: Arc<View>, revision: Revision) -> Result<HistoryHash, Error> {
    let (current, compacted) = {
        let machine = view.machine();
        (machine.revision(), machine.compacted())
    };
    let at = if revision.0 == 0 { current } else { revision };
    if at > current {
        return Err(Refusal::FutureRevision.into());
    }
    if at < compacted {
        return Err(Refusal::Compacted.into());
    }
    let hash = simulation::blocking(move || hash_records(&view, at)).await;
    let hash = hash.map_err(|_| Fatal("the task that hashed the history ended early".into()))??;
    Ok(HistoryHash { hash, at, compacted, current })
}

fn hash_records(view: &View, at: Revision) -> Result<u32, Fatal> {
    let mut sum = Checksum::begin();
    let mut failure = None;
    let end = Place::first_of(at.next());
    view.store().scan(Place::first_of(Revision(0)), end, &mut |place, record| match checksum::counts(
        &view.machine(),
        at,
        place,
        &record,
    ) {
        Ok(false) => ControlFlow::Continue(()),
        Ok(true) => {
            sum.add(place, &record);
            ControlFlow::Continue(())
        }
        Err(fatal) => {
            failure = Some(fatal);
            ControlFlow::Break(())
        }
    })?;
    failure.map_or(Ok(sum.value()), Err)
}
