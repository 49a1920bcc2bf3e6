//! The sum over a window of this member's history, the same number on every member whatever each has swept away by now. It reads
//! the store, not the values kept in memory: what is on disk is what the next start believes.

use std::sync::Arc;

use tenure_disk::store::Scan;
use tenure_proto::internal::history_sum_response::Outcome as Wire;
use tenure_proto::internal::{HistorySum, HistorySumRequest, HistorySumResponse};
use tenure_state::{Fatal, Place, Revision};

use crate::checksum::{self, Checksum};
use crate::raft::View;
use crate::simulation;

/// Read at a time: records and bytes.
const RECORDS_AT_ONCE: usize = 1_024;
const BYTES_AT_ONCE: usize = 1 << 20;

/// What is summed up: changes in `after` < revision <= `upto`; of those at or below `floor` only what is its key's value
/// at `upto`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    pub after: Revision,
    pub upto: Revision,
    pub floor: Revision,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    Sum(HistorySum),
    /// History above the window's floor may be gone: there was a compaction here.
    Compacted(Revision),
    /// This member has not come to the window's end.
    Behind(Revision),
}

impl Window {
    pub fn request(self) -> HistorySumRequest {
        HistorySumRequest { after: self.after.0, upto: self.upto.0, floor: self.floor.0 }
    }

    pub fn from_request(request: HistorySumRequest) -> Window {
        Window {
            after: Revision(request.after.max(0)),
            upto: Revision(request.upto.clamp(0, i64::MAX - 1)),
            floor: Revision(request.floor.max(0)),
        }
    }
}

impl Outcome {
    pub fn response(self) -> HistorySumResponse {
        let outcome = match self {
            Outcome::Sum(sum) => Wire::Sum(sum),
            Outcome::Compacted(floor) => Wire::Compacted(floor.0),
            Outcome::Behind(revision) => Wire::Behind(revision.0),
        };
        HistorySumResponse { outcome: Some(outcome) }
    }

    /// None when it says nothing.
    pub fn from_response(response: HistorySumResponse) -> Option<Outcome> {
        Some(match response.outcome? {
            Wire::Sum(sum) => Outcome::Sum(sum),
            Wire::Compacted(floor) => Outcome::Compacted(Revision(floor)),
            Wire::Behind(revision) => Outcome::Behind(Revision(revision)),
        })
    }
}

/// Reads the window from the store, in steps, beside everything else.
pub async fn of(view: &Arc<View>, window: Window) -> Result<Outcome, Fatal> {
    let current = view.machine().revision();
    if current < window.upto {
        return Ok(Outcome::Behind(current));
    }
    let after = Place::first_of(window.after.next());
    let scan = view.store().scanner(after, Place::first_of(window.upto.next()))?;
    // Looked at after the scan has its view: if the floor has not risen by now, nothing above it was missing then.
    let compacted = view.machine().compacted();
    if compacted > window.floor {
        return Ok(Outcome::Compacted(compacted));
    }
    let mut walk = Walk { view: view.clone(), window, scan, sum: Checksum::begin(), records: 0 };
    loop {
        let step = simulation::blocking(move || walk.step().map(|more| (walk, more))).await;
        let (walked, more) = step.map_err(|_| Fatal("a step of the audit ended early".into()))??;
        walk = walked;
        if !more {
            break;
        }
    }
    // What was a key's value at the window's end can be told only as long as that is not compacted.
    let compacted = view.machine().compacted();
    if compacted > window.upto {
        return Ok(Outcome::Compacted(compacted));
    }
    Ok(Outcome::Sum(HistorySum { hash: walk.sum.value(), records: walk.records }))
}

struct Walk {
    view: Arc<View>,
    window: Window,
    scan: Scan,
    sum: Checksum,
    records: u64,
}

impl Walk {
    /// Whether there is more.
    fn step(&mut self) -> Result<bool, Fatal> {
        let Window { upto, floor, .. } = self.window;
        let chunk = self.scan.chunk(RECORDS_AT_ONCE, BYTES_AT_ONCE)?;
        for (place, record) in chunk.records {
            let above = place.revision() > floor;
            if above || checksum::is_value(&self.view.machine(), upto, place, &record)? {
                self.sum.add(place, &record);
                self.records += 1;
            }
        }
        Ok(chunk.next.is_some())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tempfile::TempDir;
    use tenure_disk::store::{Store, StoreOptions};
    use tenure_proto::etcdserverpb::{CompactionRequest, DeleteRangeRequest, PutRequest};
    use tenure_proto::internal::Command;
    use tenure_proto::internal::command::Wish;
    use tenure_state::{Machine, Position, Records, Write};

    use super::*;

    /// A member that applied the same as all others, and did with it what each does at its own time.
    struct Replica {
        view: Arc<View>,
        _dir: TempDir,
    }

    fn wishes() -> Vec<Wish> {
        let put = |number: u8| {
            let (key, value) = (Bytes::from(vec![b'a' + number % 7]), Bytes::from(vec![number]));
            Wish::Put(PutRequest { key, value, ..PutRequest::default() })
        };
        let delete = |key: &'static [u8]| {
            Wish::DeleteRange(DeleteRangeRequest {
                key: Bytes::from_static(key),
                ..DeleteRangeRequest::default()
            })
        };
        let mut wishes: Vec<Wish> = (0..40).map(put).collect();
        wishes.insert(10, delete(b"a"));
        wishes.insert(20, delete(b"b"));
        wishes.push(delete(b"c"));
        wishes
    }

