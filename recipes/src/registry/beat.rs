//! Heartbeats. In the steady state each costs a look at the record that this member has at hand, and a share in one renewal of all
//! leases of the message: nothing is written. Whoever must be looked at closely (it was not heard of, its health differs, it
//! is not known) is, each by itself.

use std::collections::BTreeMap;

use tenure_proto::tenure::v1::heartbeat_result::Outcome;
use tenure_proto::tenure::v1::{Health, Heartbeat, HeartbeatResult, InstanceRecord};

use super::instance::Held;
use super::keys::Kind;
use super::policy::Policy;
use super::request;
use super::together::together;
use super::transition::{Freshness, Read, Transition, read, read_these};
use super::{Again, Registry};
use crate::primitives::{Failure, Primitives};
use crate::refusal::Error;

/// Records that one txn reads.
const READ_AT_ONCE: usize = 100;
/// Instances that are looked at closely at the same time.
const CLOSELY_AT_ONCE: usize = 32;

/// What is at hand about who sent a heartbeat.
enum Sight {
    /// The record, of this incarnation, as it is at this member.
    Known { lease: i64, health: Health, lost: bool },
    /// There is none, or one of another incarnation; this member may only be behind.
    Unknown,
}

impl<P: Primitives> Registry<P> {
    /// One result for each, in their order.
    pub async fn heartbeat(&self, beats: &[Heartbeat]) -> Result<Vec<HeartbeatResult>, Error> {
        request::heartbeats(beats)?;
        let mut sights = Vec::with_capacity(beats.len());
        for beats in beats.chunks(READ_AT_ONCE) {
            self.look(beats, &mut sights).await?;
        }
        let ttls = self.renew(&sights).await?;
        let mut results = vec![HeartbeatResult::default(); beats.len()];
        let mut closely = Vec::new();
        for (number, (beat, sight)) in beats.iter().zip(&sights).enumerate() {
            match sight {
                Sight::Known { lease, health, lost: false } if !self.is_news(beat, *health) => {
                    match ttls.get(lease) {
                        Some(ttl_s) => results[number] = result(Outcome::Alive, *ttl_s, *health),
                        None => closely.push(number),
                    }
                }
                Sight::Known { .. } | Sight::Unknown => closely.push(number),
            }
        }
        let looks = closely.clone().into_iter().map(|number| self.attend(&beats[number]));
        for (number, outcome) in closely.into_iter().zip(together(looks, CLOSELY_AT_ONCE).await) {
            results[number] = outcome?;
        }
        Ok(results)
    }

    async fn look(&self, beats: &[Heartbeat], sights: &mut Vec<Sight>) -> Result<(), Failure> {
        let keys: Vec<Vec<u8>> =
            beats.iter().map(|beat| self.keys.one(Kind::Instance, &beat.service, &beat.id)).collect();
        let Read { kvs, .. } = read(&self.primitives, &keys, Freshness::AtHand).await?;
        sights.extend(beats.iter().zip(kvs).map(|(beat, kv)| {
            let Some(held) = kv.and_then(Held::decode) else { return Sight::Unknown };
            let InstanceRecord { lease, lost, .. } = held.record;
            match held.incarnation() == beat.incarnation {
                true => Sight::Known { lease, lost, health: held.record.health() },
                false => Sight::Unknown,
            }
        }));
        Ok(())
    }

    /// Renews every lease once; gives the TTLs of those that are there.
    async fn renew(&self, sights: &[Sight]) -> Result<BTreeMap<i64, i64>, Failure> {
        let mut leases: Vec<i64> = sights
            .iter()
            .filter_map(|sight| match sight {
                Sight::Known { lease, lost: false, .. } => Some(*lease),
                Sight::Known { .. } | Sight::Unknown => None,
            })
            .collect();
        leases.sort_unstable();
        leases.dedup();
        if leases.is_empty() {
            return Ok(BTreeMap::new());
        }
        let ttls = self.primitives.keep_alive_all(&leases).await?;
        Ok(leases.into_iter().zip(ttls).filter_map(|(lease, ttl_s)| Some((lease, ttl_s?))).collect())
    }

