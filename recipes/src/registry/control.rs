//! An operator's word: about one instance (drain, maintenance, weight), and about a service (its policy, the end of its protection).

use tenure_proto::mvccpb::KeyValue;
use tenure_proto::tenure::v1::set_instance_request::Change;
use tenure_proto::tenure::v1::set_instance_response::Outcome;
use tenure_proto::tenure::v1::{
    EndProtectionRequest, EndProtectionResponse, InstanceRecord, ServicePolicy, SetInstanceRequest,
    SetInstanceResponse, SetServicePolicyRequest, SetServicePolicyResponse, set_service_policy_response,
};

use super::instance::{self, Held};
use super::keys::{Kind, Whole};
use super::policy::{self, Policy};
use super::request::{self, WEIGHT_MAX};
use super::transition::{Freshness, Transition, read_these};
use super::{Again, Registry, at, drain, projection};
use crate::primitives::{Failure, Primitives};
use crate::refusal::Error;

/// What there is about one instance at one revision.
struct Situation {
    revision: i64,
    held: Held,
    alive: bool,
    policy: Policy,
    /// Written by whoever takes an instance out, so that two who count at the same time do not both find enough left.
    withdrawals: Option<KeyValue>,
}

impl<P: Primitives> Registry<P> {
    pub async fn set_instance(&self, request: SetInstanceRequest) -> Result<SetInstanceResponse, Error> {
        let change = request::set_instance(&request)?;
        let mut again = Again::default();
        loop {
            match self.try_set(&request, change).await {
                Ok(Some(reply)) => return Ok(reply),
                Ok(None) => again.after_race()?,
                // The lease of a lost instance's stay ran out meanwhile; of what is unknown, a repeat finds out.
                Err(failure @ (Failure::LeaseUnknown | Failure::Unknown(_))) => again.after(failure)?,
                Err(failure) => return Err(failure.into()),
            }
        }
    }

    /// None: others were quicker.
    async fn try_set(
        &self,
        request: &SetInstanceRequest,
        change: &Change,
    ) -> Result<Option<SetInstanceResponse>, Failure> {
        let (revision, found) = self.found(&request.service, &request.id).await?;
        let Some(situation) = found else { return Ok(Some(reply(revision, Outcome::NotRegistered))) };
        let Situation { held, alive, .. } = &situation;
        let now = held.instance(*alive);
        let mut record = held.record.clone();
        set(&mut record, change, self.now_unix_ms());
        if record == held.record {
            return Ok(Some(SetInstanceResponse { instance: Some(now), ..reply(revision, Outcome::Set) }));
        }
        if request.if_revision != 0 && request.if_revision != held.kv.mod_revision {
            return Ok(Some(SetInstanceResponse {
                instance: Some(now),
                ..reply(revision, Outcome::Changed)
            }));
        }
        let withdraws = now.routable && (record.drain.is_some() || record.maintenance);
        let counted = withdraws && situation.policy.min_available > 0 && !request.force;
        if counted {
            let routable = self.others_routable(&request.service, &request.id, situation.revision).await?;
            if routable < situation.policy.min_available {
                let refused = reply(revision, Outcome::MinAvailable);
                return Ok(Some(SetInstanceResponse { instance: Some(now), routable, ..refused }));
            }
        }
        let instance_key = self.keys.one(Kind::Instance, &request.service, &request.id);
        let mut transition = Transition::default()
            .unchanged(&instance_key, Some(&held.kv))
            .put(&instance_key, &record, held.kv.lease)
            .project(Some(&held.record), Some(&record));
        if counted {
            let withdrawals = self.keys.whole(Whole::Withdrawals, &request.service);
            let read = situation.withdrawals.as_ref();
            transition = transition.unchanged(&withdrawals, read).put_empty(&withdrawals, 0);
        }
        let (transition, timer) = match change {
            Change::Drain(_) => self.with_drain_timer(transition, request, &record).await?,
            Change::Undrain(_) => (self.without_drain(transition, &request.service, &request.id), None),
            Change::Maintenance(_) | Change::Weight(_) => (transition, None),
        };
        let Some(revision) = transition.attempt(&self.primitives).await? else {
            self.give_up(timer).await;
            return Ok(None);
        };
        let instance = instance::seen(&record, *alive, held.kv.create_revision, revision);
        Ok(Some(SetInstanceResponse { instance: Some(instance), ..reply(revision, Outcome::Set) }))
    }

    /// With a timer until the drain's deadline; also gives the lease that it is.
    async fn with_drain_timer(
        &self,
        transition: Transition,
        request: &SetInstanceRequest,
        record: &InstanceRecord,
    ) -> Result<(Transition, Option<i64>), Failure> {
        let deadline_s = record.drain.as_ref().map_or(0, |drain| drain.deadline_s);
        let (lease, _) = self.grant(deadline_s).await?;
        let transition = transition
            .put_empty(&self.keys.one(Kind::Draining, &request.service, &request.id), 0)
            .put_empty(&self.keys.one(Kind::DrainTimer, &request.service, &request.id), lease);
        Ok((transition, Some(lease)))
    }

