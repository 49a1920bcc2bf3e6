//! A configuration file: YAML (so also JSON) whose keys are the flags' names, with etcd's few sections. What leaves this room are names
//! and texts as a command line would have given them, each with its line, and all complaints at once. Which keys there are it
//! only asks. The parser below is used for its events: they say what was written and where, which typed readers forget.

use std::collections::BTreeMap;

use saphyr_parser::{Event, Parser, ScalarStyle, Span, StrInput};

use super::go_syntax::Kind;

/// More than this is no configuration.
pub(super) const BYTES_MAX: usize = 1 << 20;
/// Of mappings and lists within each other: etcd's file has two.
const DEPTH_MAX: usize = 4;

/// One setting of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// The flag that it sets.
    pub flag: String,
    /// As written, with its section: `client-transport-security.cert-file`.
    pub key: String,
    pub value: String,
    pub line: usize,
}

/// What is wrong with a file, and in which line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Complaint {
    pub line: usize,
    pub text: String,
}

/// Section, key in it, the flag it sets.
const SECTIONS: &[(&str, &str, &str)] = &[
    ("client-transport-security", "cert-file", "cert-file"),
    ("client-transport-security", "key-file", "key-file"),
    ("client-transport-security", "client-cert-file", "client-cert-file"),
    ("client-transport-security", "client-key-file", "client-key-file"),
    ("client-transport-security", "client-cert-auth", "client-cert-auth"),
    ("client-transport-security", "ca-file", "ca-file"),
    ("client-transport-security", "trusted-ca-file", "trusted-ca-file"),
    ("client-transport-security", "auto-tls", "auto-tls"),
    // etcd has no flag for these two; what they ask for is the same.
    ("client-transport-security", "allowed-cn", "client-cert-allowed-hostname"),
    ("client-transport-security", "skip-client-san-verification", "peer-skip-client-san-verification"),
    ("client-transport-security", "allowed-hostname", "client-cert-allowed-hostname"),
    ("peer-transport-security", "cert-file", "peer-cert-file"),
    ("peer-transport-security", "key-file", "peer-key-file"),
    ("peer-transport-security", "client-cert-file", "peer-client-cert-file"),
    ("peer-transport-security", "client-key-file", "peer-client-key-file"),
    ("peer-transport-security", "client-cert-auth", "peer-client-cert-auth"),
    ("peer-transport-security", "ca-file", "peer-ca-file"),
    ("peer-transport-security", "trusted-ca-file", "peer-trusted-ca-file"),
    ("peer-transport-security", "auto-tls", "peer-auto-tls"),
    ("peer-transport-security", "allowed-cn", "peer-cert-allowed-cn"),
    ("peer-transport-security", "allowed-hostname", "peer-cert-allowed-hostname"),
    ("peer-transport-security", "skip-client-san-verification", "peer-skip-client-san-verification"),
    ("socket-options", "reuse-port", "socket-reuse-port"),
    ("socket-options", "reuse-address", "socket-reuse-address"),
    ("discovery-config", "endpoints", "discovery-endpoints"),
    ("discovery-config", "token", "discovery-token"),
    ("discovery-config", "dial-timeout", "discovery-dial-timeout"),
    ("discovery-config", "request-timeout", "discovery-request-timeout"),
    ("discovery-config", "keepalive-time", "discovery-keepalive-time"),
    ("discovery-config", "keepalive-timeout", "discovery-keepalive-timeout"),
];

/// Reads the text of a file. `known`: every flag that a file may set, and its kind.
pub(super) fn read(text: &str, known: &BTreeMap<String, Kind>) -> (Vec<Entry>, Vec<Complaint>) {
    let mut reading = Reading { known, entries: Vec::new(), complaints: Vec::new() };
    match tree(text) {
        Ok(None) => {}
        Ok(Some(Node { what: What::Mapping(pairs), .. })) => reading.top(pairs),
        Ok(Some(Node { line, .. })) => {
            reading.complain(line, "the file is not a mapping; write key: value, a line each".to_owned());
        }
        Err(complaint) => reading.complaints.push(complaint),
    }
    (reading.entries, reading.complaints)
}

struct Reading<'a> {
    known: &'a BTreeMap<String, Kind>,
    entries: Vec<Entry>,
    complaints: Vec<Complaint>,
}

