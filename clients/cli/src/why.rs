//! The verb `why`: in one paragraph, why a lock is not free, or an election where it is.

use clap::Args;
use tenure_client::proto::tenure::v1::election_leader_response::Pause;
use tenure_client::proto::tenure::v1::{ElectionLeaderResponse, InspectLockResponse, LockHolder, LockMode};

use crate::endpoints::Endpoints;
use crate::failure::Failure;
use crate::ls::{leader, value};
use crate::output::say;
use crate::show::{inspect, leading};
use crate::{span, whoami};

const EXAMPLES: &str = "\
Examples:
  tenure why jobs/nightly";

/// Named in the paragraph; there may be more.
const NAMED_MAX: usize = 3;

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Why {
    /// Of a lock or an election
    name: String,
    #[command(flatten)]
    endpoints: Endpoints,
}

impl Why {
    pub async fn run(self) -> Result<(), Failure> {
        let client = self.endpoints.client()?;
        let (lock, election) = (inspect(&client, &self.name).await?, leading(&client, &self.name).await?);
        let mut paragraphs = Vec::new();
        if election.term.is_some() || !election.candidates.is_empty() {
            paragraphs.push(about_election(&self.name, &election));
        }
        // Of a lock that is free there is nothing to say where an election is meant.
        let delayed = lock.lock.as_ref().is_some_and(|lock| lock.delay.is_some());
        if paragraphs.is_empty() || !lock.holders.is_empty() || !lock.waiters.is_empty() || delayed {
            paragraphs.push(about_lock(&self.name, &lock));
        }
        say(&paragraphs.join("\n"))
    }
}

fn about_lock(name: &str, state: &InspectLockResponse) -> String {
    let summary = state.lock.clone().unwrap_or_default();
    let mut text = match &state.holders[..] {
        [] => match &summary.delay {
            Some(delay) => format!(
                "The lock {name} is held by nobody, but {} was lost under it{}, and it asked that nobody have it for a while: \
                 free in {}.",
                delay.lost_owner_id,
                because(&delay.reason),
                span::left(delay.remaining_s)
            ),
            None => format!("The lock {name} is free."),
        },
        holders => {
            let named: Vec<String> = holders.iter().take(NAMED_MAX).map(holder).collect();
            let more = holders.len().saturating_sub(NAMED_MAX);
            let more = if more > 0 { format!(", and {more} more") } else { String::new() };
            let mode = match summary.mode() {
                LockMode::Exclusive => "held".to_owned(),
                LockMode::Shared => "shared".to_owned(),
                LockMode::Permits => {
                    format!("held ({} of {} permits)", summary.permits_used, summary.capacity)
                }
            };
            format!("The lock {name} is {mode} by {}{more}.", named.join("; "))
        }
    };
    if let Some(asked) = state.holders.iter().find_map(|holder| holder.release_requested.as_ref()) {
        text.push_str(&format!(" {} has asked for it{}.", asked.by, because(&asked.reason)));
    }
    match &state.waiters[..] {
        [] => text.push_str(" Nobody waits for it."),
        [next, rest @ ..] => {
            let who = whoami::show(&next.labels, &next.owner_id);
            text.push_str(&format!(" Next is {who}, waiting for {}", span::ago(next.since_unix_ms)));
            match rest.len() {
                0 => text.push('.'),
                count => text.push_str(&format!(", and {count} behind it.")),
            }
        }
    }
    text
}

fn holder(holder: &LockHolder) -> String {
    let who = whoami::show(&holder.labels, &holder.owner_id);
    let command = holder.labels.get("command").map(|command| format!(" (`{command}`)")).unwrap_or_default();
    let (since, left) = (span::ago(holder.since_unix_ms), span::left(holder.remaining_s));
    format!("{who}{command} for {since}, under token {}; if it is dead, it is free in {left}", holder.token)
}

fn because(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { format!(" ({reason})") }
}

fn about_election(name: &str, state: &ElectionLeaderResponse) -> String {
    let mut text = match state.term.as_ref().filter(|_| !state.vacant) {
        Some(term) => {
            let value = value(term);
            let value = if value.is_empty() { String::new() } else { format!(" ({value})") };
            format!(
                "The election {name} is led by {}{value}, in epoch {}, under token {}.",
                leader(term),
                term.epoch,
                term.token
            )
        }
        None => {
            let pause = match state.pause() {
                Pause::LockDelay => "the last leader was lost, and its delay is not over",
                Pause::Settle => "better candidates are waited for",
                Pause::NoCandidate => "nobody stands that can be elected",
                Pause::None => "the next leader is being elected",
            };
            format!("The election {name} is led by nobody: {pause}.")
        }
    };
    if let Some(handover) = &state.handover {
        text.push_str(&format!(" It is asked to hand over to {}.", handover.to_candidate_id));
    }
    match state.candidates.first() {
        Some(first) => {
            let count = state.candidates.len();
            let stand = if count == 1 { "One more stands".to_owned() } else { format!("{count} more stand") };
            text.push_str(&format!(" {stand}; the first in line is {}.", first.id));
        }
        None => text.push_str(" Nobody else stands."),
    }
    text
}
