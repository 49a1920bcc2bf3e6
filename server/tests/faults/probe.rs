//! Questions to a cluster about itself: whether its members serve, and who leads. They are no part of what is recorded.

use std::time::{Duration, Instant};

use prost::bytes::Bytes;
use tenure_grpc::etcdserverpb::{kv_client::KvClient, maintenance_client::MaintenanceClient};
use tenure_proto::etcdserverpb::{RangeRequest, StatusRequest, StatusResponse};
use tokio::time::timeout;

use crate::caller::connect;
use crate::check::{Finding, Law};
use crate::cluster::{Cluster, Member};

/// For a cluster without faults to serve at every member again.
const RECOVERY_BOUND: Duration = Duration::from_secs(60);
/// For a single question to a living member.
const ANSWER_BOUND: Duration = Duration::from_secs(5);

/// Waits until every member answers a linearizable read; gives the highest revision.
pub async fn all_serve(cluster: &mut Cluster) -> Result<i64, Finding> {
    let deadline = Instant::now() + RECOVERY_BOUND;
    let mut highest = 0;
    for (number, member) in cluster.members.iter_mut().enumerate() {
        let revision = serves(member, deadline).await.map_err(|why| Finding {
            law: Law::Recovery,
            what: format!("member {number} {why}, all faults being over"),
        })?;
        highest = highest.max(revision);
    }
    Ok(highest)
}

/// Waits until a member that was started has come to serve, or cannot.
pub async fn comes_back(member: &mut Member) -> bool {
    serves(member, Instant::now() + RECOVERY_BOUND).await.is_ok()
}

async fn serves(member: &mut Member, deadline: Instant) -> Result<i64, String> {
    loop {
        if let Some(revision) = read(&member.endpoint).await {
            return Ok(revision);
        }
        if !member.is_running() {
            if !member.may_end {
                return Err("ended by itself".to_owned());
            }
            member.begin();
        }
        if Instant::now() > deadline {
            return Err(format!("did not serve within {RECOVERY_BOUND:?}"));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn read(endpoint: &str) -> Option<i64> {
    let mut client = KvClient::new(connect(endpoint).await?);
    let request = RangeRequest { key: Bytes::from_static(b"nothing"), ..RangeRequest::default() };
    let told = timeout(ANSWER_BOUND, client.range(request)).await;
    Some(told.ok()?.ok()?.into_inner().header?.revision)
}

async fn status(endpoint: &str) -> Option<StatusResponse> {
    let mut client = MaintenanceClient::new(connect(endpoint).await?);
    let told = timeout(ANSWER_BOUND, client.status(StatusRequest {})).await;
    Some(told.ok()?.ok()?.into_inner())
}

/// The number of the member that leads, as most lately known.
pub async fn leader(endpoints: &[String]) -> Option<usize> {
    let deadline = Instant::now() + RECOVERY_BOUND;
    while Instant::now() < deadline {
        let mut told = Vec::new();
        for endpoint in endpoints {
            told.push(status(endpoint).await);
        }
        let newest = told.iter().flatten().max_by_key(|status| status.raft_term);
        let leader = newest.map_or(0, |status| status.leader);
        let is_leader = |status: &Option<StatusResponse>| {
            let header = status.as_ref().and_then(|status| status.header.as_ref());
            header.is_some_and(|header| header.member_id == leader && leader != 0)
        };
        if let Some(number) = told.iter().position(is_leader) {
            return Some(number);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    None
}
