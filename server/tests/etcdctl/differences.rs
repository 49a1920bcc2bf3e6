//! Where Tenure answers etcdctl otherwise than etcd 3.5.1, on purpose. `differences.txt` holds one paragraph for each:
//!
//! ```text
//! command: the line of the session, without its sign
//! clients: 3.4.23 3.5.1          (which etcdctl sees it)
//! says:    a text that Tenure's outcome contains
//! reason:  why
//! ```

use std::collections::BTreeMap;

use crate::harness::{self, Etcd};

pub struct Differences(Vec<Difference>);

pub struct Difference {
    command: String,
    pub says: String,
}

impl Differences {
    /// Those that this client sees.
    pub fn of(client: Etcd) -> Differences {
        let paragraphs = include_str!("differences.txt").split("\n\n");
        let written = paragraphs.map(fields).filter(|fields| !fields.is_empty());
        let mut seen = Vec::new();
        for fields in written {
            let field = |name: &str| {
                fields.get(name).unwrap_or_else(|| panic!("differences.txt: no '{name}' in {fields:?}"))
            };
            assert!(!field("reason").is_empty(), "differences.txt: a difference needs a reason: {fields:?}");
            let mut clients = field("clients").split_whitespace();
            assert!(
                clients
                    .clone()
                    .all(|version| [harness::OLD.version, harness::NEW.version].contains(&version)),
                "differences.txt: unknown client in {fields:?}"
            );
            if clients.any(|version| version == client.version) {
                seen.push(Difference { command: field("command").clone(), says: field("says").clone() });
            }
        }
        Differences(seen)
    }

    pub fn reason(&self, command: &str) -> Option<&Difference> {
        self.0.iter().find(|difference| difference.command == command)
    }
}

fn fields(paragraph: &str) -> BTreeMap<String, String> {
    let lines = paragraph.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()))
        .collect()
}
