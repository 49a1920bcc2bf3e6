//! Is our API the one that etcd's clients speak? Our descriptors are compared, fact by fact, with those of
//! packages built by others: the tables in `tests/peer/`, made by the script beside them. A slip in a name,
//! number, type, label, stream flag or path would make some client misread us without any error, so nothing may
//! differ that is not listed here with its reason.
#![allow(clippy::unwrap_used)]

mod facts;

use std::collections::BTreeSet;

use facts::Facts;
use prost_reflect::prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, Value};
use tenure_proto::DESCRIPTORS;
use tenure_proto::etcdserverpb::{Member, MemberAddRequest};

/// The newest API there is: ours must be the same, no less and no more.
const NEWEST: [&str; 2] =
    [include_str!("peer/etcd-3.8.0-alpha.0.txt"), include_str!("peer/grpcio-health-checking-1.85.1.txt")];

/// Clients of older releases, by name: we may know more than they do, but nothing otherwise.
const OLDER: [(&str, &str); 2] = [
    ("etcd3 0.12", include_str!("peer/etcd3-0.12.0.txt")),
    ("aetcd 1.0", include_str!("peer/aetcd-1.0.0.txt")),
];

/// What an older client has otherwise than we do: whose, which fact, and why that harms nobody.
const DELIBERATE: [(&str, &str, &str); 2] = [
    (
        "etcd3 0.12",
        "field etcdserverpb.AuthRoleRevokePermissionRequest.key 2 optional string",
        "etcd made it bytes in 3.4; text and bytes are encoded alike, and every text is legal bytes",
    ),
    (
        "etcd3 0.12",
        "field etcdserverpb.AuthRoleRevokePermissionRequest.range_end 3 optional string",
        "as for key",
    ),
];

/// RPCs that no HTTP path leads to: the streamed range has none in etcd either, health checks are gRPC's own.
const WITHOUT_PATH: [&str; 4] = [
    "etcdserverpb.KV.RangeStream",
    "grpc.health.v1.Health.Check",
    "grpc.health.v1.Health.List",
    "grpc.health.v1.Health.Watch",
];

/// Every path a client may call, without the leading `/v3/`. All are POST and take the whole message as body.
const PATHS: &str = "
    kv/range kv/put kv/deleterange kv/txn kv/compaction watch
    lease/grant lease/revoke lease/keepalive lease/timetolive lease/leases
    kv/lease/revoke kv/lease/timetolive kv/lease/leases
    cluster/member/add cluster/member/remove cluster/member/update cluster/member/list cluster/member/promote
    maintenance/alarm maintenance/status maintenance/defragment maintenance/hash maintenance/hashkv
    maintenance/snapshot maintenance/transfer-leadership maintenance/downgrade
    auth/enable auth/disable auth/status auth/authenticate
    auth/user/add auth/user/get auth/user/list auth/user/delete auth/user/changepw auth/user/grant auth/user/revoke
    auth/role/add auth/role/get auth/role/list auth/role/delete auth/role/grant auth/role/revoke
    lock/lock lock/unlock
    election/campaign election/proclaim election/leader election/observe election/resign
";

fn pool() -> DescriptorPool {
    DescriptorPool::decode(DESCRIPTORS).unwrap()
}

fn newest() -> Facts {
    NEWEST.iter().flat_map(|table| facts::table(table)).collect()
}

#[test]
fn ours_is_the_newest_api_no_less_and_no_more() {
    let (ours, newest) = (facts::ours(&pool()), newest());
    assert_eq!(
        facts::missing(&ours, &newest),
        Vec::<&str>::new(),
        "the newest etcd has these, and we do not"
    );
    assert_eq!(facts::missing(&newest, &ours), Vec::<&str>::new(), "we have these, and no etcd does");
}

#[test]
fn an_older_client_finds_everything_it_knows() {
    let ours = facts::ours(&pool());
    for (client, table) in OLDER {
        let theirs = facts::table(table);
        let excused: Vec<&str> =
            DELIBERATE.iter().filter(|(whose, ..)| *whose == client).map(|(_, fact, _)| *fact).collect();
        assert_eq!(facts::missing(&ours, &theirs), excused, "{client} has these, and we do not");
    }
}

