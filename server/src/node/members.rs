//! Who the members are, and changes of that, asked of any member: the leader decides and makes them, one at a time; the
//! others pass the wish on and answer once they have applied what came of it. Also the handing over of the lead.

mod rules;
mod service;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tenure_grpc::internal::reconfiguration_client::ReconfigurationClient;
use tenure_proto::internal::membership_change::Wish;
use tenure_proto::internal::{AddMember, MembershipChange, UpdateMember};
use tenure_state::Member;
use tokio::sync::watch;

use super::error::Error;
use crate::clock::Clock;
use crate::config::Url;
use crate::ids::MemberId;
use crate::peers::{Lane, Peers};
use crate::raft::{ChangeError, Consensus, Follower, Leadership, Unavailable, View};
pub use rules::{Refused, Rules};
use rules::{Situation, Standing, Step};
pub use service::{joining, reconfiguration};

/// Between two looks at what is waited for: another's change, an answer, what was applied.
const LOOK: Duration = Duration::from_millis(20);
/// Between two looks for members that have caught up.
const PROMOTION_LOOK: Duration = Duration::from_millis(250);
/// Entries that a member may lack when it is let vote: at full load about a tenth of a second's.
const PROMOTION_LAG: u64 = 1_000;
/// Before the lead is handed over, the next leader lacks no more than this: until it has them too, nobody can write.
const TRANSFER_LAG: u64 = 100;
/// How often a member without a vote asks whether it still is one: it stands for no election, in which it would be told.
const STANDING_LOOK: Duration = Duration::from_secs(5);
/// How long a leader that removed itself or is told to stop may take to hand over before it does.
const FAREWELL: Duration = Duration::from_secs(2);

#[derive(Clone)]
pub struct Members {
    following: Following,
    consensus: Consensus,
    clock: Arc<dyn Clock>,
    terms: Terms,
    /// One change at a time is made here.
    turn: Arc<tokio::sync::Mutex<()>>,
}

/// On what terms members come and go.
#[derive(Clone)]
pub struct Terms {
    pub rules: Rules,
    /// The cluster's.
    pub token: String,
    /// Who does not answer for so long is not connected: one election timeout.
    pub patience: Duration,
    /// How long a change may take.
    pub timeout: Duration,
}

/// A change that was made: the index of its entry, and the members after it.
type Made = (u64, Vec<Member>);

impl Members {
    pub fn new(following: Following, consensus: Consensus, clock: Arc<dyn Clock>, terms: Terms) -> Members {
        Members { following, consensus, clock, terms, turn: Arc::default() }
    }

    /// Whether this member only learns, by etcd's notion: it refuses most requests then.
    pub fn learning(&self) -> Arc<AtomicBool> {
        self.following.is_learner.clone()
    }

    /// In ascending order of ids, as far as this member has applied.
    pub fn list(&self) -> Vec<Member> {
        self.following.view.machine().members().iter().cloned().collect()
    }

    /// Adds a member under a new id; gives it, and all members.
    pub async fn add(&self, peer_urls: &[String], is_learner: bool) -> Result<(Member, Vec<Member>), Error> {
        let peer_urls = checked(peer_urls)?;
        let id = self.unused_id(&peer_urls);
        let add = AddMember { id, peer_urls: peer_urls.clone(), is_learner };
        let members = self.change(Wish::Add(add)).await?;
        Ok((Member { id, peer_urls, is_learner, ..Member::default() }, members))
    }

    pub async fn remove(&self, id: u64) -> Result<Vec<Member>, Error> {
        self.change(Wish::Remove(id)).await
    }

    pub async fn update(&self, id: u64, peer_urls: &[String]) -> Result<Vec<Member>, Error> {
        let peer_urls = checked(peer_urls)?;
        self.change(Wish::Update(UpdateMember { id, peer_urls })).await
    }

    /// Lets a learner vote.
    pub async fn promote(&self, id: u64) -> Result<Vec<Member>, Error> {
        self.change(Wish::Promote(id)).await
    }

