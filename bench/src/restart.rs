//! How long a server with much data is away: fill it, end it, start it on the same data, and time the first linearizable read.
//!
//! The servers are killed by default, as a crash would; everything they acknowledged must still be there afterwards.

use std::time::Duration;

use clap::ValueEnum;
use rustix::process::Signal;
use tenure_proto::etcdserverpb::{RangeRequest, RangeResponse};

use crate::cluster::Cluster;
use crate::failure::Failure;
use crate::grpc::{Connection, decode};
use crate::outcome::{MIB, Metric, Outcome};
use crate::process::Sample;
use crate::session::Session;
use crate::workload::{RANGE, load::Load};

/// Between two attempts to read; short, since it is the resolution of what is measured.
const POLL: Duration = Duration::from_millis(2);

/// How the servers are ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Ending {
    /// As a crash would
    Kill,
    /// As an operator would
    Term,
}

/// Fills, ends and starts again. The outcome is the filling's, with the restart as facts.
pub(crate) async fn measure(
    cluster: &mut Cluster,
    session: &Session,
    load: &Load,
    ending: Ending,
) -> Result<Outcome, Failure> {
    let mut outcome = load.run(session).await?;
    let loaded = Sample::of(&cluster.process_ids())?;
    let signal = if ending == Ending::Kill { Signal::KILL } else { Signal::TERM };

    let started = cluster.restart(signal).await?;
    let (first, last) =
        (session.endpoints[0].clone(), session.keys.key(outcome.operations.saturating_sub(1)));
    let read = RangeRequest { key: last, ..Default::default() };
    let connection = cluster
        .until(POLL, async || {
            let connection = Connection::open(&first).await?;
            connection.method(RANGE).call(&read).await.map(|_| connection)
        })
        .await?;
    let away = started.elapsed();
    let answering = Sample::of(&cluster.process_ids())?;

    let (key, range_end) = session.keys.all();
    let count = RangeRequest { key, range_end, count_only: true, ..Default::default() };
    let found = decode::<RangeResponse>(connection.method(RANGE).call(&count).await?)?.count.unsigned_abs();
    if found < outcome.operations {
        outcome.violations.push(format!(
            "{} of {} keys were lost in the restart",
            outcome.operations - found,
            outcome.operations
        ));
    }
    outcome.workload = "restart".to_owned();
    outcome.facts = vec![
        Metric::lower("restart", "ms", away.as_secs_f64() * 1000.0),
        Metric::lower("RSS loaded", "MiB", loaded.rss_bytes as f64 / MIB),
        Metric::lower("RSS restarted", "MiB", answering.rss_bytes as f64 / MIB),
        Metric::lower("CPU to restart", "ms", answering.cpu.as_secs_f64() * 1000.0),
    ];
    Ok(outcome)
}
