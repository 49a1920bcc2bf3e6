//! Sessions, guards and the reserved keys, on a whole server: what holds of the recipe in memory holds over the wire, and no client
//! writes what is not his.

#![allow(clippy::unwrap_used)]

mod harness;

use harness::{Cluster, NEW, Program, Server};
use tenure_grpc::etcdserverpb::kv_client::KvClient;
use tenure_grpc::etcdserverpb::lease_client::LeaseClient;
use tenure_grpc::tenure_v1::elections_client::ElectionsClient;
use tenure_grpc::tenure_v1::locks_client::LocksClient;
use tenure_grpc::tenure_v1::sessions_client::SessionsClient;
use tenure_proto::etcdserverpb::request_op::Request as Operation;
use tenure_proto::etcdserverpb::response_op::Response as Outcome;
use tenure_proto::etcdserverpb::{
    DeleteRangeRequest, LeaseRevokeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
};
use tenure_proto::tenure::v1::{election_term::End, ended::How, *};
use tenure_recipes::guard;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt;

const BOUND: std::time::Duration = std::time::Duration::from_secs(60);

struct Client {
    kv: KvClient<Channel>,
    lease: LeaseClient<Channel>,
    sessions: SessionsClient<Channel>,
}

impl Client {
    async fn connect(server: &Server) -> Client {
        let channel = Channel::from_shared(server.endpoint()).unwrap().connect().await.unwrap();
        Client {
            kv: KvClient::new(channel.clone()),
            lease: LeaseClient::new(channel.clone()),
            sessions: SessionsClient::new(channel),
        }
    }

    async fn open(&mut self, client_key: &str) -> Session {
        let request = OpenSessionRequest {
            ttl: 60,
            labels: [("host".to_owned(), "batch-3".to_owned())].into(),
            client_key: client_key.to_owned(),
        };
        self.sessions.open(request).await.unwrap().into_inner().session.unwrap()
    }

    async fn beat(&mut self, sessions: Vec<i64>) -> Vec<Beat> {
        self.sessions.beat(BeatRequest { sessions }).await.unwrap().into_inner().beats
    }

    async fn get(&mut self, session: i64) -> GetSessionResponse {
        self.sessions.get(GetSessionRequest { session }).await.unwrap().into_inner()
    }

    /// The revision that the put made.
    async fn put(&mut self, key: &'static str, lease: i64) -> i64 {
        let request = PutRequest { key: key.into(), lease, ..PutRequest::default() };
        self.kv.put(request).await.unwrap().into_inner().header.unwrap().revision
    }

    async fn keys(&mut self, key: &'static str, range_end: &'static str) -> Vec<String> {
        let request =
            RangeRequest { key: key.into(), range_end: range_end.into(), ..RangeRequest::default() };
        let kvs = self.kv.range(request).await.unwrap().into_inner().kvs;
        kvs.iter().map(|kv| String::from_utf8_lossy(&kv.key).into_owned()).collect()
    }
}

fn put(key: &'static str) -> PutRequest {
    PutRequest { key: key.into(), value: "v".into(), ..PutRequest::default() }
}

fn delete(key: &'static str, range_end: &'static str) -> DeleteRangeRequest {
    DeleteRangeRequest { key: key.into(), range_end: range_end.into(), prev_kv: true }
}

fn op(operation: Operation) -> RequestOp {
    RequestOp { request: Some(operation) }
}

/// With metadata `tenure-guard`.
fn guarded<T>(message: T, guards: &str) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().append("tenure-guard", guards.parse().unwrap());
    request
}

#[track_caller]
fn because(status: &Status) -> (Code, String) {
    let details = status.get_error_details();
    (status.code(), details.error_info().unwrap_or_else(|| panic!("{status:?}")).reason.clone())
}

