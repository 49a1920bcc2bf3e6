//! Consensus: commands go in, applied effects come out. The only room in which the consensus library's names appear;
//! above it there is [`Consensus`], [`View`] and [`Outlet`].
//!
//! ```text
//!   propose ─► core task ─► log.rs ─► write-ahead log (its own thread: one fsync for all that queued up)
//!                                          │ durable
//!              apply task ◄────────────────┘
//!                 apply.rs: machine ─► store (its own thread, behind) ─► outlet ─► the proposer's answer
//! ```
//!
//! | task            | owns            | input                        | bound                    | when full            |
//! |-----------------|-----------------|------------------------------|--------------------------|----------------------|
//! | core (library)  | Raft's state    | proposals, read requests     | the node's admission     | refused before here  |
//! | apply (library) | the machine     | committed entries, from log  | store's backlog in bytes | waits for the disk   |
//! | log thread      | segment files   | entries, votes               | the node's admission     | refused before here  |
//! | store thread    | the database    | batches of writes            | bytes                    | apply waits          |
//! | replication, heartbeat (library, one of each for a follower) | a stream to it | the log | its connection's window | reads no further |
//! | appending (one for a stream that comes in) | its requests | a leader's entries | 8 MiB not yet written | reads no further |
//! | taking a snapshot | a store being filled | pieces            | one at a time            | the sender waits     |

mod apply;
mod codec;
mod durable;
mod leadership;
mod log;
mod membership;
mod network;
mod runtime;
mod snapshot;
#[cfg(test)]
mod suite;
mod types;
mod view;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{ClientWriteError, InitializeError, LinearizableReadError, RaftError};
use openraft::raft::ClientWriteResult;
use openraft::{ReadPolicy, ServerState, SnapshotPolicy};
use prost::Message;
use tenure_disk::wal::Wal;
use tenure_grpc::internal::replication_server::ReplicationServer;
use tokio::sync::{Notify, mpsc, watch};

pub use apply::Outlet;
pub use leadership::Leadership;
pub use membership::{Change, ChangeError, Follower, Participant, Roster};
pub use snapshot::load;
pub use types::{Held, Mandate, Proposal, Reply, Ticket};
pub use view::View;

use crate::metrics::Meters;
use crate::peers::Peers;
use apply::StateMachine;
use durable::Durable;
use snapshot::Outgoing;
use types::{CommittedLeaderId, Peer, TypeConfig, Waiting};

/// How this member takes part.
pub struct Options {
    pub member: u64,
    pub heartbeat_ms: u64,
    pub election_ms: u64,
    /// Entries after which the state is made durable and the log before it may go.
    pub snapshot_entries: u64,
    /// Entries kept behind a snapshot, so that a member that was away for a moment catches up from the log.
    pub kept_entries: u64,
    pub pre_vote: bool,
    /// Bytes of newest records kept in memory.
    pub record_bytes_max: usize,
    pub meters: Arc<Meters>,
}

/// Entries purged at a time, at least: purging one by one would write a record each.
const PURGE_AT_ONCE: u64 = 1_024;
/// Entries that one message to a peer carries, at most; their bytes are bounded too (`log.rs`).
const MESSAGE_ENTRIES_MAX: u64 = 4_096;
/// How long a follower may take to make a snapshot its own once it has all of it, and a third more.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(600);

/// Why a request got no answer from the cluster. Whether a proposal was written is said by each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unavailable {
    /// Refused before it was proposed: nobody leads, as far as is known here.
    NoLeader,
    /// Refused before it was proposed: too much is under way.
    Busy,
    /// The leader changed while the request was under way: its outcome is unknown.
    LeaderChanged,
    /// No answer in time: its outcome is unknown.
    TimedOut,
    /// The same, and the leader, or a quorum of the others, was not heard of lately.
    CutOff,
    /// This member is stopping, or had to stop: the outcome is unknown.
    Stopped,
}

/// Where this member stands in the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    pub last: u64,
    pub committed: u64,
    pub applied: u64,
    pub purged: u64,
}

