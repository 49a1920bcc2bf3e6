//! Where keys go: changes gathered into transactions that a server takes, and sent again until it does. What is written is the
//! same however often it is written.

use std::collections::HashSet;
use std::future::IntoFuture;

use prost::bytes::Bytes;
use tenure_client::proto::etcdserverpb::RequestOp;
use tenure_client::proto::mvccpb::KeyValue;
use tenure_client::{Client, Error};

use super::source::patiently;
use crate::failure::Failure;

/// Below the 1.5 MiB that a server takes unless it is told otherwise, with room for what is around keys and values.
const BATCH_BYTES_MAX: usize = 1 << 20;
/// What a server takes unless it is told otherwise.
const BATCH_CHANGES_MAX: usize = 128;

#[derive(Clone)]
enum Change {
    Put { key: Bytes, value: Bytes, lease: i64 },
    Delete(Bytes),
}

/// What was written.
#[derive(Clone, Copy, Debug, Default)]
pub struct Written {
    pub puts: u64,
    pub deletes: u64,
}

pub struct Writer {
    client: Client,
    batch: Vec<Change>,
    /// In the batch: a transaction may name each only once.
    keys: HashSet<Bytes>,
    bytes: usize,
    batch_max: usize,
    pub written: Written,
}

impl Writer {
    pub fn new(client: Client) -> Writer {
        Writer {
            client,
            batch: Vec::new(),
            keys: HashSet::new(),
            bytes: 0,
            batch_max: BATCH_CHANGES_MAX,
            written: Written::default(),
        }
    }

    /// So many changes follow that should be seen together: they are, if a transaction can hold them.
    pub async fn begin_together(&mut self, changes: usize) -> Result<(), Failure> {
        if self.batch.len() + changes > self.batch_max { self.flush().await } else { Ok(()) }
    }

    pub async fn put(&mut self, pair: KeyValue, lease: i64) -> Result<(), Failure> {
        self.add(Change::Put { key: pair.key, value: pair.value, lease }).await
    }

    pub async fn delete(&mut self, key: Bytes) -> Result<(), Failure> {
        self.add(Change::Delete(key)).await
    }

    async fn add(&mut self, change: Change) -> Result<(), Failure> {
        let (key, bytes) = match &change {
            Change::Put { key, value, .. } => (key.clone(), key.len() + value.len()),
            Change::Delete(key) => (key.clone(), key.len()),
        };
        let full = self.batch.len() >= self.batch_max || self.bytes + bytes > BATCH_BYTES_MAX;
        if full || self.keys.contains(&key) {
            self.flush().await?;
        }
        self.keys.insert(key);
        self.bytes += bytes;
        self.batch.push(change);
        Ok(())
    }

    pub async fn flush(&mut self) -> Result<(), Failure> {
        self.keys.clear();
        self.bytes = 0;
        let batch = std::mem::take(&mut self.batch);
        if let Err(error) = self.send(&batch).await {
            if batch.len() == 1 {
                return Err(refused(&batch[0], error));
            }
            if is_too_many(&error) {
                self.batch_max = (batch.len() / 2).max(1);
            }
            // One by one it shows which it is, and those that can be are written.
            for change in batch {
                match self.send(std::slice::from_ref(&change)).await {
                    Ok(()) => {}
                    // It ran out there; its keys go the same way.
                    Err(error) if error.is_not_found() => {}
                    Err(error) => return Err(refused(&change, error)),
                }
            }
        }
        Ok(())
    }

    async fn send(&mut self, batch: &[Change]) -> Result<(), Error> {
        let kv = self.client.kv();
        match batch {
            [] => return Ok(()),
            // Without a transaction around it, a value of the largest size has room.
            [Change::Put { key, value, lease }] => {
                patiently(|| kv.put(key, value).lease(*lease).into_future()).await?;
            }
            [Change::Delete(key)] => {
                patiently(|| kv.delete(key).into_future()).await?;
            }
            batch => {
                let operation = |change: &Change| -> RequestOp {
                    match change {
                        Change::Put { key, value, lease } => kv.put(key, value).lease(*lease).into(),
                        Change::Delete(key) => kv.delete(key).into(),
                    }
                };
                let txn = batch.iter().fold(kv.txn(), |txn, change| txn.then(operation(change)));
                patiently(|| txn.clone().commit()).await?;
            }
        }
        for change in batch {
            match change {
                Change::Put { .. } => self.written.puts += 1,
                Change::Delete(_) => self.written.deletes += 1,
            }
        }
        Ok(())
    }
}

fn is_too_many(error: &Error) -> bool {
    matches!(error, Error::Refused { text, .. } if text.contains("too many operations"))
}

fn refused(change: &Change, error: Error) -> Failure {
    let (key, bytes) = match change {
        Change::Put { key, value, .. } => (key, value.len()),
        Change::Delete(key) => (key, 0),
    };
    let hint = match &error {
        Error::Refused { text, .. } if text.contains("request is too large") => {
            "; start the target with a larger --max-request-bytes"
        }
        Error::Refused { text, .. } if text.contains("database space exceeded") => {
            "; start the target with a larger --quota-backend-bytes"
        }
        _ => "",
    };
    let text = format!("the target does not take {} ({bytes} bytes): {error}{hint}", key.escape_ascii());
    match error {
        Error::Unavailable(_) => Failure::unreachable(text),
        _ => Failure::failed(text),
    }
}
