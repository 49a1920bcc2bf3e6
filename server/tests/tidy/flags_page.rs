//! docs/flags.md as it should be: every flag of etcd's and ours, found in `--help` and in the table of foreign flags, and what becomes
//! of each, found out by giving it to the configuration. So the page cannot say what the server does not.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fmt::Write;

use tenured::config::{self, Invocation};

use super::workspace::read;

/// One of our own flags, as `--help` has it.
struct Flag {
    heading: String,
    name: String,
    default: String,
    about: String,
}

/// What becomes of a flag that asks for something.
#[derive(Default)]
struct Outcome {
    refused: Option<String>,
    unused: Option<String>,
    renamed: Option<String>,
}

const OPENING: &str = "\
# Flags

*Made from the code by `server/tests/tidy.rs`; it is not written by hand.*

Every flag of etcd 3.4 to 3.6 is here. None is passed over in silence: it works, or it gives a warning that says what it means here, or,
where going on would take away something its author relies on, the server does not start.

A flag is written `--name=value`, `--name value` or `-name value`, booleans `--name` or `--name=false`. Durations are `300ms`, `5s`, `1h30m`;
sizes are bytes, `512MB` (thousands) or `2GiB` (of 1024). `tenured --help` says all of this too.

**Environment.** `--data-dir` is also `TENURE_DATA_DIR`, else `ETCD_DATA_DIR`. A flag and an `ETCD_` variable for the same thing are refused, as in
etcd.

**File.** `--config-file FILE` (or `TENURE_CONFIG_FILE`, `ETCD_CONFIG_FILE`) names a YAML or JSON file with the same names as keys, and etcd's sections
`client-transport-security`, `peer-transport-security`, `socket-options` and `discovery-config`. As in etcd, flags and variables beside a
file do not count (a warning names them), and a bare number for a duration is nanoseconds; `5s` is understood too. A key that is not known is
an error, with its line and the nearest known one; etcd passes over it.

**Check.** `tenured config check [FILE] [flags]` prints what would be used and where each value comes from, itself a configuration file; or
every error at once, and ends with 1 or 2.
";

pub fn page() -> String {
    let mut page = OPENING.to_owned();
    let (mut idle, mut refused) = (Vec::new(), Vec::new());
    let mut heading = String::new();
    for flag in own() {
        match given(&flag.name) {
            Outcome { refused: Some(why), .. } => refused.push((why, flag.name)),
            Outcome { unused: Some(why), .. } => idle.push((why, flag.name)),
            Outcome { .. } => {
                if flag.heading != heading {
                    heading.clone_from(&flag.heading);
                    write!(page, "\n## {heading}\n\n| flag | default | what it does |\n|---|---|---|\n")
                        .unwrap();
                }
                writeln!(page, "| `--{}` | {} | {} |", flag.name, cell(&flag.default), cell(&flag.about))
                    .unwrap();
            }
        }
    }
    let (mut ignored, mut renamed) = (Vec::new(), Vec::new());
    for flag in foreign() {
        match given(&flag) {
            Outcome { refused: Some(why), .. } => refused.push((why, flag)),
            Outcome { renamed: Some(new), .. } => renamed.push((format!("`--{new}`"), flag)),
            Outcome { unused: Some(why), .. } => ignored.push((why, flag)),
            Outcome { .. } => panic!("--{flag} of config/foreign.rs is passed over in silence"),
        }
    }
    let about = "Known flags whose value is checked and then not needed; another value than the default gives a warning.";
    section(&mut page, "Understood, without effect", about, "why", idle);
    let about =
        "Settings of etcd's that mean nothing here, and names it gave up long ago. Each gives a warning.";
    section(&mut page, "Accepted with a warning", about, "what it means here", ignored);
    section(&mut page, "Old names", "Read as the new ones, with a warning.", "read as", renamed);
    let about = "While they ask for something: to start without these would be to start without what the operator relies on.";
    section(&mut page, "Refused", about, "why", refused);
    page
}

