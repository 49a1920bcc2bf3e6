//! A stretch of time and what it cost the server and us.

use std::time::{Duration, Instant};

use crate::failure::Failure;
use crate::process::Sample;

/// What was measured between two moments.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Span {
    pub(crate) elapsed: Duration,
    pub(crate) client_cpu: Duration,
    /// CPU spent in the span and memory at its end, of the server processes if they are known.
    pub(crate) server: Option<Sample>,
}

/// A span that has begun.
pub(crate) struct Meter {
    start: Instant,
    server_pids: Vec<u32>,
    client: Sample,
    server: Option<Sample>,
}

impl Meter {
    /// Begins now, or for the clock at `start`, which is a moment ago.
    pub(crate) fn begin(start: Instant, server_pids: &[u32]) -> Result<Self, Failure> {
        let (client, server) = (Sample::of_self()?, sample(server_pids)?);
        Ok(Self { start, server_pids: server_pids.to_vec(), client, server })
    }

    pub(crate) fn end(self) -> Result<Span, Failure> {
        let elapsed = self.start.elapsed();
        let server = match (self.server, sample(&self.server_pids)?) {
            (Some(before), Some(after)) => {
                Some(Sample { cpu: after.cpu.saturating_sub(before.cpu), ..after })
            }
            _ => None,
        };
        Ok(Span { elapsed, client_cpu: Sample::of_self()?.cpu.saturating_sub(self.client.cpu), server })
    }
}

fn sample(server_pids: &[u32]) -> Result<Option<Sample>, Failure> {
    if server_pids.is_empty() { Ok(None) } else { Sample::of(server_pids).map(Some) }
}
