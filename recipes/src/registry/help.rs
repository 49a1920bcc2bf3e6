//! What is due at a service, done by whoever looks: losses are noted or the service is protected, drains end, protection ends. A look changes
//! nothing when nothing is due, and whoever loses a race against another's look has nothing left to do.

use tenure_proto::tenure::v1::{InstanceRecord, Protection};

use super::instance::Held;
use super::keys::{Kind, Whole};
use super::loss::{Standing, is_mass};
use super::policy::Policy;
use super::projection::PROJECTIONS_MAX;
use super::survey::Survey;
use super::transition::{Freshness, Read, Transition, read, read_these};
use super::{ATTEMPTS, Registry};
use crate::primitives::{Failure, Primitives};

/// Instances of one txn: with two compares each, two writes, and one more for each projection, it stays within what etcd allows one.
const AT_ONCE: usize = 120 / (2 + PROJECTIONS_MAX);

/// Instances that one lease removes, so that no revision becomes too big.
const ONE_LEASE: usize = 15 * AT_ONCE;

/// How instances are rewritten.
#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    /// Lost from now on, and marked for a window.
    Lost,
    /// Lost, as protection ends.
    GivenUp,
    /// Not lost after all: too many were.
    TakenBack,
}

/// How long lost instances stay, and count as lost lately.
#[derive(Clone, Copy, Default)]
struct Leases {
    stay: i64,
    window: i64,
}

impl<P: Primitives> Registry<P> {
    /// Looks at one service, and does what is due until nothing is.
    pub async fn help(&self, service: &str) -> Result<(), Failure> {
        for _ in 0..ATTEMPTS {
            match self.help_once(service).await {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                // Of what is unknown, the next look finds out. A lease that was to be used ran out: another next time.
                Err(Failure::Unknown(_) | Failure::LeaseUnknown) => {}
                Err(failure) => return Err(failure),
            }
        }
        Err(Failure::Unavailable(format!("{service:?} changes faster than it can be helped; help again")))
    }

    /// All services, from a to z: for who begins to help, and does not know what was done before.
    pub async fn help_all(&self) -> Result<(), Failure> {
        let mut services = Vec::new();
        let policies = self.keys.policies("");
        let take = |kv: tenure_proto::mvccpb::KeyValue| services.extend(self.keys.policy_of(&kv.key));
        self.each(&policies, 0, Freshness::Newest, true, take).await?;
        for service in services {
            self.help(&service).await?;
        }
        Ok(())
    }

    /// Whether something was done, or others did it first, so that another look is worth it.
    async fn help_once(&self, service: &str) -> Result<bool, Failure> {
        let survey = self.survey(service).await?;
        let drained = survey.drained();
        for id in &drained {
            self.end_drain(service, id).await?;
        }
        if !drained.is_empty() {
            // Some may have gone by that, and count for nothing below.
            return Ok(true);
        }
        if let Some(mark) = &survey.projecting {
            self.project(service, mark).await?;
            return Ok(true);
        }
        let unheard = survey.unheard();
        if survey.protection.is_some() {
            return self.help_protected(service, &survey, unheard).await;
        }
        if survey.is_empty() {
            self.forget_if_empty(service).await?;
        }
        if unheard.is_empty() {
            return Ok(false);
        }
        let (_, [policy]) = read_these(&self.primitives, [&self.keys.policy(service)]).await?;
        let policy = Policy::stored(policy.as_ref());
        let standing = survey.standing();
        if is_mass(&standing, &policy) {
            self.protect(service, &standing, &policy).await?;
        } else {
            self.rewrite(service, &unheard, How::Lost, &policy).await?;
        }
        Ok(true)
    }

