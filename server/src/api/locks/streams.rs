//! The streams of `tenure.v1.Locks`: each is polled by its connection, so that a client that does not read is not worked for.

use std::time::Duration;

use futures::stream;
use tenure_proto::etcdserverpb::ResponseHeader;
use tenure_proto::tenure::v1::lock_event::{Event, Progress, Queued};
use tenure_proto::tenure::v1::{LockEvent, LockTokenFloorResponse, WatchLocksResponse};
use tenure_recipes::lock::{self, Floor, Following, Turn, Watching};
use tenure_recipes::{Failure, Root};
use tenure_state::Revision;

use super::super::caller::Answers;
use super::super::header::Headers;
use super::super::reason;
use crate::node::Here;

/// How long a stream of turns is silent at the most.
const PROGRESS: Duration = Duration::from_secs(10);

pub fn follow(headers: Headers, here: Here, name: String, following: Following<Here>) -> Answers<LockEvent> {
    let state = Some((headers, here, name, following));
    Box::pin(stream::unfold(state, |state| async move {
        let (headers, here, name, mut following) = state?;
        let next = tokio::select! {
            biased;
            next = following.next() => next,
            () = tokio::time::sleep(PROGRESS) => {
                let header = header(&headers, here.revision().0);
                let progress = LockEvent { header, event: Some(Event::Progress(Progress {})) };
                return Some((Ok(progress), Some((headers, here, name, following))));
            }
        };
        match next {
            Ok(None) => None,
            Err(failure) => Some((Err(reason::failed(failure)), None)),
            Ok(Some((turn, revision))) => match event(&here, &name, turn).await {
                Err(failure) => Some((Err(reason::failed(failure)), None)),
                Ok(event) => {
                    let event = LockEvent { header: header(&headers, revision), event: Some(event) };
                    Some((Ok(event), Some((headers, here, name, following))))
                }
            },
        }
    }))
}

async fn event(here: &Here, name: &str, turn: Turn) -> Result<Event, Failure> {
    let root = Root::server();
    Ok(match turn {
        Turn::Queued(ticket) => {
            let ahead = lock::ahead(here, &root, name, &ticket.number).await?;
            let obstacle = Some(lock::summary(here, &root, name).await?);
            Event::Queued(Queued { ahead, obstacle })
        }
        Turn::Granted(grant) => Event::Granted(grant),
        Turn::ReleaseRequested(word) => Event::ReleaseRequested(word),
        Turn::Ended(ended) => Event::Ended(ended),
    })
}

pub fn watch(headers: Headers, watching: Watching<Here>) -> Answers<WatchLocksResponse> {
    Box::pin(stream::unfold(Some((headers, watching)), |state| async move {
        let (headers, mut watching) = state?;
        match watching.next().await {
            Err(failure) => Some((Err(reason::failed(failure)), None)),
            Ok(told) => {
                let lock::Told { locks, complete, reset, revision } = told;
                let answer =
                    WatchLocksResponse { header: header(&headers, revision), locks, complete, reset };
                Some((Ok(answer), Some((headers, watching))))
            }
        }
    }))
}

pub fn floor(headers: Headers, floor: Floor<Here>) -> Answers<LockTokenFloorResponse> {
    Box::pin(stream::unfold(Some((headers, floor)), |state| async move {
        let (headers, mut floor) = state?;
        match floor.next().await {
            Err(failure) => Some((Err(reason::failed(failure)), None)),
            Ok((least, revision)) => {
                let answer = LockTokenFloorResponse { header: header(&headers, revision), floor: least };
                Some((Ok(answer), Some((headers, floor))))
            }
        }
    }))
}

fn header(headers: &Headers, revision: i64) -> Option<ResponseHeader> {
    Some(headers.at(Revision(revision)))
}
