//! Makes two outcomes comparable: what must differ between two servers (ids, ports, sizes, clocks, the Raft log's numbers)
//! becomes a word, and everything else stays as it was printed. Two ids that are equal in one outcome must be equal in the other,
//! so an id becomes its number in the order of appearance, whichever way it was written.

use std::collections::BTreeMap;

use crate::harness::{Finished, Launch};

/// What is written down instead of lines, or an end, that did not come.
pub const MISSING: &str = "<in vain>";

/// Fields of `-w json`, of `-w fields` and of the client's own log lines whose value is the server's own affair.
const PRIVATE_FIELDS: &[&str] = &[
    "raft_term",
    "RaftTerm",
    "raftTerm",
    "raftIndex",
    "RaftIndex",
    "raftAppliedIndex",
    "RaftAppliedIndex",
    "dbSize",
    "DBSize",
    "dbSizeInUse",
    "DBSizeInUse",
    "version",
    "Version",
    "hash",
    "Hash",
    "took",
    "Took",
    "ts",
    "target",
    "endpoint",
    "Endpoint",
];
/// What remains of a lease goes by the clock, but only there: what was granted must be compared.
const REMAINING_FIELDS: &[&str] = &["ttl", "TTL"];
/// Fields named like private ones, of a pair that is nobody's own affair.
const PUBLIC_AFTER: &[&str] = &["\"Version\" : ", "\"version\":"];
const PRIVATE_COLUMNS: &[&str] =
    &["DB SIZE", "VERSION", "RAFT TERM", "RAFT INDEX", "RAFT APPLIED INDEX", "HASH", "TOOK"];

pub struct Normaliser {
    /// Texts that stand for this server, the longest first.
    own: Vec<(String, &'static str)>,
    ids: BTreeMap<u64, usize>,
}

impl Normaliser {
    pub fn new(launch: &Launch) -> Normaliser {
        let own = vec![
            (launch.endpoint(), "<endpoint>"),
            (format!("127.0.0.1:{}", launch.client_port), "<address>"),
            (launch.peer_url(), "<peer>"),
        ];
        Normaliser { own, ids: BTreeMap::new() }
    }

    pub fn normalise(&mut self, finished: &Finished) -> String {
        let end =
            if finished.endless { MISSING.to_owned() } else { format!("exit code {}", finished.code()) };
        format!("{end}\nstdout:\n{}stderr:\n{}", self.text(&finished.stdout), self.text(&finished.stderr))
    }

    fn text(&mut self, text: &str) -> String {
        let mut text = text.to_owned();
        for (own, word) in &self.own {
            text = text.replace(own, word);
        }
        let remaining = text.contains("\"granted-ttl\"") || text.contains("\"GrantedTTL\"");
        let mut columns = Vec::new();
        let mut lines = String::new();
        for line in text.lines() {
            let line = if remaining { private_fields(line, REMAINING_FIELDS) } else { line.to_owned() };
            lines.push_str(&self.line(&line, &mut columns));
            lines.push('\n');
        }
        lines
    }

    /// `columns` are the heads of the table that the line may be part of.
    fn line(&mut self, line: &str, columns: &mut Vec<String>) -> String {
        if line.starts_with("+--") {
            return "+".to_owned();
        }
        if line.starts_with('|') {
            return self.number_ids(&table_row(line, columns));
        }
        columns.clear();
        let line = private_fields(line, PRIVATE_FIELDS);
        let line = after(&line, "took = ");
        let line = within(&line, "remaining(", ")", |_| "#".to_owned());
        // etcd names a lease's keys in the order of a hash map.
        let line = within(&line, "attached keys([", "])", |keys| sorted(keys, " "));
        let line = within(&line, "\"keys\":[", "]", |keys| sorted(keys, ","));
        self.number_ids(&status_line(&line))
    }

