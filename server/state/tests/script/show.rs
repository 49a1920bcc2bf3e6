//! From the messages of the wire to lines. Only what two servers of the same state must agree on is shown: of a header
//! the revision, not whose it is.

use std::fmt::Write as _;

use tenure_proto::etcdserverpb::response_op::Response;
use tenure_proto::etcdserverpb::{
    AlarmResponse, AlarmType, CompactionResponse, DeleteRangeResponse, LeaseGrantResponse,
    LeaseKeepAliveResponse, LeaseLeasesResponse, LeaseRevokeResponse, LeaseTimeToLiveResponse, PutResponse,
    RangeResponse, ResponseHeader, ResponseOp, TxnResponse, WatchResponse,
};
use tenure_proto::mvccpb::event::EventType;
use tenure_proto::mvccpb::{Event, KeyValue};

use super::peer::Answer;

pub fn put(answer: &Answer<PutResponse>) -> String {
    shown("put", answer, |response| put_body(response, revision(&response.header)))
}

pub fn get(answer: &Answer<RangeResponse>) -> String {
    shown("get", answer, |response| get_body(response, revision(&response.header)))
}

pub fn del(answer: &Answer<DeleteRangeResponse>) -> String {
    shown("del", answer, |response| del_body(response, revision(&response.header)))
}

pub fn txn(answer: &Answer<TxnResponse>) -> String {
    shown("txn", answer, |response| txn_body(response, revision(&response.header)))
}

pub fn compact(answer: &Answer<CompactionResponse>) -> String {
    shown("compact", answer, |response| revision(&response.header))
}

pub fn alarm(answer: &Answer<AlarmResponse>) -> String {
    shown("alarm", answer, |response| {
        let mut alarms: Vec<_> = response.alarms.iter().map(|it| (it.member_id, it.alarm)).collect();
        alarms.sort_unstable();
        let name =
            |kind: i32| AlarmType::try_from(kind).map_or(kind.to_string(), |it| it.as_str_name().to_string());
        let alarms = alarms.into_iter().map(|(member, kind)| format!(" {member}:{}", name(kind)));
        revision(&response.header) + &alarms.collect::<String>()
    })
}

/// An id that the server chose is its own.
pub fn grant(answer: &Answer<LeaseGrantResponse>, chosen: bool) -> String {
    shown("grant", answer, |response| {
        let id = match (chosen, response.id > 0) {
            (false, _) => response.id.to_string(),
            (true, true) => "chosen".to_string(),
            (true, false) => "chosen and not above 0".to_string(),
        };
        format!("{} id={id} ttl={}", revision(&response.header), response.ttl)
    })
}

pub fn revoke(answer: &Answer<LeaseRevokeResponse>) -> String {
    shown("revoke", answer, |response| revision(&response.header))
}

pub fn keep_alive(answer: &Answer<LeaseKeepAliveResponse>) -> String {
    shown("keepalive", answer, |response| {
        format!("{} id={} ttl={}", revision(&response.header), response.id, response.ttl)
    })
}

/// Without the remaining time, which passes.
pub fn time_to_live(answer: &Answer<LeaseTimeToLiveResponse>) -> String {
    shown("ttl", answer, |response| revision(&response.header) + &lease_body(response))
}

pub fn remaining(answer: &Answer<LeaseTimeToLiveResponse>) -> String {
    shown("remaining", answer, |response| format!("{} of {}", response.ttl, response.granted_ttl))
}

pub fn leases(answer: &Answer<LeaseLeasesResponse>) -> String {
    shown("leases", answer, |response| {
        let ids = response.leases.iter().map(|lease| format!(" {}", lease.id));
        revision(&response.header) + &ids.collect::<String>()
    })
}

pub fn state(answer: &Answer<RangeResponse>) -> String {
    shown("state", answer, |response| revision(&response.header) + &lines("", &response.kvs))
}

pub fn lease(answer: &Answer<LeaseTimeToLiveResponse>) -> String {
    shown("  lease", answer, |response| lease_body(response).trim_start().to_string())
}

/// What a stream said, when `expected` things were waited for.
pub fn watch(responses: &[WatchResponse], expected: usize) -> String {
    let mut shown: String = responses.iter().map(watch_response).collect();
    if responses.len() != expected {
        let _ = writeln!(shown, "{} responses instead of {expected}", responses.len());
    }
    shown
}

fn watch_response(response: &WatchResponse) -> String {
    let mut shown = format!("watch {} {}", response.watch_id, revision(&response.header));
    for (said, word) in
        [(response.created, " created"), (response.canceled, " canceled"), (response.fragment, " fragment")]
    {
        if said {
            shown.push_str(word);
        }
    }
    if response.compact_revision != 0 {
        let _ = write!(shown, " compacted={}", response.compact_revision);
    }
    if !response.cancel_reason.is_empty() {
        let _ = write!(shown, " reason={:?}", response.cancel_reason);
    }
    shown.push('\n');
    response.events.iter().for_each(|it| shown.push_str(&event(it)));
    shown
}