    /// Compacted at a revision, or 0 for never; swept or not yet; its store changed behind its back or not.
    fn replica(compacted: i64, swept: bool, spoil: impl Fn(&Store)) -> Replica {
        let dir = TempDir::new().unwrap();
        let store = Store::open(dir.path(), StoreOptions::default()).unwrap();
        let mut machine = Machine::new(0);
        let compaction = (compacted > 0)
            .then(|| Wish::Compact(CompactionRequest { revision: compacted, physical: false }));
        for (index, wish) in wishes().into_iter().chain(compaction).enumerate() {
            let command = Command { wish: Some(wish), ..Command::default() };
            let at = Position { term: 1, index: index as u64 + 1 };
            let applied = machine.apply(at, &command, &store).unwrap();
            applied.answer.unwrap();
            store.write(applied.writes, Bytes::from_static(b"applied")).unwrap();
        }
        if swept {
            let (writes, rest) = machine.sweep(None, usize::MAX);
            assert!(compacted < 20 || !writes.is_empty() && rest.is_none(), "there was something to sweep");
            store.write(writes, Bytes::from_static(b"applied")).unwrap();
        }
        spoil(&store);
        Replica { view: Arc::new(View::new(machine, store)), _dir: dir }
    }

    async fn sum(replica: &Replica, after: i64, upto: i64, floor: i64) -> Outcome {
        let window = Window { after: Revision(after), upto: Revision(upto), floor: Revision(floor) };
        of(&replica.view, window).await.unwrap()
    }

    fn summed(outcome: Outcome) -> HistorySum {
        match outcome {
            Outcome::Sum(sum) => sum,
            other => panic!("no sum but {other:?}"),
        }
    }

    #[tokio::test]
    async fn what_was_compacted_or_swept_where_makes_no_difference() {
        let last = replica(0, false, |_| {}).view.machine().revision().0;
        for floor in [0, 1, 2, 13, 22, 30, last] {
            let reference = replica(0, false, |_| {});
            for compacted in [0, floor / 2, floor] {
                for swept in [false, true] {
                    let other = replica(compacted, swept, |_| {});
                    for (after, upto) in [(0, last), (12, 35), (25, 30), (last - 1, last)] {
                        if upto < floor {
                            continue;
                        }
                        let window = (after, upto, floor);
                        let expected = summed(sum(&reference, after, upto, floor).await);
                        let found = summed(sum(&other, after, upto, floor).await);
                        assert_eq!(
                            found, expected,
                            "{window:?} of one compacted at {compacted}, swept: {swept}"
                        );
                    }
                }
            }
        }
    }

    #[tokio::test]
    async fn a_lost_and_a_changed_record_are_told() {
        let at = Place { main: 30, sub: 0, tombstone: false };
        let reference = replica(0, false, |_| {});
        let lost = replica(0, false, |store| {
            store.write(vec![Write::DropRecord { at }], Bytes::from_static(b"applied")).unwrap();
        });
        let changed = replica(0, false, |store| {
            let mut bytes = store.record(at).unwrap().unwrap().to_vec();
            *bytes.last_mut().unwrap() ^= 1;
            let write = Write::Record { at, bytes: bytes.into() };
            store.write(vec![write], Bytes::from_static(b"applied")).unwrap();
        });
        let expected = summed(sum(&reference, 20, 40, 0).await);
        for other in [lost, changed] {
            assert_ne!(summed(sum(&other, 20, 40, 0).await), expected);
            assert_eq!(
                summed(sum(&other, 30, 40, 0).await),
                summed(sum(&reference, 30, 40, 0).await),
                "outside of it"
            );
        }
    }

    #[tokio::test]
    async fn a_window_that_cannot_be_summed_up_is_said_to_be_that() {
        let compacted = replica(20, true, |_| {});
        assert_eq!(sum(&compacted, 0, 30, 10).await, Outcome::Compacted(Revision(20)));
        assert_eq!(sum(&compacted, 0, 10, 30).await, Outcome::Compacted(Revision(20)));
        let current = compacted.view.machine().revision();
        assert_eq!(sum(&compacted, 0, current.0 + 1, 20).await, Outcome::Behind(current));
    }
}
