//! An instance comes, changes what it says of itself, and goes. Who is later overwrites who is earlier, by incarnation and then by
//! sequence, never the other way round; a repeat finds out what its first try did.

use tenure_proto::mvccpb::KeyValue;
use tenure_proto::tenure::v1::register_response::Outcome;
use tenure_proto::tenure::v1::{
    DeregisterRequest, DeregisterResponse, Health, Instance, InstanceRecord, RegisterRequest,
    RegisterResponse, Registration, ServicePolicy, Tombstone, deregister_response,
};

use super::instance::{self, Held};
use super::keys::Kind;
use super::policy::{self, Policy};
use super::request;
use super::transition::{Transition, read_these};
use super::{Again, Registry, at};
use crate::primitives::{Failure, Primitives};
use crate::refusal::{Error, Refusal};

/// What there is about one instance at one revision.
struct Situation {
    revision: i64,
    held: Option<Held>,
    alive: Option<KeyValue>,
    tombstone: Option<KeyValue>,
    policy: Option<KeyValue>,
}

/// What is to be done about a registration.
enum Verdict {
    Answer(Outcome),
    /// To be written, with the sign of life as it is or with a new one.
    Write {
        keeps_life: bool,
    },
}

impl<P: Primitives> Registry<P> {
    pub async fn register(&self, request: RegisterRequest) -> Result<RegisterResponse, Error> {
        let wish = request::register(&request)?;
        let mut granted = None;
        let mut again = Again::default();
        let reply = loop {
            match self.try_register(&request, wish, &mut granted).await {
                Ok(Some(reply)) => break Ok(reply),
                Ok(None) => again.after_race()?,
                Err(Failure::LeaseUnknown) if wish.session != 0 => {
                    break Err(Refusal::session_gone(wish.session).into());
                }
                // The lease of its own ran out meanwhile; of what is unknown, a repeat finds out.
                Err(failure @ (Failure::LeaseUnknown | Failure::Unknown(_))) => {
                    granted = None;
                    again.after(failure)?;
                }
                Err(failure) => break Err(failure.into()),
            }
        };
        self.give_up(granted.map(|(lease, _)| lease)).await;
        reply
    }

    /// None: others were quicker. `granted`: a lease with its TTL that is there for the taking; what is taken is taken out.
    async fn try_register(
        &self,
        request: &RegisterRequest,
        wish: &Registration,
        granted: &mut Option<(i64, i64)>,
    ) -> Result<Option<RegisterResponse>, Failure> {
        let situation = self.situation(&wish.service, &wish.id).await?;
        let policy = Policy::stored(situation.policy.as_ref());
        let keeps_life = match decide(&situation, request, wish, &policy) {
            Verdict::Answer(outcome) => return self.answered(&situation, outcome).await,
            Verdict::Write { keeps_life } => keeps_life,
        };
        let ttl_wish_s = if wish.ttl_s > 0 { wish.ttl_s } else { policy.ttl_s };
        let (lease, ttl_s) = match (wish.session, keeps_life, &situation.held) {
            (0, true, Some(held)) => match self.primitives.keep_alive(held.record.lease).await? {
                Some(ttl_s) => (held.record.lease, ttl_s),
                None => return Ok(None),
            },
            (0, ..) => {
                if granted.is_none() {
                    *granted = Some(self.grant(ttl_wish_s).await?);
                }
                granted.unwrap_or_default()
            }
            (session, ..) => (session, 0),
        };
        let record = self.record(&situation, request, wish, lease, ttl_wish_s);
        let transition = self.registering(&situation, wish, &record, keeps_life);
        let Some(revision) = transition.attempt(&self.primitives).await? else { return Ok(None) };
        if granted.is_some_and(|(taken, _)| taken == lease) {
            *granted = None;
        }
        let replaced =
            situation.held.as_ref().filter(|held| held.has_own_lease() && held.record.lease != lease);
        self.give_up(replaced.map(|held| held.record.lease)).await;
        let created = situation.held.as_ref().map_or(revision, |held| held.kv.create_revision);
        let instance = instance::seen(&record, true, created, revision);
        Ok(Some(answer(revision, Outcome::Registered, Some(instance), ttl_s)))
    }

