//! When a lease ends whose holder is gone while the leader changes again and again: what the head of `lessor.rs` promises of it.
//! Members here apply promptly, so that the bounds are tight; whether anything can end early is `lessor_model.rs`'s to find out.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use proptest::prelude::*;
use tenure_state::{Checkpoint, Effect, Lease, LeaseId, Lessor, Millis, Pace, Recollection, Renewal};

const PACE: Pace =
    Pace { expiries_per_second: 1_000, spread_ms_max: 10_000, checkpoint_interval_ms: Some(300_000) };
const ELECTION_MS: u64 = 1_000;
const LEASE: LeaseId = LeaseId(1);
/// The members look at their lessors this often.
const TICK_MS: u64 = 50;
/// An entry is applied by the others so much later than by the leader.
const LAG_MS: u64 = 100;
/// What lags and ticks can add: once for each checkpoint, and once for the end itself.
const SLACK_MS: u64 = 4 * (TICK_MS + LAG_MS);

/// Members with clocks of their own, one lease, and the log as far as it concerns that.
struct Cluster {
    now: u64,
    members: Vec<Lessor>,
    leader: Option<usize>,
    term: u64,
    index: u64,
    lease: Option<Lease>,
    checkpoints: usize,
    forgotten: usize,
    /// Members are killed now and then.
    killed: bool,
}

impl Cluster {
    fn with_lease_of(ttl_s: i64) -> Cluster {
        let members = [(); 3].map(|()| Lessor::new(PACE)).into();
        let lease = Lease { ttl_s, epoch: 1, remaining_s: 0, keys: BTreeSet::new() };
        let mut cluster = Cluster {
            now: 0,
            members,
            leader: None,
            term: 0,
            index: 1,
            lease: Some(lease),
            checkpoints: 0,
            forgotten: 0,
            killed: false,
        };
        cluster.emit(&Effect::LeaseGranted { id: LEASE, ttl_s, epoch: 1 });
        cluster.lead(0, 0);
        cluster
    }

    fn clock(&self, member: usize) -> Millis {
        Millis(self.now + 1_000_000 * (member as u64 + 1))
    }

    fn lead(&mut self, member: usize, extension_ms: u64) {
        self.term += 1;
        self.leader = Some(member);
        let (term, now) = (self.term, self.clock(member));
        let leases = self.lease.iter().map(|lease| (LEASE, lease));
        self.members[member].promote(term, self.index, now, leases, extension_ms);
        // One other makes it a majority of three; both answer where members come back that know nothing.
        let spared = if self.killed { None } else { Some((member + 1 + self.term as usize % 2) % 3) };
        let known = (0..3).filter(|other| *other != member && Some(*other) != spared).map(|other| {
            let known = self.members[other].recite(None, 10, self.clock(other));
            known.iter().map(|it| (it.id, now.plus(it.left_ms))).collect()
        });
        let said = Recollection { others: known.collect(), majority: 2 };
        self.members[member].recall(term, &said, None, 10, now);
    }

    /// A member is killed and comes back at once.
    fn restart(&mut self, member: usize) {
        let now = self.clock(member);
        let leases = self.lease.iter().map(|lease| (LEASE, lease));
        self.members[member].restored(now, leases);
    }

    /// The leader teaches whoever knows too little.
    fn teach(&mut self) {
        let Some(leader) = self.leader else { return };
        for member in 0..self.members.len() {
            let standing = self.members[member].standing();
            let lesson = self.members[leader].lesson(None, 10, self.clock(leader));
            if let Some(lesson) = lesson.filter(|_| !standing.complete) {
                // Each change of leader costs what a lesson takes.
                let now = self.clock(member).plus(1);
                self.members[member].learn(standing.resets, self.index, &lesson, true, now);
            }
        }
    }

    fn emit(&mut self, effect: &Effect) {
        for member in 0..self.members.len() {
            let lag_ms = if self.leader == Some(member) { 0 } else { LAG_MS };
            let now = self.clock(member).plus(lag_ms);
            self.members[member].follow(effect, now);
        }
    }

    fn checkpoint(&mut self, epoch: u64, remaining_s: i64) {
        self.index += 1;
        let lease = self.lease.as_mut().filter(|lease| lease.epoch == epoch).unwrap();
        (lease.epoch, lease.remaining_s) = (self.index, remaining_s);
        self.emit(&Effect::LeaseCheckpointed { id: LEASE, remaining_s, epoch: self.index });
    }

