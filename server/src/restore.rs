//! From a backup to the data directory of a new cluster's member, offline. The new cluster has ids of its own, and a revision
//! so far ahead that no token, watcher or cache of the old one can be taken for one of its own; keys, their revisions
//! and leases are the old ones. Knows nothing of consensus: it leaves behind what a member finds after a snapshot.
//!
//! Every member of the new cluster is restored from the same file with the same flags but its name. So all begin with the
//! same state at the same place of the log, and whoever of them is elected goes on from there:
//!
//! ```text
//!   state    applied = (term 1, index 1), the new members in it, revision = old + bump, compacted there
//!   log      purged up to (term 1, index 1), empty, vote of term 1 for nobody
//! ```
//!
//! A member that was forgotten and starts empty instead stands behind that place, at the founding entry: it cannot be elected by those
//! that were restored, and its log does not match theirs, so it gets the state from the leader.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use tenure_disk::backup::Item;
use tenure_disk::store::{InstallError, Installer, OpenError, Store, StoreOptions};
use tenure_disk::wal::{self, LogId, Vote, Wal, WalOptions, Workers};
use tenure_disk::{Disk, Files};
use tenure_proto::internal::{Applied, LogPosition, Membership, Node, StoredLease, StoredMember, VoterSet};
use tenure_state::stored;

use crate::backup::{self, Survey};
use crate::config::Config;
use crate::data_dir::{self, DataDir, Identity};
use crate::joining;

/// Where the restored state stands in the new cluster's log: behind the entry with which an empty cluster is founded, so that
/// the two cannot be taken for each other.
const BEGINNING: LogId = LogId { term: 1, node: 0, index: 1 };