impl Reading<'_> {
    fn top(&mut self, pairs: Vec<Pair>) {
        for pair in self.without_repetition(pairs, "") {
            if SECTIONS.iter().any(|(section, ..)| *section == pair.key) {
                self.section(pair);
            } else if self.known.contains_key(&pair.key) {
                let flag = pair.key.clone();
                self.setting(flag, pair.key, pair.value);
            } else {
                let sections = SECTIONS.iter().map(|(section, ..)| *section);
                let candidates = self.known.keys().map(String::as_str).chain(sections);
                let near = nearest(&pair.key, candidates);
                self.complain(pair.line, unknown(&pair.key, near));
            }
        }
    }

    fn section(&mut self, section: Pair) {
        let within = match section.value.what {
            What::Mapping(pairs) => pairs,
            What::Scalar { text, plain } if plain && is_null(&text) => return,
            What::Scalar { .. } | What::List(_) => {
                let text =
                    format!("{} is a section: write key: value below it, each line indented", section.key);
                return self.complain(section.line, text);
            }
        };
        for pair in self.without_repetition(within, &section.key) {
            let path = format!("{}.{}", section.key, pair.key);
            let own = || SECTIONS.iter().filter(|(name, ..)| *name == section.key);
            match own().find(|(_, key, _)| *key == pair.key) {
                Some((_, _, flag)) => self.setting((*flag).to_owned(), path, pair.value),
                None => self
                    .complain(pair.line, unknown(&path, nearest(&pair.key, own().map(|(_, key, _)| *key)))),
            }
        }
    }

    fn setting(&mut self, flag: String, key: String, value: Node) {
        let kind = self.known.get(&flag).copied().unwrap_or(Kind::Value);
        let line = value.line;
        match text_of(value.what, kind) {
            Ok(Some(value)) => self.entries.push(Entry { flag, key, value, line }),
            // As etcd: nothing behind the colon leaves the default.
            Ok(None) => {}
            Err(why) => self.complain(line, format!("{key} {why}")),
        }
    }

    fn without_repetition(&mut self, pairs: Vec<Pair>, section: &str) -> Vec<Pair> {
        let mut once: Vec<Pair> = Vec::new();
        for pair in pairs {
            match once.iter().find(|other| other.key == pair.key) {
                None => once.push(pair),
                Some(first) => {
                    let dot = if section.is_empty() { "" } else { "." };
                    let text =
                        format!("{section}{dot}{} is given twice, in line {} already", pair.key, first.line);
                    self.complain(pair.line, text);
                }
            }
        }
        once
    }

    fn complain(&mut self, line: usize, text: String) {
        self.complaints.push(Complaint { line, text });
    }
}

fn unknown(key: &str, nearest: Option<&str>) -> String {
    match nearest {
        Some(near) => format!("unknown key {key}; did you mean {near}?"),
        None => format!("unknown key {key}; keys are the names of flags"),
    }
}

/// The text that a command line would have; None for nothing.
fn text_of(what: What, kind: Kind) -> Result<Option<String>, &'static str> {
    match what {
        What::Mapping(_) => Err("takes a value and has keys below it"),
        What::List(items) if kind == Kind::List => {
            let mut texts = Vec::new();
            for item in items {
                match item.what {
                    What::Scalar { text, .. } => texts.push(text),
                    What::List(_) | What::Mapping(_) => return Err("takes a list of single values"),
                }
            }
            Ok(Some(texts.join(",")))
        }
        What::List(_) => Err("takes one value and has a list"),
        What::Scalar { text, plain: false } => Ok(Some(text)),
        What::Scalar { text, plain: true } if is_null(&text) => Ok(None),
        What::Scalar { text, plain: true } => Ok(Some(match kind {
            // What Go keeps a duration in, and what etcd's file therefore counts in.
            Kind::Duration if text.bytes().all(|byte| byte.is_ascii_digit()) => format!("{text}ns"),
            Kind::Boolean => match text.to_ascii_lowercase().as_str() {
                "yes" | "on" | "y" => "true".to_owned(),
                "no" | "off" | "n" => "false".to_owned(),
                _ => text,
            },
            Kind::Duration | Kind::List | Kind::Value => text,
        })),
    }
}

