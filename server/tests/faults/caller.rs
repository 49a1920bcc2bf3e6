//! A client's hand: asks one member one thing, and writes down what was asked and what came of it, and when. What it is not
//! sure of, it calls unknown. It does not choose what to ask.

use std::sync::Arc;
use std::time::Duration;

use prost::bytes::Bytes;
use tenure_grpc::etcdserverpb::{kv_client::KvClient, lease_client::LeaseClient};
use tenure_proto::etcdserverpb::{
    Compare, DeleteRangeRequest, LeaseGrantRequest, LeaseKeepAliveRequest, LeaseRevokeRequest,
    LeaseTimeToLiveRequest, PutRequest, RangeRequest, RequestOp, TxnRequest, compare,
    request_op::Request as Part, response_op::Response as PartAnswer,
};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use crate::history::{Action, Answer, Header, Operation, Outcome, Recorder};

const CONNECT_BOUND: Duration = Duration::from_secs(1);
/// More than an election takes, less than an episode.
const ANSWER_BOUND: Duration = Duration::from_secs(4);
/// Before the next try, after one that found nobody.
const PAUSE: Duration = Duration::from_millis(100);

pub struct Caller {
    number: usize,
    member: usize,
    /// Whether it stays with its member, whatever happens to that.
    faithful: bool,
    endpoints: Arc<Vec<String>>,
    recorder: Arc<Recorder>,
    channel: Option<Channel>,
}

impl Caller {
    /// Every second one stays with its member.
    pub fn new(number: usize, endpoints: Arc<Vec<String>>, recorder: Arc<Recorder>) -> Caller {
        let member = number / 2 % endpoints.len();
        Caller { number, member, faithful: number.is_multiple_of(2), endpoints, recorder, channel: None }
    }

    /// What was answered for certain; None if nobody was reached or the outcome is unknown or a refusal.
    pub async fn ask(&mut self, action: Action) -> Option<(Header, Answer)> {
        let channel = self.channel().await?;
        let asked = self.recorder.now();
        let told = tokio::time::timeout(ANSWER_BOUND, perform(channel, &action)).await;
        let answered = self.recorder.now();
        let outcome = match told {
            Ok(Ok((header, answer))) => Outcome::Done(header, answer),
            Ok(Err(status)) if refuses(&status) => Outcome::Refused(status.message().to_owned()),
            Ok(Err(status)) => Outcome::Unknown(status.message().to_owned()),
            Err(_) => Outcome::Unknown("no answer in time".to_owned()),
        };
        let told = match &outcome {
            Outcome::Done(header, answer) => Some((*header, answer.clone())),
            Outcome::Refused(_) => None,
            Outcome::Unknown(_) => {
                self.lost().await;
                None
            }
        };
        let Caller { number: client, member, .. } = *self;
        self.recorder.operation(Operation { client, member, asked, answered, action, outcome });
        told
    }

    async fn channel(&mut self) -> Option<Channel> {
        if self.channel.is_none() {
            self.channel = connect(&self.endpoints[self.member]).await;
            if self.channel.is_none() {
                self.lost().await;
            }
        }
        self.channel.clone()
    }

    /// Begins a new connection, perhaps to the next member.
    async fn lost(&mut self) {
        self.channel = None;
        if !self.faithful {
            self.member = (self.member + 1) % self.endpoints.len();
        }
        tokio::time::sleep(PAUSE).await;
    }
}

pub async fn connect(endpoint: &str) -> Option<Channel> {
    let endpoint = Endpoint::from_shared(endpoint.to_owned()).expect("our own endpoint");
    endpoint.connect_timeout(CONNECT_BOUND).tcp_nodelay(true).connect().await.ok()
}

/// Errors that are said only before anything was proposed, or by everybody alike when it is applied.
fn refuses(status: &Status) -> bool {
    match status.code() {
        Code::InvalidArgument | Code::NotFound => true,
        Code::ResourceExhausted => status.message().starts_with("etcdserver: "),
        _ => false,
    }
}

