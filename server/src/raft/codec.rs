//! Between the consensus library's values and our own bytes. Nothing of the library's own serialisation is ever stored:
//! its layout moves with its versions, ours only grows.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use bytes::Bytes;
use openraft::EntryPayload;
use openraft::entry::RaftEntry;
use openraft::vote::RaftLeaderId;
use prost::Message;
use tenure_disk::wal as disk;
use tenure_proto::internal::{self, LogPayload, VoterSet, log_payload};

use super::types::{CommittedLeaderId, Entry, LogId, Membership, Peer, Proposal, StoredMembership, Vote};

/// First byte of an encoded `LogPayload` that holds a command: field 2, length-delimited.
pub const COMMAND_TAG: u8 = 0x12;

pub fn entry_bytes(entry: &Entry) -> Bytes {
    let kind = match &entry.payload {
        EntryPayload::Normal(proposal) => return proposal.0.clone(),
        EntryPayload::Blank => log_payload::Kind::Blank(true),
        EntryPayload::Membership(membership) => log_payload::Kind::Membership(membership_message(membership)),
    };
    LogPayload { kind: Some(kind), ..LogPayload::default() }.encode_to_vec().into()
}

pub fn entry(id: disk::LogId, bytes: Bytes) -> io::Result<Entry> {
    let payload = if bytes.first() == Some(&COMMAND_TAG) {
        EntryPayload::Normal(Proposal(bytes))
    } else {
        match LogPayload::decode(bytes).map_err(|error| damaged(id, &error.to_string()))?.kind {
            Some(log_payload::Kind::Blank(_)) => EntryPayload::Blank,
            Some(log_payload::Kind::Membership(message)) => EntryPayload::Membership(membership(message)?),
            Some(log_payload::Kind::Command(_)) | None => return Err(damaged(id, "it says nothing")),
        }
    };
    Ok(Entry::new(log_id(id), payload))
}

fn damaged(id: disk::LogId, why: &str) -> io::Error {
    let text = format!(
        "log entry {} (term {}) cannot be read: {why}; written by a newer version?",
        id.index, id.term
    );
    io::Error::new(io::ErrorKind::InvalidData, text)
}

pub fn log_id(id: disk::LogId) -> LogId {
    LogId::new(CommittedLeaderId::new(id.term, id.node), id.index)
}

pub fn disk_id(id: &LogId) -> disk::LogId {
    let leader = id.committed_leader_id();
    disk::LogId { term: leader.term, node: leader.node_id, index: id.index() }
}

pub fn vote(vote: disk::Vote) -> Vote {
    if vote.committed { Vote::new_committed(vote.term, vote.node) } else { Vote::new(vote.term, vote.node) }
}

pub fn disk_vote(vote: &Vote) -> disk::Vote {
    disk::Vote { term: vote.leader_id.term, node: vote.leader_id.node_id, committed: vote.committed }
}

pub fn membership_message(membership: &Membership) -> internal::Membership {
    let configs = membership.get_joint_config();
    internal::Membership {
        configs: configs.iter().map(|ids| VoterSet { ids: ids.iter().copied().collect() }).collect(),
        nodes: membership.nodes().map(|(id, peer)| node(*id, peer)).collect(),
    }
}

pub fn membership(message: internal::Membership) -> io::Result<Membership> {
    let configs: Vec<BTreeSet<u64>> =
        message.configs.into_iter().map(|set| set.ids.into_iter().collect()).collect();
    let nodes: BTreeMap<u64, Peer> = message.nodes.into_iter().map(peer).collect();
    if configs.is_empty() && nodes.is_empty() {
        return Ok(Membership::default());
    }
    Membership::new(configs, nodes)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))
}

fn node(id: u64, peer: &Peer) -> internal::Node {
    internal::Node { id, peer_urls: peer.peer_urls.clone(), voter_wanted: peer.voter_wanted }
}

fn peer(node: internal::Node) -> (u64, Peer) {
    let internal::Node { id, peer_urls, voter_wanted } = node;
    (id, Peer { peer_urls, voter_wanted })
}

pub fn position_message(id: &LogId) -> internal::LogPosition {
    let disk::LogId { term, node, index } = disk_id(id);
    internal::LogPosition { term, node, index }
}

pub fn position(message: &internal::LogPosition) -> LogId {
    log_id(disk::LogId { term: message.term, node: message.node, index: message.index })
}

pub fn stored_membership(applied: &internal::Applied) -> io::Result<StoredMembership> {
    let at = applied.membership_position.as_ref().map(position);
    Ok(StoredMembership::new(at, membership(applied.membership.clone().unwrap_or_default())?))
}
