//! One question put to a member's handles, and its answer in the journal's words. Knows which failures mean "no" and which
//! mean "unknown".

use bytes::Bytes;
use tenure_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use tenure_proto::etcdserverpb::request_op::Request as Operation;
use tenure_proto::etcdserverpb::response_op::Response as Outcome;
use tenure_proto::etcdserverpb::{
    CompactionRequest, Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
};
use tenure_proto::internal::Command;
use tenure_proto::internal::command::Wish;
use tenure_proto::mvccpb::KeyValue;
use tenure_state::{LeaseId, Response};
use tenured::node::{Error, Written};
use tenured::raft::Unavailable;

use crate::journal::{Ask, Held, Told};
use crate::member::Desk;

pub async fn run(desk: &Desk, ask: Ask) -> Told {
    match ask_member(desk, ask).await {
        Ok(told) => told,
        Err(Error::Refused(refusal)) => Told::Refused(format!("{refusal:?}")),
        Err(Error::Unavailable(why @ (Unavailable::NoLeader | Unavailable::Busy))) => {
            Told::Refused(format!("{why:?}"))
        }
        Err(Error::Unavailable(why)) => Told::Unknown(format!("{why:?}")),
        Err(Error::Fatal(fatal)) => Told::Unknown(fatal.0),
        Err(
            no @ (Error::TooLarge
            | Error::Membership(_)
            | Error::NotLeader
            | Error::BadTransferee
            | Error::TransferFailed),
        ) => Told::Refused(format!("{no:?}")),
    }
}

async fn ask_member(desk: &Desk, ask: Ask) -> Result<Told, Error> {
    let Desk { writer, reader, leases, .. } = desk;
    Ok(match ask {
        Ask::Put { key, value, lease } => {
            let put = PutRequest { key, value, lease, ..PutRequest::default() };
            Told::Put { at: writer.write(command(Wish::Put(put))).await?.revision.0 }
        }
        Ask::Get { key, serializable } => {
            let request = RangeRequest { key, serializable, ..RangeRequest::default() };
            let (answer, at) = reader.range(&request).await?;
            Told::Got { at: at.0, held: answer.kvs.first().map(held) }
        }
        Ask::Swap { key, at, value } => {
            swapped(writer.write(command(Wish::Txn(swap(key, at, value)))).await?)
        }
        Ask::Delete { key } => {
            let delete = DeleteRangeRequest { key, ..DeleteRangeRequest::default() };
            let Written { response, revision } = writer.write(command(Wish::DeleteRange(delete))).await?;
            let count = if let Response::DeleteRange(answer) = response { answer.deleted } else { -1 };
            Told::Deleted { at: revision.0, count }
        }
        Ask::Compact { at } => {
            let compact = CompactionRequest { revision: at, physical: false };
            writer.write(command(Wish::Compact(compact))).await?;
            Told::Compacted
        }
        Ask::Grant { ttl_s } => {
            let (lease, ttl_s, at) = leases.grant(0, ttl_s).await?;
            Told::Granted { at: at.0, lease: lease.0, ttl_s }
        }
        Ask::Renew { lease } => {
            let asked = [LeaseId(lease)];
            let known = leases.renew(&asked).await?.known.first().map(|(_, ttl_s)| *ttl_s);
            let ttl_s = match known {
                Some(ttl_s) => Some(ttl_s),
                None => leases.renew_patiently(&asked).await?.first().copied(),
            };
            Told::Renewed { ttl_s: ttl_s.unwrap_or(-1) }
        }
        Ask::Revoke { lease } => Told::Revoked { at: leases.revoke(LeaseId(lease)).await?.0 },
        Ask::Left { lease } => {
            let (left, at) = leases.time_to_live(LeaseId(lease), false).await?;
            Told::Left { at: at.0, granted_s: left.map(|left| left.granted_s) }
        }
    })
}

fn command(wish: Wish) -> Command {
    Command { wish: Some(wish), ..Command::default() }
}

fn swap(key: Bytes, at: i64, value: Bytes) -> TxnRequest {
    let compare = Compare {
        result: CompareResult::Equal as i32,
        target: CompareTarget::Mod as i32,
        key: key.clone(),
        target_union: Some(TargetUnion::ModRevision(at)),
        ..Compare::default()
    };
    let put = PutRequest { key: key.clone(), value, ..PutRequest::default() };
    let get = RangeRequest { key, ..RangeRequest::default() };
    TxnRequest {
        compare: vec![compare],
        success: vec![RequestOp { request: Some(Operation::RequestPut(put)) }],
        failure: vec![RequestOp { request: Some(Operation::RequestRange(get)) }],
    }
}

fn swapped(written: Written) -> Told {
    let Written { response, revision } = written;
    let Response::Txn(answer) = response else {
        return Told::Unknown(format!("a txn was answered with {response:?}"));
    };
    let first = answer.responses.into_iter().next().and_then(|response| response.response);
    let held = match first {
        Some(Outcome::ResponseRange(range)) => range.kvs.first().map(held),
        _ => None,
    };
    Told::Swapped { at: revision.0, done: answer.succeeded, held }
}

pub fn held(kv: &KeyValue) -> Held {
    Held { at: kv.mod_revision, value: kv.value.clone(), lease: kv.lease }
}
