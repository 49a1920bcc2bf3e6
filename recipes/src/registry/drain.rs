//! A drain: an instance is to receive nothing new, until a deadline at which it comes to an end of the operator's choice. The deadline is a
//! lease; what is due at its end, whoever sees it first does.

use tenure_proto::tenure::v1::drain::End;
use tenure_proto::tenure::v1::{Drain, Tombstone};

use super::Registry;
use super::instance::Held;
use super::keys::Kind;
use super::transition::{Transition, read_these};
use crate::primitives::{Failure, Primitives};

/// Until the deadline, of those that name none, seconds.
const DEADLINE_S: i64 = 300;

/// Begins a drain, unless just that one is under way.
pub fn begin(drain: &mut Option<Drain>, wanted: &Drain, unix_ms: i64) {
    let deadline_s = if wanted.deadline_s > 0 { wanted.deadline_s } else { DEADLINE_S };
    let asked = Drain { deadline_s, over: false, since_unix_ms: 0, ..wanted.clone() };
    let under_way = drain.as_ref().map(|drain| Drain { since_unix_ms: 0, ..drain.clone() });
    if under_way.as_ref() != Some(&asked) {
        *drain = Some(Drain { since_unix_ms: unix_ms, ..asked });
    }
}

impl<P: Primitives> Registry<P> {
    pub(super) fn without_drain(&self, transition: Transition, service: &str, id: &str) -> Transition {
        transition.delete(&self.keys.one(Kind::Draining, service, id)).delete(&self.keys.one(
            Kind::DrainTimer,
            service,
            id,
        ))
    }

    /// The deadline is over: does what was to become of the instance. Whether it was done; if not, others were quicker.
    pub(super) async fn end_drain(&self, service: &str, id: &str) -> Result<bool, Failure> {
        let key = |kind| self.keys.one(kind, service, id);
        let (instance, timer) = (key(Kind::Instance), key(Kind::DrainTimer));
        let (alive, draining) = (key(Kind::Alive), key(Kind::Draining));
        let (_, [held, alive]) = read_these(&self.primitives, [&instance, &alive]).await?;
        let over = |transition: Transition| transition.absent(&timer);
        // What was left behind by an instance that is gone, or that came back without it.
        let forget = over(Transition::default()).unchanged(&instance, held.as_ref()).delete(&draining);
        let under_way = held.and_then(Held::decode).and_then(|held| Some((held.record.drain.clone()?, held)));
        let Some((drain, held)) = under_way else {
            return Ok(forget.attempt(&self.primitives).await?.is_some());
        };
        let mut record = held.record.clone();
        let transition = match drain.end() {
            End::Deregister => {
                let lease = self.lease_for_tombstone(&held, alive.is_some()).await?;
                let tombstone = Tombstone { incarnation: held.incarnation() };
                over(self.removing(&held, &tombstone, lease))
            }
            end @ (End::StayOut | End::Return) => {
                record.drain = (end == End::StayOut).then_some(Drain { over: true, ..drain });
                over(Transition::default())
                    .unchanged(&instance, Some(&held.kv))
                    .put(&instance, &record, held.kv.lease)
                    .project(Some(&held.record), Some(&record))
                    .delete(&draining)
            }
        };
        Ok(transition.attempt(&self.primitives).await?.is_some())
    }
}
