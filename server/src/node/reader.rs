//! Reads of keys: linearizable after a proof of leadership, serializable from what is here. A long range is read in steps
//! at one revision, so that nobody waits for it.

use std::sync::Arc;

use tenure_proto::etcdserverpb::{RangeRequest, RangeResponse, TxnRequest, TxnResponse};
use tenure_state::{Refusal, Revision, Scan, Step, txn};

use super::error::Error;
use super::read_index::ReadIndex;
use crate::planted::{self, Bug};
use crate::raft::View;

/// Keys looked at while the state's lock is held: well below a millisecond.
const KEYS_AT_ONCE: usize = 512;
/// How often a read of the latest revision starts anew because a compaction overtook it.
const RESTARTS_MAX: usize = 8;

#[derive(Clone)]
pub struct Reader {
    view: Arc<View>,
    read_index: ReadIndex,
}

impl Reader {
    pub fn new(view: Arc<View>, read_index: ReadIndex) -> Reader {
        Reader { view, read_index }
    }

    /// The answer, and the store's revision when it was read.
    pub async fn range(&self, request: &RangeRequest) -> Result<(RangeResponse, Revision), Error> {
        if !request.serializable && !planted::is(Bug::ReadLocally) {
            self.read_index.confirm().await?;
        }
        for _ in 0..RESTARTS_MAX {
            if let Some(answer) = self.scan(request).await? {
                return Ok(answer);
            }
            if request.revision > 0 {
                break;
            }
        }
        Err(Refusal::Compacted.into())
    }

    /// A txn that [`txn::is_read_only`]: all its ranges at the revision at which its compares were looked at.
    pub async fn txn(&self, request: &TxnRequest) -> Result<(TxnResponse, Revision), Error> {
        if !txn::is_serializable(request) {
            self.read_index.confirm().await?;
        }
        for _ in 0..RESTARTS_MAX {
            let reads = txn::Reads::new(&self.view.machine(), request, self.view.store())??;
            if let Some(answer) = self.read(reads).await? {
                return Ok(answer);
            }
        }
        Err(Refusal::Compacted.into())
    }

    /// None when a compaction overtook the read.
    async fn read(&self, mut reads: txn::Reads<'_>) -> Result<Option<(TxnResponse, Revision)>, Error> {
        loop {
            let step = reads.step(&self.view.machine(), self.view.store(), KEYS_AT_ONCE)?;
            match step {
                Step::Done => return Ok(Some((reads.finish(), reads.at()))),
                Step::Overtaken => return Ok(None),
                Step::More => tokio::task::yield_now().await,
            }
        }
    }

    /// None when a compaction overtook the read.
    async fn scan(&self, request: &RangeRequest) -> Result<Option<(RangeResponse, Revision)>, Error> {
        let (mut scan, revision) = {
            let machine = self.view.machine();
            (Scan::new(request, &machine)?, machine.revision())
        };
        loop {
            let step = scan.step(&self.view.machine(), self.view.store(), KEYS_AT_ONCE)?;
            match step {
                Step::Done => return Ok(Some((scan.finish(), revision))),
                Step::Overtaken => return Ok(None),
                Step::More => tokio::task::yield_now().await,
            }
        }
    }
}
