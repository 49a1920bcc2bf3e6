//! Random commands. `well_formed` are such as clients send, over so few keys, leases and revisions that they meet;
//! `hostile` are such as only an enemy sends: anything that the messages can hold.

use bytes::Bytes;
use proptest::prelude::*;
use tenure_proto::etcdserverpb::compare::TargetUnion;
use tenure_proto::etcdserverpb::request_op::Request;
use tenure_proto::etcdserverpb::{
    AlarmRequest, CompactionRequest, Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp,
    TxnRequest,
};
use tenure_proto::internal::command::Wish;
use tenure_proto::internal::{
    Command, ExpiredLease, LeaseCheckpoint, LeaseExpire, LeaseGrant, LeaseRemaining, LeaseRevoke,
    MemberPublish,
};

/// What the values of a command are drawn from.
#[derive(Clone)]
struct Palette {
    key: BoxedStrategy<Bytes>,
    value: BoxedStrategy<Bytes>,
    revision: BoxedStrategy<i64>,
    limit: BoxedStrategy<i64>,
    lease: BoxedStrategy<i64>,
    ttl: BoxedStrategy<i64>,
    index: BoxedStrategy<u64>,
    choice: BoxedStrategy<i32>,
    /// Whether an operation may say nothing.
    silent: bool,
}

pub fn well_formed() -> impl Strategy<Value = Command> {
    command(Palette {
        key: words(&["a", "ab", "b", "c", "d"]),
        value: words(&["", "x", "y", "z"]),
        revision: prop_oneof![3 => Just(0), 4 => 1..40i64, 1 => -1..1i64].boxed(),
        limit: prop_oneof![2 => Just(0), 1 => 1..4i64].boxed(),
        lease: prop_oneof![3 => Just(0), 2 => 1..4i64].boxed(),
        ttl: (1..5i64).boxed(),
        index: (0..60u64).boxed(),
        choice: (0..5i32).boxed(),
        silent: false,
    })
}

pub fn hostile() -> impl Strategy<Value = Command> {
    let number = || {
        let extreme = prop::sample::select(vec![i64::MIN, i64::MIN + 1, -1, 0, 1, i64::MAX - 1, i64::MAX]);
        prop_oneof![2 => 0..20i64, 2 => extreme, 1 => any::<i64>()].boxed()
    };
    let bytes = || {
        let few = words(&["", "a", "b", "\0", "\0\0", "c"]);
        prop_oneof![3 => few, 1 => prop::collection::vec(any::<u8>(), 0..6).prop_map(Bytes::from)].boxed()
    };
    command(Palette {
        key: bytes(),
        value: bytes(),
        revision: number(),
        limit: number(),
        lease: number(),
        ttl: number(),
        index: prop_oneof![0..20u64, Just(u64::MAX), any::<u64>()].boxed(),
        choice: prop_oneof![4 => 0..6i32, 1 => any::<i32>()].boxed(),
        silent: true,
    })
}

fn command(palette: Palette) -> impl Strategy<Value = Command> {
    let silence = if palette.silent { 1 } else { 0 };
    let guards = prop_oneof![
        9 => Just(Vec::new()),
        1 => prop::collection::vec(compare(&palette), 1..3),
    ];
    let wish = prop_oneof![20 => wish(&palette).prop_map(Some), silence => Just(None)];
    (guards, wish).prop_map(|(guards, wish)| Command { author: None, guards, wish })
}

fn wish(palette: &Palette) -> impl Strategy<Value = Wish> + use<> {
    let Palette { lease, ttl, index, choice, revision, .. } = palette.clone();
    let expired = (lease.clone(), index.clone()).prop_map(|(id, epoch)| ExpiredLease { id, epoch });
    let remaining = (lease.clone(), index.clone(), ttl.clone())
        .prop_map(|(id, epoch, remaining_ttl)| LeaseRemaining { id, epoch, remaining_ttl });
    prop_oneof![
        30 => put(palette).prop_map(Wish::Put),
        10 => delete(palette).prop_map(Wish::DeleteRange),
        20 => txn(palette).prop_map(Wish::Txn),
        6 => (revision, any::<bool>())
            .prop_map(|(revision, physical)| Wish::Compact(CompactionRequest { revision, physical })),
        8 => (lease.clone(), ttl).prop_map(|(id, ttl)| Wish::LeaseGrant(LeaseGrant { id, ttl })),
        4 => lease.prop_map(|id| Wish::LeaseRevoke(LeaseRevoke { id })),
        4 => (1..4u64, prop::collection::vec(expired, 0..4))
            .prop_map(|(term, leases)| Wish::LeaseExpire(LeaseExpire { term, leases })),
        3 => (1..4u64, prop::collection::vec(remaining, 0..4))
            .prop_map(|(term, leases)| Wish::LeaseCheckpoint(LeaseCheckpoint { term, leases })),
        1 => (choice.clone(), index.clone(), choice)
            .prop_map(|(action, member_id, alarm)| Wish::Alarm(AlarmRequest { action, member_id, alarm })),
        1 => index.prop_map(|id| Wish::MemberPublish(MemberPublish { id, ..Default::default() })),
    ]
}

fn put(palette: &Palette) -> impl Strategy<Value = PutRequest> + use<> {
    let Palette { key, value, lease, .. } = palette.clone();
    let seldom = || prop::bool::weighted(0.2);
    (key, value, lease, any::<bool>(), seldom(), seldom()).prop_map(
        |(key, value, lease, prev_kv, ignore_value, ignore_lease)| PutRequest {
            key,
            value,
            lease,
            prev_kv,
            ignore_value,
            ignore_lease,
        },
    )
}

