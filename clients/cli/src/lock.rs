//! The verbs `lock` and `sem`: a command that runs while a lock, or some permits of one, are held.

use std::ffi::OsString;
use std::time::Duration;

use clap::Args;
use tenure_client::{Client, Lock, Locked, Session};

use crate::endpoints::Endpoints;
use crate::failure::Failure;
use crate::onlooker;
use crate::running::{Running, Stop, Work, environment, warn};
use crate::signals::{self, Signals};
use crate::{span, whoami};

const EXAMPLES: &str = "\
The command finds in its environment: TENURE_TOKEN (the fencing token: later holders have greater ones), TENURE_GUARD (for `tenure put
--guard` and the metadata tenure-guard), TENURE_SESSION, TENURE_NAME, TENURE_ENDPOINTS. When the lock is lost it gets SIGTERM a little
before others may have it, and SIGKILL when they may. It is killed when this program dies.

Exit codes: the command's own; 75 the lock was not to be had; 76 it was lost while the command ran; 77 no member answered;
126, 127 the command cannot be run, or is not there.

Examples:
  tenure lock jobs/nightly -- ./nightly.sh
  tenure lock jobs/nightly --try -- ./nightly.sh || [ $? = 75 ]
  tenure lock db/schema --wait 10m --ttl 30s -- ./migrate.sh
  tenure lock catalogue --shared -- ./read-only-report.sh";

const SEM_EXAMPLES: &str = "\
As `tenure lock`, with a number of permits: `tenure lock --help` says what the command is told, and the exit codes.

Examples:
  tenure sem gpus --capacity 4 -- ./train.sh
  tenure sem gpus --capacity 4 --permits 2 --wait 1h -- ./train-large.sh";

/// How to come to a lock.
#[derive(Args)]
struct Waiting {
    /// Do not wait
    #[arg(long, conflicts_with = "wait")]
    r#try: bool,
    /// How long to wait [default: as long as it takes]
    #[arg(long, value_name = "SPAN", value_parser = span::parse)]
    wait: Option<Duration>,
    /// How long others have to wait when this machine dies; the network may be away for almost as long
    #[arg(long, value_name = "SPAN", default_value = "15s", value_parser = span::parse)]
    ttl: Duration,
    /// If it is lost, let nobody have it for so long: for commands whose last request may still be under way
    #[arg(long, value_name = "SPAN", value_parser = span::parse)]
    delay: Option<Duration>,
    #[command(flatten)]
    endpoints: Endpoints,
    /// What to run while it is held
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct LockCommand {
    name: String,
    /// Along with others who share
    #[arg(long)]
    shared: bool,
    #[command(flatten)]
    waiting: Waiting,
}

#[derive(Args)]
#[command(after_help = SEM_EXAMPLES)]
pub struct Sem {
    name: String,
    /// How many permits there are, the same for all who ask [default: as set, or as others have said]
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    capacity: u32,
    /// How many are wanted
    #[arg(long, value_name = "N", default_value_t = 1)]
    permits: u32,
    #[command(flatten)]
    waiting: Waiting,
}

impl LockCommand {
    pub async fn run(self) -> Result<u8, Failure> {
        let shared = self.shared;
        self.waiting.run(&self.name, |lock| if shared { lock.shared() } else { lock }).await
    }
}

impl Sem {
    pub async fn run(self) -> Result<u8, Failure> {
        let (permits, capacity) = (self.permits, self.capacity);
        self.waiting.run(&self.name, |lock| lock.permits(permits, capacity)).await
    }
}

impl Waiting {
    async fn run(self, name: &str, kind: impl Fn(Lock) -> Lock) -> Result<u8, Failure> {
        let client = self.endpoints.client()?;
        let labels = whoami::labels(&self.command);
        let session = client.labelled_session(self.ttl, labels.clone()).await;
        let session = session.map_err(|error| Failure::from(error).before_command())?;
        let mut lock = kind(client.lock(name)).session(&session);
        for (key, value) in labels {
            lock = lock.label(key, value);
        }
        if let Some(delay) = self.delay {
            lock = lock.delay(delay);
        }
        let acquired = self.acquire(&client, name, &lock, session.id()).await;
        let ended = match acquired {
            Ok(locked) => self.work(locked).await,
            Err(failure) => Err(failure),
        };
        close(&session).await;
        ended
    }

    async fn acquire(
        &self,
        client: &Client,
        name: &str,
        lock: &Lock,
        session: i64,
    ) -> Result<Locked, Failure> {
        let mut signals = Signals::listen()?;
        let asked = async {
            match (self.r#try, self.wait) {
                (true, _) => lock.try_acquire().await,
                (false, Some(wait)) => lock.acquire_within(wait).await,
                (false, None) => lock.acquire().await.map(Some),
            }
        };
        let locked = tokio::select! {
            locked = asked => locked.map_err(|error| Failure::from(error).before_command())?,
            never = onlooker::look_on(client, name, session) => match never {},
            signal = signals.next() => {
                let text = format!("received {} while waiting for {name}", signals::name(signal));
                return Err(Failure::not_acquired(text));
            }
        };
        locked.ok_or_else(|| {
            Failure::not_acquired(format!("{name} is held by others; `tenure why {name}` says by whom"))
        })
    }

    async fn work(&self, locked: Locked) -> Result<u8, Failure> {
        let environment = environment(&locked, self.endpoints.list());
        let running = Running::start(Work { command: self.command.clone(), environment })?;
        let stop = async {
            tokio::select! {
                why = locked.lost() => Stop::Lost {
                    why: why.to_string(),
                    kill_after: locked.session().remaining_at_server(),
                },
                request = locked.release_requested() => {
                    Stop::Asked(format!("{} asks to let go: {}", request.by, request.reason))
                }
            }
        };
        let ended = running.end(stop).await;
        // Only now that the command has ended.
        if locked.check().is_ok()
            && let Err(error) = locked.release().await
        {
            warn(&format!("the lock is free when its session runs out; releasing it failed: {error}"));
        }
        ended
    }
}

/// With it goes the place in the queue. What is left of it otherwise runs out by itself.
pub async fn close(session: &Session) {
    if session.check().is_ok()
        && let Err(error) = session.close().await
    {
        warn(&format!("the session runs out by itself; closing it failed: {error}"));
    }
}