    /// What the leader's task does when it looks.
    fn look(&mut self) {
        let Some(leader) = self.leader else { return };
        let now = self.clock(leader);
        for Checkpoint { epoch, remaining_s, .. } in self.members[leader].checkpoints_due(now, 10) {
            self.checkpoints += 1;
            self.checkpoint(epoch, remaining_s);
        }
        if !self.members[leader].expired(now, 10).is_empty() {
            self.lease = None;
            self.emit(&Effect::LeaseGone { id: LEASE });
        }
    }

    fn renew(&mut self) {
        let Some(leader) = self.leader else { return };
        let now = self.clock(leader);
        // A majority is told; which, changes.
        for member in [leader, (leader + 1 + self.now as usize / 100 % 2) % 3] {
            let now = self.clock(member);
            self.members[member].told([LEASE], now);
        }
        if let Renewal::ForgetCheckpoint { epoch, ttl_s } = self.members[leader].renew(LEASE, now, now) {
            self.forgotten += 1;
            self.checkpoint(epoch, ttl_s);
        }
        assert!(matches!(self.members[leader].renew(LEASE, now, now), Renewal::Renewed { .. }));
    }
}

/// A reign: how long it lasts, and how long nobody led before it, in milliseconds.
type Reign = (u64, u64);

/// Lets the holder go at `left_ms`, having renewed until then, and leaders reign one after the other, the last for ever; `killed`:
/// each leader comes back knowing nothing. Gives when the lease was last renewed, when it ended and when the last leader before that
/// began.
fn abandoned(ttl_s: i64, left_ms: u64, first_ms: u64, reigns: &[Reign], killed: bool) -> (Cluster, [u64; 3]) {
    let mut cluster = Cluster { killed, ..Cluster::with_lease_of(ttl_s) };
    let mut reigns = reigns.iter().copied().zip((0..3).cycle().skip(1));
    let (mut until, mut next) = (first_ms, reigns.next());
    let (mut began, mut renewed) = (0, 0);
    while cluster.lease.is_some() {
        cluster.now += TICK_MS;
        if let Some(((lasts, pause), member)) = next {
            if cluster.now >= until + pause {
                cluster.lead(member, ELECTION_MS);
                (until, began, next) = (cluster.now + lasts, cluster.now, reigns.next());
            } else if cluster.now >= until
                && let Some(old) = cluster.leader.take()
            {
                cluster.members[old].demote();
                // Not before it had the time to teach the one that was killed before it.
                if killed && cluster.now >= began + 2 * TICK_MS {
                    cluster.restart(old);
                }
            }
        }
        cluster.teach();
        let due = renewed + ttl_s as u64 * 1_000 / 3;
        if cluster.leader.is_some() && cluster.now >= due && cluster.now <= left_ms {
            cluster.renew();
            renewed = cluster.now;
        }
        cluster.look();
    }
    let ended = cluster.now;
    (cluster, [renewed, ended, began])
}

fn reigns() -> impl Strategy<Value = Vec<Reign>> {
    let lasts = prop_oneof![0..2_000u64, 0..60_000u64];
    prop::collection::vec((lasts, 0..5_000u64), 0..12)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_dead_holders_lease_ends_one_election_after_its_time_or_the_last_change_of_leader(
        ttl_s in prop_oneof![2..20i64, 20..400i64],
        left_ms in 0..60_000u64,
        first_ms in 100..100_000u64,
        reigns in reigns(),
        killed in any::<bool>(),
    ) {
        let (_, [renewed, ended, began]) = abandoned(ttl_s, left_ms, first_ms, &reigns, killed);
        let due = renewed + ttl_s as u64 * 1_000;
        prop_assert!(ended >= due, "ended after {ended} ms, due at {due}");
        prop_assert!(ended <= due.max(began) + ELECTION_MS + SLACK_MS, "ended at {ended}, due at {due}, {began}");
    }

    #[test]
    fn a_lease_left_to_itself_takes_few_entries_however_often_the_leader_changes(
        ttl_s in 2..700i64,
        first_ms in 0..100_000u64,
        reigns in reigns(),
    ) {
        let (cluster, _) = abandoned(ttl_s, 0, first_ms, &reigns, false);
        prop_assert!(cluster.checkpoints <= 3, "{} checkpoints", cluster.checkpoints);
    }

    #[test]
    fn whoever_renews_each_third_of_the_time_costs_no_entry(
        ttl_s in 2..700i64,
        late_ms in 0..500u64,
        reigns in reigns(),
    ) {
        let mut cluster = Cluster::with_lease_of(ttl_s);
        let every = ttl_s as u64 * 1_000 / 3 + late_ms;
        let mut changes: Vec<u64> = Vec::new();
        for (lasts, _) in &reigns {
            changes.push(changes.last().unwrap_or(&0) + lasts);
        }
        let mut renewed = 0;
        while cluster.now < 10 * every {
            cluster.now += TICK_MS;
            if changes.first().is_some_and(|at| *at <= cluster.now) {
                changes.remove(0);
                let next = (cluster.leader.unwrap() + 1) % 3;
                cluster.members[cluster.leader.unwrap()].demote();
                cluster.lead(next, ELECTION_MS);
            }
            if cluster.now >= renewed + every {
                cluster.renew();
                renewed = cluster.now;
            }
            cluster.look();
        }
        prop_assert!(cluster.lease.is_some());
        prop_assert_eq!((cluster.checkpoints, cluster.forgotten), (0, 0));
    }
}

