//! A change of a service's projections comes to its instances: some at a time, after the policy says so and a mark says that it is under way,
//! so that whoever looks carries on where another was interrupted.

use tenure_proto::mvccpb::KeyValue;
use tenure_proto::tenure::v1::{InstanceRecord, Projection};

use super::Registry;
use super::instance::Held;
use super::keys::{Kind, Whole};
use super::policy;
use super::projection::{self, PROJECTIONS_MAX};
use super::transition::{Freshness, Read, Transition, read, read_these};
use crate::primitives::{Failure, Primitives};
use crate::refusal::{Error, Reason, Refusal};

/// Instances of one txn: each is written, and loses and gains its keys.
const AT_ONCE: usize = 120 / (1 + 2 * PROJECTIONS_MAX);
/// Keys that one txn reads.
const READ_AT_ONCE: usize = 100;

impl<P: Primitives> Registry<P> {
    /// One pass over the instances; `mark` is taken away when all are as the policy says.
    pub(super) async fn project(&self, service: &str, mark: &KeyValue) -> Result<(), Failure> {
        let (policy_key, mark_key) = (self.keys.policy(service), self.keys.whole(Whole::Projecting, service));
        let (_, [policy]) = read_these(&self.primitives, [&policy_key]).await?;
        let wanted = policy::decoded(policy.as_ref()).projections;
        let mut behind = Vec::new();
        let take = |kv| behind.extend(Held::decode(kv).filter(|held| held.record.projections != wanted));
        match self.each(&self.keys.instances(service), 0, Freshness::Newest, false, take).await {
            // The next look begins anew.
            Err(Failure::Compacted { .. }) => return Ok(()),
            read => read?,
        };
        let as_policy_says = || Transition::default().unchanged(&policy_key, policy.as_ref());
        let mut all = true;
        for some in behind.chunks(AT_ONCE) {
            let transition = some.iter().fold(as_policy_says(), |transition, held| {
                let of = held.registration();
                let key = self.keys.one(Kind::Instance, &of.service, &of.id);
                let record = InstanceRecord { projections: wanted.clone(), ..held.record.clone() };
                let transition = transition.unchanged(&key, Some(&held.kv)).put(&key, &record, held.kv.lease);
                transition.project(Some(&held.record), Some(&record))
            });
            all &= transition.attempt(&self.primitives).await?.is_some();
        }
        if all {
            let done = as_policy_says().unchanged(&mark_key, Some(mark)).delete(&mark_key);
            let _otherwise_again = done.attempt(&self.primitives).await?;
        }
        Ok(())
    }

    /// That these are clear of all other services' projections, those that are being withdrawn included: the revision at which that is so.
    /// None: it may become so, ask again.
    pub(super) async fn clear_of_others(
        &self,
        service: &str,
        projections: &[Projection],
    ) -> Result<Option<i64>, Error> {
        let mut others = Vec::new();
        let take = |kv: KeyValue| {
            let name = self.keys.policy_of(&kv.key).filter(|name| name != service);
            others.extend(name.map(|name| (name, policy::decoded(Some(&kv)).projections)));
        };
        let read_at = match self.each(&self.keys.policies(""), 0, Freshness::Newest, false, take).await {
            Err(Failure::Compacted { .. }) => return Ok(None),
            read => read?,
        };
        for (name, theirs) in &others {
            let meets = |one: &&Projection| theirs.iter().any(|other| projection::overlap(one, other));
            if let Some(met) = projections.iter().find(meets) {
                let prefix = projection::prefix(met).unwrap_or_default();
                let prefix = String::from_utf8_lossy(&prefix);
                let text =
                    format!("a projection to {prefix:?} meets one of service {name:?}; choose another");
                return Err(Refusal::new(Reason::PolicyConflict, text).into());
            }
        }
        for others in others.chunks(READ_AT_ONCE) {
            let marks = others.iter().map(|(name, _)| self.keys.whole(Whole::Projecting, name));
            let marks: Vec<Vec<u8>> = marks.collect();
            let Read { kvs, .. } = read(&self.primitives, &marks, Freshness::Newest).await?;
            let changing = others.iter().zip(kvs).filter(|(_, mark)| mark.is_some());
            let changing: Vec<&str> = changing.map(|((name, _), _)| name.as_str()).collect();
            for name in &changing {
                self.help(name).await?;
            }
            if !changing.is_empty() {
                return Ok(None);
            }
        }
        Ok(Some(read_at))
    }
}
