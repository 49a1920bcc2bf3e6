//! The one place that builds response headers.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tenure_proto::etcdserverpb::ResponseHeader;
use tenure_state::Revision;
use tokio::sync::watch;

use crate::raft::Leadership;

/// Who answers, and in which term.
#[derive(Clone)]
pub struct Headers {
    cluster_id: u64,
    member_id: u64,
    leadership: Arc<watch::Receiver<Leadership>>,
    is_learner: Arc<AtomicBool>,
}

impl Headers {
    pub fn new(
        cluster_id: u64,
        member_id: u64,
        leadership: watch::Receiver<Leadership>,
        is_learner: Arc<AtomicBool>,
    ) -> Headers {
        Headers { cluster_id, member_id, leadership: Arc::new(leadership), is_learner }
    }

    /// A header with the store's revision as the answer saw it; 0 where etcd sends none.
    pub fn at(&self, revision: Revision) -> ResponseHeader {
        ResponseHeader {
            cluster_id: self.cluster_id,
            member_id: self.member_id,
            revision: revision.0,
            raft_term: self.leadership.borrow().term,
        }
    }

    pub fn leadership(&self) -> Leadership {
        *self.leadership.borrow()
    }

    pub fn cluster_id(&self) -> u64 {
        self.cluster_id
    }

    /// Ends once there has been no leader for a long time.
    pub fn long_lost(&self) -> impl Future<Output = ()> + Send + 'static + use<> {
        let leadership = self.leadership.clone();
        async move {
            let mut leadership = (*leadership).clone();
            if leadership.wait_for(|now| now.long_lost).await.is_err() {
                // The member stops, and ends its streams for that.
                std::future::pending().await
            }
        }
    }

    /// Whether this member only learns so far.
    pub fn is_learner(&self) -> bool {
        self.is_learner.load(Ordering::Relaxed)
    }

    pub fn member_id(&self) -> u64 {
        self.member_id
    }
}
