//! A lease that its holder left alone ends in its time, or one election timeout after the last change of leader, and not a whole
//! time to live after each. Judged where members knew what is to be known: while all are up and none has lost what it was told.

use super::no_early_expiry::{ends, promised};
use super::{Invariant, Scene};
use crate::journal::{Ask, Exchange, Told};
use crate::member::ELECTION;

/// What the leader waits after a lease's time on purpose, and what a try that failed takes until the next.
const SLACK_MS: u64 = 200 + 500;
/// If the cluster writes for so long, without a pause as long as the other, its leader could have removed what is over, however slow disks and
/// links are.
const AT_WORK_MS: u64 = 1_500;
const PAUSE_MS: u64 = 300;

#[derive(Default)]
pub struct NoLateEnd {
    /// When somebody was first seen to lead in a term.
    led: Vec<(u64, (u64, usize))>,
    /// The last moment at which not all members knew all, by moments.
    unknowing_ms: Vec<u64>,
    judged: usize,
}

impl Invariant for NoLateEnd {
    fn law(&self) -> &'static str {
        "a lease left alone ends in time"
    }

    fn look(&mut self, scene: &Scene<'_>) -> Result<(), String> {
        for sight in scene.living() {
            let leadership = *sight.desk.consensus.leadership().borrow();
            let leads = (leadership.term, sight.member);
            if leadership.here && !self.led.iter().any(|(_, other)| *other == leads) {
                self.led.push((scene.now_ms, leads));
            }
        }
        let knowing = scene.living().filter(|sight| sight.desk.leases.standing().complete).count();
        if knowing < scene.sights.len() && self.unknowing_ms.last() != Some(&scene.now_ms) {
            self.unknowing_ms.push(scene.now_ms);
        }
        Ok(())
    }

    fn conclude(&mut self, scene: &Scene<'_>) -> Result<(), String> {
        let seen: Vec<u64> = scene.truth.revisions().map(|(_, happened)| happened.seen.ms).collect();
        for (lease, end) in ends(scene.truth) {
            let Some((used_ms, ttl_s)) = scene.journal.read(0, |all| last_use(all, lease)) else { continue };
            let between = |ms: &u64| (used_ms..=end.ms).contains(ms);
            if self.unknowing_ms.iter().any(between) {
                continue;
            }
            let due_ms = used_ms + ttl_s.unsigned_abs() * 1_000;
            let led_ms = self.led.iter().map(|(ms, _)| *ms).filter(|ms| *ms <= end.ms).max().unwrap_or(0);
            self.judged += usize::from(led_ms > used_ms);
            let latest_ms = due_ms.max(led_ms) + ELECTION.as_millis() as u64 + SLACK_MS;
            let meanwhile = seen.iter().copied().filter(|seen| latest_ms < *seen && *seen < end.ms);
            if let Some(began_ms) = at_work(meanwhile) {
                return Err(format!(
                    "lease {lease:x} was due at {due_ms} ms; at {led_ms} ms the leader changed for the last time, from {began_ms} ms \
                     on there were writes, but it ended at {} ms",
                    end.ms
                ));
            }
        }
        Ok(())
    }

    fn judged(&self) -> usize {
        self.judged
    }
}

/// When writes began that went on for long enough.
fn at_work(seen: impl Iterator<Item = u64>) -> Option<u64> {
    let (mut began_ms, mut last_ms) = (0, 0);
    for ms in seen {
        if ms > last_ms + PAUSE_MS {
            began_ms = ms;
        }
        last_ms = ms;
        if last_ms - began_ms >= AT_WORK_MS {
            return Some(began_ms);
        }
    }
    None
}

/// When its holder heard of it last, and for how many seconds; None if he let go of it, or cannot know.
fn last_use(exchanges: &[Exchange], lease: i64) -> Option<(u64, i64)> {
    let mut last = None;
    for exchange in exchanges {
        match (&exchange.ask, exchange.told.as_ref()) {
            (Ask::Revoke { lease: revoked }, _) if *revoked == lease => return None,
            (Ask::Renew { lease: renewed }, told) if *renewed == lease => match told {
                None | Some((_, Told::Unknown(_))) => return None,
                Some(_) => {}
            },
            _ => {}
        }
        if let (Some((of, ttl_s)), Some((told, _))) = (promised(exchange), &exchange.told)
            && of == lease
        {
            last = last.max(Some((told.ms, ttl_s)));
        }
    }
    last
}
