//! Who calls, and on what conditions: what a request's metadata says beside its message.

use std::pin::Pin;

use futures::{Stream, StreamExt, stream};
use tenure_proto::etcdserverpb::Compare;
use tenure_recipes::guard;
use tokio::sync::watch::Receiver;
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};

use super::header::Headers;
use super::reason;

const GUARD: &str = "tenure-guard";

/// Holds the caller to what its metadata demands: that this member knows a leader (`hasleader`), and that the name of
/// its API version can be read at all. A member that only learns admits nobody.
pub fn admit(metadata: &MetadataMap, headers: &Headers) -> Result<(), Status> {
    if headers.is_learner() {
        return Err(Status::new(Code::FailedPrecondition, "etcdserver: rpc not supported for learner"));
    }
    admit_to_learner(metadata, headers)
}

/// The same for the few things that a member does while it only learns: status, backup, serializable reads.
pub fn admit_to_learner(metadata: &MetadataMap, headers: &Headers) -> Result<(), Status> {
    if let Some(version) = metadata.get("client-api-version")
        && std::str::from_utf8(version.as_bytes()).is_err()
    {
        return Err(Status::new(Code::InvalidArgument, "etcdserver: invalid client api version"));
    }
    if requires_leader(metadata) && headers.leadership().lost {
        return Err(no_leader());
    }
    Ok(())
}

pub type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The answers of a stream, which ends if its caller demands a leader and there has been none for too long.
pub fn while_led<T: Send + 'static>(
    demanded: bool,
    headers: &Headers,
    answers: impl Stream<Item = Result<T, Status>> + Send + 'static,
) -> Answers<T> {
    let answers: Answers<T> = Box::pin(answers);
    if !demanded {
        return answers;
    }
    let lost = Box::pin(headers.long_lost());
    Box::pin(stream::unfold(Some((answers, lost)), |state| async move {
        let (mut answers, mut lost) = state?;
        tokio::select! {
            biased;
            answer = answers.next() => Some((answer?, Some((answers, lost)))),
            () = &mut lost => Some((Err(no_leader()), None)),
        }
    }))
}

/// The answers of a stream that would never end by itself: it ends when the member is told to stop, and says so. An end without a word
/// would leave whoever asked last with an answer that is none.
pub fn until_stopped<T: Send + 'static>(
    stopping: &Receiver<bool>,
    stopped: Status,
    answers: impl Stream<Item = Result<T, Status>> + Send + 'static,
) -> Answers<T> {
    let mut stopping = stopping.clone();
    // An error means the same: the one who would tell is gone.
    let stop = Box::pin(async move { drop(stopping.wait_for(|stop| *stop).await) });
    let answers = Box::pin(answers);
    Box::pin(stream::unfold(Some((answers, stop, stopped)), |state| async move {
        let (mut answers, mut stop, stopped) = state?;
        tokio::select! {
            biased;
            () = &mut stop => Some((Err(stopped), None)),
            answer = answers.next() => Some((answer?, Some((answers, stop, stopped)))),
        }
    }))
}

fn no_leader() -> Status {
    Status::new(Code::Unavailable, "etcdserver: no leader")
}

/// The guards that came with a request in the metadata `tenure-guard`: all must hold, or nothing of it is done.
pub fn guards(metadata: &MetadataMap) -> Result<Vec<Compare>, Status> {
    let mut guards = Vec::new();
    for value in metadata.get_all(GUARD) {
        let text =
            value.to_str().map_err(|_| reason::invalid("tenure: the metadata tenure-guard is no text"))?;
        let parsed = guard::parse(text).map_err(|error| reason::invalid(format!("tenure: {error}")))?;
        guards.extend(parsed);
        if guards.len() > guard::GUARDS_MAX {
            return Err(reason::invalid("tenure: more than 64 guards came with one request"));
        }
    }
    Ok(guards)
}

pub fn requires_leader(metadata: &MetadataMap) -> bool {
    metadata.get("hasleader").is_some_and(|value| value == "true")
}
