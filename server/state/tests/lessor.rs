//! What the leader's count of lease time promises, one test a sentence. Time is turned by hand.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};

use tenure_state::{
    Checkpoint, Effect, Lasting, Lease, LeaseId, Lessor, Millis, Pace, Recollection, Remaining, Renewal,
    Standing,
};

const EXTENSION_MS: u64 = 1_000;
const UNHURRIED: Pace =
    Pace { expiries_per_second: 1_000, spread_ms_max: 10_000, checkpoint_interval_ms: None };
const CHECKPOINTING: Pace = Pace { checkpoint_interval_ms: Some(300_000), ..UNHURRIED };

fn leader(pace: Pace) -> Lessor {
    let mut lessor = Lessor::new(pace);
    promote(&mut lessor, 1, 0, []);
    lessor
}

fn granted(id: i64, ttl_s: i64, epoch: u64) -> Effect {
    Effect::LeaseGranted { id: LeaseId(id), ttl_s, epoch }
}

fn gone(id: i64) -> Effect {
    Effect::LeaseGone { id: LeaseId(id) }
}

/// Makes a leader of a lessor; each lease is an id, a TTL and what a checkpoint says of it, and has its id as epoch.
fn promote(lessor: &mut Lessor, term: u64, now: u64, leases: impl IntoIterator<Item = (i64, i64, i64)>) {
    let remember = |(id, ttl_s, remaining_s)| {
        (LeaseId(id), Lease { ttl_s, epoch: id as u64, remaining_s, keys: BTreeSet::new() })
    };
    let leases: BTreeMap<LeaseId, Lease> = leases.into_iter().map(remember).collect();
    lessor.promote(term, u64::MAX, Millis(now), leases.iter().map(|(id, lease)| (*id, lease)), EXTENSION_MS);
}

fn expired(lessor: &mut Lessor, now: u64) -> Vec<(i64, u64)> {
    lessor.expired(Millis(now), 1_000).into_iter().map(|(id, epoch)| (id.0, epoch)).collect()
}

fn renew(lessor: &mut Lessor, id: i64, asked_at: u64, now: u64) -> Renewal {
    lessor.renew(LeaseId(id), Millis(asked_at), Millis(now))
}

#[test]
fn nothing_is_counted_unless_leading() {
    let mut lessor = Lessor::new(UNHURRIED);
    lessor.follow(&granted(1, 10, 5), Millis(0));
    assert_eq!((lessor.term(), lessor.len(), lessor.next_due()), (None, 0, None));
    assert_eq!(renew(&mut lessor, 1, 0, 0), Renewal::NotLeader);

    promote(&mut lessor, 3, 0, [(1, 10, 0)]);
    assert_eq!((lessor.term(), lessor.len()), (Some(3), 1));

    lessor.demote();
    assert_eq!(renew(&mut lessor, 1, 0, 0), Renewal::NotLeader);
    assert_eq!(expired(&mut lessor, 1_000_000), vec![]);
    assert_eq!((lessor.remaining(LeaseId(1), Millis(0)), lessor.ids_by_deadline()), (None, None));
}

#[test]
fn a_lease_is_handed_out_once_and_not_before_its_deadline() {
    let mut lessor = leader(UNHURRIED);
    lessor.follow(&granted(1, 10, 5), Millis(700));
    assert_eq!(lessor.next_due(), Some(Millis(10_700)));
    assert_eq!(expired(&mut lessor, 10_699), vec![]);
    assert_eq!(lessor.overdue_ms(LeaseId(1), Millis(10_950)), None);
    assert_eq!(expired(&mut lessor, 10_700), vec![(1, 5)]);
    assert_eq!(lessor.overdue_ms(LeaseId(1), Millis(10_950)), Some(250));
    assert_eq!(expired(&mut lessor, 99_999), vec![]);
    assert_eq!(lessor.next_due(), None);
}

