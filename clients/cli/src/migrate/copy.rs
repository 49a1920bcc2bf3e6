//! One pass over both sides: brings the target to what the source was at one revision, or only says whether it is there. A pass
//! looks at what the target has, so that one that was cut off is taken up by the next.

use sha2::{Digest, Sha256};
use tenure_client::Client;
use tenure_client::proto::mvccpb::KeyValue;

use super::leases::Leases;
use super::source::{Broken, Source, Span, Step, Walk, patiently, step};
use super::target::{Writer, Written};
use crate::failure::Failure;
use crate::progress::Keys;

/// Both sides, and what is between them.
pub struct Sides {
    pub source: Source,
    pub target: Client,
    pub leases: Leases,
    pub span: Span,
    /// Keys of the target that the source does not have stay.
    pub keep_others: bool,
}

/// What a pass did.
#[derive(Debug, Default)]
pub struct Copied {
    pub keys: u64,
    pub bytes: u64,
    pub written: Written,
    /// Keys of the source in the room that is the server's own.
    pub reserved: u64,
}

/// One side's keys and values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Digested {
    pub keys: u64,
    pub bytes: u64,
    pub sha256: String,
}

/// What a comparison found.
pub struct Comparison {
    pub source: Digested,
    pub target: Digested,
    /// Only the source has them, or with another value or lease.
    pub missing: u64,
    pub different: u64,
    /// Only the target has them.
    pub others: u64,
    /// Only the source has them, and their leases have ended since, here or there.
    pub ended: u64,
    /// The first key of those.
    pub first: Option<String>,
}

impl Comparison {
    pub fn agrees(&self) -> bool {
        self.missing + self.different + self.others == 0
    }
}

impl Sides {
    /// How many keys the target has in the range, without those of the server's own.
    pub async fn target_is_empty(&self) -> Result<bool, Broken> {
        let mut walk = self.target_walk();
        while !walk.is_ready() {
            walk.fetch().await?;
        }
        Ok(walk.held.is_empty())
    }

    pub fn target_walk(&self) -> Walk {
        Source::Live(self.target.clone()).walk(&self.span, 0)
    }

    /// Brings the target to what the source was at `revision`. `empty`: there is nothing yet.
    pub async fn copy(&self, revision: i64, empty: bool) -> Result<Copied, Broken> {
        let total = self.source.count(&self.span, revision).await?;
        let bar = Keys::start(if empty { "copying" } else { "updating" }, total);
        let mut from = self.source.walk(&self.span, revision);
        let mut to = if empty { Walk::nothing() } else { self.target_walk() };
        let mut writer = Writer::new(self.target.clone());
        let mut copied = Copied::default();
        while let Some(step) = self.next(&mut from, &mut to).await? {
            match step {
                Step::OnlyRight(_) if self.keep_others => {}
                Step::OnlyRight(pair) => writer.delete(pair.key).await?,
                Step::OnlyLeft(pair) => {
                    copied.count(&pair);
                    if let Some(lease) = self.leases.at_target(pair.lease) {
                        writer.put(pair, lease).await?;
                    }
                }
                Step::Both(ours, theirs) => {
                    copied.count(&ours);
                    match self.leases.at_target(ours.lease) {
                        Some(lease) if ours.value != theirs.value || lease != theirs.lease => {
                            writer.put(ours, lease).await?;
                        }
                        Some(_) => {}
                        None => writer.delete(ours.key).await?,
                    }
                }
            }
            bar.at(copied.keys, total);
        }
        writer.flush().await?;
        copied.written = writer.written;
        copied.reserved = from.reserved;
        Ok(copied)
    }

    /// Reads both sides; `revision` of the source.
    pub async fn compare(&self, revision: i64) -> Result<Comparison, Broken> {
        let total = self.source.count(&self.span, revision).await?;
        let bar = Keys::start("comparing", total);
        let (mut from, mut to) = (self.source.walk(&self.span, revision), self.target_walk());
        let (mut source, mut target) = (Sum::default(), Sum::default());
        let (mut missing, mut different, mut others, mut ended, mut first) = (0, 0, 0, 0, None);
        while let Some(step) = self.next(&mut from, &mut to).await? {
            let differs = match step {
                Step::OnlyRight(_) if self.keep_others => None,
                Step::OnlyRight(pair) => {
                    target.add(&pair);
                    others += 1;
                    Some(pair.key)
                }
                Step::OnlyLeft(pair) if self.has_ended(&pair).await? => {
                    ended += 1;
                    None
                }
                Step::OnlyLeft(pair) => {
                    source.add(&pair);
                    missing += 1;
                    Some(pair.key)
                }
                Step::Both(ours, theirs) => {
                    source.add(&ours);
                    target.add(&theirs);
                    let same = ours.value == theirs.value
                        && self.leases.at_target(ours.lease).is_none_or(|lease| lease == theirs.lease);
                    different += u64::from(!same);
                    (!same).then_some(ours.key)
                }
            };
            if first.is_none() {
                first = differs.map(|key| key.escape_ascii().to_string());
            }
            bar.at(source.keys, total);
        }
        let (source, target) = (source.digested(), target.digested());
        Ok(Comparison { source, target, missing, different, others, ended, first })
    }

    /// The next key, once both walks have something to say, with its lease known.
    async fn next(&self, from: &mut Walk, to: &mut Walk) -> Result<Option<Step>, Broken> {
        while !from.is_ready() {
            from.fetch().await?;
            self.leases.learn(from.held.iter().map(|pair| pair.lease)).await?;
        }
        while !to.is_ready() {
            to.fetch().await?;
        }
        Ok(step(from, to))
    }

    /// Whether a key that is not at the target went with its lease.
    async fn has_ended(&self, pair: &KeyValue) -> Result<bool, Failure> {
        let id = match self.leases.at_target(pair.lease) {
            Some(0) => return Ok(false),
            None => return Ok(true),
            Some(id) => id,
        };
        let leases = self.target.leases();
        Ok(patiently(|| async { leases.time_to_live(id).await }).await?.is_none())
    }
}

impl Copied {
    fn count(&mut self, pair: &KeyValue) {
        self.keys += 1;
        self.bytes += (pair.key.len() + pair.value.len()) as u64;
    }
}

#[derive(Default)]
struct Sum {
    keys: u64,
    bytes: u64,
    sha256: Sha256,
}

impl Sum {
    /// With their lengths, so that what moves from one to the other is seen.
    fn add(&mut self, pair: &KeyValue) {
        for part in [&pair.key, &pair.value] {
            self.sha256.update((part.len() as u64).to_be_bytes());
            self.sha256.update(part);
            self.bytes += part.len() as u64;
        }
        self.keys += 1;
    }

    fn digested(self) -> Digested {
        let sha256 = self.sha256.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Digested { keys: self.keys, bytes: self.bytes, sha256 }
    }
}