async fn perform(channel: Channel, action: &Action) -> Result<(Header, Answer), Status> {
    match action {
        Action::Grant { .. } | Action::Renew { .. } | Action::Revoke { .. } | Action::TimeToLive { .. } => {
            of_lease(LeaseClient::new(channel), action).await
        }
        Action::Put { .. } | Action::Delete { .. } | Action::Swap { .. } | Action::Get { .. } => {
            of_keys(KvClient::new(channel), action).await
        }
    }
}

async fn of_keys(mut kv: KvClient<Channel>, action: &Action) -> Result<(Header, Answer), Status> {
    Ok(match action {
        Action::Put { key, value, lease } => {
            let answer = kv.put(put(key, value, *lease)).await?.into_inner();
            (answer.header.into(), Answer::Put)
        }
        Action::Delete { key } => {
            let request = DeleteRangeRequest { key: key.clone(), ..DeleteRangeRequest::default() };
            let answer = kv.delete_range(request).await?.into_inner();
            (answer.header.into(), Answer::Deleted(answer.deleted == 1))
        }
        Action::Get { key, serializable } => {
            let answer = kv.range(get(key, *serializable)).await?.into_inner();
            (answer.header.into(), Answer::Got(answer.kvs.into_iter().next()))
        }
        Action::Swap { key, unchanged_since, value, .. } => {
            let unchanged = Compare {
                result: compare::CompareResult::Equal.into(),
                target: compare::CompareTarget::Mod.into(),
                key: key.clone(),
                range_end: Bytes::new(),
                target_union: Some(compare::TargetUnion::ModRevision(*unchanged_since)),
            };
            let request = TxnRequest {
                compare: vec![unchanged],
                success: vec![RequestOp { request: Some(Part::RequestPut(put(key, value, 0))) }],
                failure: vec![RequestOp { request: Some(Part::RequestRange(get(key, false))) }],
            };
            let answer = kv.txn(request).await?.into_inner();
            let header = answer.header.into();
            let read = answer.responses.into_iter().find_map(|part| match part.response {
                Some(PartAnswer::ResponseRange(range)) => Some(range.kvs.into_iter().next()),
                _ => None,
            });
            (header, if answer.succeeded { Answer::Swapped } else { Answer::NotSwapped(read.flatten()) })
        }
        Action::Grant { .. } | Action::Renew { .. } | Action::Revoke { .. } | Action::TimeToLive { .. } => {
            unreachable!("asked of leases")
        }
    })
}

async fn of_lease(mut leases: LeaseClient<Channel>, action: &Action) -> Result<(Header, Answer), Status> {
    Ok(match action {
        Action::Grant { lease, ttl_s } => {
            let request = LeaseGrantRequest { id: *lease, ttl: *ttl_s };
            let answer = leases.lease_grant(request).await?.into_inner();
            (answer.header.into(), Answer::Granted(answer.ttl))
        }
        Action::Renew { lease } => {
            // Open until the answer has come, as every client has it.
            let request = tokio_stream::once(LeaseKeepAliveRequest { id: *lease });
            let request = tokio_stream::StreamExt::chain(request, tokio_stream::pending());
            let mut answers = leases.lease_keep_alive(request).await?.into_inner();
            let answer = answers.message().await?.ok_or_else(|| Status::unknown("the stream ended"))?;
            (answer.header.into(), Answer::Renewed(answer.ttl))
        }
        Action::Revoke { lease } => {
            let answer = leases.lease_revoke(LeaseRevokeRequest { id: *lease }).await?.into_inner();
            (answer.header.into(), Answer::Revoked)
        }
        Action::TimeToLive { lease } => {
            let request = LeaseTimeToLiveRequest { id: *lease, keys: false };
            let answer = leases.lease_time_to_live(request).await?.into_inner();
            // Less than a second left is 0, and so is none at all for a moment: only -1 says that it is gone.
            (answer.header.into(), Answer::Left(answer.ttl))
        }
        Action::Put { .. } | Action::Delete { .. } | Action::Swap { .. } | Action::Get { .. } => {
            unreachable!("asked of keys")
        }
    })
}

fn put(key: &Bytes, value: &Bytes, lease: i64) -> PutRequest {
    PutRequest { key: key.clone(), value: value.clone(), lease, ..PutRequest::default() }
}

fn get(key: &Bytes, serializable: bool) -> RangeRequest {
    RangeRequest { key: key.clone(), serializable, ..RangeRequest::default() }
}
