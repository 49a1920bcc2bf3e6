//! Whether a change of the membership is allowed, and what has to be done for it: etcd's checks in etcd's order. Pure: it is
//! told how things stand and asks nobody.

use std::collections::BTreeSet;

use tenure_proto::internal::membership_change::Wish;
use tenure_proto::internal::{AddMember, UpdateMember};

use crate::raft::Change;

/// Of the leader's log, the share that a learner must have before a client may have it promoted, in tenths: etcd's rule.
const READY_TENTHS: u64 = 9;

/// Why a change is refused. Every leader would say the same of the same situation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    IdExists,
    PeerUrlsExist,
    NotFound,
    /// The members that have started would not be a quorum of the voters there would be.
    NotEnoughStarted,
    /// A quorum, or the member that is asked for, cannot be reached right now.
    Unhealthy,
    TooManyLearners,
    NotALearner,
    LearnerNotReady,
    BadPeerUrls,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// `--strict-reconfig-check`
    pub strict: bool,
    /// `--max-learners`
    pub learners_max: usize,
}

/// One member as the leader sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    pub id: u64,
    pub peer_urls: Vec<String>,
    /// As clients are told: a voter that has yet to catch up is none.
    pub learner: bool,
    /// Whether its vote counts by now.
    pub votes: bool,
    pub started: bool,
    /// It answered a moment ago, or is the leader itself.
    pub connected: bool,
    pub own: bool,
    /// Up to where its log is the leader's.
    pub matched: u64,
}

/// The members, as the leader sees them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Situation {
    pub members: Vec<Standing>,
    pub removed: BTreeSet<u64>,
    /// Index of the entry by which these are the members.
    pub decided_at: u64,
    /// The leader's last index.
    pub last: u64,
}

/// What is to be done next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// This, and then the wish is fulfilled.
    Last(Change),
    /// This first; then look again.
    First(Change),
    /// Nothing: an earlier try did it.
    Done,
}

impl Situation {
    /// What fulfils the wish. `repeated`: it was proposed before, and may be fulfilled already.
    pub fn step(&self, rules: Rules, wish: &Wish, repeated: bool) -> Result<Step, Refused> {
        match wish {
            Wish::Add(add) => self.add(rules, add, repeated),
            Wish::Remove(id) => self.remove(rules, *id, repeated),
            Wish::Update(update) => self.update(update),
            Wish::Promote(id) => self.promote(rules, *id, repeated),
        }
    }

    /// Whether everybody who has started has been heard of; right after an election that takes a moment.
    pub fn is_settled(&self) -> bool {
        self.members.iter().all(|member| member.connected || !member.started)
    }

    /// A member that is to vote and has caught up, if there is one: its log reaches at least to its own addition, and no
    /// more than `lag` entries are missing.
    pub fn ready_to_vote(&self, lag: u64) -> Option<u64> {
        let ready = |member: &&Standing| {
            let caught_up = member.matched >= self.decided_at && member.matched + lag >= self.last;
            !member.votes && !member.learner && member.connected && caught_up
        };
        self.members.iter().find(ready).map(|member| member.id)
    }

    fn add(&self, rules: Rules, add: &AddMember, repeated: bool) -> Result<Step, Refused> {
        let known = self.get(add.id);
        if repeated && known.is_some_and(|member| member.peer_urls == add.peer_urls) {
            return Ok(Step::Done);
        }
        if rules.strict {
            if !add.is_learner && !self.has_quorum_started_with_another() {
                return Err(Refused::NotEnoughStarted);
            }
            if !self.keeps_quorum_with_another() {
                return Err(Refused::Unhealthy);
            }
        }
        if known.is_some() || self.removed.contains(&add.id) {
            return Err(Refused::IdExists);
        }
        if self.is_taken(&add.peer_urls, None) {
            return Err(Refused::PeerUrlsExist);
        }
        let learners = self.members.iter().filter(|member| member.learner).count();
        if add.is_learner && learners >= rules.learners_max {
            return Err(Refused::TooManyLearners);
        }
        Ok(Step::Last(Change::Add {
            id: add.id,
            peer_urls: add.peer_urls.clone(),
            voter_wanted: !add.is_learner,
        }))
    }

