//! Transactions: compares decide the path before anything runs, what could be refused is refused then, and the chosen
//! operations cannot fail. Reads within it see the writes before them.

use tenure_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use tenure_proto::etcdserverpb::request_op::Request;
use tenure_proto::etcdserverpb::response_op::Response as OpResponse;
use tenure_proto::etcdserverpb::{
    Compare, RangeRequest, RangeResponse, ResponseHeader, ResponseOp, TxnRequest, TxnResponse,
};

use crate::answer::Refusal;
use crate::draft::Draft;
use crate::index::History;
use crate::interval::Interval;
use crate::machine::Machine;
use crate::records::{Fatal, Records};
use crate::revision::Revision;
use crate::scan::{Scan, Step, decode, must_have};

/// Which branch is taken at each txn met on the way, nested ones after the txn that holds them.
type Path = Vec<bool>;

/// Whether a txn can change nothing, so that it need not go through the log. A nested txn always does, as in etcd.
pub fn is_read_only(txn: &TxnRequest) -> bool {
    let mut ops = txn.success.iter().chain(&txn.failure);
    ops.all(|op| matches!(op.request, Some(Request::RequestRange(_))))
}

/// Bytes of keys and values that a txn would put at the most, whichever branches it takes.
pub fn put_bytes(txn: &TxnRequest) -> usize {
    let ops = txn.success.iter().chain(&txn.failure);
    let bytes = ops.map(|op| match &op.request {
        Some(Request::RequestPut(put)) => put.key.len() + put.value.len(),
        Some(Request::RequestTxn(nested)) => put_bytes(nested),
        _ => 0,
    });
    bytes.sum()
}

/// Whether a read-only txn asks for nothing newer than this member has. One that only compares does not say so, and asks for
/// the newest: etcd would answer it from whatever the member has, and its caller may hold a guard against it.
pub fn is_serializable(txn: &TxnRequest) -> bool {
    let mut ops = txn.success.iter().chain(&txn.failure).peekable();
    ops.peek().is_some()
        && ops.all(|op| matches!(&op.request, Some(Request::RequestRange(range)) if range.serializable))
}

/// Runs a txn that [`is_read_only`] against the state as it is.
pub fn read(
    machine: &Machine,
    txn: &TxnRequest,
    records: &dyn Records,
) -> Result<Result<TxnResponse, Refusal>, Fatal> {
    let mut reads = match Reads::new(machine, txn, records)? {
        Ok(reads) => reads,
        Err(refusal) => return Ok(Err(refusal)),
    };
    while reads.step(machine, records, usize::MAX)? == Step::More {}
    Ok(Ok(reads.finish()))
}

/// A read-only txn under way: the branch is chosen, its ranges are read in steps at one revision.
pub struct Reads<'a> {
    succeeded: bool,
    at: Revision,
    /// Ranges to read, the next one last.
    left: Vec<Scan<'a>>,
    responses: Vec<ResponseOp>,
}

impl<'a> Reads<'a> {
    /// Looks at the compares and rules out every refusal.
    pub fn new(
        machine: &Machine,
        txn: &'a TxnRequest,
        records: &dyn Records,
    ) -> Result<Result<Reads<'a>, Refusal>, Fatal> {
        let succeeded = holds(machine, &txn.compare, records)?;
        let branch = if succeeded { &txn.success } else { &txn.failure };
        let at = machine.revision();
        let mut left = Vec::with_capacity(branch.len());
        for op in branch {
            let Some(Request::RequestRange(range)) = &op.request else {
                return Ok(Err(Refusal::KeyNotFound));
            };
            if let Err(refusal) = readable(machine, range.revision) {
                return Ok(Err(refusal));
            }
            left.push(Scan::at(range, if range.revision > 0 { Revision(range.revision) } else { at }));
        }
        left.reverse();
        Ok(Ok(Reads { succeeded, at, left, responses: Vec::with_capacity(branch.len()) }))
    }

    /// Looks at `keys_max` more keys of one range. `Overtaken`: a compaction came between; begin anew.
    pub fn step(&mut self, machine: &Machine, records: &dyn Records, keys_max: usize) -> Result<Step, Fatal> {
        let Some(scan) = self.left.last_mut() else { return Ok(Step::Done) };
        match scan.step(machine, records, keys_max)? {
            Step::Done => {}
            unfinished => return Ok(unfinished),
        }
        if let Some(scan) = self.left.pop() {
            let mut response = scan.finish();
            response.header = Some(ResponseHeader { revision: self.at.0, ..Default::default() });
            self.responses.push(ResponseOp { response: Some(OpResponse::ResponseRange(response)) });
        }
        Ok(if self.left.is_empty() { Step::Done } else { Step::More })
    }

    /// The revision at which everything was read.
    pub fn at(&self) -> Revision {
        self.at
    }

    /// The answer, once a step said `Done`. Its header is the caller's to fill.
    pub fn finish(&mut self) -> TxnResponse {
        TxnResponse {
            header: None,
            succeeded: self.succeeded,
            responses: std::mem::take(&mut self.responses),
        }
    }
}

