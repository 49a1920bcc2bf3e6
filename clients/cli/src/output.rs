//! How results are printed: for eyes, or as JSON for programs.

use std::io::Write;

use clap::ValueEnum;
use serde_json::{Map, Value};

use crate::failure::Failure;

/// What `--output` takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Table,
    Json,
}

/// One thing said of a result.
pub struct Fact {
    /// For programs.
    pub key: &'static str,
    /// For eyes.
    pub label: &'static str,
    pub value: Value,
    /// Behind the value, for eyes only.
    pub note: String,
}

impl Fact {
    pub fn new(key: &'static str, label: &'static str, value: impl Into<Value>) -> Fact {
        Fact { key, label, value: value.into(), note: String::new() }
    }

    pub fn note(mut self, note: impl Into<String>) -> Fact {
        self.note = note.into();
        self
    }
}

/// Prints facts of one thing: as lines, or as one object.
pub fn print(format: Format, facts: Vec<Fact>) -> Result<(), Failure> {
    let text = match format {
        Format::Json => {
            let object: Map<String, Value> =
                facts.into_iter().map(|fact| (fact.key.to_owned(), fact.value)).collect();
            Value::Object(object).to_string()
        }
        Format::Table => {
            let width = facts.iter().map(|fact| fact.label.len()).max().unwrap_or(0);
            let line = |fact: Fact| {
                let value = match fact.value {
                    Value::String(text) => text,
                    other => other.to_string(),
                };
                format!("{:width$}  {value} {}", fact.label, fact.note).trim_end().to_owned()
            };
            facts.into_iter().map(line).collect::<Vec<_>>().join("\n")
        }
    };
    say(&text)
}

/// Prints things of one kind: as a table with a head, or as JSON.
pub fn print_all(format: Format, head: &[&str], rows: Vec<Vec<String>>, json: Value) -> Result<(), Failure> {
    match format {
        Format::Json => say(&json.to_string()),
        Format::Table => say(&table(head, rows)),
    }
}

/// Columns as wide as their widest cell, two spaces apart.
pub fn table(head: &[&str], rows: Vec<Vec<String>>) -> String {
    let head = head.iter().map(|title| (*title).to_owned()).collect();
    let rows: Vec<Vec<String>> = std::iter::once(head).chain(rows).collect();
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Bytes for eyes: as they are if they are text on one line, else escaped.
pub fn text(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.chars().any(char::is_control) => text.to_owned(),
        _ => bytes.escape_ascii().to_string(),
    }
}

/// Bytes for programs: a string if they are UTF-8, else an object with them in hexadecimal.
pub fn json(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.into(),
        Err(_) => {
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            serde_json::json!({ "hex": hex })
        }
    }
}

/// A line on standard output. A reader that went away, as with `| head`, is no failure.
pub fn say(text: &str) -> Result<(), Failure> {
    match writeln!(std::io::stdout(), "{text}") {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::failed(format!("cannot write to standard output: {error}")))
        }
        _ => Ok(()),
    }
}

/// 1536 as `1.5 KiB`.
pub fn bytes(count: u64) -> String {
    indicatif::BinaryBytes(count).to_string()
}
