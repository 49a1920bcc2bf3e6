//! Acquiring: one look and one txn, whether that grants the lock or takes a place in the queue. Who is there already, by an earlier
//! call with the same identity, is told how it stands.

use tenure_proto::tenure::v1::{
    LockGrant, LockHolding, LockMode, LockPlace, LockPolicy, LockQueued, LockRecord, LockSpec,
};

use super::help::{look_after, overdue};
use super::keys::{Keys, Owner, hexadecimal};
use super::plan::{Held, Plan};
use super::reading::{Entry, Found, Fresh, Reads, Seen, decode, first, line_before, policy_of};
use super::step::{Ran, Step};
use super::wish::{QUEUE_MAX, Wish, admits, settle_capacity};
use super::{TRIES_MAX, crowded};
use crate::guard;
use crate::key::Root;
use crate::primitives::{Failure, Primitives};
use crate::refusal::{Error, Reason, Refusal};

/// How an acquisition stands.
#[derive(Clone, Debug, PartialEq)]
pub enum Acquired {
    Granted {
        grants: Vec<LockGrant>,
        revision: i64,
    },
    Queued(Ticket),
    /// Nothing has changed. The first of the locks that is not to be had.
    Busy {
        obstacle: String,
        revision: i64,
    },
}

/// A place in the queue of each lock that is wanted.
#[derive(Clone, Debug, PartialEq)]
pub struct Ticket {
    pub owner: Owner,
    /// In the order of names.
    pub locks: Vec<LockSpec>,
    pub number: String,
    /// It was waiting as of then.
    pub revision: i64,
}

/// What an owner has of the locks it names.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Claim {
    Nothing,
    Held(Vec<Held>),
    Waiting(Ticket),
    /// Of some this and of others that: it is another acquisition's.
    Mixed,
}

/// `queue`: whether to take a place in the queue if it is not to be had at once.
pub async fn acquire<P: Primitives>(
    primitives: &P,
    root: &Root,
    wish: Wish,
    queue: bool,
) -> Result<Acquired, Error> {
    let wish = wish.checked()?;
    let call = Call { primitives, root, queue };
    let mut fresh = Fresh::Any;
    for tries in 0..TRIES_MAX {
        // The first try finds out whether the lock is free; whoever was overtaken behind the second has waited enough.
        if let Some(acquired) = call.attempt(wish.clone(), fresh, tries < 2).await? {
            return Ok(acquired);
        }
        fresh = Fresh::Now;
    }
    Err(crowded(&wish.locks[0].name).into())
}

struct Call<'a, P> {
    primitives: &'a P,
    root: &'a Root,
    queue: bool,
}

/// One of the locks of a wish, as it was seen.
struct Sight {
    seen: Seen,
    policy: LockPolicy,
}

