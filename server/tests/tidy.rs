//! Our own rules, checked over the whole workspace as an ordinary test: imports go down, files and functions stay short
//! enough to read, each file says what it is, and README and ARCHITECTURE.md tell the truth. A rule that cannot be broken
//! unnoticed need not be remembered. Reads sources as text and knows nothing of what they mean.

#![allow(clippy::unwrap_used)]

#[path = "tidy/calls.rs"]
mod calls;
#[path = "tidy/documents.rs"]
mod documents;
#[path = "tidy/flags_page.rs"]
mod flags_page;
#[path = "tidy/grammar.rs"]
mod grammar;
#[path = "tidy/workspace.rs"]
mod workspace;

use std::collections::BTreeSet;

use calls::CALLS;
use documents::{long_names, paths_named, rows_of_failures, tests_and_modules, tree};
use grammar::{declared, functions, lines_with_word, modules_named};
use workspace::{Faults, entries, manifests, numbered, read, root, shared_dependencies, sources};

const FILE_LINES_MAX: usize = 500;
/// A test tells its story in one place; its data and its cases may be long.
const TEST_FILE_LINES_MAX: usize = 800;
const FUNCTION_LINES_MAX: usize = 70;

/// The crates, what of ours each may use, and what of others' none below the server has any business with. A new crate is
/// given its floor here.
const CRATES: &[(&str, &[&str])] = &[
    ("proto", &[]),
    ("proto/grpc", &["tenure-proto", "tonic"]),
    ("server/state", &["tenure-proto"]),
    ("server/disk", &["tenure-state"]),
    ("recipes", &["tenure-proto"]),
    (
        "server",
        &[
            "tenure-proto",
            "tenure-recipes",
            "tenure-grpc",
            "tenure-state",
            "tenure-disk",
            "openraft",
            "tonic",
            "tokio",
            "tracing",
        ],
    ),
    ("server/sim", &["tenured", "tenure-proto", "tenure-state", "tenure-disk", "tokio"]),
    ("clients/rust", &["tenure-proto", "tenure-grpc", "tenure-recipes", "tonic", "tokio"]),
    (
        "clients/cli",
        &["tenure-proto", "tenure-recipes", "tenure-grpc", "tenure-disk", "tenure-client", "tonic", "tokio"],
    ),
    ("examples", &["tenure-client", "tokio"]),
    ("bench", &["tenure-proto", "tokio"]),
];
const FLOORED: &[&str] = &["openraft", "tonic", "axum", "tokio", "tracing"];

/// All that the pure crate may use: with this it reaches no network, disk, clock, chance, thread or log.
const STATE_DEPENDENCIES: &[&str] = &["tenure-proto", "prost", "bytes"];

/// The rooms of the server, the lowest first: each may name only rooms of a lower number.
const ROOMS: &[(&str, u8)] = &[
    ("authority", 1),
    ("checksum", 1),
    ("clock", 1),
    ("gathered", 1),
    ("metrics", 1),
    ("traffic", 1),
    ("ids", 1),
    ("logging", 1),
    ("net", 1),
    ("supervisor", 1),
    ("planted", 2),
    ("backup", 2),
    ("config", 2),
    ("simulation", 2),
    ("background", 3),
    ("data_dir", 3),
    ("peers", 3),
    ("joining", 4),
    ("raft", 5),
    ("restore", 5),
    ("node", 6),
    ("api", 7),
    ("scrape", 7),
    ("gateway", 8),
    ("serve", 9),
    ("main", 10),
];