/// Decides the path and rules out every refusal; nothing is changed.
pub(crate) fn plan(
    machine: &Machine,
    txn: &TxnRequest,
    records: &dyn Records,
) -> Result<Result<Path, Refusal>, Fatal> {
    let mut path = Path::new();
    choose(machine, txn, records, &mut path)?;
    Ok(check_chosen(machine, txn, &path).map(|()| path))
}

/// Runs the operations that `path` chose.
pub(crate) fn run(
    draft: &mut Draft<'_>,
    txn: &TxnRequest,
    path: &mut impl Iterator<Item = bool>,
) -> Result<TxnResponse, Fatal> {
    let succeeded = path.next().unwrap_or(false);
    let branch = if succeeded { &txn.success } else { &txn.failure };
    let mut responses = Vec::with_capacity(branch.len());
    for op in branch {
        let response = match &op.request {
            Some(Request::RequestRange(range)) => {
                let mut response = read_range(draft.machine, range, draft.revision(), &draft.records())?;
                response.header = draft.header();
                Some(OpResponse::ResponseRange(response))
            }
            Some(Request::RequestPut(put)) => Some(OpResponse::ResponsePut(draft.put(put)?)),
            Some(Request::RequestDeleteRange(delete)) => {
                Some(OpResponse::ResponseDeleteRange(draft.delete_range(delete)?))
            }
            Some(Request::RequestTxn(nested)) => {
                let response = run(draft, nested, path)?;
                // etcd sends this header present and empty.
                Some(OpResponse::ResponseTxn(TxnResponse {
                    header: Some(ResponseHeader::default()),
                    ..response
                }))
            }
            None => None,
        };
        responses.push(ResponseOp { response });
    }
    Ok(TxnResponse { header: None, succeeded, responses })
}

fn choose(machine: &Machine, txn: &TxnRequest, records: &dyn Records, path: &mut Path) -> Result<(), Fatal> {
    let succeeded = holds(machine, &txn.compare, records)?;
    path.push(succeeded);
    for op in if succeeded { &txn.success } else { &txn.failure } {
        if let Some(Request::RequestTxn(nested)) = &op.request {
            choose(machine, nested, records, path)?;
        }
    }
    Ok(())
}

/// What of the chosen operations depends on state: first of all puts, then of all reads, as in etcd.
fn check_chosen(machine: &Machine, txn: &TxnRequest, path: &Path) -> Result<(), Refusal> {
    each_chosen(txn, &mut path.iter().copied(), &mut |operation| match operation {
        Request::RequestPut(put) => machine.check_kept(put).and(machine.check_lease(put)),
        Request::RequestRange(_) | Request::RequestDeleteRange(_) | Request::RequestTxn(_) => Ok(()),
    })?;
    each_chosen(txn, &mut path.iter().copied(), &mut |operation| match operation {
        Request::RequestRange(range) => readable(machine, range.revision),
        Request::RequestPut(_) | Request::RequestDeleteRange(_) | Request::RequestTxn(_) => Ok(()),
    })
}

/// Looks at every operation on the path, in order.
fn each_chosen(
    txn: &TxnRequest,
    path: &mut dyn Iterator<Item = bool>,
    check: &mut dyn FnMut(&Request) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    let branch = if path.next().unwrap_or(false) { &txn.success } else { &txn.failure };
    for op in branch {
        match &op.request {
            Some(Request::RequestTxn(nested)) => each_chosen(nested, path, check)?,
            Some(operation) => check(operation)?,
            None => return Err(Refusal::KeyNotFound),
        }
    }
    Ok(())
}