impl<P: Primitives> Call<'_, P> {
    /// None: look again. `patient`: a place behind others may take its time.
    async fn attempt(&self, mut wish: Wish, fresh: Fresh, patient: bool) -> Result<Option<Acquired>, Error> {
        let (sights, own, revision) = self.look(&wish, fresh).await?;
        let unused = sights.iter().all(|sight| sight.seen.written == 0);
        if !unused && fresh == Fresh::Any {
            return Ok(None);
        }
        // Of a lock without a state nobody holds or wants anything.
        if own && !unused {
            match claim(self.primitives, self.root, &wish.owner, &wish.locks, Fresh::Since(revision)).await? {
                (Claim::Nothing, _) => return Ok(None),
                (Claim::Held(held), revision) => {
                    return Ok(Some(same_grants(self.root, &wish, &held, revision)?));
                }
                (Claim::Waiting(ticket), _) => return Ok(Some(same_wish(&wish, ticket)?)),
                (Claim::Mixed, _) => return Err(another(&wish).into()),
            }
        }
        for (spec, sight) in wish.locks.iter_mut().zip(&sights) {
            settle_capacity(spec, &sight.policy, &sight.seen.record)?;
        }
        let delay_s = wish
            .delay_s
            .unwrap_or_else(|| sights.iter().map(|sight| sight.policy.delay_s).max().unwrap_or(0));
        let terms = LockHolding {
            delay_s,
            labels: wish.labels.clone(),
            since_unix_ms: wish.unix_ms,
            ..LockHolding::default()
        };
        let Some(obstacle) = self.obstacle(&wish, &sights, revision).await? else {
            return self.grant(&wish, &terms, &sights, revision).await;
        };
        let (spec, sight) = (&wish.locks[obstacle], &sights[obstacle]);
        let fresh = Fresh::Since(revision);
        // Behind others who wait, what is overdue is theirs to see to, and the steward's.
        let behind = sight.seen.record.holders > 0 && self.somebody_waits(spec, sight, revision).await?;
        if !behind
            && overdue(self.primitives, self.root, &spec.name, &sight.seen.record, fresh).await?
            && look_after(self.primitives, self.root, &spec.name, wish.unix_ms).await?
        {
            return Ok(None);
        }
        if !self.queue {
            return Ok(Some(Acquired::Busy { obstacle: spec.name.clone(), revision }));
        }
        // Nor does anybody's leaving make it theirs then: of a lock that one has for himself, the line stays.
        let unhurried = patient && behind && sights.len() == 1 && sight.seen.record.exclusive.is_some();
        self.enqueue(&wish, &terms, &sights, revision, unhurried).await
    }

    /// The locks, whether their caller has anything of them already, and as of which revision. At first, only whether they are free.
    async fn look(&self, wish: &Wish, fresh: Fresh) -> Result<(Vec<Sight>, bool, i64), Failure> {
        let closely = fresh != Fresh::Any;
        let by_policy = |spec: &LockSpec| wish.delay_s.is_none() || spec.mode() == LockMode::Permits;
        let mut reads = Reads::default();
        for spec in &wish.locks {
            let keys = Keys::new(self.root, &spec.name);
            reads = reads.key(keys.state());
            if by_policy(spec) {
                reads = reads.key(keys.policy());
            }
            if closely {
                reads = reads.key(keys.place(&wish.owner));
                reads = reads.key(keys.holder(&wish.owner, false)).key(keys.holder(&wish.owner, true));
            }
        }
        let mut found = reads.run(self.primitives, fresh).await?;
        let (mut sights, mut own) = (Vec::with_capacity(wish.locks.len()), false);
        for spec in &wish.locks {
            let seen = Seen::of(found.take_one().as_ref())?;
            let policy =
                if by_policy(spec) { policy_of(found.take_one().as_ref())? } else { LockPolicy::default() };
            sights.push(Sight { seen, policy });
            for _ in 0..if closely { 3 } else { 0 } {
                own |= found.take_one().is_some();
            }
        }
        Ok((sights, own, found.revision))
    }

    /// The first of the locks that is not to be had at once.
    async fn obstacle(&self, wish: &Wish, sights: &[Sight], revision: i64) -> Result<Option<usize>, Failure> {
        for (index, (spec, sight)) in wish.locks.iter().zip(sights).enumerate() {
            let record = &sight.seen.record;
            if !admits(record, spec) {
                return Ok(Some(index));
            }
            if self.somebody_waits(spec, sight, revision).await? {
                return Ok(Some(index));
            }
        }
        Ok(None)
    }

    /// A line alone does not say so: it may be what those left who waited there and are gone.
    async fn somebody_waits(&self, spec: &LockSpec, sight: &Sight, revision: i64) -> Result<bool, Failure> {
        let (line, fresh) = (&sight.seen.record.line, Fresh::Since(revision));
        let head = first(self.primitives, self.root, &spec.name, line, 1, fresh).await?;
        Ok(!head.is_empty())
    }

    async fn grant(
        &self,
        wish: &Wish,
        terms: &LockHolding,
        sights: &[Sight],
        looked: i64,
    ) -> Result<Option<Acquired>, Error> {
        let mut plan = Plan::new(self.primitives, self.root, wish.unix_ms);
        for (spec, sight) in wish.locks.iter().zip(sights) {
            plan.take_in(&spec.name, sight.seen.clone(), Fresh::Since(looked)).await?;
            if !plan.nobody_waits(&spec.name) {
                return Ok(None);
            }
            if sight.seen.written != 0 {
                plan.step().absent(Keys::new(self.root, &spec.name).place(&wish.owner));
            }
            plan.hold(&spec.name, &wish.owner, spec, terms, false);
        }
        let ran = plan.finish().run(self.primitives).await;
        let Some(revision) = done(ran, wish)? else { return Ok(None) };
        let grants = wish.locks.iter().map(|spec| grant_of(self.root, &wish.owner, spec, false, revision));
        Ok(Some(Acquired::Granted { grants: grants.collect(), revision }))
    }

    async fn enqueue(
        &self,
        wish: &Wish,
        terms: &LockHolding,
        sights: &[Sight],
        looked: i64,
        unhurried: bool,
    ) -> Result<Option<Acquired>, Error> {
        let number = hexadecimal(looked);
        let queued = LockQueued {
            locks: wish.locks.clone(),
            delay_s: terms.delay_s,
            labels: terms.labels.clone(),
            since_unix_ms: wish.unix_ms,
        };
        let place = LockPlace { number: number.clone() };
        let mut step = Step::default();
        for (spec, sight) in wish.locks.iter().zip(sights) {
            let keys = Keys::new(self.root, &spec.name);
            if sight.seen.record.line.is_empty() {
                let mut record = LockRecord { line: hexadecimal(looked - 1), ..sight.seen.record.clone() };
                record.capacity = if record.capacity > 0 { record.capacity } else { spec.capacity };
                step.unchanged(keys.state(), sight.seen.written);
                step.put(keys.state(), &record, 0);
            } else {
                self.check_room(spec, sight, looked).await?;
                step.value_before(keys.state(), line_before(&number));
            }
            for upgraded in [false, true] {
                step.absent(keys.holder(&wish.owner, upgraded));
            }
            step.absent(keys.place(&wish.owner));
            step.put(keys.place(&wish.owner), &place, wish.owner.session);
            step.put(keys.queued(&number, &wish.owner), &queued, wish.owner.session);
        }
        let ran = match unhurried {
            true => step.run_unhurried(self.primitives).await,
            false => step.run(self.primitives).await,
        };
        let Some(revision) = done(ran, wish)? else { return Ok(None) };
        let (owner, locks) = (wish.owner.clone(), wish.locks.clone());
        Ok(Some(Acquired::Queued(Ticket { owner, locks, number, revision })))
    }

    /// Whether one more may wait. Counting costs, so of long queues only every 64th who comes has them counted.
    async fn check_room(&self, spec: &LockSpec, sight: &Sight, looked: i64) -> Result<(), Error> {
        const COUNTED_ALWAYS: u32 = 1_000;
        let most = if sight.policy.queue_max > 0 { sight.policy.queue_max } else { QUEUE_MAX };
        if most > COUNTED_ALWAYS && looked % 64 != 0 {
            return Ok(());
        }
        let queue = Keys::new(self.root, &spec.name).queue_from(&sight.seen.record.line);
        let mut found =
            Reads::default().range(queue, i64::from(most)).run(self.primitives, Fresh::Since(looked)).await?;
        if found.take().len() < most as usize {
            return Ok(());
        }
        let text = format!("{most} wait for {:?} already, which are as many as may; ask later", spec.name);
        Err(Refusal::new(Reason::QueueFull, text).with("queue_max", most).into())
    }
}

