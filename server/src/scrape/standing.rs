//! Where this member stands: whom it knows to lead, how far its log and its state are, and what is under way.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch::Receiver;

use crate::config::ETCD_COMPATIBILITY_VERSION;
use crate::ids::{ClusterId, MemberId};
use crate::metrics::{Counter, Gauge, Registry};
use crate::node::{Leases, Node, Writer};
use crate::raft::{Consensus, Leadership};

pub struct Standing {
    leadership: Receiver<Leadership>,
    learning: Arc<AtomicBool>,
    consensus: Consensus,
    writer: Writer,
    leases: Leases,
    lease_time_known: Gauge,
    has_leader: Gauge,
    is_leader: Gauge,
    is_learner: Gauge,
    term: Gauge,
    last: Gauge,
    committed: Gauge,
    applied: Gauge,
    behind: Gauge,
    purged: Gauge,
    pending: Gauge,
    failed: Counter,
}

impl Standing {
    pub fn new(node: &Node, cluster: ClusterId, member: MemberId, registry: &Registry) -> Standing {
        name(cluster, member, registry);
        let gauge = |name, help| registry.gauge((name, help), &[]);
        Standing {
            leadership: node.consensus.leadership(),
            learning: node.members.learning(),
            consensus: node.consensus.clone(),
            writer: node.writer.clone(),
            leases: node.leases.clone(),
            lease_time_known: gauge(
                "tenure_lease_time_known",
                "Whether this member knows all that the leader knew of leases' time when this one had to begin anew. If a majority \
                 does not when a leader is elected, leases may last up to their TTL longer.",
            ),
            has_leader: gauge("etcd_server_has_leader", "Whether this member hears of a leader."),
            is_leader: gauge("etcd_server_is_leader", "Whether this member leads."),
            is_learner: gauge("etcd_server_is_learner", "Whether this member only learns and has no vote."),
            term: gauge("tenure_raft_term", "The term that this member knows of."),
            last: gauge("tenure_raft_last_index", "Index of the last entry of this member's log."),
            committed: gauge(
                "etcd_server_proposals_committed_total",
                "Index up to which entries are committed.",
            ),
            applied: gauge(
                "etcd_server_proposals_applied_total",
                "Index up to which entries are applied here.",
            ),
            behind: gauge(
                "tenure_apply_behind_entries",
                "Entries that are committed and not applied here yet.",
            ),
            purged: gauge("tenure_raft_purged_index", "Index up to which the log is not kept any more."),
            pending: gauge("etcd_server_proposals_pending", "Proposals of this member that are under way."),
            failed: registry.counter(
                ("etcd_server_proposals_failed_total", "Proposals that got no answer in time."),
                &[],
            ),
        }
    }

    pub fn read(&self) {
        let now = *self.leadership.borrow();
        let progress = self.consensus.progress();
        let whether = |so: bool| if so { 1.0 } else { 0.0 };
        self.has_leader.set(whether(!now.lost));
        self.is_leader.set(whether(now.here));
        self.is_learner.set(whether(self.learning.load(Ordering::Relaxed)));
        self.term.set(now.term as f64);
        self.last.set(progress.last as f64);
        // The leader's word for what is committed may come after it was applied.
        let committed = progress.committed.max(progress.applied);
        self.committed.set(committed as f64);
        self.applied.set(progress.applied as f64);
        self.behind.set((committed - progress.applied) as f64);
        self.purged.set(progress.purged as f64);
        self.pending.set(self.writer.under_way() as f64);
        self.lease_time_known.set(whether(self.leases.standing().complete));
        self.failed.absolute(self.writer.failures());
    }
}

/// What this is, which does not change.
fn name(cluster: ClusterId, member: MemberId, registry: &Registry) {
    let is = |name, help, label, value: &str| registry.gauge((name, help), &[(label, value)]).set(1.0);
    let (minor, _) = ETCD_COMPATIBILITY_VERSION.rsplit_once('.').unwrap_or((ETCD_COMPATIBILITY_VERSION, ""));
    is("etcd_server_id", "This member's id.", "server_id", &member.to_string());
    is(
        "etcd_server_version",
        "The version of etcd as which this server answers.",
        "server_version",
        ETCD_COMPATIBILITY_VERSION,
    );
    is("etcd_cluster_version", "The same, of the cluster.", "cluster_version", &format!("{minor}.0"));
    let named = ("tenure_build_info", "The version of Tenure, and whose member this is.");
    let labels = [("version", env!("CARGO_PKG_VERSION")), ("cluster_id", &cluster.to_string())];
    registry.gauge(named, &labels).set(1.0);
}
