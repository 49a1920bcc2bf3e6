//! The workspace as text: its files, its manifests, and what was found wrong in them. Knows no rule.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::grammar::code;

/// What is wrong, each with its place, and what to do about it.
pub struct Faults {
    advice: &'static str,
    found: Vec<String>,
}

impl Faults {
    pub fn new(advice: &'static str) -> Faults {
        Faults { advice, found: Vec::new() }
    }

    pub fn add(&mut self, path: &str, line: usize, what: &str) {
        self.found.push(format!("{path}:{line}: {what}"));
    }

    pub fn none(self) {
        assert!(self.found.is_empty(), "\n{}\n=> {}\n", self.found.join("\n"), self.advice);
    }
}

pub struct Source {
    /// From the workspace's root, with slashes.
    pub path: String,
    pub text: String,
    /// The same lines without comments and contents of texts, up to the file's own tests.
    pub code: String,
}

impl Source {
    pub fn is_test(&self) -> bool {
        let apart = ["/tests.rs", "/suite.rs"].iter().any(|name| self.path.ends_with(name));
        apart || self.path.contains("/tests/")
    }

    pub fn is_product(&self) -> bool {
        !self.is_test() && !self.path.contains("/examples/")
    }

    pub fn lies_in(&self, rooms: &[&str]) -> bool {
        rooms.iter().any(|room| self.path.starts_with(room))
    }
}

pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

pub fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("cannot read {path}: {error}"))
}

/// Names in a folder, those of folders with a slash behind; nothing hidden, nothing that builds and runs leave there.
pub fn entries(folder: &str) -> Vec<String> {
    let mut names = Vec::new();
    for entry in fs::read_dir(root().join(folder)).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let left_behind = ["target", "tenure-cluster"].contains(&name.as_str())
            || name.ends_with(".etcd")
            || name.ends_with(".log");
        if !name.starts_with('.') && !left_behind {
            names.push(if entry.path().is_dir() { format!("{name}/") } else { name });
        }
    }
    names.sort();
    names
}

fn files(folder: &str, named: &dyn Fn(&str) -> bool, found: &mut Vec<String>) {
    for name in entries(folder) {
        let path = format!("{folder}{name}");
        match name.ends_with('/') {
            true => files(&path, named, found),
            false if named(&name) => found.push(path),
            false => {}
        }
    }
}

pub fn sources() -> Vec<Source> {
    let mut paths = Vec::new();
    files("", &|name| name.ends_with(".rs"), &mut paths);
    assert!(paths.len() > 50, "found only {} source files: is this the workspace?", paths.len());
    let source = |path: String| {
        let text = read(&path);
        Source { code: code(&text), text, path }
    };
    paths.into_iter().map(source).collect()
}

/// The Cargo.toml of one of the workspace's crates.
pub struct Manifest {
    pub path: String,
    /// The crate's folder.
    pub folder: String,
    pub text: String,
}

impl Manifest {
    /// The lines of `[dependencies]`, each under the dependency's name.
    pub fn dependencies(&self) -> BTreeMap<String, (usize, &str)> {
        section(&self.text, "[dependencies]")
    }
}

pub fn manifests() -> Vec<Manifest> {
    let mut paths = Vec::new();
    files("", &|name| name == "Cargo.toml", &mut paths);
    let manifest = |path: String| {
        let folder = path.strip_suffix("/Cargo.toml")?.to_owned();
        Some(Manifest { text: read(&path), folder, path })
    };
    // A test may bring a project of its own, to see a library used as its users do.
    paths.into_iter().filter(|path| !path.contains("/tests/")).filter_map(manifest).collect()
}

/// The dependencies that all crates share.
pub fn shared_dependencies(workspace: &str) -> BTreeMap<String, (usize, &str)> {
    section(workspace, "[workspace.dependencies]")
}

fn section<'a>(manifest: &'a str, heading: &str) -> BTreeMap<String, (usize, &'a str)> {
    let lines = numbered(manifest).skip_while(|(_, line)| *line != heading).skip(1);
    let lines = lines.take_while(|(_, line)| !line.starts_with('['));
    let named = lines.filter(|(_, line)| line.contains('=') && !line.starts_with('#'));
    let name = |line: &str| line.split(['=', '.', ' ']).next().unwrap_or_default().to_owned();
    named.map(|(number, line)| (name(line), (number, line))).collect()
}

/// Lines with their numbers, the first is 1.
pub fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(index, line)| (index + 1, line))
}
