//! How long a cluster is away when its leader is killed. Puts and linearizable gets are sent to every member at a steady rate,
//! whether or not earlier ones are answered; the leader is killed; what counts is the longest time in which none succeeded.
//! Then it is started again, has caught up, and the next round kills whoever leads by then.
//!
//! Calls do not wait for each other, because a call that was on its way to the dead leader may hang for seconds: waiting for it
//! would measure the server's timeout instead of its absence.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio::time::sleep;

use crate::cluster::Cluster;
use crate::comparison::median;
use crate::failure::Failure;
use crate::outcome::{Metric, Outcome};
use crate::probe::{self, Ledger};
use crate::run::Measured;
use crate::session::Session;
use crate::span::Meter;
use crate::status;
use crate::tally::{Errors, empty_histogram};

const POLL: Duration = Duration::from_millis(10);
/// A cluster that answers again is watched for so long: another election may follow the first.
const AFTERWARDS: Duration = Duration::from_secs(2);

pub(crate) struct Failover {
    /// Leaders killed one after the other.
    pub(crate) rounds: u32,
    /// Puts, and as many gets, sent to each member per second.
    pub(crate) rate: u32,
    /// How long the cluster may be away, and a member may take to catch up.
    pub(crate) limit: Duration,
}

/// What one killed leader cost, in milliseconds; puts first, then gets.
struct Round {
    /// The longest time without a success at any member.
    away: [f64; 2],
    /// The same for the surviving member that was away longest.
    slowest: [f64; 2],
    /// From the start of the killed member until it had applied what the others had by then.
    back: f64,
}

impl Failover {
    pub(crate) async fn measure(&self, cluster: &mut Cluster, session: &Session) -> Result<Outcome, Failure> {
        if session.endpoints.len() < 3 {
            return Err(Failure::setup("fewer than 3 members cannot spare one: use --members 3"));
        }
        let meter = Meter::begin(Instant::now(), &[])?;
        let ledger = Arc::new(Mutex::new(Ledger::new(session.endpoints.len())));
        let probes = probe::start(session, self.rate, &ledger);
        let bar = session.progress.start("failover", Some(self.rounds.into()), Duration::ZERO);
        let mut rounds = Vec::new();
        while rounds.len() < self.rounds as usize && !session.stop.is_set() {
            rounds.push(self.round(cluster, session, &ledger).await?);
            bar.add(1);
        }
        drop((bar, probes));
        let counts = locked(&ledger).take_counts();
        let failed = counts.errors.total();
        let mut outcome = Outcome::of_requests(session, "failover", Measured { counts, span: meter.end()? });
        // Calls to a member that was killed fail, and must.
        outcome.errors = Errors::default();
        // Latencies are for the JSON; what compares is the absence.
        outcome.latency = empty_histogram();
        outcome.has_throughput = false;
        outcome.facts = facts(&rounds);
        outcome.facts.push(Metric::neither("failed calls", "", failed as f64));
        Ok(outcome)
    }

    async fn round(
        &self,
        cluster: &mut Cluster,
        session: &Session,
        ledger: &Mutex<Ledger>,
    ) -> Result<Round, Failure> {
        let all: Vec<_> = (0..session.endpoints.len()).collect();
        self.served(ledger, &all, Instant::now()).await?;
        let leader = cluster.until(POLL, async || status::leader_among(&session.endpoints).await).await?;
        let survivors: Vec<_> = all.into_iter().filter(|member| *member != leader).collect();

        locked(ledger).forget_gaps();
        cluster.end(leader, Signal::KILL).await;
        self.served(ledger, &survivors, Instant::now()).await?;
        tokio::select! {
            () = sleep(AFTERWARDS) => {}
            () = session.stop.wait() => {}
        }
        let (away, slowest) = {
            let (ledger, now) = (locked(ledger), Instant::now());
            (ledger.longest_anywhere(now), ledger.longest_of(&survivors, now))
        };

        let (_, target) = status::log_end(&session.endpoints).await?;
        let started = cluster.start_again(leader)?;
        let returned = session.endpoints[leader].clone();
        let behind = async || match status::of(&returned).await?.raft_applied_index {
            applied if applied >= target => Ok(()),
            applied => Err(Failure::wrong(format!("{applied} of {target} entries applied"))),
        };
        cluster.until(POLL, behind).await?;
        Ok(Round { away: away.map(ms), slowest: slowest.map(ms), back: ms(started.elapsed()) })
    }

    /// Returns once each of the members has answered a put and a get that was sent after `since`.
    async fn served(&self, ledger: &Mutex<Ledger>, members: &[usize], since: Instant) -> Result<(), Failure> {
        loop {
            let missing = locked(ledger).unserved(members, since);
            let Some(missing) = missing else { return Ok(()) };
            if since.elapsed() > self.limit {
                return Err(Failure::unanswered(format!("{missing} for {:?}", self.limit)));
            }
            sleep(POLL).await;
        }
    }
}

fn facts(rounds: &[Round]) -> Vec<Metric> {
    let names = [
        ["put away, median", "put away, worst", "put away at the slowest member, median"],
        ["get away, median", "get away, worst", "get away at the slowest member, median"],
    ];
    let middle = |values: Vec<f64>| median(&values).unwrap_or_default();
    let mut facts = vec![Metric::neither("leaders killed", "", rounds.len() as f64)];
    for (kind, [usual, worst, slowest]) in names.into_iter().enumerate() {
        let away: Vec<_> = rounds.iter().map(|round| round.away[kind]).collect();
        facts.push(Metric::lower(usual, "ms", middle(away.clone())));
        facts.push(Metric::lower(worst, "ms", away.into_iter().fold(0.0, f64::max)));
        let slow = rounds.iter().map(|round| round.slowest[kind]).collect();
        facts.push(Metric::lower(slowest, "ms", middle(slow)));
    }
    let back = rounds.iter().map(|round| round.back).collect();
    facts.push(Metric::lower("back and caught up, median", "ms", middle(back)));
    facts
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

fn locked(ledger: &Mutex<Ledger>) -> MutexGuard<'_, Ledger> {
    ledger.lock().expect("nothing panics while noting an answer")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_round_is_shown_beside_the_usual_one() {
        let round = |put, get| Round { away: [put, get], slowest: [put + 1.0, get + 1.0], back: 50.0 };
        let facts = facts(&[round(900.0, 1.0), round(1200.0, 2.0), round(5000.0, 3.0)]);
        let value = |name| facts.iter().find(|fact| fact.name == name).map(|fact| fact.value);
        assert_eq!(value("put away, median"), Some(1200.0));
        assert_eq!(value("put away, worst"), Some(5000.0));
        assert_eq!(value("get away at the slowest member, median"), Some(3.0));
        assert_eq!(value("leaders killed"), Some(3.0));
    }
}
