//! The laws, one in each file: what must hold at every moment, and what must have held when a life is over. Each sees what
//! the witness sees, and nothing of why things happened.

mod acknowledged_kept;
mod election_safety;
mod headers_never_go_back;
mod lease_keys_together;
mod linearizable;
mod log_matching;
mod no_early_expiry;
mod no_late_acknowledgement;
mod no_late_end;
mod replicas_agree;
mod watch_complete;

use prost::Message;
use tenure_disk::wal::Wal;

use crate::journal::Journal;
use crate::member::{Desk, Member};
use crate::truth::Truth;
use crate::watching::Watching;

/// What the witness sees.
pub struct Scene<'a> {
    pub now_ms: u64,
    /// By member; None while it does not take part.
    pub sights: &'a [Option<Sight>],
    pub truth: &'a Truth,
    pub journal: &'a Journal,
    pub watchers: &'a [Watching],
}

impl Scene<'_> {
    pub fn living(&self) -> impl Iterator<Item = &Sight> {
        self.sights.iter().flatten()
    }
}

/// One member in one life.
pub struct Sight {
    pub member: usize,
    pub life: u64,
    pub desk: Desk,
    pub wal: Wal,
    pub serving: bool,
}

impl Sight {
    pub fn refresh(sight: &mut Option<Sight>, member: &Member) {
        if sight.as_ref().is_some_and(|sight| member.life.is_none() || sight.life != member.lives) {
            *sight = None;
        }
        match sight {
            Some(sight) => sight.serving = member.serving(),
            None => {
                let (Some(desk), Some(wal)) = (member.desk(), member.wal()) else { return };
                *sight = Some(Sight { member: member.index, life: member.lives, desk, wal, serving: false });
            }
        }
    }

    /// The index of the newest entry that its state comes from.
    pub fn applied(&self) -> u64 {
        let bytes = self.desk.view.store().applied().unwrap_or_default();
        let applied = tenure_proto::internal::Applied::decode(bytes).unwrap_or_default();
        applied.position.map_or(0, |position| position.index)
    }
}

pub trait Invariant {
    /// What must hold, in a few words.
    fn law(&self) -> &'static str;

    /// At every moment.
    fn look(&mut self, _scene: &Scene<'_>) -> Result<(), String> {
        Ok(())
    }

    /// When all is at rest.
    fn conclude(&mut self, _scene: &Scene<'_>) -> Result<(), String> {
        Ok(())
    }

    /// How many leaders it saw, if it looks at those.
    fn leaders(&self) -> usize {
        0
    }

    /// How many leases it judged that were left alone while the leader changed, if it looks at those.
    fn judged(&self) -> usize {
        0
    }
}

pub fn all() -> Vec<Box<dyn Invariant>> {
    vec![
        Box::new(election_safety::ElectionSafety::default()),
        Box::new(log_matching::LogMatching::default()),
        Box::new(replicas_agree::ReplicasAgree::default()),
        Box::new(acknowledged_kept::AcknowledgedKept),
        Box::new(headers_never_go_back::HeadersNeverGoBack::default()),
        Box::new(linearizable::Linearizable),
        Box::new(watch_complete::WatchComplete),
        Box::new(lease_keys_together::LeaseKeysTogether::default()),
        Box::new(no_early_expiry::NoEarlyExpiry),
        Box::new(no_late_acknowledgement::NoLateAcknowledgement),
        Box::new(no_late_end::NoLateEnd::default()),
    ]
}