#[test]
fn a_renewal_counts_from_the_end_of_the_proof() {
    let mut lessor = leader(UNHURRIED);
    lessor.follow(&granted(1, 10, 5), Millis(0));
    assert_eq!(renew(&mut lessor, 1, 3_000, 3_200), Renewal::Renewed { ttl_s: 10 });
    assert_eq!(lessor.next_due(), Some(Millis(13_200)));
    assert_eq!(expired(&mut lessor, 13_199), vec![]);
    assert_eq!(expired(&mut lessor, 13_200), vec![(1, 5)]);
}

#[test]
fn an_unknown_lease_is_said_to_be_unknown() {
    let mut lessor = leader(UNHURRIED);
    assert_eq!(renew(&mut lessor, 1, 0, 0), Renewal::Unknown);
    lessor.follow(&granted(1, 10, 5), Millis(0));
    lessor.follow(&gone(1), Millis(0));
    assert_eq!(renew(&mut lessor, 1, 0, 0), Renewal::Unknown);
    assert_eq!(lessor.remaining(LeaseId(1), Millis(0)), None);
    assert_eq!(lessor.next_due(), None, "a lease that went leaves nothing in the queue");
}

#[test]
fn a_lease_that_was_handed_out_is_never_renewed() {
    let mut lessor = leader(UNHURRIED);
    lessor.follow(&granted(1, 10, 5), Millis(0));
    assert_eq!(expired(&mut lessor, 10_000), vec![(1, 5)]);
    assert_eq!(renew(&mut lessor, 1, 9_999, 10_001), Renewal::Leaving);
    lessor.expiry_failed([LeaseId(1)], Millis(10_002));
    assert_eq!(renew(&mut lessor, 1, 9_999, 10_002), Renewal::Leaving);
    lessor.follow(&Effect::ExpiryDropped { id: LeaseId(1) }, Millis(10_003));
    assert_eq!(renew(&mut lessor, 1, 9_999, 10_003), Renewal::Leaving);
    lessor.follow(&gone(1), Millis(10_004));
    assert_eq!(renew(&mut lessor, 1, 9_999, 10_004), Renewal::Unknown);
}

#[test]
fn a_lease_that_ran_out_before_the_client_asked_is_leaving_though_nobody_had_noticed() {
    let mut lessor = leader(UNHURRIED);
    lessor.follow(&granted(1, 10, 5), Millis(0));
    assert_eq!(renew(&mut lessor, 1, 10_000, 10_050), Renewal::Leaving);
    // The first asker waits for the end, so a second who asked in time must not prevent it.
    assert_eq!(renew(&mut lessor, 1, 9_000, 10_060), Renewal::Leaving);
    assert_eq!(expired(&mut lessor, 10_060), vec![(1, 5)]);
}

#[test]
fn a_lease_that_ran_out_during_the_proof_is_renewed() {
    let mut lessor = leader(UNHURRIED);
    lessor.follow(&granted(1, 10, 5), Millis(0));
    assert_eq!(renew(&mut lessor, 1, 9_999, 10_050), Renewal::Renewed { ttl_s: 10 });
    assert_eq!(expired(&mut lessor, 20_049), vec![]);
    assert_eq!(expired(&mut lessor, 20_050), vec![(1, 5)]);
}

#[test]
fn a_failed_removal_is_due_again_at_once_at_the_epoch_of_then() {
    let mut lessor = leader(UNHURRIED);
    lessor.follow(&granted(1, 10, 5), Millis(0));
    assert_eq!(expired(&mut lessor, 10_000), vec![(1, 5)]);
    let checkpointed = Effect::LeaseCheckpointed { id: LeaseId(1), remaining_s: 10, epoch: 8 };
    lessor.follow(&checkpointed, Millis(10_100));
    lessor.follow(&Effect::ExpiryDropped { id: LeaseId(1) }, Millis(10_100));
    lessor.expiry_failed([LeaseId(1)], Millis(10_200));
    assert_eq!(lessor.next_due(), Some(Millis(10_100)));
    assert_eq!(expired(&mut lessor, 10_200), vec![(1, 8)], "once, however often it failed");
}

