//! The network between members, as a seam: a real one is TCP; a simulation puts its own in its place. It carries bytes and
//! knows nothing of what they mean. Clients' connections do not pass through here.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};

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
#[derive(Debug)]
pub struct Tcp;

impl Net for Tcp {
    fn dial(&self, host: String, port: u16) -> BoxFuture<'static, io::Result<Box<dyn Wire>>> {
        Box::pin(async move {
            let connection = TcpStream::connect((host, port)).await?;
            connection.set_nodelay(true)?;
            Ok(Box::new(connection) as Box<dyn Wire>)
        })
    }

    fn listen(&self, address: SocketAddr) -> BoxFuture<'static, io::Result<Box<dyn Door>>> {
        Box::pin(async move { Ok(Box::new(TcpListener::bind(address).await?) as Box<dyn Door>) })
    }
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
