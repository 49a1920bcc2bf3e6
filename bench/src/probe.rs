//! Puts and gets sent to each member by the clock, and what came of them: since when each member last answered, and the longest
//! time in which it did not. Connections that break are opened anew.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use tenure_proto::etcdserverpb::{PutRequest, RangeRequest};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::data::{Keys, Values};
use crate::failure::Failure;
use crate::grpc::{Connection, Endpoint};
use crate::session::Session;
use crate::tally::Counts;
use crate::workload::{PUT, RANGE};

/// Longer than a server takes to give up a request, so that its answer is seen; then the call is dropped.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// Unanswered calls of one probe; while there are so many, none is sent.
const CALLS_MAX: usize = 10_000;

/// What a probe asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Put,
    Get,
}

const KINDS: [(Kind, &str); 2] = [(Kind::Put, "put"), (Kind::Get, "get")];

/// The answers of one member, or of all together, to one kind of call.
#[derive(Clone, Copy, Debug)]
struct Answers {
    last: Instant,
    longest: Duration,
    /// When the latest call that succeeded was sent.
    sent: Option<Instant>,
}

/// What all probes saw.
pub(crate) struct Ledger {
    anywhere: [Answers; 2],
    members: Vec<[Answers; 2]>,
    counts: Counts,
}

impl Answers {
    fn none_yet(now: Instant) -> Self {
        Self { last: now, longest: Duration::ZERO, sent: None }
    }

    fn note(&mut self, sent: Instant, now: Instant) {
        self.longest = self.longest(now);
        self.last = now;
        self.sent = self.sent.max(Some(sent));
    }

    fn longest(&self, now: Instant) -> Duration {
        self.longest.max(now.saturating_duration_since(self.last))
    }
}

impl Ledger {
    pub(crate) fn new(members: usize) -> Self {
        let none = [Answers::none_yet(Instant::now()); 2];
        Self { anywhere: none, members: vec![none; members], counts: Counts::default() }
    }

    fn succeeded(&mut self, member: usize, kind: Kind, sent: Instant, now: Instant) {
        self.anywhere[kind as usize].note(sent, now);
        self.members[member][kind as usize].note(sent, now);
        self.counts.record(KINDS[kind as usize].1, now.saturating_duration_since(sent));
    }

    /// Gaps are counted anew from the last success of each.
    pub(crate) fn forget_gaps(&mut self) {
        let answers = self.anywhere.iter_mut().chain(self.members.iter_mut().flatten());
        answers.for_each(|answers| answers.longest = Duration::ZERO);
    }

    /// The longest times without a successful put and get at any member.
    pub(crate) fn longest_anywhere(&self, now: Instant) -> [Duration; 2] {
        self.anywhere.map(|answers| answers.longest(now))
    }

    /// The same at the one of `members` where they were longest.
    pub(crate) fn longest_of(&self, members: &[usize], now: Instant) -> [Duration; 2] {
        let of =
            |kind: Kind| members.iter().map(|member| self.members[*member][kind as usize].longest(now)).max();
        [of(Kind::Put), of(Kind::Get)].map(Option::unwrap_or_default)
    }

    /// Who has not yet answered a call that was sent after `since`; None when all have.
    pub(crate) fn unserved(&self, members: &[usize], since: Instant) -> Option<String> {
        let kinds = members.iter().flat_map(|member| KINDS.map(|(kind, name)| (*member, kind, name)));
        let mut unserved =
            kinds.filter(|(member, kind, _)| self.members[*member][*kind as usize].sent < Some(since));
        unserved.next().map(|(member, _, name)| format!("no {name} succeeded at member {member}"))
    }

    /// Takes the latencies of what succeeded, and what failed.
    pub(crate) fn take_counts(&mut self) -> Counts {
        std::mem::take(&mut self.counts)
    }
}

/// Starts probing every member with `rate` puts and as many gets per second each; dropping the tasks ends it.
pub(crate) fn start(session: &Session, rate: u32, ledger: &Arc<Mutex<Ledger>>) -> JoinSet<()> {
    let mut probes = JoinSet::new();
    for (member, endpoint) in session.endpoints.iter().enumerate() {
        for (kind, _) in KINDS {
            let probe = Probe {
                member,
                kind,
                endpoint: endpoint.clone(),
                ledger: ledger.clone(),
                keys: session.keys.clone(),
                values: session.values(),
                random: session.random(2 * member + kind as usize),
            };
            probes.spawn(probe.repeat(Duration::from_secs(1) / rate));
        }
    }
    probes
}

