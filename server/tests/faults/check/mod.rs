//! The judges: pure functions from what was recorded, and what happened in the end, to what is wrong about it. Each must be
//! able to fail: its tests hold a right history against it and the same with one lie in it. They know no network and no clock.

mod header;
mod lease;
mod linear;
#[cfg(test)]
mod made_up;
mod search;
mod watch;

use std::fmt;

pub use lease::LeaseReport;

use crate::chronicle::Chronicle;
use crate::history::Recording;

/// What must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Law {
    /// Answers are those of one copy that does one thing after another, each between its question and its answer.
    Linearizability,
    /// The same, as found by a search that does not believe any revision.
    Search,
    /// Watches tell everything once, in order, whole revisions at a time.
    Watch,
    /// A lease lives as long as its holder was told, and its keys go with it.
    Lease,
    /// A member's revision and term never go back.
    Header,
    /// All members tell the same history.
    Agreement,
    /// Once the faults are over, everybody is served again.
    Recovery,
}

/// A law broken.
#[derive(Clone, Debug)]
pub struct Finding {
    pub law: Law,
    pub what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.law, self.what)
    }
}

/// What was found, and what it was found in.
#[derive(Debug, Default)]
pub struct Verdict {
    pub findings: Vec<Finding>,
    /// Writes of unknown outcome that turned out to have happened.
    pub unknown_happened: usize,
    /// Keys over whose history the search gave up.
    pub undecided: usize,
    pub leases: LeaseReport,
}

impl Verdict {
    pub fn breaks(&self, law: Law) -> bool {
        self.findings.iter().any(|finding| finding.law == law)
    }
}

/// Holds everything against everything.
pub fn all(recording: &Recording, chronicle: &Chronicle) -> Verdict {
    let mut verdict = Verdict::default();
    let (findings, unknown_happened) = linear::check(recording, chronicle);
    verdict.findings.extend(findings);
    verdict.unknown_happened = unknown_happened;
    let (findings, undecided) = search::check(&recording.operations);
    verdict.findings.extend(findings);
    verdict.undecided = undecided;
    verdict.findings.extend(watch::check(recording, chronicle));
    let (findings, leases) = lease::check(recording, chronicle);
    verdict.findings.extend(findings);
    verdict.leases = leases;
    verdict.findings.extend(header::check(recording));
    verdict
}

/// What should have come to an end by now and has not: watches that were not told the rest, leases nobody holds any more.
/// Judged only when all faults are over and time was given.
pub fn left_over(recording: &Recording, chronicle: &Chronicle) -> Vec<Finding> {
    let behind = recording.watches.iter().filter_map(|watch| {
        let due = watch::left_out(watch, chronicle)?;
        let what =
            format!("{} was never told of {due}, though history ends at {}", watch.name, chronicle.last());
        Some(Finding { law: Law::Watch, what })
    });
    let leases = lease::left(recording, chronicle).into_iter().map(|lease| {
        let what = format!("lease {lease:x} still has keys, long after its holder let go of it");
        Finding { law: Law::Lease, what }
    });
    behind.chain(leases).collect()
}
