//! Messages as JSON and back, as etcd's gateway has them: fields by their names in the .proto, 64-bit numbers as strings, bytes in
//! base64, enums by name, and what is zero, false or empty left out. Read generously: also camel case, numbers as numbers, enums by
//! number, unknown fields passed over.

use prost::Message;
use prost_reflect::{DynamicMessage, Kind, MessageDescriptor, SerializeOptions};
use serde_json::Value;

/// A request's bytes on the wire.
///
/// # Errors
/// It is not JSON, or not of that kind: one line that says where.
pub fn read(json: &[u8], kind: &MessageDescriptor) -> Result<Vec<u8>, String> {
    if json.iter().all(u8::is_ascii_whitespace) {
        return Ok(Vec::new());
    }
    let mut reader = serde_json::Deserializer::from_slice(json);
    let message = DynamicMessage::deserialize(kind.clone(), &mut reader)
        .and_then(|message| reader.end().map(|()| message))
        .or_else(|_| {
            // The library passes unknown fields over only together with unknown names of enums, which are refused.
            let mut value = serde_json::from_slice(json)?;
            drop_unknown(&mut value, kind);
            DynamicMessage::deserialize(kind.clone(), value)
        })
        .map_err(|error| error.to_string())?;
    Ok(message.encode_to_vec())
}

/// Takes out what messages of this kind, and those inside them, have no field for.
fn drop_unknown(value: &mut Value, kind: &MessageDescriptor) {
    // Those have a JSON of their own.
    if kind.package_name() == "google.protobuf" {
        return;
    }
    let Value::Object(fields) = value else { return };
    let known = |name: &str| kind.get_field_by_json_name(name).or_else(|| kind.get_field_by_name(name));
    fields.retain(|name, _| known(name).is_some());
    for (name, value) in fields {
        if let Some(field) = known(name)
            && !field.is_map()
            && let Kind::Message(kind) = field.kind()
        {
            match value {
                Value::Array(values) => values.iter_mut().for_each(|value| drop_unknown(value, &kind)),
                one => drop_unknown(one, &kind),
            }
        }
    }
}

/// # Errors
/// The bytes are none of that kind, which only a fault of this server's can cause.
pub fn write(bytes: &[u8], kind: &MessageDescriptor) -> Result<String, String> {
    let message = DynamicMessage::decode(kind.clone(), bytes).map_err(|error| error.to_string())?;
    let options = SerializeOptions::new()
        .use_proto_field_name(true)
        .stringify_64_bit_integers(true)
        .skip_default_fields(true);
    let mut text = Vec::new();
    let mut writer = serde_json::Serializer::new(&mut text);
    message.serialize_with_options(&mut writer, &options).map_err(|error| error.to_string())?;
    String::from_utf8(text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use prost_reflect::DescriptorPool;

    use super::*;

    fn kind(name: &str) -> MessageDescriptor {
        let pool = DescriptorPool::decode(tenure_proto::DESCRIPTORS).unwrap();
        pool.get_message_by_name(&format!("etcdserverpb.{name}")).unwrap()
    }

    fn round(name: &str, json: &str) -> Result<String, String> {
        write(&read(json.as_bytes(), &kind(name))?, &kind(name))
    }

    #[test]
    fn etcds_conventions() {
        for (name, given, told) in [
            (
                "PutRequest",
                r#"{"key":"Zm9v","value":"","prevKv":true,"lease":77}"#,
                r#"{"key":"Zm9v","lease":"77","prev_kv":true}"#,
            ),
            ("LeaseGrantRequest", r#"{"TTL":"60","ID":"-1"}"#, r#"{"TTL":"60","ID":"-1"}"#),
            (
                "RangeRequest",
                r#"{"sort_order":1,"sort_target":"MOD","unknown":[{}]}"#,
                r#"{"sort_order":"ASCEND","sort_target":"MOD"}"#,
            ),
            (
                "HashKVResponse",
                r#"{"hash":4000000000,"compact_revision":"5"}"#,
                r#"{"hash":4000000000,"compact_revision":"5"}"#,
            ),
            ("MemberAddRequest", r#"{"peerURLs":["http://a:1"]}"#, r#"{"peerURLs":["http://a:1"]}"#),
            (
                "TxnRequest",
                r#"{"compare":[{"target":"CREATE","create_revision":"0","key":"YQ=="}]}"#,
                r#"{"compare":[{"target":"CREATE","key":"YQ==","create_revision":"0"}]}"#,
            ),
            ("DefragmentRequest", "", "{}"),
        ] {
            assert_eq!(round(name, given).unwrap(), told, "{given}");
        }
    }

    #[test]
    fn nonsense_is_refused_and_never_more() {
        for json in [
            "x",
            "[]",
            "{",
            r#"{"key":"%"}"#,
            r#"{"key":5}"#,
            r#"{"sort_order":"BOGUS"}"#,
            r#"{"limit":"x"}"#,
            "{} {}",
        ] {
            read(json.as_bytes(), &kind("RangeRequest")).unwrap_err();
        }
        let deep = format!("{}{}", r#"{"success":[{"request_txn":"#.repeat(5_000), "}".repeat(5_000));
        read(deep.as_bytes(), &kind("TxnRequest")).unwrap_err();
    }
}