    /// Nothing is to be written. But to register is to be heard of, also for who was there already. None: its time ended just now.
    async fn answered(
        &self,
        situation: &Situation,
        outcome: Outcome,
    ) -> Result<Option<RegisterResponse>, Failure> {
        let Situation { revision, held, alive, .. } = situation;
        let instance = held.as_ref().map(|held| held.instance(alive.is_some()));
        let mut ttl_s = 0;
        if let Some(held) = held.as_ref().filter(|_| outcome == Outcome::Registered) {
            let Some(left_s) = self.primitives.keep_alive(held.record.lease).await? else { return Ok(None) };
            ttl_s = if held.has_own_lease() { left_s } else { 0 };
        }
        Ok(Some(answer(*revision, outcome, instance, ttl_s)))
    }

    fn record(
        &self,
        situation: &Situation,
        request: &RegisterRequest,
        wish: &Registration,
        lease: i64,
        ttl_s: i64,
    ) -> InstanceRecord {
        let before = situation.held.as_ref();
        let same = before.filter(|held| held.incarnation() == wish.incarnation);
        let health = match (request.health(), same) {
            (Health::Unspecified, Some(held)) => held.record.health(),
            (Health::Unspecified, None) => Health::Passing,
            (health, _) => health,
        };
        let unchanged = same.filter(|held| held.record.health() == health && !held.record.lost);
        let since = unchanged.map_or_else(|| self.now_unix_ms(), |held| held.record.health_since_unix_ms);
        InstanceRecord {
            registration: Some(wish.clone()),
            health: health.into(),
            note: request.note.clone(),
            lost: false,
            // A drain is of a process; maintenance and weight are words about the id, whoever has it.
            drain: same.and_then(|held| held.record.drain.clone()),
            maintenance: before.is_some_and(|held| held.record.maintenance),
            weight: before.and_then(|held| held.record.weight),
            lease,
            ttl_s,
            health_since_unix_ms: since,
            projections: policy::decoded(situation.policy.as_ref()).projections,
        }
    }

    fn registering(
        &self,
        situation: &Situation,
        wish: &Registration,
        record: &InstanceRecord,
        keeps_life: bool,
    ) -> Transition {
        let key = |kind| self.keys.one(kind, &wish.service, &wish.id);
        let policy = self.keys.policy(&wish.service);
        let mut transition = Transition::default()
            .unchanged(&policy, situation.policy.as_ref())
            .unchanged(&key(Kind::Instance), situation.held.as_ref().map(|held| &held.kv))
            .unchanged(&key(Kind::Alive), situation.alive.as_ref())
            .unchanged(&key(Kind::Tombstone), situation.tombstone.as_ref())
            .put(&key(Kind::Instance), record, 0);
        // A service is known by its policy's key; whoever finds it without instances takes it away.
        if situation.policy.is_none() {
            transition = transition.put(&policy, &ServicePolicy::default(), 0);
        }
        // Anew, not only what differs: so a registration mends what somebody else did to these keys.
        let before = situation.held.as_ref().map(|held| &held.record);
        transition = transition.project(before, None).project(None, Some(record));
        if !keeps_life {
            transition = transition.put_empty(&key(Kind::Alive), record.lease).delete(&key(Kind::Loss));
        }
        if record.drain.is_none() && situation.held.as_ref().is_some_and(|held| held.record.drain.is_some()) {
            transition = transition.delete(&key(Kind::Draining)).delete(&key(Kind::DrainTimer));
        }
        transition
    }

    pub async fn deregister(&self, request: DeregisterRequest) -> Result<DeregisterResponse, Error> {
        request::deregister(&request)?;
        let mut again = Again::default();
        loop {
            match self.try_deregister(&request).await {
                Ok(Some(reply)) => return Ok(reply),
                Ok(None) => again.after_race()?,
                Err(failure @ (Failure::LeaseUnknown | Failure::Unknown(_))) => again.after(failure)?,
                Err(failure) => return Err(failure.into()),
            }
        }
    }

