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
