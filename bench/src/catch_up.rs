//! How a follower that was away for many writes comes back: how long until it is up with the others, and how much of their
//! rate the others keep meanwhile. All writes go to the members that stay, before and after alike, so that rates compare.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use rustix::process::Signal;
use tokio::time::sleep_until;

use crate::cluster::Cluster;
use crate::failure::Failure;
use crate::grpc::Connection;
use crate::outcome::{MIB, Metric, Outcome};
use crate::process::Sample;
use crate::run::{Limit, Measured, Run};
use crate::session::{Session, connections_for};
use crate::status;
use crate::workload::put::Putter;

const POLL: Duration = Duration::from_millis(20);
/// While writes go on, a follower is always some entries behind: it is up with the others once it has applied what they had
/// applied so long ago.
const LAG: Duration = Duration::from_millis(250);
/// A rate is measured for so long at least.
const RATE_SPAN_MIN: Duration = Duration::from_secs(1);
/// A bound on the writing while the follower is away.
const AWAY_LIMIT: Duration = Duration::from_secs(1800);

/// How the follower is taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Absence {
    /// Killed, and started again
    Kill,
    /// Stopped as by SIGSTOP, and continued
    Pause,
}

pub(crate) struct CatchUp {
    /// Puts while the follower is away.
    pub(crate) writes: u64,
    pub(crate) by: Absence,
    /// How long it may take to be back.
    pub(crate) limit: Duration,
}

impl CatchUp {
    pub(crate) async fn measure(&self, cluster: &mut Cluster, session: &Session) -> Result<Outcome, Failure> {
        if session.endpoints.len() < 3 {
            return Err(Failure::setup("fewer than 3 members cannot spare one: use --members 3"));
        }
        let leader = cluster.until(POLL, async || status::leader_among(&session.endpoints).await).await?;
        let follower = (leader + 1) % session.endpoints.len();
        let stay = staying(session, follower);
        let connections = stay.connect().await?;

        let limit = session.load.limit.clone();
        let before = write(&stay, &connections, "before", limit).await?;
        self.take_away(cluster, follower).await;
        let away = Limit { total: Some(self.writes), ..whole(AWAY_LIMIT) };
        let without = write(&stay, &connections, "without it", away).await?;
        let missed = without.counts.all().len();

        self.bring_back(cluster, follower)?;
        let run = Run::begin(&stay, "catching up", whole(self.limit));
        let tasks = run.spawn(putters(&stay, &connections));
        let following = async {
            let caught_up = follow(cluster, session, follower).await;
            run.end();
            caught_up
        };
        let (during, caught_up) = tokio::join!(run.finish(tasks, async {}), following);
        let (during, caught_up) = (during?, caught_up?);

        let mut errors = before.counts.errors.clone();
        errors.merge(without.counts.errors.clone());
        let rates = [per_second(&before), per_second(&without), per_second(&during)];
        let mut outcome = Outcome::of_requests(&stay, "catch-up", during);
        outcome.errors.merge(errors);
        outcome.facts = vec![
            Metric::lower("caught up", "ms", caught_up.as_secs_f64() * 1000.0),
            Metric::higher("rate kept", "%", 100.0 * rates[2] / rates[0].max(1e-9)),
            Metric::higher("writes before", "/s", rates[0]),
            Metric::higher("writes without it", "/s", rates[1]),
            Metric::neither("missed writes", "", missed as f64),
            Metric::lower("peak RSS of the others", "MiB", self.peak_rss(cluster, follower)?),
        ];
        if missed < self.writes && !session.stop.is_set() {
            outcome
                .violations
                .push(format!("{missed} of {} writes succeeded without one member", self.writes));
        }
        Ok(outcome)
    }

    async fn take_away(&self, cluster: &mut Cluster, follower: usize) {
        match self.by {
            Absence::Kill => cluster.end(follower, Signal::KILL).await,
            Absence::Pause => cluster.signal(follower, Signal::STOP),
        }
    }

    fn bring_back(&self, cluster: &mut Cluster, follower: usize) -> Result<(), Failure> {
        match self.by {
            Absence::Kill => cluster.start_again(follower).map(drop),
            Absence::Pause => {
                cluster.signal(follower, Signal::CONT);
                Ok(())
            }
        }
    }

    fn peak_rss(&self, cluster: &Cluster, follower: usize) -> Result<f64, Failure> {
        let mut others = cluster.process_ids();
        others.remove(follower);
        Ok(Sample::of(&others)?.peak_rss_bytes as f64 / MIB)
    }
}

/// Waits until the follower is up with the others; gives how long that took.
async fn follow(cluster: &mut Cluster, session: &Session, follower: usize) -> Result<Duration, Failure> {
    let started = Instant::now();
    let (follower, mut others) = (session.endpoints[follower].clone(), session.endpoints.clone());
    others.retain(|endpoint| *endpoint != follower);
    let mut applied = VecDeque::new();
    let behind = async || {
        applied.push_back((Instant::now(), status::log_end(&others).await?.1));
        while applied.front().is_some_and(|(at, _)| at.elapsed() > LAG) {
            applied.pop_front();
        }
        let target = applied.front().map_or(u64::MAX, |(_, index)| *index);
        match status::of(&follower).await?.raft_applied_index {
            index if index >= target => Ok(started.elapsed()),
            index => Err(Failure::wrong(format!("{index} of {target} entries applied"))),
        }
    };
    let caught_up = cluster.until(POLL, behind).await?;
    tokio::select! {
        () = sleep_until((started + RATE_SPAN_MIN).into()) => {}
        () = session.stop.wait() => {}
    }
    Ok(caught_up)
}

/// The session of those who only know the members that stay.
fn staying(session: &Session, follower: usize) -> Session {
    let mut stay = session.clone();
    stay.endpoints.remove(follower);
    stay.load.connections = connections_for(stay.load.clients, stay.endpoints.len());
    stay.server_pids = Vec::new();
    stay
}

async fn write(
    session: &Session,
    connections: &[Connection],
    label: &'static str,
    limit: Limit,
) -> Result<Measured, Failure> {
    let run = Run::begin(session, label, limit);
    let tasks = run.spawn(putters(session, connections));
    run.finish(tasks, async {}).await
}

fn putters(session: &Session, connections: &[Connection]) -> Vec<Putter> {
    let values = session.values();
    session.callers(connections, |connection, n| Putter::new(session, connection, n, values.clone(), false))
}

fn whole(duration: Duration) -> Limit {
    Limit { total: None, duration, warmup: Duration::ZERO, rate: None }
}

fn per_second(measured: &Measured) -> f64 {
    measured.counts.all().len() as f64 / measured.span.elapsed.as_secs_f64().max(1e-9)
}