type Raft = openraft::Raft<TypeConfig, StateMachine>;

/// The member's part in the consensus.
#[derive(Clone)]
pub struct Consensus {
    raft: Raft,
    peers: Peers,
    taker: network::Taker,
    leadership: watch::Receiver<Leadership>,
    applied: watch::Receiver<u64>,
    durable: Durable,
    /// Told whenever something is about to be proposed.
    company: Arc<Notify>,
}

impl Consensus {
    /// Takes up the log and the state where they were left, and the protocol with them.
    pub async fn start(
        options: Options,
        wal: Wal,
        view: Arc<View>,
        outlet: Arc<dyn Outlet>,
        peers: Peers,
    ) -> Result<Consensus, StartError> {
        let config = config(&options)?;
        check_agreement(&wal, &view)?;
        let outgoing = Outgoing::default();
        let taker = network::Taker { view: view.clone(), record_bytes_max: options.record_bytes_max };
        let log = log::Log::new(wal);
        let durable = log.durable();
        let machine = StateMachine::new(
            options.member,
            view,
            outlet,
            options.record_bytes_max,
            outgoing.clone(),
            durable.clone(),
            options.meters.clone(),
        );
        let machine = machine.map_err(StartError::new)?;
        let (heavy_log, applied) = (machine.heavy_log(), machine.told());
        let network = network::Network::new(peers.clone(), outgoing, options.meters.clone());
        let raft = Raft::new(options.member, config, network, log, machine).await;
        let raft = raft.map_err(StartError::new)?;
        let election = Duration::from_millis(options.election_ms);
        let leadership =
            leadership::follow(raft.clone(), peers.clone(), election, options.meters.leaders.clone());
        let consensus =
            Consensus { raft, peers, taker, leadership, applied, durable, company: Arc::default() };
        tokio::spawn(keep_log_short(consensus.raft.clone(), heavy_log));
        Ok(consensus)
    }

    /// What this member answers the others' calls with.
    pub fn replication(&self) -> ReplicationServer<network::Service> {
        network::Service::new(self.raft.clone(), self.peers.clone(), self.taker.clone())
    }

    /// Founds a cluster of these members; a member that has a log already knows its cluster and is left as it is, and so is
    /// one that founds none. Each founder calls this with the same members.
    pub async fn found(&self, members: BTreeMap<u64, Vec<String>>) -> Result<(), StartError> {
        if members.is_empty() || self.raft.is_initialized().await.map_err(StartError::new)? {
            return Ok(());
        }
        let members: BTreeMap<u64, Peer> =
            members.into_iter().map(|(id, peer_urls)| (id, Peer { peer_urls, voter_wanted: true })).collect();
        match self.raft.initialize(members).await {
            // Another founder was quicker: its log has come here already.
            Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
            Err(error) => Err(StartError::new(error)),
        }
    }

    /// A sole voter waits until what was committed before the last stop is applied again, and asks for its own election at
    /// once instead of waiting for one. Of several, none knows what is committed before it has heard from a leader.
    pub async fn recover(&self) -> Result<(), StartError> {
        let mut voters = self.raft.voter_ids();
        let alone = voters.next() == Some(*self.raft.node_id()) && voters.next().is_none();
        if alone {
            self.raft.wait_for_recovery(None).await.map_err(StartError::new)?;
            self.raft.trigger().elect(false).await.map_err(StartError::new)?;
        }
        Ok(())
    }

    /// Asks a voter to lead in this member's place; it does so if its log is complete. Nothing happens if this
    /// member does not lead. Whether it came to be is seen from [`Consensus::leadership`].
    pub async fn transfer(&self, to: u64) -> Result<(), Unavailable> {
        self.raft.trigger().transfer_leader(to).await.map_err(|_| Unavailable::Stopped)
    }

