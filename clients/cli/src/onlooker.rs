//! What somebody at a terminal sees while a lock is waited for: who holds it, when it will be free, and who comes first. Nothing is
//! drawn where standard error is no terminal, or while the shell has this program in the background.

use std::convert::Infallible;
use std::io::IsTerminal;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use rustix::process::getpgrp;
use rustix::termios::tcgetpgrp;
use tenure_client::Client;
use tenure_client::proto::tenure::v1::{InspectLockResponse, LockMode, LockWaiter};

use crate::show::inspect;
use crate::{span, whoami};

/// Between two looks at who is in the way.
const LOOK: Duration = Duration::from_secs(1);
/// Named of those who come first; there may be more.
const NAMED_MAX: usize = 3;
const LINES: usize = 4;
/// How long the lines may take to go.
const CLEAR_MAX: Duration = Duration::from_millis(200);

/// For as long as it is polled. `session`: whose place in the queue it is.
pub async fn look_on(client: &Client, name: &str, session: i64) -> Infallible {
    if !std::io::stderr().is_terminal() {
        return std::future::pending().await;
    }
    let screen = Screen::start();
    loop {
        if in_foreground()
            && let Ok(state) = inspect(client, name).await
        {
            screen.show(lines(name, &state, session));
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn in_foreground() -> bool {
    tcgetpgrp(std::io::stderr()).is_ok_and(|group| group == getpgrp())
}

/// A few lines that are drawn over, each cut at the terminal's edge; gone once it is dropped. Drawn by a thread of its own: a terminal
/// that takes nothing, such as after Ctrl-S, must not cost the session its renewals.
struct Screen {
    /// None: it is being dropped.
    texts: Option<SyncSender<Vec<String>>>,
    cleared: Receiver<Infallible>,
}

impl Screen {
    fn start() -> Screen {
        let (texts, shown) = sync_channel(1);
        let (done, cleared) = sync_channel(0);
        tokio::task::spawn_blocking(move || {
            draw(&shown);
            drop(done);
        });
        Screen { texts: Some(texts), cleared }
    }

    fn show(&self, texts: Vec<String>) {
        if let Some(sender) = &self.texts {
            // What a terminal cannot take is left out.
            let _ = sender.try_send(texts);
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.texts = None;
        // Before others write there; whether it was in time or not, there is no more to do.
        let _ = self.cleared.recv_timeout(CLEAR_MAX);
    }
}

fn draw(shown: &Receiver<Vec<String>>) {
    let all = MultiProgress::new();
    let style = |template| ProgressStyle::with_template(template).expect("a constant template");
    let line = |at| {
        let template = if at == 0 { "{spinner} {wide_msg}" } else { "  {wide_msg}" };
        all.add(ProgressBar::new_spinner().with_style(style(template)))
    };
    let lines: Vec<ProgressBar> = (0..LINES).map(line).collect();
    while let Ok(mut texts) = shown.recv() {
        texts.resize(LINES, String::new());
        for (line, text) in lines.iter().zip(texts) {
            line.set_message(text);
            line.tick();
        }
    }
    // It fails only where there is nobody to see it.
    let _ = all.clear();
}

fn lines(name: &str, state: &InspectLockResponse, session: i64) -> Vec<String> {
    let waiters = &state.waiters;
    let place = waiters.iter().position(|waiter| waiter.session_id == session);
    let (first, since) = match place {
        Some(place) => (&waiters[..place], format!(" for {}", span::ago(waiters[place].since_unix_ms))),
        None => (&waiters[..], String::new()),
    };
    let place = place.map(|place| format!(", place {} of {} in line", place + 1, waiters.len()));
    let mut lines = vec![format!("waiting for {name}{since}{}", place.unwrap_or_default())];
    lines.extend(obstacle(state));
    lines.push(match first {
        [] => "nobody waits before this".to_owned(),
        first => format!("before this: {}", named(first)),
    });
    lines
}

/// Who or what is in the way, and until when.
fn obstacle(state: &InspectLockResponse) -> Vec<String> {
    if let Some(holder) = state.holders.first() {
        let others = state.holders.len() - 1;
        let others = if others > 0 { format!(" and {others} more") } else { String::new() };
        let shared = if holder.mode() == LockMode::Shared { " shared" } else { "" };
        let who = whoami::show(&holder.labels, &holder.owner_id);
        let command = holder.labels.get("command").map(|command| format!(": {command}")).unwrap_or_default();
        let free = match holder.remaining_s {
            0.. => format!("in {} if that is dead", span::left(holder.remaining_s)),
            _ => "or when its session runs out".to_owned(),
        };
        return vec![
            format!("held{shared} by {who}{others} for {}{command}", span::ago(holder.since_unix_ms)),
            format!("free when that ends; {free}"),
        ];
    }
    match state.lock.as_ref().and_then(|lock| lock.delay.as_ref()) {
        Some(delay) => vec![
            format!("held by nobody since {} was lost, which asked for a delay", delay.lost_owner_id),
            format!("free in {}", span::left(delay.remaining_s)),
        ],
        None => vec!["held by nobody; it is handed on".to_owned()],
    }
}

fn named(waiters: &[LockWaiter]) -> String {
    let who = |waiter: &LockWaiter| {
        let who = whoami::show(&waiter.labels, &waiter.owner_id);
        format!("{who} for {}", span::ago(waiter.since_unix_ms))
    };
    let named: Vec<String> = waiters.iter().take(NAMED_MAX).map(who).collect();
    match waiters.len().saturating_sub(NAMED_MAX) {
        0 => named.join(", "),
        more => format!("{} and {more} more", named.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use tenure_client::proto::tenure::v1::{LockDelay, LockHolder, LockSummary};

    use super::*;

    fn holder(id: &str) -> LockHolder {
        let labels = [("command".to_owned(), "sleep 60".to_owned())].into();
        let mode = LockMode::Exclusive.into();
        LockHolder { owner_id: id.into(), labels, mode, remaining_s: 12, ..LockHolder::default() }
    }

    fn waiter(session_id: i64) -> LockWaiter {
        LockWaiter { session_id, owner_id: format!("w{session_id}"), ..LockWaiter::default() }
    }

    #[test]
    fn it_says_who_holds_who_comes_first_and_when_it_is_free() {
        let waiters = (1..=6).map(waiter).collect();
        let held = InspectLockResponse { holders: vec![holder("h")], waiters, ..Default::default() };
        let shown = lines("jobs", &held, 6);
        assert!(shown[0].starts_with("waiting for jobs for ") && shown[0].ends_with("place 6 of 6 in line"));
        assert!(shown[1].starts_with("held by h for ") && shown[1].ends_with(": sleep 60"), "{shown:?}");
        assert_eq!(shown[2], "free when that ends; in 12s if that is dead");
        assert!(
            shown[3].starts_with("before this: w1 for ") && shown[3].ends_with(" and 2 more"),
            "{shown:?}"
        );
        assert_eq!(lines("jobs", &held, 1)[3], "nobody waits before this");
        assert_eq!(lines("jobs", &held, 7)[0], "waiting for jobs");
        let delay = LockDelay { remaining_s: 9, lost_owner_id: "gone".into(), ..LockDelay::default() };
        let lock = Some(LockSummary { delay: Some(delay), ..LockSummary::default() });
        let delayed = lines("jobs", &InspectLockResponse { lock, ..Default::default() }, 1);
        assert!(delayed[1].contains("gone was lost") && delayed[2] == "free in 9s", "{delayed:?}");
        assert!(lines("jobs", &InspectLockResponse::default(), 1).len() <= LINES);
    }
}