/// A table of flags, those with the same reason in one row.
fn section(page: &mut String, title: &str, about: &str, column: &str, rows: Vec<(String, String)>) {
    let mut by_reason: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (why, flag) in rows {
        by_reason.entry(why).or_default().push(format!("`--{flag}`"));
    }
    let mut rows: Vec<(String, String)> =
        by_reason.into_iter().map(|(why, flags)| (flags.join(", "), why)).collect();
    rows.sort();
    write!(page, "\n## {title}\n\n{about}\n\n| flags | {column} |\n|---|---|\n").unwrap();
    for (flags, why) in rows {
        writeln!(page, "| {flags} | {} |", cell(&why)).unwrap();
    }
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('*', "\\*")
}

fn given(flag: &str) -> Outcome {
    // Texts of all kinds: those that the flag cannot mean do not count.
    let texts: &[&str] = match flag {
        "feature-gates" => &["LeaseCheckpoint=true"],
        _ => &["true", "false", "7", "7s", "http://127.0.0.1:7", "word"],
    };
    let mut outcome = Outcome::default();
    for text in texts {
        let arguments = [OsString::from(format!("--{flag}={text}"))];
        match config::read(arguments, []) {
            Ok(Invocation::Run { warnings, .. }) => warnings.iter().for_each(|warning| outcome.note(warning)),
            Ok(Invocation::Print(_) | Invocation::Check(_)) => panic!("--{flag}={text} asks for a text"),
            Err(error) => outcome.note_error(&error.to_string()),
        }
    }
    outcome
}

impl Outcome {
    /// Other warnings are advice.
    fn note(&mut self, warning: &str) {
        let behind = |words: &str| warning.split_once(words).map(|(_, rest)| rest.to_owned());
        let why = ["has no effect: ", "is accepted but not used: "].iter().find_map(|words| behind(words));
        self.unused = self.unused.take().or(why);
        self.renamed = self.renamed.take().or(behind("is the old name of --"));
    }

    /// Other errors are about the text, not about the flag.
    fn note_error(&mut self, error: &str) {
        let error = error.trim_end_matches("; see 'tenured --help'");
        let cannot = error.strip_prefix("cannot honour ").and_then(|rest| rest.split_once(": "));
        let absent =
            error.split_once("is not available").map(|(_, rest)| rest.trim_start_matches([':', ';', ' ']));
        let why = cannot.map(|(_, why)| why).or(absent);
        self.refused = self.refused.take().or(why.map(str::to_owned));
    }
}

fn own() -> Vec<Flag> {
    let Ok(Invocation::Print(help)) = config::read([OsString::from("--help")], []) else {
        panic!("--help gives no help");
    };
    let (help, _examples) = help.split_once("\nFlags are written").expect("flags, then how to write them");
    let (mut flags, mut heading) = (Vec::new(), String::new());
    for part in help.split("\n\n").skip(1) {
        let mut pieces = part.split("\n      --");
        if let Some(first) = pieces.next().and_then(|line| line.trim().strip_suffix(':')) {
            first.clone_into(&mut heading);
        }
        for flag in pieces {
            let text = flag.split_whitespace().collect::<Vec<_>>().join(" ");
            let (name, rest) = text.split_once(' ').expect("a flag, its value, what it does");
            let (_, rest) = rest.split_once("> ").expect("a value in angles");
            let default = rest.split_once("[default: ").and_then(|(_, rest)| rest.split(']').next());
            flags.push(Flag {
                heading: heading.clone(),
                name: name.to_owned(),
                default: default.unwrap_or_default().to_owned(),
                about: rest.split(" [default: ").next().unwrap_or_default().to_owned(),
            });
        }
    }
    assert!(flags.len() > 40, "read only {} flags from the help", flags.len());
    flags
}

/// Names in the table of foreign flags, read from its source: at run time they are nobody's business.
fn foreign() -> BTreeSet<String> {
    let text = read("server/src/config/foreign.rs");
    let (_, table) = text.split_once("const FOREIGN: ").expect("config/foreign.rs has its table");
    let (table, _) = table.split_once("\n];").expect("the table ends");
    let rows = table.split("\n    (").skip(1);
    let flags: BTreeSet<String> = rows.filter_map(|row| row.split('"').nth(1)).map(str::to_owned).collect();
    assert!(flags.len() > 100, "read only {} foreign flags from the table", flags.len());
    flags
}
