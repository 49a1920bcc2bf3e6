//! The network between members, as a seam: a real one is TCP; a simulation puts its own in its place. It carries bytes and
//! knows nothing of what they mean. Clients' connections do not pass through here.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// Connections that may wait to be accepted; the kernel has a bound of its own.
const BACKLOG: u32 = 1024;

/// A connection, whoever made it.
pub trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

pub trait Net: fmt::Debug + Send + Sync + 'static {
    /// Calls a peer. `host` is a name or an address, of IPv6 without brackets.
    fn dial(&self, host: String, port: u16) -> BoxFuture<'static, io::Result<Box<dyn Wire>>>;

    fn listen(&self, address: SocketAddr) -> BoxFuture<'static, io::Result<Box<dyn Door>>>;
}

/// Where peers call.
pub trait Door: Send {
    /// The next caller. An error says nothing of the callers after it.
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Box<dyn Wire>>>;
}

/// The machine's own network.
#[derive(Debug, Default)]
pub struct Tcp {
    /// Whether other processes may listen on the same ports.
    pub ports_shared: bool,
}

impl Net for Tcp {
    fn dial(&self, host: String, port: u16) -> BoxFuture<'static, io::Result<Box<dyn Wire>>> {
        Box::pin(async move {
            let connection = TcpStream::connect((host, port)).await?;
            connection.set_nodelay(true)?;
            Ok(Box::new(connection) as Box<dyn Wire>)
        })
    }

    fn listen(&self, address: SocketAddr) -> BoxFuture<'static, io::Result<Box<dyn Door>>> {
        let ports_shared = self.ports_shared;
        Box::pin(async move { Ok(Box::new(listener(address, ports_shared)?) as Box<dyn Door>) })
    }
}

/// Listens on an address of this machine; with `ports_shared` also if another process that shares does.
pub fn listener(address: SocketAddr, ports_shared: bool) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // A restart must not wait until the connections of the life before are forgotten.
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(ports_shared)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

impl Door for TcpListener {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Box<dyn Wire>>> {
        Box::pin(async move {
            let (connection, _) = TcpListener::accept(self).await?;
            connection.set_nodelay(true)?;
            Ok(Box::new(connection) as Box<dyn Wire>)
        })
    }
}