/// Each kind of slip, made in a peer's table, must come out in both directions: the peer's fact as missing from
/// ours, and ours as unknown to the peer.
#[test]
fn a_single_slip_is_seen() {
    let slips = [
        ("message mvccpb.Event", "message mvccpb.Evnt"),
        ("field mvccpb.KeyValue.version 4 optional int64", "field mvccpb.KeyValue.revision 4 optional int64"),
        ("field mvccpb.KeyValue.lease 6 optional int64", "field mvccpb.KeyValue.lease 7 optional int64"),
        ("field mvccpb.KeyValue.value 5 optional bytes", "field mvccpb.KeyValue.value 5 optional string"),
        ("field authpb.User.roles 3 repeated string", "field authpb.User.roles 3 optional string"),
        (
            "field etcdserverpb.Compare.lease 8 optional int64 oneof=target_union",
            "field etcdserverpb.Compare.lease 8 optional int64",
        ),
        (
            "value etcdserverpb.RangeRequest.SortTarget.VERSION 1",
            "value etcdserverpb.RangeRequest.SortTarget.VERSION 3",
        ),
        (
            "rpc etcdserverpb.Watch.Watch stream etcdserverpb.WatchRequest -> stream etcdserverpb.WatchResponse",
            "rpc etcdserverpb.Watch.Watch etcdserverpb.WatchRequest -> stream etcdserverpb.WatchResponse",
        ),
        (
            "http etcdserverpb.Maintenance.MoveLeader post /v3/maintenance/transfer-leadership body=*",
            "http etcdserverpb.Maintenance.MoveLeader post /v3/maintenance/move-leader body=*",
        ),
    ];
    let ours = facts::ours(&pool());
    for (right, wrong) in slips {
        let mut mutated = newest();
        assert!(mutated.remove(right), "the table does not hold {right:?}: the slip would prove nothing");
        assert_eq!(facts::missing(&mutated, &ours), [right]);
        mutated.insert(wrong.to_owned());
        assert_eq!(facts::missing(&ours, &mutated), [wrong]);
    }
}

#[test]
fn every_path_leads_to_one_rpc() {
    let rules = facts::http_rules(&pool());
    let served: Vec<&str> = rules.iter().map(|rule| rule.path.as_str()).collect();
    let wanted: BTreeSet<String> = PATHS.split_whitespace().map(|path| format!("/v3/{path}")).collect();
    assert_eq!(served.len(), wanted.len(), "a path is served twice, or one is not in the list: {served:?}");
    assert_eq!(served.into_iter().map(str::to_owned).collect::<BTreeSet<_>>(), wanted);
    for rule in rules {
        assert_eq!((rule.verb.as_str(), rule.body.as_str()), ("post", "*"), "{}", rule.path);
    }
}

#[test]
fn every_rpc_has_a_path_or_is_known_to_have_none() {
    let pool = pool();
    let with_path: BTreeSet<String> = facts::http_rules(&pool).into_iter().map(|rule| rule.rpc).collect();
    let without: Vec<String> =
        facts::rpcs(&pool).into_iter().filter(|rpc| !with_path.contains(rpc)).collect();
    assert_eq!(without, WITHOUT_PATH);
}

/// `peerURLs` and its like are renamed on the way to Rust; what they are on the wire must not notice.
#[test]
fn fields_renamed_for_rust_are_the_same_on_the_wire() {
    let pool = pool();
    let urls = |url: &str| Value::List(vec![Value::String(url.to_owned())]);

    let mut member = DynamicMessage::new(pool.get_message_by_name("etcdserverpb.Member").unwrap());
    member.set_field_by_name("peerURLs", urls("http://peer"));
    member.set_field_by_name("clientURLs", urls("http://client"));
    let read = Member::decode(member.encode_to_vec().as_slice()).unwrap();
    assert_eq!(
        (read.peer_urls, read.client_urls),
        (vec!["http://peer".into()], vec!["http://client".into()])
    );

    let written =
        MemberAddRequest { peer_urls: vec!["http://peer".into()], ..Default::default() }.encode_to_vec();
    let request = pool.get_message_by_name("etcdserverpb.MemberAddRequest").unwrap();
    let read = DynamicMessage::decode(request, written.as_slice()).unwrap();
    assert_eq!(read.get_field_by_name("peerURLs").unwrap().into_owned(), urls("http://peer"));
}