#[tokio::test]
async fn a_session_is_opened_kept_looked_at_and_closed() {
    let server = Server::start();
    let mut client = Client::connect(&server).await;
    let session = client.open("key").await;
    assert_eq!((session.ttl, &*session.labels["host"]), (60, "batch-3"));
    assert_eq!(client.open("key").await, session);
    let raw = client.open("").await.id;
    client.put("mine", session.id).await;

    let found = client.get(session.id).await;
    assert_eq!(found.session.as_ref(), Some(&session));
    assert!((1..=60).contains(&found.remaining));
    assert_eq!(found.belongings.iter().map(|it| &it.key[..]).collect::<Vec<_>>(), [b"mine"]);

    let list = client.sessions.list(ListSessionsRequest { limit: 1, after: 0 }).await.unwrap().into_inner();
    let first = list.sessions[0].id;
    assert_eq!((list.sessions.len(), list.next), (1, first));
    let rest =
        client.sessions.list(ListSessionsRequest { limit: 0, after: first }).await.unwrap().into_inner();
    assert_eq!(rest.sessions.len() + 1, 2);
    assert!([session.id, raw].contains(&first) && [session.id, raw].contains(&rest.sessions[0].id));

    let beats = client.beat(vec![session.id, 5, raw]).await;
    assert_eq!(
        beats.iter().map(|beat| (beat.session, beat.ttl)).collect::<Vec<_>>(),
        [(session.id, 60), (5, 0), (raw, 60)]
    );
    let close = CloseSessionRequest { session: session.id };
    assert!(client.sessions.close(close).await.unwrap().into_inner().closed);
    assert!(!client.sessions.close(close).await.unwrap().into_inner().closed);
    assert!(client.keys("mine", "").await.is_empty());
    let gone = client.get(session.id).await;
    assert_eq!((gone.session, gone.ended.unwrap().how()), (None, How::Closed));
}

#[tokio::test]
async fn whoever_beats_for_a_session_that_was_killed_is_told_the_reason() {
    let server = Server::start();
    let mut client = Client::connect(&server).await;
    let (killed, revoked) = (client.open("").await.id, client.open("").await.id);
    let kill = KillSessionRequest { session: killed, reason: "host is dead".into(), by: "ops".into() };
    assert!(client.sessions.kill(kill).await.unwrap().into_inner().killed);
    client.lease.lease_revoke(LeaseRevokeRequest { id: revoked }).await.unwrap();
    let beats = client.beat(vec![killed, revoked]).await;
    let (first, second) = (beats[0].ended.clone().unwrap(), beats[1].ended.clone().unwrap());
    assert_eq!(
        (beats[0].ttl, first.how(), &*first.reason, &*first.by),
        (0, How::Killed, "host is dead", "ops")
    );
    assert_eq!((beats[1].ttl, second.how()), (0, How::Expired));
}

