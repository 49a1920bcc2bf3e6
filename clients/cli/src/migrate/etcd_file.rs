//! An etcd snapshot file: the newest value of each key that lives, and the leases. It knows what etcd puts into its database, not
//! how that is laid out.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::ops::Bound;
use std::path::Path;

use prost::Message;
use sha2::{Digest, Sha256};
use tenure_client::LeaseLeft;
use tenure_client::proto::mvccpb::KeyValue;

use super::bolt::{Bolt, Error};
use crate::failure::Failure;
use crate::progress;

/// What `etcdctl snapshot save` appends. A database's own length is a multiple of its pages'.
const CHECKSUM_BYTES: u64 = 32;
const PAGE_BYTES_LEAST: u64 = 512;
/// A revision as etcd writes it for a key: main, `_`, sub; and a mark behind it if the key was deleted.
const REVISION_BYTES: usize = 17;
const TOMBSTONE: u8 = b't';

/// A snapshot. Its values stay in the file; the keys are in memory.
pub struct EtcdFile {
    bolt: Bolt,
    keys: BTreeMap<Vec<u8>, Place>,
    leases: BTreeMap<i64, LeaseLeft>,
    /// The newest revision in it.
    pub revision: i64,
    /// Whether it ended with a checksum, as a snapshot does and a copied database does not.
    pub was_summed: bool,
    /// Users and roles were on.
    pub has_users: bool,
}

/// Where the newest record of a key is.
struct Place {
    at: u64,
    length: usize,
    lease: i64,
}

/// `leasepb.Lease`.
#[derive(Clone, PartialEq, prost::Message)]
struct Lease {
    #[prost(int64, tag = "1")]
    id: i64,
    #[prost(int64, tag = "2")]
    ttl: i64,
    #[prost(int64, tag = "3")]
    remaining_ttl: i64,
}

impl EtcdFile {
    pub fn open(path: &Path) -> Result<EtcdFile, Failure> {
        EtcdFile::read(path).map_err(|error| {
            let text = format!("the etcd snapshot {} is of no use: {error}", path.display());
            match error {
                Error::Io(_) => Failure::failed(text),
                Error::Foreign | Error::Damaged(_) => Failure::damaged(text),
            }
        })
    }

    fn read(path: &Path) -> Result<EtcdFile, Error> {
        let file = File::open(path)?;
        let bytes = file.metadata()?.len();
        let was_summed = bytes % PAGE_BYTES_LEAST == CHECKSUM_BYTES;
        let data = if was_summed { bytes - CHECKSUM_BYTES } else { bytes };
        if was_summed {
            verify(&file, data)?;
        }
        let bolt = Bolt::open(file, data)?;
        if !bolt.has("key") {
            return Err(Error::Damaged("it has no bucket of keys, so it is not etcd's".into()));
        }
        let (keys, revision) = keys(&bolt)?;
        let (leases, mut has_users) = (leases(&bolt, &keys)?, false);
        bolt.each("auth", |record| {
            has_users |= record.key == b"authEnabled" && record.value == [1];
            Ok(())
        })?;
        Ok(EtcdFile { bolt, keys, leases, revision, was_summed, has_users })
    }

    pub fn count(&self, start: &[u8], end: &[u8]) -> u64 {
        self.range(start, end).count() as u64
    }

    /// The pairs from there on, in order, up to about so many bytes; none, if there are none left.
    pub fn page(&self, start: &[u8], end: &[u8], bytes: usize) -> Result<Vec<KeyValue>, Failure> {
        let (mut pairs, mut room) = (Vec::new(), bytes);
        for (key, place) in self.range(start, end) {
            let read = self.bolt.read(place.at, place.length).and_then(|record| pair(&record));
            let name = key.escape_ascii();
            pairs.push(read.map_err(|error| Failure::damaged(format!("the value of {name}: {error}")))?);
            room = room.saturating_sub(place.length);
            if room == 0 {
                break;
            }
        }
        Ok(pairs)
    }

