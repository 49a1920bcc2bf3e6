//! The store's directory: who holds it, which database in it is the live one, and how that is changed so that a crash
//! leaves the one or the other. Knows nothing of what a database holds.
//!
//! A database that is being made for the first time has a file `<name>.unfinished` beside it until CURRENT names it.
//! Without CURRENT only such databases may be removed: any other is someone's data whose CURRENT was lost.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use super::open::OpenError;

const CURRENT: &str = "CURRENT";
const CURRENT_NEXT: &str = "CURRENT.tmp";
const LOCK: &str = "LOCK";
const DATABASE_PREFIX: &str = "state-";
const UNFINISHED_SUFFIX: &str = ".unfinished";

/// The store's directory, held against other processes.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    /// The lock lives as long as the open file.
    _lock: File,
}

impl Directory {
    /// Makes the directory if need be, for its owner's eyes only, and locks it.
    pub fn hold(path: &Path) -> Result<Directory, OpenError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(io_error("create the directory", path))?;
        // Even when it was there: whoever made it may have died before this.
        sync_parent(path)?;
        let lock = lock(path)?;
        Ok(Directory { path: path.into(), _lock: lock })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The live database's path, None when the store is new. Removes what an interrupted creation or install left.
    pub fn live(&self) -> Result<Option<PathBuf>, OpenError> {
        let current = self.read_current()?;
        let databases = self.databases()?;
        match &current {
            Some(name) if !databases.contains(name) => {
                return Err(self.damaged(format!("{CURRENT} names {name}, which is missing")));
            }
            None => {
                if let Some(name) = databases.iter().find(|name| !self.unfinished(name).exists()) {
                    return Err(self.damaged(format!("{CURRENT} is missing although there is {name}")));
                }
            }
            Some(_) => {}
        }
        for name in databases.iter().filter(|name| Some(*name) != current.as_ref()) {
            self.remove(name)?;
        }
        if let Some(name) = &current {
            self.remove_file(&self.unfinished(name))?;
        }
        self.remove_file(&self.path.join(CURRENT_NEXT))?;
        Ok(current.map(|name| self.path.join(name)))
    }

    /// Where the first database goes. It counts only once [`Directory::switch`] has named it.
    pub fn first(&self) -> Result<PathBuf, OpenError> {
        let name = database_name(0);
        let marker = self.unfinished(&name);
        File::create(&marker).and_then(|file| file.sync_all()).map_err(io_error("create", &marker))?;
        sync_directory(&self.path).map_err(io_error("sync", &self.path))?;
        Ok(self.path.join(name))
    }

    /// Where the database after `live` goes.
    pub fn next(&self, live: &Path) -> PathBuf {
        let number = live.file_name().and_then(|name| database_number(name.to_str()?)).unwrap_or(0);
        self.path.join(database_name(number + 1))
    }

    /// Makes `database` the live one, now and after any crash.
    pub fn switch(&self, database: &Path) -> io::Result<()> {
        let name = database.file_name().unwrap_or_default().as_encoded_bytes();
        let next = self.path.join(CURRENT_NEXT);
        let mut file = File::create(&next)?;
        file.write_all(name)?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        fs::rename(&next, self.path.join(CURRENT))?;
        sync_directory(&self.path)
    }

    /// After [`Directory::switch`]: the first database needs its mark no longer.
    pub fn finished(&self, database: &Path) -> Result<(), OpenError> {
        let name = database.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        self.remove_file(&self.unfinished(name))
    }

    fn read_current(&self) -> Result<Option<String>, OpenError> {
        let path = self.path.join(CURRENT);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => String::new(),
            Err(error) => return Err(io_error("read", &path)(error)),
        };
        match text.strip_suffix('\n').filter(|name| database_number(name).is_some()) {
            Some(name) => Ok(Some(name.into())),
            None => Err(self.damaged(format!("{CURRENT} does not name a database"))),
        }
    }

    /// The names of all databases here, live or not.
    fn databases(&self) -> Result<Vec<String>, OpenError> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(io_error("list", &self.path))? {
            let entry = entry.map_err(io_error("list", &self.path))?;
            if let Ok(name) = entry.file_name().into_string()
                && database_number(&name).is_some()
            {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn remove(&self, name: &str) -> Result<(), OpenError> {
        let path = self.path.join(name);
        fs::remove_dir_all(&path).map_err(io_error("remove the leftover", &path))?;
        self.remove_file(&self.unfinished(name))
    }

    fn remove_file(&self, path: &Path) -> Result<(), OpenError> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(io_error("remove the leftover", path)(error))
            }
            _ => Ok(()),
        }
    }

    fn unfinished(&self, name: &str) -> PathBuf {
        self.path.join(format!("{name}{UNFINISHED_SUFFIX}"))
    }

    fn damaged(&self, cause: String) -> OpenError {
        OpenError::Rebuildable { path: self.path.clone(), cause }
    }
}

/// One database's directory, removed once nobody has it open and [`DatabaseDirectory::doom`] was called.
#[derive(Debug)]
pub(super) struct DatabaseDirectory {
    path: PathBuf,
    doomed: AtomicBool,
}

impl DatabaseDirectory {
    pub fn new(path: PathBuf) -> DatabaseDirectory {
        DatabaseDirectory { path, doomed: AtomicBool::new(false) }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn doom(&self) {
        self.doomed.store(true, Ordering::Relaxed);
    }
}

impl Drop for DatabaseDirectory {
    fn drop(&mut self) {
        if self.doomed.load(Ordering::Relaxed) {
            // What cannot be removed now is removed as a leftover when the store is next opened.
            drop(fs::remove_dir_all(&self.path));
        }
    }
}

/// Moves the directory to `<dir>.aside`, in place of an earlier one: a replica that fails again and again must not fill
/// its disk.
pub(super) fn set_aside(dir: &Path) -> Result<PathBuf, OpenError> {
    let held = lock(dir)?;
    let mut name = dir.file_name().unwrap_or_default().to_owned();
    name.push(".aside");
    let aside = dir.with_file_name(name);
    match fs::remove_dir_all(&aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(io_error("remove", &aside)(error));
        }
        _ => {}
    }
    fs::rename(dir, &aside).map_err(io_error("move aside", dir))?;
    sync_parent(&aside)?;
    drop(held);
    Ok(aside)
}

fn lock(dir: &Path) -> Result<File, OpenError> {
    let path = dir.join(LOCK);
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(io_error("open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(OpenError::Locked { path: dir.into() }),
        Err(fs::TryLockError::Error(error)) => Err(io_error("lock", &path)(error)),
    }
}

fn database_name(number: u64) -> String {
    format!("{DATABASE_PREFIX}{number:04}")
}

/// None when `name` is not a database's name as [`database_name`] writes it.
fn database_number(name: &str) -> Option<u64> {
    let number = name.strip_prefix(DATABASE_PREFIX)?.parse().ok()?;
    (database_name(number) == name).then_some(number)
}

/// Makes it durable that `path` is there.
fn sync_parent(path: &Path) -> Result<(), OpenError> {
    let parent = match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => return Ok(()),
    };
    sync_directory(parent).map_err(io_error("sync", parent))
}

pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

fn io_error(attempt: &'static str, path: &Path) -> impl Fn(io::Error) -> OpenError {
    let path = path.to_owned();
    move |error| OpenError::Io { attempt, path: path.clone(), error }
}
