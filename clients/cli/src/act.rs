//! The verbs with which operators interfere: `break`, `transfer`, `drain`, `undrain` and `kill`.

use std::time::Duration;

use clap::Args;
use tenure_client::proto::tenure::v1::set_instance_request::Change;
use tenure_client::proto::tenure::v1::set_instance_response::Outcome as Set;
use tenure_client::proto::tenure::v1::transfer_event::{Phase, Reason};
use tenure_client::proto::tenure::v1::*;

use crate::endpoints::Endpoints;
use crate::failure::Failure;
use crate::output::say;
use crate::{show, span, whoami};

const BREAK: &str = "\
Ends the grant of this token and no other, so that nobody breaks what he has not seen: `tenure show NAME` says the token. Its holder is
told, and cannot write under its guard any more; if what it does is not guarded, make sure that it has stopped.

Examples:
  tenure break jobs/nightly --token 812 --reason 'the host is dead'";

const TRANSFER: &str = "\
Asks the leader to hand over; when it does, the old term ends and the new one begins in one revision. Without --force a leader that
does not hand over in time stays.

Examples:
  tenure transfer db/main --to n2
  tenure transfer db/main --to n2 --deadline 60s --force";

const DRAIN: &str = "\
Examples:
  tenure drain web web-7 --deadline 2m --reason 'new kernel'
  tenure undrain web web-7";

#[derive(Args)]
#[command(after_help = BREAK)]
pub struct Break {
    /// Of the lock
    name: String,
    /// Of the grant that is to be ended
    #[arg(long, value_name = "TOKEN")]
    token: i64,
    /// Told to the holder and to those who look
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    reason: String,
    /// Of those who share the lock under one token, the one with this session, in hexadecimal
    #[arg(long, value_name = "SESSION", value_parser = crate::lease::id, requires = "owner")]
    session: Option<i64>,
    /// Likewise, the one with this id
    #[arg(long, value_name = "ID", requires = "session")]
    owner: Option<String>,
    /// Give the lock to the next at once, though it has a delay
    #[arg(long)]
    skip_delay: bool,
    #[command(flatten)]
    endpoints: Endpoints,
}

impl Break {
    pub async fn run(self) -> Result<(), Failure> {
        let request = BreakLockRequest {
            name: self.name.clone(),
            token: self.token,
            reason: self.reason,
            by: whoami::operator(),
            skip_delay: self.skip_delay,
            session_id: self.session.unwrap_or_default(),
            owner_id: self.owner.unwrap_or_default(),
        };
        match self.endpoints.client()?.operate().break_lock(request).await?.broken {
            true => say("broken"),
            false => {
                let text =
                    format!("{} is not held under token {}: it has ended already", self.name, self.token);
                Err(Failure::failed(text))
            }
        }
    }
}

#[derive(Args)]
#[command(after_help = TRANSFER)]
pub struct Transfer {
    /// Of the election
    name: String,
    /// The candidate that is to lead
    #[arg(long, value_name = "ID")]
    to: String,
    /// How long the leader has
    #[arg(long, value_name = "SPAN", default_value = "30s", value_parser = span::parse)]
    deadline: Duration,
    /// Depose a leader that has not handed over by then
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    endpoints: Endpoints,
}

