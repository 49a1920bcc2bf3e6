//! From the log into the state: each committed entry is given to the machine, its writes go to the store, what follows
//! from it goes out, and only then the caller has the answer. Waits for the disk and for nothing else.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use openraft::EntryPayload;
use openraft::storage::{EntryResponder, RaftStateMachine};
use prost::Message;
use tenure_disk::store::Store;
use tenure_proto::internal;
use tenure_state::{Effect, Fatal, Machine, Member, Place, Position, Records, Response, Revision, Write};
use tokio::sync::{Notify, watch};

use super::codec;
use super::durable::Durable;
use super::snapshot::{self, Data, Outgoing, SnapshotBuilder};
use super::types::{
    Entry, LogId, Mandate, Membership, Proposal, Reply, StoredMembership, Ticket, TypeConfig,
};
use super::view::View;
use crate::metrics::{Meters, Stopwatch};
use crate::simulation;

/// Entries given to the machine while its lock is held: readers wait no longer than these take.
const ENTRIES_AT_ONCE: usize = 256;

/// Who follows what was applied. Called in the log's order, before the proposers have their answers, and must not wait.
pub trait Outlet: Send + Sync + 'static {
    fn follow(&self, at: Position, effects: Vec<Effect>);

    /// The whole state was replaced by a later one: what lies between was not followed.
    fn restored(&self);

    /// From here on entries are of this leadership: whatever earlier leaders took and is not applied by now never will be.
    fn led(&self, mandate: Mandate);

    /// What became of a proposal that another member made for this one, by its ticket's number.
    fn answer(&self, number: u64, reply: Reply);
}

/// The consensus library's state machine, over ours.
pub struct StateMachine {
    pub(super) view: Arc<View>,
    outlet: Arc<dyn Outlet>,
    pub(super) applied: Option<LogId>,
    pub(super) membership: StoredMembership,
    pub(super) record_bytes_max: usize,
    /// Bytes of commands applied since the last snapshot, and whom to tell when they are many.
    unsaved_bytes: usize,
    heavy_log: Arc<Notify>,
    member: u64,
    /// Whose entries are being applied.
    mandate: Mandate,
    /// Index of the last applied entry, told after its effects are out.
    told: watch::Sender<u64>,
    outgoing: Outgoing,
    durable: Durable,
    meters: Arc<Meters>,
}

/// A snapshot is due after so many bytes of commands even if the entries are few: what the log holds beyond it is read
/// again at the next start.
const UNSAVED_BYTES_MAX: usize = 128 << 20;

impl StateMachine {
    /// Takes up where the store says it stopped.
    pub fn new(
        member: u64,
        view: Arc<View>,
        outlet: Arc<dyn Outlet>,
        record_bytes_max: usize,
        outgoing: Outgoing,
        durable: Durable,
        meters: Arc<Meters>,
    ) -> io::Result<StateMachine> {
        let (applied, membership) = match view.store().applied() {
            Some(bytes) => {
                let applied = internal::Applied::decode(bytes).map_err(io::Error::other)?;
                (applied.position.as_ref().map(codec::position), codec::stored_membership(&applied)?)
            }
            None => (None, StoredMembership::default()),
        };
        Ok(StateMachine {
            view,
            outlet,
            applied,
            membership,
            record_bytes_max,
            unsaved_bytes: 0,
            heavy_log: Arc::new(Notify::new()),
            outgoing,
            durable,
            meters,
            member,
            mandate: applied.as_ref().map(mandate).unwrap_or_default(),
            told: watch::Sender::new(applied.map_or(0, |applied| applied.index)),
        })
    }

    /// How far entries are applied, and a way to wait for more.
    pub fn told(&self) -> watch::Receiver<u64> {
        self.told.subscribe()
    }

    /// Notified when a snapshot is due for the log's size.
    pub fn heavy_log(&self) -> Arc<Notify> {
        self.heavy_log.clone()
    }