/// A library that is named in one place only, so that it can be replaced there.
const ONE_ROOM: &[(&str, &[&str])] = &[
    ("openraft", &["server/src/raft/"]),
    ("fjall", &["server/disk/src/store/"]),
    (
        "tonic",
        &[
            "server/src/api/",
            "server/src/authority",
            "server/src/gateway/",
            "server/src/gathered.rs",
            "server/src/node/audit",
            "server/src/node/forwarding",
            "server/src/node/leases/witness",
            "server/src/node/members",
            "server/src/peers.rs",
            "server/src/raft/network",
            "server/src/serve.rs",
            "server/src/traffic.rs",
            "proto/grpc/",
            "clients/",
            "bench/",
        ],
    ),
    ("metrics_exporter_prometheus", &["server/src/metrics/"]),
    ("rand", &["server/src/ids.rs", "clients/rust/", "bench/"]),
];

/// What the pure crate may not even name, though the standard library has it.
const IMPURE: &[&str] = &[
    "HashMap",
    "HashSet",
    "std::time",
    "std::thread",
    "std::fs",
    "std::net",
    "std::env",
    "std::io",
    "std::process",
    "std::sync::Mutex",
    "std::sync::RwLock",
    "std::sync::mpsc",
    "RandomState",
];

const DRAWERS: &[&str] =
    &["utils", "util", "common", "helpers", "helper", "manager", "managers", "misc", "shared_types"];
const SUFFIXES: &[&str] = &["Impl", "Inner", "Manager", "Helper", "Utils", "Util"];

#[test]
fn crates_depend_only_on_lower_ones() {
    let mut faults = Faults::new("move what the crate needs to a lower one, or say in CRATES why it may");
    for manifest in manifests() {
        let Some((_, allowed)) = CRATES.iter().find(|(folder, _)| *folder == manifest.folder) else {
            faults.add(&manifest.path, 1, "this crate has no floor: add it to CRATES");
            continue;
        };
        for (dependency, (line, _)) in manifest.dependencies() {
            let name = dependency.as_str();
            let floored = name.starts_with("tenure-") || FLOORED.contains(&name);
            let pure = manifest.folder == "server/state";
            if floored && !allowed.contains(&name) || pure && !STATE_DEPENDENCIES.contains(&name) {
                faults.add(&manifest.path, line, &format!("may not depend on {name}"));
            }
        }
    }
    for (folder, _) in CRATES {
        if !root().join(folder).join("Cargo.toml").is_file() {
            faults.add("server/tests/tidy.rs", 1, &format!("CRATES names {folder}, which is no crate"));
        }
    }
    faults.none();
}

#[test]
fn every_crate_follows_the_workspace() {
    let mut faults =
        Faults::new("write `[lints] workspace = true`, and `workspace = true` for shared dependencies");
    let workspace = read("Cargo.toml");
    let shared = shared_dependencies(&workspace);
    for manifest in manifests() {
        if !manifest.text.contains("[lints]\nworkspace = true") {
            faults.add(&manifest.path, 1, "does not follow the workspace's lints");
        }
        for (dependency, (line, text)) in manifest.dependencies() {
            if shared.contains_key(&dependency) && !text.contains("workspace = true") {
                faults.add(&manifest.path, line, &format!("has a version of {dependency} of its own"));
            }
        }
    }
    faults.none();
}

#[test]
fn rooms_import_only_lower_rooms() {
    let mut faults = Faults::new(
        "imports go down (ROOMS): move what is shared to the lower room, or let the upper one pass it in",
    );
    let floor = |room: &str| ROOMS.iter().find(|(name, _)| *name == room).map(|(_, floor)| *floor);
    for file in sources().iter().filter(|file| file.path.starts_with("server/src/")) {
        let room = file.path["server/src/".len()..].split(['/', '.']).next().unwrap_or_default();
        if room == "lib" {
            continue;
        }
        let Some(own) = floor(room) else {
            faults.add(&file.path, 1, &format!("the room {room} has no floor: add it to ROOMS"));
            continue;
        };
        for (line, named) in modules_named(&file.code) {
            if named != room && floor(named).is_none_or(|other| other >= own) {
                faults.add(&file.path, line, &format!("{room} may not name {named}"));
            }
        }
    }
    faults.none();
}

