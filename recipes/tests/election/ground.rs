//! An election on a server in memory: short words for what the tests do, and an audit of all that ever happened in it.

#![allow(dead_code)]

use std::collections::BTreeMap;

use prost::Message;
use tenure_proto::mvccpb::KeyValue;
use tenure_proto::mvccpb::event::EventType;
use tenure_proto::tenure::v1::election_event::Event;
use tenure_proto::tenure::v1::election_term::End;
use tenure_proto::tenure::v1::*;
use tenure_recipes::election::{Elections, help};
use tenure_recipes::{Change, Changes, Primitives, Root};

use crate::support::{Store, run};

pub const NAME: &str = "db/main";

#[derive(Clone, Default)]
pub struct Ground {
    pub store: Store,
}

impl Ground {
    /// With these sessions, 10 s each.
    pub fn with(sessions: impl IntoIterator<Item = i64>) -> Ground {
        let ground = Ground::default();
        for session in sessions {
            ground.open(session);
        }
        ground
    }

    pub fn elections(&self) -> Elections<Store> {
        Elections::new(self.store.clone(), Root::server())
    }

    pub fn open(&self, session: i64) {
        let store = self.store.clone();
        run(async move { store.grant(session, 10).await.unwrap() });
    }

    pub fn renew(&self, session: i64) -> bool {
        let store = self.store.clone();
        run(async move { store.keep_alive(session).await.unwrap().is_some() })
    }

    /// Time goes on, and those who live renew their sessions each second.
    pub fn pass(&self, seconds: u64, alive: &[i64]) {
        for _ in 0..seconds {
            self.store.advance(1_000);
            for session in alive {
                self.renew(*session);
            }
        }
    }

    pub fn help(&self) {
        let store = self.store.clone();
        run(async move { help(&store, &Root::server(), NAME).await.unwrap() });
    }

    pub fn stand(&self, id: &str, session: i64) -> StandResponse {
        self.stand_as(campaign(id, session))
    }

    pub fn stand_as(&self, request: CampaignRequest) -> StandResponse {
        let elections = self.elections();
        run(async move { elections.stand(&request).await.unwrap() })
    }

    pub fn rank(&self, id: &str, session: i64, seq: i64, rank: i64) -> UpdateCandidateResponse {
        let elections = self.elections();
        let request = UpdateCandidateRequest {
            name: NAME.into(),
            session_id: session,
            candidate_id: id.into(),
            seq,
            rank: Some(rank),
            ..UpdateCandidateRequest::default()
        };
        run(async move { elections.update_candidate(&request).await.unwrap() })
    }

    pub fn proclaim(&self, token: i64, seq: i64, value: &str) -> election_proclaim_response::Outcome {
        let elections = self.elections();
        let request = ElectionProclaimRequest { name: NAME.into(), token, seq, value: value.into() };
        run(async move { elections.proclaim(&request).await.unwrap().outcome() })
    }

    pub fn resign(&self, token: i64) -> ElectionResignResponse {
        self.resign_as(ElectionResignRequest { name: NAME.into(), token, ..Default::default() })
    }

    pub fn resign_to(&self, token: i64, successor: &str) -> ElectionResignResponse {
        let successor_id = successor.into();
        self.resign_as(ElectionResignRequest { name: NAME.into(), token, successor_id, ..Default::default() })
    }

    pub fn resign_as(&self, request: ElectionResignRequest) -> ElectionResignResponse {
        let elections = self.elections();
        run(async move { elections.resign(&request).await.unwrap() })
    }

    pub fn depose(&self, token: i64) -> DeposeResponse {
        let elections = self.elections();
        let request = DeposeRequest { name: NAME.into(), token, note: "a test".into(), skip_delay: false };
        run(async move { elections.depose(&request).await.unwrap() })
    }

    pub fn withdraw(&self, id: &str, session: i64) -> withdraw_response::Outcome {
        let elections = self.elections();
        let request = WithdrawRequest { name: NAME.into(), session_id: session, candidate_id: id.into() };
        run(async move { elections.withdraw(&request).await.unwrap().outcome() })
    }

    pub fn policy(&self, policy: ElectionPolicy) {
        let elections = self.elections();
        let request = ElectionPolicyRequest { name: NAME.into(), set: Some(policy) };
        run(async move { elections.policy(&request).await.unwrap() });
    }

    /// What the transfer says at first.
    pub fn transfer(&self, request: TransferRequest) -> TransferEvent {
        let elections = self.elections();
        run(async move { elections.transfer(&request).await.unwrap().next().await.unwrap().unwrap() })
    }

    pub fn leader(&self) -> ElectionLeaderResponse {
        let elections = self.elections();
        let request = ElectionLeaderRequest { name: NAME.into(), detail: true };
        run(async move { elections.leader(&request).await.unwrap() })
    }

    /// Who leads in which epoch.
    pub fn leads(&self) -> Option<(i64, String)> {
        let response = self.leader();
        let term = response.term.filter(|_| !response.vacant)?;
        Some((term.epoch, term.leader?.id))
    }

