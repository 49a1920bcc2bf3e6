//! Removes what compaction made unreadable, a slice at a time, while everybody else goes on.

use std::sync::Arc;
use std::time::Duration;

use tenure_state::{Effect, Fatal, Revision};
use tokio::sync::watch;

use super::error::Error;
use crate::raft::{Unavailable, View};

/// How gently it goes about it.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Keys looked at in one slice, while the state's lock is held.
    pub keys_at_once: usize,
    /// Rest after a slice that found something to remove.
    pub rest: Duration,
}

/// Knows how far sweeping has come, and hears of new compactions.
#[derive(Clone)]
pub struct Sweeper {
    view: Arc<View>,
    wanted: Arc<watch::Sender<Revision>>,
    swept: watch::Receiver<Revision>,
}

impl Sweeper {
    /// The handle, and the task to run beside it.
    pub fn new(view: Arc<View>, pace: Pace) -> (Sweeper, impl Future<Output = ()>) {
        let (wanted, wishes) = watch::channel(view.machine().compacted());
        let (done, swept) = watch::channel(Revision(0));
        let sweeper = Sweeper { view: view.clone(), wanted: Arc::new(wanted), swept };
        (sweeper, run(view, pace, wishes, done))
    }

    pub fn follow(&self, effect: &Effect) {
        if let Effect::Compacted { revision, .. } = effect {
            self.wanted.send_replace(*revision);
        }
    }

    /// The state was replaced: it brought its own compaction.
    pub fn restored(&self) {
        self.wanted.send_replace(self.view.machine().compacted());
    }

    /// Returns once everything that a compaction at `revision` made unreadable is gone from the store.
    pub async fn swept(&self, revision: Revision) -> Result<(), Error> {
        let mut swept = self.swept.clone();
        swept.wait_for(|swept| *swept >= revision).await.map_err(|_| Unavailable::Stopped)?;
        Ok(())
    }
}

/// Sweeps once at start, for what an earlier run left, and after each compaction.
async fn run(
    view: Arc<View>,
    pace: Pace,
    mut wishes: watch::Receiver<Revision>,
    done: watch::Sender<Revision>,
) {
    loop {
        let revision = *wishes.borrow_and_update();
        if let Err(fatal) = sweep(&view, pace).await {
            tracing::error!(%fatal, "could not remove compacted history; restart this member once its disk is well");
            return;
        }
        done.send_replace(revision);
        if wishes.changed().await.is_err() {
            return;
        }
    }
}

async fn sweep(view: &View, pace: Pace) -> Result<(), Fatal> {
    let mut after = None;
    loop {
        let (dropped, last) = view.sweep(after, pace.keys_at_once).await?;
        after = last;
        if after.is_none() {
            return view.store().settled().await;
        }
        match dropped {
            0 => tokio::task::yield_now().await,
            _ => tokio::time::sleep(pace.rest).await,
        }
    }
}
