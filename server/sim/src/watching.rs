//! Clients that watch: each follows the keys of one prefix for the whole of a seed, from member to member, and goes on after
//! what it has heard. It notes what it was told; the witness says whether that was right.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tenure_state::{Delivery, Interval, Place, Revision, WatchSpec, prefix_end};
use tenured::ids::Dice;
use tenured::node::Next;

use crate::member::{Desk, Member};

/// A client that watches.
pub struct Watching {
    prefix: &'static [u8],
    /// What it heard, a stretch for each time it had to begin where it had not heard what lies between.
    pub stretches: Vec<Arc<Mutex<Stretch>>>,
    /// The member and life that it watches at.
    at: Option<(usize, u64)>,
    again_ms: u64,
    dice: Dice,
    /// A planted bug: one event is not passed on.
    loses: bool,
}

/// Without a gap, if all is well.
#[derive(Clone, Debug, Default)]
pub struct Stretch {
    /// The first revision it is to hear of; None until the member said from where.
    pub from: Option<i64>,
    pub heard: Vec<(Place, Bytes, Bytes)>,
    /// It was promised that nothing up to here is still to come.
    pub promised: i64,
    pub header: i64,
    /// A header that was lower than the one before.
    pub went_back: Option<(i64, i64)>,
    /// The member ended it, and from where history can still be had if compaction was why.
    ended: Option<Option<i64>>,
}

impl Stretch {
    /// Where to go on.
    fn next(&self) -> Option<i64> {
        let heard = self.heard.last().map_or(0, |(place, ..)| place.main);
        Some(self.from?.max(heard + 1))
    }
}

impl Watching {
    pub fn new(prefix: &'static [u8], dice: Dice, loses: bool) -> Watching {
        Watching { prefix, stretches: vec![Arc::default()], at: None, again_ms: 0, dice, loses }
    }

    pub fn prefix(&self) -> &'static [u8] {
        self.prefix
    }

    fn last(&self) -> &Arc<Mutex<Stretch>> {
        self.stretches.last().expect("there is one from the beginning")
    }

    /// Whether it has heard of everything up to this revision, as far as it can know.
    pub fn reached(&self) -> i64 {
        let stretch = self.last().lock();
        stretch.promised.max(stretch.heard.last().map_or(0, |(place, ..)| place.main))
    }

    /// Sees to it that it watches somewhere.
    pub fn tick(&mut self, now_ms: u64, members: &[Member]) {
        let alive = |(member, life): (usize, u64)| members[member].serving() && members[member].lives == life;
        let ended = self.last().lock().ended.take();
        if ended.is_none() && self.at.is_some_and(alive) {
            return;
        }
        self.at = None;
        if let Some(Some(compacted)) = ended {
            let stretch = Stretch { from: Some(compacted), ..Stretch::default() };
            self.stretches.push(Arc::new(Mutex::new(stretch)));
        }
        let serving: Vec<&Member> = members.iter().filter(|member| member.serving()).collect();
        if serving.is_empty() || now_ms < self.again_ms {
            return;
        }
        self.again_ms = now_ms + 20 + self.dice.below(300);
        let member = serving[self.dice.below(serving.len() as u64) as usize];
        let Some(desk) = member.desk() else { return };
        self.at = Some((member.index, member.lives));
        let loses = self.loses && self.dice.below(4) == 0;
        member.spawn(follow(desk, self.prefix, self.last().clone(), loses));
    }
}

async fn follow(desk: Desk, prefix: &'static [u8], stretch: Arc<Mutex<Stretch>>, mut loses: bool) {
    let stream = desk.watches.open();
    let from = stretch.lock().next();
    let interval = Interval::new(prefix, &prefix_end(prefix));
    let mut spec = WatchSpec::new(interval, Revision(from.unwrap_or(0)));
    spec.progress_notify = true;
    let Ok(created) = stream.create(&spec) else {
        stretch.lock().ended = Some(None);
        return;
    };
    {
        let mut stretch = stretch.lock();
        stretch.from.get_or_insert(created.revision.0 + 1);
        // Another member's, or another life's, headers need not follow on this one's.
        stretch.header = 0;
    }
    loop {
        let next = stream.next().await;
        let mut stretch = stretch.lock();
        match next {
            Ok(Next::Events(delivery)) => {
                let skipped = usize::from(std::mem::take(&mut loses));
                stretch.hear(&delivery, skipped);
            }
            Ok(Next::Progress { revision, .. }) => {
                stretch.saw_header(revision.0);
                stretch.promised = stretch.promised.max(revision.0);
            }
            Ok(Next::Canceled { compact_revision, .. }) => {
                stretch.ended = Some((compact_revision.0 > 0).then_some(compact_revision.0));
                return;
            }
            _ => {
                stretch.ended = Some(None);
                return;
            }
        }
    }
}

impl Stretch {
    fn hear(&mut self, delivery: &Delivery, skipped: usize) {
        self.saw_header(delivery.header_revision.0);
        for event in delivery.events().skip(skipped) {
            let kv = event.key_value();
            self.heard.push((event.place, kv.key, kv.value));
        }
    }

    fn saw_header(&mut self, revision: i64) {
        if revision < self.header {
            self.went_back.get_or_insert((self.header, revision));
        }
        self.header = revision;
    }
}