    async fn help_protected(
        &self,
        service: &str,
        survey: &Survey,
        unheard: Vec<String>,
    ) -> Result<bool, Failure> {
        let (_, [policy]) = read_these(&self.primitives, [&self.keys.policy(service)]).await?;
        let policy = Policy::stored(policy.as_ref());
        let lost_lately = survey.lost_lately();
        if survey.protection_timer && !lost_lately.is_empty() {
            self.rewrite(service, &lost_lately, How::TakenBack, &policy).await?;
            return Ok(true);
        }
        if survey.protection_timer && !unheard.is_empty() {
            return Ok(false);
        }
        if !unheard.is_empty() {
            self.rewrite(service, &unheard, How::GivenUp, &policy).await?;
            return Ok(true);
        }
        let protection = self.keys.whole(Whole::Protection, service);
        let end = Transition::default()
            .unchanged(&protection, survey.protection.as_ref())
            .delete(&protection)
            .delete(&self.keys.whole(Whole::ProtectionTimer, service));
        end.attempt(&self.primitives).await?;
        Ok(true)
    }

    async fn protect(&self, service: &str, standing: &Standing, policy: &Policy) -> Result<(), Failure> {
        let (lease, _) = self.grant(policy.max_protect_s).await?;
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let value = Protection {
            lost: count(standing.lost_lately + standing.unheard),
            instances: count(standing.instances - standing.lost_before),
            since_unix_ms: self.now_unix_ms(),
        };
        let protection = self.keys.whole(Whole::Protection, service);
        let timer = self.keys.whole(Whole::ProtectionTimer, service);
        let begin = Transition::default().absent(&protection).put(&protection, &value, 0);
        let begun = begin.put_empty(&timer, lease).attempt(&self.primitives).await?;
        self.give_up(begun.is_none().then_some(lease)).await;
        Ok(())
    }

    /// Rewrites those of these that are as silent as they were. Some at a time; of a portion in which anything changed since, the
    /// next look decides anew.
    async fn rewrite(&self, service: &str, ids: &[String], how: How, policy: &Policy) -> Result<(), Failure> {
        for ids in ids.chunks(ONE_LEASE) {
            let leases = match how {
                How::Lost => {
                    let (stay, _) = self.grant(policy.deregister_after_s).await?;
                    Leases { stay, window: self.grant(policy.window_s).await?.0 }
                }
                How::GivenUp => Leases { stay: self.grant(policy.deregister_after_s).await?.0, window: 0 },
                How::TakenBack => Leases::default(),
            };
            for ids in ids.chunks(AT_ONCE) {
                self.rewrite_some(service, ids, how, leases).await?;
            }
        }
        Ok(())
    }

    async fn rewrite_some(
        &self,
        service: &str,
        ids: &[String],
        how: How,
        leases: Leases,
    ) -> Result<(), Failure> {
        let keys: Vec<Vec<u8>> = ids.iter().map(|id| self.keys.one(Kind::Instance, service, id)).collect();
        let Read { kvs, .. } = read(&self.primitives, &keys, Freshness::Newest).await?;
        let protection = self.keys.whole(Whole::Protection, service);
        let begun = match how {
            How::Lost => Transition::default().absent(&protection),
            How::GivenUp | How::TakenBack => Transition::default().present(&protection),
        };
        let held = kvs.into_iter().flatten().filter_map(Held::decode);
        let transition = held.fold(begun, |transition, held| self.rewriting(transition, &held, how, leases));
        let _otherwise_decided_anew = transition.attempt(&self.primitives).await?;
        Ok(())
    }

    fn rewriting(&self, transition: Transition, held: &Held, how: How, leases: Leases) -> Transition {
        let of = held.registration();
        let key = |kind| self.keys.one(kind, &of.service, &of.id);
        let (instance, alive, loss) = (key(Kind::Instance), key(Kind::Alive), key(Kind::Loss));
        let record = InstanceRecord {
            lost: how != How::TakenBack,
            health_since_unix_ms: self.now_unix_ms(),
            ..held.record.clone()
        };
        let transition = transition
            .unchanged(&instance, Some(&held.kv))
            .absent(&alive)
            .put(&instance, &record, leases.stay)
            .project(Some(&held.record), Some(&record));
        match how {
            How::Lost => transition.put_empty(&loss, leases.window),
            How::GivenUp => transition,
            How::TakenBack => transition.delete(&loss),
        }
    }
}