#[test]
fn each_library_is_named_in_its_room_only() {
    let mut faults =
        Faults::new("let the room that owns the library offer what is needed under a name of ours");
    for file in sources().iter().filter(|file| !file.is_test()) {
        for (library, rooms) in ONE_ROOM.iter().filter(|(_, rooms)| !file.lies_in(rooms)) {
            for line in lines_with_word(&file.code, library) {
                faults.add(
                    &file.path,
                    line,
                    &format!("names {library}, which belongs to {}", rooms.join(", ")),
                );
            }
        }
    }
    faults.none();
}

#[test]
fn calls_stand_where_they_belong() {
    let mut faults = Faults::new("see what each line says");
    for file in sources().iter().filter(|file| file.is_product()) {
        for call in CALLS.iter().filter(|call| !file.lies_in(call.allowed)) {
            for word in call.words {
                for line in lines_with_word(&file.code, word) {
                    faults.add(&file.path, line, &format!("{word}: {}", call.instead));
                }
            }
        }
    }
    faults.none();
}

#[test]
fn the_pure_crate_is_pure() {
    let mut faults = Faults::new(
        "state is computed: pass the time and the choice in, return what is to be done, use ordered maps",
    );
    for file in sources().iter().filter(|file| file.path.starts_with("server/state/src/")) {
        for word in IMPURE {
            for line in lines_with_word(&file.code, word) {
                faults.add(&file.path, line, &format!("names {word}"));
            }
        }
    }
    faults.none();
}

#[test]
fn every_file_says_what_it_is() {
    let mut faults =
        Faults::new("open the file with `//!`: what this is, why it exists, what it must not know");
    for file in sources() {
        if !file.text.starts_with("//! ") {
            faults.add(&file.path, 1, "does not open with //!");
        }
    }
    faults.none();
}

#[test]
fn files_are_short_enough_to_read() {
    let mut faults =
        Faults::new("look for the second idea in it and give that a file; do not cut in the middle");
    for file in sources() {
        let most = if file.is_test() { TEST_FILE_LINES_MAX } else { FILE_LINES_MAX };
        let lines = file.text.lines().count();
        if lines > most {
            faults.add(&file.path, most + 1, &format!("{lines} lines, {most} at the most"));
        }
    }
    faults.none();
}

#[test]
fn functions_are_short_enough_to_read() {
    let mut faults =
        Faults::new("leave the decisions in the function and give each computation one of its own");
    for file in sources() {
        for function in functions(&file.code) {
            if function.lines > FUNCTION_LINES_MAX {
                let what = format!(
                    "{} has {} lines, {FUNCTION_LINES_MAX} at the most",
                    function.name, function.lines
                );
                faults.add(&file.path, function.line, &what);
            }
        }
    }
    faults.none();
}

#[test]
fn names_say_something() {
    let mut faults =
        Faults::new("find the noun that is missing: a drawer is where nobody looks for anything");
    for file in sources() {
        let parts = file.path.trim_end_matches(".rs").split('/').map(str::to_owned);
        for part in parts.filter(|part| DRAWERS.contains(&part.as_str())) {
            faults.add(&file.path, 1, &format!("lies in, or is called, {part}"));
        }
        for (number, line) in numbered(&file.code) {
            for (keyword, name) in declared(line) {
                let drawer = keyword == "mod" && DRAWERS.contains(&name);
                let suffixed = keyword != "mod" && SUFFIXES.iter().any(|suffix| name.ends_with(suffix));
                if drawer || suffixed {
                    faults.add(&file.path, number, &format!("{keyword} {name}"));
                }
            }
        }
    }
    faults.none();
}

#[test]
fn nothing_is_left_for_later() {
    // Put together here, so that this file does not find itself.
    let words = [["TO", "DO"], ["FIX", "ME"], ["XX", "X"], ["unimplemented", "!"], ["to", "do!"]]
        .map(|parts| parts.concat());
    let mut faults = Faults::new("do it now, or leave it out and say so in CHANGELOG or README");
    for file in sources() {
        for word in &words {
            for line in lines_with_word(&file.text, word) {
                faults.add(&file.path, line, word);
            }
        }
    }
    faults.none();
}