    /// Has a command committed and applied, and gives what became of it. `held` is let go when that is known, be it long
    /// after the caller went away.
    pub async fn propose(&self, proposal: Proposal, held: Held) -> Result<Reply, Unavailable> {
        let (waiting, outcome) = Waiting::new(held);
        self.company.notify_waiters();
        self.raft.client_write_ff(proposal, Some(waiting)).await.map_err(|_| Unavailable::Stopped)?;
        match outcome.await {
            Ok(Ok(written)) => Ok(written.data),
            Ok(Err(ClientWriteError::ForwardToLeader(_))) => Err(Unavailable::NoLeader),
            Ok(Err(ClientWriteError::LogEntryDiscarded(_))) => Err(Unavailable::LeaderChanged),
            // Neither is asked for here: no membership is changed and no condition set.
            Ok(Err(ClientWriteError::ChangeMembershipError(_) | ClientWriteError::PreconditionFailed(_))) => {
                Err(Unavailable::Busy)
            }
            Err(_) => Err(Unavailable::Stopped),
        }
    }

    /// Waits until something else is proposed here: what is proposed at once then shares its write to the disk.
    pub async fn company(&self) {
        self.company.notified().await;
    }

    /// Has a command committed that another member, or a ticket's holder here, waits for: it carries the ticket. Who is
    /// not known to be refused through `refused` learns the outcome by applying it. It is written in this leadership or
    /// not at all.
    pub async fn propose_for(
        &self,
        mandate: Mandate,
        proposal: Proposal,
        number: u64,
        refused: &mpsc::Sender<u64>,
        held: Held,
    ) -> Result<(), Unavailable> {
        let is_refusal = |outcome: &ClientWriteResult<TypeConfig>| {
            matches!(outcome, Err(ClientWriteError::ForwardToLeader(_)))
        };
        self.company.notify_waiters();
        let waiting = Waiting::Elsewhere { number, is_refusal, refused: refused.clone(), held };
        let leader = CommittedLeaderId { term: mandate.term, node_id: mandate.member };
        let proposed = self.raft.write(proposal).with_leader(leader).responder(waiting).await;
        proposed.map_err(|_| Unavailable::Stopped)
    }

    /// In which term this member leads, and the index of the last entry of its log, once whatever was proposed before this
    /// call is in it or refused. Of a member that does not lead, such as one that did until it was killed, the log says nothing of
    /// what others have of that term.
    pub async fn led_until(&self) -> Result<(u64, u64), Unavailable> {
        let led = self.raft.with_raft_state(|state| {
            let leads = state.server_state == ServerState::Leader;
            leads.then(|| (state.vote_ref().leader_id.term, state.log_ids.last().map_or(0, |id| id.index())))
        });
        led.await.map_err(|_| Unavailable::Stopped)?.ok_or(Unavailable::NoLeader)
    }

    /// Proof, gathered from a quorum after this call began, that this member leads. Gives the index up to which a member
    /// must have applied, so that a read there sees all that was acknowledged before. Takes one election timeout at
    /// the most.
    pub async fn read_index(&self) -> Result<u64, Unavailable> {
        match self.raft.get_read_linearizer(ReadPolicy::ReadIndex).await {
            Ok(proof) => Ok(proof.read_log_id().index()),
            Err(RaftError::Fatal(_)) => Err(Unavailable::Stopped),
            Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(_))) => Err(Unavailable::NoLeader),
            Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(_))) => {
                Err(Unavailable::LeaderChanged)
            }
        }
    }

    /// Index of the last entry applied here, its effects included, and a way to wait for more.
    pub fn applied(&self) -> watch::Receiver<u64> {
        self.applied.clone()
    }

    /// With which leadership this member's vote is on its disk: it follows no earlier one any more, even if it is started anew.
    pub fn vote(&self) -> Mandate {
        self.durable.vote()
    }

    /// Who votes, by the newest entry that says so, in the order of ids.
    pub fn voters(&self) -> Vec<u64> {
        self.raft.voter_ids().collect()
    }

    /// The current leadership, and a way to wait for the next.
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.clone()
    }

    pub fn progress(&self) -> Progress {
        let metrics = self.raft.metrics().borrow_watched().clone();
        let index = |id: Option<types::LogId>| id.map_or(0, |id| id.index);
        Progress {
            last: metrics.last_log_index.unwrap_or(0),
            committed: index(metrics.cluster_committed),
            applied: index(metrics.last_applied),
            purged: index(metrics.purged),
        }
    }

    /// Why this member can no longer take part; None while all is well.
    pub fn failure(&self) -> Option<String> {
        self.raft.metrics().borrow_watched().running_state.as_ref().err().map(ToString::to_string)
    }

    pub async fn stop(&self) {
        if let Err(error) = self.raft.shutdown().await {
            tracing::warn!(%error, "the consensus task did not end in good order");
        }
    }
}