impl Transfer {
    pub async fn run(self) -> Result<(), Failure> {
        let client = self.endpoints.client()?;
        // Another one for each switchover: this process at this leader's token.
        let token = show::leading(&client, &self.name).await?.term.map_or(0, |term| term.token);
        let request = TransferRequest {
            name: self.name.clone(),
            transfer_id: format!("{}:{}:{token}", whoami::host(), std::process::id()),
            to_candidate_id: self.to.clone(),
            deadline_s: i64::try_from(self.deadline.as_secs()).unwrap_or(i64::MAX).max(1),
            force: self.force,
            requested_by: whoami::operator(),
            ..TransferRequest::default()
        };
        let mut events = client.operate().transfer(request);
        loop {
            let event = events.next().await?;
            match event.phase() {
                Phase::Requested => say("asked the leader to hand over")?,
                Phase::Vacant => say("the leader is gone; waiting for the successor")?,
                Phase::Committed => return say(&format!("{} leads, epoch {}", self.to, event.epoch)),
                Phase::Forced => {
                    return say(&format!(
                        "{} leads, epoch {}, after the old leader was deposed or lost",
                        self.to, event.epoch
                    ));
                }
                Phase::Aborted => return Err(Failure::failed(why(event.reason(), &self.to))),
                Phase::Progress | Phase::Unspecified => {}
            }
        }
    }
}

fn why(reason: Reason, to: &str) -> String {
    match reason {
        Reason::Deadline => "the leader did not hand over in time, and stays; --force deposes it".to_owned(),
        Reason::TargetGone => format!("{to} does not stand, or cannot be elected"),
        Reason::Superseded => "somebody else came to lead meanwhile".to_owned(),
        Reason::Busy => "another transfer is under way".to_owned(),
        Reason::NoLeader => "nobody leads".to_owned(),
        Reason::None => "it was given up".to_owned(),
    }
}

#[derive(Args)]
#[command(after_help = DRAIN)]
pub struct Drain {
    service: String,
    /// Of the instance
    id: String,
    /// How long it has to come to an end
    #[arg(long, value_name = "SPAN", default_value = "5m", value_parser = span::parse)]
    deadline: Duration,
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    reason: String,
    /// Even if fewer are left than the service's policy allows
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    endpoints: Endpoints,
}

#[derive(Args)]
pub struct Undrain {
    service: String,
    /// Of the instance
    id: String,
    #[command(flatten)]
    endpoints: Endpoints,
}

impl Drain {
    pub async fn run(self) -> Result<(), Failure> {
        let drain = tenure_client::proto::tenure::v1::Drain {
            deadline_s: i64::try_from(self.deadline.as_secs()).unwrap_or(i64::MAX).max(1),
            reason: self.reason,
            ..Default::default()
        };
        set(&self.endpoints, self.service, self.id, Change::Drain(drain), self.force).await
    }
}

impl Undrain {
    pub async fn run(self) -> Result<(), Failure> {
        set(&self.endpoints, self.service, self.id, Change::Undrain(true), false).await
    }
}

async fn set(
    endpoints: &Endpoints,
    service: String,
    id: String,
    change: Change,
    force: bool,
) -> Result<(), Failure> {
    let text = format!("{id} of {service}");
    let request = SetInstanceRequest { service, id, change: Some(change), force, if_revision: 0 };
    let reply = endpoints.client()?.operate().set_instance(request).await?;
    match reply.outcome() {
        Set::Set | Set::Unspecified => say("done"),
        Set::NotRegistered => Err(Failure::failed(format!("there is no instance {text}"))),
        Set::MinAvailable => {
            let left = reply.routable;
            Err(Failure::failed(format!(
                "only {left} others could be sent work; --force does it nevertheless"
            )))
        }
        Set::Changed => Err(Failure::failed(format!("{text} was changed meanwhile; look again"))),
    }
}

#[derive(Args)]
pub struct Kill {
    /// In hexadecimal, as `tenure ls sessions` shows it
    #[arg(value_parser = crate::lease::id)]
    session: i64,
    /// Told to those who follow what it held
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    reason: String,
    #[command(flatten)]
    endpoints: Endpoints,
}

impl Kill {
    pub async fn run(self) -> Result<(), Failure> {
        let (session, reason) = (self.session, self.reason);
        let request = KillSessionRequest { session, reason, by: whoami::operator() };
        match self.endpoints.client()?.operate().kill_session(request).await?.killed {
            true => say("killed"),
            false => Err(Failure::failed(format!("there is no session {session:x}"))),
        }
    }
}