/// The whole way of a kill: who follows the lock is told why he lost it, what he writes under it is refused from then on, and whoever
/// waits comes next though he has no call open.
#[tokio::test]
async fn a_killed_holder_is_told_why_and_the_next_in_line_needs_no_call() {
    let server = Server::start();
    let mut client = Client::connect(&server).await;
    let mut locks = LocksClient::connect(server.endpoint()).await.unwrap();
    let (holder, waiter) = (client.open("").await.id, client.open("").await.id);
    let acquire = |session_id| AcquireLockRequest {
        locks: vec![LockSpec { name: "jobs".into(), ..LockSpec::default() }],
        session_id,
        owner_id: "cron".into(),
        wait_ms: Some(1),
        keep_place: true,
        ..AcquireLockRequest::default()
    };
    let granted = locks.acquire(acquire(holder)).await.unwrap().into_inner();
    let guard = granted.grants[0].guard.clone().unwrap().text;
    let queued = locks.acquire(acquire(waiter)).await.unwrap().into_inner();
    assert_eq!(queued.outcome(), acquire_lock_response::Outcome::Queued);
    let follow = FollowLockRequest { name: "jobs".into(), session_id: holder, owner_id: "cron".into() };
    let mut told = locks.follow(follow).await.unwrap().into_inner();
    client.kv.put(guarded(put("work"), &guard)).await.unwrap();

    let kill = KillSessionRequest { session: holder, reason: "host is dead".into(), by: "ops".into() };
    assert!(client.sessions.kill(kill).await.unwrap().into_inner().killed);
    let ended = loop {
        let event = tokio::time::timeout(BOUND, told.message()).await.unwrap().unwrap().unwrap();
        if let Some(lock_event::Event::Ended(ended)) = event.event {
            break ended;
        }
    };
    assert_eq!((ended.how(), &*ended.reason, &*ended.by), (lock_event::End::Killed, "host is dead", "ops"));
    let refused = client.kv.put(guarded(put("work"), &guard)).await.unwrap_err();
    assert_eq!(because(&refused), (Code::FailedPrecondition, "STALE_TOKEN".into()));

    // Looked at through the keys, which helps nobody on.
    let next = format!("/_tenure/lock/jobs/holder/{waiter:016x}/cron");
    let range = RangeRequest { key: next.clone().into(), ..RangeRequest::default() };
    let token = tokio::time::timeout(BOUND, async {
        loop {
            let found = client.kv.range(range.clone()).await.unwrap().into_inner().kvs;
            if let Some(kv) = found.first() {
                return kv.create_revision;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    });
    let token = token.await.expect("the next in line holds the lock");
    client.kv.put(guarded(put("work"), &guard::text(next.as_bytes(), token))).await.unwrap();
}

/// Otherwise there would be a moment without a leader, though the old one said that he goes.
#[tokio::test]
async fn a_leader_who_closes_his_session_hands_over_in_that_very_revision() {
    let server = Server::start();
    let mut client = Client::connect(&server).await;
    let channel = Channel::from_shared(server.endpoint()).unwrap().connect().await.unwrap();
    let mut elections = ElectionsClient::new(channel);
    let mut sessions = Vec::new();
    for candidate in ["n1", "n2"] {
        sessions.push(client.open("").await.id);
        let request = CampaignRequest {
            name: "db/main".into(),
            session_id: sessions[sessions.len() - 1],
            candidate_id: candidate.into(),
            ..CampaignRequest::default()
        };
        elections.stand(request).await.unwrap();
    }
    let held = client.get(sessions[0]).await.belongings;
    assert!(held.iter().any(|it| (&*it.kind, &*it.name) == ("election", "db/main")), "{held:?}");
    let close = CloseSessionRequest { session: sessions[0] };
    assert!(client.sessions.close(close).await.unwrap().into_inner().closed);
    let history = ElectionHistoryRequest { name: "db/main".into(), before_epoch: 0, limit: 10 };
    let terms = elections.history(history).await.unwrap().into_inner().terms;
    let (second, first) = (&terms[0], &terms[1]);
    assert_eq!((first.epoch, first.end()), (1, End::Closed));
    assert_eq!((second.epoch, second.token), (2, first.end_revision));
    assert_eq!(second.leader.as_ref().unwrap().id, "n2");
}

/// Any member serves a session, and a stream of beats answers each message.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_are_the_clusters_whichever_member_is_asked() {
    let cluster = Cluster::start(3);
    let mut clients = Vec::new();
    for server in &cluster.members {
        clients.push(Client::connect(server).await);
    }
    let session = clients[0].open("key").await;
    assert_eq!(clients[1].open("key").await, session);
    let (tell, told) = tokio::sync::mpsc::channel(4);
    let beats = tokio_stream::wrappers::ReceiverStream::new(told);
    let mut answers = clients[2].sessions.keep_alive(beats).await.unwrap().into_inner();
    for _ in 0..3 {
        tell.send(BeatRequest { sessions: vec![session.id] }).await.unwrap();
        let answer = tokio::time::timeout(BOUND, answers.message()).await.unwrap().unwrap().unwrap();
        assert_eq!((answer.beats[0].session, answer.beats[0].ttl), (session.id, 60));
    }
    let close = CloseSessionRequest { session: session.id };
    assert!(clients[1].sessions.close(close).await.unwrap().into_inner().closed);
    tell.send(BeatRequest { sessions: vec![session.id] }).await.unwrap();
    let answer = tokio::time::timeout(BOUND, answers.message()).await.unwrap().unwrap().unwrap();
    assert_eq!((answer.beats[0].ttl, answer.beats[0].ended.as_ref().unwrap().how()), (0, How::Closed));
    drop(tell);
    assert!(tokio::time::timeout(BOUND, answers.message()).await.unwrap().unwrap().is_none());
}

#[tokio::test]
async fn what_is_asked_wrongly_is_refused_with_a_reason() {
    let server = Server::start();
    let mut client = Client::connect(&server).await;
    let open = OpenSessionRequest { ttl: 0, ..OpenSessionRequest::default() };
    let refused = client.sessions.open(open).await.unwrap_err();
    assert_eq!(because(&refused), (Code::InvalidArgument, "TTL_OUT_OF_RANGE".into()));
    let refused = client.sessions.beat(BeatRequest { sessions: vec![1; 10_001] }).await.unwrap_err();
    assert_eq!(because(&refused), (Code::InvalidArgument, "INVALID".into()));
}

#[tokio::test]
async fn a_guard_that_does_not_hold_stops_the_whole_request() {
    let server = Server::start();
    let mut client = Client::connect(&server).await;
    let token = client.put("holder", 0).await;
    let (good, stale) = (guard::text(b"holder", token), guard::text(b"holder", token - 1));
    let stale_token = (Code::FailedPrecondition, "STALE_TOKEN".to_owned());

    client.kv.put(guarded(put("a"), &good)).await.unwrap();
    for guards in [stale.clone(), format!("{good},{stale}"), guard::text(b"nobody", 5)] {
        let refused = client.kv.put(guarded(put("b"), &guards)).await.unwrap_err();
        assert_eq!(because(&refused), stale_token, "{guards}");
    }
    let mut twice = guarded(put("b"), &good);
    twice.metadata_mut().append("tenure-guard", stale.parse().unwrap());
    assert_eq!(because(&client.kv.put(twice).await.unwrap_err()), stale_token);
    let refused = client.kv.delete_range(guarded(delete("a", ""), &stale)).await.unwrap_err();
    assert_eq!(because(&refused), stale_token);
    // Its compares do not hold, but its other branch is not run for that.
    let txn = TxnRequest {
        compare: vec![guard::compare(b"a", 1)],
        success: Vec::new(),
        failure: vec![op(Operation::RequestPut(put("b")))],
    };
    let refused = client.kv.txn(guarded(txn.clone(), &stale)).await.unwrap_err();
    assert_eq!(because(&refused), stale_token);
    let read_only = TxnRequest {
        success: vec![op(Operation::RequestRange(RangeRequest { key: "a".into(), ..Default::default() }))],
        ..TxnRequest::default()
    };
    assert_eq!(because(&client.kv.txn(guarded(read_only, &stale)).await.unwrap_err()), stale_token);
    assert_eq!(client.keys("a", "c").await, ["a"], "nothing of it was done");
    client.kv.txn(guarded(txn, &good)).await.unwrap();
    assert_eq!(client.keys("a", "c").await, ["a", "b"]);

    let refused = client.kv.put(guarded(put("c"), "nonsense")).await.unwrap_err();
    assert_eq!(because(&refused), (Code::InvalidArgument, "INVALID".into()));
}

#[tokio::test]
async fn clients_read_the_servers_own_keys_and_write_none() {
    let server = Server::start();
    let mut client = Client::connect(&server).await;
    let session = client.open("key").await;
    let own = client.keys("/_tenure/", "/_tenure0").await;
    assert_eq!(own.len(), 2, "{own:?}");
    let reserved = (Code::PermissionDenied, "RESERVED".to_owned());

    let refused = client.kv.put(put("/_tenure/session/x")).await.unwrap_err();
    assert_eq!(because(&refused), reserved);
    for (key, range_end) in
        [("/_tenure/opened/key", ""), ("/_tenure/", "/_tenure0"), ("/_tenure/a", "/_tenure/z")]
    {
        let refused = client.kv.delete_range(delete(key, range_end)).await.unwrap_err();
        assert_eq!(because(&refused), reserved);
    }
    let nested =
        TxnRequest { failure: vec![op(Operation::RequestPut(put("/_tenure/x")))], ..Default::default() };
    let txn = TxnRequest { success: vec![op(Operation::RequestTxn(nested))], ..Default::default() };
    assert_eq!(because(&client.kv.txn(txn).await.unwrap_err()), reserved);
    let finished = Program::start(
        &NEW.etcdctl(),
        &[&format!("--endpoints={}", server.endpoint()), "put", "/_tenure/x", "y"],
    )
    .finish(BOUND);
    assert!(finished.code() != 0 && finished.stderr.contains("server's own services"), "{}", finished.stderr);

    // Whoever empties his key space leaves them alone, and is told of his own keys only.
    for key in ["/", "/_tenure", "/_tenure0", "z"] {
        client.put(key, 0).await;
    }
    let deleted = client.kv.delete_range(delete("/", "0")).await.unwrap().into_inner();
    assert_eq!((deleted.deleted, deleted.prev_kvs.len()), (3, 3));
    client.put("a", 0).await;
    let txn = TxnRequest {
        success: vec![op(Operation::RequestDeleteRange(delete("\0", "\0")))],
        ..Default::default()
    };
    let answer = client.kv.txn(txn).await.unwrap().into_inner();
    match answer.responses[0].response.as_ref().unwrap() {
        Outcome::ResponseDeleteRange(deleted) => {
            assert_eq!((deleted.deleted, deleted.prev_kvs.len()), (2, 2))
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(client.keys("\0", "\0").await, own);
    assert_eq!(client.beat(vec![session.id]).await[0].ttl, 60);
    // A lease is anybody's to revoke, and its keys go with it.
    client.lease.lease_revoke(LeaseRevokeRequest { id: session.id }).await.unwrap();
    assert!(client.keys("\0", "\0").await.is_empty());
}
