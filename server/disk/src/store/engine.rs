//! What batches are committed to and committed records read from: a database on disk or, for simulations, tables in memory.
//! The rest of the store does not know which; this file only passes on.

use std::sync::Arc;
use std::vec;

use bytes::Bytes;
use tenure_state::{Fatal, Place};

use super::batch::Batch;
use super::database::{Database, DatabaseView};
use super::memory::{InMemory, Tables};

/// Where `applied` lies among the small state.
pub(super) const APPLIED: &[u8] = b"applied";

pub(super) enum Engine {
    Database(Database),
    Memory(InMemory),
}

impl Engine {
    /// The committed record at `place`.
    pub fn record(&self, place: Place) -> Result<Option<Bytes>, Fatal> {
        match self {
            Engine::Database(database) => database.record(place),
            Engine::Memory(memory) => memory.record(place),
        }
    }

    /// Makes the batches visible as one: after a crash all of them are there or none.
    pub fn commit(&self, batches: &[Arc<Batch>]) -> Result<(), Fatal> {
        match self {
            Engine::Database(database) => database.commit(batches),
            Engine::Memory(memory) => memory.commit(batches),
        }
    }

    /// Makes what is committed survive power loss.
    pub fn persist(&self) -> Result<(), Fatal> {
        match self {
            Engine::Database(database) => database.persist(),
            Engine::Memory(memory) => memory.persist(),
        }
    }

    pub fn view(&self) -> View {
        match self {
            Engine::Database(database) => View::Database(database.view()),
            Engine::Memory(memory) => View::Memory(memory.view()),
        }
    }

    pub fn applied_in(&self, view: &View) -> Result<Option<Bytes>, Fatal> {
        match view {
            View::Database(view) => {
                view.applied().map_err(|error| self.failed("read what is applied", &error))
            }
            View::Memory(tables) => Ok(tables.applied()),
        }
    }

    pub fn applied(&self) -> Result<Option<Bytes>, Fatal> {
        self.applied_in(&self.view())
    }

    pub fn health(&self) -> Result<(), Fatal> {
        match self {
            Engine::Database(database) => database.health(),
            Engine::Memory(memory) => memory.health(),
        }
    }

    pub fn size_on_disk(&self) -> u64 {
        match self {
            Engine::Database(database) => database.size_on_disk(),
            Engine::Memory(_) => 0,
        }
    }

    pub fn read_cache_bytes(&self) -> u64 {
        match self {
            Engine::Database(database) => database.read_cache_bytes(),
            Engine::Memory(_) => 0,
        }
    }

    /// Remembers that the library failed, and says so once.
    pub fn failed(&self, attempt: &str, error: &fjall::Error) -> Fatal {
        self.fail(format!("{attempt}: {error}"))
    }

    pub fn fail(&self, what: String) -> Fatal {
        match self {
            Engine::Database(database) => database.fail(what),
            Engine::Memory(_) => Fatal(format!("store in memory: {what}")),
        }
    }
}

/// What was committed at one moment; later commits do not change it.
#[derive(Clone)]
pub(super) enum View {
    Database(DatabaseView),
    Memory(Arc<Tables>),
}

impl View {
    /// Under their encoded places.
    pub fn records(&self, from: Place, to: Place) -> Iter {
        match self {
            View::Database(view) => Iter::Database(view.records(from, to)),
            View::Memory(tables) => Iter::Memory(tables.records(from, to).into_iter()),
        }
    }

    pub fn meta(&self, prefix: &[u8]) -> Iter {
        match self {
            View::Database(view) => Iter::Database(view.meta(prefix)),
            View::Memory(tables) => Iter::Memory(tables.meta(prefix).into_iter()),
        }
    }
}

/// Keys and values in order.
pub(super) enum Iter {
    Database(fjall::Iter),
    Memory(vec::IntoIter<(Bytes, Bytes)>),
}

impl Iterator for Iter {
    type Item = fjall::Result<(Bytes, Bytes)>;

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Iter::Database(iter) => {
                let pair = iter.next()?.into_inner();
                Some(pair.map(|(key, value)| (key.into(), value.into())))
            }
            Iter::Memory(pairs) => pairs.next().map(Ok),
        }
    }
}