#[test]
fn changes_of_leader_after_the_checkpoint_cost_one_election_together() {
    // Noted after 24 s, then a new leader every 3 s, while the lease has time left.
    let reigns = [(3_000, 0); 10];
    let (cluster, [_, ended, _]) = abandoned(60, 0, 25_000, &reigns, false);
    assert!((60_000 + ELECTION_MS..=60_000 + ELECTION_MS + SLACK_MS).contains(&ended), "{ended}");
    assert_eq!(cluster.checkpoints, 3);
}

#[test]
fn changes_of_leader_before_the_checkpoint_cost_one_election_together() {
    // None lasts long enough to notice that the holder is gone, and each that led comes back knowing nothing.
    let reigns = [(3_000, 500); 30];
    let (cluster, [_, ended, _]) = abandoned(60, 0, 3_000, &reigns, true);
    assert!((60_000 + ELECTION_MS..=60_000 + ELECTION_MS + SLACK_MS).contains(&ended), "{ended}");
    assert_eq!(cluster.checkpoints, 3);
}

#[test]
fn when_all_members_were_started_anew_what_the_log_remembers_counts_from_then() {
    let mut cluster = Cluster::with_lease_of(60);
    cluster.now = 25_000;
    cluster.look();
    (0..3).for_each(|member| cluster.restart(member));
    cluster.now = 30_000;
    cluster.lead(1, ELECTION_MS);
    let remaining = cluster.members[1].remaining(LEASE, cluster.clock(1)).unwrap();
    // 35 s were remembered at 25 s.
    assert_eq!(remaining.remaining_s, 31);
}

#[test]
fn a_live_holder_has_an_election_timeout_to_reach_the_new_leader() {
    let mut lessor = Lessor::new(PACE);
    lessor.follow(&Effect::LeaseGranted { id: LEASE, ttl_s: 10, epoch: 1 }, Millis(0));
    lessor.follow(&Effect::LeaseCheckpointed { id: LEASE, remaining_s: 5, epoch: 7 }, Millis(5_000));
    let lease = Lease { ttl_s: 10, epoch: 7, remaining_s: 5, keys: BTreeSet::new() };
    lessor.promote(2, 7, Millis(60_000), [(LEASE, &lease)], ELECTION_MS);
    lessor.recall(2, &Recollection { others: vec![], majority: 1 }, None, 10, Millis(60_000));
    assert_eq!(lessor.expired(Millis(60_999), 10), vec![]);
    assert_eq!(
        lessor.renew(LEASE, Millis(60_500), Millis(60_500)),
        Renewal::ForgetCheckpoint { epoch: 7, ttl_s: 10 }
    );
    assert_eq!(lessor.expired(Millis(61_000), 10), vec![(LEASE, 7)]);
}

#[test]
fn a_hundred_thousand_leases_are_checkpointed_in_batches_of_what_is_asked_for() {
    let mut lessor = Lessor::new(PACE);
    lessor.promote(1, 0, Millis(0), [], 0);
    for id in 1..=100_000 {
        lessor.follow(&Effect::LeaseGranted { id: LeaseId(id), ttl_s: 10, epoch: 1 }, Millis(0));
    }
    assert_eq!(lessor.next_due(), Some(Millis(5_000)));
    let mut batches = 0;
    while lessor.next_due() == Some(Millis(5_000)) {
        assert_eq!(lessor.checkpoints_due(Millis(5_000), 1_000).len(), 1_000);
        batches += 1;
    }
    assert_eq!((batches, lessor.next_due()), (100, Some(Millis(8_000))));
}
