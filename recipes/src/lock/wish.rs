//! What somebody wants to acquire, checked: the limits of locks, and the rules of who may hold one along with whom.

use std::collections::{BTreeMap, BTreeSet};

use tenure_proto::tenure::v1::{LockMode, LockPolicy, LockRecord, LockSpec};

use super::keys::Owner;
use crate::check;
use crate::refusal::{Reason, Refusal};

/// Locks of one acquisition: what grants them must fit into one txn together with what it compares.
pub const LOCKS_MAX: usize = 8;
/// Waiters of one lock, unless its policy says less.
pub const QUEUE_MAX: u32 = 100_000;
pub const PERMITS_MAX: u32 = 1_000_000;
/// How long a lock may be kept from the next after a loss, seconds.
pub const DELAY_S_MAX: i64 = 3_600;

/// One acquisition: of all its locks or of none.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Wish {
    pub locks: Vec<LockSpec>,
    pub owner: Owner,
    /// None: as the locks' policies say.
    pub delay_s: Option<i64>,
    pub labels: BTreeMap<String, String>,
    /// For people to read.
    pub unix_ms: i64,
}

impl Wish {
    /// In the order of names, every field as it should be; else why not.
    pub fn checked(mut self) -> Result<Wish, Refusal> {
        self.owner.check()?;
        check::labels(&self.labels)?;
        if let Some(delay_s) = self.delay_s {
            delay(delay_s)?;
        }
        if self.locks.is_empty() || self.locks.len() > LOCKS_MAX {
            let text = format!("one call acquires 1 to {LOCKS_MAX} locks, not {}", self.locks.len());
            return Err(Refusal::new(Reason::Invalid, text));
        }
        self.locks.iter_mut().try_for_each(spec)?;
        self.locks.sort_by(|a, b| a.name.cmp(&b.name));
        let names: BTreeSet<&str> = self.locks.iter().map(|spec| &*spec.name).collect();
        if names.len() < self.locks.len() {
            return Err(Refusal::new(Reason::Invalid, "a lock is named twice in one call; name each once"));
        }
        Ok(self)
    }
}

impl Owner {
    pub fn check(&self) -> Result<(), Refusal> {
        check::session(self.session)?;
        check::id("owner", &self.id)
    }
}

pub fn delay(delay_s: i64) -> Result<(), Refusal> {
    if (0..=DELAY_S_MAX).contains(&delay_s) {
        return Ok(());
    }
    let text = format!("a delay of {delay_s} s cannot be had: choose 0 to {DELAY_S_MAX}");
    Err(Refusal::new(Reason::Invalid, text))
}

pub fn policy(policy: &LockPolicy) -> Result<(), Refusal> {
    delay(policy.delay_s)?;
    if policy.capacity > PERMITS_MAX || policy.queue_max > QUEUE_MAX {
        let text = format!("a lock has at most {PERMITS_MAX} permits and {QUEUE_MAX} waiters");
        return Err(Refusal::new(Reason::Invalid, text));
    }
    Ok(())
}

/// Makes a spec that stands for another in the one form in which they are kept.
fn spec(spec: &mut LockSpec) -> Result<(), Refusal> {
    check::name("lock", &spec.name)?;
    let Ok(mode) = LockMode::try_from(spec.mode) else {
        return Err(Refusal::new(Reason::Invalid, format!("{} is no mode of a lock", spec.mode)));
    };
    if mode != LockMode::Permits {
        if spec.permits > 0 || spec.capacity > 0 {
            let text = "permits and capacity go with the mode PERMITS only; leave them out, or set the mode";
            return Err(Refusal::new(Reason::Invalid, text));
        }
        return Ok(());
    }
    spec.permits = spec.permits.max(1);
    if spec.permits > PERMITS_MAX || spec.capacity > PERMITS_MAX {
        return Err(Refusal::new(Reason::Invalid, format!("a lock has at most {PERMITS_MAX} permits")));
    }
    Ok(())
}

/// Decides how many permits there are, where that is asked, from what is set and from who holds or waits already.
pub fn settle_capacity(spec: &mut LockSpec, policy: &LockPolicy, record: &LockRecord) -> Result<(), Refusal> {
    if spec.mode() != LockMode::Permits {
        return Ok(());
    }
    let set = if policy.capacity > 0 { policy.capacity } else { record.capacity };
    if set > 0 && spec.capacity > 0 && spec.capacity != set {
        let text = format!(
            "{:?} has {set} permits, not {}; ask for that, or set its policy",
            spec.name, spec.capacity
        );
        return Err(Refusal::new(Reason::CapacityMismatch, text).with("capacity", set));
    }
    spec.capacity = if set > 0 { set } else { spec.capacity };
    if spec.capacity == 0 {
        let text =
            format!("nothing says how many permits {:?} has; send a capacity, or set its policy", spec.name);
        return Err(Refusal::new(Reason::CapacityMismatch, text).with("capacity", 0));
    }
    if spec.permits > spec.capacity {
        let text =
            format!("{} permits are more than the {} that {:?} has", spec.permits, spec.capacity, spec.name);
        return Err(Refusal::new(Reason::CapacityMismatch, text).with("capacity", spec.capacity));
    }
    Ok(())
}

/// Whether a lock that is as the record says could be held in this way too, if nobody waited before.
pub fn admits(record: &LockRecord, spec: &LockSpec) -> bool {
    if record.delay_lease != 0 {
        return false;
    }
    match spec.mode() {
        LockMode::Exclusive => record.holders == 0,
        LockMode::Shared => record.holders == 0 || record.mode() == LockMode::Shared,
        LockMode::Permits => {
            let capacity = if record.capacity > 0 { record.capacity } else { spec.capacity };
            // Who asked for more than there are by now is content with all of them, or it would wait for ever.
            let wanted = spec.permits.min(capacity);
            record.holders == 0
                || record.mode() == LockMode::Permits
                    && wanted <= capacity.saturating_sub(record.permits_used)
        }
    }
}