#[test]
fn a_failure_that_speaks_of_an_earlier_lease_of_the_same_id_means_nothing() {
    let mut lessor = leader(UNHURRIED);
    lessor.follow(&granted(1, 10, 5), Millis(0));
    assert_eq!(expired(&mut lessor, 10_000), vec![(1, 5)]);
    lessor.follow(&gone(1), Millis(10_100));
    lessor.follow(&granted(1, 10, 9), Millis(10_200));
    lessor.follow(&Effect::ExpiryDropped { id: LeaseId(1) }, Millis(10_300));
    lessor.expiry_failed([LeaseId(1)], Millis(10_300));
    assert_eq!(renew(&mut lessor, 1, 10_400, 10_400), Renewal::Renewed { ttl_s: 10 });
    assert_eq!(expired(&mut lessor, 20_399), vec![]);
}

#[test]
fn a_new_leader_starts_each_lease_with_what_is_remembered_and_the_extension() {
    let mut lessor = Lessor::new(UNHURRIED);
    let leases = [(1, 10, 0), (2, 600, 120), (3, 5, 0)];
    promote(&mut lessor, 4, 50_000, leases);
    assert_eq!(lessor.ids_by_deadline(), Some(vec![LeaseId(3), LeaseId(1), LeaseId(2)]));
    let left = |id| lessor.remaining(LeaseId(id), Millis(50_000)).unwrap();
    assert_eq!(left(1), Remaining { granted_s: 10, remaining_s: 11 });
    assert_eq!(left(2), Remaining { granted_s: 600, remaining_s: 121 });
    assert_eq!(left(3), Remaining { granted_s: 5, remaining_s: 6 });
    // A renewal right after the promotion takes nothing back.
    assert_eq!(renew(&mut lessor, 1, 50_000, 50_000), Renewal::Renewed { ttl_s: 10 });
    assert_eq!(expired(&mut lessor, 60_999), vec![(3, 3)]);
}

#[test]
fn after_a_change_of_leader_no_second_holds_more_ends_than_the_pace_allows() {
    let pace = Pace { expiries_per_second: 100, spread_ms_max: 10_000, checkpoint_interval_ms: None };
    // Few enough for the pace, then so many that the bound on the extra time decides.
    for (leases, per_second) in [(950, 100), (5_000, 500)] {
        let mut lessor = Lessor::new(pace);
        promote(&mut lessor, 1, 0, (1..=leases).map(|id| (id, 10 + id % 3, 0)));
        for second in 0..30 {
            let from = second * 1_000;
            let mut due = 0;
            for now in (from..from + 1_000).step_by(100) {
                for (id, _) in expired(&mut lessor, now) {
                    let own = (10 + id as u64 % 3) * 1_000 + EXTENSION_MS;
                    assert!(own <= now && now <= own + pace.spread_ms_max + 100, "lease {id} at {now}");
                    due += 1;
                }
            }
            assert!(due <= per_second, "{due} of {leases} in second {second}");
        }
        assert_eq!(lessor.next_due(), None, "all {leases} were handed out");
    }
}

#[test]
fn leases_are_not_spread_while_the_pace_suffices() {
    let mut lessor = Lessor::new(UNHURRIED);
    promote(&mut lessor, 1, 0, (1..=1_000).map(|id| (id, 10, 0)));
    assert_eq!(expired(&mut lessor, 11_000).len(), 1_000);
}

#[test]
fn twenty_thousand_leases_of_one_ttl_are_handed_out_in_twenty_batches() {
    let mut lessor = leader(UNHURRIED);
    for id in 1..=20_000 {
        lessor.follow(&granted(id, 5, id as u64), Millis(0));
    }
    assert_eq!(expired(&mut lessor, 4_999), vec![]);
    let mut seen = Vec::new();
    for _ in 0..20 {
        assert_eq!(lessor.next_due(), Some(Millis(5_000)));
        let batch = expired(&mut lessor, 5_000);
        assert_eq!(batch.len(), 1_000);
        seen.extend(batch);
    }
    assert_eq!(lessor.next_due(), None);
    seen.sort_unstable();
    assert_eq!(seen, (1..=20_000).map(|id| (id, id as u64)).collect::<Vec<_>>());
}

