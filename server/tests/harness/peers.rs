//! Where the real etcd programs are. They are never optional: a comparison that did not happen must not look like one that passed.

use std::path::PathBuf;

/// One release of etcd, unpacked by `.ci/peers.sh`.
#[derive(Clone, Copy)]
pub struct Etcd {
    pub version: &'static str,
}

/// The oldest client that is still met in the field.
pub const OLD: Etcd = Etcd { version: "3.4.23" };
/// The server whose behaviour the tests compare with.
pub const NEW: Etcd = Etcd { version: "3.5.1" };

impl Etcd {
    pub fn server(self) -> PathBuf {
        self.program("etcd")
    }

    pub fn etcdctl(self) -> PathBuf {
        self.program("etcdctl")
    }

    fn program(self, name: &str) -> PathBuf {
        let path = cache().join(format!("etcd-{}", self.version)).join(name);
        assert!(
            path.is_file(),
            "{} is not there: run `.ci/peers.sh` once (it fetches the etcd programs that tests compare with), \
             or point TENURE_PEERS at the directory it filled",
            path.display()
        );
        path
    }
}

fn cache() -> PathBuf {
    match std::env::var_os("TENURE_PEERS") {
        Some(path) => path.into(),
        None => PathBuf::from(std::env::var_os("HOME").expect("HOME or TENURE_PEERS must be set"))
            .join(".cache/tenure-peers"),
    }
}
