//! Following services: a snapshot, every change after it, and the truth when changes were missed. Whoever follows asks for what comes next;
//! between two questions nothing happens here.

use std::collections::VecDeque;

use tenure_proto::tenure::v1::{Instance, InstanceSelector, WatchInstancesRequest};

use super::Registry;
use super::keys::Range;
use super::mirror::{Delta, Mirror};
use super::request;
use super::selector::selects;
use super::transition::Freshness;
use crate::primitives::{Changes, Failure, Primitives};
use crate::refusal::Error;

/// Instances in one part of a snapshot: some hundred bytes each.
const PART: usize = 500;

/// What a follower is told.
#[derive(Clone, Debug, PartialEq)]
pub enum Told {
    Part(Vec<Instance>),
    /// All parts were told; they hold at this revision.
    End(i64),
    /// Nothing was missed: what follows continues what the follower has.
    Resumed(i64),
    /// Never an empty one.
    Delta(Delta),
    /// Some changes are unknown, as history begins at this revision. A snapshot follows.
    Reset(i64),
}

pub struct Follow<P: Primitives> {
    registry: Registry<P>,
    range: Range,
    selector: InstanceSelector,
    state: State<P>,
    /// Everything up to here was told.
    told: i64,
    /// What is to be told as soon as changes are followed.
    owed: Option<Told>,
}

enum State<P: Primitives> {
    /// To begin behind this revision, whose state the follower has; 0: with a snapshot.
    Begin {
        after: i64,
    },
    Snapshot {
        parts: VecDeque<Vec<Instance>>,
        mirror: Mirror,
    },
    Following {
        changes: P::Changes,
        mirror: Mirror,
    },
}

impl<P: Primitives> Registry<P> {
    pub fn follow(&self, request: WatchInstancesRequest) -> Result<Follow<P>, Error> {
        request::watch(&request)?;
        Ok(Follow {
            registry: self.clone(),
            range: self.range_of(request.services.as_ref()),
            selector: request.selector.unwrap_or_default(),
            state: State::Begin { after: request.after_revision },
            told: request.after_revision,
            owed: None,
        })
    }
}

impl<P: Primitives> Follow<P> {
    /// Waits for what is to be told next. If it is dropped before, the next call goes on where it was; only while
    /// [`Follow::is_current`] does that cost nothing.
    pub async fn next(&mut self) -> Result<Told, Failure> {
        loop {
            match &mut self.state {
                State::Begin { after } => {
                    let after = *after;
                    if let Some(reset) = self.begin(after).await? {
                        return Ok(reset);
                    }
                }
                State::Snapshot { parts, .. } => match parts.pop_front() {
                    Some(part) => return Ok(Told::Part(part)),
                    None => match self.change_over().await {
                        Err(Failure::Compacted { at }) => return Ok(self.reset(at)),
                        changed_over => changed_over?,
                    },
                },
                State::Following { changes, mirror } => {
                    if let Some(owed) = self.owed.take() {
                        return Ok(owed);
                    }
                    match changes.next().await {
                        Ok(change) => {
                            let moved = mirror.apply(&change);
                            self.told = change.revision;
                            let delta = Delta::of(change.revision, moved, &self.selector);
                            if !delta.is_empty() {
                                return Ok(Told::Delta(delta));
                            }
                        }
                        Err(Failure::Compacted { at }) => return Ok(self.reset(at)),
                        Err(failure) => return Err(failure),
                    }
                }
            }
        }
    }

    /// Whether the snapshot is told, and what comes next is a change.
    pub fn is_current(&self) -> bool {
        matches!(self.state, State::Following { .. })
    }

    /// Everything up to this revision was told.
    pub fn told(&self) -> i64 {
        match &self.state {
            State::Following { changes, .. } => self.told.max(changes.reached()),
            State::Begin { .. } | State::Snapshot { .. } => self.told,
        }
    }

    /// Asks how far that is, though nothing may change: a later [`Follow::told`] says it.
    pub fn ask_told(&mut self) {
        if let State::Following { changes, .. } = &mut self.state {
            changes.ask_reached();
        }
    }

    /// Reads the state from which to go on; gives what is to be told when that is not the one the follower has.
    async fn begin(&mut self, after: i64) -> Result<Option<Told>, Failure> {
        let loaded = self.registry.load(&self.range, after, Freshness::Newest).await;
        let (mirror, revision) = match loaded {
            Ok(loaded) => loaded,
            Err(Failure::Compacted { at }) if after != 0 => return Ok(Some(self.reset(at))),
            // A revision that was never, as after a restore from a backup.
            Err(Failure::Invalid(_)) if after != 0 => return Ok(Some(self.reset(0))),
            Err(failure) => return Err(failure),
        };
        self.told = revision;
        if after != 0 {
            self.owed.get_or_insert(Told::Resumed(revision));
            self.state = State::Snapshot { parts: VecDeque::new(), mirror };
            return Ok(None);
        }
        self.owed = Some(Told::End(revision));
        let selected: Vec<Instance> =
            mirror.instances().filter(|instance| selects(&self.selector, instance)).collect();
        let parts = selected.chunks(PART).map(<[Instance]>::to_vec).collect();
        self.state = State::Snapshot { parts, mirror };
        Ok(None)
    }

    /// From the snapshot to what changes behind it. Dropped half-way, the snapshot is read again.
    async fn change_over(&mut self) -> Result<(), Failure> {
        let before = std::mem::replace(&mut self.state, State::Begin { after: self.told });
        if let State::Snapshot { mirror, .. } = before {
            let (key, range_end) = self.range.clone();
            let changes = self.registry.primitives.watch(key, range_end, self.told + 1).await?;
            self.state = State::Following { changes, mirror };
        }
        Ok(())
    }

    fn reset(&mut self, at: i64) -> Told {
        self.owed = None;
        self.state = State::Begin { after: 0 };
        Told::Reset(at)
    }
}
