//! The proposals that wait to be made by the leader and applied here, by number. Bounded by the writer's admission. Knows
//! neither who leads nor how anything is sent.

use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::raft::{Held, Mandate, Reply, Ticket, Unavailable};

/// Bytes after which a batch is full; one proposal always fits.
const BATCH_BYTES: usize = 256 << 10;

pub type Outcome = Result<Reply, Unavailable>;

/// Why a leader did not take a proposal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It does not lead: another one may take it.
    NotLeader,
    /// It has too much to do.
    Busy,
}

/// What this member's clients wait for through another member.
pub struct Tickets {
    member: u64,
    timeout_ms: u64,
    table: Mutex<Table>,
}

struct Table {
    /// The number of the first slot.
    first: u64,
    /// In the order of their numbers; None where the outcome is known already.
    slots: VecDeque<Option<Slot>>,
    /// The first number that was never sent.
    unsent: u64,
    /// Those before `unsent` that are to be sent again, since whom they were sent to certainly did not write them.
    again: VecDeque<u64>,
    /// The latest leadership whose entries were applied here.
    led: Mandate,
    sender: Option<Waker>,
    /// When (milliseconds of a clock) there were which numbers: a slot whose number is below a mark is older than it.
    marks: VecDeque<(u64, u64)>,
}

struct Slot {
    proposal: Bytes,
    /// The leadership it was last sent for, unless it is certain that it was not written there.
    sent: Option<Mandate>,
    tell: oneshot::Sender<Outcome>,
    held: Held,
}

impl Slot {
    /// Who waited and went away does not need to know.
    fn answer(self, outcome: Outcome) {
        drop(self.held);
        let _ = self.tell.send(outcome);
    }
}

impl Tickets {
    /// `first`: thrown by dice, so that a proposal of the time before a restart is not taken for one of those after it.
    pub fn new(member: u64, first: u64, timeout_ms: u64) -> Tickets {
        // Far enough from the end that counting on never gets there.
        let first = first >> 1;
        let table = Table {
            first,
            slots: VecDeque::new(),
            unsent: first,
            again: VecDeque::new(),
            led: Mandate::default(),
            sender: None,
            marks: VecDeque::new(),
        };
        Tickets { member, timeout_ms, table: Mutex::new(table) }
    }

    /// Takes an encoded proposal to be sent; its outcome comes within about the timeout.
    pub fn add(&self, mut proposal: Vec<u8>, held: Held) -> oneshot::Receiver<Outcome> {
        let (tell, told) = oneshot::channel();
        let waker = {
            let mut table = self.table.lock();
            let number = table.first + table.slots.len() as u64;
            Ticket { member: self.member, number }.put(&mut proposal);
            table.slots.push_back(Some(Slot { proposal: proposal.into(), sent: None, tell, held }));
            table.sender.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        told
    }

    /// The next batch for this leader, in the order in which it was made.
    pub fn poll_batch(&self, mandate: Mandate, context: &mut Context<'_>) -> Poll<Vec<Bytes>> {
        let mut table = self.table.lock();
        let batch = table.take(mandate);
        if batch.is_empty() {
            if !table.sender.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
                table.sender = Some(context.waker().clone());
            }
            return Poll::Pending;
        }
        Poll::Ready(batch)
    }

    /// It was applied here.
    pub fn answer(&self, number: u64, reply: Reply) {
        let slot = self.table.lock().remove(number);
        if let Some(slot) = slot {
            slot.answer(Ok(reply));
        }
    }

    /// It was not written, says the leader it was sent to.
    pub fn refuse(&self, number: u64, by: Mandate, refusal: Refusal) {
        let mut table = self.table.lock();
        let Some(slot) = table.slot(number).filter(|slot| slot.sent == Some(by)) else { return };
        match refusal {
            Refusal::NotLeader => {
                slot.sent = None;
                table.again.push_back(number);
            }
            Refusal::Busy => {
                let slot = table.remove(number);
                drop(table);
                if let Some(slot) = slot {
                    slot.answer(Err(Unavailable::Busy));
                }
            }
        }
    }

