//! Whether all members hold the same history: the leader asks each for a sum over what was changed since they last agreed, up to
//! a revision that all have come to, and compares. Apply is deterministic and the disks are checksummed, so a difference
//! means a bug or a lying disk; it is said aloud (the CORRUPT alarm, by which the cluster refuses everything) and names
//! the member, before the difference spreads to whoever reads from it.
//!
//! Now and then, and when another member has come to lead, everything is summed up and not only what is new.
//!
//! A sum is compared only with one over the same window. Before an alarm is raised all members are asked anew, and the majority of
//! those that answer decides who is wrong. Nothing here waits for a member: one that is away is compared when it is back.

mod service;
mod sum;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tenure_grpc::internal::audit_client::AuditClient;
use tenure_proto::etcdserverpb::alarm_request::AlarmAction;
use tenure_proto::etcdserverpb::{AlarmRequest, AlarmType};
use tenure_proto::internal::HistorySum;
use tenure_proto::internal::command::Wish;
use tenure_state::{Fatal, Revision};

pub use service::Service;
use sum::{Outcome, Window};

use super::leases::command;
use super::writer::Writer;
use crate::ids::MemberId;
use crate::peers::{Lane, Peers};
use crate::raft::{Consensus, View};

/// The first look at members after this one has come to lead is due after this part of the interval: a difference that an
/// election brought to light should not wait.
const FIRST_PART: u32 = 10;
/// After so many rounds all of history is looked at once more, not only what is new: what was once the same may have rotted since.
const ROUNDS_UNTIL_ALL: u32 = 36;
/// How often a window is asked for anew because a compaction or a slow member came between, and the pause before that.
const TRIES: usize = 20;
const PAUSE: Duration = Duration::from_millis(250);
/// How long a member may take to sum up all it has.
const ANSWER_MAX: Duration = Duration::from_secs(120);

/// Runs on every member, works on the leader.
pub struct Audit {
    pub view: Arc<View>,
    pub writer: Writer,
    pub consensus: Consensus,
    pub peers: Peers,
}

/// Up to where each member was found to agree with this one. Forgotten with the leadership.
type Agreed = BTreeMap<u64, Revision>;

impl Audit {
    /// Compares every `interval`, until the task is ended; zero: never.
    pub async fn run(self, interval: Duration) {
        if interval.is_zero() {
            return;
        }
        let mut leadership = self.consensus.leadership();
        loop {
            if leadership.wait_for(|now| now.here).await.is_err() {
                return;
            }
            let mut agreed = Agreed::new();
            let mut pause = interval / FIRST_PART;
            for round in 0u32.. {
                tokio::time::sleep(pause).await;
                if !leadership.borrow().here {
                    break;
                }
                if round % ROUNDS_UNTIL_ALL == 0 {
                    agreed.clear();
                }
                if let Err(fatal) = self.round(&mut agreed).await {
                    tracing::error!(%fatal, "could not sum up this member's own history");
                }
                pause = interval;
            }
        }
    }

    /// One comparison with each of the others.
    async fn round(&self, agreed: &mut Agreed) -> Result<(), Fatal> {
        let (upto, floor, others) = {
            let machine = self.view.machine();
            // Whoever raised it knows more than a further look would tell.
            if machine.alarms().is_raised(AlarmType::Corrupt) {
                return Ok(());
            }
            let own = self.peers.own().0;
            let others: Vec<u64> =
                machine.members().iter().map(|member| member.id).filter(|id| *id != own).collect();
            (machine.revision(), machine.compacted(), others)
        };
        agreed.retain(|member, _| others.contains(member));
        let mut compared = 0;
        for member in others {
            let after = agreed.get(&member).copied().unwrap_or(Revision(0));
            if after >= upto {
                continue;
            }
            let window = Window { after, upto, floor };
            match self.sums(&[member], window).await? {
                Some(sums) if sums.len() < 2 => {
                    tracing::debug!(member = %MemberId(member), "did not answer the audit")
                }
                Some(sums) if agree(&sums) => {
                    agreed.insert(member, upto);
                    compared += 1;
                }
                Some(_) => return self.judge(window).await,
                None => tracing::debug!("a compaction overtook the audit; it goes on the next time"),
            }
        }
        if compared > 0 {
            tracing::info!(
                revision = upto.0,
                members = compared,
                "members hold the same history as this one"
            );
        }
        Ok(())
    }

