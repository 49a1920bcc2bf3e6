//! A connection to a cluster: sends a call to one member after the other until one answers, for as long as the call's kind
//! allows. What is asked is the business of the files beside it.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tenure_grpc::etcdserverpb::maintenance_client::MaintenanceClient;
use tenure_proto::etcdserverpb::{StatusRequest, StatusResponse};
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use crate::backoff::Backoff;
use crate::clock::Moment;
use crate::error::{Error, Fault};
use crate::options::Options;
use crate::pool::{Pool, Turn};

/// A connection to a cluster. Clones share it.
///
/// ```no_run
/// # async fn example() -> Result<(), tenure_client::Error> {
/// let client = tenure_client::Client::connect("127.0.0.1:2379,127.0.0.1:2389,127.0.0.1:2399")?;
/// client.kv().put("hello", "world").await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

struct Shared {
    pool: Pool,
    options: Options,
}

/// What a call is, as to its being sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// A read, or a write that finds out by itself that it was done already.
    Harmless,
    /// Sent again only if it was certainly not done.
    IfNotDone,
}

/// One member as it says of itself.
#[derive(Clone, Debug)]
pub struct MemberStatus {
    /// As given to the client.
    pub address: String,
    pub status: Result<StatusResponse, Error>,
}

impl Client {
    /// `endpoints` are the members' client addresses, separated by commas. Connections are made when they are needed, so
    /// this fails only for what is no address. Needs a Tokio runtime around it.
    pub fn connect(endpoints: &str) -> Result<Client, Error> {
        Client::with_options(endpoints, Options::default())
    }

    pub fn with_options(endpoints: &str, options: Options) -> Result<Client, Error> {
        let pool = Pool::new(endpoints, &options)?;
        Ok(Client { shared: Arc::new(Shared { pool, options }) })
    }

    /// The members' addresses, as given.
    pub fn endpoints(&self) -> Vec<&str> {
        self.shared.pool.members().iter().map(|member| member.address.as_str()).collect()
    }

    /// Asks every member how it is; those that do not answer are among them.
    pub async fn status(&self) -> Vec<MemberStatus> {
        let asked = self.shared.pool.members().iter().map(|member| async {
            let mut client = MaintenanceClient::new(member.channel.clone());
            let answer =
                tokio::time::timeout(self.options().attempt_timeout, client.status(StatusRequest {}));
            let status = match answer.await {
                Ok(Ok(response)) => Ok(response.into_inner()),
                Ok(Err(status)) => Err(Fault::of(&status).into_error(&member.address)),
                Err(_) => Err(Error::Unavailable(format!("{} did not answer", member.address))),
            };
            MemberStatus { address: member.address.clone(), status }
        });
        futures::future::join_all(asked).await
    }

    pub(crate) fn options(&self) -> &Options {
        &self.shared.options
    }

    /// One question, one answer.
    pub(crate) async fn call<M, T, F, A>(&self, repeat: Repeat, message: M, ask: F) -> Result<T, Error>
    where
        M: Clone,
        F: Fn(Channel, Request<M>) -> A,
        A: Future<Output = Result<Response<T>, Status>>,
    {
        self.wait(Duration::ZERO, repeat, message, ask).await
    }

    /// The same for a question that the server takes so long to answer on purpose.
    pub(crate) async fn wait<M, T, F, A>(
        &self,
        span: Duration,
        repeat: Repeat,
        message: M,
        ask: F,
    ) -> Result<T, Error>
    where
        M: Clone,
        F: Fn(Channel, Request<M>) -> A,
        A: Future<Output = Result<Response<T>, Status>>,
    {
        self.attempts(repeat, span, |channel, bound| {
            let mut request = Request::new(message.clone());
            request.set_timeout(bound);
            ask(channel, request)
        })
        .await
        .map(|(_, answer)| answer)
    }

    /// The same for an answer that never ends: the bound is for its beginning. Says who gives it, for [`Client::leave`].
    pub(crate) async fn open<T, F, A>(&self, ask: F) -> Result<(Turn, T), Error>
    where
        F: Fn(Channel) -> A,
        A: Future<Output = Result<Response<T>, Status>>,
    {
        self.attempts(Repeat::Harmless, Duration::ZERO, |channel, _| ask(channel)).await
    }

    /// Asks one member once, within `bound`; whoever does not answer is left for the next.
    pub(crate) async fn once<T, F, A>(&self, bound: Duration, ask: F) -> Result<(Turn, T), Fault>
    where
        F: FnOnce(Channel) -> A,
        A: Future<Output = Result<Response<T>, Status>>,
    {
        let (turn, member) = self.shared.pool.current();
        let fault = match tokio::time::timeout(bound, ask(member.channel.clone())).await {
            Ok(Ok(response)) => return Ok((turn, response.into_inner())),
            Ok(Err(status)) => Fault::of(&status).at(&member.address),
            Err(_) => Fault::Lost(format!("{} gave no answer within {bound:.1?}", member.address)),
        };
        if !matches!(fault, Fault::Answered(_)) {
            self.shared.pool.leave(turn);
        }
        Err(fault)
    }

    /// An answer that was coming broke off: let others begin with another member.
    pub(crate) fn leave(&self, turn: Turn) {
        self.shared.pool.leave(turn);
    }

    async fn attempts<T, F, A>(&self, repeat: Repeat, span: Duration, ask: F) -> Result<(Turn, T), Error>
    where
        F: Fn(Channel, Duration) -> A,
        A: Future<Output = Result<Response<T>, Status>>,
    {
        let give_up = Moment::now().after(span + self.options().request_timeout);
        let mut backoff = Backoff::default();
        let (mut attempt, mut lost) = (1, false);
        loop {
            let left = give_up.since(Moment::now());
            let bound = match repeat {
                Repeat::Harmless => left.min(span + self.options().attempt_timeout),
                // Nothing is gained by giving up earlier: it could not be sent again.
                Repeat::IfNotDone => left,
            };
            let fault = match self.once(bound, |channel| ask(channel, bound)).await {
                Ok(answer) => return Ok(answer),
                Err(Fault::Answered(error)) => return Err(error),
                Err(Fault::Lost(text)) if repeat == Repeat::IfNotDone => return Err(Error::Unknown(text)),
                Err(fault) => fault,
            };
            // A whole round of refusals is worth a pause; the next member may be well.
            let pause = if attempt % self.shared.pool.len() == 0 { backoff.pause() } else { Duration::ZERO };
            lost |= matches!(fault, Fault::Lost(_));
            if Moment::now().after(pause) >= give_up {
                let error = fault.into_error(&format!("after {attempt} attempts"));
                // Whatever the last one said, an earlier one may have done it.
                return Err(if lost { Error::Unknown(error.to_string()) } else { error });
            }
            tokio::time::sleep(pause).await;
            attempt += 1;
        }
    }
}

impl Fault {
    fn at(self, address: &str) -> Fault {
        match self {
            Fault::NotDone(text) => Fault::NotDone(format!("{address}: {text}")),
            Fault::Lost(text) => Fault::Lost(format!("{address}: {text}")),
            answered => answered,
        }
    }

    pub(crate) fn into_error(self, context: &str) -> Error {
        match self {
            Fault::NotDone(text) => Error::Unavailable(format!("{text} ({context})")),
            Fault::Lost(text) => Error::Unknown(format!("{text} ({context})")),
            Fault::Answered(error) => error,
        }
    }
}
