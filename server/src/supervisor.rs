//! Who started this process and wants to hear how it is: systemd, for units of `Type=notify`, as etcd's are. One datagram a message, and
//! silence when nobody asked. Knows nothing of what the messages are about.

use std::ffi::OsString;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// The one who waits, if anybody.
#[derive(Debug, Clone, Default)]
pub struct Supervisor {
    socket: Option<OsString>,
}

impl Supervisor {
    /// `socket`: what `NOTIFY_SOCKET` says, a path or, after an `@`, an abstract name.
    pub fn at(socket: Option<OsString>) -> Supervisor {
        Supervisor { socket: socket.filter(|socket| !socket.is_empty()) }
    }

    /// This member serves.
    pub fn ready(&self) {
        self.say("READY=1");
    }

    /// This member was told to stop, and is about to.
    pub fn stopping(&self) {
        self.say("STOPPING=1");
    }

    fn say(&self, message: &str) {
        let Some(socket) = &self.socket else { return };
        let sent = address(socket)
            .and_then(|address| UnixDatagram::unbound()?.send_to_addr(message.as_bytes(), &address));
        if let Err(error) = sent {
            tracing::warn!(
                "cannot tell {message} to {}: {error}; is NOTIFY_SOCKET systemd's?",
                socket.display()
            );
        }
    }
}

fn address(socket: &OsString) -> std::io::Result<SocketAddr> {
    match socket.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(socket),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn messages_are_datagrams() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let systemd = UnixDatagram::bind(&path).unwrap();
        let supervisor = Supervisor::at(Some(path.into()));
        supervisor.ready();
        supervisor.stopping();
        let mut message = [0; 64];
        for expected in ["READY=1", "STOPPING=1"] {
            let length = systemd.recv(&mut message).unwrap();
            assert_eq!(&message[..length], expected.as_bytes());
        }
    }

    #[test]
    fn an_abstract_name_follows_an_at_sign() {
        let address = address(&"@tenure".into()).unwrap();
        assert_eq!(address.as_abstract_name(), Some(&b"tenure"[..]));
        Supervisor::at(None).ready();
        Supervisor::at(Some("/nowhere/at/all".into())).ready();
    }
}
