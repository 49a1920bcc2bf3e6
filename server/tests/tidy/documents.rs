//! What README.md and ARCHITECTURE.md claim, and what is so: the tree, the files and tests they name. Knows no rule.

use std::collections::{BTreeMap, BTreeSet};

use super::grammar::is_word;
use super::workspace::numbered;

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
