//! A planned switchover, and what whoever ordered it is told. The order, the deadline and the outcome are keys: the stream may break, and
//! the same id finds them again.

use std::collections::VecDeque;

use tenure_proto::etcdserverpb::RangeRequest;
use tenure_proto::tenure::v1::transfer_event::{Phase, Reason};
use tenure_proto::tenure::v1::{EndedTransfer, Handover, TransferEvent, TransferRequest};

use super::campaign::places;
use super::keys::{Keys, Place};
use super::rules::{self, Switching};
use super::state;
use super::wellformed;
use super::{Elections, asked, header};
use crate::primitives::{Change, Changes, Failure, Primitives};
use crate::refusal::Error;

/// A switchover that is being followed. Dropping it ends nothing.
#[derive(Debug)]
pub struct Following<P: Primitives> {
    elections: Elections<P>,
    keys: Keys,
    request: TransferRequest,
    /// None: to be begun, or begun anew.
    changes: Option<P::Changes>,
    ready: VecDeque<TransferEvent>,
    vacant: bool,
    over: bool,
    revision: i64,
}

impl<P: Primitives> Elections<P> {
    /// Orders a switchover, or attaches to one of that id.
    pub async fn transfer(&self, request: &TransferRequest) -> Result<Following<P>, Error> {
        wellformed::transfer(request)?;
        let mut following = Following {
            elections: self.clone(),
            keys: self.keys(&request.name),
            request: request.clone(),
            changes: None,
            ready: VecDeque::new(),
            vacant: false,
            over: false,
            revision: 0,
        };
        let (switching, revision) = following.switching().await?;
        following.begin(switching, revision).await?;
        Ok(following)
    }
}

impl<P: Primitives> Following<P> {
    /// Up to here nothing was missed.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// What happened next; None behind the outcome. May be dropped and called again.
    pub async fn next(&mut self) -> Result<Option<TransferEvent>, Error> {
        loop {
            if let Some(told) = self.ready.pop_front() {
                return Ok(Some(told));
            }
            if self.over {
                return Ok(None);
            }
            let Some(changes) = &mut self.changes else {
                self.read_anew().await?;
                continue;
            };
            match changes.next().await {
                Ok(change) => self.take(&change)?,
                Err(Failure::Compacted { .. }) => self.changes = None,
                Err(failure) => return Err(failure.into()),
            }
        }
    }

    async fn switching(&self) -> Result<(Switching, i64), Error> {
        let rule = |state: &state::State| rules::switch_over(state, &self.request);
        let decided = self.elections.decide(&self.keys, rule).await?;
        Ok((decided.answer, decided.revision))
    }

    async fn begin(&mut self, switching: Switching, revision: i64) -> Result<(), Error> {
        self.revision = revision;
        let event = TransferEvent { header: header(revision), ..TransferEvent::default() };
        let told = match switching {
            Switching::Under(handover) => {
                self.watch(revision).await?;
                TransferEvent { phase: Phase::Requested.into(), handover: Some(handover), ..event }
            }
            Switching::Over(ended) => {
                self.over = true;
                self.outcome(ended).await?
            }
            Switching::Leads(term) => {
                self.over = true;
                let (epoch, token) = (term.epoch, term.token);
                TransferEvent { phase: Phase::Committed.into(), epoch, token, ..event }
            }
            Switching::No(reason) => {
                self.over = true;
                TransferEvent { phase: Phase::Aborted.into(), reason: reason.into(), ..event }
            }
        };
        self.ready.push_back(told);
        Ok(())
    }

    async fn watch(&mut self, revision: i64) -> Result<(), Failure> {
        let (from, to) = self.keys.all();
        self.changes = Some(self.elections.primitives.watch(from, to, revision + 1).await?);
        Ok(())
    }

    /// Goes on behind what was compacted away: from how things are now, and without ordering anything.
    async fn read_anew(&mut self) -> Result<(), Error> {
        let state = self.elections.read(&self.keys).await?;
        let this = |handover: &Handover| handover.transfer_id == self.request.transfer_id;
        let ended = |it: &&state::Kept<EndedTransfer>| it.value.handover.as_ref().is_some_and(this);
        self.revision = state.revision;
        if state.handover.as_ref().is_some_and(|handover| this(&handover.value)) {
            return Ok(self.watch(state.revision).await?);
        }
        let told = match state.transfers.iter().find(ended) {
            Some(ended) => self.outcome(ended.value.clone()).await?,
            // Sixteen others have ended since.
            None => aborted(Reason::Superseded, state.revision),
        };
        self.over = true;
        self.ready.push_back(told);
        Ok(())
    }

    /// Of a switchover that was over before it was asked for.
    async fn outcome(&self, ended: EndedTransfer) -> Result<TransferEvent, Failure> {
        // The outcome was put in the revision in which the target's term began.
        let range =
            RangeRequest { keys_only: true, ..asked::key(self.keys.transfer(&self.request.transfer_id)) };
        let response = self.elections.primitives.range(range).await?;
        let token = response.kvs.first().map_or(0, |kv| kv.mod_revision);
        Ok(told(ended, token, self.revision))
    }

    fn take(&mut self, change: &Change) -> Result<(), Failure> {
        self.revision = change.revision;
        let mut vacant = false;
        for (place, put) in places(&self.keys, change) {
            match (place, put) {
                (Place::Transfer(id), Some(kv)) if id == self.request.transfer_id => {
                    self.over = true;
                    self.ready.push_back(told(state::decode(kv)?, change.revision, change.revision));
                    return Ok(());
                }
                (Place::Leader(_), None) => vacant = true,
                _ => {}
            }
        }
        if vacant && !std::mem::replace(&mut self.vacant, true) {
            let header = header(change.revision);
            self.ready.push_back(TransferEvent { header, phase: Phase::Vacant.into(), ..Default::default() });
        }
        Ok(())
    }
}

fn told(ended: EndedTransfer, token: i64, revision: i64) -> TransferEvent {
    let leads = matches!(ended.phase(), Phase::Committed | Phase::Forced);
    TransferEvent {
        header: header(revision),
        phase: ended.phase,
        reason: ended.reason,
        epoch: if leads { ended.epoch } else { 0 },
        token: if leads { token } else { 0 },
        handover: ended.handover,
    }
}

fn aborted(reason: Reason, revision: i64) -> TransferEvent {
    let header = header(revision);
    TransferEvent { header, phase: Phase::Aborted.into(), reason: reason.into(), ..TransferEvent::default() }
}
