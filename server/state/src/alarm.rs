//! Alarms: conditions of single members under which the whole cluster takes fewer requests.

use std::collections::BTreeSet;

use bytes::Bytes;
use prost::Message;
use tenure_proto::etcdserverpb::request_op::Request;
use tenure_proto::etcdserverpb::{AlarmMember, AlarmType, TxnRequest};
use tenure_proto::internal::command::Wish;

use crate::answer::Refusal;
use crate::change::{Effect, Write};
use crate::stored;

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Alarms {
    raised: BTreeSet<(i32, u64)>,
}

type Outcome = (Vec<AlarmMember>, Vec<Effect>, Vec<Write>);

impl Alarms {
    /// Those of `member` (0 = any) and of kind `alarm` (None = any).
    pub fn list(&self, member: u64, alarm: AlarmType) -> Vec<AlarmMember> {
        let wanted = |&&(kind, id): &&(i32, u64)| {
            (member == 0 || id == member) && (alarm == AlarmType::None || kind == alarm as i32)
        };
        self.raised
            .iter()
            .filter(wanted)
            .map(|&(alarm, member_id)| AlarmMember { member_id, alarm })
            .collect()
    }

    pub fn is_raised(&self, alarm: AlarmType) -> bool {
        self.raised.iter().any(|&(kind, _)| kind == alarm as i32)
    }

    /// Whether a command may be looked at while alarms stand. Out of space: what makes the store larger may not.
    /// Corrupt: nothing that reads or writes keys or leases may.
    pub(crate) fn permit(&self, wish: &Wish) -> Result<(), Refusal> {
        if self.raised.is_empty() {
            return Ok(());
        }
        let (grows, touches) = match wish {
            Wish::Put(_) => (true, true),
            Wish::Txn(txn) => (puts(txn), true),
            Wish::LeaseGrant(_) => (true, true),
            Wish::DeleteRange(_) | Wish::Compact(_) | Wish::LeaseRevoke(_) | Wish::LeaseExpire(_) => {
                (false, true)
            }
            Wish::LeaseCheckpoint(_) | Wish::Alarm(_) | Wish::MemberPublish(_) => (false, false),
        };
        if touches && self.is_raised(AlarmType::Corrupt) {
            return Err(Refusal::Corrupt);
        }
        if grows && self.is_raised(AlarmType::Nospace) {
            return Err(Refusal::NoSpace);
        }
        Ok(())
    }

    /// Gives the alarm whether or not it was raised before.
    pub(crate) fn raise(&mut self, member: u64, alarm: AlarmType) -> Outcome {
        if alarm == AlarmType::None {
            return Outcome::default();
        }
        let raised = AlarmMember { member_id: member, alarm: alarm as i32 };
        if !self.raised.insert((alarm as i32, member)) {
            return (vec![raised], Vec::new(), Vec::new());
        }
        let key = stored::alarm_key(member, alarm as i32);
        let write = Write::Meta { key, value: Some(Bytes::from(raised.encode_to_vec())) };
        (vec![raised], vec![Effect::AlarmRaised(raised)], vec![write])
    }

    pub(crate) fn clear(&mut self, member: u64, alarm: AlarmType) -> Outcome {
        let cleared = self.list(member, alarm);
        let (mut effects, mut writes) = (Vec::new(), Vec::new());
        for alarm in &cleared {
            self.raised.remove(&(alarm.alarm, alarm.member_id));
            effects.push(Effect::AlarmCleared(*alarm));
            writes.push(Write::Meta { key: stored::alarm_key(alarm.member_id, alarm.alarm), value: None });
        }
        (cleared, effects, writes)
    }

    pub(crate) fn restore(&mut self, alarm: AlarmMember) {
        self.raised.insert((alarm.alarm, alarm.member_id));
    }
}

fn puts(txn: &TxnRequest) -> bool {
    txn.success.iter().chain(&txn.failure).any(|op| match &op.request {
        Some(Request::RequestPut(_)) => true,
        Some(Request::RequestTxn(nested)) => puts(nested),
        _ => false,
    })
}