/// In which revision it was done; None: look again.
fn done(ran: Result<Ran, Failure>, wish: &Wish) -> Result<Option<i64>, Error> {
    match ran {
        Ok(Ran::Done(revision)) => Ok(Some(revision)),
        // What became of it, a fresh look will tell.
        Ok(Ran::Overtaken | Ran::Unknown) => Ok(None),
        Err(Failure::LeaseUnknown) => Err(Refusal::session_gone(wish.owner.session).into()),
        Err(failure) => Err(failure.into()),
    }
}

/// What the owner has of these locks, and as of which revision.
pub(super) async fn claim<P: Primitives>(
    primitives: &P,
    root: &Root,
    owner: &Owner,
    locks: &[LockSpec],
    fresh: Fresh,
) -> Result<(Claim, i64), Failure> {
    let mut fresh = fresh;
    for _ in 0..TRIES_MAX {
        let mut reads = Reads::default();
        for spec in locks {
            let keys = Keys::new(root, &spec.name);
            reads = reads.key(keys.place(owner)).key(keys.holder(owner, false)).key(keys.holder(owner, true));
        }
        let mut found = reads.run(primitives, fresh).await?;
        let (mut held, mut places): (Vec<Held>, Vec<(&str, LockPlace)>) = (Vec::new(), Vec::new());
        for spec in locks {
            if let Some(kv) = found.take_one() {
                places.push((&spec.name, decode(&kv)?));
            }
            held.extend(held_of(owner, &mut found)?);
        }
        let revision = found.revision;
        match (held.len(), places.first()) {
            (0, None) => return Ok((Claim::Nothing, revision)),
            (all, None) if all == locks.len() => return Ok((Claim::Held(held), revision)),
            (0, Some((name, place))) if places.len() == locks.len() => {
                let key = Keys::new(root, name).queued(&place.number, owner);
                let mut found = Reads::default().key(key).run(primitives, Fresh::Since(revision)).await?;
                if let Some(kv) = found.take_one() {
                    let Entry { number, queued, .. } = Entry::of(root, &kv)?;
                    let (owner, locks) = (owner.clone(), queued.locks);
                    let ticket = Ticket { owner, locks, number, revision: found.revision };
                    return Ok((Claim::Waiting(ticket), found.revision));
                }
                // Its turn came, or its end, between the two reads.
                fresh = Fresh::Now;
            }
            _ => return Ok((Claim::Mixed, revision)),
        }
    }
    Err(crowded(&locks[0].name))
}

