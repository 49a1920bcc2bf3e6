//! Whether a call is well-formed: limits that all recipes share, checked before anything is asked of the store.

use std::collections::BTreeMap;

use crate::refusal::{Reason, Refusal};

/// Bytes of the name of a lock, an election or a service.
pub const NAME_BYTES_MAX: usize = 256;
/// Bytes of an id that a client chose: an owner's, a candidate's, an instance's.
pub const ID_BYTES_MAX: usize = 128;
/// Labels of one thing, and bytes of each one's name and value.
pub const LABELS_MAX: usize = 32;
pub const LABEL_BYTES_MAX: usize = 256;
/// Bytes of a reason that a person gives.
pub const NOTE_BYTES_MAX: usize = 1024;
/// Time to live of what a client keeps alive, seconds.
pub const TTL_S_MAX: i64 = 86_400;

/// `kind` is the word for it in the refusal: "lock", "election", "service".
pub fn name(kind: &str, name: &str) -> Result<(), Refusal> {
    bounded(Reason::NameInvalid, &format!("the {kind} name"), name, 1, NAME_BYTES_MAX)
}

/// `kind` as in "owner", "candidate", "instance".
pub fn id(kind: &str, id: &str) -> Result<(), Refusal> {
    bounded(Reason::IdInvalid, &format!("the {kind} id"), id, 1, ID_BYTES_MAX)
}

/// An id that may be left out.
pub fn optional_id(kind: &str, id: &str) -> Result<(), Refusal> {
    bounded(Reason::IdInvalid, &format!("the {kind} id"), id, 0, ID_BYTES_MAX)
}

/// What a person says, for others to read.
pub fn note(note: &str) -> Result<(), Refusal> {
    bounded(Reason::Invalid, "a reason", note, 0, NOTE_BYTES_MAX)
}

pub fn labels(labels: &BTreeMap<String, String>) -> Result<(), Refusal> {
    if labels.len() > LABELS_MAX {
        let text = format!("{} labels are too many: {LABELS_MAX} at the most", labels.len());
        return Err(Refusal::new(Reason::LabelsInvalid, text));
    }
    for (name, value) in labels {
        bounded(Reason::LabelsInvalid, "the name of a label", name, 1, LABEL_BYTES_MAX)?;
        bounded(Reason::LabelsInvalid, "the value of a label", value, 0, LABEL_BYTES_MAX)?;
    }
    Ok(())
}

/// Seconds. What is shorter than the cluster's least is raised by the store.
pub fn ttl_s(ttl_s: i64) -> Result<(), Refusal> {
    if (1..=TTL_S_MAX).contains(&ttl_s) {
        return Ok(());
    }
    let text = format!("a TTL of {ttl_s} s cannot be had: choose 1 to {TTL_S_MAX}");
    Err(Refusal::new(Reason::TtlOutOfRange, text))
}

/// A session is a lease, and 0 is none.
pub fn session(session: i64) -> Result<(), Refusal> {
    if session != 0 {
        return Ok(());
    }
    Err(Refusal::new(Reason::Invalid, "the call names no session; open one, and send its id"))
}

fn bounded(reason: Reason, what: &str, text: &str, min: usize, max: usize) -> Result<(), Refusal> {
    if (min..=max).contains(&text.len()) {
        return Ok(());
    }
    Err(Refusal::new(reason, format!("{what} has {min} to {max} bytes, not {}", text.len())))
}