struct Probe {
    member: usize,
    kind: Kind,
    endpoint: Endpoint,
    ledger: Arc<Mutex<Ledger>>,
    keys: Keys,
    values: Values,
    random: SmallRng,
}

impl Probe {
    async fn repeat(mut self, every: Duration) {
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        // How often a connection was opened tells the failures of an earlier one from those of this one.
        let (mut connection, mut opened) = (None, 0_u64);
        let mut calls = JoinSet::new();
        loop {
            ticks.tick().await;
            while let Some(ended) = calls.try_join_next() {
                if ended.is_ok_and(|broken| broken == Some(opened)) {
                    connection = None;
                }
            }
            if connection.is_none() {
                connection =
                    Connection::open(&self.endpoint).await.map_err(|failure| self.failed(&failure)).ok();
                opened += 1;
            }
            if let Some(connection) = connection.as_ref().filter(|_| calls.len() < CALLS_MAX) {
                calls.spawn(self.call(connection, opened));
            }
        }
    }

    /// Sends one call; gives the connection's number if it is broken.
    fn call(
        &mut self,
        connection: &Connection,
        opened: u64,
    ) -> impl Future<Output = Option<u64>> + Send + use<> {
        let key = self.keys.random(&mut self.random);
        let value = self.values.random(&mut self.random);
        let (member, kind, ledger) = (self.member, self.kind, self.ledger.clone());
        let (mut put, mut range) = (connection.method(PUT), connection.method(RANGE));
        async move {
            let sent = Instant::now();
            let call = async {
                match kind {
                    Kind::Put => put.call(&PutRequest { key, value, ..Default::default() }).await,
                    Kind::Get => range.call(&RangeRequest { key, ..Default::default() }).await,
                }
            };
            let late = || Failure::unanswered(format!("no answer within {ANSWER_LIMIT:?}"));
            let answer = timeout(ANSWER_LIMIT, call).await.unwrap_or_else(|_| Err(late()));
            let mut ledger = ledger.lock().expect("nothing panics while noting an answer");
            match answer {
                Ok(_) => ledger.succeeded(member, kind, sent, Instant::now()),
                Err(failure) => {
                    ledger.counts.errors.add(&failure, 1);
                    return failure.is_disconnected().then_some(opened);
                }
            }
            None
        }
    }

    fn failed(&self, failure: &Failure) {
        self.ledger.lock().expect("nothing panics while noting an answer").counts.errors.add(failure, 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_silence_is_found_at_each_member_and_over_all() {
        let mut ledger = Ledger::new(2);
        let start = Instant::now() + Duration::from_secs(1);
        let at = |ms| start + Duration::from_millis(ms);
        let mut put = |member, ms| ledger.succeeded(member, Kind::Put, at(ms), at(ms));
        put(0, 0);
        put(1, 0);
        ledger.forget_gaps();
        let mut put = |member, ms| ledger.succeeded(member, Kind::Put, at(ms), at(ms));
        put(0, 300);
        put(1, 700);
        put(0, 800);
        assert_eq!(ledger.longest_anywhere(at(800))[0], Duration::from_millis(400));
        assert_eq!(ledger.longest_of(&[0], at(800))[0], Duration::from_millis(500));
        assert_eq!(ledger.longest_of(&[0, 1], at(800))[0], Duration::from_millis(700));
        // A silence that still lasts counts as well.
        assert_eq!(ledger.longest_of(&[1], at(2000))[0], Duration::from_millis(1300));
    }

    #[test]
    fn a_member_serves_again_once_it_answered_both_kinds_sent_since() {
        let mut ledger = Ledger::new(2);
        let since = Instant::now();
        let (before, after) = (since.checked_sub(Duration::from_millis(1)), since + Duration::from_millis(1));
        ledger.succeeded(0, Kind::Put, before.unwrap_or(since), after);
        ledger.succeeded(0, Kind::Get, after, after);
        assert_eq!(ledger.unserved(&[0], since).as_deref(), Some("no put succeeded at member 0"));
        ledger.succeeded(0, Kind::Put, after, after);
        assert_eq!(ledger.unserved(&[0], since), None);
        assert!(ledger.unserved(&[0, 1], since).is_some());
    }
}
