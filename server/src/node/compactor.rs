//! Compaction by the clock: history older than a time, or beyond a number of revisions, is given up. Only the leader
//! acts.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tenure_proto::etcdserverpb::CompactionRequest;
use tenure_proto::internal::command::Wish;
use tenure_state::{Refusal, Revision};

use super::error::Error;
use super::leases::command;
use super::writer::Writer;
use crate::raft::{Consensus, View};

/// How much history is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retention {
    Everything,
    /// What was current this long ago can still be read.
    Time(Duration),
    /// The last so many revisions can still be read.
    Revisions(i64),
}

/// How often the revision mode looks: etcd's period.
const REVISION_PERIOD: Duration = Duration::from_secs(300);
/// The time mode compacts at least this often.
const TIME_PERIOD_MAX: Duration = Duration::from_secs(3_600);
/// Samples per period of the time mode.
const SAMPLES: u32 = 10;

pub struct Compactor {
    pub view: Arc<View>,
    pub writer: Writer,
    pub consensus: Consensus,
}

impl Compactor {
    pub async fn run(self, retention: Retention) {
        match retention {
            Retention::Everything => {}
            Retention::Time(period) => self.by_time(period).await,
            Retention::Revisions(kept) => self.by_revisions(kept).await,
        }
    }

    /// Notes the revision ten times a period, and gives up what the oldest note, a period old, had before it.
    async fn by_time(&self, period: Duration) {
        let often = period.min(TIME_PERIOD_MAX) / SAMPLES;
        let reach = (period.as_millis() / often.as_millis().max(1)) as usize;
        let mut notes = VecDeque::with_capacity(reach + 1);
        let mut since_last = 0;
        loop {
            notes.push_back(self.view.machine().revision());
            tokio::time::sleep(often).await;
            since_last += 1;
            if notes.len() < reach {
                continue;
            }
            let oldest = notes.pop_front().expect("a note was just pushed");
            if since_last >= SAMPLES {
                since_last = 0;
                self.compact(oldest).await;
            }
        }
    }

    async fn by_revisions(&self, kept: i64) {
        loop {
            tokio::time::sleep(REVISION_PERIOD).await;
            let revision = Revision(self.view.machine().revision().0 - kept);
            self.compact(revision).await;
        }
    }

    async fn compact(&self, revision: Revision) {
        let leads = self.consensus.leadership().borrow().here;
        if !leads || revision <= self.view.machine().compacted() {
            return;
        }
        let request = CompactionRequest { revision: revision.0, physical: false };
        match self.writer.write_own(command(Wish::Compact(request))).await {
            Ok(_) => tracing::info!(%revision, "compacted history"),
            // Somebody else was quicker.
            Err(Error::Refused(Refusal::Compacted)) => {}
            Err(error) => {
                tracing::warn!(%revision, ?error, "could not compact history; trying again next time")
            }
        }
    }
}
