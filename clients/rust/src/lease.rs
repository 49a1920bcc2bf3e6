//! Leases: time that keys are given, and its renewal by hand. What renews by itself is a session.

use futures::stream;
use tenure_grpc::etcdserverpb::lease_client::LeaseClient;
use tenure_proto::etcdserverpb::{
    LeaseGrantRequest, LeaseKeepAliveRequest, LeaseLeasesRequest, LeaseRevokeRequest, LeaseTimeToLiveRequest,
};
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use crate::client::{Client, Repeat};
use crate::error::Error;

/// Leases. All times are whole seconds.
#[derive(Clone)]
pub struct Leases {
    client: Client,
}

/// What is left of a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseLeft {
    pub remaining_s: i64,
    pub granted_s: i64,
    /// The keys that go with it.
    pub keys: Vec<bytes::Bytes>,
}

impl Leases {
    pub(crate) fn new(client: Client) -> Leases {
        Leases { client }
    }

    /// Its id, and the time it got, which may be longer than what was asked for. The id is chosen here, so that a lost answer
    /// leaves no lease behind that nobody knows.
    pub async fn grant(&self, ttl_s: i64) -> Result<(i64, i64), Error> {
        let id = new_id();
        match self.grant_once(Repeat::Harmless, id, ttl_s).await {
            Ok(ttl_s) => Ok((id, ttl_s)),
            // Nobody else has this id: an earlier attempt made it.
            Err(Error::Refused { text, .. }) if text.contains("lease already exists") => {
                let ttl_s = self.keep_alive(id).await?;
                ttl_s.map(|ttl_s| (id, ttl_s)).ok_or_else(|| Error::Lost("it ran out at once".into()))
            }
            Err(error) => Err(error),
        }
    }

    /// The same under an id that others may have: None: there is such a lease. It may be one that this call made, if its answer was lost.
    pub async fn grant_as(&self, id: i64, ttl_s: i64) -> Result<Option<i64>, Error> {
        match self.grant_once(Repeat::Harmless, id, ttl_s).await {
            Ok(ttl_s) => Ok(Some(ttl_s)),
            Err(Error::Refused { text, .. }) if text.contains("lease already exists") => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(crate) async fn grant_once(&self, repeat: Repeat, id: i64, ttl_s: i64) -> Result<i64, Error> {
        let grant = LeaseGrantRequest { id, ttl: ttl_s };
        let ask = |channel, request| async move { LeaseClient::new(channel).lease_grant(request).await };
        Ok(self.client.call(repeat, grant, ask).await?.ttl)
    }

    /// Gives a lease its full time again; None: there is no such lease.
    pub async fn keep_alive(&self, id: i64) -> Result<Option<i64>, Error> {
        let ask = |channel, request| keep_alive(channel, request);
        self.client.call(Repeat::Harmless, id, ask).await
    }

    /// Ends a lease with all its keys. That it was gone already is no error.
    pub async fn revoke(&self, id: i64) -> Result<(), Error> {
        self.revoke_as(Repeat::Harmless, id).await.map(|_| ())
    }

    pub(crate) async fn revoke_as(&self, repeat: Repeat, id: i64) -> Result<bool, Error> {
        let revoke = LeaseRevokeRequest { id };
        let ask = |channel, request| async move { LeaseClient::new(channel).lease_revoke(request).await };
        match self.client.call(repeat, revoke, ask).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// None: there is no such lease.
    pub async fn time_to_live(&self, id: i64) -> Result<Option<LeaseLeft>, Error> {
        let question = LeaseTimeToLiveRequest { id, keys: true };
        let ask =
            |channel, request| async move { LeaseClient::new(channel).lease_time_to_live(request).await };
        let left = self.client.call(Repeat::Harmless, question, ask).await?;
        let there = left.ttl >= 0;
        Ok(there.then_some(LeaseLeft { remaining_s: left.ttl, granted_s: left.granted_ttl, keys: left.keys }))
    }

    /// The ids of all there are.
    pub async fn list(&self) -> Result<Vec<i64>, Error> {
        let ask = |channel, request| async move { LeaseClient::new(channel).lease_leases(request).await };
        let list = self.client.call(Repeat::Harmless, LeaseLeasesRequest {}, ask).await?;
        Ok(list.leases.into_iter().map(|lease| lease.id).collect())
    }
}

/// Random and never 0, so that nobody else has it.
pub(crate) fn new_id() -> i64 {
    rand::random_range(1..=i64::MAX)
}

/// One renewal on a stream of its own.
pub(crate) async fn keep_alive(
    channel: Channel,
    request: Request<i64>,
) -> Result<Response<Option<i64>>, Status> {
    let (mut metadata, extensions, id) = request.into_parts();
    metadata.insert("hasleader", tonic::metadata::MetadataValue::from_static("true"));
    let question = stream::iter([LeaseKeepAliveRequest { id }]);
    let request = Request::from_parts(metadata, extensions, question);
    let mut answers = LeaseClient::new(channel).lease_keep_alive(request).await?.into_inner();
    match answers.message().await? {
        // etcd says "gone" with no time left.
        Some(answer) => Ok(Response::new((answer.ttl > 0).then_some(answer.ttl))),
        None => Err(Status::unavailable("the member ended the stream without an answer")),
    }
}
