//! Leases for what takes time. Their ids follow from what they are for, so that helpers who race make one lease and not many, and
//! whoever crashed between the grant and the txn leaves nothing that outlives its time.

use super::keys::{Keys, Timer};
use crate::primitives::{Failure, Primitives};

/// Ids tried for one purpose, should somebody else's lease have one of them.
const IDS: u8 = 8;
/// Questions about one id.
const QUESTIONS: usize = 4;

/// A lease that has just begun and lasts at least `ttl_s`. `about` tells one use of the timer from the others.
pub(super) async fn lease<P: Primitives>(
    primitives: &P,
    keys: &Keys,
    timer: Timer,
    about: &str,
    ttl_s: i64,
) -> Result<i64, Failure> {
    for number in 0..IDS {
        let lease = id(keys, timer, about, number);
        if obtain(primitives, lease, ttl_s).await? {
            return Ok(lease);
        }
    }
    Err(Failure::Unavailable(format!(
        "no lease for the {} of election {:?}; ask again",
        timer.word(),
        keys.name()
    )))
}

/// Whether the lease is ours: granted, or renewed if another helper granted it, for who knows when that was.
async fn obtain<P: Primitives>(primitives: &P, lease: i64, ttl_s: i64) -> Result<bool, Failure> {
    for _ in 0..QUESTIONS {
        match primitives.grant(lease, ttl_s).await {
            Ok(_) => return Ok(true),
            Err(Failure::LeaseExists | Failure::Unknown(_)) => {}
            Err(failure) => return Err(failure),
        }
        let Some(left) = primitives.time_to_live(lease).await? else { continue };
        // A store may raise a TTL, but not like that.
        if left.granted_s < ttl_s || left.granted_s > 2 * ttl_s + 60 {
            return Ok(false);
        }
        if primitives.keep_alive(lease).await?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Positive, and spread as far as random ones are (FNV-1a).
fn id(keys: &Keys, timer: Timer, about: &str, number: u8) -> i64 {
    const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let parts = [&keys.timer(timer)[..], about.as_bytes(), &[number]];
    let hash = parts.iter().fold(BASIS, |hash, part| {
        part.iter().chain(&[0xff]).fold(hash, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(PRIME))
    });
    (hash >> 1).max(1).cast_signed()
}
