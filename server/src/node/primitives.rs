//! What recipes ask of this member, whether it leads or not: the handles that the api holds as well, with their errors sorted by
//! the one thing a recipe must know, whether it was certainly not done. It knows of no recipe.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use tenure_proto::etcdserverpb::{RangeRequest, RangeResponse, ResponseHeader, TxnRequest, TxnResponse};
use tenure_proto::internal::command::Wish;
use tenure_proto::mvccpb::{self, event::EventType};
use tenure_recipes::{Change, Changes, Failure, Primitives, TimeLeft};
use tenure_state::{
    Delivery, Event, Interval, LeaseId, Piece, Refusal, Response, Revision, WatchSpec, check, prefix_end, txn,
};
use tokio::sync::watch;

use super::error::Error;
use super::leases::{Leases, Renewed, TimeToLive, command};
use super::quota::Quota;
use super::reader::Reader;
use super::watches::{Next, WatchStream, Watches};
use super::writer::Writer;
use crate::clock::Clock;
use crate::raft::{Leadership, Unavailable, View};

/// Operations of a branch, and compares, of one txn: etcd's bound, whatever the flags say of clients'.
const OPERATIONS_MAX: usize = 128;
/// What a lease counts for against the quota, bytes: etcd's figure.
const LEASE_BYTES: usize = 64;

/// A store, as seen from this member.
#[derive(Clone)]
pub struct Here {
    pub(super) view: Arc<View>,
    pub(super) reader: Reader,
    pub(super) writer: Writer,
    pub(super) leases: Leases,
    pub(super) watches: Watches,
    pub(super) quota: Quota,
    pub(super) leadership: watch::Receiver<Leadership>,
    pub(super) clock: Arc<dyn Clock>,
}

impl Primitives for Here {
    type Changes = Following;

    async fn txn(&self, request: TxnRequest) -> Result<TxnResponse, Failure> {
        self.transact(request, true).await
    }

    async fn txn_unhurried(&self, request: TxnRequest) -> Result<TxnResponse, Failure> {
        self.transact(request, false).await
    }

    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, Failure> {
        check::range(&request).map_err(|refusal| self.refused(&refusal))?;
        let answer = self.reader.range(&request).await;
        let (mut response, revision) = answer.map_err(|error| self.not_asked(error))?;
        response.header = header(revision);
        Ok(response)
    }

    async fn watch(&self, key: Vec<u8>, range_end: Vec<u8>, from: i64) -> Result<Following, Failure> {
        if from <= 0 {
            return Err(Failure::Invalid(format!(
                "a watch begins at a revision greater than zero, not at {from}"
            )));
        }
        if self.leadership.borrow().long_lost {
            return Err(Trouble::NoLeader.failure());
        }
        let stream = self.watches.open();
        let spec = WatchSpec::new(Interval::new(&key, &range_end), Revision(from));
        stream.create(&spec).map_err(|error| Failure::Invalid(error.to_string()))?;
        Ok(Following {
            stream,
            told: VecDeque::new(),
            ended: None,
            reached: 0,
            leadership: self.leadership.clone(),
        })
    }

    async fn grant(&self, lease: i64, ttl_s: i64) -> Result<i64, Failure> {
        if lease == 0 {
            return Err(Failure::Invalid("a lease cannot have the id 0".into()));
        }
        self.quota.admit(LEASE_BYTES).await.map_err(|error| self.not_asked(error))?;
        let granted = self.leases.grant(lease, ttl_s).await;
        let (_, ttl_s, _) = granted.map_err(|error| self.not_answered(error))?;
        Ok(ttl_s)
    }

    async fn keep_alive(&self, lease: i64) -> Result<Option<i64>, Failure> {
        Ok(self.keep_alive_all(&[lease]).await?.first().copied().flatten())
    }

    async fn keep_alive_all(&self, leases: &[i64]) -> Result<Vec<Option<i64>>, Failure> {
        let Renewed { mut known, slow } = self.renew(leases).await?;
        if !slow.is_empty() {
            let ttls = self.renew_patiently(&slow).await?;
            known.extend(slow.into_iter().zip(ttls));
        }
        let ttls: HashMap<LeaseId, i64> = known.into_iter().collect();
        let ttl = |lease: &i64| ttls.get(&LeaseId(*lease)).copied().filter(|ttl_s| *ttl_s > 0);
        Ok(leases.iter().map(ttl).collect())
    }

    async fn revoke(&self, lease: i64) -> Result<bool, Failure> {
        match self.leases.revoke(LeaseId(lease)).await {
            Ok(_) => Ok(true),
            Err(Error::Refused(Refusal::LeaseNotFound)) => Ok(false),
            Err(error) => Err(self.not_answered(error)),
        }
    }