#[test]
fn readme_shows_the_tree_as_it_is() {
    let mut faults = Faults::new("bring the tree in README.md up to date: name, then what it is");
    let readme = read("README.md");
    let shown = tree(&readme);
    for (path, line) in &shown {
        let (there, folder) = (root().join(path), path.ends_with('/'));
        if there.is_dir() != folder || !there.exists() {
            faults.add("README.md", *line, &format!("shows {path}, which is not there"));
        }
    }
    for folder in ["", "proto/", "server/", "server/src/"] {
        for name in entries(folder) {
            let path = format!("{folder}{name}");
            if !shown.contains_key(&path) {
                faults.add("README.md", 1, &format!("does not show {path}"));
            }
        }
    }
    faults.none();
}

#[test]
fn the_page_of_flags_is_what_the_code_says() {
    let page = flags_page::page();
    if std::env::var_os("TENURE_WRITE_DOCUMENTS").is_some() {
        std::fs::write(root().join("docs/flags.md"), &page).unwrap();
    }
    let mut faults =
        Faults::new("write it anew: TENURE_WRITE_DOCUMENTS=1 cargo test -p tenured --test tidy flags");
    let written = read("docs/flags.md");
    for ((line, is), should) in numbered(&written).zip(page.lines()) {
        if is != should {
            faults.add("docs/flags.md", line, &format!("should be: {should}"));
        }
    }
    if written.lines().count() != page.lines().count() {
        faults.add("docs/flags.md", 1, "has too few lines, or too many");
    }
    faults.none();
}

#[test]
fn documents_name_files_that_exist() {
    let mut faults =
        Faults::new("a document that nobody checks becomes a lie: name the file as it is called now");
    for document in ["README.md", "server/ARCHITECTURE.md"] {
        let text = read(document);
        for (line, path) in paths_named(&text) {
            let bases = ["", "server/", "server/src/", "server/disk/src/", "server/state/src/"];
            if !bases.iter().any(|base| root().join(base).join(path).exists()) {
                faults.add(document, line, &format!("{path} does not exist"));
            }
        }
    }
    faults.none();
}

#[test]
fn every_failure_of_others_has_a_test_that_exists_or_a_reason() {
    const README: &str = "recipes/README.md";
    let mut faults = Faults::new(
        "each row names a test or an invariant as it is called now, or another row that does, or why it \"cannot occur\"",
    );
    let there: BTreeSet<String> = sources().iter().flat_map(|file| tests_and_modules(&file.text)).collect();
    let readme = read(README);
    let rows = rows_of_failures(&readme);
    for (letter, last) in [("S", 11), ("L", 22), ("E", 15), ("R", 17)] {
        for number in 1..=last {
            let name = format!("{letter}{number}");
            if !rows.iter().any(|(_, row, _)| *row == name) {
                faults.add(README, 1, &format!("has no row {name}"));
            }
        }
    }
    for (line, row, text) in &rows {
        let named = long_names(text);
        for name in named.iter().filter(|name| !there.contains(**name)) {
            faults.add(README, *line, &format!("{row} names {name}, which is no test"));
        }
        let elsewhere = ["as L", "as S", "the same test", "cannot occur"];
        if named.is_empty() && !elsewhere.iter().any(|words| text.contains(words)) {
            faults.add(README, *line, &format!("{row} names no test and no reason"));
        }
    }
    for (line, text) in numbered(&readme).filter(|(_, text)| !text.starts_with('|')) {
        for name in long_names(text).iter().filter(|name| !there.contains(**name)) {
            faults.add(README, line, &format!("names {name}, which is no test"));
        }
    }
    faults.none();
}