/// What to make of a backup.
pub struct Plan {
    /// As the member will be started with: its name, its directories, and the cluster it is a member of.
    pub config: Config,
    /// Revisions to skip, at least as many as the old cluster may have had after the backup.
    pub bump: i64,
    /// Whether everything before the new revision is taken for compacted, so that nobody who knows the old cluster waits
    /// for what never comes.
    pub mark_compacted: bool,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    pub identity: Identity,
    pub data_dir: PathBuf,
    pub revision: i64,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Backup(#[from] backup::Error),
    #[error(transparent)]
    Config(#[from] crate::config::Error),
    #[error(transparent)]
    DataDir(#[from] data_dir::Error),
    #[error(transparent)]
    Store(#[from] OpenError),
    #[error(transparent)]
    Install(#[from] InstallError),
    #[error(transparent)]
    Log(#[from] wal::OpenError),
    #[error("could not write the log in {}: {source}; check the disk and its free space", dir.display())]
    Vote { dir: PathBuf, source: std::io::Error },
    #[error(
        "the restored cluster would have the id {0} of the one that the backup is from, and their members could not be told apart; \
         give a new --initial-cluster-token"
    )]
    SameCluster(crate::ids::ClusterId),
    #[error(
        "--bump-revision={bump} leads from revision {revision} beyond the last one there is; choose a smaller one"
    )]
    TooFar { bump: i64, revision: i64 },
}

/// Restores the backup that was surveyed and is read once more. Nothing is touched before the plan was found good; after a
/// failure the directory is left marked as unfinished, and no member starts on it.
pub fn restore(plan: &Plan, survey: &Survey, input: impl Read) -> Result<Restored, Error> {
    let Plan { config, .. } = plan;
    let identity = joining::founder(&config.bootstrap()?, &config.name);
    if identity.cluster.0 == survey.head.cluster {
        return Err(Error::SameCluster(identity.cluster));
    }
    let applied = beginning(plan, survey, &identity)?;
    if let Some(wal_dir) = &config.wal_dir {
        data_dir::must_be_empty(wal_dir)?;
    }

    let disk = Arc::new(Files);
    let data_dir = DataDir::for_restore(&*disk, &config.data_dir)?;
    let store = Store::open(&data_dir.state_dir(), StoreOptions::default())?;
    fill(store.begin_install()?, survey, input, &applied)?;
    drop(store);
    let log_dir = config.wal_dir.clone().unwrap_or_else(|| data_dir.log_dir());
    begin_log(disk.clone(), &log_dir)?;
    data_dir.claim(&*disk, &identity)?;
    data_dir.restored(&*disk)?;
    Ok(Restored { identity, data_dir: config.data_dir.clone(), revision: applied.revision })
}

/// Where the new cluster begins, the same for all of its members.
fn beginning(plan: &Plan, survey: &Survey, identity: &Identity) -> Result<Applied, Error> {
    let old = survey.machine.revision().0;
    let revision = old.checked_add(plan.bump).filter(|revision| *revision < i64::MAX / 2);
    let revision = revision.ok_or(Error::TooFar { bump: plan.bump, revision: old })?;
    let compacted = if plan.mark_compacted { revision } else { survey.machine.compacted().0 };
    let position = LogPosition { term: BEGINNING.term, node: BEGINNING.node, index: BEGINNING.index };
    let members = &identity.first_members;
    let voters = VoterSet { ids: members.keys().copied().collect() };
    let node = |(id, peer_urls): (&u64, &Vec<String>)| Node {
        id: *id,
        peer_urls: peer_urls.clone(),
        voter_wanted: true,
    };
    let nodes = members.iter().map(node).collect();
    Ok(Applied {
        position: Some(position),
        membership_position: Some(position),
        membership: Some(Membership { configs: vec![voters], nodes }),
        revision,
        compacted,
        installed: false,
    })
}

/// Copies records and what else is the data's; what was the old cluster's alone stays behind: its members, who they were, its alarms.
fn fill(mut installer: Installer, survey: &Survey, input: impl Read, applied: &Applied) -> Result<(), Error> {
    let mut state: BTreeMap<Bytes, Bytes> = applied.membership.iter().flat_map(members).collect();
    let mut reader = survey.again(input)?;
    for item in reader.by_ref() {
        match item.map_err(backup::Error::from)? {
            Item::Record(place, bytes) => installer.record(place, bytes)?,
            Item::Meta(key, value) => {
                if let Some(value) = carried_over(&key, value)? {
                    state.insert(key, value);
                }
            }
        }
    }
    survey.same(&reader)?;
    for (key, value) in state {
        installer.meta(key, value)?;
    }
    installer.finish(applied.encode_to_vec().into())?;
    Ok(())
}

/// Members as they are before they have started for the first time.
fn members(membership: &Membership) -> Vec<(Bytes, Bytes)> {
    let stored = |node: &Node| {
        let member =
            StoredMember { id: node.id, peer_urls: node.peer_urls.clone(), ..StoredMember::default() };
        (stored::member_key(node.id), member.encode_to_vec().into())
    };
    membership.nodes.iter().map(stored).collect()
}

/// A lease begins anew with its full time: who holds it was not heard for as long as the backup is old.
fn carried_over(key: &[u8], value: Bytes) -> Result<Option<Bytes>, backup::Error> {
    match key {
        [stored::MEMBER | stored::REMOVED | stored::ALARM, ..] => Ok(None),
        [stored::LEASE, ..] => {
            let lease = StoredLease::decode(value).map_err(|error| {
                backup::Error::Unknown(format!("the lease at {key:?} does not decode: {error}"))
            })?;
            let lease = StoredLease { epoch: BEGINNING.index, remaining_ttl: 0, ..lease };
            Ok(Some(lease.encode_to_vec().into()))
        }
        _ => Ok(Some(value)),
    }
}

/// A log of which everything up to the beginning is gone, as after a snapshot, with a vote that is spent.
fn begin_log(disk: Arc<Files>, dir: &Path) -> Result<(), Error> {
    disk.create_dir(dir).map_err(|source| Error::Vote { dir: dir.to_owned(), source })?;
    let options = WalOptions { workers: Workers::Caller, segment_bytes: 1 << 20, ..WalOptions::default() };
    let wal = Wal::open(disk, dir, options)?;
    wal.purge(BEGINNING);
    let (tell, told) = std::sync::mpsc::sync_channel(1);
    let vote = Vote { term: BEGINNING.term, node: BEGINNING.node, committed: false };
    wal.save_vote(vote, move |outcome| drop(tell.send(outcome)));
    let saved = told.recv().unwrap_or_else(|_| Err(std::io::Error::other("the log was closed meanwhile")));
    saved.map_err(|source| Error::Vote { dir: dir.to_owned(), source })?;
    wal.close();
    Ok(())
}
