//! How replicated state that is not a key lies in the store: one byte that says what, then its identity. Read back by
//! `load`.

use bytes::Bytes;

use crate::change::LeaseId;

pub const LEASE: u8 = b'l';
pub const ALARM: u8 = b'!';
pub const MEMBER: u8 = b'm';
/// A member that was removed; the value is empty.
pub const REMOVED: u8 = b'r';
/// Revision and compaction floor; written by whoever commits, with each batch.
pub const APPLIED: &[u8] = b"applied";

pub(crate) fn lease_key(id: LeaseId) -> Bytes {
    key(LEASE, &id.0.to_be_bytes())
}

pub(crate) fn alarm_key(member: u64, alarm: i32) -> Bytes {
    key(ALARM, &[&member.to_be_bytes()[..], &alarm.to_be_bytes()[..]].concat())
}

pub fn member_key(member: u64) -> Bytes {
    key(MEMBER, &member.to_be_bytes())
}

pub(crate) fn removed_key(member: u64) -> Bytes {
    key(REMOVED, &member.to_be_bytes())
}

fn key(kind: u8, identity: &[u8]) -> Bytes {
    let mut bytes = Vec::with_capacity(1 + identity.len());
    bytes.push(kind);
    bytes.extend_from_slice(identity);
    bytes.into()
}