fn is_null(text: &str) -> bool {
    matches!(text, "" | "~" | "null" | "Null" | "NULL")
}

/// The candidate with the fewest letters to change, if that is not most of them.
pub(super) fn nearest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let (distance, near) = candidates.map(|candidate| (edits(word, candidate), candidate)).min()?;
    (distance <= word.len().max(3) / 3).then_some(near)
}

/// How many letters must be put in, taken out or changed to make one word of the other.
fn edits(from: &str, to: &str) -> usize {
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, left) in from.bytes().take(100).enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, right) in to.bytes().enumerate() {
            let changed = diagonal + usize::from(left != right);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[to.len()] + from.len().saturating_sub(100)
}

#[derive(Debug)]
struct Node {
    line: usize,
    what: What,
}

#[derive(Debug)]
enum What {
    /// `plain`: without quotes, so that words such as null have their YAML meaning.
    Scalar {
        text: String,
        plain: bool,
    },
    List(Vec<Node>),
    Mapping(Vec<Pair>),
}

#[derive(Debug)]
struct Pair {
    key: String,
    line: usize,
    value: Node,
}

/// The first and only document; None when there is nothing in it.
fn tree(text: &str) -> Result<Option<Node>, Complaint> {
    let mut events = Events(Parser::new_from_str(text));
    let mut root = None;
    loop {
        let (event, line) = events.next()?;
        match event {
            Event::StreamEnd => break,
            Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd | Event::Nothing => {}
            _ if root.is_some() => {
                return Err(Complaint {
                    line,
                    text: "a second document begins here; one is read".to_owned(),
                });
            }
            begun => root = Some(events.node(begun, line, 1)?),
        }
    }
    Ok(root.filter(|node| !matches!(&node.what, What::Scalar { text, plain: true } if is_null(text))))
}

struct Events<'a>(Parser<'a, StrInput<'a>>);

impl<'a> Events<'a> {
    fn next(&mut self) -> Result<(Event<'a>, usize), Complaint> {
        match self.0.next_event() {
            Some(Ok((event, Span { start, .. }))) => Ok((event, start.line())),
            Some(Err(error)) => {
                let text = format!("this is not YAML: {}", error.info());
                Err(Complaint { line: error.marker().line(), text })
            }
            None => Ok((Event::StreamEnd, 0)),
        }
    }

