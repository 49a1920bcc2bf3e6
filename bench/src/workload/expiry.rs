//! Leases left to expire: none may go before its time, and the last should not go long after. Each lease carries a key, and one
//! watcher notes when the keys are deleted.
//!
//! A lease's time starts between the moment its grant was sent and the moment it was answered. *Early* is counted from the
//! first, *late* from the second, so both are certain.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use clap::Args;
use rand::rngs::SmallRng;
use tenure_proto::etcdserverpb::PutRequest;
use tenure_proto::mvccpb::event::EventType;
use tokio::time::sleep_until;

use crate::data::{Keys, Values};
use crate::failure::Failure;
use crate::grpc::{Connection, Method};
use crate::outcome::{Metric, Outcome};
use crate::run::{Caller, Measured, Turn};
use crate::session::Session;
use crate::span::{Meter, Span};
use crate::tally::Counts;
use crate::workload::watch::Stream;
use crate::workload::{LEASE_GRANT, PUT, lease};

#[derive(Args, Clone, Debug)]
pub(crate) struct Expiry {
    /// Leases, each with a key
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub(crate) leases: u64,

    /// Time to live of the leases in seconds; granting them all must take less
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(i64).range(1..=3600))]
    pub(crate) ttl: i64,

    /// Seconds after the last lease was due until the missing ones count as never expired
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) patience: u64,
}

impl Default for Expiry {
    fn default() -> Self {
        Self { leases: 1000, ttl: 5, patience: 60 }
    }
}

/// Between which moments a lease was granted or renewed, and for how long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Granted {
    pub(super) id: i64,
    pub(super) sent: Instant,
    pub(super) answered: Instant,
    pub(super) ttl: Duration,
}

/// When each key was seen deleted.
pub(super) type Deletions = Vec<Option<Instant>>;

impl Expiry {
    pub(crate) async fn run(&self, session: &Session) -> Result<Outcome, Failure> {
        let connections = session.connect().await?;
        let keys = session.keys.resized(self.leases).map_err(Failure::setup)?;
        let stream = Stream::open(&connections[0], std::iter::once(keys.all())).await?;
        let deletions = Arc::new(Mutex::new(vec![None; self.leases as usize]));
        let noting = tokio::spawn(note_deletions(stream, keys.clone(), deletions.clone()));

        let meter = Meter::begin(Instant::now(), &session.server_pids)?;
        let grants = grant_with_keys(session, &connections, &keys, self.ttl).await?;
        let last =
            grants.iter().map(|granted| granted.answered + granted.ttl).max().unwrap_or_else(Instant::now);
        let deadline = last + Duration::from_secs(self.patience);
        let bar =
            session.progress.start("expiring", None, deadline.saturating_duration_since(Instant::now()));
        let abort = noting.abort_handle();
        tokio::select! {
            noted = noting => noted.map_err(|e| Failure::setup(e.to_string()))??,
            () = sleep_until(deadline.into()) => {}
            () = session.stop.wait() => {}
        }
        abort.abort();
        drop(bar);

        let deletions = deletions.lock().expect("nothing panics while noting a deletion").clone();
        Ok(self.outcome(session, Verdict::of(&grants, &deletions), meter.end()?))
    }

    fn outcome(&self, session: &Session, verdict: Verdict, span: Span) -> Outcome {
        let (early, never) = (verdict.early, verdict.never);
        let counts = verdict.lateness.clone();
        let mut outcome = Outcome::of_requests(session, "expiry", Measured { counts, span });
        outcome.unit = "leases";
        outcome.has_throughput = false;
        outcome.facts = vec![
            Metric::lower("last late", "ms", outcome.latency.max() as f64 / 1000.0),
            Metric::lower("early", "leases", early as f64),
            Metric::lower("never", "leases", never as f64),
        ];
        verdict.complain(session, self.patience, &mut outcome);
        outcome
    }
}

