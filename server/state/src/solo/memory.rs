//! What a disk would hold, in memory: records and the rest of the replicated state, as the machine's writes make them.
//! A machine loaded from it goes on where the one before it stopped. It knows nothing of what the bytes mean, but for
//! the applied position, which whoever commits writes.

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message;
use tenure_proto::internal::{Applied, LogPosition};

use crate::change::Write;
use crate::load::Load;
use crate::machine::{Machine, Position};
use crate::records::{Fatal, Records};
use crate::revision::{Place, Revision};
use crate::stored;

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Memory {
    records: BTreeMap<Place, Bytes>,
    meta: BTreeMap<Bytes, Bytes>,
}

impl Memory {
    /// Makes these writes, all of them.
    pub fn take(&mut self, writes: impl IntoIterator<Item = Write>) {
        for write in writes {
            match write {
                Write::Record { at, bytes } => self.records.insert(at, bytes),
                Write::DropRecord { at } => self.records.remove(&at),
                Write::Meta { key, value: Some(value) } => self.meta.insert(key, value),
                Write::Meta { key, value: None } => self.meta.remove(&key),
            };
        }
    }

    /// Notes how far the log has been applied.
    pub fn set_applied(&mut self, at: Position, revision: Revision, compacted: Revision) {
        let position = Some(LogPosition { term: at.term, node: 0, index: at.index });
        let applied =
            Applied { position, revision: revision.0, compacted: compacted.0, ..Default::default() };
        self.meta.insert(Bytes::from_static(stored::APPLIED), applied.encode_to_vec().into());
    }

    /// The position of the last entry applied; zeros if none was.
    pub fn applied(&self) -> Position {
        let LogPosition { term, index, .. } = self.note().position.unwrap_or_default();
        Position { term, index }
    }

    /// A machine in the state that is stored here. The caller sweeps it.
    pub fn load(&self, record_bytes_max: usize) -> Result<Machine, Fatal> {
        let Applied { revision, compacted, .. } = self.note();
        let mut load = Load::new(record_bytes_max, Revision(revision), Revision(compacted));
        for (place, record) in &self.records {
            load.record(*place, record.clone())?;
        }
        for (key, value) in &self.meta {
            load.meta(key, value)?;
        }
        Ok(load.finish())
    }

    /// All records, in the order in which they happened.
    pub fn records(&self) -> impl Iterator<Item = (Place, &Bytes)> {
        self.records.iter().map(|(place, record)| (*place, record))
    }

    fn note(&self) -> Applied {
        self.meta.get(stored::APPLIED).map_or_else(Applied::default, |note| {
            Applied::decode(note.clone()).expect("only set_applied writes here")
        })
    }
}

impl Records for Memory {
    fn record(&self, place: Place) -> Result<Option<Bytes>, Fatal> {
        Ok(self.records.get(&place).cloned())
    }
}
