//! The tickets by themselves: what is sent when and to whom, and who is told what.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use futures::task::ArcWake;
use tenure_state::{Response, Revision};
use tokio::sync::oneshot;

use super::tickets::{Outcome, Refusal, Tickets};
use crate::raft::{Mandate, Reply, Ticket, Unavailable};

const MEMBER: u64 = 0xa;
const TIMEOUT_MS: u64 = 7_000;
const FIRST: Mandate = Mandate { term: 3, member: 1 };
const SECOND: Mandate = Mandate { term: 4, member: 2 };

fn tickets() -> Tickets {
    Tickets::new(MEMBER, 1_000, TIMEOUT_MS)
}

fn add(tickets: &Tickets, what: &[u8]) -> oneshot::Receiver<Outcome> {
    tickets.add(what.to_vec(), Box::new(()))
}

/// What is sent now, by what was added and by number.
fn sent(tickets: &Tickets, to: Mandate) -> Vec<(Vec<u8>, u64)> {
    let batch = tickets.poll_batch(to, &mut Context::from_waker(Waker::noop()));
    let Poll::Ready(batch) = batch else { return Vec::new() };
    let read = |bytes: Bytes| {
        let ticket = Ticket::of(&bytes).unwrap();
        assert_eq!(ticket.member, MEMBER);
        (bytes[..bytes.len() - Ticket::BYTES].to_vec(), ticket.number)
    };
    batch.into_iter().map(read).collect()
}

fn names(sent: &[(Vec<u8>, u64)]) -> Vec<&str> {
    sent.iter().map(|(name, _)| std::str::from_utf8(name).unwrap()).collect()
}

fn reply(index: u64) -> Reply {
    Reply { answer: Ok(Response::MemberPublished), revision: Revision(1), index }
}

fn index(told: &mut oneshot::Receiver<Outcome>) -> Option<Result<u64, Unavailable>> {
    Some(told.try_recv().ok()?.map(|reply| reply.index))
}

#[test]
fn what_gathered_goes_once_in_its_order_and_is_answered_by_number() {
    let tickets = tickets();
    let (mut a, mut b) = (add(&tickets, b"a"), add(&tickets, b"b"));
    let batch = sent(&tickets, FIRST);
    assert_eq!(names(&batch), ["a", "b"]);
    assert!(sent(&tickets, FIRST).is_empty());
    tickets.answer(batch[1].1, reply(8));
    assert_eq!((index(&mut a), index(&mut b)), (None, Some(Ok(8))));
    tickets.answer(batch[0].1, reply(9));
    assert_eq!(index(&mut a), Some(Ok(9)));
    // An old entry, applied again, is nobody's.
    tickets.answer(batch[0].1, reply(10));
    tickets.answer(7, reply(11));
    tickets.answer(u64::MAX, reply(12));
}

#[test]
fn a_new_leaders_first_entry_has_what_was_lost_sent_again_and_nothing_else() {
    let tickets = tickets();
    let (mut a, mut b, mut c) = (add(&tickets, b"a"), add(&tickets, b"b"), add(&tickets, b"c"));
    let batch = sent(&tickets, FIRST);
    tickets.answer(batch[0].1, reply(5));
    // It may still come: not yet.
    assert!(sent(&tickets, SECOND).is_empty());
    let _d = add(&tickets, b"d");
    assert_eq!(names(&sent(&tickets, SECOND)), ["d"]);
    tickets.led(SECOND);
    assert!(sent(&tickets, FIRST).is_empty(), "the earlier leader gets nothing any more");
    let again = sent(&tickets, SECOND);
    assert_eq!(names(&again), ["b", "c"]);
    assert_eq!(again[0].1, batch[1].1);
    // The earlier leader's late word does not count.
    tickets.refuse(batch[1].1, FIRST, Refusal::Busy);
    assert!(sent(&tickets, SECOND).is_empty());
    tickets.answer(again[0].1, reply(6));
    tickets.answer(again[1].1, reply(7));
    assert_eq!((index(&mut a), index(&mut b), index(&mut c)), (Some(Ok(5)), Some(Ok(6)), Some(Ok(7))));
}

