//! The member's directory: held by one process, and marked with whose it is. A directory of another program, cluster or
//! format is refused before anything in it is touched. It knows files, not how a member comes to its identity.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use tenure_disk::{DirLock, Disk};

use crate::ids::{ClusterId, MemberId};

const IDENTITY: &str = "IDENTITY";
/// There while a restore fills the directory.
const UNFINISHED: &str = "RESTORING";
const FORMAT: u32 = 1;
/// What `--initial-cluster-token` is when nobody gave one.
const DEFAULT_TOKEN: &str = "etcd-cluster";

/// Whose directory it is: decided once, before anything else is in it, and never changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub cluster: ClusterId,
    pub member: MemberId,
    /// The cluster's token: `--initial-cluster-token` when it was founded.
    pub token: String,
    pub origin: Origin,
    /// Peer URLs of the members that were named at the beginning, this one among them. Kept so that what a crash
    /// interrupted can be repeated, whatever the flags say by then.
    pub first_members: BTreeMap<u64, Vec<String>>,
}

/// How the member came into its cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// It was there from the start: its log begins with the first members.
    Founded,
    /// It was added: its log comes from the others, and it never begins one by itself.
    Joined,
}

impl Identity {
    /// Whether a token that was given on the command line may be this cluster's.
    pub fn accepts(&self, token: &str) -> bool {
        token_fits(token, &self.token)
    }
}

/// Whether `given` may mean the cluster of that token: a flag that nobody gave says nothing.
pub fn token_fits(given: &str, token: &str) -> bool {
    given == DEFAULT_TOKEN || given == token
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
    #[error("data directory {} holds a restore that did not end; remove the directory and restore again", .0.display())]
    Unfinished(PathBuf),
    #[error("{} is not empty; a restore needs a directory of its own: choose another, or remove that one", .0.display())]
    NotEmpty(PathBuf),
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
        if path.join(UNFINISHED).exists() {
            return Err(Error::Unfinished(path.to_owned()));
        }
        let identity = match std::fs::read_to_string(path.join(IDENTITY)) {
            Ok(text) => Some(parse(&path.join(IDENTITY), &text)?),
            Err(source) if source.kind() == io::ErrorKind::NotFound => None,
            Err(source) => return Err(failed("read the identity in")(source)),
        };
        Ok(DataDir { path: path.to_owned(), identity, _lock: lock })
    }

    /// Takes a directory that is empty or not there yet, and marks it, durably, as one that no member may start on until
    /// [`DataDir::restored`] has said that it may.
    pub fn for_restore(disk: &dyn Disk, path: &Path) -> Result<DataDir, Error> {
        must_be_empty(path)?;
        let data_dir = DataDir::open(disk, path)?;
        let marked = disk.create(&path.join(UNFINISHED)).and_then(|mark| mark.sync_data());
        marked.and_then(|()| disk.sync_dir(path)).map_err(|source| data_dir.failed("mark", source))?;
        Ok(data_dir)
    }

    /// Everything is in it: a member may start on it from now on.
    pub fn restored(&self, disk: &dyn Disk) -> Result<(), Error> {
        let unmarked = disk.remove(&self.path.join(UNFINISHED));
        unmarked
            .and_then(|()| disk.sync_dir(&self.path))
            .map_err(|source| self.failed("take the mark of a restore from", source))
    }

    /// The identity of a directory that is in use, which counts more than the initial flags: they may be stale by now.
    /// Only a token that was given, and that speaks of another cluster, is held against it.
    pub fn identity(&self, token: &str) -> Result<Option<Identity>, Error> {
        let Some(identity) = &self.identity else { return Ok(None) };
        if !identity.accepts(token) {
            let (found, asked) = (identity.token.clone(), token.to_owned());
            return Err(Error::AnotherCluster { path: self.path.clone(), found, asked });
        }
        Ok(Some(identity.clone()))
    }

    /// Marks a new directory as this member's, durably.
    pub fn claim(&self, disk: &dyn Disk, identity: &Identity) -> Result<(), Error> {
        self.write(disk, identity).map_err(|source| self.failed("write the identity in", source))
    }

    fn failed(&self, attempt: &'static str, source: io::Error) -> Error {
        Error::Io { attempt, path: self.path.clone(), source }
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
        file.write_all_at(text(identity).as_bytes(), 0)?;
        file.sync_data()?;
        disk.rename(&new, &self.path.join(IDENTITY))?;
        disk.sync_dir(&self.path)
    }
}