    /// Hands the lead over. Only the leader can, to a member that votes.
    pub async fn move_lead(&self, to: u64) -> Result<(), Error> {
        let Members { following, consensus, .. } = self;
        let mut leadership = consensus.leadership();
        if !leadership.borrow().here {
            return Err(Error::NotLeader);
        }
        if to == following.own.0 {
            return Ok(());
        }
        if !consensus.roster().voters().any(|voter| voter == to) {
            return Err(Error::BadTransferee);
        }
        let moved = async {
            self.wait_until_close(to).await?;
            consensus.transfer(to).await?;
            let elected = |now: &Leadership| now.leader.is_some() && !now.here;
            let now = *leadership.wait_for(elected).await.map_err(|_| Unavailable::Stopped)?;
            if now.leader == Some(to) { Ok(()) } else { Err(Error::TransferFailed) }
        };
        tokio::time::timeout(self.terms.timeout, moved).await.unwrap_or(Err(Error::TransferFailed))
    }

    /// Before this member stops: hands the lead over, if it has it, to the first voter found that is there and lacks little.
    /// Without that nobody would lead until an election timeout has passed.
    pub async fn pass_lead_on(&self) {
        let handed = async {
            let Some(to) = self.heir().await else { return Ok(()) };
            self.move_lead(to).await?;
            tracing::info!(to = %MemberId(to), "handed the lead over");
            Ok::<(), Error>(())
        };
        if !matches!(tokio::time::timeout(FAREWELL, handed).await, Ok(Ok(()))) {
            tracing::warn!("could not hand the lead over in {} s; the others will elect", FAREWELL.as_secs());
        }
    }

