//! From words to the messages of the wire. Whatever a client could send can be said, unknown enum numbers included.

use std::error::Error;

use bytes::Bytes;
use tenure_proto::etcdserverpb::compare::TargetUnion;
use tenure_proto::etcdserverpb::watch_request::RequestUnion;
use tenure_proto::etcdserverpb::{
    AlarmRequest, CompactionRequest, Compare, DeleteRangeRequest, PutRequest, RangeRequest,
    WatchCancelRequest, WatchCreateRequest, WatchProgressRequest, WatchRequest,
};
use tenure_state::prefix_end;

use super::words::{Words, choice};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const TARGETS: [&str; 5] = ["version", "create", "mod", "value", "lease"];

pub fn put(words: &mut Words) -> Result<PutRequest> {
    Ok(PutRequest {
        key: words.bytes()?,
        value: words.bytes()?,
        lease: words.named_number("lease")?,
        prev_kv: words.flag("prev"),
        ignore_value: words.flag("ignore_value"),
        ignore_lease: words.flag("ignore_lease"),
    })
}

pub fn range(words: &mut Words) -> Result<RangeRequest> {
    let key = words.bytes()?;
    Ok(RangeRequest {
        range_end: range_end(words, &key)?,
        key,
        limit: words.named_number("limit")?,
        revision: words.named_number("rev")?,
        sort_order: words.named_choice("order", &["none", "ascend", "descend"])?,
        sort_target: words.named_choice("sort", &["key", "version", "create", "mod", "value"])?,
        serializable: words.flag("serializable"),
        keys_only: words.flag("keys_only"),
        count_only: words.flag("count_only"),
        min_mod_revision: words.named_number("min_mod")?,
        max_mod_revision: words.named_number("max_mod")?,
        min_create_revision: words.named_number("min_create")?,
        max_create_revision: words.named_number("max_create")?,
    })
}

pub fn delete_range(words: &mut Words) -> Result<DeleteRangeRequest> {
    let key = words.bytes()?;
    Ok(DeleteRangeRequest { range_end: range_end(words, &key)?, key, prev_kv: words.flag("prev") })
}

pub fn compare(words: &mut Words) -> Result<Compare> {
    let target = choice(&words.word()?, &TARGETS)?;
    let key = words.bytes()?;
    let result = choice(&words.word()?, &["eq", "gt", "lt", "ne"])?;
    let operand = match target {
        0 => TargetUnion::Version(words.number()?),
        1 => TargetUnion::CreateRevision(words.number()?),
        2 => TargetUnion::ModRevision(words.number()?),
        4 => TargetUnion::Lease(words.number()?),
        _ => TargetUnion::Value(words.bytes()?),
    };
    Ok(Compare {
        range_end: range_end(words, &key)?,
        key,
        target,
        result,
        target_union: (!words.flag("unsaid")).then_some(operand),
    })
}

pub fn compact(words: &mut Words) -> Result<CompactionRequest> {
    Ok(CompactionRequest { revision: words.number()?, physical: words.flag("physical") })
}

pub fn alarm(words: &mut Words) -> Result<AlarmRequest> {
    Ok(AlarmRequest {
        action: choice(&words.word()?, &["get", "raise", "clear"])?,
        member_id: u64::try_from(words.named_number("member")?)?,
        alarm: words.named_choice("kind", &["none", "nospace", "corrupt"])?,
    })
}

pub fn watch(words: &mut Words) -> Result<WatchRequest> {
    let key = words.bytes()?;
    let filters = [("no_put", 0), ("no_delete", 1)];
    let filters = filters.into_iter().filter(|(name, _)| words.flag(name)).map(|(_, filter)| filter);
    let filters = filters.collect();
    Ok(say(RequestUnion::CreateRequest(WatchCreateRequest {
        range_end: range_end(words, &key)?,
        key,
        start_revision: words.named_number("from")?,
        progress_notify: words.flag("progress"),
        filters,
        prev_kv: words.flag("prev"),
        watch_id: words.named_number("id")?,
        fragment: words.flag("fragment"),
    })))
}

pub fn cancel(watch_id: i64) -> WatchRequest {
    say(RequestUnion::CancelRequest(WatchCancelRequest { watch_id }))
}

pub fn progress() -> WatchRequest {
    say(RequestUnion::ProgressRequest(WatchProgressRequest {}))
}

fn say(request: RequestUnion) -> WatchRequest {
    WatchRequest { request_union: Some(request) }
}

fn range_end(words: &mut Words, key: &[u8]) -> Result<Bytes> {
    let end = words.named_bytes("end")?;
    Ok(match (words.flag("prefix"), words.flag("onwards")) {
        (true, _) => prefix_end(key).into(),
        (_, true) => Bytes::from_static(&[0]),
        (false, false) => end.unwrap_or_default(),
    })
}
