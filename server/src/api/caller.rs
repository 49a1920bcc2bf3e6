//! Who calls, and on what conditions: what a request's metadata says beside its message.

use tonic::metadata::MetadataMap;
use tonic::{Code, Status};

use super::header::Headers;

/// Holds the caller to what its metadata demands: that this member knows a leader (`hasleader`), and that the name of
/// its API version can be read at all.
pub fn admit(metadata: &MetadataMap, headers: &Headers) -> Result<(), Status> {
    if let Some(version) = metadata.get("client-api-version")
        && std::str::from_utf8(version.as_bytes()).is_err()
    {
        return Err(Status::new(Code::InvalidArgument, "etcdserver: invalid client api version"));
    }
    if requires_leader(metadata) && headers.leadership().leader.is_none() {
        return Err(Status::new(Code::Unavailable, "etcdserver: no leader"));
    }
    Ok(())
}

pub fn requires_leader(metadata: &MetadataMap) -> bool {
    metadata.get("hasleader").is_some_and(|value| value == "true")
}
