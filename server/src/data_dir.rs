//! The member's directory: held by one process, and marked with whose it is. A directory of another program, cluster or
//! format is refused before anything in it is touched.

use std::io;
use std::path::{Path, PathBuf};

use tenure_disk::{DirLock, Disk};

use crate::config::Bootstrap;
use crate::ids::{ClusterId, MemberId};

const IDENTITY: &str = "IDENTITY";
const FORMAT: u32 = 1;
/// What `--initial-cluster-token` is when nobody gave one.
const DEFAULT_TOKEN: &str = "etcd-cluster";

/// Whose directory it is: founded once, never changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub cluster: ClusterId,
    pub member: MemberId,
    /// `--initial-cluster-token` when it was founded.
    pub token: String,
}

/// A directory that this process holds.
pub struct DataDir {
    path: PathBuf,
    /// None in a directory that no member has used yet.
    identity: Option<Identity>,
    _lock: DirLock,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot {attempt} {}: {source}; check the path and its permissions", path.display())]
    Io { attempt: &'static str, path: PathBuf, source: io::Error },
    #[error("data directory {} is in use by another process; stop that one first, or choose another --data-dir", .0.display())]
    InUse(PathBuf),
    #[error(
        "data directory {} belongs to etcd; choose an empty --data-dir, Tenure does not read etcd's files",
        .0.display()
    )]
    Etcd(PathBuf),
    #[error("data directory {} has format {found}, this program reads {FORMAT}; start the version that wrote it", path.display())]
    Format { path: PathBuf, found: String },
    #[error("{} cannot be understood; restore it, or remove the member and add it anew with an empty --data-dir", .0.display())]
    Damaged(PathBuf),
    #[error(
        "data directory {} was founded with --initial-cluster-token {found:?}, not {asked:?}: another cluster's; \
         choose another --data-dir, or give the token it was founded with",
        path.display()
    )]
    AnotherCluster { path: PathBuf, found: String, asked: String },
}

impl DataDir {
    /// Creates the directory if need be, takes hold of it and reads whose it is.
    pub fn open(disk: &dyn Disk, path: &Path) -> Result<DataDir, Error> {
        let failed = |attempt| move |source| Error::Io { attempt, path: path.to_owned(), source };
        if path.join("member").is_dir() {
            return Err(Error::Etcd(path.to_owned()));
        }
        disk.create_dir(path).map_err(failed("create data directory"))?;
        let lock = disk.lock(path).map_err(|source| match source.kind() {
            io::ErrorKind::WouldBlock => Error::InUse(path.to_owned()),
            _ => failed("lock data directory")(source),
        })?;
        let identity = match std::fs::read_to_string(path.join(IDENTITY)) {
            Ok(text) => Some(parse(&path.join(IDENTITY), &text)?),
            Err(source) if source.kind() == io::ErrorKind::NotFound => None,
            Err(source) => return Err(failed("read the identity in")(source)),
        };
        Ok(DataDir { path: path.to_owned(), identity, _lock: lock })
    }

    /// The identity of a directory that is in use, which counts more than the initial flags: they may be stale by now.
    /// Only a token that was given, and that speaks of another cluster, is held against it.
    pub fn identity(&self, token: &str) -> Result<Option<Identity>, Error> {
        let Some(identity) = &self.identity else { return Ok(None) };
        if token != DEFAULT_TOKEN && token != identity.token {
            let (found, asked) = (identity.token.clone(), token.to_owned());
            return Err(Error::AnotherCluster { path: self.path.clone(), found, asked });
        }
        Ok(Some(identity.clone()))
    }

    /// Marks a new directory as this member's, durably.
    pub fn claim(&self, disk: &dyn Disk, bootstrap: &Bootstrap, own_name: &str) -> Result<Identity, Error> {
        let member = *bootstrap
            .member_ids()
            .get(own_name)
            .expect("the bootstrap names this member, config checked it");
        let identity = Identity { cluster: bootstrap.cluster_id(), member, token: bootstrap.token.clone() };
        self.write(disk, &identity).map_err(|source| Error::Io {
            attempt: "write the identity in",
            path: self.path.clone(),
            source,
        })?;
        Ok(identity)
    }

    pub fn state_dir(&self) -> PathBuf {
        self.path.join("state")
    }

    pub fn log_dir(&self) -> PathBuf {
        self.path.join("wal")
    }

    fn write(&self, disk: &dyn Disk, identity: &Identity) -> io::Result<()> {
        let new = self.path.join("IDENTITY.new");
        let file = disk.create(&new)?;
        let Identity { cluster, member, token } = identity;
        let text = format!("tenure {FORMAT}\ncluster {cluster}\nmember {member}\ntoken {token}\n");
        file.write_all_at(text.as_bytes(), 0)?;
        file.sync_data()?;
        disk.rename(&new, &self.path.join(IDENTITY))?;
        disk.sync_dir(&self.path)
    }
}

fn parse(path: &Path, text: &str) -> Result<Identity, Error> {
    let damaged = || Error::Damaged(path.to_owned());
    let mut lines = text.lines();
    let mut field = |name: &str| {
        let (found, value) = lines.next()?.split_once(' ')?;
        (found == name).then(|| value.to_owned())
    };
    let format = field("tenure").ok_or_else(damaged)?;
    if format != FORMAT.to_string() {
        return Err(Error::Format { path: path.to_owned(), found: format });
    }
    let mut id =
        |name: &str| field(name).and_then(|hex| u64::from_str_radix(&hex, 16).ok()).ok_or_else(damaged);
    let (cluster, member) = (ClusterId(id("cluster")?), MemberId(id("member")?));
    Ok(Identity { cluster, member, token: field("token").ok_or_else(damaged)? })
}