#[test]
fn one_call_does_bounded_work_and_then_says_that_more_is_waiting() {
    let mut lessor = leader(UNHURRIED);
    for id in 1..=10_000 {
        lessor.follow(&granted(id, 10, 1), Millis(0));
        renew(&mut lessor, id, 9_000, 9_000);
    }
    lessor.follow(&granted(10_001, 10, 1), Millis(0));
    let mut calls = 0;
    while expired(&mut lessor, 10_000).is_empty() {
        assert_eq!(lessor.next_due(), Some(Millis(10_000)));
        calls += 1;
    }
    assert!(0 < calls && calls < 20, "{calls} calls");
}

#[test]
fn leases_that_are_kept_alive_wake_the_caller_rarely() {
    // 100 leases of 10 s renewed every 3 s for an hour: a caller that sleeps until next_due may look about once per TTL
    // minus the interval, not once per lease or renewal.
    let mut lessor = leader(UNHURRIED);
    for id in 1..=100 {
        lessor.follow(&granted(id, 10, 1), Millis(0));
    }
    let mut wakes = 0;
    let mut due = lessor.next_due().unwrap();
    for now in (0..3_600_000).step_by(30) {
        let id = (now / 30) % 100 + 1;
        assert_eq!(renew(&mut lessor, id as i64, now, now), Renewal::Renewed { ttl_s: 10 });
        if due <= Millis(now) {
            assert_eq!(expired(&mut lessor, now), vec![]);
            due = lessor.next_due().unwrap();
            wakes += 1;
        }
    }
    assert!(wakes <= 3_600 / 6, "{wakes} wakes");
}

#[test]
fn remaining_time_is_rounded_down_and_never_negative() {
    let mut lessor = leader(UNHURRIED);
    lessor.follow(&granted(1, 10, 5), Millis(0));
    let left = |now| lessor.remaining(LeaseId(1), Millis(now)).unwrap().remaining_s;
    assert_eq!((left(0), left(1), left(9_000), left(9_001), left(20_000)), (10, 9, 1, 0, 0));
}

#[test]
fn leases_are_listed_by_their_end() {
    let mut lessor = leader(UNHURRIED);
    for (id, ttl_s) in [(1, 30), (-2, 10), (3, 20), (4, 10)] {
        lessor.follow(&granted(id, ttl_s, 1), Millis(0));
    }
    renew(&mut lessor, 4, 5_000, 5_000);
    let order = lessor.ids_by_deadline().unwrap();
    assert_eq!(order, [-2, 4, 3, 1].map(LeaseId));
}

#[test]
fn a_long_lease_that_is_not_renewed_is_checkpointed_each_interval() {
    let mut lessor = leader(CHECKPOINTING);
    lessor.follow(&granted(1, 900, 5), Millis(0));
    assert_eq!(lessor.next_due(), Some(Millis(300_000)));
    assert_eq!(lessor.checkpoints_due(Millis(299_999), 10), vec![]);

    let first = Checkpoint { id: LeaseId(1), epoch: 5, remaining_s: 600 };
    assert_eq!(lessor.checkpoints_due(Millis(300_001), 10), vec![first], "rounded up");
    assert_eq!(lessor.checkpoints_due(Millis(300_001), 10), vec![]);
    lessor.follow(&Effect::LeaseCheckpointed { id: LeaseId(1), remaining_s: 600, epoch: 7 }, Millis(300_010));

    let second = Checkpoint { id: LeaseId(1), epoch: 7, remaining_s: 300 };
    assert_eq!(lessor.checkpoints_due(Millis(600_001), 10), vec![second]);
    let third = Checkpoint { id: LeaseId(1), epoch: 7, remaining_s: 150 };
    assert_eq!(lessor.checkpoints_due(Millis(750_001), 10), vec![third], "half of what was left has passed");
    assert_eq!(
        lessor.checkpoints_due(Millis(899_999), 10),
        vec![],
        "too little is left to be worth an entry"
    );
}

#[test]
fn a_lease_that_is_renewed_within_the_interval_needs_no_checkpoint() {
    let mut lessor = leader(CHECKPOINTING);
    lessor.follow(&granted(1, 900, 5), Millis(0));
    for now in (0..3_600_000).step_by(200_000) {
        assert_eq!(renew(&mut lessor, 1, now, now), Renewal::Renewed { ttl_s: 900 });
        assert_eq!(lessor.checkpoints_due(Millis(now + 150_000), 10), vec![]);
    }
}

