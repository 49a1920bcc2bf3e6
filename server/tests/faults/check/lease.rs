//! Leases against history: no lease ends before the time its holder was promised, counted on the holder's own clock from the
//! moment it asked; all its keys go in one revision; a dead lease is not said to live. How late leases end is measured, not
//! judged: a cluster without a leader removes nothing.

use std::collections::BTreeMap;
use std::fmt;

use super::watch::deleted;
use super::{Finding, Law};
use crate::chronicle::Chronicle;
use crate::history::{Action, Answer, Moment, Operation, Outcome, Recording, SECOND, Sighting};

/// How long leases lived.
#[derive(Clone, Copy, Debug, Default)]
pub struct LeaseReport {
    /// Leases that ran out and were seen to be gone.
    pub ended: usize,
    /// The longest time between the end of what a holder was promised and the first sight of the removal.
    pub latest_ms: u64,
    /// The shortest.
    pub earliest_ms: u64,
}

impl fmt::Display for LeaseReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} leases ran out, {} to {} ms late", self.ended, self.earliest_ms, self.latest_ms)
    }
}

pub fn check(recording: &Recording, chronicle: &Chronicle) -> (Vec<Finding>, LeaseReport) {
    let mut stories: BTreeMap<i64, Story> = BTreeMap::new();
    for operation in &recording.operations {
        if let Some(lease) = lease_of(&operation.action) {
            stories.entry(lease).or_default().follow(operation);
        }
    }
    let mut findings = Vec::new();
    remove(chronicle, &mut stories, &mut findings);
    let sightings = Sightings::new(recording);
    let mut report = LeaseReport { earliest_ms: u64::MAX, ..LeaseReport::default() };
    for (lease, story) in &stories {
        let seen = story.removed_at.and_then(|revision| sightings.first(revision));
        let gone = [seen, story.said_gone].into_iter().flatten().min();
        let (Some((promised, asked)), Some(gone)) = (story.promise, gone) else { continue };
        if story.revoked_from.is_some_and(|from| from <= gone) {
            continue;
        }
        if gone < promised {
            let early = (promised - gone) / 1_000_000;
            let revision = story.removed_at;
            findings.push(finding(format!(
                "lease {lease:x} was seen to be gone {early} ms before the end of what its holder was promised \
                 (asked at {asked}, promised until {promised}, gone at {gone}, removed in revision {revision:?})"
            )));
        } else if story.removed_at.is_some() {
            let late = (gone - promised) / 1_000_000;
            report.ended += 1;
            report.latest_ms = report.latest_ms.max(late);
            report.earliest_ms = report.earliest_ms.min(late);
        }
    }
    report.earliest_ms = if report.ended == 0 { 0 } else { report.earliest_ms };
    (findings, report)
}

/// Leases that have keys at the end of history.
pub fn left(recording: &Recording, chronicle: &Chronicle) -> Vec<i64> {
    let mut leases: Vec<i64> =
        recording.operations.iter().filter_map(|operation| lease_of(&operation.action)).collect();
    leases.sort_unstable();
    leases.dedup();
    leases.retain(|lease| !chronicle.keys_of(*lease, chronicle.last()).is_empty());
    leases
}

/// What is known of one lease.
#[derive(Default)]
struct Story {
    /// Until when it lives at the least, and when that was asked for.
    promise: Option<(Moment, Moment)>,
    /// When somebody was first told that there is no such lease.
    said_gone: Option<Moment>,
    revoked_from: Option<Moment>,
    removed_at: Option<i64>,
}

impl Story {
    fn follow(&mut self, operation: &Operation) {
        if matches!(operation.action, Action::Revoke { .. }) {
            self.revoked_from.get_or_insert(operation.asked);
            return;
        }
        match &operation.outcome {
            Outcome::Done(_, Answer::Granted(ttl_s) | Answer::Renewed(ttl_s)) if *ttl_s > 0 => {
                let until = operation.asked + *ttl_s as Moment * SECOND;
                self.promise = self.promise.max(Some((until, operation.asked)));
            }
            Outcome::Done(_, Answer::Renewed(_) | Answer::Left(-1)) => self.gone(operation.answered),
            Outcome::Refused(why) if why.contains("lease not found") => self.gone(operation.answered),
            _ => {}
        }
    }

    fn gone(&mut self, at: Moment) {
        self.said_gone = Some(self.said_gone.map_or(at, |before| before.min(at)));
    }
}

fn lease_of(action: &Action) -> Option<i64> {
    match action {
        Action::Put { lease, .. } => (*lease != 0).then_some(*lease),
        Action::Grant { lease, .. }
        | Action::Renew { lease }
        | Action::Revoke { lease }
        | Action::TimeToLive { lease } => Some(*lease),
        Action::Delete { .. } | Action::Swap { .. } | Action::Get { .. } => None,
    }
}