    async fn time_to_live(&self, lease: i64) -> Result<Option<TimeLeft>, Failure> {
        let left = self.lease(lease, false).await?;
        Ok(left.map(|left| TimeLeft { remaining_s: left.remaining_s, granted_s: left.granted_s }))
    }
}

/// What a member knows beside what every store can tell.
impl Here {
    /// An id that no lease has, nor ever had.
    pub fn unused_lease(&self) -> i64 {
        self.leases.unused().0
    }

    /// For people to read, never to go by.
    pub fn unix_ms(&self) -> i64 {
        i64::try_from(self.clock.unix_ms()).unwrap_or(i64::MAX)
    }

    /// The store's revision, as far as this member has applied.
    pub fn revision(&self) -> Revision {
        self.view.machine().revision()
    }

    /// A lease with its time and, if asked for, the keys that go with it. None: there is no such lease.
    pub async fn lease(&self, lease: i64, with_keys: bool) -> Result<Option<TimeToLive>, Failure> {
        let answer = self.leases.time_to_live(LeaseId(lease), with_keys).await;
        Ok(answer.map_err(|error| self.not_asked(error))?.0)
    }

    /// Renews many, as far as that is possible at once.
    pub async fn renew(&self, leases: &[i64]) -> Result<Renewed, Failure> {
        let leases: Vec<LeaseId> = leases.iter().copied().map(LeaseId).collect();
        self.leases.renew(&leases).await.map_err(|error| self.not_asked(error))
    }

    /// Renews those that have to wait for something; the TTL of each, 0 for one that is not there.
    pub async fn renew_patiently(&self, leases: &[LeaseId]) -> Result<Vec<i64>, Failure> {
        self.leases.renew_patiently(leases).await.map_err(|error| self.not_asked(error))
    }

    async fn transact(&self, request: TxnRequest, hurried: bool) -> Result<TxnResponse, Failure> {
        check::txn(&request, OPERATIONS_MAX).map_err(|refusal| self.refused(&refusal))?;
        let (mut response, revision) = if txn::is_read_only(&request) {
            self.reader.txn(&request).await.map_err(|error| self.not_asked(error))?
        } else {
            let room = self.quota.admit(txn::put_bytes(&request)).await;
            room.map_err(|error| self.not_asked(error))?;
            let command = command(Wish::Txn(request));
            let written = if hurried {
                self.writer.write(command).await
            } else {
                self.writer.write_unhurried(command).await
            };
            let written = written.map_err(|error| self.not_answered(error))?;
            match written.response {
                Response::Txn(response) => (response, written.revision),
                other => return Err(mismatched(&other)),
            }
        };
        response.header = header(revision);
        Ok(response)
    }

    /// Whether there is any key that begins so, as far as this member has applied.
    pub(super) fn has_keys_below(&self, prefix: &[u8]) -> bool {
        let interval = Interval::new(prefix, &prefix_end(prefix));
        let machine = self.view.machine();
        machine.index().range(&interval).any(|(_, history)| history.live().is_some())
    }

    /// Of a write: what could not be answered may have been done.
    fn not_answered(&self, error: Error) -> Failure {
        match error {
            Error::Unavailable(Unavailable::NoLeader) => Trouble::NoLeader.failure(),
            Error::Unavailable(Unavailable::Busy) => Trouble::Overloaded.failure(),
            Error::Unavailable(unavailable) => Failure::Unknown(Trouble::of(unavailable).text().to_owned()),
            Error::Fatal(_) => Failure::Unknown(Trouble::Stopping.text().to_owned()),
            error => self.not_asked(error),
        }
    }

    /// Of a question, which does nothing, so that it can be asked again whatever became of it.
    fn not_asked(&self, error: Error) -> Failure {
        match error {
            Error::Refused(refusal) => self.refused(&refusal),
            Error::Unavailable(unavailable) => Trouble::of(unavailable).failure(),
            Error::TooLarge => Failure::Invalid("the request is larger than --max-request-bytes".into()),
            Error::Fatal(_) => Trouble::Stopping.failure(),
            Error::NotLeader | Error::BadTransferee | Error::TransferFailed | Error::Membership(_) => {
                Failure::Invalid(format!("the cluster answered another question: {error:?}"))
            }
        }
    }