fn text(identity: &Identity) -> String {
    let Identity { cluster, member, token, origin, first_members } = identity;
    let origin = match origin {
        Origin::Founded => "founded",
        Origin::Joined => "joined",
    };
    let mut text =
        format!("tenure {FORMAT}\ncluster {cluster}\nmember {member}\ntoken {token}\norigin {origin}\n");
    for (id, peer_urls) in first_members {
        text += &format!("with {id:x} {}\n", peer_urls.join(","));
    }
    text
}

/// For directories that a restore is to fill. One that is not there is empty.
pub fn must_be_empty(path: &Path) -> Result<(), Error> {
    match std::fs::read_dir(path).map(|mut entries| entries.next().is_none()) {
        Ok(true) => Ok(()),
        Ok(false) => Err(Error::NotEmpty(path.to_owned())),
        Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(Error::Io { attempt: "look into", path: path.to_owned(), source }),
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
    let token = field("token").ok_or_else(damaged)?;
    let origin = match field("origin").as_deref() {
        Some("founded") => Origin::Founded,
        Some("joined") => Origin::Joined,
        _ => return Err(damaged()),
    };
    let first_members = lines.map(first_member).collect::<Option<_>>().ok_or_else(damaged)?;
    Ok(Identity { cluster, member, token, origin, first_members })
}

fn first_member(line: &str) -> Option<(u64, Vec<String>)> {
    let (id, peer_urls) = line.strip_prefix("with ")?.split_once(' ')?;
    let peer_urls = peer_urls.split(',').map(str::to_owned).collect();
    Some((u64::from_str_radix(id, 16).ok()?, peer_urls))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use tenure_disk::Files;

    use super::*;

    fn identity(origin: Origin) -> Identity {
        let urls = |port| vec![format!("http://10.0.0.1:{port}"), format!("http://[::1]:{port}")];
        Identity {
            cluster: ClusterId(0xc1),
            member: MemberId(2),
            token: "a token, with words".to_owned(),
            origin,
            first_members: BTreeMap::from([(2, urls(1)), (u64::MAX, urls(2))]),
        }
    }

    #[test]
    fn an_identity_is_read_back_as_it_was_written() {
        for origin in [Origin::Founded, Origin::Joined] {
            let home = tempfile::tempdir().unwrap();
            let path = home.path().join("data");
            let dir = DataDir::open(&Files, &path).unwrap();
            assert_eq!(dir.identity("etcd-cluster").unwrap(), None);
            dir.claim(&Files, &identity(origin)).unwrap();
            drop(dir);
            let again = DataDir::open(&Files, &path).unwrap();
            assert_eq!(again.identity("etcd-cluster").unwrap(), Some(identity(origin)));
            assert!(matches!(again.identity("another"), Err(Error::AnotherCluster { .. })));
        }
    }

    #[test]
    fn what_is_not_an_identity_is_not_guessed_at() {
        let whole = text(&identity(Origin::Joined));
        let path = Path::new("IDENTITY");
        assert!(parse(path, &whole).is_ok());
        for (cut, _) in whole.char_indices().filter(|(at, _)| *at < whole.find("with").unwrap()) {
            assert!(parse(path, &whole[..cut]).is_err(), "{:?}", &whole[..cut]);
        }
        assert!(parse(path, &whole.replace("joined", "guessed")).is_err());
        assert!(parse(path, &(whole + "something else\n")).is_err());
    }
}
