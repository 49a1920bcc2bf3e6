//! The guard: proof of a grant that anybody can hold against the store. As an etcd compare it goes into any txn; as text it goes
//! along with a request, in the metadata `tenure-guard`, where those who write know no txns.
//!
//! The text is `<key>=<token>`, several joined by `,`. Of the key, every byte but `A-Z a-z 0-9 - . _ ~ /` is written as `%XX`.

use bytes::Bytes;
use tenure_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use tenure_proto::etcdserverpb::request_op::Request;
use tenure_proto::etcdserverpb::{Compare, RangeRequest, RequestOp, TxnRequest};
use tenure_proto::tenure::v1::Guard;

use crate::primitives::{Failure, Primitives};

/// Guards that may come with one request.
pub const GUARDS_MAX: usize = 64;
/// Their text, bytes: what HTTP libraries let through as one header, with some room for the others.
pub const TEXT_BYTES_MAX: usize = 8 << 10;

/// Why a text is no guard.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{part}` is no guard: {why}; send the text that came with the grant as it is")]
pub struct Malformed {
    part: String,
    why: &'static str,
}

/// The guard of the grant that created `key` at revision `token`.
pub fn of(key: &[u8], token: i64) -> Guard {
    Guard { token, compare: Some(compare(key, token)), text: text(key, token) }
}

/// Holds for as long as the key is the one that the grant created.
pub fn compare(key: &[u8], token: i64) -> Compare {
    Compare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Create.into(),
        key: Bytes::copy_from_slice(key),
        target_union: Some(TargetUnion::CreateRevision(token)),
        ..Compare::default()
    }
}

pub fn text(key: &[u8], token: i64) -> String {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let mut text = String::with_capacity(key.len() + 20);
    for byte in key {
        if stands_for_itself(*byte) {
            text.push(char::from(*byte));
        } else {
            text.push('%');
            text.push(char::from(DIGITS[usize::from(byte >> 4)]));
            text.push(char::from(DIGITS[usize::from(byte & 0xf)]));
        }
    }
    text.push('=');
    text.push_str(&token.to_string());
    text
}

/// The compares that a text stands for, at least one and at most [`GUARDS_MAX`].
pub fn parse(text: &str) -> Result<Vec<Compare>, Malformed> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(malformed("", "the text is longer than 8 KiB"));
    }
    let guards = text.split(',').map(|part| parse_one(part.trim())).collect::<Result<Vec<_>, _>>()?;
    if guards.len() > GUARDS_MAX {
        return Err(malformed("", "there are more than 64 in one request"));
    }
    Ok(guards)
}

/// Whether all of these hold, as of a moment after this was asked.
pub async fn hold<P: Primitives>(primitives: &P, guards: Vec<Compare>) -> Result<bool, Failure> {
    // The read makes it a question about the newest state: etcd answers a txn that only compares from whatever it has.
    let read = guards.first().map(|guard| RequestOp {
        request: Some(Request::RequestRange(RangeRequest {
            key: guard.key.clone(),
            count_only: true,
            ..RangeRequest::default()
        })),
    });
    let success: Vec<RequestOp> = read.into_iter().collect();
    let txn = TxnRequest { compare: guards, failure: success.clone(), success };
    Ok(primitives.txn(txn).await?.succeeded)
}

fn parse_one(part: &str) -> Result<Compare, Malformed> {
    let (name, token) = part.rsplit_once('=').ok_or_else(|| malformed(part, "it lacks `=` and the token"))?;
    let token: i64 = token.parse().map_err(|_| malformed(part, "what follows `=` is no token"))?;
    if token <= 0 {
        return Err(malformed(part, "tokens are greater than zero"));
    }
    let key = unescape(name).ok_or_else(|| malformed(part, "its key is not escaped as it should be"))?;
    if key.is_empty() {
        return Err(malformed(part, "it names no key"));
    }
    Ok(compare(&key, token))
}

fn unescape(name: &str) -> Option<Vec<u8>> {
    let mut key = Vec::with_capacity(name.len());
    let mut bytes = name.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let mut digit = || bytes.next().and_then(|byte| char::from(byte).to_digit(16));
            let (high, low) = (digit()?, digit()?);
            key.push((high << 4 | low) as u8);
        } else if stands_for_itself(byte) {
            key.push(byte);
        } else {
            return None;
        }
    }
    Some(key)
}

fn stands_for_itself(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte)
}

/// What is shown of a text that somebody sent is short.
fn malformed(part: &str, why: &'static str) -> Malformed {
    const SHOWN: usize = 64;
    let part = part.chars().take(SHOWN).flat_map(char::escape_default).collect();
    Malformed { part, why }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn any_key_survives_as_text() {
        let every_byte: Vec<u8> = (0..=255).collect();
        for key in [&b"/_tenure/lock/jobs%2Fnightly/h"[..], b"a=b,c%2", "ä ".as_bytes(), &every_byte] {
            let guard = of(key, 812);
            assert!(guard.text.is_ascii() && !guard.text.contains(' '), "{}", guard.text);
            assert_eq!(parse(&guard.text).unwrap(), [compare(key, 812)], "{}", guard.text);
            assert_eq!(guard.compare, Some(compare(key, 812)));
        }
        assert_eq!(text(b"/_tenure/lock/a b", 7), "/_tenure/lock/a%20b=7");
    }

    #[test]
    fn several_are_joined_by_commas() {
        let joined = format!("{}, {}", text(b"a", 1), text(b"b,=", i64::MAX));
        assert_eq!(parse(&joined).unwrap(), [compare(b"a", 1), compare(b"b,=", i64::MAX)]);
    }

    #[test]
    fn what_is_no_guard_is_refused() {
        let many = vec!["a=1"; GUARDS_MAX + 1].join(",");
        let long = "a".repeat(TEXT_BYTES_MAX);
        for nonsense in [
            "", "a", "=1", "a=", "a=x", "a=0", "a=-4", "a=1,", "a%2=1", "a%zz=1", "a b=1", "ä=1", &many,
            &long,
        ] {
            assert!(parse(nonsense).is_err(), "{nonsense:?}");
        }
        let said = parse("a\n=x").unwrap_err().to_string();
        assert!(!said.contains('\n'), "{said}");
    }
}