    async fn found(&self, service: &str, id: &str) -> Result<(i64, Option<Situation>), Failure> {
        let keys: [&[u8]; 4] = [
            &self.keys.one(Kind::Instance, service, id),
            &self.keys.one(Kind::Alive, service, id),
            &self.keys.policy(service),
            &self.keys.whole(Whole::Withdrawals, service),
        ];
        let (revision, [held, alive, policy, withdrawals]) = read_these(&self.primitives, keys).await?;
        let situation = held.and_then(Held::decode).map(|held| Situation {
            revision,
            held,
            alive: alive.is_some(),
            policy: Policy::stored(policy.as_ref()),
            withdrawals,
        });
        Ok((revision, situation))
    }

    async fn others_routable(&self, service: &str, id: &str, revision: i64) -> Result<u32, Failure> {
        let range = self.keys.service(service);
        let (mirror, _) = self.load(&range, revision, Freshness::Newest).await?;
        let is_other = |registration: &tenure_proto::tenure::v1::Registration| registration.id.as_str() != id;
        let others = mirror
            .instances()
            .filter(|one| one.routable && one.registration.as_ref().is_some_and(is_other))
            .count();
        Ok(u32::try_from(others).unwrap_or(u32::MAX))
    }

    pub async fn set_policy(
        &self,
        request: SetServicePolicyRequest,
    ) -> Result<SetServicePolicyResponse, Error> {
        let wanted = request::set_policy(&request)?;
        projection::well_formed(&wanted.projections, self.keys.root())?;
        let mut again = Again::default();
        loop {
            match self.try_set_policy(&request, wanted).await {
                Ok(Some(reply)) => return Ok(reply),
                Ok(None) => again.after_race()?,
                Err(Error::Failed(failure @ Failure::Unknown(_))) => again.after(failure)?,
                Err(error) => return Err(error),
            }
        }
    }

    async fn try_set_policy(
        &self,
        request: &SetServicePolicyRequest,
        wanted: &ServicePolicy,
    ) -> Result<Option<SetServicePolicyResponse>, Error> {
        use set_service_policy_response::Outcome;
        let key = self.keys.policy(&request.service);
        let projecting = self.keys.whole(Whole::Projecting, &request.service);
        let (revision, [there, mark]) = read_these(&self.primitives, [&key, &projecting]).await?;
        let policy_revision = there.as_ref().map_or(0, |kv| kv.mod_revision);
        let reply = |revision, outcome: Outcome, policy, policy_revision| SetServicePolicyResponse {
            header: at(revision),
            outcome: outcome.into(),
            policy: Some(policy),
            policy_revision,
        };
        let now = policy::decoded(there.as_ref());
        if there.is_some() && now == *wanted {
            if mark.is_some() {
                self.help(&request.service).await?;
            }
            return Ok(Some(reply(revision, Outcome::Set, now, policy_revision)));
        }
        if request.if_revision != 0 && request.if_revision != policy_revision {
            return Ok(Some(reply(revision, Outcome::Changed, now, policy_revision)));
        }
        let mut transition = Transition::default().unchanged(&key, there.as_ref()).put(&key, wanted, 0);
        let projects = wanted.projections != now.projections;
        if projects && !wanted.projections.is_empty() {
            let clear_at = self.clear_of_others(&request.service, &wanted.projections).await?;
            let Some(clear_at) = clear_at else { return Ok(None) };
            transition = transition.none_newer_in(&self.keys.policies(""), clear_at);
        }
        if projects {
            transition = transition.put_empty(&projecting, 0);
        }
        let Some(revision) = transition.attempt(&self.primitives).await? else { return Ok(None) };
        if projects {
            self.help(&request.service).await?;
        }
        Ok(Some(reply(revision, Outcome::Set, wanted.clone(), revision)))
    }

    /// Takes the timer away, and does then what is due at its end.
    pub async fn end_protection(
        &self,
        request: EndProtectionRequest,
    ) -> Result<EndProtectionResponse, Error> {
        request::service(&request.service)?;
        let protection = self.keys.whole(Whole::Protection, &request.service);
        let timer = self.keys.whole(Whole::ProtectionTimer, &request.service);
        let ended = Transition::default().present(&protection).delete(&timer);
        let ended = ended.attempt(&self.primitives).await?.is_some();
        self.help(&request.service).await?;
        let (revision, []) = read_these(&self.primitives, []).await?;
        Ok(EndProtectionResponse { header: at(revision), ended })
    }
}

/// Makes the record what the operator wants. What is so already stays as it is, to the deadline of a drain.
fn set(record: &mut InstanceRecord, change: &Change, unix_ms: i64) {
    match change {
        Change::Drain(wanted) => drain::begin(&mut record.drain, wanted, unix_ms),
        Change::Undrain(_) => record.drain = None,
        Change::Maintenance(on) => record.maintenance = *on,
        Change::Weight(weight) => record.weight = Some(*weight).filter(|weight| *weight <= WEIGHT_MAX),
    }
}

fn reply(revision: i64, outcome: Outcome) -> SetInstanceResponse {
    SetInstanceResponse { header: at(revision), outcome: outcome.into(), ..SetInstanceResponse::default() }
}
