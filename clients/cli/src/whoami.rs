//! What this process says of itself to those who look, and how others are shown that did the same.

use std::collections::BTreeMap;
use std::ffi::OsString;

/// Longest label, bytes: the server's bound.
const LABEL_BYTES_MAX: usize = 256;

/// Who holds, waits or stands: host, process and command.
pub fn labels(command: &[OsString]) -> BTreeMap<String, String> {
    let words: Vec<_> = command.iter().map(|word| word.to_string_lossy()).collect();
    let mut labels = BTreeMap::new();
    labels.insert("host".to_owned(), host());
    labels.insert("pid".to_owned(), std::process::id().to_string());
    labels.insert("command".to_owned(), cut(&words.join(" ")));
    labels
}

pub fn host() -> String {
    cut(&rustix::system::uname().nodename().to_string_lossy())
}

/// For the record of those who act with force.
pub fn operator() -> String {
    let user = std::env::var("USER").unwrap_or_else(|_| "somebody".into());
    cut(&format!("{user}@{}", host()))
}

/// From its labels if it has some, else by the id that it chose.
pub fn show(labels: &BTreeMap<String, String>, id: &str) -> String {
    match (labels.get("host"), labels.get("pid")) {
        (Some(host), Some(pid)) => format!("{host}:{pid}"),
        (Some(host), None) => format!("{host}/{id}"),
        (None, _) => id.to_owned(),
    }
}

fn cut(text: &str) -> String {
    let mut end = text.len().min(LABEL_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}