fn event(event: &Event) -> String {
    let kv = event.kv.clone().unwrap_or_default();
    let shown = match EventType::try_from(event.r#type) {
        Ok(EventType::Put) => format!("  put {}", key_value(&kv)),
        Ok(EventType::Delete) => format!("  del {}", key_value(&kv)),
        Err(_) => format!("  event {} {}", event.r#type, key_value(&kv)),
    };
    match &event.prev_kv {
        Some(before) => format!("{shown} was {}\n", key_value(before)),
        None => shown + "\n",
    }
}

fn put_body(response: &PutResponse, header: String) -> String {
    match &response.prev_kv {
        Some(before) => format!("{header} was {}", key_value(before)),
        None => header,
    }
}

fn get_body(response: &RangeResponse, header: String) -> String {
    let more = if response.more { " more" } else { "" };
    format!("{header} count={}{more}{}", response.count, lines("", &response.kvs))
}

fn del_body(response: &DeleteRangeResponse, header: String) -> String {
    format!("{header} deleted={}{}", response.deleted, lines("was ", &response.prev_kvs))
}

fn txn_body(response: &TxnResponse, header: String) -> String {
    let mut body = format!("{header} {}", if response.succeeded { "then" } else { "else" });
    let operations: Vec<String> = response.responses.iter().map(operation).collect();
    // A hundred times the same is said once.
    for same in operations.chunk_by(|a, b| a == b) {
        let indented = same[0].replace('\n', "\n  ");
        let _ = write!(body, "\n  {indented}");
        if same.len() > 1 {
            let _ = write!(body, " x{}", same.len());
        }
    }
    body
}

fn operation(operation: &ResponseOp) -> String {
    match &operation.response {
        Some(Response::ResponsePut(it)) => format!("put {}", put_body(it, within(&it.header))),
        Some(Response::ResponseRange(it)) => format!("get {}", get_body(it, within(&it.header))),
        Some(Response::ResponseDeleteRange(it)) => format!("del {}", del_body(it, within(&it.header))),
        Some(Response::ResponseTxn(it)) => format!("txn {}", txn_body(it, within(&it.header))),
        None => "nothing".to_string(),
    }
}

fn lease_body(response: &LeaseTimeToLiveResponse) -> String {
    if response.ttl < 0 {
        return format!(" id={} unknown={} granted={}", response.id, response.ttl, response.granted_ttl);
    }
    // etcd gives them in no order.
    let mut keys: Vec<String> = response.keys.iter().map(|key| bytes(key)).collect();
    keys.sort_unstable();
    format!(" id={} granted={} keys={}", response.id, response.granted_ttl, keys.join(","))
}

fn shown<T>(name: &str, answer: &Answer<T>, body: impl FnOnce(&T) -> String) -> String {
    match answer {
        Ok(response) => format!("{name} {}\n", body(response)),
        Err(refusal) => format!("{name} refused: {refusal}\n"),
    }
}

fn revision(header: &Option<ResponseHeader>) -> String {
    header.as_ref().map_or("no header".to_string(), |header| format!("rev={}", header.revision))
}

/// The header of an operation's answer says its revision and nothing else, or nothing at all.
fn within(header: &Option<ResponseHeader>) -> String {
    match header {
        None => "no header".to_string(),
        Some(header) if *header == ResponseHeader::default() => "empty header".to_string(),
        Some(header) if *header == (ResponseHeader { revision: header.revision, ..Default::default() }) => {
            format!("rev={}", header.revision)
        }
        Some(header) => format!("rev={} and more", header.revision),
    }
}

fn lines(word: &str, kvs: &[KeyValue]) -> String {
    kvs.iter().map(|kv| format!("\n  {word}{}", key_value(kv))).collect()
}

/// What is 0 is left out.
fn key_value(kv: &KeyValue) -> String {
    let mut shown = bytes(&kv.key);
    if kv.version != 0 {
        let _ = write!(shown, "={}", bytes(&kv.value));
    }
    for (name, number) in [
        ("create", kv.create_revision),
        ("mod", kv.mod_revision),
        ("version", kv.version),
        ("lease", kv.lease),
    ] {
        if number != 0 {
            let _ = write!(shown, " {name}={number}");
        }
    }
    shown
}

fn bytes(bytes: &[u8]) -> String {
    const SHOWN_MAX: usize = 100;
    if bytes.len() > SHOWN_MAX {
        return format!("<{} bytes>", bytes.len());
    }
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-./@".contains(byte);
    if !bytes.is_empty() && bytes.iter().all(plain) {
        return bytes.iter().map(|byte| char::from(*byte)).collect();
    }
    format!("\"{}\"", bytes.escape_ascii())
}