    /// Who has answered since this was called: one that stopped a moment ago is still taken for connected elsewhere. None where
    /// this member does not lead, or no other votes.
    async fn heir(&self) -> Option<u64> {
        let Members { following, consensus, clock, .. } = self;
        let arrived_ms = clock.now_ms();
        loop {
            let mut followers = consensus.followers()?;
            let roster = consensus.roster();
            let others: Vec<u64> = roster.voters().filter(|voter| *voter != following.own.0).collect();
            if others.is_empty() {
                return None;
            }
            followers.retain(|id, _| others.contains(id));
            let (last, waited) =
                (consensus.progress().last, Duration::from_millis(clock.now_ms() - arrived_ms));
            let close = |follower: &Follower| {
                is_connected(follower, waited) && follower.matched + TRANSFER_LAG >= last
            };
            if let Some((id, _)) = followers.iter().find(|(_, follower)| close(follower)) {
                return Some(*id);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Has members vote that were added as voters and have caught up, whenever this member leads.
    pub async fn promote_wanted(self) {
        let mut leadership = self.consensus.leadership();
        while leadership.wait_for(|now| now.here).await.is_ok() {
            tokio::time::sleep(PROMOTION_LOOK).await;
            let _turn = self.turn.lock().await;
            let Some(situation) = self.situation(self.terms.patience / 2) else { continue };
            let Some(id) = situation.ready_to_vote(PROMOTION_LAG) else { continue };
            let roster = self.consensus.roster();
            match self.consensus.change(&roster, crate::raft::Change::Promote { id }).await {
                Ok(_) => {
                    tracing::info!(member = %MemberId(id), "a new member has caught up, and votes from now on")
                }
                Err(error) => {
                    tracing::debug!(?error, member = %MemberId(id), "a new member does not vote yet")
                }
            }
        }
    }

    /// Asks the others now and then whether this member still is one, for as long as it has no vote.
    pub async fn ask_for_standing(self) {
        let Members { following: Following { own, peers, .. }, consensus, .. } = &self;
        loop {
            tokio::time::sleep(STANDING_LOOK).await;
            if consensus.roster().voters().any(|voter| voter == own.0) {
                continue;
            }
            for other in self.list() {
                if other.id != own.0 && service::says_removed(peers, other.id, *own).await {
                    peers.leave();
                }
            }
        }
    }

    /// Returns once this member is known to be removed from the cluster, and has handed over what it led.
    pub async fn removed(&self) {
        if self.following.peers.left().wait_for(|left| *left).await.is_err() {
            std::future::pending::<()>().await;
        }
        let mut leadership = self.consensus.leadership();
        // Whichever comes first, it stops now.
        let _ = tokio::time::timeout(FAREWELL, leadership.wait_for(|now| !now.here)).await;
    }

    async fn change(&self, wish: Wish) -> Result<Vec<Member>, Error> {
        let own_end = matches!(wish, Wish::Remove(id) if id == self.following.own.0);
        let change = MembershipChange { wish: Some(wish), repeated_wish: false };
        let made = async {
            let (index, members) = self.have_made(change).await?;
            // Nobody tells a member what came after its removal.
            while !own_end && self.consensus.progress().applied < index {
                tokio::time::sleep(LOOK).await;
            }
            Ok(members)
        };
        tokio::time::timeout(self.terms.timeout, made).await.unwrap_or(Err(Unavailable::TimedOut.into()))
    }

    /// Makes the change here or has the leader make it, until one of them says what came of it.
    async fn have_made(&self, mut change: MembershipChange) -> Result<Made, Error> {
        let mut leadership = self.consensus.leadership();
        loop {
            let now = *leadership.borrow_and_update();
            let tried = match now.leader {
                _ if now.here => self.make(&change).await,
                Some(leader) if leader != self.following.own.0 => {
                    self.pass_on(leader, change.clone(), &mut leadership).await
                }
                _ => Err(Unavailable::NoLeader.into()),
            };
            match tried {
                Err(Error::Unavailable(Unavailable::NoLeader)) => {}
                Err(Error::Unavailable(Unavailable::LeaderChanged)) => change.repeated_wish = true,
                decided => return decided,
            }
            // A pause either way; the next leader is asked as soon as it is known.
            if let Ok(Err(_)) = tokio::time::timeout(self.terms.patience / 4, leadership.changed()).await {
                return Err(Unavailable::Stopped.into());
            }
        }
    }

    async fn pass_on(
        &self,
        leader: u64,
        change: MembershipChange,
        leadership: &mut watch::Receiver<Leadership>,
    ) -> Result<Made, Error> {
        let peers = &self.following.peers;
        let channel = peers.channel(leader, Lane::Forwarding).ok_or(Unavailable::NoLeader)?;
        let mut client = ReconfigurationClient::new(channel);
        let answer = tokio::select! {
            biased;
            answer = client.change(peers.address(leader, change)) => answer,
            _ = leadership.changed() => return Err(Unavailable::LeaderChanged.into()),
        };
        match answer {
            Ok(outcome) => service::made(outcome.into_inner()),
            Err(status) => {
                peers.heed(&status);
                tracing::debug!(%status, "a change of the membership could not be passed on; trying again");
                Err(Unavailable::LeaderChanged.into())
            }
        }
    }

    /// Decides about a change and makes it, as the leader.
    async fn make(&self, change: &MembershipChange) -> Result<Made, Error> {
        let Some(wish) = &change.wish else { return Err(Refused::NotFound.into()) };
        let Members { consensus, clock, terms: Terms { rules, patience, .. }, .. } = self;
        let _turn = self.turn.lock().await;
        let arrived_ms = clock.now_ms();
        loop {
            let roster = consensus.roster();
            // Only an answer since then counts: a member that died a moment ago must not count towards a quorum.
            let waited = Duration::from_millis(clock.now_ms() - arrived_ms);
            let situation = self.situation(waited).ok_or(Unavailable::NoLeader)?;
            let patient = waited < *patience;
            let (last, step) = match situation.step(*rules, wish, change.repeated_wish) {
                _ if patient && !situation.is_settled() => (false, None),
                Ok(Step::Last(step)) => (true, Some(step)),
                Ok(Step::First(step)) => (false, Some(step)),
                Ok(Step::Done) => return Ok((roster.index(), self.list_at(roster.index()).await)),
                Err(Refused::Unhealthy) if patient => (false, None),
                Err(refused) => return Err(refused.into()),
            };
            match step.map(|step| consensus.change(&roster, step)) {
                Some(making) => match making.await {
                    Ok(index) if last => return Ok((index, self.list_at(index).await)),
                    Ok(_) | Err(ChangeError::Again) => {}
                    Err(ChangeError::Unavailable(unavailable)) => return Err(unavailable.into()),
                    Err(ChangeError::Impossible(why)) => {
                        tracing::warn!(why, "a change of the membership is impossible");
                        return Err(Refused::NotEnoughStarted.into());
                    }
                },
                None => tokio::time::sleep(LOOK).await,
            }
        }
    }

    /// The members once this member has applied so far.
    async fn list_at(&self, index: u64) -> Vec<Member> {
        while self.consensus.progress().applied < index {
            tokio::time::sleep(LOOK).await;
        }
        self.list()
    }

    /// How things stand, by the leader's knowledge; None where this member does not lead. Who has answered what was sent
    /// within `fresh` is connected.
    fn situation(&self, fresh: Duration) -> Option<Situation> {
        let Members { following: Following { own, view, .. }, consensus, .. } = self;
        let followers = consensus.followers()?;
        let roster = consensus.roster();
        let decided_at = roster.index();
        let last = consensus.progress().last;
        let machine = view.machine();
        let standing = |(id, participant): (u64, crate::raft::Participant)| {
            let own = id == own.0;
            let follower = followers.get(&id).copied().unwrap_or_default();
            Standing {
                id,
                learner: !participant.votes && !participant.voter_wanted,
                peer_urls: participant.peer_urls,
                votes: participant.votes,
                started: machine.members().get(id).is_some_and(|member| !member.name.is_empty()),
                connected: own || is_connected(&follower, fresh),
                own,
                matched: if own { last } else { follower.matched },
            }
        };
        let members = roster.participants.into_iter().map(standing).collect();
        Some(Situation { members, removed: machine.members().removed().collect(), decided_at, last })
    }

    async fn wait_until_close(&self, to: u64) -> Result<(), Error> {
        let Members { consensus, clock, .. } = self;
        let arrived_ms = clock.now_ms();
        loop {
            let followers = consensus.followers().ok_or(Error::NotLeader)?;
            let follower = followers.get(&to).ok_or(Error::BadTransferee)?;
            let last = consensus.progress().last;
            let waited = Duration::from_millis(clock.now_ms() - arrived_ms);
            if is_connected(follower, waited) && follower.matched + TRANSFER_LAG >= last {
                return Ok(());
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// etcd's id for these URLs at this time, or at the next second at which it is new.
    fn unused_id(&self, peer_urls: &[String]) -> u64 {
        let machine = self.following.view.machine();
        let known = |id: &u64| machine.members().get(*id).is_some() || machine.members().is_removed(*id);
        let mut ids = (self.clock.unix_seconds()..).map(|second| MemberId::at_addition(peer_urls, second).0);
        ids.find(|id| !known(id)).expect("members are few, seconds are many")
    }
}

fn is_connected(follower: &Follower, fresh: Duration) -> bool {
    follower.heard.is_some_and(|ago| ago < fresh)
}

/// Peer URLs that a client gave, sorted and each once.
fn checked(peer_urls: &[String]) -> Result<Vec<String>, Refused> {
    let mut urls = peer_urls
        .iter()
        .map(|url| Url::peer(url).map(|url| url.to_string()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| Refused::BadPeerUrls)?;
    urls.sort();
    urls.dedup();
    if urls.is_empty() { Err(Refused::BadPeerUrls) } else { Ok(urls) }
}

/// Keeps the address book, and what else must be known without asking the machine, at what was applied.
#[derive(Clone)]
pub struct Following {
    pub own: MemberId,
    pub view: Arc<View>,
    pub peers: Peers,
    is_learner: Arc<AtomicBool>,
}

impl Following {
    pub fn new(own: MemberId, view: Arc<View>, peers: Peers) -> Following {
        let following = Following { own, view, peers, is_learner: Arc::default() };
        following.follow();
        following
    }

    /// To be called after every change of the members.
    pub fn follow(&self) {
        let members = self.view.machine().members().clone();
        let is_learner = members.get(self.own.0).is_some_and(|own| own.is_learner);
        self.is_learner.store(is_learner, Ordering::Relaxed);
        for member in members.iter() {
            self.peers.learn(member.id, &member.peer_urls);
        }
        self.peers.retain(|id| members.get(id).is_some());
        self.peers.shun(members.removed());
    }
}