/// Grants a lease for each key, and puts the key.
pub(super) async fn grant_with_keys(
    session: &Session,
    connections: &[Connection],
    keys: &Keys,
    ttl: i64,
) -> Result<Vec<Granted>, Failure> {
    let grants = Arc::new(Mutex::new(vec![None; keys.count as usize]));
    let values = session.values();
    let make = |connection: &Connection, n| Lessee {
        grant: connection.method(LEASE_GRANT),
        put: connection.method(PUT),
        keys: keys.clone(),
        values: values.clone(),
        random: session.random(n),
        ttl,
        grants: grants.clone(),
    };
    session.prepare("granting", keys.count, connections, make).await?;
    let grants = grants.lock().expect("nothing panics while noting a grant").clone();
    Ok(grants.into_iter().flatten().collect())
}

/// Notes deletions until all keys are gone.
pub(super) async fn note_deletions(
    mut stream: Stream,
    keys: Keys,
    deletions: Arc<Mutex<Deletions>>,
) -> Result<(), Failure> {
    let mut missing = keys.count;
    while missing > 0 {
        let response = stream.next().await?;
        let now = Instant::now();
        let mut deletions = deletions.lock().expect("nothing panics while noting a deletion");
        let deleted = response.events.iter().filter(|event| event.r#type() == EventType::Delete);
        for number in deleted.filter_map(|event| keys.number_of(&event.kv.as_ref()?.key)) {
            missing -= u64::from(deletions[number as usize].replace(now).is_none());
        }
    }
    Ok(())
}

/// How the deletions compare with what was granted.
pub(super) struct Verdict {
    pub(super) lateness: Counts,
    pub(super) early: u64,
    pub(super) never: u64,
}

impl Verdict {
    pub(super) fn of(grants: &[Granted], deletions: &[Option<Instant>]) -> Self {
        let mut verdict = Self { lateness: Counts::default(), early: 0, never: 0 };
        for (granted, deleted) in grants.iter().zip(deletions) {
            let Some(deleted) = deleted else {
                verdict.never += 1;
                continue;
            };
            verdict.early += u64::from(*deleted < granted.sent + granted.ttl);
            let late = deleted.saturating_duration_since(granted.answered + granted.ttl);
            verdict.lateness.record("late", late);
        }
        verdict
    }

    /// Notes the promises that were broken.
    pub(super) fn complain(&self, session: &Session, patience_s: u64, outcome: &mut Outcome) {
        let (early, never) = (self.early, self.never);
        if early > 0 {
            outcome.violations.push(format!("{early} leases expired before their time"));
        }
        if never > 0 && !session.stop.is_set() {
            outcome.violations.push(format!("{never} leases had not expired {patience_s} s late"));
        }
    }
}

struct Lessee {
    grant: Method,
    put: Method,
    keys: Keys,
    values: Values,
    random: SmallRng,
    ttl: i64,
    grants: Arc<Mutex<Vec<Option<Granted>>>>,
}

impl Caller for Lessee {
    async fn step(&mut self, turn: Turn) -> Result<&'static str, Failure> {
        let sent = Instant::now();
        let granted = lease::grant(&mut self.grant, self.ttl).await?;
        let (answered, ttl) = (Instant::now(), Duration::from_secs(granted.ttl.unsigned_abs()));
        let put = PutRequest {
            key: self.keys.key(turn.number),
            value: self.values.random(&mut self.random),
            lease: granted.id,
            ..Default::default()
        };
        self.put.call(&put).await?;
        let mut grants = self.grants.lock().expect("nothing panics while noting a grant");
        grants[turn.number as usize] = Some(Granted { id: granted.id, sent, answered, ttl });
        Ok("grant")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn early_is_counted_from_sending_and_late_from_the_answer() {
        let sent = Instant::now();
        let at = |ms| sent + Duration::from_millis(ms);
        let granted = Granted { id: 1, sent, answered: at(100), ttl: Duration::from_secs(1) };
        let deletions = [Some(at(999)), Some(at(1000)), Some(at(1050)), Some(at(1600)), None];
        let verdict = Verdict::of(&[granted; 5], &deletions);
        assert_eq!((verdict.early, verdict.never, verdict.lateness.all().len()), (1, 1, 4));
        assert!((499_000..=501_000).contains(&verdict.lateness.all().max()));
        assert_eq!(verdict.lateness.all().value_at_quantile(0.5), 1);
    }
}
