//! The bound on what the store may hold, counted over all records that history still has. Above it an alarm goes up, by
//! which the whole cluster refuses what grows; deleting and compacting bring it down again.

use std::sync::Arc;
use std::time::Duration;

use tenure_proto::etcdserverpb::alarm_request::AlarmAction;
use tenure_proto::etcdserverpb::{AlarmRequest, AlarmType};
use tenure_proto::internal::command::Wish;
use tenure_state::{Machine, Refusal};

use super::error::Error;
use super::leases::command;
use super::writer::Writer;
use crate::raft::View;

/// What a put costs beside its key and value, bytes: etcd's estimate.
const PUT_OVERHEAD: u64 = 256;
/// The alarm is taken back when less than this share of the quota is used, in tenths.
const LOW_WATER_TENTHS: u64 = 9;
/// How often it is looked at while the alarm is up.
const LOOK: Duration = Duration::from_secs(1);
/// What is said of a store without a record: clients take a size of 0 for a member that is not well.
const EMPTY_DATABASE_BYTES: u64 = 4096;

/// How large the data is said to be, bytes: to clients that ask for the status, and to Prometheus.
pub struct DatabaseSize {
    /// All records that history still has.
    pub total: u64,
    /// Those that are some key's value now.
    pub in_use: u64,
}

impl DatabaseSize {
    pub fn of(machine: &Machine) -> DatabaseSize {
        let index = machine.index();
        let told = |bytes| EMPTY_DATABASE_BYTES + bytes;
        DatabaseSize { total: told(index.record_bytes()), in_use: told(index.live_bytes()) }
    }
}

#[derive(Clone)]
pub struct Quota {
    view: Arc<View>,
    writer: Writer,
    member: u64,
    /// None: no bound.
    bytes_max: Option<u64>,
}

impl Quota {
    pub fn new(view: Arc<View>, writer: Writer, member: u64, bytes_max: Option<u64>) -> Quota {
        Quota { view, writer, member, bytes_max }
    }

    /// None: no bound.
    pub fn bytes_max(&self) -> Option<u64> {
        self.bytes_max
    }

    /// Whether a request that adds about `bytes` still has room. The first that has none raises the alarm.
    pub async fn admit(&self, bytes: usize) -> Result<(), Error> {
        let Some(bytes_max) = self.bytes_max else { return Ok(()) };
        if self.used() + bytes as u64 + PUT_OVERHEAD <= bytes_max || bytes == 0 {
            return Ok(());
        }
        if !self.is_raised() {
            tracing::warn!(
                quota_bytes = bytes_max,
                "out of space: raising the NOSPACE alarm; delete keys and compact"
            );
            self.writer.write_own(self.alarm(AlarmAction::Activate)).await?;
        }
        Err(Refusal::NoSpace.into())
    }

    /// Takes this member's alarm back once there is room again.
    pub async fn watch_over(self) {
        let Some(bytes_max) = self.bytes_max else { return };
        loop {
            tokio::time::sleep(LOOK).await;
            if self.is_raised() && self.used() < bytes_max / 10 * LOW_WATER_TENTHS {
                match self.writer.write_own(self.alarm(AlarmAction::Deactivate)).await {
                    Ok(_) => tracing::info!("there is room again: NOSPACE is cleared"),
                    Err(error) => tracing::warn!(?error, "could not clear NOSPACE; trying again"),
                }
            }
        }
    }

    fn used(&self) -> u64 {
        self.view.machine().index().record_bytes()
    }

    fn is_raised(&self) -> bool {
        !self.view.machine().alarms().list(self.member, AlarmType::Nospace).is_empty()
    }

    fn alarm(&self, action: AlarmAction) -> tenure_proto::internal::Command {
        command(Wish::Alarm(AlarmRequest {
            action: action as i32,
            member_id: self.member,
            alarm: AlarmType::Nospace as i32,
        }))
    }
}