    fn number_ids(&mut self, line: &str) -> String {
        let mut result = String::new();
        for token in tokens(line) {
            match id(token) {
                Some(id) => {
                    let next = self.ids.len() + 1;
                    let number = self.ids.entry(id).or_insert(next);
                    result.push_str(&format!("<id {number}>"));
                }
                None => result.push_str(token),
            }
        }
        result
    }
}

/// The first id in a text, in the form in which etcdctl takes it.
pub fn first_id(text: &str) -> Option<String> {
    tokens(text).find_map(id).map(|id| format!("{id:x}"))
}

/// Ids are 64 bits at random: long in hex, longer in decimal. Nothing else that etcdctl prints looks so.
fn id(token: &str) -> Option<u64> {
    match token.len() {
        12..=16 if token.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) => {
            u64::from_str_radix(token, 16).ok()
        }
        17..=20 => token.parse().ok(),
        _ => None,
    }
}

/// The text cut into words and what is between them.
fn tokens(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let first = rest.chars().next()?;
        let is_word = |sign: char| sign.is_alphanumeric() || sign == '_';
        let end = rest.find(|sign| is_word(sign) != is_word(first)).unwrap_or(rest.len());
        let (token, after) = rest.split_at(end);
        rest = after;
        Some(token)
    })
}

/// Replaces the value after each private field's name, in JSON (`"name":value`) and in the form `"Name" : value`.
fn private_fields(line: &str, fields: &[&str]) -> String {
    let mut line = line.to_owned();
    for field in fields {
        for name in [format!("\"{field}\":"), format!("\"{field}\" : ")] {
            // A pair's version counts its puts and must be compared; a server's version is a text.
            let only_text = PUBLIC_AFTER.contains(&name.as_str());
            let mut from = 0;
            while let Some(at) = line[from..].find(&name) {
                let start = from + at + name.len();
                let end = start + value_end(&line[start..]);
                if !only_text || line[start..].starts_with('"') {
                    line.replace_range(start..end, "#");
                }
                from = start + 1;
                if from >= line.len() {
                    break;
                }
            }
        }
    }
    line
}

fn value_end(text: &str) -> usize {
    match text.strip_prefix('"') {
        Some(rest) => rest.find('"').map_or(text.len(), |end| end + 2),
        None => text.find([',', '}', ']']).unwrap_or(text.len()),
    }
}

/// Everything behind the mark is a duration.
fn after(line: &str, mark: &str) -> String {
    line.split_once(mark).map_or_else(|| line.to_owned(), |(before, _)| format!("{before}{mark}#"))
}

/// Changes what stands between two marks, if they are there.
fn within(line: &str, open: &str, close: &str, change: impl Fn(&str) -> String) -> String {
    let Some((before, rest)) = line.split_once(open) else { return line.to_owned() };
    let Some((between, rest)) = rest.split_once(close) else { return line.to_owned() };
    format!("{before}{open}{}{close}{rest}", change(between))
}

fn sorted(list: &str, separator: &str) -> String {
    let mut items: Vec<&str> = list.split(separator).collect();
    items.sort_unstable();
    items.join(separator)
}

/// `endpoint status` and `endpoint hashkv` in their simple form: a line of values without names.
fn status_line(line: &str) -> String {
    let mut cells: Vec<&str> = line.split(", ").collect();
    if !matches!(cells[0], "<endpoint>" | "<address>") {
        return line.to_owned();
    }
    let private: &[usize] = if cells.len() == 2 { &[1] } else { &[2, 3, 6, 7, 8] };
    for &cell in private {
        if let Some(cell) = cells.get_mut(cell) {
            *cell = "#";
        }
    }
    cells.join(", ")
}

fn table_row(line: &str, columns: &mut Vec<String>) -> String {
    let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
    if columns.is_empty() {
        *columns = cells.iter().map(|cell| (*cell).to_owned()).collect();
        return cells.join(" | ");
    }
    let hidden =
        |column: usize| columns.get(column).is_some_and(|name| PRIVATE_COLUMNS.contains(&name.as_str()));
    let shown: Vec<&str> =
        cells.iter().enumerate().map(|(column, cell)| if hidden(column) { "#" } else { *cell }).collect();
    shown.join(" | ")
}
