//! Where our answers differ from etcd's on purpose: a page for people that the test believes to the letter.
//!
//! ```text
//! ## txn/name_of_the_script
//! Why it differs.
//!
//!     - a line of ours
//!     + the line of etcd's in its place
//!
//! ## kv/another (not asked)
//! Why it cannot be put to etcd at all.
//! ```

use std::collections::BTreeMap;
use std::path::Path;

#[derive(Default)]
struct Entry {
    reason: String,
    lines: Vec<String>,
    asked: bool,
    not_to_be_asked: bool,
}

const NOT_ASKED: &str = " (not asked)";

#[derive(Default)]
pub struct Differences {
    entries: BTreeMap<String, Entry>,
}

impl Differences {
    pub fn read(path: &Path) -> Differences {
        let page =
            std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Differences::parse(&page)
    }

    fn parse(page: &str) -> Differences {
        let mut entries = BTreeMap::new();
        for section in page.split("\n## ").skip(1) {
            let (name, body) = section.split_once('\n').unwrap_or((section, ""));
            let not_to_be_asked = name.ends_with(NOT_ASKED);
            let name = name.trim_end_matches(NOT_ASKED).trim();
            let mut entry = Entry { not_to_be_asked, ..Entry::default() };
            for line in body.lines() {
                match line.strip_prefix("    ") {
                    Some(difference) => entry.lines.push(difference.to_string()),
                    None => entry.reason.push_str(line),
                }
            }
            assert!(!entry.reason.trim().is_empty(), "{name}: a difference needs a reason");
            assert!(entries.insert(name.to_string(), entry).is_none(), "{name} is listed twice");
        }
        Differences { entries }
    }

    /// Whether etcd can be asked at all.
    pub fn can_ask(&self, name: &str) -> bool {
        self.entries.get(name).is_none_or(|entry| !entry.not_to_be_asked)
    }

    /// What is wrong, if anything: a difference that is not listed, or a listed one that is not there.
    pub fn judge(&mut self, name: &str, ours: &str, theirs: &str) -> Option<String> {
        let found = differing(ours, theirs);
        let listed = match self.entries.get_mut(name) {
            Some(entry) => {
                entry.asked = true;
                entry.lines.as_slice()
            }
            None => &[],
        };
        if found == listed {
            return None;
        }
        let shown: Vec<String> = found.iter().map(|line| format!("    {line}")).collect();
        Some(match (found.is_empty(), listed.is_empty()) {
            (true, _) => format!("## {name}\nis listed as a difference, but etcd says the same: take it off"),
            (_, true) => format!("## {name}\n\n{}", shown.join("\n")),
            _ => format!("## {name}\n(listed otherwise)\n\n{}", shown.join("\n")),
        })
    }

    /// Entries whose script is not there, or was not put to etcd.
    pub fn unasked(&self) -> impl Iterator<Item = String> {
        let unasked = self.entries.iter().filter(|(_, entry)| !entry.asked && !entry.not_to_be_asked);
        unasked.map(|(name, _)| format!("## {name}\nis listed as a difference, but no such script was asked"))
    }
}

/// The lines that stand only in one of the two, in order; of a changed place ours come first.
fn differing(ours: &str, theirs: &str) -> Vec<String> {
    let (ours, theirs): (Vec<&str>, Vec<&str>) = (ours.lines().collect(), theirs.lines().collect());
    // common[i][j]: the longest common subsequence of what follows line i of ours and line j of theirs.
    let mut common = vec![vec![0usize; theirs.len() + 1]; ours.len() + 1];
    for i in (0..ours.len()).rev() {
        for j in (0..theirs.len()).rev() {
            common[i][j] = if ours[i] == theirs[j] {
                common[i + 1][j + 1] + 1
            } else {
                common[i + 1][j].max(common[i][j + 1])
            };
        }
    }
    let (mut i, mut j, mut lines) = (0, 0, Vec::new());
    while i < ours.len() || j < theirs.len() {
        if i < ours.len() && j < theirs.len() && ours[i] == theirs[j] {
            (i, j) = (i + 1, j + 1);
        } else if i < ours.len() && (j == theirs.len() || common[i + 1][j] >= common[i][j + 1]) {
            lines.push(format!("- {}", ours[i]));
            i += 1;
        } else {
            lines.push(format!("+ {}", theirs[j]));
            j += 1;
        }
    }
    lines
}

#[test]
fn only_what_is_listed_may_differ_and_what_is_listed_must() {
    let page = "# Page\n\n## a/listed\nWhy.\n\n    - ours\n    + theirs\n\n## a/never (not asked)\nWhy.\n\n## a/gone\nWhy.\n";
    let judge = |name, ours, theirs| Differences::parse(page).judge(name, ours, theirs);
    assert_eq!(judge("a/listed", "x\nours\ny", "x\ntheirs\ny"), None);
    assert_eq!(judge("a/plain", "x", "x"), None);
    assert!(judge("a/plain", "x", "y").unwrap().contains("    - x\n    + y"));
    assert!(judge("a/listed", "x", "x").unwrap().contains("take it off"));
    assert!(judge("a/listed", "ours", "others").unwrap().contains("listed otherwise"));

    let mut differences = Differences::parse(page);
    assert!(!differences.can_ask("a/never") && differences.can_ask("a/gone"));
    differences.judge("a/listed", "ours", "theirs");
    assert_eq!(differences.unasked().count(), 1, "a/gone is no script");
}
