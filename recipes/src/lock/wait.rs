//! Waiting for a grant: a watch on the one key that is the place in the queue. It goes when the turn has come, and when the session has
//! ended; one more look tells which. So a step of the queue wakes one waiter.

use tenure_proto::tenure::v1::LockGrant;

use super::acquire::{Claim, Ticket, claim, grants_of};
use super::keys::Keys;
use super::reading::Fresh;
use crate::key::Root;
use crate::primitives::{Changes, Failure, Primitives};

/// How waiting ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Waited {
    Granted {
        grants: Vec<LockGrant>,
        revision: i64,
    },
    /// The place is gone and there is no grant: the session has ended, or somebody else left for this owner.
    Gone {
        revision: i64,
    },
}

/// Safe to drop and to call again with the same ticket.
pub async fn wait<P: Primitives>(primitives: &P, root: &Root, ticket: &Ticket) -> Result<Waited, Failure> {
    let key = Keys::new(root, &ticket.locks[0].name).queued(&ticket.number, &ticket.owner);
    let mut since = ticket.revision;
    loop {
        let mut changes = primitives.watch(key.clone(), Vec::new(), since + 1).await?;
        let fresh = match changes.next().await {
            Ok(change) => Fresh::Since(change.revision),
            Err(Failure::Compacted { .. }) => Fresh::Now,
            Err(failure) => return Err(failure),
        };
        let (claimed, revision) = claim(primitives, root, &ticket.owner, &ticket.locks, fresh).await?;
        match claimed {
            Claim::Held(held) => {
                return Ok(Waited::Granted { grants: grants_of(root, &ticket.locks, &held), revision });
            }
            Claim::Waiting(now) if now.number == ticket.number => since = revision,
            Claim::Nothing | Claim::Waiting(_) | Claim::Mixed => return Ok(Waited::Gone { revision }),
        }
    }
}