    pub fn token(&self) -> i64 {
        let response = self.leader();
        assert!(!response.vacant, "nobody leads");
        response.term.unwrap().token
    }

    /// All terms on record, the oldest first.
    pub fn history(&self) -> Vec<ElectionTerm> {
        let elections = self.elections();
        let request = ElectionHistoryRequest { name: NAME.into(), before_epoch: 0, limit: 1_000 };
        let mut terms = run(async move { elections.history(&request).await.unwrap().terms });
        terms.reverse();
        terms
    }

    /// Epochs and how they ended.
    pub fn ends(&self) -> Vec<(i64, String, End)> {
        let who = |term: &ElectionTerm| term.leader.as_ref().unwrap().id.clone();
        self.history().iter().map(|term| (term.epoch, who(term), term.end())).collect()
    }

    /// Everything an observer from this epoch on would be told now.
    pub fn observed(&self, from_epoch: i64) -> Vec<Event> {
        let elections = self.elections();
        let mut tasks = crate::support::Tasks::default();
        let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let told = seen.clone();
        tasks.start(async move {
            let request = ElectionObserveRequest { name: NAME.into(), from_epoch };
            let mut observation = elections.observe(&request).await.unwrap();
            loop {
                let (_, event) = observation.next().await.unwrap();
                told.lock().unwrap().push(event);
            }
        });
        tasks.settle();
        seen.lock().unwrap().clone()
    }
}

pub fn campaign(id: &str, session: i64) -> CampaignRequest {
    CampaignRequest { name: NAME.into(), session_id: session, candidate_id: id.into(), ..Default::default() }
}

pub fn transfer(id: &str, to: &str) -> TransferRequest {
    TransferRequest {
        name: NAME.into(),
        transfer_id: id.into(),
        to_candidate_id: to.into(),
        ..Default::default()
    }
}

/// In few words, so that tests can compare.
pub fn words(events: &[Event]) -> Vec<String> {
    let who = |term: &ElectionTerm| term.leader.as_ref().map_or(String::new(), |leader| leader.id.clone());
    let word = |event: &Event| match event {
        Event::Started(term) => format!("{} {} starts", term.epoch, who(term)),
        Event::Ended(term) => format!("{} {} {}", term.epoch, who(term), term.end().as_str_name()),
        Event::Proclaimed(said) => format!("{} says {}", said.epoch, said.value),
        Event::Vacant(vacant) => format!("{} vacant", vacant.epoch),
        Event::Gap(gap) => format!("gap {}-{}", gap.from, gap.to),
        Event::Progress(_) => "progress".to_owned(),
    };
    events.iter().map(word).collect()
}

/// Everything that ever was in the election, revision by revision, held against what must hold in each of them.
pub fn audit(store: &Store) {
    let watched = store.clone();
    let changes = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let kept = changes.clone();
    let mut tasks = crate::support::Tasks::default();
    tasks.start(async move {
        let (from, to) = Root::server().below(&["election", NAME]);
        let mut watch = watched.watch(from, to, 1).await.unwrap();
        loop {
            let change = watch.next().await.unwrap();
            kept.lock().unwrap().push(change);
        }
    });
    tasks.settle();
    let mut present = Present::default();
    changes.lock().unwrap().iter().for_each(|change| present.follow(change));
}

/// The same of what has happened since these keys were there: all before it was found in order.
pub fn audit_since(keys: &[KeyValue], changes: impl IntoIterator<Item = Change>) {
    let mut changes = changes.into_iter().peekable();
    if changes.peek().is_some() {
        let mut present = Present::of(keys);
        changes.for_each(|change| present.follow(&change));
    }
}

/// Of a key of the election, what comes behind its name.
fn segments(key: &[u8]) -> Vec<String> {
    Root::server().segments(key).unwrap().split_off(2)
}

#[derive(Clone, Default)]
struct Present {
    leaders: BTreeMap<i64, i64>,
    candidates: BTreeMap<(String, String), Candidate>,
    /// How terms ended, and at which revision that was put on record.
    past: BTreeMap<i64, (End, i64)>,
    /// At which revision leaders went.
    gone: BTreeMap<i64, i64>,
    /// Tokens of all terms by epoch.
    tokens: BTreeMap<i64, i64>,
    handover: bool,
}

