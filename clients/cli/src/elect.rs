//! The verb `elect`: a command that runs while this process leads.

use std::ffi::OsString;
use std::time::Duration;

use clap::Args;
use tenure_client::Term;

use crate::endpoints::Endpoints;
use crate::failure::Failure;
use crate::lock::close;
use crate::running::{Running, Stop, Work, environment, warn};
use crate::signals::{self, Signals};
use crate::{span, whoami};

const EXAMPLES: &str = "\
Stands for election, and runs the command once it leads. The command finds in its environment what `tenure lock --help` says, and
TENURE_EPOCH. It gets SIGTERM when the lead is lost, or when an operator wants another to lead (`tenure transfer`); the lead is
handed over when it has ended.

Exit codes: the command's own; 75 ended before it was elected; 76 the lead was lost while the command ran; 77 no member answered.

Examples:
  tenure elect db/main --value 10.0.0.1:5432 -- ./serve.sh
  while tenure elect db/main --id $(hostname) --priority 5 -- ./serve.sh; do :; done";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Elect {
    name: String,
    /// Unique among the candidates [default: this host's name]
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// What the leader proclaims: its address, for instance
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    value: String,
    /// Greater is preferred
    #[arg(long, value_name = "N", default_value_t = 0, allow_negative_numbers = true)]
    priority: i32,
    /// How long others have to wait when this machine dies
    #[arg(long, value_name = "SPAN", default_value = "15s", value_parser = span::parse)]
    ttl: Duration,
    #[command(flatten)]
    endpoints: Endpoints,
    /// What to run while this leads
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

impl Elect {
    pub async fn run(self) -> Result<u8, Failure> {
        let client = self.endpoints.client()?;
        let labels = whoami::labels(&self.command);
        let session = client.labelled_session(self.ttl, labels.clone()).await;
        let session = session.map_err(|error| Failure::from(error).before_command())?;
        let id = self.id.clone().unwrap_or_else(whoami::host);
        let candidate = client.election(&self.name).candidate(id).session(&session);
        let candidate = candidate.priority(self.priority).value(&self.value).labels(labels);
        let mut signals = Signals::listen()?;
        warn(&format!("standing for {}; `tenure why {}` says who leads", self.name, self.name));
        let elected = std::sync::atomic::AtomicBool::new(false);
        let ended = {
            let campaign = candidate.run(|term| {
                elected.store(true, std::sync::atomic::Ordering::Relaxed);
                self.lead(term)
            });
            let mut campaign = std::pin::pin!(campaign);
            loop {
                tokio::select! {
                    ended = &mut campaign => break ended,
                    signal = signals.next() => {
                        // The command is passed the signal by whoever runs it, and this waits for its end.
                        if !elected.load(std::sync::atomic::Ordering::Relaxed) {
                            let text = format!("received {} before it was elected", signals::name(signal));
                            close(&session).await;
                            return Err(Failure::not_acquired(text));
                        }
                    }
                }
            }
        };
        close(&session).await;
        match ended {
            Ok(code) => code,
            Err(error) if elected.into_inner() => Err(Failure::lost(error)),
            Err(error) => Err(Failure::from(error).before_command()),
        }
    }

    async fn lead(&self, term: Term) -> Result<u8, Failure> {
        let mut environment = environment(&term, self.endpoints.list());
        environment.push(("TENURE_EPOCH", term.epoch().to_string()));
        warn(&format!("leading {}, epoch {}, token {}", term.name(), term.epoch(), term.token()));
        let running = Running::start(Work { command: self.command.clone(), environment })?;
        let stop = async {
            tokio::select! {
                why = term.lost() => Stop::Lost {
                    why: why.to_string(),
                    kill_after: term.session().remaining_at_server(),
                },
                handover = term.handover() => {
                    Stop::Asked(format!("{} is to take over", handover.to_candidate_id))
                }
            }
        };
        running.end(stop).await
    }
}