    pub fn leases(&self) -> Vec<i64> {
        self.leases.keys().copied().collect()
    }

    pub fn lease(&self, id: i64) -> Option<&LeaseLeft> {
        self.leases.get(&id)
    }

    /// `end` as on the wire: `\0` is no end.
    fn range(&self, start: &[u8], end: &[u8]) -> impl Iterator<Item = (&Vec<u8>, &Place)> {
        let upper = if end == [0] { Bound::Unbounded } else { Bound::Excluded(end) };
        let empty = matches!(upper, Bound::Excluded(end) if end <= start);
        let lower = if empty { Bound::Excluded(&[][..]) } else { Bound::Included(start) };
        let upper = if empty { Bound::Excluded(&[0][..]) } else { upper };
        self.keys.range::<[u8], _>((lower, upper))
    }
}

/// Whether the last bytes are the checksum of all before them.
fn verify(file: &File, data: u64) -> Result<(), Error> {
    let bar = progress::Bytes::start("verifying", data);
    let mut input = bar.follow(BufReader::with_capacity(1 << 20, file));
    let mut sum = Sha256::new();
    let mut piece = vec![0; 1 << 20];
    let mut left = data;
    while left > 0 {
        let most = piece.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let count = input.read(&mut piece[..most])?;
        if count == 0 {
            return Err(Error::Damaged("it was cut short while it was read".into()));
        }
        sum.update(&piece[..count]);
        left -= count as u64;
    }
    let mut said = [0; CHECKSUM_BYTES as usize];
    input.read_exact(&mut said)?;
    match sum.finalize()[..] == said {
        true => Ok(()),
        false => Err(Error::Damaged("its SHA-256 is not the one that it ends with".into())),
    }
}

/// The newest record of each key that was not deleted after it, and the newest revision.
fn keys(bolt: &Bolt) -> Result<(BTreeMap<Vec<u8>, Place>, i64), Error> {
    let (mut keys, mut newest) = (BTreeMap::new(), 0);
    bolt.each("key", |record| {
        let deleted = record.key.len() == REVISION_BYTES + 1 && record.key[REVISION_BYTES] == TOMBSTONE;
        if record.key.len() != REVISION_BYTES && !deleted {
            return Err(Error::Damaged(format!("{} is no revision", record.key.escape_ascii())));
        }
        // In order of revisions, so that later ones overwrite.
        let revision = record.key[..8].iter().fold(0, |sum, byte| sum << 8 | i64::from(*byte));
        newest = newest.max(revision);
        let pair = pair(record.value)?;
        if deleted {
            keys.remove(&pair.key[..]);
        } else {
            let place = Place { at: record.at, length: record.value.len(), lease: pair.lease };
            keys.insert(pair.key.to_vec(), place);
        }
        Ok(())
    })?;
    Ok((keys, newest))
}

fn leases(bolt: &Bolt, keys: &BTreeMap<Vec<u8>, Place>) -> Result<BTreeMap<i64, LeaseLeft>, Error> {
    let mut leases = BTreeMap::new();
    bolt.each("lease", |record| {
        let lease = Lease::decode(record.value)
            .map_err(|error| Error::Damaged(format!("a lease cannot be read: {error}")))?;
        // Only etcds that were told to keep what is left of long leases.
        let remaining_s = if lease.remaining_ttl > 0 { lease.remaining_ttl } else { lease.ttl };
        leases.insert(lease.id, LeaseLeft { remaining_s, granted_s: lease.ttl, keys: Vec::new() });
        Ok(())
    })?;
    for (key, place) in keys {
        if let Some(lease) = leases.get_mut(&place.lease) {
            lease.keys.push(key.clone().into());
        }
    }
    Ok(leases)
}

fn pair(record: &[u8]) -> Result<KeyValue, Error> {
    KeyValue::decode(record).map_err(|error| Error::Damaged(format!("a record cannot be read: {error}")))
}