#[test]
fn what_a_broken_stream_lost_is_sent_again_to_the_same_leader_and_what_it_brought_is_not() {
    let tickets = tickets();
    let (_a, mut b) = (add(&tickets, b"a"), add(&tickets, b"b"));
    let batch = sent(&tickets, FIRST);
    let doubtful = tickets.sent_for(FIRST);
    assert_eq!(doubtful, [batch[0].1, batch[1].1]);
    let _c = add(&tickets, b"c");
    assert_eq!(names(&sent(&tickets, FIRST)), ["c"]);
    tickets.answer(batch[1].1, reply(4));
    tickets.lost(&doubtful, FIRST);
    assert_eq!(index(&mut b), Some(Ok(4)));
    assert_eq!(names(&sent(&tickets, FIRST)), ["a"]);
    // Meanwhile it may have gone to another leader, of whom this says nothing.
    tickets.led(SECOND);
    assert_eq!(names(&sent(&tickets, SECOND)), ["a", "c"]);
    tickets.lost(&doubtful, FIRST);
    assert!(sent(&tickets, SECOND).is_empty());
}

#[test]
fn a_refusal_is_an_answer_only_when_no_other_leader_could_help() {
    let tickets = tickets();
    let (mut a, mut b) = (add(&tickets, b"a"), add(&tickets, b"b"));
    let batch = sent(&tickets, FIRST);
    tickets.refuse(batch[0].1, FIRST, Refusal::NotLeader);
    tickets.refuse(batch[1].1, FIRST, Refusal::Busy);
    assert_eq!((index(&mut a), index(&mut b)), (None, Some(Err(Unavailable::Busy))));
    assert_eq!(names(&sent(&tickets, SECOND)), ["a"]);
}

#[test]
fn what_nobody_waits_for_is_not_sent() {
    let tickets = tickets();
    drop(add(&tickets, b"a"));
    let _b = add(&tickets, b"b");
    assert_eq!(names(&sent(&tickets, FIRST)), ["b"]);
}

#[test]
fn entries_passed_over_leave_the_outcome_of_what_was_sent_unknown() {
    let tickets = tickets();
    let mut a = add(&tickets, b"a");
    assert_eq!(names(&sent(&tickets, FIRST)), ["a"]);
    let mut b = add(&tickets, b"b");
    tickets.restored();
    assert_eq!((index(&mut a), index(&mut b)), (Some(Err(Unavailable::LeaderChanged)), None));
    assert_eq!(names(&sent(&tickets, FIRST)), ["b"]);
}

#[test]
fn after_the_timeout_it_is_over_sent_or_not() {
    let tickets = tickets();
    let (mut a, mut b) = (add(&tickets, b"a"), add(&tickets, b"b"));
    assert_eq!(names(&sent(&tickets, FIRST)), ["a", "b"]);
    tickets.refuse(1_000 >> 1, FIRST, Refusal::NotLeader);
    let mut c = add(&tickets, b"c");
    tickets.expire(5);
    let mut d = add(&tickets, b"d");
    tickets.expire(5 + TIMEOUT_MS - 1);
    assert_eq!(index(&mut a), None);
    tickets.expire(5 + TIMEOUT_MS);
    for told in [&mut a, &mut b, &mut c] {
        assert_eq!(index(told), Some(Err(Unavailable::TimedOut)));
    }
    assert_eq!(index(&mut d), None);
    assert_eq!(names(&sent(&tickets, SECOND)), ["d"]);
}

struct Count(AtomicUsize);

impl ArcWake for Count {
    fn wake_by_ref(count: &Arc<Self>) {
        count.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn a_sender_that_waits_is_woken_once_for_all_that_gather() {
    let tickets = tickets();
    let woken = Arc::new(Count(AtomicUsize::new(0)));
    let waker = futures::task::waker(woken.clone());
    assert!(tickets.poll_batch(FIRST, &mut Context::from_waker(&waker)).is_pending());
    let _told = [add(&tickets, b"a"), add(&tickets, b"b"), add(&tickets, b"c")];
    assert_eq!(woken.0.load(Ordering::SeqCst), 1);
    assert_eq!(sent(&tickets, FIRST).len(), 3);
}

#[test]
fn a_share_of_what_may_be_under_way_is_held_until_the_outcome_is_known() {
    let tickets = tickets();
    let held = Arc::new(());
    let told = tickets.add(b"a".to_vec(), Box::new(held.clone()));
    let batch = sent(&tickets, FIRST);
    drop(told);
    assert_eq!(Arc::strong_count(&held), 2, "whoever asked went away, but it may yet be written");
    tickets.answer(batch[0].1, reply(5));
    assert_eq!(Arc::strong_count(&held), 1);
}
