//! Who takes part in the consensus, and changes of that: one entry and one voter at a time, each based on the membership it
//! was computed from, so that no two changes can undo each other. Whether a change is wise is decided above.
//!
//! A single voter more or less needs no joint majorities: any majority before and any after have a member in common. (Raft
//! dissertation, 4.1; the leader must have committed an entry of its own term first, which the library checks.)

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{ChangeMembershipError, ClientWriteError, RaftError};
use openraft::raft::Precondition;
use openraft::{ChangeMembers, EntryPayload, Instant};

use super::types::{LogId, Membership, Peer, TypeConfig};
use super::{Consensus, Unavailable};

/// One who takes part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Participant {
    pub peer_urls: Vec<String>,
    pub votes: bool,
    /// It is to vote, now or once it has caught up.
    pub voter_wanted: bool,
}

/// Who takes part by the newest entry that says so, committed or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roster {
    pub participants: BTreeMap<u64, Participant>,
    at: Option<LogId>,
}

impl Roster {
    /// Index of the entry that says so.
    pub fn index(&self) -> u64 {
        self.at.map_or(0, |id| id.index)
    }

    pub fn voters(&self) -> impl Iterator<Item = u64> {
        self.participants.iter().filter(|(_, participant)| participant.votes).map(|(id, _)| *id)
    }
}

/// What the leader knows of another's log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Follower {
    /// Index up to which its log is known to be the leader's.
    pub matched: u64,
    /// How long ago a message was sent that it has answered; None if it never answered this leader.
    pub heard: Option<Duration>,
}

/// A change of the roster it is given with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Takes part without a vote.
    Add {
        id: u64,
        peer_urls: Vec<String>,
        voter_wanted: bool,
    },
    /// Votes from now on.
    Promote {
        id: u64,
    },
    Remove {
        id: u64,
    },
    Move {
        id: u64,
        peer_urls: Vec<String>,
    },
}

/// Why a change was not made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChangeError {
    /// Another change came first, or is under way, or the leader is new: look at the roster again.
    Again,
    Unavailable(Unavailable),
    /// The library would not have it, whatever is tried: its words.
    Impossible(String),
}

impl Consensus {
    pub fn roster(&self) -> Roster {
        let stored = self.raft.metrics().borrow_watched().membership_config.clone();
        let voters: BTreeSet<u64> = stored.membership().voter_ids().collect();
        let participant = |(id, peer): (&u64, &Peer)| {
            let Peer { peer_urls, voter_wanted } = peer.clone();
            (*id, Participant { peer_urls, votes: voters.contains(id), voter_wanted })
        };
        Roster { participants: stored.membership().nodes().map(participant).collect(), at: *stored.log_id() }
    }

    /// All others as the leader sees them; None where this member does not lead.
    pub fn followers(&self) -> Option<BTreeMap<u64, Follower>> {
        let metrics = self.raft.metrics().borrow_watched().clone();
        let (matched, heard) = (metrics.replication?, metrics.heartbeat?);
        let follower = |(id, matched): (u64, Option<LogId>)| {
            let heard = heard.get(&id).copied().flatten().map(|at| at.elapsed());
            (id, Follower { matched: matched.map_or(0, |id| id.index), heard })
        };
        Some(matched.into_iter().filter(|(id, _)| *id != metrics.id).map(follower).collect())
    }

    /// Makes one change of the roster; gives the index of its entry once that is applied here. Only the leader can.
    pub async fn change(&self, roster: &Roster, change: Change) -> Result<u64, ChangeError> {
        let based_on = [Precondition::LastMembershipLogId { last_membership_log_id: roster.at }];
        let written = match change {
            // The library takes new addresses of a known member only this way; no voter comes or goes by it.
            Change::Move { id, peer_urls } => {
                let voter_wanted = roster.participants.get(&id).is_some_and(|known| known.voter_wanted);
                let moved = ChangeMembers::SetNodes([(id, Peer { peer_urls, voter_wanted })].into());
                self.raft.change_membership_if(moved, true, based_on).await
            }
            change => {
                let next = next(roster, change).map_err(ChangeError::Impossible)?;
                self.raft.append_membership(next, EntryPayload::Blank, based_on).await
            }
        };
        written.map(|written| written.log_id.index).map_err(refused)
    }
}

/// The membership after the change; an error says what makes it impossible.
fn next(roster: &Roster, change: Change) -> Result<Membership, String> {
    let mut voters: BTreeSet<u64> = roster.voters().collect();
    let mut peers: BTreeMap<u64, Peer> = BTreeMap::new();
    for (id, Participant { peer_urls, voter_wanted, .. }) in roster.participants.clone() {
        peers.insert(id, Peer { peer_urls, voter_wanted });
    }
    match change {
        Change::Add { id, peer_urls, voter_wanted } => {
            peers.insert(id, Peer { peer_urls, voter_wanted });
        }
        Change::Promote { id } => {
            voters.insert(id);
        }
        Change::Remove { id } => {
            voters.remove(&id);
            peers.remove(&id);
        }
        Change::Move { .. } => return Err("addresses are changed in another way".into()),
    }
    Membership::new(vec![voters], peers).map_err(|error| error.to_string())
}

fn refused(error: RaftError<TypeConfig, ClientWriteError<TypeConfig>>) -> ChangeError {
    match error {
        RaftError::Fatal(_) => ChangeError::Unavailable(Unavailable::Stopped),
        RaftError::APIError(ClientWriteError::ForwardToLeader(_)) => {
            ChangeError::Unavailable(Unavailable::NoLeader)
        }
        RaftError::APIError(ClientWriteError::LogEntryDiscarded(_)) => {
            ChangeError::Unavailable(Unavailable::LeaderChanged)
        }
        RaftError::APIError(
            ClientWriteError::PreconditionFailed(_)
            | ClientWriteError::ChangeMembershipError(
                ChangeMembershipError::InProgress(_) | ChangeMembershipError::UncommittedLeaderLog(_),
            ),
        ) => ChangeError::Again,
        RaftError::APIError(ClientWriteError::ChangeMembershipError(error)) => {
            ChangeError::Impossible(error.to_string())
        }
    }
}
