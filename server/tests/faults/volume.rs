//! A small file system of a member's own, in a file, that can be filled up and made to stall. It knows nothing of what is
//! kept on it.

use std::path::{Path, PathBuf};

use crate::network::run;

/// Room for both the log's segments and the store; the file takes only what is used.
const SIZE: &str = "384M";

pub struct Volume {
    at: PathBuf,
    filler: PathBuf,
}

impl Volume {
    /// Below `home`, which must outlive it.
    ///
    /// # Errors
    /// Says why this machine cannot.
    pub fn new(home: &Path) -> Result<Volume, String> {
        let (image, at) = (home.join("disk.image"), home.join("disk"));
        let (image, mount) = (plain(&image), plain(&at));
        std::fs::create_dir(&at).map_err(|error| format!("{mount}: {error}"))?;
        run("truncate", &["-s", SIZE, &image])?;
        run("mkfs.ext4", &["-q", "-F", "-E", "lazy_itable_init=1", "-m", "0", &image])?;
        run("mount", &["-o", "loop,noatime", &image, &mount])?;
        Ok(Volume { filler: at.join("filler"), at })
    }

    pub fn path(&self) -> &Path {
        &self.at
    }

    /// Leaves no room. What was promised to files before stays theirs.
    pub fn fill(&self) {
        let free = run("stat", &["-f", "-c", "%a %S", &plain(&self.at)]).expect("it is mounted");
        let (blocks, size) = free.split_once(' ').expect("two numbers were asked for");
        let bytes = blocks.parse::<u64>().unwrap_or(0) * size.parse::<u64>().unwrap_or(0);
        // Bookkeeping takes some of it: smaller and smaller pieces until nothing goes.
        let mut piece = bytes;
        let mut length = 0;
        while piece >= 4096 {
            let (from, more) = (length.to_string(), piece.to_string());
            match run("fallocate", &["-o", &from, "-l", &more, &plain(&self.filler)]) {
                Ok(_) => length += piece,
                Err(_) => piece /= 2,
            }
        }
    }

    pub fn free(&self) {
        let _ = std::fs::remove_file(&self.filler);
    }

    /// No write gets through until [`thaw`](Volume::thaw).
    pub fn stall(&self) {
        run("fsfreeze", &["--freeze", &plain(&self.at)]).expect("it is mounted and not stalled");
    }

    pub fn thaw(&self) {
        // An error says that it was not stalled.
        let _ = run("fsfreeze", &["--unfreeze", &plain(&self.at)]);
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        self.thaw();
        let at = plain(&self.at);
        // A process that was just killed may take a moment to let go.
        if run("umount", &[&at]).is_err() {
            let _ = run("umount", &["--lazy", &at]);
        }
    }
}

fn plain(path: &Path) -> String {
    path.to_str().expect("temporary directories have plain names").to_owned()
}
