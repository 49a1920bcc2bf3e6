//! Linearizability by the revision that every answer carries. The revisions give the order, so nothing is searched for: what
//! remains is whether that order agrees with the clients' clocks, whether each answer is true in it, and whether what happened
//! was asked for, once. O(n log n). (The order is: by revision, a write before the reads at its revision.)

use std::collections::{BTreeMap, HashMap};

use prost::bytes::Bytes;
use tenure_proto::mvccpb::{KeyValue, event::EventType};

use super::{Finding, Law};
use crate::chronicle::Chronicle;
use crate::history::{Action, Answer, Moment, Operation, Outcome, Recording};

/// The findings, and how many writes of unknown outcome had happened.
pub fn check(recording: &Recording, chronicle: &Chronicle) -> (Vec<Finding>, usize) {
    let operations = &recording.operations;
    let mut findings = Findings(Vec::new());
    let happened = attribute(operations, chronicle, &mut findings);
    for operation in operations {
        if let Some((header, answer)) = operation.done() {
            truth(operation, header.revision, answer, chronicle, &mut findings);
        }
    }
    order(recording, &happened, &mut findings);
    let unknown = happened.iter().filter(|(place, _)| operations[**place].done().is_none()).count();
    (findings.0, unknown)
}

struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, what: String) {
        self.0.push(Finding { law: Law::Linearizability, what });
    }
}

/// The operation behind each event: which happened, and at which revision. Deletions of keys that hold a lease are the
/// cluster's own and judged elsewhere.
fn attribute(
    operations: &[Operation],
    chronicle: &Chronicle,
    findings: &mut Findings,
) -> BTreeMap<usize, i64> {
    let mut writers: HashMap<&Bytes, usize> = HashMap::new();
    let mut acknowledged: HashMap<i64, usize> = HashMap::new();
    for (place, operation) in operations.iter().enumerate() {
        if let Action::Put { value, .. } | Action::Swap { value, .. } = &operation.action {
            writers.insert(value, place);
        }
        if let Some((header, answer)) = operation.done()
            && matches!(answer, Answer::Put | Answer::Swapped | Answer::Deleted(true))
            && let Some(other) = acknowledged.insert(header.revision, place)
        {
            let other = &operations[other];
            findings.add(format!(
                "two writes were told revision {}: {operation:?} and {other:?}",
                header.revision
            ));
        }
    }
    let mut happened = BTreeMap::new();
    let mut unclaimed: Vec<(i64, &KeyValue)> = Vec::new();
    for (revision, events) in chronicle.changes() {
        for event in events {
            let kv = event.kv.as_ref().expect("the chronicle's events have pairs");
            let leased = chronicle.at(&kv.key, revision - 1).is_some_and(|before| before.lease != 0);
            let writer = match event.r#type() {
                EventType::Put => writers.get(&kv.value).copied(),
                EventType::Delete if leased => continue,
                EventType::Delete => acknowledged.get(revision).copied().filter(
                    |place| matches!(&operations[*place].action, Action::Delete { key } if *key == kv.key),
                ),
            };
            match writer {
                Some(place) => claim(place, *revision, kv, operations, &mut happened, findings),
                None if event.r#type() == EventType::Put => {
                    findings.add(format!("nobody asked for what happened at {revision}: {kv:?}"));
                }
                None => unclaimed.push((*revision, kv)),
            }
        }
    }
    claim_deletions(&unclaimed, operations, &mut happened, findings);
    for (place, operation) in operations.iter().enumerate() {
        let written = operation.done().is_some_and(|(_, answer)| {
            matches!(answer, Answer::Put | Answer::Swapped | Answer::Deleted(true))
        });
        if written && !happened.contains_key(&place) {
            findings.add(format!("an acknowledged write is lost: {operation:?}"));
        }
    }
    happened
}

/// Notes that the operation happened at `revision`, as what it asked for.
fn claim(
    place: usize,
    revision: i64,
    kv: &KeyValue,
    operations: &[Operation],
    happened: &mut BTreeMap<usize, i64>,
    findings: &mut Findings,
) {
    let operation = &operations[place];
    if let Some(before) = happened.insert(place, revision) {
        findings.add(format!("happened twice, at {before} and {revision}: {operation:?}"));
    }
    match &operation.outcome {
        Outcome::Refused(why) => {
            findings.add(format!("refused ({why}), yet it happened at {revision}: {operation:?}"));
        }
        Outcome::Done(header, _) if header.revision != revision => {
            findings.add(format!("happened at {revision}, another than it was told: {operation:?}"));
        }
        Outcome::Done(..) | Outcome::Unknown(_) => {}
    }
    let (key, lease) = match &operation.action {
        Action::Put { key, lease, .. } => (key, *lease),
        Action::Swap { key, .. } | Action::Delete { key } => (key, 0),
        Action::Get { .. }
        | Action::Grant { .. }
        | Action::Renew { .. }
        | Action::Revoke { .. }
        | Action::TimeToLive { .. } => return,
    };
    if *key != kv.key || lease != kv.lease {
        findings.add(format!("became something else, {kv:?}: {operation:?}"));
    }
}

