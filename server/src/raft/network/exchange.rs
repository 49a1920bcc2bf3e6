//! A stream on which one question at a time is asked and answered. A heartbeat is too small to be worth a call of its own:
//! headers and trailers would be most of it.

use tenure_grpc::internal::replication_client::ReplicationClient;
use tenure_proto::internal::{AppendRequest, AppendResponse};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use crate::peers::Peers;

/// Dropping it ends the stream.
pub struct Exchange {
    questions: mpsc::Sender<AppendRequest>,
    answers: Streaming<AppendResponse>,
}

impl Exchange {
    pub async fn open(
        mut client: ReplicationClient<Channel>,
        peers: &Peers,
        target: u64,
    ) -> Result<Exchange, Status> {
        let (questions, asked) = mpsc::channel(1);
        let answers = client.append(peers.address(target, ReceiverStream::new(asked))).await?.into_inner();
        Ok(Exchange { questions, answers })
    }

    /// # Errors
    /// The stream is of no use any more. To give up waiting also makes it useless: the next answer would be an old one.
    pub async fn ask(&mut self, question: AppendRequest) -> Result<AppendResponse, Status> {
        self.questions.send(question).await.map_err(|_| ended())?;
        self.answers.message().await?.ok_or_else(ended)
    }
}

fn ended() -> Status {
    Status::unavailable("the peer ended the stream")
}
