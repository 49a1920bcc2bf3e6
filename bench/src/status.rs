//! What members say of themselves (`Maintenance.Status`): who leads, and how far the Raft log has come.

use std::time::Duration;

use tenure_proto::etcdserverpb::{RangeRequest, StatusRequest, StatusResponse};
use tokio::time::timeout;

use crate::failure::Failure;
use crate::grpc::{Connection, Endpoint, decode};
use crate::workload::RANGE;

const STATUS: &str = "/etcdserverpb.Maintenance/Status";
const ANSWER_LIMIT: Duration = Duration::from_secs(2);

/// Asks one member, over a connection of its own: members that are watched come and go.
pub(crate) async fn of(endpoint: &Endpoint) -> Result<StatusResponse, Failure> {
    let asking = async {
        let mut status = Connection::open(endpoint).await?.method(STATUS);
        decode(status.call(&StatusRequest::default()).await?)
    };
    let late = || Failure::unanswered(format!("{endpoint}: no status within {ANSWER_LIMIT:?}"));
    timeout(ANSWER_LIMIT, asking).await.unwrap_or_else(|_| Err(late()))
}

/// That the member knows a leader, and that the leader answers it.
pub(crate) async fn serves(endpoint: &Endpoint) -> Result<(), Failure> {
    if of(endpoint).await?.leader == 0 {
        return Err(Failure::wrong("the member has no leader yet"));
    }
    let read = RangeRequest { key: "\0".into(), ..Default::default() };
    Connection::open(endpoint).await?.method(RANGE).call(&read).await.map(drop)
}

/// Which of the members leads. One that was cut off may still think that it does: the newest term decides.
pub(crate) async fn leader_among(endpoints: &[Endpoint]) -> Result<usize, Failure> {
    let mut leaders = Vec::new();
    for (number, endpoint) in endpoints.iter().enumerate() {
        let Ok(status) = of(endpoint).await else { continue };
        if status.leader != 0 && status.header.is_some_and(|header| header.member_id == status.leader) {
            leaders.push((status.raft_term, number));
        }
    }
    leaders.into_iter().max().map(|(_, number)| number).ok_or_else(|| Failure::wrong("no member leads"))
}

/// The last index of the log that any of the members knows of, and the last that any has applied.
pub(crate) async fn log_end(endpoints: &[Endpoint]) -> Result<(u64, u64), Failure> {
    let mut ends = Vec::new();
    for endpoint in endpoints {
        if let Ok(status) = of(endpoint).await {
            ends.push((status.raft_index, status.raft_applied_index));
        }
    }
    let most = ends.into_iter().reduce(|one, other| (one.0.max(other.0), one.1.max(other.1)));
    most.ok_or_else(|| Failure::unanswered("no member tells how far its log is"))
}