    async fn try_deregister(
        &self,
        request: &DeregisterRequest,
    ) -> Result<Option<DeregisterResponse>, Failure> {
        use deregister_response::Outcome;
        let reply =
            |revision, outcome: Outcome| DeregisterResponse { header: at(revision), outcome: outcome.into() };
        let situation = self.situation(&request.service, &request.id).await?;
        let buried = incarnation_of(situation.tombstone.as_ref());
        let Some(held) = &situation.held else {
            if buried >= request.incarnation {
                return Ok(Some(reply(situation.revision, Outcome::Deregistered)));
            }
            // A registration may be on its way still.
            let policy = Policy::stored(situation.policy.as_ref());
            let (lease, _) = self.grant(policy.ttl_s).await?;
            let tombstone = self.keys.one(Kind::Tombstone, &request.service, &request.id);
            let transition = Transition::default()
                .absent(&self.keys.one(Kind::Instance, &request.service, &request.id))
                .unchanged(&tombstone, situation.tombstone.as_ref())
                .put(&tombstone, &Tombstone { incarnation: request.incarnation }, lease);
            let revision = transition.attempt(&self.primitives).await?;
            return Ok(revision.map(|revision| reply(revision, Outcome::Deregistered)));
        };
        if request.incarnation != 0 && held.incarnation() > request.incarnation {
            return Ok(Some(reply(situation.revision, Outcome::Superseded)));
        }
        let incarnation = held.incarnation().max(request.incarnation).max(buried);
        let lease = self.lease_for_tombstone(held, situation.alive.is_some()).await?;
        let transition = self.removing(held, &Tombstone { incarnation }, lease);
        let revision = transition.attempt(&self.primitives).await?;
        Ok(revision.map(|revision| reply(revision, Outcome::Deregistered)))
    }

    /// The instance's own lease will do, and nobody renews it any more.
    pub(super) async fn lease_for_tombstone(&self, held: &Held, alive: bool) -> Result<i64, Failure> {
        if alive && held.has_own_lease() && self.primitives.keep_alive(held.record.lease).await?.is_some() {
            return Ok(held.record.lease);
        }
        let (lease, _) = self.grant(held.record.ttl_s).await?;
        Ok(lease)
    }

    /// Removes all that there is of an instance but a tombstone.
    pub(super) fn removing(&self, held: &Held, tombstone: &Tombstone, lease: i64) -> Transition {
        let of = held.registration();
        let key = |kind| self.keys.one(kind, &of.service, &of.id);
        let transition = Transition::default()
            .unchanged(&key(Kind::Instance), Some(&held.kv))
            .put(&key(Kind::Tombstone), tombstone, lease)
            .project(Some(&held.record), None);
        [Kind::Instance, Kind::Alive, Kind::Loss, Kind::Draining, Kind::DrainTimer]
            .into_iter()
            .fold(transition, |transition, kind| transition.delete(&key(kind)))
    }

    async fn situation(&self, service: &str, id: &str) -> Result<Situation, Failure> {
        let key = |kind| self.keys.one(kind, service, id);
        let keys: [&[u8]; 4] =
            [&key(Kind::Instance), &key(Kind::Alive), &key(Kind::Tombstone), &self.keys.policy(service)];
        let (revision, [instance, alive, tombstone, policy]) = read_these(&self.primitives, keys).await?;
        Ok(Situation { revision, held: instance.and_then(Held::decode), alive, tombstone, policy })
    }
}

fn decide(situation: &Situation, request: &RegisterRequest, wish: &Registration, policy: &Policy) -> Verdict {
    if incarnation_of(situation.tombstone.as_ref()) >= wish.incarnation {
        return Verdict::Answer(Outcome::Deregistered);
    }
    let Some(held) = &situation.held else { return Verdict::Write { keeps_life: false } };
    let alive = situation.alive.is_some();
    let place = |registration: &Registration| (registration.incarnation, registration.sequence);
    if place(wish) < place(held.registration()) {
        return Verdict::Answer(Outcome::Superseded);
    }
    if wish.incarnation > held.incarnation() {
        return match alive && !request.takeover {
            true => Verdict::Answer(Outcome::AlreadyRegistered),
            false => Verdict::Write { keeps_life: false },
        };
    }
    // A repeat, however late, undoes no health that was reported since.
    if alive && held.registration() == wish {
        return Verdict::Answer(Outcome::Registered);
    }
    let ttl_s = if wish.ttl_s > 0 { wish.ttl_s } else { policy.ttl_s };
    let same_life = wish.session == held.registration().session && ttl_s == held.record.ttl_s;
    Verdict::Write { keeps_life: alive && same_life }
}

/// That of a tombstone; 0 without one.
fn incarnation_of(tombstone: Option<&KeyValue>) -> i64 {
    use prost::Message;
    tombstone.and_then(|kv| Tombstone::decode(kv.value.clone()).ok()).unwrap_or_default().incarnation
}

fn answer(revision: i64, outcome: Outcome, instance: Option<Instance>, ttl_s: i64) -> RegisterResponse {
    RegisterResponse { header: at(revision), outcome: outcome.into(), instance, ttl_s }
}