    fn remove(&self, rules: Rules, id: u64, repeated: bool) -> Result<Step, Refused> {
        let Some(member) = self.get(id) else {
            let done = repeated && self.removed.contains(&id);
            return if done { Ok(Step::Done) } else { Err(Refused::NotFound) };
        };
        if rules.strict && !member.learner {
            self.check_removal(member)?;
        }
        let leaves_a_vote = self.members.iter().any(|other| other.votes && other.id != id);
        if leaves_a_vote {
            return Ok(Step::Last(Change::Remove { id }));
        }
        if self.voters().all(|other| other.id == id) {
            return Err(Refused::NotEnoughStarted);
        }
        // Whoever is to vote must do so before the last vote goes.
        self.ready_to_vote(0).map(|id| Step::First(Change::Promote { id })).ok_or(Refused::Unhealthy)
    }

    fn check_removal(&self, member: &Standing) -> Result<(), Refused> {
        let left = || self.voters().filter(|other| other.id != member.id);
        let started = left().filter(|other| other.started).count();
        if started < left().count() / 2 + 1 {
            return Err(Refused::NotEnoughStarted);
        }
        // Who is down takes nothing from the quorum that works.
        if !member.connected && !member.own {
            return Ok(());
        }
        let voters = self.voters().count();
        let connected = self.voters().filter(|member| member.connected).count();
        // All of them but this one, against the majority of those that are left.
        if connected < 2 + (voters - 1) / 2 {
            return Err(Refused::Unhealthy);
        }
        Ok(())
    }

    fn update(&self, update: &UpdateMember) -> Result<Step, Refused> {
        let known = self.get(update.id).ok_or(Refused::NotFound)?;
        if self.is_taken(&update.peer_urls, Some(update.id)) {
            return Err(Refused::PeerUrlsExist);
        }
        if known.peer_urls == update.peer_urls {
            return Ok(Step::Done);
        }
        Ok(Step::Last(Change::Move { id: update.id, peer_urls: update.peer_urls.clone() }))
    }

    fn promote(&self, rules: Rules, id: u64, repeated: bool) -> Result<Step, Refused> {
        let member = self.get(id).ok_or(Refused::NotFound)?;
        if !member.learner {
            return if repeated { Ok(Step::Done) } else { Err(Refused::NotALearner) };
        }
        if !member.connected || member.matched * 10 < self.last * READY_TENTHS {
            return Err(Refused::LearnerNotReady);
        }
        let voters = self.voters().count() + 1;
        let started = self.voters().filter(|member| member.started).count() + 1;
        if rules.strict && started < voters / 2 + 1 {
            return Err(Refused::NotEnoughStarted);
        }
        Ok(Step::Last(Change::Promote { id }))
    }

    fn get(&self, id: u64) -> Option<&Standing> {
        self.members.iter().find(|member| member.id == id)
    }

    /// Whom clients are told to be voters.
    fn voters(&self) -> impl Iterator<Item = &Standing> {
        self.members.iter().filter(|member| !member.learner)
    }

    fn has_quorum_started_with_another(&self) -> bool {
        let voters = self.voters().count() + 1;
        let started = self.voters().filter(|member| member.started).count();
        // From one to two there is no other way.
        (started, voters) == (1, 2) || started > voters / 2
    }

    /// Whether those that can be reached are a quorum also with one more who cannot, as the new one is at first. etcd's rule
    /// in 3.6.16; in earlier releases any voter that was down forbade every addition.
    fn keeps_quorum_with_another(&self) -> bool {
        let voters = self.voters().count();
        let connected = self.voters().filter(|member| member.connected).count();
        voters == 1 || connected > voters.div_ceil(2)
    }