/// Deletions nobody was told of belong to deletes of unknown outcome. Any will do that was asked early enough, and the
/// earliest leave most for the rest; when they were asked is held against the order later.
fn claim_deletions(
    unclaimed: &[(i64, &KeyValue)],
    operations: &[Operation],
    happened: &mut BTreeMap<usize, i64>,
    findings: &mut Findings,
) {
    let mut open: HashMap<&Bytes, std::collections::VecDeque<usize>> = HashMap::new();
    for (place, operation) in operations.iter().enumerate() {
        if let (Action::Delete { key }, Outcome::Unknown(_)) = (&operation.action, &operation.outcome) {
            open.entry(key).or_default().push_back(place);
        }
    }
    for (revision, kv) in unclaimed {
        match open.get_mut(&kv.key).and_then(std::collections::VecDeque::pop_front) {
            Some(place) => {
                happened.insert(place, *revision);
            }
            None => findings.add(format!("nobody asked for the deletion at {revision} of {:?}", kv.key)),
        }
    }
}

/// Whether the answer is true of the state at its revision.
fn truth(
    operation: &Operation,
    revision: i64,
    answer: &Answer,
    chronicle: &Chronicle,
    findings: &mut Findings,
) {
    let last = chronicle.last();
    if revision > last {
        findings
            .add(format!("an answer is from revision {revision}, but history ends at {last}: {operation:?}"));
        return;
    }
    let (Action::Put { key, .. }
    | Action::Delete { key }
    | Action::Swap { key, .. }
    | Action::Get { key, .. }) = &operation.action
    else {
        return;
    };
    let now = chronicle.at(key, revision);
    let wrong = match (answer, &operation.action) {
        (Answer::Got(kv), _) => now != kv.as_ref(),
        (Answer::Deleted(false), _) => now.is_some(),
        (Answer::NotSwapped(kv), Action::Swap { unchanged_since, .. }) => {
            now != kv.as_ref() || now.map_or(0, |kv| kv.mod_revision) == *unchanged_since
        }
        (Answer::Swapped, Action::Swap { unchanged_since, .. }) => {
            chronicle.at(key, revision - 1).map_or(0, |kv| kv.mod_revision) != *unchanged_since
        }
        _ => false,
    };
    if wrong {
        let before = chronicle.at(key, revision - 1);
        findings.add(format!(
            "not true at revision {revision}, where the key was {now:?} and before it {before:?}: {operation:?}"
        ));
    }
}

/// Whether the order of revisions agrees with the order of time: who asks after somebody was told of a revision gets nothing
/// older, and a write gets a revision of its own behind it.
fn order(recording: &Recording, happened: &BTreeMap<usize, i64>, findings: &mut Findings) {
    let mut asked: Vec<(Moment, usize)> =
        recording.operations.iter().enumerate().map(|(place, operation)| (operation.asked, place)).collect();
    asked.sort_unstable();
    let mut sightings = recording.sightings().into_iter().peekable();
    let mut seen = 0;
    for (moment, place) in asked {
        while let Some(sighting) = sightings.next_if(|sighting| sighting.at < moment) {
            seen = seen.max(sighting.revision);
        }
        let operation = &recording.operations[place];
        let (revision, writes) = match (happened.get(&place), operation.done()) {
            (Some(revision), _) => (*revision, true),
            (None, Some((header, _))) if is_linearizable(&operation.action) => (header.revision, false),
            _ => continue,
        };
        if revision < seen || writes && revision == seen {
            findings.add(format!(
                "revision {seen} had been seen before this was asked, which is of {revision}: {operation:?}"
            ));
        }
    }
}

