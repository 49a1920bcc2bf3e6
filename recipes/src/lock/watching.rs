//! A picture of many locks that follows every change, as a stream: all there are first, then those that look otherwise after each
//! revision. When history is lost it begins anew and says so.

use tenure_proto::tenure::v1::LockSummary;

use super::keys::KIND;
use super::overview::Overview;
use crate::check;
use crate::key::{Root, end_of_prefix};
use crate::primitives::{Changes, Failure, Primitives};
use crate::refusal::Error;

/// Locks in one message of a beginning.
const LOCKS_AT_ONCE: usize = 500;

pub struct Watching<P: Primitives> {
    primitives: P,
    root: Root,
    range: (Vec<u8>, Vec<u8>),
    picture: Option<(Overview, P::Changes)>,
    /// Of the beginning, what is still to be told, the last first.
    begin: Vec<LockSummary>,
    complete: bool,
    reset: bool,
    revision: i64,
}

/// One message.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Told {
    pub locks: Vec<LockSummary>,
    /// With this message all has been told that there was at the beginning.
    pub complete: bool,
    /// Nothing that was told before counts any more.
    pub reset: bool,
    pub revision: i64,
}

/// Follows one lock, or all whose names begin with `name`.
pub fn watch<P: Primitives>(
    primitives: &P,
    root: &Root,
    name: &str,
    prefix: bool,
) -> Result<Watching<P>, Error> {
    let range = if prefix {
        let from = root.key(&[KIND, name]);
        (from.clone(), end_of_prefix(from))
    } else {
        check::name("lock", name)?;
        root.below(&[KIND, name])
    };
    let (primitives, root) = (primitives.clone(), root.clone());
    Ok(Watching {
        primitives,
        root,
        range,
        picture: None,
        begin: Vec::new(),
        complete: true,
        reset: false,
        revision: 0,
    })
}

impl<P: Primitives> Watching<P> {
    /// The next message. Safe to drop and to call again.
    pub async fn next(&mut self) -> Result<Told, Failure> {
        loop {
            if !self.complete {
                let rest = self.begin.len().saturating_sub(LOCKS_AT_ONCE);
                let locks = self.begin.split_off(rest).into_iter().rev().collect();
                self.complete = self.begin.is_empty();
                let reset = std::mem::take(&mut self.reset);
                return Ok(Told { locks, complete: self.complete, reset, revision: self.revision });
            }
            let Some((picture, changes)) = &mut self.picture else {
                self.start().await?;
                continue;
            };
            match changes.next().await {
                Ok(change) => {
                    let names = picture.follow(&self.root, &change)?;
                    if !names.is_empty() {
                        let locks = names.iter().map(|name| picture.summary(name)).collect();
                        return Ok(Told { locks, revision: change.revision, ..Told::default() });
                    }
                }
                Err(Failure::Compacted { .. }) => {
                    self.picture = None;
                    self.reset = true;
                }
                Err(failure) => return Err(failure),
            }
        }
    }

    async fn start(&mut self) -> Result<(), Failure> {
        let (overview, revision) = Overview::begin(&self.primitives, &self.root, self.range.clone()).await?;
        let (from, to) = self.range.clone();
        let changes = self.primitives.watch(from, to, revision + 1).await?;
        self.begin = overview.names().map(|name| overview.summary(name)).collect();
        self.begin.reverse();
        (self.complete, self.revision) = (false, revision);
        self.picture = Some((overview, changes));
        Ok(())
    }
}
