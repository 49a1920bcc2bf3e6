//! What a server tells for as long as it is listened to, reopened as often as it breaks. What was told and what is to be told
//! again after a break is the business of who listens: the question can be changed on the way.

use futures::future::BoxFuture;
use tonic::transport::Channel;
use tonic::{Response, Status, Streaming};

use crate::backoff::Backoff;
use crate::client::Client;
use crate::error::{Error, Fault};
use crate::pool::Turn;

pub(crate) type Opened<T> = BoxFuture<'static, Result<Response<Streaming<T>>, Status>>;

pub(crate) struct Feed<M, T> {
    client: Client,
    /// Asked at the next opening.
    pub question: M,
    open: fn(Channel, M) -> Opened<T>,
    stream: Option<(Turn, Streaming<T>)>,
    /// How often it was opened: whoever keeps something between messages forgets it when this rises.
    pub openings: u64,
    backoff: Backoff,
}

impl<M: Clone, T> Feed<M, T> {
    pub fn new(client: Client, question: M, open: fn(Channel, M) -> Opened<T>) -> Feed<M, T> {
        Feed { client, question, open, stream: None, openings: 0, backoff: Backoff::default() }
    }

    /// The next message. Waits for members to come back as long as it takes; an error is an answer that every member would give.
    /// Nothing is lost when this is dropped before it is done.
    pub async fn next(&mut self) -> Result<T, Error> {
        loop {
            let Some((turn, stream)) = &mut self.stream else {
                let (open, question) = (self.open, &self.question);
                match self.client.open(|channel| open(channel, question.clone())).await {
                    Ok(opened) => {
                        self.stream = Some(opened);
                        self.openings += 1;
                    }
                    Err(Error::Unavailable(_) | Error::Unknown(_)) => {
                        tokio::time::sleep(self.backoff.pause()).await;
                    }
                    Err(error) => return Err(error),
                }
                continue;
            };
            let fault = match stream.message().await {
                Ok(Some(message)) => {
                    self.backoff = Backoff::default();
                    return Ok(message);
                }
                Ok(None) => Fault::Lost("the member ended the stream".into()),
                Err(status) => Fault::of(&status),
            };
            match fault {
                Fault::Answered(error) => return Err(error),
                Fault::NotDone(_) | Fault::Lost(_) => self.client.leave(*turn),
            }
            self.stream = None;
            tokio::time::sleep(self.backoff.pause()).await;
        }
    }
}