/// A range within a txn is held against the state before it.
fn readable(machine: &Machine, revision: i64) -> Result<(), Refusal> {
    match revision {
        0 => Ok(()),
        asked if asked > machine.revision().0 => Err(Refusal::FutureRevision),
        asked if asked < machine.compacted().0 => Err(Refusal::Compacted),
        _ => Ok(()),
    }
}

fn read_range(
    machine: &Machine,
    range: &RangeRequest,
    latest: Revision,
    records: &dyn Records,
) -> Result<RangeResponse, Fatal> {
    let at = if range.revision > 0 { Revision(range.revision) } else { latest };
    let mut scan = Scan::at(range, at);
    match scan.step(machine, records, usize::MAX)? {
        Step::Done | Step::More | Step::Overtaken => Ok(scan.finish()),
    }
}

/// Whether all compares hold.
pub(crate) fn holds(machine: &Machine, compares: &[Compare], records: &dyn Records) -> Result<bool, Fatal> {
    for compare in compares {
        if !compare_holds(machine, compare, records)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn compare_holds(machine: &Machine, compare: &Compare, records: &dyn Records) -> Result<bool, Fatal> {
    let interval = Interval::new(&compare.key, &compare.range_end);
    let mut found = false;
    if let Interval::Key(key) = &interval {
        let history = machine.index().get(key).filter(|history| history.live().is_some());
        return match history {
            Some(history) => compare_key(compare, history, records),
            None => Ok(compare_missing(compare)),
        };
    }
    for (_, history) in machine.index().range(&interval).filter(|(_, history)| history.live().is_some()) {
        found = true;
        if !compare_key(compare, history, records)? {
            return Ok(false);
        }
    }
    Ok(found || compare_missing(compare))
}

/// Of a key that does not exist no value can be said, not even what it is unequal to; its numbers are all 0.
fn compare_missing(compare: &Compare) -> bool {
    compare.target() != CompareTarget::Value && compare_number(compare, 0)
}

fn compare_key(compare: &Compare, history: &History, records: &dyn Records) -> Result<bool, Fatal> {
    let newest = history.newest();
    let number = match CompareTarget::try_from(compare.target) {
        Ok(CompareTarget::Version) => newest.version,
        Ok(CompareTarget::Create) => newest.create,
        Ok(CompareTarget::Mod) => newest.main,
        Ok(CompareTarget::Lease) => newest.lease,
        Ok(CompareTarget::Value) => {
            let record = match &newest.record {
                Some(record) => record.clone(),
                None => must_have(records, newest.place())?,
            };
            let wanted = match &compare.target_union {
                Some(TargetUnion::Value(value)) => &value[..],
                _ => &[],
            };
            return Ok(ordered(compare, decode(record)?.value[..].cmp(wanted)));
        }
        // A target from the future compares as equal, as in etcd.
        Err(_) => return Ok(ordered(compare, std::cmp::Ordering::Equal)),
    };
    Ok(compare_number(compare, number))
}

/// An operand that is missing, or of another kind than the target, counts as 0.
fn compare_number(compare: &Compare, number: i64) -> bool {
    let wanted = match (CompareTarget::try_from(compare.target), &compare.target_union) {
        (Ok(CompareTarget::Version), Some(TargetUnion::Version(wanted)))
        | (Ok(CompareTarget::Create), Some(TargetUnion::CreateRevision(wanted)))
        | (Ok(CompareTarget::Mod), Some(TargetUnion::ModRevision(wanted)))
        | (Ok(CompareTarget::Lease), Some(TargetUnion::Lease(wanted))) => *wanted,
        _ => 0,
    };
    ordered(compare, number.cmp(&wanted))
}

fn ordered(compare: &Compare, ordering: std::cmp::Ordering) -> bool {
    match CompareResult::try_from(compare.result) {
        Ok(CompareResult::Equal) => ordering.is_eq(),
        Ok(CompareResult::NotEqual) => ordering.is_ne(),
        Ok(CompareResult::Greater) => ordering.is_gt(),
        Ok(CompareResult::Less) => ordering.is_lt(),
        Err(_) => true,
    }
}
