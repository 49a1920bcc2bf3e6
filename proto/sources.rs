//! Which `.proto` files make up the API, and their compiler. Both crates' build scripts include this file, so
//! that messages and stubs cannot come from different sources. It must not know what is generated from them.

use std::error::Error;
use std::path::{Path, PathBuf};

/// Folders under `proto/` whose files are compiled. `google/` is not among them: it is only imported.
const FOLDERS: [&str; 3] = ["etcd", "internal", "tenure/v1"];

/// Compiles every file of the folders below `root`, which is `proto/`, and tells cargo to come back when one
/// changes.
pub fn compile(root: &Path) -> Result<protox::Compiler, Box<dyn Error>> {
    let mut compiler = protox::Compiler::new([root])?;
    for folder in FOLDERS.map(|name| root.join(name)) {
        watch(&folder);
        compiler.open_files(proto_files(&folder)?)?;
    }
    watch(&root.join("google"));
    watch(&root.join("sources.rs"));
    Ok(compiler)
}

/// Sorted, so that what is generated does not depend on the file system's order.
fn proto_files(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?;
    let mut files: Vec<PathBuf> = entries.into_iter().map(|entry| entry.path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "proto"));
    files.sort();
    Ok(files)
}

fn watch(path: &Path) {
    println!("cargo:rerun-if-changed={}", path.display());
}