/// Notes when each lease was removed, and that all its keys went then and none came after.
fn remove(chronicle: &Chronicle, stories: &mut BTreeMap<i64, Story>, findings: &mut Vec<Finding>) {
    for (revision, events) in chronicle.changes() {
        for event in events {
            let Some(kv) = event.kv.as_ref().filter(|kv| kv.lease != 0) else { continue };
            let removed = stories.get(&kv.lease).and_then(|story| story.removed_at);
            if let Some(removed) = removed {
                findings.push(finding(format!(
                    "a key came to lease {:x} at {revision}, which had been removed at {removed}: {kv:?}",
                    kv.lease
                )));
            }
        }
        let before = |key| chronicle.at(key, revision - 1).map_or(0, |kv| kv.lease);
        let mut ended: Vec<i64> =
            deleted(events).map(|key| before(key)).filter(|lease| *lease != 0).collect();
        ended.sort_unstable();
        ended.dedup();
        for lease in ended {
            let left = chronicle.keys_of(lease, *revision);
            if !left.is_empty() {
                findings.push(finding(format!(
                    "lease {lease:x} ended at {revision}, but {left:?} stayed behind"
                )));
            }
            stories.entry(lease).or_default().removed_at.get_or_insert(*revision);
        }
    }
}

/// When a revision was first seen by anybody.
struct Sightings(Vec<Sighting>);

impl Sightings {
    fn new(recording: &Recording) -> Sightings {
        let mut highest = Vec::<Sighting>::new();
        for sighting in recording.sightings() {
            if highest.last().is_none_or(|last| last.revision < sighting.revision) {
                highest.push(sighting);
            }
        }
        Sightings(highest)
    }

    fn first(&self, revision: i64) -> Option<Moment> {
        let place = self.0.partition_point(|sighting| sighting.revision < revision);
        self.0.get(place).map(|sighting| sighting.at)
    }
}

fn finding(what: String) -> Finding {
    Finding { law: Law::Lease, what }
}

#[cfg(test)]
mod tests {
    use super::super::made_up::{Story, text};
    use super::*;
    use crate::history::Header;

    const LEASE: i64 = 7;

    fn at(seconds: f64) -> Moment {
        (seconds * SECOND as f64) as Moment
    }

    fn answer(story: &mut Story, asked: f64, action: Action, revision: i64, answer: Answer) {
        let header = Header { revision, term: 1 };
        story.ask(at(asked), at(asked) + 1_000_000, action, Outcome::Done(header, answer));
    }

    /// Granted for 5 s at 1 s, renewed at 4 s, two keys.
    fn held() -> Story {
        let mut story = Story::default();
        answer(&mut story, 1.0, Action::Grant { lease: LEASE, ttl_s: 5 }, 1, Answer::Granted(5));
        for (key, revision) in [("a", 2), ("b", 3)] {
            let put = Action::Put { key: text(key), value: text(key), lease: LEASE };
            answer(&mut story, 2.0, put, revision, Answer::Put);
            story.happened_with(revision, key, Some(key), LEASE);
        }
        answer(&mut story, 4.0, Action::Renew { lease: LEASE }, 3, Answer::Renewed(5));
        story
    }

    fn removed(mut story: Story, seen: f64) -> Story {
        story.happened(4, "a", None);
        story.happened(4, "b", None);
        story.get(at(seen) - 1, at(seen), "a", true, 4, None);
        story
    }

    fn verdict(story: &Story) -> Vec<String> {
        check(&story.recording, &story.chronicle()).0.into_iter().map(|finding| finding.what).collect()
    }

    fn must_find(story: &Story, what: &str) {
        let found = verdict(story);
        assert!(found.iter().any(|finding| finding.contains(what)), "looked for {what:?} in {found:#?}");
    }

    #[test]
    fn a_lease_may_end_late() {
        let story = removed(held(), 9.4);
        assert_eq!(verdict(&story), Vec::<String>::new());
        let (_, report) = check(&story.recording, &story.chronicle());
        assert_eq!((report.ended, report.latest_ms, report.earliest_ms), (1, 400, 400));
    }

    #[test]
    fn a_lease_that_ended_early_is_found() {
        must_find(&removed(held(), 8.9), "100 ms before the end");
    }

    #[test]
    fn a_revoked_lease_may_end_at_once() {
        let mut story = held();
        story.ask(at(5.0), at(5.1), Action::Revoke { lease: LEASE }, Outcome::Unknown("time out".into()));
        assert_eq!(verdict(&removed(story, 6.0)), Vec::<String>::new());
    }

    #[test]
    fn a_dead_lease_that_is_said_to_live_is_found() {
        let mut story = removed(held(), 9.4);
        answer(&mut story, 10.0, Action::Renew { lease: LEASE }, 4, Answer::Renewed(5));
        must_find(&story, "5600 ms before the end");
    }

    #[test]
    fn a_living_lease_that_is_said_to_be_dead_is_found() {
        let mut story = held();
        answer(&mut story, 5.0, Action::TimeToLive { lease: LEASE }, 3, Answer::Left(-1));
        must_find(&story, "before the end");
        let mut story = held();
        answer(&mut story, 5.0, Action::Renew { lease: LEASE }, 3, Answer::Renewed(0));
        must_find(&story, "before the end");
    }

    #[test]
    fn a_key_left_behind_is_found() {
        let mut story = held();
        story.happened(4, "a", None);
        story.happened(5, "b", None);
        story.get(at(20.0), at(20.1), "a", true, 5, None);
        must_find(&story, "stayed behind");
    }

    #[test]
    fn a_key_that_comes_to_a_dead_lease_is_found() {
        let mut story = removed(held(), 9.4);
        story.happened_with(5, "c", Some("c"), LEASE);
        must_find(&story, "which had been removed at 4");
    }
}
