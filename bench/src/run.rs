//! One timed run: who may send when, what counts, when it is over.
//!
//! Callers take a turn, send, and record. Without a rate the loop is closed: a caller's next turn is due at once. With a rate,
//! turns are due on a fixed schedule and latency counts from when a turn was *due*, so that a server that stalls is charged
//! for the requests it kept from being sent.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until};

use crate::failure::Failure;
use crate::progress::Bar;
use crate::session::Session;
use crate::span::{Meter, Span};
use crate::stop::Stop;
use crate::tally::{Counts, Tally};

/// How long after the end of a run answers are still waited for; later ones count as unanswered.
const GRACE: Duration = Duration::from_secs(5);
/// A caller that was refused pauses, so that a server that refuses everything is not driven in circles.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(5);

/// What ends a run; both bounds always hold.
#[derive(Clone, Debug)]
pub(crate) struct Limit {
    pub(crate) total: Option<u64>,
    /// Measured time, after the warm-up.
    pub(crate) duration: Duration,
    /// Requests of this time are sent and not counted.
    pub(crate) warmup: Duration,
    /// Turns per second over all callers.
    pub(crate) rate: Option<f64>,
}

/// Shared by all callers of one run.
pub(crate) struct Run {
    limit: Limit,
    start: Instant,
    measured_from: Instant,
    deadline: Instant,
    turns: AtomicU64,
    ended: AtomicBool,
    tally: Tally,
    bar: Bar,
    stop: Stop,
    server_pids: Vec<u32>,
}

/// The right to send one request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Turn {
    /// Counts from 0 over all callers.
    pub(crate) number: u64,
    pub(crate) due: Instant,
}

/// One concurrent caller: sends one request per step.
pub(crate) trait Caller: Send + 'static {
    /// Sends once and returns the kind of answer, under which the latency is counted.
    fn step(&mut self, turn: Turn) -> impl Future<Output = Result<&'static str, Failure>> + Send;
}

/// What a run counted, and over which time.
pub(crate) struct Measured {
    pub(crate) counts: Counts,
    pub(crate) span: Span,
}

impl Run {
    /// Starts the clock.
    pub(crate) fn begin(session: &Session, label: &'static str, limit: Limit) -> Arc<Self> {
        let start = Instant::now();
        let measured_from = start + limit.warmup;
        Arc::new(Self {
            start,
            measured_from,
            deadline: measured_from + limit.duration,
            turns: AtomicU64::new(0),
            ended: AtomicBool::new(false),
            tally: Tally::new(session.load.clients),
            bar: session.progress.start(label, limit.total, limit.warmup + limit.duration),
            stop: session.stop.clone(),
            server_pids: session.server_pids.clone(),
            limit,
        })
    }

    /// Lets each caller step until the run is over.
    pub(crate) fn spawn<C: Caller>(self: &Arc<Self>, callers: Vec<C>) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        for (lane, caller) in callers.into_iter().enumerate() {
            tasks.spawn(self.clone().repeat(lane, caller));
        }
        tasks
    }

    async fn repeat<C: Caller>(self: Arc<Self>, lane: usize, mut caller: C) {
        while let Some(turn) = self.turn() {
            self.wait_until_due(turn).await;
            match caller.step(turn).await {
                Ok(kind) => self.record(lane, kind, turn.due),
                Err(failure) => {
                    self.fail(lane, &failure);
                    if failure.is_disconnected() {
                        return;
                    }
                    sleep(PAUSE_AFTER_FAILURE).await;
                }
            }
        }
    }

    /// The next turn, or nothing when the run is over.
    pub(crate) fn turn(&self) -> Option<Turn> {
        let now = Instant::now();
        if now >= self.deadline || self.stop.is_set() || self.ended.load(Ordering::Relaxed) {
            return None;
        }
        let number = self.turns.fetch_add(1, Ordering::Relaxed);
        if self.limit.total.is_some_and(|total| number >= total) {
            return None;
        }
        let due =
            self.limit.rate.map_or(now, |rate| self.start + Duration::from_secs_f64(number as f64 / rate));
        (due < self.deadline).then_some(Turn { number, due })
    }

    /// From now on there are no more turns; what was sent is still counted.
    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
    }

    /// Returns when the turn is due, at once if it is overdue, or when the run is stopped.
    pub(crate) async fn wait_until_due(&self, turn: Turn) {
        if self.limit.rate.is_some() && turn.due > Instant::now() {
            tokio::select! {
                () = sleep_until(turn.due.into()) => {}
                () = self.stop.wait() => {}
            }
        }
    }

    /// Counts an answer to what was due at `since`, unless that was in the warm-up.
    pub(crate) fn record(&self, lane: usize, kind: &'static str, since: Instant) {
        self.bar.add(1);
        if since >= self.measured_from {
            self.tally.record(lane, kind, since.elapsed());
        }
    }

    /// Counts a failure, whenever it happened.
    pub(crate) fn fail(&self, lane: usize, failure: &Failure) {
        self.tally.fail(lane, failure);
    }

    /// Waits for the tasks, then for `tail`, and closes the books. Tasks that outlive the run by [`GRACE`] are dropped, each
    /// as one unanswered request.
    pub(crate) async fn finish(
        &self,
        tasks: JoinSet<()>,
        tail: impl Future<Output = ()>,
    ) -> Result<Measured, Failure> {
        if Instant::now() < self.measured_from {
            tokio::select! {
                () = sleep_until(self.measured_from.into()) => {}
                () = self.stop.wait() => {}
            }
        }
        let meter = Meter::begin(self.measured_from, &self.server_pids)?;
        self.join(tasks).await;
        tail.await;
        Ok(Measured { span: meter.end()?, counts: self.tally.take() })
    }

    async fn join(&self, mut tasks: JoinSet<()>) {
        let overdue = async {
            tokio::select! {
                () = sleep_until(self.deadline.into()) => {}
                () = self.stop.wait() => {}
            }
            sleep(GRACE).await;
        };
        tokio::pin!(overdue);
        loop {
            tokio::select! {
                biased;
                joined = tasks.join_next() => match joined {
                    None => return,
                    Some(Ok(())) => {}
                    Some(Err(error)) => std::panic::resume_unwind(error.into_panic()),
                },
                () = &mut overdue => {
                    let late = Failure::unanswered(format!("no answer within {GRACE:?} after the end of the run"));
                    (0..tasks.len()).for_each(|lane| self.fail(lane, &late));
                    return tasks.shutdown().await;
                }
            }
        }
    }
}
