//! One lease as the leader counts it. Knows nothing of queues but its own place in them.

use super::Millis;
use crate::lease::Lease;

#[derive(Debug)]
pub(super) struct Countdown {
    pub ttl_s: i64,
    pub epoch: u64,
    pub deadline: Millis,
    /// Its time had run out when someone looked: only its end or the leadership's changes that.
    pub leaving: bool,
    /// The log may hold a remaining time shorter than the TTL, for the next leader to count from.
    pub undercut: bool,
    /// When its time was last set or replicated: the next checkpoint is due one interval later.
    pub noted: Millis,
    /// Its place in the queue of deadlines; None while its removal is being decided.
    pub queued: Option<Millis>,
    pub checkpoint_queued: Option<Millis>,
}

impl Countdown {
    pub fn granted(ttl_s: i64, epoch: u64, now: Millis) -> Countdown {
        Countdown {
            ttl_s,
            epoch,
            deadline: now.plus(to_ms(ttl_s)),
            leaving: false,
            undercut: false,
            noted: now,
            queued: None,
            checkpoint_queued: None,
        }
    }

    pub fn remembered(lease: &Lease, now: Millis, extension_ms: u64) -> Countdown {
        let undercut = 0 < lease.remaining_s && lease.remaining_s < lease.ttl_s;
        let left_s = if undercut { lease.remaining_s } else { lease.ttl_s };
        let deadline = now.plus(to_ms(left_s)).plus(extension_ms);
        Countdown { deadline, undercut, ..Countdown::granted(lease.ttl_s, lease.epoch, now) }
    }

    /// Counts the whole TTL from `now`. Never takes time back that a change of leader gave: the queue relies on it.
    pub fn restart(&mut self, now: Millis) {
        self.deadline = self.deadline.max(now.plus(to_ms(self.ttl_s)));
        self.noted = now;
    }

    /// The remaining time to replicate, in seconds rounded up; None when the whole TTL or nothing is left.
    pub fn checkpoint(&mut self, now: Millis) -> Option<i64> {
        self.noted = now;
        let remaining_s = self.deadline.since(now).div_ceil(1_000) as i64;
        let worth_it = 0 < remaining_s && remaining_s < self.ttl_s;
        self.undercut |= worth_it;
        worth_it.then_some(remaining_s)
    }
}

/// Seconds of the machine to milliseconds. The machine admits neither negative TTLs nor any near the end of the range.
fn to_ms(seconds: i64) -> u64 {
    u64::try_from(seconds).unwrap_or(0).saturating_mul(1_000)
}