/// One key mostly; else up to another, to the end, or the other way round.
fn interval(palette: &Palette) -> impl Strategy<Value = (Bytes, Bytes)> + use<> {
    let key = palette.key.clone();
    let end =
        prop_oneof![4 => Just(Bytes::new()), 1 => Just(Bytes::from_static(&[0])), 3 => key.clone()].boxed();
    (key, end)
}

fn delete(palette: &Palette) -> impl Strategy<Value = DeleteRangeRequest> + use<> {
    (interval(palette), any::<bool>()).prop_map(|((key, range_end), prev_kv)| DeleteRangeRequest {
        key,
        range_end,
        prev_kv,
    })
}

fn range(palette: &Palette) -> impl Strategy<Value = RangeRequest> + use<> {
    let Palette { revision, limit, choice, .. } = palette.clone();
    let filter = || prop_oneof![5 => Just(0), 1 => revision.clone()];
    (
        interval(palette),
        (revision.clone(), limit, choice.clone(), choice),
        (prop::bool::weighted(0.2), prop::bool::weighted(0.2)),
        (filter(), filter(), filter(), filter()),
    )
        .prop_map(
            |((key, range_end), (revision, limit, order, target), (keys_only, count_only), filters)| {
                RangeRequest {
                    key,
                    range_end,
                    revision,
                    limit,
                    sort_order: order,
                    sort_target: target,
                    keys_only,
                    count_only,
                    min_mod_revision: filters.0,
                    max_mod_revision: filters.1,
                    min_create_revision: filters.2,
                    max_create_revision: filters.3,
                    serializable: false,
                }
            },
        )
}

/// Txns of nothing but puts and deletions, for the rule on duplicates.
pub fn writing_txns() -> impl Strategy<Value = TxnRequest> {
    let key = || prop::sample::select("abcdefgh".as_bytes()).prop_map(|byte| Bytes::copy_from_slice(&[byte]));
    let end = prop_oneof![2 => Just(Bytes::new()), 1 => Just(Bytes::from_static(&[0])), 4 => key()];
    let operation = prop_oneof![
        key().prop_map(|key| Request::RequestPut(PutRequest { key, ..Default::default() })),
        (key(), end).prop_map(|(key, range_end)| {
            Request::RequestDeleteRange(DeleteRangeRequest { key, range_end, prev_kv: false })
        }),
    ];
    let nest = |op: BoxedStrategy<Request>| {
        let branch =
            prop::collection::vec(op.prop_map(|request| RequestOp { request: Some(request) }), 0..4).boxed();
        (branch.clone(), branch).prop_map(|(success, failure)| TxnRequest {
            success,
            failure,
            ..Default::default()
        })
    };
    let nested = operation.prop_recursive(2, 12, 3, move |op| nest(op).prop_map(Request::RequestTxn));
    nest(nested.boxed())
}

/// Reads, for a state that random commands made.
pub fn ranges() -> impl Strategy<Value = RangeRequest> {
    range(&Palette {
        key: words(&["a", "ab", "b", "c", "d"]),
        value: words(&["", "x", "y", "z"]),
        revision: prop_oneof![1 => Just(0), 2 => 1..40i64].boxed(),
        limit: prop_oneof![2 => Just(0), 1 => 1..4i64].boxed(),
        lease: Just(0).boxed(),
        ttl: Just(0).boxed(),
        index: Just(0).boxed(),
        choice: (0..5i32).boxed(),
        silent: false,
    })
}

fn compare(palette: &Palette) -> impl Strategy<Value = Compare> + use<> {
    let Palette { value, revision, lease, choice, .. } = palette.clone();
    let operand = prop_oneof![
        revision.clone().prop_map(TargetUnion::Version),
        revision.clone().prop_map(TargetUnion::CreateRevision),
        revision.prop_map(TargetUnion::ModRevision),
        value.prop_map(TargetUnion::Value),
        lease.prop_map(TargetUnion::Lease),
    ];
    (interval(palette), choice.clone(), choice, prop::option::weighted(0.9, operand)).prop_map(
        |((key, range_end), target, result, target_union)| Compare {
            key,
            range_end,
            target,
            result,
            target_union,
        },
    )
}

fn txn(palette: &Palette) -> impl Strategy<Value = TxnRequest> + use<> {
    let silence = if palette.silent { 1 } else { 0 };
    let operation = prop_oneof![
        6 => put(palette).prop_map(Request::RequestPut),
        3 => delete(palette).prop_map(Request::RequestDeleteRange),
        4 => range(palette).prop_map(Request::RequestRange),
    ];
    let leaf = prop_oneof![12 => operation.prop_map(Some), silence => Just(None)];
    let compare = compare(palette).boxed();
    let branch = move |op: BoxedStrategy<Option<Request>>| {
        prop::collection::vec(op.prop_map(|request| RequestOp { request }), 0..5)
    };
    let nest = move |op: BoxedStrategy<Option<Request>>| {
        (prop::collection::vec(compare.clone(), 0..2), branch(op.clone()), branch(op))
            .prop_map(|(compare, success, failure)| TxnRequest { compare, success, failure })
    };
    let nested = leaf.prop_recursive(3, 24, 4, {
        let nest = nest.clone();
        move |inner| nest(inner).prop_map(|txn| Some(Request::RequestTxn(txn)))
    });
    nest(nested.boxed())
}

fn words(words: &'static [&'static str]) -> BoxedStrategy<Bytes> {
    prop::sample::select(words).prop_map(|word| Bytes::from_static(word.as_bytes())).boxed()
}