#[test]
fn checkpoints_come_in_batches() {
    let mut lessor = leader(CHECKPOINTING);
    for id in 1..=25 {
        lessor.follow(&granted(id, 900, 5), Millis(0));
    }
    let sizes = [(); 4].map(|()| lessor.checkpoints_due(Millis(300_000), 10).len());
    assert_eq!(sizes, [10, 10, 5, 0]);
}

#[test]
fn a_renewal_after_a_checkpoint_waits_until_the_log_has_forgotten_it() {
    // Otherwise the next leader would start from the checkpoint and end the lease before what the client was told.
    let mut lessor = leader(CHECKPOINTING);
    lessor.follow(&granted(1, 900, 5), Millis(0));
    assert_eq!(lessor.checkpoints_due(Millis(300_000), 10).len(), 1);
    // Handed out is enough: it may be in the log already.
    assert_eq!(renew(&mut lessor, 1, 300_100, 300_200), Renewal::ForgetCheckpoint { epoch: 5, ttl_s: 900 });
    lessor.follow(&Effect::LeaseCheckpointed { id: LeaseId(1), remaining_s: 600, epoch: 7 }, Millis(300_300));
    assert_eq!(renew(&mut lessor, 1, 300_100, 300_300), Renewal::ForgetCheckpoint { epoch: 7, ttl_s: 900 });
    lessor.follow(&Effect::LeaseCheckpointed { id: LeaseId(1), remaining_s: 900, epoch: 8 }, Millis(300_400));
    assert_eq!(renew(&mut lessor, 1, 300_100, 300_400), Renewal::Renewed { ttl_s: 900 });
    assert_eq!(lessor.remaining(LeaseId(1), Millis(300_400)).unwrap().remaining_s, 900);
}

#[test]
fn a_new_leader_makes_the_log_forget_what_it_started_from_before_it_renews() {
    let mut lessor = Lessor::new(CHECKPOINTING);
    promote(&mut lessor, 2, 0, [(1, 900, 100)]);
    assert_eq!(renew(&mut lessor, 1, 10, 20), Renewal::ForgetCheckpoint { epoch: 1, ttl_s: 900 });
}

/// Until when another member says that these leases last, by the clock of who asked.
fn said(lasting: &[(i64, u64)]) -> Vec<(LeaseId, Millis)> {
    lasting.iter().map(|(id, until)| (LeaseId(*id), Millis(*until))).collect()
}

/// Leases are looked at two at a time.
fn recall(lessor: &mut Lessor, term: u64, others: Vec<Vec<(LeaseId, Millis)>>, majority: usize, now: u64) {
    let (said, mut after) = (Recollection { others, majority }, None);
    loop {
        after = lessor.recall(term, &said, after, 2, Millis(now));
        if after.is_none() {
            return;
        }
    }
}

fn left(lessor: &Lessor, id: i64, now: u64) -> i64 {
    lessor.remaining(LeaseId(id), Millis(now)).unwrap().remaining_s
}

#[test]
fn a_new_leader_counts_from_the_latest_that_a_majority_knows() {
    for (others, majority, expected) in [
        (vec![said(&[(1, 70_000)])], 2, 80),
        (vec![said(&[(1, 99_000)])], 2, 99),
        // Of five, any three: the best of them.
        (vec![said(&[(1, 90_000)]), said(&[(1, 70_000)])], 3, 90),
        (vec![said(&[(1, 90_000)]), said(&[(1, 70_000)]), said(&[(1, 60_000)])], 3, 80),
        // Too few know of it: it may have been renewed a moment ago.
        (vec![said(&[(2, 70_000)])], 2, 150),
        (vec![], 1, 80),
    ] {
        let mut lessor = Lessor::new(UNHURRIED);
        lessor.follow(&granted(1, 60, 1), Millis(20_000));
        lessor.promote(
            2,
            1,
            Millis(90_000),
            [(LeaseId(1), &Lease { ttl_s: 60, epoch: 1, remaining_s: 0, keys: BTreeSet::new() })],
            0,
        );
        assert_eq!((left(&lessor, 1, 0), lessor.has_recalled()), (150, false));
        recall(&mut lessor, 2, others.clone(), majority, 90_000);
        // Never less than the moment in which it came to lead.
        assert_eq!((left(&lessor, 1, 0), lessor.has_recalled()), (expected.max(90), true), "{others:?}");
    }
}