    /// Applies entries that are at hand; the store is told once for all of them.
    fn apply_chunk(&mut self, chunk: Vec<EntryResponder<TypeConfig>>) -> io::Result<()> {
        let view = self.view.clone();
        let mut outcomes = Vec::with_capacity(chunk.len());
        let mut machine = view.machine.write();
        let mut ahead = Ahead::new(view.store(), machine.revision(), chunk.len());
        for (entry, responder) in chunk {
            let applied = self.apply_one(&mut machine, entry, &mut ahead)?;
            outcomes.push((applied, responder));
        }
        // Readers must find the records of all that the machine speaks of, so the store has them before the lock is free.
        view.store().write(ahead.writes, self.applied_bytes(&machine)).map_err(io::Error::other)?;
        drop(machine);
        for (applied, responder) in outcomes {
            let Applied { mandate, reply, effects, ticket } = applied;
            if mandate > self.mandate {
                self.mandate = mandate;
                self.outlet.led(mandate);
            }
            if !effects.is_empty() {
                self.outlet.follow(Position { term: mandate.term, index: reply.index }, effects);
            }
            match ticket {
                // Who proposed it for another has nobody to tell.
                Some(ticket) if ticket.member == self.member => self.outlet.answer(ticket.number, reply),
                Some(_) => drop(responder),
                None => {
                    if let Some(responder) = responder {
                        responder.send(reply);
                    }
                }
            }
        }
        if let Some(id) = &self.applied {
            let mandate = mandate(id);
            if mandate > self.mandate {
                self.mandate = mandate;
                self.outlet.led(mandate);
            }
            self.told.send_replace(id.index);
        }
        Ok(())
    }

    fn apply_one(
        &mut self,
        machine: &mut Machine,
        entry: Entry,
        ahead: &mut Ahead<'_>,
    ) -> io::Result<Applied> {
        self.applied = Some(entry.log_id);
        let mandate = mandate(&entry.log_id);
        let at = Position { term: mandate.term, index: entry.log_id.index };
        let mut answer = Ok(Response::MemberPublished);
        let (mut effects, mut ticket) = (Vec::new(), None);
        match entry.payload {
            EntryPayload::Blank => {}
            EntryPayload::Membership(membership) => {
                ahead.take(machine.set_members(members(&membership)));
                let voters = !membership.voter_ids().eq(self.membership.membership().voter_ids());
                effects.push(Effect::MembersChanged { voters });
                self.membership = StoredMembership::new(Some(entry.log_id), membership);
            }
            EntryPayload::Normal(proposal) => {
                let known = self.weighed(proposal).command().filter(|(command, _)| command.wish.is_some());
                let (command, by) = known.ok_or_else(|| unknown(at))?;
                ticket = by;
                let applied = machine.apply(at, &command, ahead).map_err(io::Error::other)?;
                answer = applied.answer;
                effects = applied.effects;
                ahead.take(applied.writes);
            }
        }
        let reply = Reply { answer, revision: machine.revision(), index: at.index };
        Ok(Applied { mandate, reply, effects, ticket })
    }

    fn weighed(&mut self, proposal: Proposal) -> Proposal {
        self.unsaved_bytes += proposal.0.len();
        if self.unsaved_bytes >= UNSAVED_BYTES_MAX {
            self.unsaved_bytes = 0;
            self.heavy_log.notify_one();
        }
        proposal
    }

    fn applied_bytes(&self, machine: &Machine) -> Bytes {
        let applied = internal::Applied {
            position: self.applied.as_ref().map(codec::position_message),
            membership_position: self.membership.log_id().as_ref().map(codec::position_message),
            membership: Some(codec::membership_message(self.membership.membership())),
            revision: machine.revision().0,
            compacted: machine.compacted().0,
            installed: false,
        };
        applied.encode_to_vec().into()
    }
}

/// What came of one entry.
struct Applied {
    mandate: Mandate,
    reply: Reply,
    effects: Vec<Effect>,
    ticket: Option<Ticket>,
}

fn mandate(id: &LogId) -> Mandate {
    let leader = id.committed_leader_id();
    Mandate { term: leader.term, member: leader.node_id }
}

/// To pass over what others apply would be to part from them.
fn unknown(at: Position) -> io::Error {
    let text = format!(
        "log entry {} holds a command that this version does not know; upgrade this member",
        at.index
    );
    io::Error::new(io::ErrorKind::InvalidData, text)
}

