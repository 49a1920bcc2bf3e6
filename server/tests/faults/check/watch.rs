//! Watches against history: what a watch was told is exactly its part of what happened, from where it asked to where it
//! stopped: in order, each revision once and whole, nothing left out, also across its resumptions, and word of progress only
//! when it is true.

use prost::bytes::Bytes;
use tenure_proto::mvccpb::{Event, KeyValue, event::EventType};

use super::{Finding, Law};
use crate::chronicle::Chronicle;
use crate::history::{Piece, Recording, Watch};

pub fn check(recording: &Recording, chronicle: &Chronicle) -> Vec<Finding> {
    let mut findings = Vec::new();
    for watch in &recording.watches {
        let told: Vec<Told> = chronicle.changes().iter().filter_map(|change| part(watch, change)).collect();
        for piece in &watch.pieces {
            if let Err(what) = follow(piece, &told, chronicle) {
                let (name, member) = (&watch.name, piece.member);
                findings.push(Finding {
                    law: Law::Watch,
                    what: format!("{name} from {} at member {member}: {what}", piece.from),
                });
            }
        }
        findings.extend(resumption(watch));
    }
    findings
}

/// A revision and those of its events that concern a watch.
type Told<'a> = (i64, Vec<&'a Event>);

fn part<'a>(watch: &Watch, (revision, events): &'a (i64, Vec<Event>)) -> Option<Told<'a>> {
    let mine: Vec<&Event> = events.iter().filter(|event| watch.covers(key(event))).collect();
    (!mine.is_empty()).then_some((*revision, mine))
}

fn key(event: &Event) -> &[u8] {
    event.kv.as_ref().map_or(&[], |kv| &kv.key)
}

fn revision(event: &Event) -> i64 {
    event.kv.as_ref().map_or(0, |kv| kv.mod_revision)
}

/// Goes along history beside the deliveries of one connection.
fn follow(piece: &Piece, told: &[Told<'_>], chronicle: &Chronicle) -> Result<(), String> {
    let mut next = told.partition_point(|(revision, _)| *revision < piece.from);
    for delivery in &piece.deliveries {
        let asserted = delivery.header.revision;
        let mut rest = &delivery.events[..];
        while let Some(first) = rest.first() {
            let at = revision(first);
            let whole = rest.partition_point(|event| revision(event) == at);
            let (events, behind) = rest.split_at(whole);
            rest = behind;
            let Some((expected, mine)) = told.get(next) else {
                return Err(format!("was told of {at}, which never happened: {events:?}"));
            };
            if at < *expected {
                return Err(format!("was told of {at} once more, or of what did not happen: {events:?}"));
            }
            if at > *expected {
                return Err(format!(
                    "was told of {at} when {expected} was due, which was left out: {mine:?}"
                ));
            }
            if events.len() != mine.len() {
                return Err(format!("was told of {} events of {at}, which has {}", events.len(), mine.len()));
            }
            for (event, right) in events.iter().zip(mine) {
                if event.kv != right.kv || event.r#type != right.r#type {
                    return Err(format!("was told {event:?}, but what happened is {right:?}"));
                }
                let before = chronicle.at(key(event), at - 1);
                if !same(event.prev_kv.as_ref(), before) {
                    return Err(format!(
                        "was told of {at} that before it was {:?}, not {before:?}",
                        event.prev_kv
                    ));
                }
            }
            if at > asserted {
                return Err(format!("was told of {at} under a header of {asserted}"));
            }
            next += 1;
        }
        if delivery.events.is_empty()
            && let Some((expected, _)) = told.get(next)
            && *expected <= asserted
        {
            return Err(format!("was told that it has come to {asserted}, but {expected} was never told"));
        }
    }
    Ok(())
}

fn same(told: Option<&KeyValue>, before: Option<&KeyValue>) -> bool {
    told == before
}

/// Whether each connection took up where the one before had ended: the recording's own honesty, and the end of the story.
fn resumption(watch: &Watch) -> Option<Finding> {
    let mut next = watch.pieces.first()?.from;
    for piece in &watch.pieces {
        if piece.from != next {
            let what = format!("{} resumed at {} instead of {next}", watch.name, piece.from);
            return Some(Finding { law: Law::Watch, what });
        }
        let last = piece.deliveries.iter().flat_map(|delivery| &delivery.events).map(revision).max();
        next = last.map_or(next, |last| last + 1);
    }
    None
}

/// The revision up to which a watch has been told everything.
pub fn told_up_to(pieces: &[Piece]) -> i64 {
    let deliveries = pieces.iter().flat_map(|piece| &piece.deliveries);
    deliveries.flat_map(|delivery| &delivery.events).map(revision).max().unwrap_or(0)
}

/// Whether a watch of everything was told all of `chronicle` by the end; else what it waits for.
pub fn left_out(watch: &Watch, chronicle: &Chronicle) -> Option<i64> {
    let last = told_up_to(&watch.pieces);
    let behind = chronicle.changes().iter().filter(|(revision, _)| *revision > last);
    behind.filter_map(|change| part(watch, change)).map(|(revision, _)| revision).next()
}