    fn refused(&self, refusal: &Refusal) -> Failure {
        match refusal {
            Refusal::Compacted => Failure::Compacted { at: self.view.machine().compacted().0 },
            Refusal::LeaseNotFound => Failure::LeaseUnknown,
            Refusal::LeaseExists => Failure::LeaseExists,
            Refusal::NoSpace => Failure::Exhausted(
                "the store's quota is used up; delete keys, compact, disarm the alarm".into(),
            ),
            Refusal::Corrupt => {
                Failure::Forbidden("the cluster found its members to differ (alarm CORRUPT)".into())
            }
            Refusal::UnknownCommand => Failure::Forbidden(
                "a member does not know the command; upgrade it to the version of the others".into(),
            ),
            other => Failure::Invalid(format!("the store refuses it: {other:?}")),
        }
    }
}

/// Why a member cannot answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    NoLeader,
    LeaderChanged,
    NoQuorum,
    Overloaded,
    Stopping,
}

impl Trouble {
    const ALL: [Trouble; 5] = [
        Trouble::NoLeader,
        Trouble::LeaderChanged,
        Trouble::NoQuorum,
        Trouble::Overloaded,
        Trouble::Stopping,
    ];

    fn of(unavailable: Unavailable) -> Trouble {
        match unavailable {
            Unavailable::NoLeader => Trouble::NoLeader,
            Unavailable::Busy => Trouble::Overloaded,
            Unavailable::LeaderChanged => Trouble::LeaderChanged,
            Unavailable::TimedOut | Unavailable::CutOff => Trouble::NoQuorum,
            Unavailable::Stopped => Trouble::Stopping,
        }
    }

    /// The trouble that a failure's text speaks of.
    pub fn told_by(text: &str) -> Option<Trouble> {
        Trouble::ALL.into_iter().find(|trouble| trouble.text() == text)
    }

    pub fn text(self) -> &'static str {
        match self {
            Trouble::NoLeader => {
                "no member is known to lead the cluster; ask again, here or at another member"
            }
            Trouble::LeaderChanged => "the leader changed while this was under way; ask again",
            Trouble::NoQuorum => "the cluster did not answer in time; ask again, here or at another member",
            Trouble::Overloaded => "the cluster has too much to do; ask again in a moment",
            Trouble::Stopping => "this member is stopping; ask another one",
        }
    }

    fn failure(self) -> Failure {
        Failure::Unavailable(self.text().to_owned())
    }
}

/// What a watch of this member tells.
pub struct Following {
    stream: WatchStream,
    /// Whole revisions that came together.
    told: VecDeque<Change>,
    ended: Option<Failure>,
    /// As the watch said when it was asked.
    reached: i64,
    leadership: watch::Receiver<Leadership>,
}

impl Changes for Following {
    async fn next(&mut self) -> Result<Change, Failure> {
        loop {
            if let Some(change) = self.told.pop_front() {
                return Ok(change);
            }
            if let Some(ended) = &self.ended {
                return Err(ended.clone());
            }
            let next = tokio::select! {
                biased;
                next = self.stream.next() => next,
                () = long_lost(&mut self.leadership) => {
                    self.ended = Some(Trouble::NoLeader.failure());
                    continue;
                }
            };
            match next {
                Ok(Next::Events(delivery)) => self.take(&delivery),
                Ok(Next::Canceled { compact_revision, .. }) => {
                    self.ended = Some(Failure::Compacted { at: compact_revision.0 });
                }
                // All that came before was given out: nothing is read of the stream while any is left.
                Ok(Next::Progress { revision, .. }) => self.reached = revision.0,
                Ok(Next::Stopping) | Err(_) => self.ended = Some(Trouble::Stopping.failure()),
            }
        }
    }

    fn ask_reached(&mut self) {
        self.stream.request_progress();
    }

    fn reached(&self) -> i64 {
        self.reached
    }
}

impl Following {
    fn take(&mut self, delivery: &Delivery) {
        let change = |piece: &Piece| Change {
            revision: piece.revision().0,
            events: piece.events().map(event).collect(),
        };
        self.told.extend(delivery.pieces.iter().map(change));
    }
}

/// Returns once there has been no leader for a long time. While that is so, what is seen here may be long past.
async fn long_lost(leadership: &mut watch::Receiver<Leadership>) {
    if leadership.wait_for(|now| now.long_lost).await.is_err() {
        // The member stops, and ends its watches for that.
        std::future::pending().await
    }
}

fn event(event: &Event) -> mvccpb::Event {
    let kind = if event.place.tombstone { EventType::Delete } else { EventType::Put };
    mvccpb::Event { r#type: kind.into(), kv: Some(event.key_value()), prev_kv: None }
}

fn header(revision: Revision) -> Option<ResponseHeader> {
    Some(ResponseHeader { revision: revision.0, ..ResponseHeader::default() })
}

/// Only a defect of this server pairs a command with another one's answer.
fn mismatched(outcome: &Response) -> Failure {
    Failure::Unknown(format!("the cluster answered another question: {outcome:?}"))
}