/// Whether its answer must be of a revision no older than its question. What leases answer has a header of less weight.
fn is_linearizable(action: &Action) -> bool {
    match action {
        Action::Put { .. } | Action::Delete { .. } | Action::Swap { .. } => true,
        Action::Get { serializable, .. } => !serializable,
        Action::Grant { .. } | Action::Renew { .. } | Action::Revoke { .. } | Action::TimeToLive { .. } => {
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::made_up::{Story, pair};
    use super::*;

    fn verdict(story: &Story) -> Vec<String> {
        check(&story.recording, &story.chronicle()).0.into_iter().map(|finding| finding.what).collect()
    }

    fn must_find(story: &Story, what: &str) {
        let found = verdict(story);
        assert!(found.iter().any(|finding| finding.contains(what)), "looked for {what:?} in {found:#?}");
    }

    /// a=1 at 2, a=2 by swap at 3, deleted at 4.
    fn honest() -> Story {
        let mut story = Story::default();
        story.put(10, 20, "a", "1", Some(2));
        story.get(30, 40, "a", false, 2, Some(pair("a", "1", 2, 2, 1)));
        story.swap(50, 60, "a", 2, "2", Some(3));
        story.delete(70, 80, "a", Some(4));
        story.get(90, 95, "a", false, 4, None);
        story.happened(2, "a", Some("1"));
        story.happened(3, "a", Some("2"));
        story.happened(4, "a", None);
        story
    }

    #[test]
    fn an_honest_history_passes() {
        assert_eq!(verdict(&honest()), Vec::<String>::new());
    }

    #[test]
    fn a_lost_write_is_found() {
        let mut story = honest();
        story.put(100, 110, "b", "lost", Some(5));
        story.put(100, 110, "c", "kept", Some(6));
        story.happened(6, "c", Some("kept"));
        must_find(&story, "an acknowledged write is lost");
    }

    #[test]
    fn a_stale_read_is_found() {
        let mut story = honest();
        story.get(100, 110, "a", false, 3, Some(pair("a", "2", 2, 3, 2)));
        must_find(&story, "revision 4 had been seen before");
        let mut story = honest();
        story.get(100, 110, "a", true, 3, Some(pair("a", "2", 2, 3, 2)));
        assert_eq!(verdict(&story), Vec::<String>::new(), "a serializable read may be old");
    }

    #[test]
    fn reads_that_overlap_a_write_may_see_either() {
        let mut story = honest();
        story.put(100, 200, "a", "3", Some(5));
        story.happened(5, "a", Some("3"));
        story.get(110, 120, "a", false, 4, None);
        story.get(130, 140, "a", false, 5, Some(pair("a", "3", 5, 5, 1)));
        assert_eq!(verdict(&story), Vec::<String>::new());
        story.get(150, 160, "a", false, 4, None);
        must_find(&story, "revision 5 had been seen before");
    }

    #[test]
    fn a_false_answer_is_found() {
        let mut story = honest();
        story.get(100, 110, "a", false, 4, Some(pair("a", "2", 2, 3, 2)));
        must_find(&story, "not true at revision 4");
        let mut story = honest();
        story.get(100, 110, "a", true, 3, Some(pair("a", "1", 2, 2, 1)));
        must_find(&story, "not true at revision 3");
    }

    #[test]
    fn an_answer_from_a_future_that_never_came_is_found() {
        let mut story = honest();
        story.get(100, 110, "a", true, 9, None);
        must_find(&story, "history ends at 4");
    }

    #[test]
    fn a_write_seen_before_it_was_asked_for_is_found() {
        let mut story = honest();
        story.get(100, 110, "z", true, 5, None);
        story.put(120, 130, "a", "3", Some(5));
        story.happened(5, "a", Some("3"));
        must_find(&story, "revision 5 had been seen before");
    }

    #[test]
    fn an_unknown_write_may_happen_late_or_never_but_not_twice() {
        let mut story = honest();
        story.put(100, 110, "a", "maybe", None);
        assert_eq!(verdict(&story), Vec::<String>::new());
        story.put(200, 210, "a", "other", Some(5));
        story.happened(5, "a", Some("other"));
        story.happened(6, "a", Some("maybe"));
        assert_eq!(verdict(&story), Vec::<String>::new());
        assert_eq!(check(&story.recording, &story.chronicle()).1, 1);
        story.happened(7, "a", Some("maybe"));
        must_find(&story, "happened twice, at 6 and 7");
    }

    #[test]
    fn a_refused_write_that_happened_is_found() {
        let mut story = honest();
        story.refused_put(100, 110, "a", "no");
        story.happened(5, "a", Some("no"));
        must_find(&story, "refused (no), yet it happened");
    }

    #[test]
    fn what_nobody_asked_for_is_found() {
        let mut story = honest();
        story.happened(5, "a", Some("ghost"));
        must_find(&story, "nobody asked for what happened at 5");
        let mut story = honest();
        story.put(100, 110, "a", "3", Some(5));
        story.happened(5, "a", Some("3"));
        story.happened(6, "a", None);
        must_find(&story, "nobody asked for the deletion at 6");
        story.delete(120, 130, "a", None);
        assert_eq!(verdict(&story), Vec::<String>::new(), "a delete of unknown outcome explains it");
    }

    #[test]
    fn a_swap_that_should_not_have_been_is_found() {
        let mut story = honest();
        story.put(100, 110, "a", "3", Some(5));
        story.happened(5, "a", Some("3"));
        story.swap(120, 130, "a", 3, "4", Some(6));
        story.happened(6, "a", Some("4"));
        must_find(&story, "not true at revision 6");
    }

    #[test]
    fn two_writes_at_one_revision_are_found() {
        let mut story = honest();
        story.put(100, 110, "a", "3", Some(5));
        story.put(100, 110, "a", "4", Some(5));
        story.happened(5, "a", Some("3"));
        must_find(&story, "two writes were told revision 5");
        must_find(&story, "an acknowledged write is lost");
    }
}
