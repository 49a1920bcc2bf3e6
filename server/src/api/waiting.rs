//! A place in one of etcd's lines on behalf of a call: taken, waited for, and given up when the caller goes away. The lease of a caller
//! who brought none is the call's own.

use std::time::Duration;

use bytes::Bytes;
use tenure_recipes::etcd::line::{self, Place, Turn};
use tenure_recipes::etcd::lock::LEASE_TTL_S;
use tenure_recipes::{Failure, Primitives};
use tokio::sync::oneshot;

use crate::node::Here;

/// Between renewals of the call's own lease.
const RENEWAL: Duration = Duration::from_secs(LEASE_TTL_S as u64 / 3);
/// Tries to give up a place of a caller who is gone, and the pause between them: for as long as a cluster may be without a leader. After
/// that the place ends with its lease.
const TRIES: usize = 120;
const PAUSE: Duration = Duration::from_millis(500);

/// A place that is given up when this is dropped, unless it is kept.
pub struct Standing {
    here: Here,
    pub place: Place,
    pub lease: i64,
    /// The lease was made for this call.
    own_lease: bool,
    kept: bool,
}

impl Standing {
    /// Takes a place in the line of a name. A `lease` of 0 has one made for the call.
    pub async fn take(here: &Here, name: Bytes, lease: i64, value: Bytes) -> Result<Standing, Failure> {
        // Not by the caller's own task: who goes away meanwhile would leave a place behind that nobody knows of.
        let (tell, told) = oneshot::channel();
        let here = here.clone();
        tokio::spawn(async move {
            // Whoever does not hear of it drops the place, and with that gives it up.
            let _ = tell.send(stand(here, name, lease, value).await);
        });
        told.await
            .unwrap_or_else(|_| Err(Failure::Unavailable("this member is stopping; ask another one".into())))
    }

    pub async fn wait(&self) -> Result<Turn, Failure> {
        if !self.own_lease {
            return line::wait(&self.here, &self.place).await;
        }
        let renewing = async {
            loop {
                tokio::time::sleep(RENEWAL).await;
                // If it does not succeed, the end of the lease is seen at the key.
                let _ = self.here.keep_alive(self.lease).await;
            }
        };
        let turn = tokio::select! {
            turn = line::wait(&self.here, &self.place) => turn?,
            () = renewing => return Ok(Turn::Gone),
        };
        // The caller's time begins now, however long he waited.
        let _ = self.here.keep_alive(self.lease).await;
        Ok(turn)
    }

    /// The caller has it now.
    pub fn keep(mut self) {
        self.kept = true;
    }
}

async fn stand(here: Here, name: Bytes, lease: i64, value: Bytes) -> Result<Standing, Failure> {
    let own_lease = lease == 0;
    let lease = if own_lease { here.unused_lease() } else { lease };
    if own_lease {
        here.grant(lease, LEASE_TTL_S).await?;
    }
    let place = line::enter(&here, name, lease, value).await?;
    Ok(Standing { here, place, lease, own_lease, kept: false })
}

impl Drop for Standing {
    fn drop(&mut self) {
        // A place that an earlier call took is that call's to give up.
        if self.kept || !self.place.fresh {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(leave(self.here.clone(), self.place.clone(), self.own_lease.then_some(self.lease)));
    }
}

async fn leave(here: Here, place: Place, own_lease: Option<i64>) {
    for _ in 0..TRIES {
        let left = match own_lease {
            Some(lease) => here.revoke(lease).await.map(drop),
            None => line::leave(&here, &place.key, place.create_revision).await.map(drop),
        };
        match left {
            Ok(()) => return,
            Err(failure) => tracing::debug!(%failure, "could not give up the place of a caller who is gone"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}
