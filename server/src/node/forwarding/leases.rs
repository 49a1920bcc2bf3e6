//! Questions about leases to a leader that is another member. Renewals of all clients go in one stream: while one question is
//! under way, what arrives gathers for the next.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use parking_lot::Mutex;
use tenure_grpc::internal::forwarding_client::ForwardingClient;
use tenure_proto::internal::{LeaseOrderRequest, LeaseTimeRequest, RenewRequest, RenewResponse};
use tenure_state::LeaseId;
use tokio::sync::watch;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use super::asking::{Asking, questions};
use super::renewals::{Gathered, Renewals};
use crate::peers::{Lane, Peers};
use crate::raft::{Leadership, Mandate, Unavailable};

/// Cloning shares it.
#[derive(Clone)]
pub struct Elsewhere {
    peers: Peers,
    leadership: watch::Receiver<Leadership>,
    /// How long the leader may take to answer at once.
    patience: Duration,
    /// How long it may take for what has to wait there.
    timeout: Duration,
    waiting: Arc<Mutex<Waiting>>,
}

#[derive(Default)]
struct Waiting {
    gathered: Gathered<Ttls>,
    under_way: bool,
    /// The question under way has it.
    asking: Asking<RenewRequest, RenewResponse>,
}

type Ttls = Vec<Option<i64>>;

impl Elsewhere {
    /// `patience`: one election timeout.
    pub fn new(
        peers: Peers,
        leadership: watch::Receiver<Leadership>,
        patience: Duration,
        timeout: Duration,
    ) -> Elsewhere {
        Elsewhere { peers, leadership, patience, timeout, waiting: Arc::default() }
    }

    /// The TTL in seconds of each, 0 for one that is not there, None for one that has to wait for something.
    pub async fn renew(&self, ids: &[LeaseId]) -> Result<Ttls, Unavailable> {
        let (told, first) = {
            let mut waiting = self.waiting.lock();
            (waiting.gathered.add(ids), !std::mem::replace(&mut waiting.under_way, true))
        };
        if first {
            tokio::spawn(self.clone().run());
        }
        told.await.unwrap_or(Err(Unavailable::Stopped))
    }

    async fn run(self) {
        let mut leadership = self.leadership.clone();
        let mut asking = std::mem::take(&mut self.waiting.lock().asking);
        loop {
            let batch = {
                let mut waiting = self.waiting.lock();
                let batch = waiting.gathered.take();
                waiting.under_way = !batch.is_empty();
                if batch.is_empty() {
                    waiting.asking = asking;
                    return;
                }
                batch
            };
            let ids: Vec<i64> = batch.iter().flat_map(|one| &one.ids).map(|id| id.0).collect();
            let count = ids.len();
            let now = *leadership.borrow_and_update();
            let asked = tokio::time::timeout(self.patience, self.ask(now, ids, &mut asking));
            let answer = tokio::select! {
                biased;
                // Who was asked leads no more.
                _ = leadership.wait_for(|other| other.mandate() != now.mandate()) => Err(Unavailable::LeaderChanged),
                answer = asked => answer.unwrap_or(Err(Unavailable::TimedOut)),
            };
            let answer = answer.and_then(|ttls| {
                let fits = ttls.len() == count && ttls.iter().all(|ttl| *ttl >= -1);
                if fits { Ok(ttls) } else { Err(Unavailable::LeaderChanged) }
            });
            share(batch, answer);
        }
    }

    async fn ask(
        &self,
        now: Leadership,
        ids: Vec<i64>,
        asking: &mut Asking<RenewRequest, RenewResponse>,
    ) -> Result<Vec<i64>, Unavailable> {
        let leader = now.mandate().filter(|_| !now.here).ok_or(Unavailable::LeaderChanged)?;
        if !asking.is_with(leader) {
            let (questions, asked) = questions();
            let request = self.peers.address(leader.member, asked);
            let mut client = self.client(leader)?;
            // Boxed: else the compiler loses itself in the lifetimes when this is spawned.
            let call: BoxFuture<'_, _> = Box::pin(client.renew(request));
            let answers = answered(call.await)?;
            asking.begin(leader, questions, answers);
        }
        let answer = asking.ask(RenewRequest { ids }).await;
        Ok(answer.map_err(|status| unanswered(&status))?.ttls)
    }