#[test]
fn what_is_asked_for_before_the_members_answer_keeps_its_whole_time() {
    let mut lessor = Lessor::new(UNHURRIED);
    (1..=4).for_each(|id| lessor.follow(&granted(id, 60, id as u64), Millis(0)));
    promote(&mut lessor, 2, 30_000, [(1, 60, 0), (2, 60, 0), (3, 60, 0)]);
    // Members are being told that it is renewed; whether the client hears of it is not known yet.
    lessor.told([LeaseId(1)], Millis(31_000));
    lessor.follow(&granted(2, 60, 9), Millis(31_000));
    recall(&mut lessor, 2, vec![], 1, 32_000);
    assert_eq!([1, 2, 3].map(|id| left(&lessor, id, 0)), [91, 91, 61]);
    // Once, and only in that term.
    recall(&mut lessor, 2, vec![said(&[(1, 0)])], 1, 32_000);
    recall(&mut lessor, 3, vec![said(&[(1, 0)])], 1, 32_000);
    assert_eq!(left(&lessor, 1, 0), 91);
}

#[test]
fn a_lease_younger_than_what_members_have_applied_is_not_taken_for_an_older_one_of_its_id() {
    let mut lessor = Lessor::new(UNHURRIED);
    lessor.follow(&granted(1, 60, 1), Millis(0));
    // The machine has the younger one already; its effects are still to be followed here.
    let younger = Lease { ttl_s: 60, epoch: 8, remaining_s: 0, keys: BTreeSet::new() };
    lessor.promote(2, 7, Millis(50_000), [(LeaseId(1), &younger)], 0);
    recall(&mut lessor, 2, vec![], 1, 50_000);
    assert_eq!(left(&lessor, 1, 50_000), 60);
}

#[test]
fn a_witness_counts_from_the_last_renewal_and_from_a_checkpoint_if_that_leaves_less() {
    let mut lessor = Lessor::new(CHECKPOINTING);
    let knows = |lessor: &Lessor, now| lessor.recite(None, 10, Millis(now)).first().map(|it| it.left_ms);
    lessor.follow(&granted(1, 60, 1), Millis(0));
    lessor.told([LeaseId(1), LeaseId(2)], Millis(10_000));
    assert_eq!(knows(&lessor, 11_000), Some(59_000));
    let checkpoint = |remaining_s| Effect::LeaseCheckpointed { id: LeaseId(1), remaining_s, epoch: 2 };
    lessor.follow(&checkpoint(59), Millis(20_000));
    assert_eq!(knows(&lessor, 20_000), Some(50_000), "it knew more");
    lessor.follow(&checkpoint(20), Millis(20_000));
    assert_eq!(knows(&lessor, 21_000), Some(19_000));
    lessor.follow(&checkpoint(60), Millis(30_000));
    assert_eq!(knows(&lessor, 30_000), Some(60_000), "forgotten, since it is being renewed");
    assert_eq!(knows(&lessor, 100_000), Some(0));
    lessor.follow(&gone(1), Millis(100_000));
    assert_eq!(knows(&lessor, 100_000), None);
}