    fn is_taken(&self, peer_urls: &[String], by_other_than: Option<u64>) -> bool {
        let others = self.members.iter().filter(|member| Some(member.id) != by_other_than);
        others.flat_map(|member| &member.peer_urls).any(|url| peer_urls.contains(url))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STRICT: Rules = Rules { strict: true, learners_max: 1 };
    const LOOSE: Rules = Rules { strict: false, learners_max: 1 };

    fn url(id: u64) -> String {
        format!("http://10.0.0.{id}:2380")
    }

    fn voter(id: u64) -> Standing {
        let (votes, started, connected) = (true, true, true);
        Standing {
            id,
            peer_urls: vec![url(id)],
            votes,
            started,
            connected,
            matched: 100,
            ..Standing::default()
        }
    }

    fn down(id: u64) -> Standing {
        Standing { connected: false, ..voter(id) }
    }

    fn unstarted(id: u64) -> Standing {
        Standing { votes: false, started: false, connected: false, matched: 0, ..voter(id) }
    }

    fn learner(id: u64, matched: u64) -> Standing {
        Standing { learner: true, votes: false, matched, ..voter(id) }
    }

    /// Member 1 leads.
    fn cluster(others: impl IntoIterator<Item = Standing>) -> Situation {
        let own = Standing { own: true, ..voter(1) };
        let members = std::iter::once(own).chain(others).collect();
        Situation { members, removed: BTreeSet::from([99]), decided_at: 50, last: 100 }
    }

    fn add(id: u64) -> Wish {
        Wish::Add(AddMember { id, peer_urls: vec![url(id)], is_learner: false })
    }

    fn add_learner(id: u64) -> Wish {
        Wish::Add(AddMember { id, peer_urls: vec![url(id)], is_learner: true })
    }

    fn refused(situation: &Situation, wish: &Wish) -> Option<Refused> {
        situation.step(STRICT, wish, false).err()
    }

    #[test]
    fn a_voter_is_added_where_a_quorum_has_started() {
        let added = Change::Add { id: 7, peer_urls: vec![url(7)], voter_wanted: true };
        for others in [vec![], vec![voter(2)], vec![voter(2), voter(3)]] {
            assert_eq!(cluster(others).step(STRICT, &add(7), false), Ok(Step::Last(added.clone())));
        }
        assert_eq!(refused(&cluster([unstarted(2)]), &add(7)), Some(Refused::NotEnoughStarted));
        // As observed on etcd 3.6.16: one of four may be missing, be it that it never started, and one of five, but not two.
        for others in [vec![voter(2), voter(3), unstarted(4)], vec![voter(2), voter(3), voter(4), down(5)]] {
            assert_eq!(cluster(others.clone()).step(STRICT, &add(7), false), Ok(Step::Last(added.clone())));
            assert!(cluster(others).step(STRICT, &add_learner(7), false).is_ok());
        }
        let five = cluster([voter(2), voter(3), down(4), down(5)]);
        assert_eq!(refused(&five, &add_learner(7)), Some(Refused::Unhealthy));
        assert_eq!(refused(&cluster([down(2)]), &add_learner(7)), Some(Refused::Unhealthy));
        assert_eq!(refused(&cluster([voter(2), down(3)]), &add(7)), Some(Refused::Unhealthy));
        assert!(cluster([voter(2), down(3)]).step(LOOSE, &add(7), false).is_ok());
    }

    #[test]
    fn ids_and_urls_are_used_once() {
        let two = cluster([voter(2)]);
        assert_eq!(refused(&two, &add(2)), Some(Refused::IdExists));
        assert_eq!(refused(&two, &add(99)), Some(Refused::IdExists));
        let elsewhere = Wish::Add(AddMember { id: 7, peer_urls: vec![url(7), url(2)], is_learner: false });
        assert_eq!(refused(&two, &elsewhere), Some(Refused::PeerUrlsExist));
        assert_eq!(two.step(STRICT, &add(2), true), Ok(Step::Done));
        assert_eq!(refused(&cluster([learner(2, 0)]), &add_learner(7)), Some(Refused::TooManyLearners));
        let moved = |to| Wish::Update(UpdateMember { id: 2, peer_urls: vec![url(to)] });
        assert_eq!(refused(&two, &moved(1)), Some(Refused::PeerUrlsExist));
        assert_eq!(two.step(STRICT, &moved(2), false), Ok(Step::Done));
        let change = Change::Move { id: 2, peer_urls: vec![url(8)] };
        assert_eq!(two.step(STRICT, &moved(8), false), Ok(Step::Last(change)));
    }

    #[test]
    fn a_removal_leaves_a_quorum_that_works() {
        let gone = |id| Ok(Step::Last(Change::Remove { id }));
        let three = || cluster([voter(2), voter(3)]);
        assert_eq!(three().step(STRICT, &Wish::Remove(2), false), gone(2));
        assert_eq!(three().step(STRICT, &Wish::Remove(1), false), gone(1));
        let one_down = cluster([voter(2), down(3)]);
        assert_eq!(one_down.step(STRICT, &Wish::Remove(3), false), gone(3));
        assert_eq!(refused(&one_down, &Wish::Remove(2)), Some(Refused::Unhealthy));
        assert_eq!(one_down.step(LOOSE, &Wish::Remove(2), false), gone(2));
        assert_eq!(cluster([voter(2)]).step(STRICT, &Wish::Remove(1), false), gone(1));
        assert_eq!(refused(&cluster([]), &Wish::Remove(1)), Some(Refused::NotEnoughStarted));
        assert_eq!(cluster([]).step(LOOSE, &Wish::Remove(1), false), Err(Refused::NotEnoughStarted));
        let with_learner = cluster([learner(2, 0)]);
        assert_eq!(with_learner.step(STRICT, &Wish::Remove(2), false), gone(2));
        assert_eq!(refused(&with_learner, &Wish::Remove(1)), Some(Refused::NotEnoughStarted));
        assert_eq!(refused(&three(), &Wish::Remove(99)), Some(Refused::NotFound));
        assert_eq!(three().step(STRICT, &Wish::Remove(99), true), Ok(Step::Done));
    }

    /// Member 2 was added as a voter and still learns: the only vote stays until it has caught up.
    #[test]
    fn the_last_vote_goes_after_another_has_come() {
        let catching_up = |matched| Standing { votes: false, matched, ..voter(2) };
        let step = cluster([catching_up(100)]).step(STRICT, &Wish::Remove(1), false);
        assert_eq!(step, Ok(Step::First(Change::Promote { id: 2 })));
        assert_eq!(refused(&cluster([catching_up(99)]), &Wish::Remove(1)), Some(Refused::Unhealthy));
    }

    #[test]
    fn a_learner_votes_once_it_has_nine_tenths() {
        let promoted = Ok(Step::Last(Change::Promote { id: 2 }));
        assert_eq!(cluster([learner(2, 90)]).step(STRICT, &Wish::Promote(2), false), promoted);
        assert_eq!(refused(&cluster([learner(2, 89)]), &Wish::Promote(2)), Some(Refused::LearnerNotReady));
        let silent = Standing { connected: false, ..learner(2, 100) };
        assert_eq!(refused(&cluster([silent]), &Wish::Promote(2)), Some(Refused::LearnerNotReady));
        assert_eq!(refused(&cluster([voter(2)]), &Wish::Promote(2)), Some(Refused::NotALearner));
        assert_eq!(refused(&cluster([]), &Wish::Promote(2)), Some(Refused::NotFound));
    }

    #[test]
    fn a_wanted_voter_votes_once_it_has_caught_up() {
        let wanted = |matched| Standing { votes: false, started: false, matched, ..voter(2) };
        assert_eq!(cluster([wanted(95)]).ready_to_vote(10), Some(2));
        assert_eq!(cluster([wanted(89)]).ready_to_vote(10), None);
        let short_log = Situation { decided_at: 3, last: 5, ..cluster([wanted(2)]) };
        assert_eq!(short_log.ready_to_vote(10), None, "it has not even the entry that added it");
        assert_eq!(cluster([learner(2, 100), voter(3)]).ready_to_vote(10), None);
        let silent = Standing { connected: false, ..wanted(100) };
        assert_eq!(cluster([silent]).ready_to_vote(10), None);
    }
}
