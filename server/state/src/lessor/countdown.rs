//! One lease as the leader counts it: until when, and when to have what is left of it remembered. Knows nothing of queues but
//! its own place in them.

use super::{Millis, Pace};
use crate::lease::Lease;

#[derive(Debug)]
pub(super) struct Countdown {
    pub ttl_s: i64,
    pub epoch: u64,
    pub deadline: Millis,
    /// The deadline without what a change of leader gave on top. What is replicated counts up to here, so that such gifts do
    /// not add up.
    pub owed: Millis,
    /// Its time had run out when someone looked: only its end or the leadership's changes that.
    pub leaving: bool,
    /// The log may hold a remaining time shorter than the TTL, for the next leader to count from.
    pub undercut: bool,
    /// Counted from when this member came to lead, for want of knowing since when to count; a majority may know.
    pub guessed: bool,
    /// Until when it lasts if the renewal is acknowledged that members are being told of.
    pub told: Millis,
    /// The next checkpoint is due when so many seconds are left; 0: there is none.
    pub mark_s: i64,
    /// Its place in the queue of deadlines; None while its removal is being decided.
    pub queued: Option<Millis>,
    pub checkpoint_queued: Option<Millis>,
}

impl Countdown {
    pub fn granted(ttl_s: i64, epoch: u64, now: Millis, pace: &Pace) -> Countdown {
        let deadline = now.plus(to_ms(ttl_s));
        Countdown {
            ttl_s,
            epoch,
            deadline,
            owed: deadline,
            leaving: false,
            undercut: false,
            guessed: false,
            told: Millis(0),
            mark_s: first_mark_s(ttl_s, pace),
            queued: None,
            checkpoint_queued: None,
        }
    }

    /// With what the log remembers of its time, as if that had been written just now.
    pub fn remembered(lease: &Lease, now: Millis, extension_ms: u64, pace: &Pace) -> Countdown {
        let left_s = lease.remembered_s();
        let mut countdown = Countdown::granted(lease.ttl_s, lease.epoch, now, pace);
        countdown.undercut = left_s < lease.ttl_s;
        if countdown.undercut {
            countdown.mark_s = next_mark_s(lease.ttl_s, left_s, pace);
        }
        countdown.count_from(now.plus(to_ms(left_s)), now, extension_ms);
        countdown
    }

    /// A majority knows that it is owed no more than until then; `led_since`: when this member came to lead.
    pub fn recalled(&mut self, owed: Millis, led_since: Millis, extension_ms: u64, now: Millis) {
        self.guessed = false;
        if owed < self.owed {
            self.count_from(owed, led_since, extension_ms);
            // Not while its holder may still be looking for the new leader; and what is replicated is rounded up to a second.
            let noticed = led_since.plus(extension_ms).max(now);
            self.mark_s = self.mark_s.min((owed.since(noticed) / 1_000) as i64);
        }
    }

    /// Whoever has a lease is given some time to find the new leader.
    fn count_from(&mut self, owed: Millis, led_since: Millis, extension_ms: u64) {
        self.owed = owed;
        self.deadline = owed.max(led_since).plus(extension_ms);
    }

    /// It may be renewed in a moment.
    pub fn told(&mut self, now: Millis) {
        self.guessed = false;
        self.told = now.plus(to_ms(self.ttl_s));
    }

    /// Counts the whole TTL from `now`. Never takes time back that a change of leader gave: the queue relies on it.
    pub fn restart(&mut self, now: Millis, pace: &Pace) {
        let end = now.plus(to_ms(self.ttl_s));
        self.deadline = self.deadline.max(end);
        self.owed = self.owed.max(end);
        self.mark_s = first_mark_s(self.ttl_s, pace);
    }

    pub fn checkpoint_due(&self) -> Option<Millis> {
        let due = || Millis(self.owed.0.saturating_sub(to_ms(self.mark_s)));
        (self.mark_s > 0 && !self.leaving).then(due)
    }

    /// The remaining time to replicate, in seconds rounded up; None when the whole TTL or nothing is left.
    pub fn checkpoint(&mut self, now: Millis, pace: &Pace) -> Option<i64> {
        let remaining_s = self.owed.since(now).div_ceil(1_000) as i64;
        self.mark_s = next_mark_s(self.ttl_s, remaining_s, pace);
        let worth_it = 0 < remaining_s && remaining_s < self.ttl_s;
        self.undercut |= worth_it;
        worth_it.then_some(remaining_s)
    }
}

/// Clients renew when a third of the TTL has passed, and some look only twice a second whether it has. A lease that was not renewed
/// within two fifths of it, and a second more than a third, is one whose holder has probably gone. A long one is noted each
/// interval, however it is renewed.
fn first_mark_s(ttl_s: i64, pace: &Pace) -> i64 {
    let Some(interval_s) = pace.checkpoint_interval_s() else { return 0 };
    let two_fifths = ttl_s.saturating_mul(2) / 5;
    let third_and_one = ttl_s.saturating_add(2) / 3 + 1;
    ttl_s.saturating_sub(two_fifths.max(third_and_one).min(interval_s)).max(0)
}

/// When half of what was left has passed, or the interval, but not below an eighth of the TTL: a lease left to itself is noted
/// three times at most, and once more for each interval that it lasts.
fn next_mark_s(ttl_s: i64, left_s: i64, pace: &Pace) -> i64 {
    let Some(interval_s) = pace.checkpoint_interval_s() else { return 0 };
    let mark_s = (left_s / 2).max(left_s.saturating_sub(interval_s));
    if mark_s > ttl_s / 8 { mark_s } else { 0 }
}

/// Seconds of the machine to milliseconds. The machine admits neither negative TTLs nor any near the end of the range.
pub(super) fn to_ms(seconds: i64) -> u64 {
    u64::try_from(seconds).unwrap_or(0).saturating_mul(1_000)
}
