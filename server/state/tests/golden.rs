//! Golden scripts: what the core says to clients, one file an idea, on a server in memory. The language is told in
//! `script/mod.rs`; `UPDATE_GOLDENFILES=1 cargo test -p tenure-state --test golden` writes the answers anew, to be read
//! before they are believed. The server's oracle test asks a real etcd the same.

#![allow(clippy::unwrap_used)]

use std::path::Path;

mod script;

use script::{InMemory, Script, scripts};

#[test]
fn every_script_says_what_it_said() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts");
    let mut wrong = Vec::new();
    let scripts = scripts(&root);
    assert!(scripts.len() > 150, "only {} scripts in {}", scripts.len(), root.display());
    for (name, _) in &scripts {
        let run = || goldenscript::run(&mut Script::new(InMemory::new(usize::MAX)), root.join(name));
        match std::panic::catch_unwind(run) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => wrong.push(format!("{name}: {error}")),
            Err(_) => wrong.push(format!("{name}: see above")),
        }
    }
    assert!(wrong.is_empty(), "{} scripts differ:\n{}", wrong.len(), wrong.join("\n"));
}

/// Which records happen to lie in memory is nobody's business.
#[test]
fn every_script_says_the_same_when_all_records_are_read_from_the_store() {
    for (name, golden) in scripts(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts")) {
        let said = goldenscript::generate(&mut Script::new(InMemory::new(0)), &golden).unwrap();
        assert_eq!(said, golden, "{name}");
    }
}