    /// Whether the beat reports another health than this; what is the same as ever ends a streak of other reports.
    fn is_news(&self, beat: &Heartbeat, written: Health) -> bool {
        let reported = beat.health();
        if reported != Health::Unspecified && reported != written {
            return true;
        }
        if reported == written {
            self.damping().forget(&beat.service, &beat.id);
        }
        false
    }

    fn damping(&self) -> std::sync::MutexGuard<'_, super::Damping> {
        self.damping.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Looks at the newest there is about one instance, and writes what has to be: that it is heard of again, or its health.
    async fn attend(&self, beat: &Heartbeat) -> Result<HeartbeatResult, Failure> {
        let mut counted = None;
        let mut again = Again::default();
        loop {
            match self.try_attend(beat, &mut counted).await {
                Ok(Some(result)) => return Ok(result),
                Ok(None) => again.after_race()?,
                Err(failure @ (Failure::LeaseUnknown | Failure::Unknown(_))) => again.after(failure)?,
                Err(failure) => return Err(failure),
            }
        }
    }

    /// None: others were quicker. `counted`: whether this report, which is counted once however often it is tried, is to be written.
    async fn try_attend(
        &self,
        beat: &Heartbeat,
        counted: &mut Option<bool>,
    ) -> Result<Option<HeartbeatResult>, Failure> {
        let key = |kind| self.keys.one(kind, &beat.service, &beat.id);
        let (instance, alive, loss) = (key(Kind::Instance), key(Kind::Alive), key(Kind::Loss));
        let policy = self.keys.policy(&beat.service);
        let (_, [held, sign, policy]) = read_these(&self.primitives, [&instance, &alive, &policy]).await?;
        let held = match held.and_then(Held::decode) {
            Some(held) if held.incarnation() == beat.incarnation => held,
            Some(held) if held.incarnation() > beat.incarnation => {
                return Ok(Some(result(Outcome::Superseded, 0, Health::Unspecified)));
            }
            Some(_) | None => return Ok(Some(not_registered())),
        };
        let mut record = held.record.clone();
        let news = self.is_news(beat, record.health());
        if news && *counted.get_or_insert_with(|| self.count(beat, &held, &Policy::stored(policy.as_ref()))) {
            record.health = beat.health;
            record.note.clone_from(&beat.note);
            record.health_since_unix_ms = self.now_unix_ms();
        }
        let ttl_s = match sign {
            Some(_) => self.primitives.keep_alive(record.lease).await?,
            // A session that is over does not come back.
            None if !held.has_own_lease() => return Ok(Some(not_registered())),
            None => match self.primitives.grant(record.lease, record.ttl_s).await {
                Ok(ttl_s) => Some(ttl_s),
                Err(Failure::LeaseExists) => self.primitives.keep_alive(record.lease).await?,
                Err(failure) => return Err(failure),
            },
        };
        let Some(ttl_s) = ttl_s else { return Ok(None) };
        if record.lost {
            record.lost = false;
            record.health_since_unix_ms = self.now_unix_ms();
        }
        let mut transition = Transition::default().unchanged(&instance, Some(&held.kv));
        let answer = result(Outcome::Alive, ttl_s, record.health());
        transition = match sign {
            Some(_) if record == held.record => return Ok(Some(answer)),
            Some(_) => transition.present(&alive),
            None => transition.absent(&alive).put_empty(&alive, record.lease).delete(&loss),
        };
        if record != held.record {
            transition = transition.put(&instance, &record, 0).project(Some(&held.record), Some(&record));
        }
        Ok(transition.attempt(&self.primitives).await?.map(|_| answer))
    }

    fn count(&self, beat: &Heartbeat, held: &Held, policy: &Policy) -> bool {
        let who = (beat.service.as_str(), beat.id.as_str(), beat.incarnation);
        self.damping().differs(who, held.record.health(), beat.health(), policy)
    }
}

fn result(outcome: Outcome, ttl_s: i64, health: Health) -> HeartbeatResult {
    HeartbeatResult { outcome: outcome.into(), ttl_s, health: health.into() }
}

fn not_registered() -> HeartbeatResult {
    result(Outcome::NotRegistered, 0, Health::Unspecified)
}