    /// An entry of this leadership was applied here: what was sent for earlier ones never will be.
    pub fn led(&self, mandate: Mandate) {
        let waker = {
            let mut table = self.table.lock();
            table.led = mandate;
            let first = table.first;
            let mut lost = Vec::new();
            for (slot, number) in table.slots.iter_mut().zip(first..) {
                if let Some(slot) = slot
                    && slot.sent.is_some_and(|sent| sent < mandate)
                {
                    slot.sent = None;
                    lost.push(number);
                }
            }
            table.again.extend(lost);
            table.sender.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Those sent for this leadership and not answered: asked for before a new stream, and given to [`Tickets::lost`] when it
    /// is known what became of the last one.
    pub fn sent_for(&self, mandate: Mandate) -> Vec<u64> {
        let table = self.table.lock();
        let numbered = table.slots.iter().zip(table.first..);
        let sent = numbered.filter(|(slot, _)| slot.as_ref().is_some_and(|slot| slot.sent == Some(mandate)));
        sent.map(|(_, number)| number).collect()
    }

    /// Of these, whichever is still not answered was certainly not written by the leader it was sent to.
    pub fn lost(&self, numbers: &[u64], by: Mandate) {
        let waker = {
            let mut table = self.table.lock();
            for number in numbers {
                let Some(slot) = table.slot(*number).filter(|slot| slot.sent == Some(by)) else { continue };
                slot.sent = None;
                table.again.push_back(*number);
            }
            table.sender.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Entries were passed over, and with them perhaps some of these: whether they were written is not known.
    pub fn restored(&self) {
        let sent: Vec<Slot> = {
            let mut table = self.table.lock();
            let sent = table.slots.iter_mut().filter_map(|slot| slot.take_if(|slot| slot.sent.is_some()));
            let sent = sent.collect();
            table.close_up();
            sent
        };
        for slot in sent {
            slot.answer(Err(Unavailable::LeaderChanged));
        }
    }

    /// Gives up on what has waited for the timeout; `now_ms` is of a clock that never goes back. Called now and then: that
    /// decides how exact it is.
    pub fn expire(&self, now_ms: u64) {
        let mut expired = Vec::new();
        {
            let mut table = self.table.lock();
            let next = table.first + table.slots.len() as u64;
            table.marks.push_back((now_ms, next));
            while let Some(&(_, number)) =
                table.marks.front().filter(|(then, _)| now_ms.saturating_sub(*then) >= self.timeout_ms)
            {
                table.marks.pop_front();
                while table.first < number
                    && let Some(slot) = table.slots.pop_front()
                {
                    table.first += 1;
                    expired.extend(slot);
                }
            }
            table.close_up();
        }
        for slot in expired {
            slot.answer(Err(Unavailable::TimedOut));
        }
    }
}

impl Table {
    fn slot(&mut self, number: u64) -> Option<&mut Slot> {
        let at = usize::try_from(number.checked_sub(self.first)?).ok()?;
        self.slots.get_mut(at)?.as_mut()
    }

    fn remove(&mut self, number: u64) -> Option<Slot> {
        let at = usize::try_from(number.checked_sub(self.first)?).ok()?;
        let slot = self.slots.get_mut(at)?.take();
        self.close_up();
        slot
    }

    /// Lets go of the slots at the front whose outcome is known.
    fn close_up(&mut self) {
        while let Some(None) = self.slots.front() {
            self.slots.pop_front();
            self.first += 1;
        }
        self.unsent = self.unsent.max(self.first);
    }

    fn take(&mut self, mandate: Mandate) -> Vec<Bytes> {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        // Nothing more for a leader that has a successor: what it was sent could no longer be told from what it wrote.
        if mandate < self.led {
            return batch;
        }
        let end = self.first + self.slots.len() as u64;
        while bytes < BATCH_BYTES {
            let number = match self.again.pop_front() {
                Some(number) => number,
                None if self.unsent < end => {
                    self.unsent += 1;
                    self.unsent - 1
                }
                None => break,
            };
            let Some(slot) = self.slot(number) else { continue };
            if slot.tell.is_closed() {
                // It was not written, and nobody waits for it any more.
                drop(self.remove(number));
                continue;
            }
            slot.sent = Some(mandate);
            bytes += slot.proposal.len();
            batch.push(slot.proposal.clone());
        }
        batch
    }
}