    /// Two members differ: asks all, and names those that are wrong.
    async fn judge(&self, window: Window) -> Result<(), Fatal> {
        let own = self.peers.own().0;
        let others: Vec<u64> = {
            let machine = self.view.machine();
            machine.members().iter().map(|member| member.id).filter(|id| *id != own).collect()
        };
        let Some(sums) = self.sums(&others, window).await? else { return Ok(()) };
        if agree(&sums) {
            tracing::warn!(?sums, "members differed in their history, and then did not");
            return Ok(());
        }
        let verdict = Verdict::of(own, &sums);
        let told: Vec<String> = sums
            .iter()
            .map(|(member, sum)| {
                format!("{}: {:08x} of {} records", MemberId(*member), sum.hash, sum.records)
            })
            .collect();
        let by = if verdict.by_majority {
            "most members agree against it"
        } else {
            "there is no majority; the leader is taken to be right"
        };
        for member in verdict.wrong {
            tracing::error!(
                member = %MemberId(member), after = window.after.0, upto = window.upto.0, sums = told.join(", "),
                "history differs between members ({by}): raising the CORRUPT alarm; take a backup from a member that is right, \
                 remove the one that is wrong and add it anew, then etcdctl alarm disarm"
            );
            let alarm = AlarmRequest {
                action: AlarmAction::Activate as i32,
                member_id: member,
                alarm: AlarmType::Corrupt as i32,
            };
            if let Err(error) = self.writer.write_own(command(Wish::Alarm(alarm))).await {
                tracing::error!(?error, "could not raise the CORRUPT alarm; trying again at the next audit");
            }
        }
        Ok(())
    }

    /// The sums of this member and of those of `members` that answer, all over the same window. The window's floor rises to
    /// the highest that any of them has. None: a compaction went beyond the window.
    async fn sums(
        &self,
        members: &[u64],
        mut window: Window,
    ) -> Result<Option<BTreeMap<u64, HistorySum>>, Fatal> {
        let own = self.peers.own().0;
        let mut silent = BTreeSet::new();
        'window: for _ in 0..TRIES {
            let mut sums = BTreeMap::new();
            for member in members.iter().copied().chain([own]) {
                if silent.contains(&member) {
                    continue;
                }
                let outcome = match member == own {
                    true => Some(sum::of(&self.view, window).await?),
                    false => self.ask(member, window).await,
                };
                match outcome {
                    Some(Outcome::Sum(sum)) => drop(sums.insert(member, sum)),
                    Some(Outcome::Compacted(floor)) if floor > window.upto => return Ok(None),
                    Some(Outcome::Compacted(floor)) => {
                        window.floor = window.floor.max(floor);
                        continue 'window;
                    }
                    Some(Outcome::Behind(_)) | None => drop(silent.insert(member)),
                }
            }
            return Ok(Some(sums));
        }
        Ok(None)
    }

    /// None: it does not answer, or not with sense.
    async fn ask(&self, member: u64, window: Window) -> Option<Outcome> {
        let mut client = AuditClient::new(self.peers.channel(member, Lane::Forwarding)?);
        for _ in 0..TRIES {
            let asked = client.sum_history(self.peers.address(member, window.request()));
            match tokio::time::timeout(ANSWER_MAX, asked).await {
                Ok(Ok(response)) => match Outcome::from_response(response.into_inner())? {
                    Outcome::Behind(_) => tokio::time::sleep(PAUSE).await,
                    outcome => return Some(outcome),
                },
                Ok(Err(status)) => {
                    tracing::debug!(member = %MemberId(member), %status, "no sum from a member");
                    return None;
                }
                Err(_) => return None,
            }
        }
        Some(Outcome::Behind(window.after))
    }
}

fn agree(sums: &BTreeMap<u64, HistorySum>) -> bool {
    let mut all = sums.values();
    let first = all.next();
    all.all(|sum| Some(sum) == first)
}

/// Who is wrong, by what all that answered say.
#[derive(Debug, PartialEq, Eq)]
struct Verdict {
    wrong: Vec<u64>,
    /// More than half of those that answered agree; else the leader is taken to be right.
    by_majority: bool,
}

impl Verdict {
    fn of(leader: u64, sums: &BTreeMap<u64, HistorySum>) -> Verdict {
        let votes = |sum: &HistorySum| sums.values().filter(|other| *other == sum).count();
        let majority = sums.values().find(|sum| 2 * votes(sum) > sums.len());
        let right = majority.or(sums.get(&leader));
        let wrong = sums.iter().filter(|(_, sum)| Some(*sum) != right).map(|(member, _)| *member).collect();
        Verdict { wrong, by_majority: majority.is_some() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(sums: &[(u64, u32)]) -> (Vec<u64>, bool) {
        let sums =
            sums.iter().map(|(member, hash)| (*member, HistorySum { hash: *hash, records: 1 })).collect();
        let Verdict { wrong, by_majority } = Verdict::of(1, &sums);
        (wrong, by_majority)
    }

    #[test]
    fn the_majority_decides_who_is_wrong_even_against_the_leader() {
        assert_eq!(verdict(&[(1, 7), (2, 7), (3, 8)]), (vec![3], true));
        assert_eq!(verdict(&[(1, 8), (2, 7), (3, 7)]), (vec![1], true));
        assert_eq!(verdict(&[(1, 1), (2, 7), (3, 7), (4, 7), (5, 9)]), (vec![1, 5], true));
    }

    #[test]
    fn without_a_majority_all_that_differ_from_the_leader_are_named() {
        assert_eq!(verdict(&[(1, 7), (2, 8)]), (vec![2], false));
        assert_eq!(verdict(&[(1, 7), (2, 8), (3, 9)]), (vec![2, 3], false));
        assert_eq!(verdict(&[(1, 7), (2, 8), (3, 7), (4, 8)]), (vec![2, 4], false));
    }
}