/// Has a snapshot taken whenever the log has become heavy, until consensus ends. Holds nothing of the state: it may outlive it.
async fn keep_log_short(raft: Raft, heavy_log: Arc<Notify>) {
    loop {
        heavy_log.notified().await;
        if raft.trigger().snapshot().await.is_err() {
            return;
        }
    }
}

/// The log must reach from where the state stands to at least there: a gap before it, or a log that ends earlier than the
/// state it led to, means that files are missing.
fn check_agreement(wal: &Wal, view: &View) -> Result<(), StartError> {
    let Some(bytes) = view.store().applied() else { return Ok(()) };
    let applied = tenure_proto::internal::Applied::decode(bytes).map_err(StartError::new)?;
    let installed = applied.installed;
    let applied = applied.position.map_or(0, |position| position.index);
    let state = wal.state();
    let (first, last) = (state.last_purged.map_or(0, |id| id.index), state.last.map_or(0, |id| id.index));
    // The leader's snapshot takes the log's place in one step, and the log follows in another.
    if last < applied && !installed {
        return Err(StartError(format!(
            "the Raft log ends at index {last}, but the state was applied up to {applied}: log files are missing; was \
             another --wal-dir given before? else restore a backup"
        )));
    }
    if applied < first {
        return Err(StartError(format!(
            "the state was applied up to index {applied}, but the Raft log begins after {first}: state files are missing; \
             restore a backup"
        )));
    }
    Ok(())
}

/// etcd's two timeouts as the library counts them. There a follower that hears nothing waits for the leader's lease, which is
/// the maximum, and then for a random time between the two: here that makes from 0.9 to 1.15 of an election timeout. The first
/// is where etcd's followers begin, whose count starts with the tick before the leader was lost; they end at two, and so wait
/// longer for nothing. A quarter of the timeout is two and a half round trips where it is set to ten, as etcd advises.
fn config(options: &Options) -> Result<Arc<openraft::Config>, StartError> {
    let (earliest, spread) = (options.election_ms * 9 / 10, options.election_ms / 4);
    // A heartbeat comes up to a quarter of its interval late.
    let shortest = ((earliest - spread) / 2).max(options.heartbeat_ms * 5 / 4 + 1);
    let config = openraft::Config {
        cluster_name: "tenure".into(),
        heartbeat_interval: options.heartbeat_ms,
        heartbeat_min_interval: None,
        election_timeout_min: shortest,
        election_timeout_max: shortest + spread,
        enable_pre_vote: Some(options.pre_vote),
        // A restarted leader must be elected anew: what it had applied was not yet durable in the store.
        enable_leader_restore: Some(false),
        allow_log_reversion: Some(false),
        quorum_loss_probe_interval: Some(2 * options.election_ms + 500),
        max_payload_entries: MESSAGE_ENTRIES_MAX,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(options.snapshot_entries),
        max_in_snapshot_log_to_keep: options.kept_entries,
        purge_batch_size: PURGE_AT_ONCE,
        install_snapshot_timeout: SNAPSHOT_TIMEOUT.as_millis() as u64,
        ..openraft::Config::default()
    };
    Ok(Arc::new(config.validate().map_err(StartError::new)?))
}

/// Why the member could not take up its part.
#[derive(Debug)]
pub struct StartError(String);

impl StartError {
    fn new(error: impl fmt::Display) -> StartError {
        StartError(error.to_string())
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot start consensus: {}", self.0)
    }
}

impl std::error::Error for StartError {}