/// The writes of a chunk of entries, of which the store is yet to be told, and with them all records there are.
struct Ahead<'a> {
    store: &'a Store,
    /// Where the store stood before: no record up to here is among the writes.
    base: Revision,
    writes: Vec<Write>,
    /// Which of the writes are records; those are in the order of their places.
    records: Vec<u32>,
}

impl<'a> Ahead<'a> {
    fn new(store: &'a Store, base: Revision, entries: usize) -> Ahead<'a> {
        Ahead { store, base, writes: Vec::with_capacity(entries), records: Vec::with_capacity(entries) }
    }

    fn take(&mut self, writes: Vec<Write>) {
        for write in writes {
            if matches!(write, Write::Record { .. }) {
                self.records.push(self.writes.len() as u32);
            }
            self.writes.push(write);
        }
    }

    fn written(&self, place: Place) -> Option<&Bytes> {
        if place.revision() <= self.base {
            return None;
        }
        let record = |&at: &u32| match &self.writes[at as usize] {
            Write::Record { at, bytes } => Some((*at, bytes)),
            Write::DropRecord { .. } | Write::Meta { .. } => None,
        };
        let found =
            self.records.binary_search_by_key(&Some(place), |at| record(at).map(|(at, _)| at)).ok()?;
        record(&self.records[found]).map(|(_, bytes)| bytes)
    }
}

impl Records for Ahead<'_> {
    fn record(&self, place: Place) -> Result<Option<Bytes>, Fatal> {
        match self.written(place) {
            Some(bytes) => Ok(Some(bytes.clone())),
            None => self.store.record(place),
        }
    }
}

fn members(membership: &Membership) -> Vec<Member> {
    let voters: std::collections::BTreeSet<u64> = membership.voter_ids().collect();
    let member = |(id, peer): (&u64, &super::types::Peer)| Member {
        id: *id,
        peer_urls: peer.peer_urls.clone(),
        is_learner: !voters.contains(id) && !peer.voter_wanted,
        ..Member::default()
    };
    membership.nodes().map(member).collect()
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = Data;
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<S>(&mut self, entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + Send,
    {
        let mut chunks = entries.ready_chunks(ENTRIES_AT_ONCE);
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.into_iter().collect::<io::Result<Vec<_>>>()?;
            self.view.store().room().await.map_err(io::Error::other)?;
            if let Some((last, _)) = chunk.last() {
                self.durable.wait(last.log_id.index).await?;
            }
            let (since, entries) = (Stopwatch::start(), chunk.len());
            self.apply_chunk(chunk)?;
            self.meters.apply.applied(entries, since.read());
        }
        Ok(())
    }

    async fn try_create_snapshot_builder(&mut self, force: bool) -> Option<SnapshotBuilder> {
        if self.outgoing.any() && !force {
            return None;
        }
        Some(self.get_snapshot_builder().await)
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        self.unsaved_bytes = 0;
        // Between two applies, so the store, once it has caught up, stands exactly at `applied`.
        // Should the store have failed, so does taking the snapshot.
        let _ = self.view.store().settled().await;
        SnapshotBuilder::new(&self.view, self.applied, self.membership.clone())
    }

    async fn install_snapshot(&mut self, meta: &snapshot::Meta, data: Data) -> io::Result<()> {
        let (view, record_bytes_max) = (self.view.clone(), self.record_bytes_max);
        simulation::blocking(move || snapshot::install(&view, data, record_bytes_max))
            .await
            .map_err(io::Error::other)??;
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        self.unsaved_bytes = 0;
        self.outlet.restored();
        if let Some(id) = &self.applied {
            let mandate = mandate(id);
            if mandate > self.mandate {
                self.mandate = mandate;
                self.outlet.led(mandate);
            }
            self.told.send_replace(id.index);
        }
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<snapshot::Snapshot>> {
        if self.applied.is_none() {
            return Ok(None);
        }
        self.get_snapshot_builder().await.current().map(Some)
    }
}
