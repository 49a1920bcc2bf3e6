//! `tenure.v1.Sessions`.

use std::pin::Pin;

use futures::future::BoxFuture;
use futures::stream::{self, FuturesUnordered, StreamExt};
use tenure_grpc::tenure_v1::sessions_server::Sessions;
use tenure_proto::etcdserverpb::ResponseHeader;
use tenure_proto::tenure::v1::*;
use tenure_recipes::{Error, Failure, Root, election, session};
use tenure_state::{LeaseId, Revision};
use tokio::sync::watch;
use tonic::{Request, Response, Status, Streaming};

use super::header::Headers;
use super::{caller, reason};
use crate::node::{Here, Renewed};

/// Sessions in one message of beats.
const BEATS_MAX: usize = 10_000;
/// Parts of a stream that wait for something at once; until there are fewer, no more is read of it.
const SLOW_AT_ONCE: usize = 64;
/// What a page holds if the caller does not say.
const PAGE: i64 = 100;

#[derive(Clone)]
pub struct SessionService {
    pub headers: Headers,
    pub here: Here,
    pub stopping: watch::Receiver<bool>,
}

#[tonic::async_trait]
impl Sessions for SessionService {
    async fn open(
        &self,
        request: Request<OpenSessionRequest>,
    ) -> Result<Response<OpenSessionResponse>, Status> {
        caller::admit(request.metadata(), &self.headers)?;
        let OpenSessionRequest { ttl, labels, client_key } = request.into_inner();
        let wish = session::Wish { ttl_s: ttl, labels, client_key, unix_ms: self.here.unix_ms() };
        let opened = session::open(&self.here, &Root::server(), self.here.unused_lease(), &wish).await;
        let session::Opened { session, existed, revision } = opened.map_err(reason::of)?;
        let header = Some(self.headers.at(Revision(revision)));
        Ok(Response::new(OpenSessionResponse { header, session: Some(session), existed }))
    }

    type KeepAliveStream = caller::Answers<BeatResponse>;

    async fn keep_alive(
        &self,
        request: Request<Streaming<BeatRequest>>,
    ) -> Result<Response<Self::KeepAliveStream>, Status> {
        caller::admit(request.metadata(), &self.headers)?;
        let demands_leader = caller::requires_leader(request.metadata());
        let beating = Beating {
            beats: Some(request.into_inner()),
            slow: FuturesUnordered::new(),
            service: self.clone(),
        };
        let answers = stream::unfold(Some(beating), |beating| async move {
            let mut beating = beating?;
            match beating.next().await? {
                Ok(answer) => Some((Ok(answer), Some(beating))),
                // An answer that cannot be given ends the stream, so that it is not taken for one that is still to come.
                Err(status) => Some((Err(status), None)),
            }
        });
        let answers = caller::until_stopped(&self.stopping, reason::stopping(), answers);
        Ok(Response::new(caller::while_led(demands_leader, &self.headers, answers)))
    }

    async fn beat(&self, request: Request<BeatRequest>) -> Result<Response<BeatResponse>, Status> {
        caller::admit(request.metadata(), &self.headers)?;
        let (mut answer, slow) = self.renew(request.get_ref()).await?;
        if !slow.is_empty() {
            answer.beats.extend(self.renew_slowly(slow).await?.beats);
        }
        Ok(Response::new(answer))
    }

    async fn close(
        &self,
        request: Request<CloseSessionRequest>,
    ) -> Result<Response<CloseSessionResponse>, Status> {
        caller::admit(request.metadata(), &self.headers)?;
        let id = request.into_inner().session;
        self.resign(id).await.map_err(reason::of)?;
        let (unused, now) = (self.here.unused_lease(), self.here.unix_ms());
        let closed = session::close(&self.here, &Root::server(), unused, id, now).await;
        let closed = closed.map_err(reason::of)?;
        Ok(Response::new(CloseSessionResponse { header: self.header(), closed }))
    }

    async fn get(&self, request: Request<GetSessionRequest>) -> Result<Response<GetSessionResponse>, Status> {
        caller::admit(request.metadata(), &self.headers)?;
        let found = self.find(request.into_inner().session).await.map_err(reason::failed)?;
        Ok(Response::new(GetSessionResponse { header: self.header(), ..found }))
    }

    async fn list(
        &self,
        request: Request<ListSessionsRequest>,
    ) -> Result<Response<ListSessionsResponse>, Status> {
        caller::admit(request.metadata(), &self.headers)?;
        let ListSessionsRequest { limit, after } = request.into_inner();
        let limit = if limit == 0 { PAGE } else { limit };
        let page = session::list(&self.here, &Root::server(), after, limit).await;
        let (sessions, next, revision) = page.map_err(reason::of)?;
        let header = Some(self.headers.at(Revision(revision)));
        Ok(Response::new(ListSessionsResponse { header, sessions, next }))
    }

