//! One switch that ends a run early, so that ctrl-C still prints what was measured.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::child;

/// Seen by everything that waits or repeats.
#[derive(Clone)]
pub(crate) struct Stop(watch::Receiver<bool>);

impl Stop {
    /// A switch thrown by SIGINT, SIGTERM or SIGHUP; a second signal kills the started servers and exits at once.
    pub(crate) fn on_signals() -> std::io::Result<Self> {
        let (thrown, stop) = watch::channel(false);
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut hang_up = signal(SignalKind::hangup())?;
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                    _ = hang_up.recv() => {}
                }
                if thrown.send_replace(true) {
                    child::kill_all();
                    std::process::exit(130);
                }
            }
        });
        Ok(Self(stop))
    }

    pub(crate) fn is_set(&self) -> bool {
        *self.0.borrow()
    }

    /// Returns once the switch is thrown.
    pub(crate) async fn wait(&self) {
        if self.0.clone().wait_for(|thrown| *thrown).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
