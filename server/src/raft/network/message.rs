//! Between the consensus library's messages and ours. What comes from a peer is checked for everything on which the library
//! relies without asking; a peer that breaks it gets an error. Payloads pass through as they are, uncopied.

use std::io;

use openraft::raft::{
    AppendEntriesRequest, StreamAppendError, StreamAppendResult, TransferLeaderError, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::vote::RaftLeaderId;
use tenure_disk::wal as disk;
use tenure_proto::internal::{
    AppendRequest, AppendResponse, BallotPaper, BallotRequest, BallotResponse, EntryRun, TransferRequest,
    TransferResponse, append_response::Outcome,
};

use crate::raft::codec::{self, position, position_message};
use crate::raft::types::{CommittedLeaderId, LogId, TypeConfig, Vote};

pub fn paper(vote: &Vote) -> BallotPaper {
    let disk::Vote { term, node, committed } = codec::disk_vote(vote);
    BallotPaper { term, node, committed }
}

pub fn vote(paper: Option<BallotPaper>) -> io::Result<Vote> {
    let BallotPaper { term, node, committed } = paper.ok_or_else(|| malformed("it carries no vote"))?;
    Ok(codec::vote(disk::Vote { term, node, committed }))
}

/// The vote of one who leads: nobody else has entries to give.
pub fn leaders_vote(paper: Option<BallotPaper>) -> io::Result<Vote> {
    let vote = vote(paper)?;
    if vote.committed { Ok(vote) } else { Err(malformed("its sender was not elected")) }
}

pub fn append_request(request: AppendEntriesRequest<TypeConfig>) -> AppendRequest {
    let mut runs: Vec<EntryRun> = Vec::with_capacity(1);
    let entries = request.entries.len();
    for entry in &request.entries {
        let id = codec::disk_id(&entry.log_id);
        let payload = codec::entry_bytes(entry);
        match runs.last_mut().filter(|run| run.term == id.term && run.node == id.node) {
            Some(run) => run.payloads.push(payload),
            None => {
                let mut payloads = Vec::with_capacity(entries);
                payloads.push(payload);
                runs.push(EntryRun { term: id.term, node: id.node, first: id.index, payloads });
            }
        }
    }
    AppendRequest {
        vote: Some(paper(&request.vote)),
        previous: request.prev_log_id.as_ref().map(position_message),
        runs,
        committed: request.leader_commit.as_ref().map(position_message),
    }
}

pub fn take_append_request(message: AppendRequest) -> io::Result<AppendEntriesRequest<TypeConfig>> {
    let vote = leaders_vote(message.vote)?;
    let previous = message.previous.as_ref().map(position);
    let mut next = match previous {
        Some(previous) => successor(previous.index)?,
        None => 0,
    };
    let mut writer = previous.map(|id| *id.committed_leader_id());
    let mut entries = Vec::with_capacity(message.runs.iter().map(|run| run.payloads.len()).sum());
    for run in message.runs {
        let leader = CommittedLeaderId::new(run.term, run.node);
        if run.first != next || writer.is_some_and(|before| leader < before) {
            return Err(malformed("its entries do not follow each other"));
        }
        writer = Some(leader);
        for payload in run.payloads {
            let id = disk::LogId { term: run.term, node: run.node, index: next };
            entries.push(codec::entry(id, payload)?);
            next = successor(next)?;
        }
    }
    let committed = message.committed.as_ref().map(position);
    let own = CommittedLeaderId::new(vote.leader_id.term, vote.leader_id.node_id);
    if writer.is_some_and(|writer| writer > own)
        || committed.is_some_and(|id: LogId| *id.committed_leader_id() > own)
    {
        return Err(malformed("it speaks of entries of a later leader than its sender"));
    }
    Ok(AppendEntriesRequest { vote, prev_log_id: previous, entries, leader_commit: committed })
}

fn successor(index: u64) -> io::Result<u64> {
    index.checked_add(1).ok_or_else(|| malformed("its indexes run over"))
}

pub fn append_response(result: &StreamAppendResult<TypeConfig>) -> AppendResponse {
    let outcome = match result {
        Ok(Some(id)) => Outcome::Durable(position_message(id)),
        Ok(None) => Outcome::Nothing(true),
        Err(StreamAppendError::Conflict(id)) => Outcome::Conflict(position_message(id)),
        Err(StreamAppendError::HigherVote(vote)) => Outcome::Later(paper(vote)),
    };
    AppendResponse { outcome: Some(outcome) }
}

pub fn take_append_response(message: AppendResponse) -> io::Result<StreamAppendResult<TypeConfig>> {
    match message.outcome {
        Some(Outcome::Durable(id)) => Ok(Ok(Some(position(&id)))),
        Some(Outcome::Nothing(_)) => Ok(Ok(None)),
        Some(Outcome::Conflict(id)) => Ok(Err(StreamAppendError::Conflict(position(&id)))),
        Some(Outcome::Later(paper)) => Ok(Err(StreamAppendError::HigherVote(vote(Some(paper))?))),
        None => Err(malformed("it answers nothing that this version knows")),
    }
}

pub fn ballot_request(request: &VoteRequest<TypeConfig>, pre: bool) -> BallotRequest {
    BallotRequest {
        vote: Some(paper(&request.vote)),
        last: request.last_log_id.as_ref().map(position_message),
        pre,
        transfer: request.leadership_transfer,
    }
}

pub fn take_ballot_request(message: BallotRequest) -> io::Result<VoteRequest<TypeConfig>> {
    let mut request = VoteRequest::new(vote(message.vote)?, message.last.as_ref().map(position));
    request.leadership_transfer = message.transfer;
    Ok(request)
}

pub fn ballot_response(response: &VoteResponse<TypeConfig>) -> BallotResponse {
    BallotResponse {
        vote: Some(paper(&response.vote)),
        granted: response.vote_granted,
        last: response.last_log_id.as_ref().map(position_message),
    }
}

pub fn take_ballot_response(message: BallotResponse) -> io::Result<VoteResponse<TypeConfig>> {
    Ok(VoteResponse::new(vote(message.vote)?, message.last.as_ref().map(position), message.granted))
}

pub fn transfer_request(request: &TransferLeaderRequest<TypeConfig>) -> TransferRequest {
    TransferRequest {
        from: Some(paper(request.from_leader())),
        to: *request.to_node_id(),
        last: request.last_log_id().map(position_message),
    }
}

pub fn take_transfer_request(message: TransferRequest) -> io::Result<TransferLeaderRequest<TypeConfig>> {
    let from = leaders_vote(message.from)?;
    Ok(TransferLeaderRequest::new(from, message.to, message.last.as_ref().map(position)))
}

pub fn transfer_response(response: &TransferLeaderResponse<TypeConfig>) -> TransferResponse {
    let (vote, last) = match response {
        Ok(()) => return TransferResponse { accepted: true, vote: None, last: None },
        Err(TransferLeaderError::VoteChanged { actual, .. }) => (Some(paper(actual)), None),
        Err(TransferLeaderError::LogNotFlushed { actual, .. }) => {
            (None, actual.as_ref().map(position_message))
        }
    };
    TransferResponse { accepted: false, vote, last }
}

/// `request` is what was asked: the library wants to be told of it again.
pub fn take_transfer_response(
    message: TransferResponse,
    request: &TransferLeaderRequest<TypeConfig>,
) -> io::Result<TransferLeaderResponse<TypeConfig>> {
    Ok(match (message.accepted, message.vote) {
        (true, _) => Ok(()),
        (false, Some(paper)) => Err(TransferLeaderError::VoteChanged {
            expected: *request.from_leader(),
            actual: vote(Some(paper))?,
        }),
        (false, None) => Err(TransferLeaderError::LogNotFlushed {
            expected: request.last_log_id().copied(),
            actual: message.last.as_ref().map(position),
        }),
    })
}

fn malformed(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("a peer's message makes no sense: {why}"))
}