    async fn kill(
        &self,
        request: Request<KillSessionRequest>,
    ) -> Result<Response<KillSessionResponse>, Status> {
        caller::admit(request.metadata(), &self.headers)?;
        let KillSessionRequest { session, reason: why, by } = request.into_inner();
        let word = Ended { session, reason: why, by, unix_ms: self.here.unix_ms(), ..Ended::default() };
        let killed = session::kill(&self.here, &Root::server(), self.here.unused_lease(), &word).await;
        let killed = killed.map_err(reason::of)?;
        Ok(Response::new(KillSessionResponse { header: self.header(), killed }))
    }
}

impl SessionService {
    fn header(&self) -> Option<ResponseHeader> {
        Some(self.headers.at(self.here.revision()))
    }

    /// Gives up what has a better way to go than with its lease: the next leader of an election begins in the revision in which this one
    /// ends, and the record says why.
    async fn resign(&self, session: i64) -> Result<(), Error> {
        let Some(lease) = self.here.lease(session, true).await? else { return Ok(()) };
        for key in lease.keys {
            election::leave(&self.here, &Root::server(), &key).await?;
        }
        Ok(())
    }

    /// Answers for those that need not wait, and the others.
    async fn renew(&self, request: &BeatRequest) -> Result<(BeatResponse, Vec<LeaseId>), Status> {
        if request.sessions.len() > BEATS_MAX {
            let text = format!("{} beats in one message are too many: {BEATS_MAX}", request.sessions.len());
            return Err(reason::invalid(text));
        }
        // The header speaks of the time before the renewal, as that of a lease's keepalive does.
        let header = self.header();
        let Renewed { known, slow } = self.here.renew(&request.sessions).await.map_err(reason::failed)?;
        Ok((BeatResponse { header, beats: self.beats(known).await }, slow))
    }

    async fn renew_slowly(&self, sessions: Vec<LeaseId>) -> Result<BeatResponse, Status> {
        let header = self.header();
        let ttls = self.here.renew_patiently(&sessions).await.map_err(reason::failed)?;
        Ok(BeatResponse { header, beats: self.beats(sessions.into_iter().zip(ttls).collect()).await })
    }

    async fn beats(&self, renewed: Vec<(LeaseId, i64)>) -> Vec<Beat> {
        let mut beats = Vec::with_capacity(renewed.len());
        for (id, ttl) in renewed {
            let ended = if ttl == 0 { Some(self.ended(id.0).await) } else { None };
            beats.push(Beat { session: id.0, ttl, ended });
        }
        beats
    }

    /// Why a session that is gone has ended. What cannot be read now is not known: that it is gone must be said all the same.
    async fn ended(&self, session: i64) -> Ended {
        let ran_out = Ended { session, how: ended::How::Expired.into(), ..Ended::default() };
        session::ended(&self.here, &Root::server(), session).await.ok().flatten().unwrap_or(ran_out)
    }

    async fn find(&self, id: i64) -> Result<GetSessionResponse, Failure> {
        let root = Root::server();
        let Some(lease) = self.here.lease(id, true).await? else {
            return Ok(GetSessionResponse { ended: Some(self.ended(id).await), ..Default::default() });
        };
        let recorded = session::get(&self.here, &root, id).await?;
        let session = recorded.unwrap_or(Session { id, ttl: lease.granted_s, ..Session::default() });
        let keys = lease.keys.into_iter();
        let belongings = keys.filter_map(|key| session::belonging(&root, key)).collect();
        Ok(GetSessionResponse {
            session: Some(session),
            remaining: lease.remaining_s,
            belongings,
            ..GetSessionResponse::default()
        })
    }
}

/// What a client beats on one stream.
struct Beating {
    /// None once the client said that it beats no more.
    beats: Option<Streaming<BeatRequest>>,
    slow: FuturesUnordered<BoxFuture<'static, Result<BeatResponse, Status>>>,
    service: SessionService,
}

impl Beating {
    /// None when all is said.
    async fn next(&mut self) -> Option<Result<BeatResponse, Status>> {
        loop {
            let full = self.slow.len() >= SLOW_AT_ONCE;
            let next: Pin<Box<dyn Future<Output = _> + Send>> = match &mut self.beats {
                Some(beats) if !full => Box::pin(beats.next()),
                None if self.slow.is_empty() => return None,
                Some(_) | None => Box::pin(std::future::pending()),
            };
            tokio::select! {
                biased;
                Some(answer) = self.slow.next() => return Some(answer),
                beat = next => match beat {
                    Some(Ok(beat)) => return Some(self.answer(&beat).await),
                    Some(Err(status)) => return Some(Err(status)),
                    None => self.beats = None,
                },
            }
        }
    }

    async fn answer(&mut self, beat: &BeatRequest) -> Result<BeatResponse, Status> {
        let (answer, slow) = self.service.renew(beat).await?;
        if !slow.is_empty() {
            let service = self.service.clone();
            self.slow.push(Box::pin(async move { service.renew_slowly(slow).await }));
        }
        Ok(answer)
    }
}
