//! How many bytes went over connections, and how many of those are open. A connection may say later whose it is: who calls from
//! another member tells its name only once it is connected.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;

/// With one other side, over all connections, since this process began.
#[derive(Debug, Default)]
pub struct Traffic {
    sent: AtomicU64,
    received: AtomicU64,
    open: AtomicU64,
}

impl Traffic {
    /// Bytes.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Bytes.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Connections that are open.
    pub fn open(&self) -> u64 {
        self.open.load(Ordering::Relaxed)
    }
}

/// One connection's part in somebody's traffic.
#[derive(Debug, Default)]
pub struct Share {
    /// What went over it before it was known whose it is.
    early: Traffic,
    whose: OnceLock<Arc<Traffic>>,
}

impl Share {
    /// Of a connection of which it is known already.
    pub fn of(whose: Arc<Traffic>) -> Share {
        let share = Share::default();
        share.belongs_to(&whose);
        share
    }

    /// Says whose it is; the first word counts.
    pub fn belongs_to(&self, whose: &Arc<Traffic>) {
        if self.whose.set(whose.clone()).is_ok() {
            whose.open.fetch_add(1, Ordering::Relaxed);
            whose.sent.fetch_add(self.early.sent(), Ordering::Relaxed);
            whose.received.fetch_add(self.early.received(), Ordering::Relaxed);
        }
    }

    fn traffic(&self) -> &Traffic {
        self.whose.get().map_or(&self.early, |whose| whose)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if let Some(whose) = self.whose.get() {
            whose.open.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// A connection whose bytes are counted.
pub struct Counted<S> {
    connection: S,
    share: Arc<Share>,
}

impl<S> Counted<S> {
    pub fn new(connection: S, share: Share) -> Counted<S> {
        Counted { connection, share: Arc::new(share) }
    }

    fn written(&self, outcome: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = outcome {
            self.share.traffic().sent.fetch_add(bytes as u64, Ordering::Relaxed);
        }
        outcome
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.connection).poll_read(task, buffer))?;
        let bytes = (buffer.filled().len() - before) as u64;
        self.share.traffic().received.fetch_add(bytes, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(mut self: Pin<&mut Self>, task: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.connection).poll_write(task, bytes);
        self.written(outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.connection).poll_write_vectored(task, slices);
        self.written(outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.connection.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_flush(task)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_shutdown(task)
    }
}

/// A request that comes over such a connection can say whose that is.
impl<S> Connected for Counted<S> {
    type ConnectInfo = Arc<Share>;

    fn connect_info(&self) -> Arc<Share> {
        self.share.clone()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn what_came_early_counts_for_whoever_it_was() -> io::Result<()> {
        let (here, mut there) = tokio::io::duplex(100);
        let mut counted = Counted::new(here, Share::default());
        counted.write_all(b"hello").await?;
        there.write_all(b"hi").await?;
        counted.read_exact(&mut [0; 2]).await?;
        let traffic = Arc::new(Traffic::default());
        counted.connect_info().belongs_to(&traffic);
        counted.connect_info().belongs_to(&Arc::default());
        counted.write_all(b"!").await?;
        assert_eq!((traffic.sent(), traffic.received(), traffic.open()), (6, 2, 1));
        drop(counted);
        assert_eq!(traffic.open(), 0);
        Ok(())
    }
}