    /// Each TTL in seconds, 0 for a lease that is not there, once what it had to wait for is over.
    pub async fn renew_patiently(&self, leader: Mandate, ids: &[LeaseId]) -> Result<Vec<i64>, Unavailable> {
        let ids: Vec<i64> = ids.iter().map(|id| id.0).collect();
        let (count, mut client) = (ids.len(), self.client(leader)?);
        let request = self.address(leader, RenewRequest { ids }, self.timeout);
        let ttls = answered(client.renew_patiently(request).await)?.ttls;
        let fits = ttls.len() == count && ttls.iter().all(|ttl| *ttl >= 0);
        if fits { Ok(ttls) } else { Err(Unavailable::LeaderChanged) }
    }

    /// Seconds left of a lease; None when there is no such lease.
    pub async fn remaining(&self, leader: Mandate, id: LeaseId) -> Result<Option<i64>, Unavailable> {
        let mut client = self.client(leader)?;
        let request = self.address(leader, LeaseTimeRequest { id: id.0 }, self.patience);
        let answer = answered(client.lease_time(request).await)?;
        Ok(answer.known.then_some(answer.remaining_s))
    }

    /// All leases, the one that ends first at the front.
    pub async fn order(&self, leader: Mandate) -> Result<Vec<LeaseId>, Unavailable> {
        let mut client = self.client(leader)?;
        let request = self.address(leader, LeaseOrderRequest {}, self.timeout);
        Ok(answered(client.lease_order(request).await)?.ids.into_iter().map(LeaseId).collect())
    }

    fn client(&self, leader: Mandate) -> Result<ForwardingClient<Channel>, Unavailable> {
        let channel = self.peers.channel(leader.member, Lane::Forwarding).ok_or(Unavailable::NoLeader)?;
        // As many leases as there are.
        Ok(ForwardingClient::new(channel).max_decoding_message_size(usize::MAX))
    }

    fn address<T>(&self, leader: Mandate, message: T, timeout: Duration) -> Request<T> {
        let mut request = self.peers.address(leader.member, message);
        request.set_timeout(timeout);
        request
    }
}

fn answered<T>(response: Result<Response<T>, Status>) -> Result<T, Unavailable> {
    response.map(Response::into_inner).map_err(|status| unanswered(&status))
}

fn unanswered(status: &Status) -> Unavailable {
    tracing::debug!(%status, "the leader does not answer about leases");
    Unavailable::LeaderChanged
}

/// Gives each its part of the answer.
fn share(batch: Vec<Renewals<Ttls>>, answer: Result<Vec<i64>, Unavailable>) {
    match answer {
        Ok(ttls) => {
            let mut ttls = ttls.into_iter().map(|ttl| (ttl >= 0).then_some(ttl));
            for one in batch {
                let own = ttls.by_ref().take(one.ids.len()).collect();
                one.tell(Ok(own));
            }
        }
        Err(unavailable) => {
            for one in batch {
                one.tell(Err(unavailable));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_stream_gets_its_own_part_of_a_shared_answer() {
        let mut gathered = Gathered::default();
        let mut told_one = gathered.add(&[LeaseId(1), LeaseId(2)]);
        let mut told_none = gathered.add(&[]);
        let mut told_two = gathered.add(&[LeaseId(3)]);
        share(gathered.take(), Ok(vec![10, -1, 0]));
        assert_eq!(told_one.try_recv(), Ok(Ok(vec![Some(10), None])));
        assert_eq!(told_none.try_recv(), Ok(Ok(Vec::new())));
        assert_eq!(told_two.try_recv(), Ok(Ok(vec![Some(0)])));
    }

    #[test]
    fn a_failure_is_told_to_all_and_never_as_a_ttl() {
        let mut gathered = Gathered::default();
        let mut told = gathered.add(&[LeaseId(1)]);
        share(gathered.take(), Err(Unavailable::LeaderChanged));
        assert_eq!(told.try_recv(), Ok(Err(Unavailable::LeaderChanged)));
    }
}