/// The keys of deletions in a change.
pub fn deleted(events: &[Event]) -> impl Iterator<Item = &Bytes> {
    let deletions = events.iter().filter(|event| event.r#type() == EventType::Delete);
    deletions.filter_map(|event| event.kv.as_ref().map(|kv| &kv.key))
}

#[cfg(test)]
mod tests {
    use super::super::made_up::{Story, text};
    use super::*;
    use crate::history::{Delivery, Header};

    fn story() -> Story {
        let mut story = Story::default();
        story.happened(2, "a", Some("1"));
        story.happened(3, "b", Some("1"));
        story.happened(4, "a", None);
        story.happened(4, "b", None);
        story.happened(5, "a", Some("2"));
        story
    }

    /// All of history in one delivery for each revision, as a right watch tells it.
    fn deliveries(story: &Story) -> Vec<Delivery> {
        let chronicle = story.chronicle();
        let deliver = |(revision, events): &(i64, Vec<Event>)| {
            let mut events = events.clone();
            for event in &mut events {
                event.prev_kv = chronicle.at(key(event), revision - 1).cloned();
            }
            Delivery { at: 0, header: Header { revision: *revision, term: 1 }, events }
        };
        chronicle.changes().iter().map(deliver).collect()
    }

    fn verdict(change: impl FnOnce(&mut Vec<Delivery>)) -> Vec<String> {
        let story = story();
        let mut deliveries = deliveries(&story);
        change(&mut deliveries);
        verdict_of(vec![Piece { member: 0, from: 1, deliveries }])
    }

    fn verdict_of(pieces: Vec<Piece>) -> Vec<String> {
        let watch = Watch { name: "all".into(), from: text("\0"), to: text("\0"), pieces };
        let recording = Recording { operations: Vec::new(), watches: vec![watch] };
        check(&recording, &story().chronicle()).into_iter().map(|finding| finding.what).collect()
    }

    fn must_find(verdict: Vec<String>, what: &str) {
        assert!(verdict.iter().any(|finding| finding.contains(what)), "looked for {what:?} in {verdict:#?}");
    }

    #[test]
    fn the_whole_story_passes() {
        assert_eq!(verdict(|_| {}), Vec::<String>::new());
        // Several revisions in one delivery are fine.
        let together = |deliveries: &mut Vec<Delivery>| {
            let events = deliveries.iter().flat_map(|delivery| delivery.events.clone()).collect();
            *deliveries = vec![Delivery { at: 0, header: Header { revision: 5, term: 1 }, events }];
        };
        assert_eq!(verdict(together), Vec::<String>::new());
    }

    #[test]
    fn a_dropped_event_is_found() {
        must_find(verdict(|deliveries| drop(deliveries.remove(1))), "when 3 was due");
    }

    #[test]
    fn a_repeated_event_is_found() {
        must_find(
            verdict(|deliveries| deliveries.insert(1, deliveries[0].clone())),
            "was told of 2 once more",
        );
    }

    #[test]
    fn a_wrong_order_is_found() {
        must_find(verdict(|deliveries| deliveries.swap(0, 1)), "when 2 was due");
    }

    #[test]
    fn a_torn_revision_is_found() {
        let tear = |deliveries: &mut Vec<Delivery>| {
            let mut half = deliveries[2].clone();
            half.events.remove(0);
            deliveries[2].events.truncate(1);
            deliveries.insert(3, half);
        };
        must_find(verdict(tear), "1 events of 4, which has 2");
    }

    #[test]
    fn a_changed_event_is_found() {
        let lie = |deliveries: &mut Vec<Delivery>| {
            deliveries[0].events[0].kv.as_mut().unwrap().value = text("lie");
        };
        must_find(verdict(lie), "but what happened is");
        let forget = |deliveries: &mut Vec<Delivery>| deliveries[2].events[0].prev_kv = None;
        must_find(verdict(forget), "that before it was None");
    }

    #[test]
    fn progress_told_too_early_is_found() {
        let progress = |place, revision| {
            move |deliveries: &mut Vec<Delivery>| {
                let header = Header { revision, term: 1 };
                deliveries.insert(place, Delivery { at: 0, header, events: Vec::new() });
            }
        };
        assert_eq!(verdict(progress(2, 3)), Vec::<String>::new());
        must_find(verdict(progress(2, 4)), "4 was never told");
    }

    #[test]
    fn a_watch_resumes_where_it_was() {
        let pieces = |from| {
            let mut first = deliveries(&story());
            let second = first.split_off(2);
            vec![
                Piece { member: 0, from: 1, deliveries: first },
                Piece { member: 1, from, deliveries: second },
            ]
        };
        assert_eq!(verdict_of(pieces(4)), Vec::<String>::new());
        must_find(verdict_of(pieces(5)), "resumed at 5 instead of 4");
        let mut lost = pieces(4);
        lost[1].deliveries.remove(0);
        must_find(verdict_of(lost), "when 4 was due");
    }

    #[test]
    fn what_was_never_told_is_known() {
        let story = story();
        let mut deliveries = deliveries(&story);
        deliveries.pop();
        let pieces = vec![Piece { member: 0, from: 1, deliveries }];
        let watch = Watch { name: "all".into(), from: text("\0"), to: text("\0"), pieces };
        assert_eq!(left_out(&watch, &story.chronicle()), Some(5));
    }
}
