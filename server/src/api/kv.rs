//! etcd's KV service.

use std::pin::Pin;

use futures::{Stream, stream};
use tenure_grpc::etcdserverpb::kv_server::Kv;
use tenure_proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use tenure_proto::etcdserverpb::*;
use tenure_proto::internal::command::Wish;
use tenure_proto::internal::{Author, Command};
use tenure_state::{Response as Outcome, Revision, check, txn};
use tonic::{Code, Request, Response, Status};

use super::header::Headers;
use super::{caller, reserved, status};
use crate::node::{Quota, Reader, Sweeper, Writer};

pub struct KvService {
    pub headers: Headers,
    pub reader: Reader,
    pub writer: Writer,
    pub quota: Quota,
    pub sweeper: Sweeper,
    pub txn_operations_max: usize,
}

impl KvService {
    /// What the guards demand is decided where the write is: in its place in the log.
    async fn write(&self, wish: Wish, guards: Vec<Compare>) -> Result<(Outcome, ResponseHeader), Status> {
        let command = Command { author: Some(Author::default()), guards, wish: Some(wish) };
        let written = self.writer.write(command).await.map_err(status::of)?;
        Ok((written.response, self.headers.at(written.revision)))
    }

    fn header(&self, revision: Revision) -> Option<ResponseHeader> {
        Some(self.headers.at(revision))
    }
}

/// Only a defect of this server pairs a command with another one's answer.
fn mismatched(outcome: &Outcome) -> Status {
    Status::internal(format!("tenure: the cluster answered another question: {outcome:?}"))
}

#[tonic::async_trait]
impl Kv for KvService {
    async fn range(&self, request: Request<RangeRequest>) -> Result<Response<RangeResponse>, Status> {
        let admit = if request.get_ref().serializable { caller::admit_to_learner } else { caller::admit };
        admit(request.metadata(), &self.headers)?;
        let request = request.into_inner();
        check::range(&request).map_err(|refusal| status::refused(&refusal))?;
        let (mut response, revision) = self.reader.range(&request).await.map_err(status::of)?;
        response.header = self.header(revision);
        Ok(Response::new(response))
    }

    async fn put(&self, request: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        caller::admit(request.metadata(), &self.headers)?;
        let guards = caller::guards(request.metadata())?;
        let request = request.into_inner();
        check::put(&request).map_err(|refusal| status::refused(&refusal))?;
        reserved::check(&request.key)?;
        self.quota.admit(request.key.len() + request.value.len()).await.map_err(status::of)?;
        match self.write(Wish::Put(request), guards).await? {
            (Outcome::Put(response), header) => {
                Ok(Response::new(PutResponse { header: Some(header), ..response }))
            }
            (other, _) => Err(mismatched(&other)),
        }
    }

    async fn delete_range(
        &self,
        request: Request<DeleteRangeRequest>,
    ) -> Result<Response<DeleteRangeResponse>, Status> {
        caller::admit(request.metadata(), &self.headers)?;
        let guards = caller::guards(request.metadata())?;
        let request = request.into_inner();
        check::delete_range(&request).map_err(|refusal| status::refused(&refusal))?;
        let wish = match reserved::remainder(&request)? {
            None => Wish::DeleteRange(request),
            Some(parts) => Wish::Txn(reserved::all(parts)),
        };
        match self.write(wish, guards).await? {
            (Outcome::DeleteRange(response), header) => {
                Ok(Response::new(DeleteRangeResponse { header: Some(header), ..response }))
            }
            (Outcome::Txn(parts), header) => {
                let response = reserved::sum(parts.responses);
                Ok(Response::new(DeleteRangeResponse { header: Some(header), ..response }))
            }
            (other, _) => Err(mismatched(&other)),
        }
    }

    async fn txn(&self, request: Request<TxnRequest>) -> Result<Response<TxnResponse>, Status> {
        caller::admit(request.metadata(), &self.headers)?;
        let guards = caller::guards(request.metadata())?;
        let request = request.into_inner();
        check::txn(&request, self.txn_operations_max).map_err(|refusal| status::refused(&refusal))?;
        if txn::is_read_only(&request) && guards.is_empty() {
            let (mut response, revision) = self.reader.txn(&request).await.map_err(status::of)?;
            response.header = self.header(revision);
            return Ok(Response::new(response));
        }
        self.quota.admit(txn::put_bytes(&request)).await.map_err(status::of)?;
        let (wish, asked) = match reserved::spare(&request)? {
            None => (request, None),
            Some(spared) => (spared, Some(request)),
        };
        match self.write(Wish::Txn(wish), guards).await? {
            (Outcome::Txn(mut response), header) => {
                if let Some(asked) = asked {
                    reserved::mend(&asked, &mut response);
                }
                Ok(Response::new(TxnResponse { header: Some(header), ..response }))
            }
            (other, _) => Err(mismatched(&other)),
        }
    }

    async fn compact(
        &self,
        request: Request<CompactionRequest>,
    ) -> Result<Response<CompactionResponse>, Status> {
        caller::admit(request.metadata(), &self.headers)?;
        let request = request.into_inner();
        let (revision, physical) = (Revision(request.revision), request.physical);
        let (_, header) = self.write(Wish::Compact(request), Vec::new()).await?;
        if physical {
            self.sweeper.swept(revision).await.map_err(status::of)?;
        }
        Ok(Response::new(CompactionResponse { header: Some(header) }))
    }

    type RangeStreamStream = Pin<Box<dyn Stream<Item = Result<RangeStreamResponse, Status>> + Send>>;

    /// A range in chunks, all at the revision of the first; header, count and `more` come with the last.
    async fn range_stream(
        &self,
        request: Request<RangeRequest>,
    ) -> Result<Response<Self::RangeStreamStream>, Status> {
        caller::admit(request.metadata(), &self.headers)?;
        let request = request.into_inner();
        check::range(&request).map_err(|refusal| status::refused(&refusal))?;
        let sorted = request.sort_order() != SortOrder::None || request.sort_target() != SortTarget::Key;
        let filtered = request.min_mod_revision != 0
            || request.max_mod_revision != 0
            || request.min_create_revision != 0
            || request.max_create_revision != 0;
        if sorted || filtered {
            let text = "tenure: RangeStream sends keys in order and unfiltered; use Range to sort or filter";
            return Err(Status::new(Code::Unimplemented, text));
        }
        let (mut whole, revision) = self.reader.range(&request).await.map_err(status::of)?;
        whole.header = self.header(revision);
        let chunks =
            chunks(whole).into_iter().map(|chunk| Ok(RangeStreamResponse { range_response: Some(chunk) }));
        Ok(Response::new(Box::pin(stream::iter(chunks))))
    }
}

/// Keys in the first message of a range stream, and about how many bytes in each that follows.
const FIRST_CHUNK_KEYS: usize = 10;
const CHUNK_BYTES: usize = 1 << 20;

fn chunks(mut whole: RangeResponse) -> Vec<RangeResponse> {
    let kvs = std::mem::take(&mut whole.kvs);
    let (mut chunks, mut chunk, mut bytes) = (Vec::new(), Vec::new(), 0);
    for kv in kvs {
        let full = if chunks.is_empty() { chunk.len() >= FIRST_CHUNK_KEYS } else { bytes >= CHUNK_BYTES };
        if full {
            chunks.push(RangeResponse { kvs: std::mem::take(&mut chunk), ..RangeResponse::default() });
            bytes = 0;
        }
        bytes += kv.key.len() + kv.value.len();
        chunk.push(kv);
    }
    chunks.push(RangeResponse { kvs: chunk, ..whole });
    chunks
}
