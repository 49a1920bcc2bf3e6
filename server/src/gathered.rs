//! Gathers what the HTTP/2 library writes into few system calls. To a connection that can write several slices at once, the library
//! sends each answer of 256 bytes and more with a call of its own, so that half of the time of a loaded server went into them;
//! to any other it copies answers below 1 KiB together and writes them at once. So this one says that it cannot, and joins by
//! itself the two parts in which the library then writes a larger answer. It knows nothing of what passes through it.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;

/// Bytes that wait for more, or for a flush. A write of that size is worth a call of its own.
const WAITING_MAX: usize = 4 << 10;

/// A connection whose writing side gathers.
pub struct Gathered<S> {
    connection: S,
    waiting: Vec<u8>,
}

impl<S> Gathered<S> {
    pub fn new(connection: S) -> Gathered<S> {
        Gathered { connection, waiting: Vec::new() }
    }
}

impl<S: AsyncWrite + Unpin> Gathered<S> {
    /// Writes what waits.
    fn poll_drain(&mut self, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.waiting.is_empty() {
            let written = ready!(Pin::new(&mut self.connection).poll_write(task, &self.waiting))?;
            self.take(written)?;
        }
        Poll::Ready(Ok(()))
    }

    fn take(&mut self, written: usize) -> io::Result<()> {
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.waiting.drain(..written);
        Ok(())
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gathered<S> {
    fn poll_write(self: Pin<&mut Self>, task: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.waiting.is_empty() && bytes.len() >= WAITING_MAX {
            return Pin::new(&mut this.connection).poll_write(task, bytes);
        }
        while this.waiting.len() + bytes.len() > WAITING_MAX && !this.waiting.is_empty() {
            let both = [IoSlice::new(&this.waiting), IoSlice::new(bytes)];
            let written = ready!(Pin::new(&mut this.connection).poll_write_vectored(task, &both))?;
            if written > this.waiting.len() {
                let taken = written - this.waiting.len();
                this.waiting.clear();
                return Poll::Ready(Ok(taken));
            }
            this.take(written)?;
        }
        this.waiting.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    /// What this whole type is for: see the head of the file.
    fn is_write_vectored(&self) -> bool {
        false
    }

    fn poll_flush(self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_drain(task))?;
        Pin::new(&mut this.connection).poll_flush(task)
    }

    fn poll_shutdown(self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_drain(task))?;
        Pin::new(&mut this.connection).poll_shutdown(task)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gathered<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        task: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().connection).poll_read(task, buffer)
    }
}

impl<S: Connected> Connected for Gathered<S> {
    type ConnectInfo = S::ConnectInfo;

    fn connect_info(&self) -> S::ConnectInfo {
        self.connection.connect_info()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    /// Takes at most so many bytes a call, and remembers what came and in how many calls.
    struct Narrow {
        bytes_max: usize,
        seen: Vec<u8>,
        calls: usize,
    }

    impl AsyncWrite for Narrow {
        fn poll_write(self: Pin<&mut Self>, task: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            self.poll_write_vectored(task, &[IoSlice::new(bytes)])
        }

        fn poll_write_vectored(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            slices: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            let this = self.get_mut();
            let bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
            let taken = bytes.len().min(this.bytes_max);
            this.seen.extend_from_slice(&bytes[..taken]);
            this.calls += 1;
            Poll::Ready(Ok(taken))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn gathered(bytes_max: usize) -> Gathered<Narrow> {
        Gathered::new(Narrow { bytes_max, seen: Vec::new(), calls: 0 })
    }

    #[tokio::test]
    async fn what_is_written_before_a_flush_goes_out_in_one_call() -> io::Result<()> {
        let mut gathered = gathered(usize::MAX);
        gathered.write_all(&[1; 1_033]).await?;
        gathered.write_all(&[2; 2_000]).await?;
        assert_eq!(gathered.connection.calls, 0);
        gathered.flush().await?;
        assert_eq!((gathered.connection.calls, gathered.connection.seen.len()), (1, 3_033));

        gathered.write_all(&[3; 1_033]).await?;
        gathered.write_all(&[4; 15_000]).await?;
        gathered.flush().await?;
        assert_eq!((gathered.connection.calls, gathered.connection.seen.len()), (2, 3_033 + 16_033));
        Ok(())
    }

    #[tokio::test]
    async fn nothing_is_lost_or_turned_round_however_little_a_call_takes() -> io::Result<()> {
        for bytes_max in [1, 7, 1_000, 4_096, 5_000, usize::MAX] {
            let mut gathered = gathered(bytes_max);
            let mut told = Vec::new();
            for length in [1, 4_095, 4_096, 0, 5, 9_000, 4_090, 20, 1_033, 3_063, 3_064, 3_065] {
                let bytes: Vec<u8> = (0..length).map(|at| ((told.len() + at) % 251) as u8).collect();
                gathered.write_all(&bytes).await?;
                told.extend_from_slice(&bytes);
                if length % 2 == 0 {
                    gathered.flush().await?;
                }
            }
            gathered.shutdown().await?;
            assert!(gathered.connection.seen == told, "with {bytes_max} bytes a call");
        }
        Ok(())
    }
}
