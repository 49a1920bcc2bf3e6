//! The Raft log as the consensus library wants it, on our write-ahead log: entries are readable when `append` returns,
//! durable when the log's own thread says so, and votes go through the same queue.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};

use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use tenure_disk::wal::Wal;
use tokio::sync::oneshot;

use super::codec;
use super::durable::{Durable, Ledger};
use super::types::{Entry, LogId, Mandate, TypeConfig, Vote};

/// Most bytes of entries that one message to a peer carries; at least one entry always goes.
const MESSAGE_BYTES_MAX: u64 = 2 << 20;

#[derive(Clone)]
pub struct Log {
    wal: Wal,
    ledger: Ledger,
}

impl Log {
    pub fn new(wal: Wal) -> Log {
        let vote = wal.vote().map(|vote| Mandate { term: vote.term, member: vote.node });
        let ledger = Ledger::new(wal.state().last.map_or(0, |id| id.index), vote.unwrap_or_default());
        Log { wal, ledger }
    }

    /// What is on this member's disk, and a way to wait for more entries.
    pub fn durable(&self) -> Durable {
        self.ledger.durable()
    }

    /// After all tasks that are ready now had their turn, and what has arrived meanwhile was looked at: what they append goes with
    /// the same sync. Without that the first of many requests has one of its own, and the others wait for two.
    fn wake_writer(&self) {
        let wal = self.wal.clone();
        tokio::spawn(async move {
            tokio::task::yield_now().await;
            wal.wake();
        });
    }

    fn read(&self, range: std::ops::Range<u64>, bytes_max: u64) -> io::Result<Vec<Entry>> {
        let entries = self.wal.read(range, bytes_max)?;
        entries.into_iter().map(|(id, bytes)| codec::entry(id, bytes)).collect()
    }
}

impl RaftLogReader<TypeConfig> for Log {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + Send>(
        &mut self,
        range: R,
    ) -> io::Result<Vec<Entry>> {
        let start = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(start) => start.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(end) => end.saturating_add(1),
            Bound::Excluded(end) => *end,
            Bound::Unbounded => u64::MAX,
        };
        self.read(start..end, u64::MAX)
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.wal.vote().map(codec::vote))
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        self.read(start..end, MESSAGE_BYTES_MAX)
    }
}

impl RaftLogStorage<TypeConfig> for Log {
    type LogReader = Log;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        let state = self.wal.state();
        Ok(LogState {
            last_purged_log_id: state.last_purged.map(codec::log_id),
            last_log_id: state.last.map(codec::log_id),
        })
    }

    async fn get_log_reader(&mut self) -> Log {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        let (done, durable) = oneshot::channel();
        self.wal.save_vote(codec::disk_vote(vote), move |outcome| {
            // Nobody waits any more only when the member is stopping.
            let _ = done.send(outcome);
        });
        durable.await.map_err(|_| io::Error::other("the log was closed while a vote was being saved"))??;
        self.ledger.voted(Mandate { term: vote.leader_id.term, member: vote.leader_id.node_id });
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        self.wal.save_committed(committed.as_ref().map(codec::disk_id));
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(self.wal.committed().map(codec::log_id))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + Send,
        I::IntoIter: Send,
    {
        let entries =
            entries.into_iter().map(|entry| (codec::disk_id(&entry.log_id), codec::entry_bytes(&entry)));
        let entries: Vec<_> = entries.collect();
        let note = entries.last().map(|(last, _)| self.ledger.appended(last.index));
        let asleep = self.wal.append_quietly(entries, move |outcome| {
            if let Some(note) = note {
                note(outcome.is_ok());
            }
            callback.io_completed(outcome);
        });
        if asleep {
            self.wake_writer();
        }
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        self.ledger.truncated(last.map_or(0, |id| id.index));
        self.wal.truncate_after(last.map(|id| id.index));
        Ok(())
    }

    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        self.wal.purge(codec::disk_id(&upto));
        Ok(())
    }
}
