//! What happens at the source after the copy, written to the target as it comes, until somebody cuts over.

use std::time::Duration;

use tenure_client::proto::mvccpb::Event;
use tenure_client::proto::mvccpb::event::EventType;
use tenure_client::{Change, Watch};

use super::copy::Sides;
use super::source::{Broken, RESERVED, Source, latest};
use super::target::Writer;
use crate::failure::Failure;
use crate::progress::Status;
use crate::running::warn;
use crate::signals::{self, Signals};

/// How long others are waited for that may share a transaction.
const GATHER: Duration = Duration::from_millis(1);
const GATHER_CHANGES: usize = 128;
/// The source has told all that it had when it is silent for so long: it is not asked to say so, since etcd before 3.5.8 says it
/// too early. The comparison has the last word.
const SILENCE: Duration = Duration::from_secs(1);

/// How it ended.
pub enum Followed {
    /// All is written up to that revision, which was the source's newest when it was asked for.
    Until(i64),
    /// History that was not told yet is gone.
    Compacted,
}

impl Sides {
    /// Writes what happens behind `revision`. Until a signal, if `at_once` is false; else until all is told that had happened.
    pub async fn follow(
        &self,
        revision: i64,
        at_once: bool,
        signals: &mut Signals,
    ) -> Result<Followed, Failure> {
        let Source::Live(client) = &self.source else { return Ok(Followed::Until(revision)) };
        let mut watch = client.watch(&self.span.start).to(&self.span.end).from(revision + 1).await?;
        let mut writer = Writer::new(self.target.clone());
        let status = Status::start("following");
        let mut goal = if at_once { Some(latest(client).await?) } else { None };
        let mut reached = revision;
        loop {
            if let Some(goal) = goal
                && reached >= goal
            {
                return Ok(Followed::Until(goal));
            }
            let change = tokio::select! {
                biased;
                signal = signals.next() => {
                    if goal.is_some() {
                        return Err(stopped(signals::name(signal)));
                    }
                    warn(&format!("received {}: cutting over", signals::name(signal)));
                    goal = Some(latest(client).await?);
                    continue;
                }
                change = watch.next() => change,
                () = tokio::time::sleep(SILENCE), if goal.is_some() => {
                    return Ok(Followed::Until(goal.unwrap_or(reached)));
                }
            };
            let told = match change {
                Ok(change) => self.take(change, &mut watch, &mut writer, goal).await,
                Err(error) => Err(error.into()),
            };
            match told {
                Ok(revision) => reached = revision,
                Err(Broken::Compacted) => return Ok(Followed::Compacted),
                Err(Broken::Failed(failure)) => return Err(failure),
            }
            let (puts, deletes) = (writer.written.puts, writer.written.deletes);
            let leases = self.leases.count();
            status.say(&format!(
                "revision {reached}, written since the copy: {puts}, removed: {deletes}, leases: {leases}; Ctrl-C cuts over"
            ));
        }
    }

    /// Writes a change with those that are there already. Gives the last revision that was written, or the goal if what came lies
    /// behind it.
    async fn take(
        &self,
        mut change: Change,
        watch: &mut Watch,
        writer: &mut Writer,
        goal: Option<i64>,
    ) -> Result<i64, Broken> {
        let mut gathered = 0;
        let reached = loop {
            let revision = change.revision;
            if let Some(goal) = goal
                && revision > goal
            {
                break goal;
            }
            gathered += change.events.len();
            self.write(writer, change.events).await?;
            if gathered >= GATHER_CHANGES {
                break revision;
            }
            match tokio::time::timeout(GATHER, watch.next()).await {
                Ok(next) => change = next?,
                Err(_) => break revision,
            }
        };
        writer.flush().await?;
        Ok(reached)
    }

    async fn write(&self, writer: &mut Writer, events: Vec<Event>) -> Result<(), Failure> {
        let lease = |event: &Event| event.kv.as_ref().map_or(0, |pair| pair.lease);
        self.leases.learn(events.iter().map(lease)).await?;
        writer.begin_together(events.len()).await?;
        for event in events {
            let put = event.r#type() == EventType::Put;
            let pair = event.kv.unwrap_or_default();
            if pair.key.starts_with(RESERVED) {
                continue;
            }
            match self.leases.at_target(pair.lease) {
                Some(lease) if put => writer.put(pair, lease).await?,
                // A put on a lease that has ended: the removal is under way.
                None | Some(_) => writer.delete(pair.key).await?,
            }
        }
        Ok(())
    }
}

pub fn stopped(signal: &str) -> Failure {
    Failure::failed(format!(
        "stopped by {signal} on the way: what is written stays, and the same with --again brings the rest"
    ))
}
