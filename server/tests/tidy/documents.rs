//! What README.md and ARCHITECTURE.md claim, and what is so: the tree, the flags, the files and tests they name. Knows no rule.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;

use tenured::config::{self, Invocation};

use super::grammar::is_word;
use super::workspace::{numbered, read};

/// Paths in the fenced block under "The tree", two spaces of indent a level, each with its line.
pub fn tree(readme: &str) -> BTreeMap<String, usize> {
    let lines = numbered(readme).skip_while(|(_, line)| *line != "## The tree");
    let lines = lines.skip_while(|(_, line)| !line.starts_with("```")).skip(1);
    let (mut paths, mut above) = (BTreeMap::new(), Vec::<String>::new());
    for (number, line) in lines.take_while(|(_, line)| !line.starts_with("```")) {
        let level = line.chars().take_while(|character| *character == ' ').count() / 2;
        above.truncate(level);
        above.push(line.split_whitespace().next().unwrap_or_default().to_owned());
        paths.insert(above.concat(), number);
    }
    assert!(!paths.is_empty(), "README.md has no tree under \"## The tree\"");
    paths
}

/// Flags in backquotes under a heading; in a table only the first of each row.
pub fn flags_under(readme: &str, heading: &str) -> BTreeSet<String> {
    let heading = format!("### {heading}");
    let lines = readme.lines().skip_while(|line| *line != heading).skip(1);
    let mut flags = BTreeSet::new();
    for line in lines.take_while(|line| !line.starts_with('#')) {
        let quoted = line.split('`').skip(1).step_by(2);
        let most = if line.starts_with('|') { 1 } else { usize::MAX };
        flags.extend(quoted.take(most).filter_map(|flag| flag.strip_prefix("--")).map(str::to_owned));
    }
    flags
}

/// All flags under the headings that they belong under, found out by giving each to the configuration.
pub fn flags_by_heading() -> BTreeMap<&'static str, BTreeSet<String>> {
    let mut flags: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for flag in defaults().into_keys() {
        let heading = match given(&flag) {
            Outcome { refused: true, .. } => "Refused",
            Outcome { warned: true, .. } => "Understood, without effect yet",
            Outcome { .. } => "Honoured",
        };
        flags.entry(heading).or_default().insert(flag);
    }
    for flag in foreign_flags() {
        let heading = match given(&flag) {
            Outcome { refused: true, .. } => "Refused",
            Outcome { warned: true, .. } => "Accepted with a warning",
            Outcome { .. } => panic!("--{flag} of config/foreign.rs is passed over in silence"),
        };
        flags.entry(heading).or_default().insert(flag);
    }
    flags
}

#[derive(Default)]
struct Outcome {
    refused: bool,
    warned: bool,
}

/// What becomes of a flag that asks for something: tried with texts of all kinds, those that it cannot mean do not count.
fn given(flag: &str) -> Outcome {
    let texts: &[&str] = match flag {
        "feature-gates" => &["LeaseCheckpoint=true"],
        _ => &["true", "false", "7", "7s", "http://127.0.0.1:7", "word"],
    };
    let mut outcome = Outcome::default();
    for text in texts {
        let arguments = [OsString::from(format!("--{flag}={text}"))];
        match config::read(arguments, []) {
            Ok(Invocation::Run { warnings, .. }) => {
                outcome.warned |= warnings.iter().any(|warning| is_of_no_use(warning));
            }
            Ok(Invocation::Print(_)) => panic!("--{flag}={text} asks for nothing but a text"),
            Err(error) => outcome.refused |= is_not_there(&error.to_string()),
        }
    }
    outcome
}

/// Other warnings are advice.
fn is_of_no_use(warning: &str) -> bool {
    ["has no effect", "is accepted but not used", "is the old name of"]
        .iter()
        .any(|words| warning.contains(words))
}

/// Other errors are about the text, not about the flag.
fn is_not_there(error: &str) -> bool {
    ["is not available", "cannot honour"].iter().any(|words| error.contains(words))
}