#[test]
fn a_lesson_counts_for_the_beginning_it_was_made_for_and_takes_back_no_renewal_told_after_it() {
    let mut lessor = Lessor::new(UNHURRIED);
    let lease = Lease { ttl_s: 60, epoch: 1, remaining_s: 0, keys: BTreeSet::new() };
    let later = Lease { remaining_s: 20, ..lease.clone() };
    lessor.restored(Millis(1_000), [(LeaseId(1), &lease), (LeaseId(2), &later)]);
    let knows = |lessor: &Lessor| -> Vec<u64> {
        lessor.recite(None, 10, Millis(1_000)).iter().map(|it| it.left_ms).collect()
    };
    assert_eq!(knows(&lessor), [60_000, 20_000], "what the log remembers");
    let Standing { resets, complete } = lessor.standing();
    assert!(!complete);
    let lesson = |left_ms| [1, 2, 3].map(|id| Lasting { id: LeaseId(id), left_ms });
    lessor.learn(resets - 1, 9, &lesson(1), true, Millis(1_000));
    assert_eq!((knows(&lessor), lessor.standing().complete), (vec![60_000, 20_000], false));
    lessor.learn(resets, 9, &lesson(30_000), false, Millis(1_000));
    assert_eq!((knows(&lessor), lessor.standing().complete), (vec![30_000, 20_000], false));
    lessor.told([LeaseId(1)], Millis(1_000));
    lessor.learn(resets, 9, &[], true, Millis(1_000));
    assert_eq!((knows(&lessor), lessor.standing().complete), (vec![60_000, 20_000], true));
    // A leader that is behind may mean an older lease of the same id.
    lessor.follow(&granted(1, 60, 10), Millis(1_000));
    lessor.learn(resets, 9, &lesson(1), true, Millis(1_000));
    assert_eq!(knows(&lessor), [60_000, 1]);
    // A member moved; then others vote, and it may be that none of them was told.
    lessor.follow(&Effect::MembersChanged { voters: false }, Millis(1_000));
    assert_eq!(knows(&lessor), [60_000, 1]);
    lessor.follow(&Effect::MembersChanged { voters: true }, Millis(1_000));
    assert_eq!(knows(&lessor), [60_000, 60_000]);
    assert_eq!(lessor.standing(), Standing { resets: resets + 1, complete: false });
}

#[test]
fn a_leader_teaches_what_it_owes_and_not_what_it_gave_on_top_and_only_once_it_has_asked() {
    let mut lessor = Lessor::new(UNHURRIED);
    (1..=3).for_each(|id| lessor.follow(&granted(id, 60, id as u64), Millis(0)));
    promote(&mut lessor, 2, 30_000, [(1, 60, 0), (2, 60, 0), (3, 60, 0)]);
    assert_eq!(lessor.lesson(None, 10, Millis(30_000)), None);
    recall(&mut lessor, 2, vec![], 1, 30_000);
    // Being renewed, renewed, left alone.
    lessor.told([LeaseId(1), LeaseId(2)], Millis(40_000));
    assert_eq!(renew(&mut lessor, 2, 40_000, 41_000), Renewal::Renewed { ttl_s: 60 });
    let lesson = |after: Option<i64>, most| -> Vec<(i64, u64)> {
        let lesson = lessor.lesson(after.map(LeaseId), most, Millis(50_000)).unwrap();
        lesson.iter().map(|it| (it.id.0, it.left_ms)).collect()
    };
    assert_eq!(lesson(None, 2), [(1, 50_000), (2, 51_000)]);
    assert_eq!(lesson(Some(2), 2), [(3, 10_000)]);
}

#[test]
fn what_is_recalled_is_written_to_the_log_only_once_its_holder_had_time_to_come() {
    let mut lessor = Lessor::new(CHECKPOINTING);
    lessor.follow(&granted(1, 60, 1), Millis(0));
    promote(&mut lessor, 2, 40_000, [(1, 60, 0)]);
    recall(&mut lessor, 2, vec![], 1, 40_000);
    assert_eq!(lessor.checkpoints_due(Millis(40_999), 10), vec![]);
    let checkpoint = Checkpoint { id: LeaseId(1), epoch: 1, remaining_s: 19 };
    assert_eq!(lessor.checkpoints_due(Millis(41_000), 10), vec![checkpoint]);
}

#[test]
fn the_longest_ttl_there_is_overflows_nothing() {
    let mut lessor = leader(CHECKPOINTING);
    lessor.follow(&granted(1, i64::MAX, 5), Millis(u64::MAX / 2));
    lessor.follow(&granted(2, -1, 5), Millis(0));
    assert_eq!(renew(&mut lessor, 1, 0, u64::MAX), Renewal::Renewed { ttl_s: i64::MAX });
    assert_eq!(expired(&mut lessor, 0), vec![(2, 5)]);
}
