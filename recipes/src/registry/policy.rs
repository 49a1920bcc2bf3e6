//! What holds for a service: its policy with the defaults filled in.

use prost::Message;
use tenure_proto::mvccpb::KeyValue;
use tenure_proto::tenure::v1::ServicePolicy;

use crate::check;
use crate::refusal::{Reason, Refusal};

/// A policy as it is acted upon: no number stands for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    pub ttl_s: i64,
    pub up: u32,
    pub down: u32,
    pub deregister_after_s: i64,
    pub min_available: u32,
    pub max_loss_percent: u32,
    pub protect_min: u32,
    pub window_s: i64,
    pub max_protect_s: i64,
}

const TTL_S: i64 = 15;
const UP: u32 = 1;
const DOWN: u32 = 2;
/// In TTLs.
const DEREGISTER_AFTER: i64 = 10;
const MAX_LOSS_PERCENT: u32 = 40;
const PROTECT_MIN: u32 = 3;
const MAX_PROTECT_S: i64 = 600;

const REPORTS_MAX: u32 = 100;
const DEREGISTER_AFTER_S_MAX: i64 = 30 * 86_400;

impl Policy {
    pub fn of(set: &ServicePolicy) -> Policy {
        let or = |value: i64, default: i64| if value > 0 { value } else { default };
        let or_small = |value: u32, default: u32| if value > 0 { value } else { default };
        let ttl_s = or(set.ttl_s, TTL_S);
        Policy {
            ttl_s,
            up: or_small(set.up, UP),
            down: or_small(set.down, DOWN),
            deregister_after_s: or(set.deregister_after_s, DEREGISTER_AFTER * ttl_s),
            min_available: set.min_available,
            max_loss_percent: or_small(set.max_loss_percent, MAX_LOSS_PERCENT),
            protect_min: or_small(set.protect_min, PROTECT_MIN),
            window_s: or(set.window_s, ttl_s),
            max_protect_s: or(set.max_protect_s, MAX_PROTECT_S),
        }
    }

    /// Of the value of a policy's key; without one, the defaults. What cannot be read, was not written by us, and says nothing.
    pub fn stored(kv: Option<&KeyValue>) -> Policy {
        Policy::of(&decoded(kv))
    }
}

/// The policy as it was set.
pub fn decoded(kv: Option<&KeyValue>) -> ServicePolicy {
    kv.and_then(|kv| ServicePolicy::decode(kv.value.clone()).ok()).unwrap_or_default()
}

pub fn well_formed(policy: &ServicePolicy) -> Result<(), Refusal> {
    let seconds = [
        ("ttl_s", policy.ttl_s, check::TTL_S_MAX),
        ("deregister_after_s", policy.deregister_after_s, DEREGISTER_AFTER_S_MAX),
        ("window_s", policy.window_s, check::TTL_S_MAX),
        ("max_protect_s", policy.max_protect_s, check::TTL_S_MAX),
    ];
    for (name, value, max) in seconds {
        if !(0..=max).contains(&value) {
            let text = format!("the policy's {name} is {value}; choose 0 to {max}");
            return Err(Refusal::new(Reason::TtlOutOfRange, text));
        }
    }
    for (name, value) in [("up", policy.up), ("down", policy.down)] {
        if value > REPORTS_MAX {
            let text = format!("the policy's {name} is {value}; choose 0 to {REPORTS_MAX}");
            return Err(Refusal::new(Reason::Invalid, text));
        }
    }
    Ok(())
}