impl Present {
    /// What these keys say, with what they need not say any more: who is on record as lost went before that, whoever else in that revision.
    fn of(keys: &[KeyValue]) -> Present {
        let mut present = Present::default();
        for kv in keys {
            match &segments(&kv.key).iter().map(String::as_str).collect::<Vec<_>>()[..] {
                ["term", "now"] => {
                    let term = ElectionTerm::decode(kv.value.clone()).unwrap();
                    let token = if term.token == 0 { kv.mod_revision } else { term.token };
                    present.tokens.insert(term.epoch, token);
                    present.gone.entry(term.epoch).or_insert(0);
                }
                ["term", "leader", epoch] => {
                    let epoch = epoch.parse().unwrap();
                    present.tokens.insert(epoch, kv.create_revision);
                    present.leaders.insert(epoch, kv.lease);
                }
                ["term", "past", epoch] => {
                    let term = ElectionTerm::decode(kv.value.clone()).unwrap();
                    let (epoch, lost) = (epoch.parse().unwrap(), term.end() == End::SessionExpired);
                    present.tokens.insert(epoch, term.token);
                    present.past.insert(epoch, (term.end(), kv.mod_revision));
                    present.gone.insert(epoch, kv.mod_revision - i64::from(lost));
                }
                other => present.take(other, Some(kv), kv.mod_revision),
            }
        }
        present.gone.retain(|epoch, _| !present.leaders.contains_key(epoch));
        present
    }

    fn follow(&mut self, change: &Change) {
        let before = self.clone();
        for event in &change.events {
            let kv = event.kv.as_ref().unwrap();
            let segments = segments(&kv.key);
            let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
            let put = event.r#type() == EventType::Put;
            self.take(&segments, put.then_some(kv), change.revision);
        }
        self.check(change.revision);
        self.check_order(&before, change.revision);
    }

    fn take(&mut self, segments: &[&str], put: Option<&KeyValue>, revision: i64) {
        match (segments, put) {
            (["term", "leader", epoch], Some(kv)) => {
                let epoch: i64 = epoch.parse().unwrap();
                assert_eq!(kv.create_revision, revision, "a holder key is put once");
                assert_ne!(kv.lease, 0, "a leader has a session");
                assert_eq!(self.tokens.insert(epoch, revision), None, "epoch {epoch} began twice");
                self.leaders.insert(epoch, kv.lease);
            }
            (["term", "leader", epoch], None) => {
                let epoch: i64 = epoch.parse().unwrap();
                self.leaders.remove(&epoch).unwrap();
                self.gone.insert(epoch, revision);
            }
            (["term", "past", epoch], Some(kv)) => {
                let term = ElectionTerm::decode(kv.value.clone()).unwrap();
                let epoch: i64 = epoch.parse().unwrap();
                assert_eq!(term.epoch, epoch);
                assert_ne!(term.end(), End::Running);
                assert_eq!(Some(&term.token), self.tokens.get(&epoch), "the record knows the token");
                let ended = self.past.insert(epoch, (term.end(), revision));
                assert_eq!(ended, None, "epoch {epoch} ended twice");
            }
            (["candidate", id, session], Some(kv)) => {
                assert_ne!(kv.lease, 0, "a candidate has a session");
                let since_revision = kv.create_revision;
                let candidate = Candidate { since_revision, ..Candidate::decode(kv.value.clone()).unwrap() };
                self.candidates.insert(((*id).into(), (*session).into()), candidate);
            }
            (["candidate", id, session], None) => {
                self.candidates.remove(&((*id).into(), (*session).into()));
            }
            (["handover"], put) => self.handover = put.is_some(),
            _ => {}
        }
    }

    /// Unless somebody was named, whoever begins to lead is the best of those who stood until then.
    fn check_order(&self, before: &Present, revision: i64) {
        let Some((epoch, _)) = self.tokens.iter().find(|(_, token)| **token == revision) else { return };
        let named = self.past.get(&(epoch - 1)) == Some(&(End::Transferred, revision));
        if named || before.handover {
            return;
        }
        let order = |it: &&Candidate| (-it.priority, -it.rank, it.since_revision);
        let best = before.candidates.values().filter(|it| !it.ineligible).min_by_key(order).unwrap();
        let stays = self.candidates.keys().any(|(id, _)| *id == best.id);
        assert!(!stays, "{} was the best at revision {revision} and was not elected", best.id);
    }

    fn check(&self, revision: i64) {
        assert!(self.leaders.len() <= 1, "two leaders at revision {revision}: {:?}", self.leaders);
        let epochs: Vec<i64> = self.tokens.keys().copied().collect();
        assert_eq!(epochs, (1..=epochs.len() as i64).collect::<Vec<_>>(), "epochs count from 1");
        assert!(self.tokens.values().is_sorted(), "tokens rise with epochs");
        // Before a term begins, all before it are over and on record.
        if let Some(last) = epochs.last() {
            assert!((1..*last).all(|epoch| self.past.contains_key(&epoch)), "revision {revision}");
        }
        for (epoch, (end, recorded)) in &self.past {
            // Who goes by a step goes in its revision; who lost the session was gone before.
            let lost = self.gone[epoch] < *recorded;
            assert_eq!(*end == End::SessionExpired, lost, "epoch {epoch} ended as {end:?}");
        }
        for epoch in self.leaders.keys() {
            assert!(!self.past.contains_key(epoch), "epoch {epoch} is over and led at revision {revision}");
            assert_eq!(Some(epoch), epochs.last());
        }
    }
}
