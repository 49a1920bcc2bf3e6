//! Who leads, as far as is known here, and whether it is still heard: the library tells the one, time the other. A leader that
//! vanished stays the leader of its term until a quorum has another, and a member that is cut off never learns of it.

use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use openraft::{Instant, ServerState};
use tokio::sync::watch;

use super::Raft;
use super::types::Mandate;
use crate::metrics::Leaders;
use crate::peers::Peers;

/// Silence after which a leader counts as lost, in election timeouts, as a fraction: followers ask for votes after that.
const SILENCE: (u32, u32) = (3, 2);
/// Election timeouts without a leader after which streams that demand one end: etcd's figure.
const PATIENCE: u32 = 3;
/// Looks in an election timeout.
const LOOKS: u32 = 4;

/// What this member knows of the cluster's leadership.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leadership {
    pub term: u64,
    /// None while nobody is known to lead.
    pub leader: Option<u64>,
    /// Whether this member leads, with a quorum's consent in this term.
    pub here: bool,
    /// Nobody is known to lead, or who did was not heard of for some time; of the leader itself: a quorum was not.
    pub lost: bool,
    /// It has been so for three election timeouts.
    pub long_lost: bool,
}

impl Default for Leadership {
    fn default() -> Leadership {
        Leadership { term: 0, leader: None, here: false, lost: true, long_lost: false }
    }
}

impl Leadership {
    /// Who leads in which term; None while nobody is known to.
    pub fn mandate(self) -> Option<Mandate> {
        self.leader.map(|member| Mandate { term: self.term, member })
    }
}

/// Follows the library's own news of votes and leaders, and the time, for as long as the library lives. On the way the
/// address book learns where the members are that the log speaks of: a leader may have to be asked before it is first heard.
pub fn follow(raft: Raft, peers: Peers, election: Duration, leaders: Leaders) -> watch::Receiver<Leadership> {
    let (tell, leadership) = watch::channel(Leadership::default());
    tokio::spawn(async move {
        let mut news = raft.server_metrics();
        let (mut silent, mut looks_lost) = (false, 0);
        let mut last_seen = None;
        loop {
            let metrics = news.borrow_watched().clone();
            for (id, peer) in
                metrics.membership_config.membership().nodes().filter(|(id, _)| **id != metrics.id)
            {
                peers.learn(*id, &peer.peer_urls);
            }
            let leader = metrics.current_leader;
            let lost = leader.is_none() || silent;
            let now = Leadership {
                term: metrics.vote.leader_id.term,
                leader,
                here: metrics.state == ServerState::Leader && leader == Some(metrics.id),
                lost,
                long_lost: lost && looks_lost >= PATIENCE * LOOKS,
            };
            if now.leader.is_some() && now.mandate() != last_seen {
                last_seen = now.mandate();
                leaders.changes_seen.increment(1);
            }
            tell.send_if_modified(|known| std::mem::replace(known, now) != now);
            if !lost {
                looks_lost = 0;
            }
            match tokio::time::timeout(election / LOOKS, news.changed()).await {
                Ok(Ok(())) => silent = false,
                Ok(Err(_)) => return,
                Err(_) => {
                    looks_lost += 1;
                    silent = is_silent(&raft, election * SILENCE.0 / SILENCE.1).await;
                }
            }
        }
    });
    leadership
}

/// Whether nothing was heard of a leader for so long; of a leader itself: whether no quorum answered it.
async fn is_silent(raft: &Raft, bound: Duration) -> bool {
    let acknowledged = {
        let metrics = raft.metrics();
        let metrics = metrics.borrow_watched();
        if metrics.membership_config.membership().voter_ids().count() <= 1 {
            return false;
        }
        metrics.last_quorum_acked.map(|at| at.elapsed())
    };
    let leads = raft.server_metrics().borrow_watched().state == ServerState::Leader;
    if leads && let Some(acknowledged) = acknowledged {
        return acknowledged > bound;
    }
    match raft.with_raft_state(|state| state.vote_last_modified()).await {
        Ok(Some(heard)) => heard.elapsed() > bound,
        Ok(None) | Err(_) => false,
    }
}
