//! What a member does when it has come to lead: asks the other voters until when they know leases to last.

use std::pin::pin;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tenure_grpc::internal::witness_client::WitnessClient;
use tenure_proto::internal::RecallRequest;
use tenure_state::{LeaseId, Millis, Recollection};
use tonic::Status;

use super::super::Counting;
use super::{LEASES_AT_ONCE, from_wire};
use crate::ids::MemberId;
use crate::peers::{Lane, Peers};
use crate::raft::Consensus;

/// Before a member that did not answer is asked again: its vote may still be on its way to its disk.
const PAUSE: Duration = Duration::from_millis(20);

/// What one member knows, in the order of ids, as times of this member's clock.
type Known = Vec<(LeaseId, Millis)>;

/// Asks all other voters, and goes by those that answer within one election timeout, as soon as they are a majority with this
/// member. Ends early when this leadership does. `followed`: index up to which this member had followed the log when it began to count.
pub async fn recall(counting: &Counting, consensus: &Consensus, peers: &Peers, term: u64, followed: u64) {
    let own = peers.own().0;
    let voters = consensus.voters();
    if !voters.contains(&own) {
        return;
    }
    let majority = voters.len() / 2 + 1;
    let asked = voters.iter().filter(|voter| **voter != own);
    let mut asked: FuturesUnordered<_> =
        asked.map(|voter| ask_until_answered(counting, peers, *voter, term, followed)).collect();
    let mut leadership = consensus.leadership();
    let mut patience = pin!(tokio::time::sleep(peers.patience()));
    let (mut answers, mut late) = (Vec::new(), false);
    while !late || answers.len() + 1 < majority {
        tokio::select! {
            biased;
            _ = leadership.wait_for(|now| !now.here || now.term != term) => return,
            answer = asked.next() => match answer {
                Some(known) => answers.push(known),
                None => break,
            },
            () = &mut patience, if !late => late = true,
        }
    }
    tracing::debug!(term, members = answers.len() + 1, of = voters.len(), "recalled how long leases last");
    let said = Recollection { others: answers, majority };
    let mut after = None;
    loop {
        after = counting.lessor.lock().recall(term, &said, after, LEASES_AT_ONCE, counting.now());
        counting.nearer.notify_one();
        if after.is_none() {
            return;
        }
        tokio::task::yield_now().await;
    }
}

async fn ask_until_answered(
    counting: &Counting,
    peers: &Peers,
    member: u64,
    term: u64,
    followed: u64,
) -> Known {
    loop {
        match tokio::time::timeout(2 * peers.patience(), ask(counting, peers, member, term, followed)).await {
            Ok(Ok(known)) => return known,
            Ok(Err(status)) => {
                tracing::debug!(member = %MemberId(member), %status, "a member does not say yet how long leases last");
            }
            Err(_) => {}
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn ask(
    counting: &Counting,
    peers: &Peers,
    member: u64,
    term: u64,
    followed: u64,
) -> Result<Known, Status> {
    let unknown = || Status::unavailable("its address is not known");
    let channel = peers.channel(member, Lane::Forwarding).ok_or_else(unknown)?;
    let request = peers.address(member, RecallRequest { term, applied: followed });
    let mut parts = WitnessClient::new(channel).recall(request).await?.into_inner();
    let mut known = Known::new();
    while let Some(part) = parts.message().await? {
        // Said before it came: so the time that it took makes it later, never earlier.
        let now = counting.now();
        known.extend(part.leases.iter().map(from_wire).map(|it| (it.id, now.plus(it.left_ms))));
    }
    if !known.is_sorted_by(|(one, _), (next, _)| one < next) {
        return Err(Status::invalid_argument("leases are not in the order of their ids"));
    }
    Ok(known)
}