/// Our own flags with their defaults, as `--help` gives them.
pub fn defaults() -> BTreeMap<String, String> {
    let Ok(Invocation::Print(help)) = config::read([OsString::from("--help")], []) else {
        panic!("--help gives no help");
    };
    let (flags, _examples) = help.split_once("\nExamples:").expect("the help ends with examples");
    let mut defaults = BTreeMap::new();
    for flag in flags.split("\n      --").skip(1) {
        let words: Vec<&str> = flag.split_whitespace().collect();
        let text = words.join(" ");
        let default = text.split_once("[default: ").and_then(|(_, rest)| rest.split(']').next());
        defaults.insert(words[0].to_owned(), default.unwrap_or_default().to_owned());
    }
    defaults
}

/// Names in the table of foreign flags, read from its source: at run time they are nobody's business.
fn foreign_flags() -> BTreeSet<String> {
    let text = read("server/src/config/foreign.rs");
    let (_, table) = text.split_once("const FOREIGN: ").expect("config/foreign.rs has its table");
    let (table, _) = table.split_once("\n];").expect("the table ends");
    let rows = table.split("\n    (").skip(1);
    let flags: BTreeSet<String> = rows.filter_map(|row| row.split('"').nth(1)).map(str::to_owned).collect();
    assert!(flags.len() > 100, "read only {} foreign flags from the table", flags.len());
    flags
}

/// What stands in backquotes and looks like a path of this repository, each with its line.
pub fn paths_named(text: &str) -> Vec<(usize, &str)> {
    let looks_like_one = |word: &&str| {
        let plain = word.chars().all(|character| is_word(character) || "/.-".contains(character));
        let ending = [".rs", ".md", ".toml", ".proto", ".txt"].iter().any(|ending| word.ends_with(ending));
        plain && !word.starts_with(['/', '-', '.']) && (ending || word.ends_with('/'))
    };
    let mut paths = Vec::new();
    let mut fenced = false;
    for (number, line) in numbered(text) {
        fenced ^= line.starts_with("```");
        if !fenced {
            let quoted = line.split('`').skip(1).step_by(2);
            paths.extend(quoted.filter(looks_like_one).map(|path| (number, path)));
        }
    }
    paths
}

/// Names of tests, and of modules that lie in files of their own, as they are declared in a source.
pub fn tests_and_modules(text: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    // Whether one of the attributes right above makes what follows a test.
    let mut is_test = false;
    for line in text.lines().map(str::trim_start) {
        let word = |rest: &str| rest[..rest.find(|character| !is_word(character)).unwrap_or(0)].to_owned();
        if line.starts_with("#[") {
            is_test |= line.contains("test");
        } else if let Some(rest) = line.strip_prefix("fn ").or(line.strip_prefix("async fn ")) {
            if std::mem::take(&mut is_test) {
                names.insert(word(rest));
            }
        } else if let Some(rest) = line.strip_prefix("mod ") {
            names.insert(word(rest));
        } else if !line.starts_with("//") {
            is_test = false;
        }
    }
    names
}

/// Rows like `| L7 | … |`: line, name, and what is said there.
pub fn rows_of_failures(text: &str) -> Vec<(usize, String, &str)> {
    let row = |(number, line): (usize, &'_ str)| {
        let (name, _) = line.strip_prefix("| ")?.split_once('|')?;
        let name = name.trim_end();
        let digits = name.strip_prefix(['S', 'L', 'E', 'R'])?;
        let is_one = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        is_one.then(|| (number, name.to_owned()))
    };
    let rows = numbered(text).filter_map(|(number, line)| Some((row((number, line))?, line)));
    rows.map(|((number, name), line)| (number, name, line)).collect()
}

/// Words in backquotes that can only be a test's or an invariant's name, being so long.
pub fn long_names(text: &str) -> Vec<&str> {
    let is_one = |word: &&str| {
        word.matches('_').count() >= 2
            && word.chars().all(|character| is_word(character) && !character.is_uppercase())
    };
    text.split('`').skip(1).step_by(2).filter(is_one).collect()
}