    fn node(&mut self, begun: Event<'a>, line: usize, depth: usize) -> Result<Node, Complaint> {
        let refused = |text: &str| Err(Complaint { line, text: text.to_owned() });
        if depth > DEPTH_MAX {
            return refused("no setting lies this deep");
        }
        let what = match begun {
            Event::Scalar(text, style, ..) => {
                What::Scalar { text: text.into_owned(), plain: style == ScalarStyle::Plain }
            }
            Event::SequenceStart(..) => {
                let mut items = Vec::new();
                loop {
                    match self.next()? {
                        (Event::SequenceEnd, _) => break What::List(items),
                        (item, line) => items.push(self.node(item, line, depth + 1)?),
                    }
                }
            }
            Event::MappingStart(..) => {
                let mut pairs = Vec::new();
                loop {
                    match self.next()? {
                        (Event::MappingEnd, _) => break What::Mapping(pairs),
                        (Event::Scalar(key, ..), line) => {
                            let (value, value_line) = self.next()?;
                            let value = self.node(value, value_line, depth + 1)?;
                            pairs.push(Pair { key: key.into_owned(), line, value });
                        }
                        (_, line) => {
                            return Err(Complaint { line, text: "a key is a plain word".to_owned() });
                        }
                    }
                }
            }
            Event::Alias(_) => return refused("aliases (*) are not read; write the value itself"),
            _ => return refused("the document ends where a value should stand"),
        };
        Ok(Node { line, what })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// Flag, value, line.
    type Set = (String, String, usize);

    fn read_with(text: &str) -> (Vec<Set>, Vec<(usize, String)>) {
        let known = [
            ("name", Kind::Value),
            ("data-dir", Kind::Value),
            ("pre-vote", Kind::Boolean),
            ("corrupt-check-time", Kind::Duration),
            ("heartbeat-interval", Kind::Value),
            ("log-outputs", Kind::List),
            ("cert-file", Kind::Value),
            ("peer-client-cert-auth", Kind::Boolean),
        ];
        let known = known.map(|(name, kind)| (name.to_owned(), kind)).into_iter().collect();
        let (entries, complaints) = read(text, &known);
        (
            entries.into_iter().map(|entry| (entry.flag, entry.value, entry.line)).collect(),
            complaints.into_iter().map(|complaint| (complaint.line, complaint.text)).collect(),
        )
    }

    fn settings(text: &str) -> Vec<Set> {
        let (entries, complaints) = read_with(text);
        assert!(complaints.is_empty(), "{complaints:?}");
        entries
    }

    fn complaint(text: &str) -> (usize, String) {
        let (_, mut complaints) = read_with(text);
        assert_eq!(complaints.len(), 1, "{complaints:?}");
        complaints.remove(0)
    }

    fn set(flag: &str, value: &str, line: usize) -> Set {
        (flag.to_owned(), value.to_owned(), line)
    }

    #[test]
    fn texts_are_those_of_a_command_line() {
        let text = "# a comment\nname: 'a b'\ndata-dir:\n\npre-vote: off\ncorrupt-check-time: 600000000000\n\
                    heartbeat-interval: 100\nlog-outputs: [stderr, /x.log]\n";
        let expected = [
            set("name", "a b", 2),
            set("pre-vote", "false", 5),
            set("corrupt-check-time", "600000000000ns", 6),
            set("heartbeat-interval", "100", 7),
            set("log-outputs", "stderr,/x.log", 8),
        ];
        assert_eq!(settings(text), expected);
        assert_eq!(settings("corrupt-check-time: 1h30m"), [set("corrupt-check-time", "1h30m", 1)]);
        assert_eq!(settings("name: 'null'"), [set("name", "null", 1)]);
        assert_eq!(
            settings(r#"{"name": "j", "pre-vote": false}"#),
            [set("name", "j", 1), set("pre-vote", "false", 1)]
        );
        for nothing in ["", "---\n", "# nothing\n", "~", "name: ~", "client-transport-security:\n"] {
            assert_eq!(settings(nothing), [], "{nothing:?}");
        }
    }

    #[test]
    fn sections_set_flags() {
        let text = "client-transport-security:\n  cert-file: c\npeer-transport-security:\n  client-cert-auth: true\n";
        assert_eq!(settings(text), [set("cert-file", "c", 2), set("peer-client-cert-auth", "true", 4)]);
    }

    #[test]
    fn complaints_name_the_line_and_what_was_meant() {
        let cases = [
            (
                "name: a\nhartbeat-interval: 1",
                2,
                "unknown key hartbeat-interval; did you mean heartbeat-interval?",
            ),
            ("x: 1", 1, "unknown key x; keys are the names of flags"),
            (
                "peer-transport-securty:\n  a: b",
                1,
                "unknown key peer-transport-securty; did you mean peer-transport-security?",
            ),
            (
                "client-transport-security:\n  certfile: c",
                2,
                "unknown key client-transport-security.certfile; did you mean cert-file?",
            ),
            (
                "client-transport-security: c",
                1,
                "client-transport-security is a section: write key: value below it, each line indented",
            ),
            ("name: a\nname: b", 2, "name is given twice, in line 1 already"),
            ("name: [a]", 1, "name takes one value and has a list"),
            ("name:\n  a: b", 2, "name takes a value and has keys below it"),
            ("- name", 1, "the file is not a mapping; write key: value, a line each"),
            ("name: a\n---\nname: b", 3, "a second document begins here; one is read"),
            ("name: &a x\ndata-dir: *a", 2, "aliases (*) are not read; write the value itself"),
            ("log-outputs: [[[[[[a]]]]]]", 1, "no setting lies this deep"),
        ];
        for (text, line, expected) in cases {
            assert_eq!(complaint(text), (line, expected.to_owned()), "{text}");
        }
        let (line, text) = complaint("name: a\n  data-dir: 'x");
        assert!(line >= 2 && text.starts_with("this is not YAML: "), "{line} {text}");
    }

    #[test]
    fn all_is_complained_of_at_once() {
        let (entries, complaints) = read_with("nam: a\ndata-dir: d\npre-vot: true\nname: [x]\n");
        assert_eq!(entries, [set("data-dir", "d", 2)]);
        assert_eq!(complaints.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [1, 3, 4]);
    }
}