fn same_grants(root: &Root, wish: &Wish, held: &[Held], revision: i64) -> Result<Acquired, Refusal> {
    let same = |(spec, held): (&LockSpec, &Held)| {
        spec.mode == held.holding.mode && spec.permits == held.holding.permits
    };
    if !wish.locks.iter().zip(held).all(same) {
        return Err(another(wish));
    }
    Ok(Acquired::Granted { grants: grants_of(root, &wish.locks, held), revision })
}

fn same_wish(wish: &Wish, ticket: Ticket) -> Result<Acquired, Refusal> {
    let told_apart_by = |spec: &LockSpec| (spec.name.clone(), spec.mode, spec.permits);
    if !wish.locks.iter().map(told_apart_by).eq(ticket.locks.iter().map(told_apart_by)) {
        return Err(another(wish));
    }
    Ok(Acquired::Queued(ticket))
}

fn another(wish: &Wish) -> Refusal {
    let text = format!(
        "owner {:?} of this session holds or waits for {:?} in another way; choose another owner id, or leave that first",
        wish.owner.id, wish.locks[0].name
    );
    Refusal::new(Reason::IdentityConflict, text)
}

fn held_of(owner: &Owner, found: &mut Found) -> Result<Option<Held>, Failure> {
    let mut held = None;
    for upgraded in [false, true] {
        if let Some(kv) = found.take_one() {
            let (owner, token) = (owner.clone(), kv.create_revision);
            held = Some(Held { owner, upgraded, token, holding: decode(&kv)? });
        }
    }
    Ok(held)
}

pub(super) fn grant_of(root: &Root, owner: &Owner, spec: &LockSpec, upgraded: bool, token: i64) -> LockGrant {
    let key = Keys::new(root, &spec.name).holder(owner, upgraded);
    LockGrant {
        name: spec.name.clone(),
        mode: spec.mode,
        permits: spec.permits,
        token,
        guard: Some(guard::of(&key, token)),
    }
}

/// The grants, as they are held now.
pub(super) fn grants_of(root: &Root, locks: &[LockSpec], held: &[Held]) -> Vec<LockGrant> {
    let grant = |(spec, held): (&LockSpec, &Held)| {
        let spec = LockSpec { mode: held.holding.mode, permits: held.holding.permits, ..spec.clone() };
        grant_of(root, &held.owner, &spec, held.upgraded, held.token)
    };
    locks.iter().zip(held).map(grant).collect()
}
