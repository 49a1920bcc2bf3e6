//! All records of a snapshot, read on a thread of their own while the caller takes in those that came before: who rebuilds
//! a large state does as much work on each record as reading it takes.

use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::{self, JoinHandle};
use std::vec;

use bytes::Bytes;
use tenure_state::{Fatal, Place};

use super::scan::{Chunk, Scan};

/// What lies between the two threads at most: chunks, records in one, and bytes after which one is full.
const CHUNKS_MAX: usize = 4;
const CHUNK_RECORDS: usize = 1024;
const CHUNK_BYTES: usize = 1 << 20;

/// Records in order of their places. Ends after its first error. Dropping it early waits for the reading thread, which
/// ends with the chunk that it reads.
pub struct Ahead {
    /// None once all of it was read, or after an error.
    chunks: Option<Receiver<Result<Chunk, Fatal>>>,
    current: vec::IntoIter<(Place, Bytes)>,
    reading: Option<JoinHandle<()>>,
}

impl Ahead {
    pub(super) fn begin(mut scan: Scan) -> Result<Ahead, Fatal> {
        let (sender, chunks) = sync_channel(CHUNKS_MAX);
        let read = move || {
            loop {
                let chunk = scan.chunk(CHUNK_RECORDS, CHUNK_BYTES);
                let last = chunk.as_ref().map_or(true, |chunk| chunk.next.is_none());
                if sender.send(chunk).is_err() || last {
                    return;
                }
            }
        };
        let reading = thread::Builder::new().name("store-ahead".into()).spawn(read).map_err(|error| {
            Fatal(format!("cannot start a thread that reads the store: {error}; raise the limit of tasks"))
        })?;
        Ok(Ahead { chunks: Some(chunks), current: Vec::new().into_iter(), reading: Some(reading) })
    }

    /// Waits until the thread has ended; its panic becomes the caller's.
    fn end(&mut self) {
        self.chunks = None;
        if let Some(Err(panic)) = self.reading.take().map(JoinHandle::join)
            && !thread::panicking()
        {
            std::panic::resume_unwind(panic);
        }
    }
}

impl Iterator for Ahead {
    type Item = Result<(Place, Bytes), Fatal>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(record) = self.current.next() {
                return Some(Ok(record));
            }
            match self.chunks.as_ref()?.recv() {
                Ok(Ok(chunk)) => self.current = chunk.records.into_iter(),
                Ok(Err(fatal)) => {
                    self.end();
                    return Some(Err(fatal));
                }
                Err(_) => self.end(),
            }
        }
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.end();
    }
}
