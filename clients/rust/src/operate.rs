//! What operators ask and do: lists, states, and words with force. Thin: the messages are the wire's own.

use tenure_grpc::tenure_v1::elections_client::ElectionsClient;
use tenure_grpc::tenure_v1::locks_client::LocksClient;
use tenure_grpc::tenure_v1::registry_client::RegistryClient;
use tenure_grpc::tenure_v1::sessions_client::SessionsClient;
use tenure_proto::tenure::v1::*;

use crate::client::{Client, Repeat};
use crate::error::Error;
use crate::feed::Feed;

/// What operators ask and do. Each call may be repeated, and is, until it is answered.
#[derive(Clone)]
pub struct Operate {
    client: Client,
}

macro_rules! calls {
    ($($(#[$about:meta])* $name:ident($service:ident . $method:ident: $request:ty) -> $response:ty;)*) => {
        impl Operate {
            $(
                $(#[$about])*
                pub async fn $name(&self, request: $request) -> Result<$response, Error> {
                    let ask = |channel, request| async move {
                        $service::new(channel).max_decoding_message_size(usize::MAX).$method(request).await
                    };
                    self.client.call(Repeat::Harmless, request, ask).await
                }
            )*
        }
    };
}

calls! {
    /// Locks that are held or waited for, in pages.
    list_locks(LocksClient.list: ListLocksRequest) -> ListLocksResponse;
    inspect_lock(LocksClient.inspect: InspectLockRequest) -> InspectLockResponse;
    /// Ends somebody else's grant, by its token.
    break_lock(LocksClient.r#break: BreakLockRequest) -> BreakLockResponse;
    /// Asks a holder to let go.
    request_release(LocksClient.request_release: RequestLockReleaseRequest) -> RequestLockReleaseResponse;
    list_elections(ElectionsClient.list: ListElectionsRequest) -> ListElectionsResponse;
    election(ElectionsClient.leader: ElectionLeaderRequest) -> ElectionLeaderResponse;
    election_history(ElectionsClient.history: ElectionHistoryRequest) -> ElectionHistoryResponse;
    /// Ends somebody else's term, by its token.
    depose(ElectionsClient.depose: DeposeRequest) -> DeposeResponse;
    list_services(RegistryClient.list_services: ListServicesRequest) -> ListServicesResponse;
    lookup(RegistryClient.lookup: LookupRequest) -> LookupResponse;
    set_service_policy(RegistryClient.set_service_policy: SetServicePolicyRequest) -> SetServicePolicyResponse;
    set_instance(RegistryClient.set_instance: SetInstanceRequest) -> SetInstanceResponse;
    deregister(RegistryClient.deregister: DeregisterRequest) -> DeregisterResponse;
    list_sessions(SessionsClient.list: ListSessionsRequest) -> ListSessionsResponse;
    session(SessionsClient.get: GetSessionRequest) -> GetSessionResponse;
    kill_session(SessionsClient.kill: KillSessionRequest) -> KillSessionResponse;
}

impl Operate {
    pub(crate) fn new(client: Client) -> Operate {
        Operate { client }
    }

    /// How locks are, and each change of one.
    pub fn watch_locks(&self, request: WatchLocksRequest) -> Telling<WatchLocksRequest, WatchLocksResponse> {
        Telling(Feed::new(self.client.clone(), request, |channel, request| {
            Box::pin(async move { LocksClient::new(channel).watch(request).await })
        }))
    }

    /// How the instances of services are, and each change.
    pub fn watch_instances(
        &self,
        request: WatchInstancesRequest,
    ) -> Telling<WatchInstancesRequest, WatchInstancesResponse> {
        Telling(Feed::new(self.client.clone(), request, |channel, request| {
            Box::pin(async move { RegistryClient::new(channel).watch(request).await })
        }))
    }

    /// A planned switchover, event by event; the last one has an outcome.
    pub fn transfer(&self, request: TransferRequest) -> Telling<TransferRequest, TransferEvent> {
        Telling(Feed::new(self.client.clone(), request, |channel, request| {
            Box::pin(async move { ElectionsClient::new(channel).transfer(request).await })
        }))
    }
}

/// What a server goes on telling. After a break the question is asked anew, so what is told begins anew too.
pub struct Telling<Q, T>(Feed<Q, T>);

impl<Q: Clone, T> Telling<Q, T> {
    /// Waits for members to come back as long as it takes.
    pub async fn next(&mut self) -> Result<T, Error> {
        self.0.next().await
    }
}
