//! The progress bar: drawn on standard error, only when that is a terminal and nobody asked for quiet.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use tokio::task::AbortHandle;

/// Rate at which the bar is redrawn: rarely, because drawing costs time that the server could use.
const REDRAW_EVERY: Duration = Duration::from_millis(250);

/// Whether bars are wanted at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    Shown,
    Hidden,
}

/// The bar of one phase; dropping it takes it off the screen.
pub(crate) struct Bar {
    done: Arc<AtomicU64>,
    drawing: Option<(ProgressBar, AbortHandle)>,
}

impl Progress {
    /// Starts a bar that fills by count when `total` is known, else by time.
    pub(crate) fn start(self, label: &'static str, total: Option<u64>, duration: Duration) -> Bar {
        let done = Arc::new(AtomicU64::new(0));
        let drawing = (self == Self::Shown).then(|| draw(label, total, duration, done.clone()));
        Bar { done, drawing }
    }
}

impl Bar {
    pub(crate) fn add(&self, count: u64) {
        self.done.fetch_add(count, Ordering::Relaxed);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if let Some((bar, task)) = &self.drawing {
            task.abort();
            bar.finish_and_clear();
        }
    }
}

fn draw(
    label: &'static str,
    total: Option<u64>,
    duration: Duration,
    done: Arc<AtomicU64>,
) -> (ProgressBar, AbortHandle) {
    let milliseconds = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let style = ProgressStyle::with_template("{prefix:>14} {wide_bar} {msg}").expect("a constant template");
    let bar = ProgressBar::new(total.unwrap_or(milliseconds)).with_style(style).with_prefix(label);
    let shown = bar.clone();
    let task = tokio::spawn(async move {
        let start = Instant::now();
        loop {
            tokio::time::sleep(REDRAW_EVERY).await;
            let (count, elapsed) = (done.load(Ordering::Relaxed), start.elapsed());
            let elapsed_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
            shown.set_position(if total.is_some() { count } else { elapsed_ms });
            shown.set_message(format!("{count}, {:.0}/s", count as f64 / elapsed.as_secs_f64()));
        }
    });
    (bar, task.abort_handle())
}
